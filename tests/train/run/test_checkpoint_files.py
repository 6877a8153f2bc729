from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.learn.pmap import data_mesh, replicate
from train.learn.step import Skipped, TrainState
from train.run import checkpoint_files as module
from train.run.checkpoint_files import Checkpoints, snapshot
from train.system.errors import UserError


def state(step: int, devices: int = 4) -> TrainState:
    """A state whose every number tells its step."""
    return replicate(
        TrainState(
            step=jnp.asarray(step, jnp.int32),
            params={"layer": {"kernel": jnp.full((3, 4), float(step))}},
            model_state={"mean": jnp.full(2, step, jnp.bfloat16)},
            optimizer=({"count": jnp.asarray(step)}, jnp.arange(3.0) + step),
            key=jax.random.key(step),
            average={"layer": {"kernel": jnp.full((3, 4), step + 0.5)}},
            skipped=Skipped(jnp.asarray(step, jnp.int32), jnp.asarray(step + 1, jnp.int32)),
        ),
        data_mesh(devices, devices),
    )


def assert_same(actual: TrainState, expected: TrainState) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == theirs.dtype
        if jnp.issubdtype(ours.dtype, jax.dtypes.prng_key):
            ours, theirs = jax.random.key_data(ours), jax.random.key_data(theirs)
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "checkpoints"


def save(folder: Path, *steps: tuple[int, float | None]) -> None:
    with Checkpoints(folder) as checkpoints:
        for step, accuracy in steps:
            checkpoints.save(state(step), accuracy)


def damage(checkpoint: Path) -> None:
    """Cuts every array file of a checkpoint short."""
    files = [file for file in checkpoint.rglob("d/*") if file.is_file()]
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_a_state_comes_back_bit_for_bit(folder):
    save(folder, (7, 0.5))
    with Checkpoints(folder) as checkpoints:
        loaded = checkpoints.load(state(0))
    assert_same(loaded, state(7))
    assert loaded.params["layer"]["kernel"].sharding.is_fully_replicated


def test_a_checkpoint_loads_on_another_number_of_devices(folder):
    save(folder, (7, None))
    with Checkpoints(folder) as checkpoints:
        loaded = checkpoints.load(state(0, devices=1))
    assert_same(loaded, state(7))
    assert len(loaded.params["layer"]["kernel"].devices()) == 1


def test_the_last_two_and_the_best_are_kept(folder):
    save(folder, (1, 0.1), (2, 0.9), (3, None), (4, 0.8), (5, None), (6, 0.3))
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.steps() == [2, 5, 6]
        assert checkpoints.best_step() == 2
        assert int(checkpoints.load(state(0), "last").step) == 6
        assert int(checkpoints.load(state(0), "best").step) == 2


def test_without_any_evaluation_none_is_the_best(folder):
    save(folder, (1, None), (2, None))
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.best_step() is None
        assert int(checkpoints.load(state(0), "last").step) == 2
        with pytest.raises(UserError, match=r"none of the checkpoints in .* known to be the best"):
            checkpoints.load(state(0), "best")


def test_what_was_rated_by_test_accuracy_is_still_read(folder, monkeypatch):
    with monkeypatch.context() as before:
        before.setattr(module, "ACCURACY", module.OLD_ACCURACY)
        save(folder, (1, 0.9), (2, 0.8))
    with Checkpoints(folder) as checkpoints:
        assert int(checkpoints.load(state(0), "best").step) == 1


def test_a_step_that_is_saved_is_not_saved_again(folder):
    save(folder, (1, 0.5))
    save(folder, (1, 0.6))
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.steps() == [1]


def test_the_state_may_be_donated_while_it_is_saved(folder):
    @jax.jit
    def make():
        return jnp.full((512, 512), 1.0)

    overwrite = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    with Checkpoints(folder) as checkpoints:
        for step in range(1, 4):
            one = state(step)._replace(params={"x": make()})
            checkpoints.save(snapshot(one))
            for _ in range(3):
                one = one._replace(params={"x": overwrite(one.params["x"])})
        like = state(0)._replace(params={"x": make()})
    with Checkpoints(folder) as checkpoints:
        np.testing.assert_array_equal(checkpoints.load(like).params["x"], np.ones((512, 512)))


def test_a_damaged_newest_checkpoint_is_set_aside_for_the_one_before(folder, capsys):
    save(folder, (1, None), (2, None))
    damage(folder / "2")
    with Checkpoints(folder) as checkpoints:
        assert_same(checkpoints.load(state(0)), state(1))
        assert checkpoints.steps() == [1]
        checkpoints.save(state(2))  # which is possible again
    said = capsys.readouterr().err
    assert "Checkpoint 2" in said
    assert "is damaged" in said
    assert (folder.parent / "damaged-checkpoint-2").is_dir()
    with Checkpoints(folder) as checkpoints:
        assert_same(checkpoints.load(state(0)), state(2))


def test_what_another_process_cannot_read_is_set_aside_by_all(folder, monkeypatch, capsys):
    save(folder, (1, 0.2), (2, 0.5))
    answers = iter([False, True])
    monkeypatch.setattr(module.processes, "any_process", lambda own: own or next(answers))
    with Checkpoints(folder) as checkpoints:
        assert (checkpoints.steps(), checkpoints.best_step()) == ([1], 1)
    assert "Checkpoint 2" in (told := capsys.readouterr().err)
    assert "another process cannot read it" in told


def test_reading_changes_nothing(folder, capsys):
    save(folder, (1, None), (2, None))
    damage(folder / "2")
    before = sorted(folder.parent.rglob("*"))
    with Checkpoints(folder, read_only=True) as checkpoints:
        assert int(checkpoints.load(state(0)).step) == 1
    assert sorted(folder.parent.rglob("*")) == before
    assert "is damaged" in capsys.readouterr().err


def test_when_all_are_damaged_it_says_so(folder):
    save(folder, (1, None))
    damage(folder / "1")
    with (
        Checkpoints(folder, read_only=True) as checkpoints,
        pytest.raises(UserError, match="none of the checkpoints in .* can be read"),
    ):
        checkpoints.load(state(0))


def test_where_none_can_be_read_all_stay_where_they_are(folder, monkeypatch):
    """It may be a full memory or the network, and the next attempt has them all."""
    save(folder, (1, 0.9), (2, 0.1))
    before = sorted(folder.parent.rglob("*"))
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "_read", lambda *_: (None, "out of memory"))
        for _ in range(2):
            with (
                Checkpoints(folder) as checkpoints,
                pytest.raises(UserError, match=r"can be read \(2: out of memory; 1: out of memory"),
            ):
                checkpoints.load(state(0))
        patched.setattr(Checkpoints, "_metadata", lambda *_: 1 / 0)
        with Checkpoints(folder) as checkpoints:
            assert checkpoints.steps() == [1, 2]
    assert sorted(folder.parent.rglob("*")) == before
    with Checkpoints(folder) as checkpoints:
        assert_same(checkpoints.load(state(0)), state(2))


def test_a_damaged_best_checkpoint_is_not_replaced_by_another(folder):
    save(folder, (1, 0.9), (2, 0.1))
    damage(folder / "1")
    with (
        Checkpoints(folder, read_only=True) as checkpoints,
        pytest.raises(UserError, match="checkpoint 1 .* is damaged"),
    ):
        checkpoints.load(state(0), "best")


def test_no_checkpoint_is_told(folder):
    with pytest.raises(UserError, match="holds no complete checkpoint"):
        Checkpoints(folder, read_only=True)
    with (
        Checkpoints(folder) as checkpoints,
        pytest.raises(UserError, match="holds no complete checkpoint"),
    ):
        checkpoints.load(state(0))


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="checkpoints cannot be written to"):
        Checkpoints(tmp_path / "file" / "checkpoints")
