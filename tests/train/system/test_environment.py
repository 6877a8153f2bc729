"""The words of JAX and Python for an environment that they cannot work in."""

import errno
import resource

import pytest

from train.system.environment import explained, require_environment
from train.system.errors import UserError


def test_a_limit_that_jax_does_not_bear_is_refused(monkeypatch):
    require_environment()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2**30, 2**30))
    with pytest.raises(UserError, match=r"limited to 1.1 GB of addresses, but JAX needs 2.5 GB"):
        require_environment()


def test_without_compilation_nothing_is_done(monkeypatch):
    monkeypatch.setenv("JAX_DISABLE_JIT", "0")
    require_environment()
    monkeypatch.setenv("JAX_DISABLE_JIT", "True")
    with pytest.raises(UserError, match="JAX_DISABLE_JIT is set, but .*: unset it"):
        require_environment()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            RuntimeError(
                "Unable to initialize backend 'abacus': Backend 'abacus' is not in the list of "
                "known backends: ['cpu']. (set JAX_PLATFORMS='' to automatically choose one)"
            ),
            "JAX cannot use the backend abacus here (Backend 'abacus' is not in the list of known "
            "backends: ['cpu']), with JAX_PLATFORMS=abacus in the environment: correct or unset "
            "what is wrong there.",
        ),
        (
            ValueError('Invalid value "abc" for JAX flag jax_num_cpu_devices'),
            'the environment variable JAX_NUM_CPU_DEVICES is "abc", which JAX does not take: '
            "correct or unset it.",
        ),
        (
            ValueError("invalid truth value 'maybe' for environment 'JAX_DEBUG_NANS'"),
            "the environment variable JAX_DEBUG_NANS is 'maybe', which JAX does not take: correct "
            "or unset it.",
        ),
        (FloatingPointError("Invalid value (nan) encountered in sharded computation."), "a number"),
        (MemoryError(), "there is not enough memory, or too few threads are allowed (MemoryError)"),
        (ImportError("x.so: failed to map segment from shared object"), "there is not enough mem"),
        (OSError(errno.ENAMETOOLONG, "File name too long", 300 * "x"), f"{40 * 'x'}... is too"),
        (ValueError("a fault of ours"), None),
    ],
)
def test_what_jax_says_becomes_a_sentence(error, sentence, monkeypatch):
    for name in ("JAX_NUM_CPU_DEVICES", "CUDA_VISIBLE_DEVICES", "XLA_FLAGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", "abacus")
    said = explained(error)
    assert said == sentence if sentence is None else said.startswith(sentence)
