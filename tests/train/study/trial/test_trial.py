"""`python -m train claims`, with a claim about the embedded digits."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from tests.tolerance import assert_close
from train.__main__ import main
from train.data import load_dataset
from train.run.folder import load_run
from train.study import claims
from train.study.results import results_folder
from train.study.trial import trial
from train.study.trial.baselines import mistakes
from train.study.trial.definition import Arm, Claim, Contrast
from train.study.trial.search import SEED
from train.system.errors import DivergedError, PreemptedError, UserError

ERROR = "test error, %"


@pytest.fixture
def tried(digits_run, monkeypatch, tmp_path):
    """Tries a claim about digits; the folder, and how often a network was trained.

    What is trained is a copy of a run.
    """
    base, trained = load_run(digits_run), []

    def arms(budget):
        three = base.config.changed(learning_rate=0.002)
        once = three.changed(routing_iterations=1)
        return [Arm("1 iteration", once, {ERROR: 0.34}), Arm("3 iterations", three)]

    def fit(config, *, out, data_dir, resume, overwrite):
        assert resume is not overwrite
        trained.append((config.model.routing_iterations, config.seed))
        shutil.copytree(digits_run, out, dirs_exist_ok=True)
        # The lower the learning rate, the better by validation images, and the worse by others.
        summary = json.loads((out / "summary.json").read_text())
        rate = config.schedule.learning_rate
        summary |= {"validation.accuracy": 0.9 - rate, "test.accuracy": 0.5 + rate}
        (out / "summary.json").write_text(json.dumps(summary))
        dataclasses.replace(base, folder=out, config=config).save()

    claim = Claim(
        "Three are better than one.",
        "Nobody 1900",
        arms,
        [mistakes(ERROR)],
        [Contrast("3 iterations", "1 iteration", ERROR)],
        figures=["curves.png"],
    )
    monkeypatch.setattr(trial, "fit", fit)
    monkeypatch.setattr(claims, "get_claim", lambda name: claim)
    out = tmp_path / "out"
    return out, trained, lambda *more: main(["claims", "mnist", "--out", str(out), *more])


def test_networks_are_trained_once_and_everything_is_written(tried, digits_run, capsys):
    out, trained, run = tried
    assert run("--seeds", "2") == 0
    printed = capsys.readouterr()
    assert trained == [(1, 0), (1, 1), (3, 0), (3, 1)]
    assert "[4/4] 3 iterations, seed 1; about" in printed.err
    assert "less than" in printed.out
    assert "This budget proves nothing" in printed.out
    files = "table.md, results.json, quantities.png, curves.png"
    assert f"{out}: {files}; runs/ has every network" in printed.out
    found = json.loads((out / "results.json").read_text())
    assert found["command"] == f"python -m train claims mnist --out {out} --seeds 2"
    assert [arm["name"] for arm in found["arms"]] == ["1 iteration", "3 iterations"]
    assert found["arms"][0]["paper"] == {}  # which is of other networks than those of this budget
    error = json.loads(load_run(digits_run).summary.read_text())["test.error_percent"]
    assert_close(np.array(found["arms"][1]["values"][ERROR]), np.array([error, error]))
    for arm in found["arms"]:
        assert arm["of_images"][ERROR]["of"] == 359
        assert arm["steps"] == [2, 2]
    assert "| 1 iteration | " in (out / "table.md").read_text()
    for name in ("quantities.png", "curves.png"):
        assert (out / name).stat().st_size > 1000

    trained.clear()
    assert run("--seeds", "2") == 0
    assert trained == []
    (out / "cells" / "3-iterations-1.json").write_text("{")  # damaged: it is measured anew
    assert run("--seeds", "3") == 0
    assert trained == [(1, 2), (3, 2)]
    (out / "cells" / "3-iterations-1.json").unlink()
    (out / "runs" / "3-iterations-1" / "summary.json").unlink()
    assert run("--seeds", "3") == 0
    assert trained == [(1, 2), (3, 2), (3, 1)]


def test_what_was_measured_goes_on_on_another_machine(tried, tmp_path, capsys):
    out, trained, run = tried
    assert run("--seeds", "2") == 0
    found = json.loads((out / "results.json").read_text())
    cells = tmp_path / "cells"
    shutil.move(out / "cells", cells)
    shutil.rmtree(out)
    trained.clear()
    (tmp_path / "out").mkdir()
    shutil.copytree(cells, out / "cells")
    assert run("--seeds", "2") == 0
    assert trained == []
    assert json.loads((out / "results.json").read_text())["arms"] == found["arms"]
    assert [origin["date"] for origin in found["measured"]] == [found["date"]]

    # Of a version that did not know of a setting, and kept where its run is no longer.
    cell = out / "cells" / "1-iteration-0.json"
    values = json.loads(cell.read_text())
    assert values["config"].pop("class_weights") == "none"
    cell.write_text(json.dumps({**values, "commit": "older"}))
    shutil.rmtree(out / "runs", ignore_errors=True)
    assert run("--seeds", "2") == 0
    assert trained == []
    assert json.loads(cell.read_text())["commit"] == "older"

    values["values"]["another, %"] = values["values"].pop(ERROR)
    cell.write_text(json.dumps(values))
    assert run("--seeds", "2") == 2
    assert f"{cell} was measured with another quantities: choose" in capsys.readouterr().err
    values["values"][ERROR] = values["values"].pop("another, %")
    values["config"]["batch_size"] = 7
    cell.write_text(json.dumps(values))
    assert run("--seeds", "2") == 2
    assert f"{cell} was measured with another --batch-size: choose" in capsys.readouterr().err
    assert run("--seeds", "2", "--overwrite") == 0
    assert trained == [(1, 0)]


def test_what_is_half_done_of_the_same_network_goes_on_though_others_are_replaced(
    digits_run, tmp_path, monkeypatch
):
    run, asked = tmp_path / "runs" / "one", []
    shutil.copytree(digits_run, run)
    (run / "summary.json").unlink()
    config = load_run(run).config
    monkeypatch.setattr(
        trial, "fit", lambda _, *, resume, overwrite, **__: asked.append((resume, overwrite))
    )
    place = trial.Place(tmp_path, tmp_path / "cells", "", None, overwrite=True)
    for wanted in (config, config.changed(seed=7)):
        trial._measured(trial.Job("one", "one", wanted, lambda _: {}), place)
    assert asked == [(True, False), (False, True)]


def test_larger_budgets_search_for_each_rate_before_all_else(tried, capsys):
    out, trained, run = tried
    assert run("--budget", "medium", "--seeds", "2") == 0
    trying = [(iterations, SEED) for iterations in (1, 1, 1, 3, 3, 3)]
    assert trained == [*trying, (1, 0), (1, 1), (3, 0), (3, 1)]
    printed = capsys.readouterr()
    assert "[1/6] 1 iteration, trying the learning rate 0.0" in printed.err
    assert "[1/4] 1 iteration, seed 0" in printed.err
    assert "on validation images after a training 33% as long" in printed.out
    (arm, _) = json.loads((out / "results.json").read_text())["arms"]
    rate, smallest = arm["config"]["learning_rate"], min(map(float, arm["searched"]))
    assert rate == smallest
    assert arm["searched"][f"{rate:g}"] == max(arm["searched"].values())
    assert f"| {rate:g} of {', '.join(arm['searched'])} |" in (out / "table.md").read_text()
    assert "It is the smallest or largest for 1 iteration; 3 iterations" in printed.out
    trained.clear()
    assert run("--budget", "medium", "--seeds", "2") == 0
    assert trained == []


def test_a_rate_with_which_a_network_diverges_is_the_worst(tried, monkeypatch, capsys):
    out, _, run = tried
    copy = trial.fit

    def fit(config, **others):
        if config.seed == SEED and config.schedule.learning_rate < 0.001:  # else the best
            raise DivergedError("it was given up.")
        return copy(config, **others)

    monkeypatch.setattr(trial, "fit", fit)
    assert run("--budget", "medium", "--seeds", "1") == 0
    assert "1 iteration, trying the learning rate 0.00067: it was given up." in (
        capsys.readouterr().err
    )
    (arm, _) = json.loads((out / "results.json").read_text())["arms"]
    assert arm["searched"]["0.00067"] == 0
    assert arm["config"]["learning_rate"] == 0.002


def test_a_study_that_is_asked_to_stop_says_how_it_goes_on(tried, monkeypatch, capsys):
    _, trained, run = tried
    copy = trial.fit

    def fit(config, **others):
        if config.seed == 1:
            raise PreemptedError("asked to stop: the same command with --resume goes on.")
        return copy(config, **others)

    with monkeypatch.context() as patch:
        patch.setattr(trial, "fit", fit)
        assert run("--seeds", "2") == 75
    said = "1 iteration, seed 1 was asked to stop: the same command goes on from what is written.\n"
    assert capsys.readouterr().err.endswith(said)
    assert run("--seeds", "2") == 0
    assert trained == [(1, 0), (1, 1), (3, 0), (3, 1)]


def test_another_study_in_the_same_folder_is_refused(tried, monkeypatch, capsys):
    out, _, run = tried
    assert run("--seeds", "1") == 0
    page = (out / "table.md").read_bytes()
    another = claims.get_claim("mnist")._replace(says="Two are better than one.")
    monkeypatch.setattr(claims, "get_claim", lambda name: another)
    assert run("--seeds", "1") == 2
    message = f"{out / 'results.json'} is of another study (Three are better than one.): choose"
    assert message in capsys.readouterr().err
    assert main(["compare", "--models", "cnn", "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert (out / "table.md").read_bytes() == page


def test_a_process_that_is_refused_takes_nothing_from_the_one_at_work(tmp_path):
    out = tmp_path / "out"
    with results_folder(out, "mine"):
        for _ in range(2):
            refused = pytest.raises(UserError, match="another process is training")
            with refused, results_folder(out, "mine"):
                pass
        assert out.is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "--seeds: '0' is not a whole number of at least 1"),
        (["--budget", "tiny"], "invalid choice: 'tiny'"),
    ],
)
def test_bad_input(tried, arguments, message, capsys):
    out, trained, run = tried
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err
    assert not trained
    assert not out.exists()


def test_without_the_data_nothing_is_left(tmp_path, capsys):
    out = tmp_path / "out"
    (tmp_path / "no").mkdir()
    assert main(["claims", "viewpoint", "--out", str(out), "--data-dir", str(tmp_path / "no")]) == 2
    assert "smallNORB" in capsys.readouterr().err
    assert not out.exists()


def test_of_its_own_set_a_run_is_measured_on_as_many_images_as_it_was_given(digits_run, tmp_path):
    """And of a set that is named on all, also where that is the same."""
    some = tmp_path / "some"
    shutil.copytree(digits_run, some)
    run = load_run(some)
    dataclasses.replace(run, config=run.config.changed(test_examples=100)).save()
    own, other = mistakes("own, %"), mistakes("other, %", "digits")
    whole = other.of(digits_run, None)
    assert len(whole) == len(load_dataset("digits").test)
    np.testing.assert_array_equal(own.of(digits_run, None), whole)
    np.testing.assert_array_equal(other.of(some, None), whole)
    assert len(own.of(some, None)) == 100
