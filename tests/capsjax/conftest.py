from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True)
def _generator_that_compiles_fast() -> Iterator[None]:
    """Initial values are drawn by rbg: threefry takes a second to compile for each shape."""
    with jax.default_prng_impl("rbg"):
        yield
