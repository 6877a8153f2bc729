"""One set-up for every test: eight virtual CPU devices and JAX's strictest settings.

A warning is an error (`filterwarnings` in pyproject.toml). An exception belongs there, with the
package and the reason; never in a test.
"""

import atexit
import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
# Programs of tests are compiled more often than they are run: without the optimiser of the machine
# code, which comes after all of XLA's own passes, and in one piece, since the tests keep all cores
# busy, they take a fifth less time. `XLA_FLAGS= make test` compiles as for users.
# And without its fusion emitters, which take most of the compiler's time (seen in jaxlib 0.10.2,
# which compiles in a quarter of it without them; 0.12 no longer knows the flag, and ends).
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
    + " --xla_cpu_use_fusion_emitters=false"
    * importlib.metadata.version("jaxlib").startswith("0.10."),
)

# What is compiled is kept for all processes of this session, those that share the tests out and
# those that the tests start, and never goes to the user's own cache.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="capsjax-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax
import pytest
from hypothesis import settings

# How long an example takes says nothing here: most compile something. Examples are the same every
# time, so that a commit passes or fails once and for all; `make soak` draws others.
settings.register_profile(
    "capsjax", deadline=None, derandomize="CAPSJAX_FUZZ_EXAMPLES" not in os.environ
)
settings.load_profile("capsjax")

TESTS = Path(__file__).parent

if os.environ["JAX_PLATFORMS"] == "cpu":
    jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_debug_nans", True)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_report_header() -> str | None:
    if importlib.util.find_spec("torch") is None:
        return "tests/parity: left out, PyTorch is not installed"
    return None


@pytest.fixture(autouse=True)
def _dtype_promotion(request: pytest.FixtureRequest) -> Iterator[None]:
    """Strict where the library is tested; the programs step optax's optimisers.

    optax (seen in 0.2.8, `tree.bias_correction`) computes `decay**count` of a float and an int32,
    which the strict rules refuse in Adam and all that is made from it.
    """
    programs = {TESTS / "train", TESTS / "parity"}
    rules = "standard" if programs & set(request.path.parents) else "strict"
    with jax.numpy_dtype_promotion(rules):
        yield


@pytest.fixture(scope="session")
def official_files() -> Path:
    """The folder whose `mnist` and `fashion-mnist` hold the official IDX files, or a skip."""
    named = os.environ.get("CAPSJAX_TEST_DATA")
    folder = Path(named) if named else TESTS.parent.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no official IDX files in {folder} (CAPSJAX_TEST_DATA names another folder)")
    return folder


@pytest.fixture(scope="session")
def mnist_dir(official_files: Path) -> Path:
    """The folder of the four official MNIST files."""
    return official_files / "mnist"


@pytest.fixture(scope="module", autouse=True)
def _programs_are_given_back() -> Iterator[None]:
    """A process may map only so much memory, and each compiled program takes some of it."""
    yield
    jax.clear_caches()
