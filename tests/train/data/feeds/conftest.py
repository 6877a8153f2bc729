"""What both feeds are tested with."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh


@pytest.fixture(scope="session")
def mesh() -> Mesh:
    return Mesh(np.array(jax.devices()), ("data",))
