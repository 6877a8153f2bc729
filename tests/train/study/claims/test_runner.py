"""`python -m train claims` from end to end, with a claim about the embedded digits."""

import json

import pytest
from train.study.claims.definition import Arm, Claim, Contrast
from train.study.claims.measured_errors import error_on, own_error

from train.__main__ import main
from train.presets import get_preset
from train.study.claims import runner

ERROR = "test error, %"
SMALL = {"conv_features": 4, "primary_types": 2, "decoder_hidden": [4]}


def arms(budget):
    digits = get_preset("digits")
    options = {**digits.model.options, **SMALL}
    base = digits.changed(steps=2, batch_size=16, model_options=options)
    once = base.changed(routing_iterations=1)
    return [Arm("1 iteration", once, {ERROR: 0.34}), Arm("3 iterations", base)]


@pytest.fixture
def tried(monkeypatch, tmp_path):
    """Tries a claim about digits; the exit code, and how often a network was trained."""
    trained = []

    def fit(config, **options):
        trained.append((config.model.routing_iterations, config.seed))
        return original(config, devices=1, **options)

    original = runner.fit
    monkeypatch.setattr(runner, "fit", fit)
    claim = Claim(
        "Three are better than one.",
        "Nobody 1900",
        arms,
        [own_error(ERROR), error_on("digits", "again, %")],
        [Contrast("3 iterations", "1 iteration", ERROR)],
        draw=lambda runs, folder, data_dir: [f"{len(runs)}.png"],
    )
    monkeypatch.setattr(runner, "get_claim", lambda name: claim)
    out = tmp_path / "out"
    return out, trained, lambda *more: main(["claims", "mnist", "--out", str(out), *more])


def test_what_is_done_is_kept_and_all_is_told(tried, capsys):
    out, trained, run = tried
    assert run("--seeds", "2") == 0
    printed = capsys.readouterr()
    assert trained == [(1, 0), (1, 1), (3, 0), (3, 1)]
    assert "[4/4] 3 iterations, seed 1; about" in printed.err
    assert "3 iterations has" in printed.out
    assert "This budget proves nothing" in printed.out
    found = json.loads((out / "results.json").read_text())
    assert [arm["name"] for arm in found["arms"]] == ["1 iteration", "3 iterations"]
    for arm in found["arms"]:
        assert arm["values"][ERROR] == pytest.approx(arm["values"]["again, %"])
        assert arm["steps"] == [2, 2]
    assert "| 1 iteration | " in (out / "table.md").read_text()
    assert (out / "quantities.png").read_bytes().startswith(b"\x89PNG")
    assert "2.png" in printed.out
    assert (out / "runs" / "3-iterations-1" / "summary.json").exists()

    trained.clear()
    assert run("--seeds", "2") == 0
    assert trained == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--seeds", "0"], "--seeds is 0"), (["--budget", "tiny"], "invalid choice: 'tiny'")],
)
def test_bad_input(tried, arguments, message, capsys):
    out, trained, run = tried
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err
    assert not trained
    assert not out.exists()


def test_without_the_data_nothing_is_left(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["claims", "viewpoint", "--out", str(out), "--data-dir", str(tmp_path / "no")]) == 2
    assert "smallNORB" in capsys.readouterr().err
    assert not out.exists()
