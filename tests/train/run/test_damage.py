"""Whatever happens to the newest checkpoint: it is read as it was saved, or the one before is."""

import random
import shutil

from tests.soak.damage import harms
from tests.train.run.test_checkpoint_files import assert_same, save, state
from train.run.checkpoint_files import Checkpoints


def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used(tmp_path, capsys):
    """Some of all that can happen; `make soak` tries everything, many times."""
    whole = tmp_path / "whole"
    save(whole, (1, 0.5), (2, 0.25))
    chance = random.Random(0)
    cases = chance.sample(harms(whole / "2"), 12)
    outcomes = set()
    for number, (path, harm) in enumerate(cases):
        folder = tmp_path / str(number) / "checkpoints"
        shutil.copytree(whole, folder)
        harm(folder / path.relative_to(whole), chance)
        with Checkpoints(folder) as checkpoints:
            loaded = checkpoints.load(state(0))
            assert checkpoints.best_step() == 1
            assert_same(loaded, state(int(loaded.step)))
            said, aside = capsys.readouterr().err, folder.parent / "damaged-checkpoint-2"
            if int(loaded.step) == 1:
                assert "Checkpoint 2 in" in said
                assert aside.is_dir()
                assert checkpoints.steps() == [1]
            else:
                assert said == ""
                assert not aside.exists()
            outcomes.add(int(loaded.step))
    assert outcomes == {1, 2}  # some files say nothing about the state
