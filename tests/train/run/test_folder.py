import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.train.conftest import ROOT
from train.distributed import processes
from train.run.folder import Run, entered, load_run, locked, prepare_folder, require_free
from train.system.errors import UserError


@pytest.fixture
def run(tmp_path, config) -> Run:
    return Run(tmp_path / "deep" / "run", config, (8, 8, 1), ("a", "b", "c"))


def test_a_run_is_what_its_folder_says(run):
    assert prepare_folder(run, resume=False, overwrite=False) is False
    assert load_run(run.folder) == run


def test_an_empty_folder_may_become_a_run(run):
    run.folder.mkdir(parents=True)
    prepare_folder(run, resume=False, overwrite=False)
    assert load_run(run.folder) == run


def test_another_run_is_never_overwritten_unasked(run):
    prepare_folder(run, resume=False, overwrite=False)
    run.summary.write_text("precious")
    with pytest.raises(UserError, match=r"holds a run already: .*--overwrite.*fit --resume"):
        prepare_folder(run, resume=False, overwrite=False)
    assert run.summary.read_text() == "precious"


def test_overwriting_deletes_the_run_and_nothing_else(run):
    prepare_folder(run, resume=False, overwrite=False)
    run.checkpoints.mkdir()
    (run.checkpoints / "5").write_text("old")
    run.summary.write_text("old")
    (run.folder / "notes.txt").write_text("mine")
    other = dataclasses.replace(run, config=run.config.changed(seed=5))
    assert prepare_folder(other, resume=False, overwrite=True) is False
    assert sorted(path.name for path in run.folder.iterdir()) == ["config.json", "notes.txt"]
    assert load_run(run.folder).config.seed == 5


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_with_something_else_is_left_alone(run, how):
    run.folder.mkdir(parents=True)
    (run.folder / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"holds no run \(thesis.tex is in it\)"):
        prepare_folder(run, **{"resume": False, "overwrite": False, **how})
    assert [path.name for path in run.folder.iterdir()] == ["thesis.tex"]


def test_resuming_nothing_begins(run):
    assert prepare_folder(run, resume=True, overwrite=False) is False
    assert load_run(run.folder) == run


def test_resuming_may_be_longer(run):
    run = dataclasses.replace(run, config=run.config.changed(decay_steps=50))
    prepare_folder(run, resume=False, overwrite=False)
    longer = dataclasses.replace(run, config=run.config.changed(steps=99))
    assert prepare_folder(longer, resume=True, overwrite=False) is True
    assert load_run(run.folder) == run  # until there is something left to do


def test_resuming_with_other_images_is_refused(run):
    known = dataclasses.replace(run, fingerprints={"train": "1", "test": "2"})
    prepare_folder(known, resume=False, overwrite=False)
    other = dataclasses.replace(run, fingerprints={"train": "3", "test": "2", "validation": "4"})
    with pytest.raises(UserError, match="differs in: the train images; the validation images"):
        prepare_folder(other, resume=True, overwrite=False)
    assert load_run(run.folder) == known


def test_a_run_from_before_there_were_fingerprints_goes_on(run):
    prepare_folder(run, resume=False, overwrite=False)
    now = dataclasses.replace(run, fingerprints={"train": "1", "test": "2"})
    assert prepare_folder(now, resume=True, overwrite=False) is True


def test_resuming_with_another_configuration_names_the_fields(run):
    prepare_folder(run, resume=False, overwrite=False)
    config = run.config.changed(seed=3, batch_size=16)
    other = dataclasses.replace(run, config=config, image_shape=(9, 9, 1))
    with pytest.raises(UserError) as caught:
        prepare_folder(other, resume=True, overwrite=False)
    message = str(caught.value)
    assert "seed (was 0, now 3); batch_size (was 8, now 16); image_shape of the data" in message
    assert load_run(run.folder) == run


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no run"),
        ("{", "is not valid JSON"),
        ("[]", "lacks the configuration, image shape or class names"),
        ('{"config": {}}', "lacks the configuration, image shape or class names"),
        (
            '{"config": {"x": 1}, "image_shape": [1, 2, 3], "class_names": ["a"]}',
            "unknown fields: x",
        ),
        ('{"config": 5, "image_shape": [1, 2, 3], "class_names": ["a"]}', "no configuration"),
    ],
)
def test_a_folder_that_is_no_run_is_told(tmp_path, content, message):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=message):
        load_run(tmp_path)


HUGE = "9" * 400


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("config.seed", str(2**63), "--seed is 9223372036854775808, but must be no more than"),
        ("config.seed", "1e30", "seed = 1e[+]30, which is of the wrong type"),
        ("config.seed", HUGE, "--seed is 9999999999..., but must be no more than"),
        ("config.seed", "9" * 5000, "is not valid JSON"),
        ("config.schedule.learning_rate", HUGE, "--learning-rate is 9999999999..., but must be"),
        ("config.schedule.warmup_steps", str(2**31), "but must be no more than 2,147,483,647"),
        ("config.model.routing_iterations", "1001", "but must be no more than 1,000"),
        ("config.model.options", '{"x": ' + 60 * "[" + 60 * "]" + "}", "nested too deeply"),
        ("config.model.options", 100_000 * "[" + 100_000 * "]", "nested too deeply"),
        ("config.data.dataset", r'"folder:\ud800"', "is not valid JSON .*surrogates not allowed"),
        ("config.data.dataset", r'"folder:a\u0000"', "is no text"),
        ("image_shape", "[32768, 32768, 1]", "has what none has there"),
        ("class_names", r'["\ud800", "b"]', "is not valid JSON .*surrogates not allowed"),
        ("class_names", "[]", "has what none has there"),
        ("labels_per_image", '"x"', "has what none has there"),
        ("data_fingerprints", "[1]", "has what none has there"),
        ("data_fingerprints", '{"train": [1]}', "has what none has there"),
    ],
)
def test_values_that_no_run_has_are_a_sentence(run, where, value, message):
    prepare_folder(run, resume=False, overwrite=False)
    path = run.folder / "config.json"
    values = json.loads(path.read_text())
    *groups, name = where.split(".")
    inner = values
    for group in groups:
        inner = inner[group]
    inner[name] = "HERE"
    path.write_text(json.dumps(values).replace('"HERE"', value))
    with pytest.raises(UserError, match=message) as caught:
        load_run(run.folder)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def test_a_configuration_is_a_file_of_some_size(run):
    run.folder.mkdir(parents=True)
    path = run.folder / "config.json"
    path.symlink_to("/dev/zero")
    with pytest.raises(UserError, match="it is no file"):
        load_run(run.folder)
    path.unlink()
    os.mkfifo(path)  # whose reader would wait for ever
    with pytest.raises(UserError, match="it is no file"):
        load_run(run.folder)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match="it has more than 16,777,216 bytes"):
        load_run(run.folder)


@pytest.mark.parametrize(
    "link", ["metrics.jsonl", "figures", "checkpoints", "checkpoints/5", "tensorboard/events"]
)
def test_a_link_in_a_run_leads_nowhere(run, link, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    prepare_folder(run, resume=False, overwrite=False)
    (run.folder / "notes").symlink_to(tmp_path)  # the user's own
    load_run(run.folder)
    path = run.folder / link
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"{link} is a link, but a run reads and writes in its own"):
        prepare_folder(run, resume=True, overwrite=False)
    prepare_folder(run, resume=False, overwrite=True)
    assert not path.is_symlink()
    assert (tmp_path / "elsewhere").is_dir()


@pytest.mark.parametrize(
    "content",
    ["", "[]", '"x"', "{}", 90 * "[" + 90 * "]", '{"steps": null}', '{"steps": "many"}'],
)
def test_a_result_that_is_damaged_is_none(run, content):
    prepare_folder(run, resume=False, overwrite=False)
    assert run.result() is None
    run.summary.write_text(content)
    assert run.result() is None


def test_resuming_with_other_code_of_an_own_routing_is_refused(run):
    known = dataclasses.replace(run, fingerprints={"train": "1", "routing": "2"})
    prepare_folder(known, resume=False, overwrite=False)
    changed = dataclasses.replace(run, fingerprints={"train": "1", "routing": "3"})
    with pytest.raises(UserError, match="differs in: the code of dynamic"):
        prepare_folder(changed, resume=True, overwrite=False)
    older = dataclasses.replace(run, fingerprints={"train": "1"})
    prepare_folder(older, resume=False, overwrite=True)
    assert prepare_folder(changed, resume=True, overwrite=False)


def test_a_folder_under_a_file_cannot_be_written(tmp_path, run):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot be written \(Not a directory\)"):
        prepare_folder(
            dataclasses.replace(run, folder=tmp_path / "file" / "run"),
            resume=False,
            overwrite=False,
        )


def test_every_part_of_a_run_is_deleted_with_it(run):
    prepare_folder(run, resume=False, overwrite=False)
    parts = [
        value for value in (getattr(run, name) for name in vars(Run)) if isinstance(value, Path)
    ]
    assert {run.metrics, run.summary, run.checkpoints, run.profile} < set(parts)
    for part in parts:
        part.write_text("old")
    prepare_folder(run, resume=False, overwrite=True)
    assert [path.name for path in run.folder.iterdir()] == ["config.json"]


def test_a_run_is_entered_by_one_process_at_a_time(run):
    with entered(run, resume=False, overwrite=False) as resuming:
        assert not resuming
        with (
            pytest.raises(UserError, match="another process is training in"),
            entered(run, resume=True, overwrite=False),
        ):
            pass
    with entered(run, resume=True, overwrite=False) as resuming:
        assert resuming


def test_a_process_that_does_not_see_the_folder_is_told(run, monkeypatch):
    monkeypatch.setattr(processes, "is_first", lambda: False)
    with (
        pytest.raises(UserError, match="is not the same folder for all processes"),
        entered(run, resume=False, overwrite=False),
    ):
        pass


def test_a_second_process_is_refused_until_the_first_has_ended(tmp_path):
    program = (
        "import sys, pathlib; from train.run.folder import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n"
        "    print('in', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert other.stdout.readline() == b"in\n"
        with (
            pytest.raises(UserError, match="another process is training in .*: wait for it"),
            locked(tmp_path),
        ):
            pass
    finally:
        other.kill()  # as a crash would end it
        other.communicate()
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_ends_with_its_context_whatever_ends_that(tmp_path):
    def fail():
        with locked(tmp_path):
            raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            fail()


def test_a_run_that_died_at_its_first_file_may_begin_again(tmp_path):
    (tmp_path / ".config.json.new").write_text("{")
    assert not require_free(tmp_path, resume=True, overwrite=False)
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(UserError, match=r"is not empty and holds no run \(mine.txt is in it\)"):
        require_free(tmp_path, resume=True, overwrite=False)
