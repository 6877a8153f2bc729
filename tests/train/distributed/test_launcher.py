"""Several processes, for real: the same results, the same checkpoints, the same end for all."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.soak.tiny import ARGUMENTS, tiny
from tests.tolerance import assert_close
from tests.train.conftest import ROOT, run_python
from train.__main__ import main
from train.config.checked import flag
from train.data import load_dataset
from train.distributed import launcher
from train.distributed.launcher import launch
from train.loop.loop import fit
from train.run.log import read_metrics
from train.system.errors import UserError

CADENCE = {"log_every": 1, "checkpoint_every": 20, "evaluate_every": 100}
OPTIONS = [word for name, value in CADENCE.items() for word in (flag(name), str(value))]


@pytest.fixture
def start(environment):
    """Starts `python -m train launch`, two processes, of two devices by default."""
    started = []

    def begin(*arguments, devices=2) -> subprocess.Popen:
        command = ["launch", "--processes", "2", "--devices-per-process", str(devices), "--"]
        command += ["fit", "digits", *ARGUMENTS, *OPTIONS, *map(str, arguments)]
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "train", *command],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def losses(out: Path) -> np.ndarray:
    rows = [row for row in read_metrics(out / "metrics.jsonl") if row["split"] == "train"]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return np.array([row["loss"] for row in rows])


def summary(out: Path) -> dict:
    return json.loads((out / "summary.json").read_text())


@pytest.fixture
def fit_here(monkeypatch, programs):
    """Trains in this process on one device, without figures, compiling once."""
    digits = load_dataset("digits")
    monkeypatch.setattr("train.data.load_dataset", lambda *_, **__: digits)
    monkeypatch.setattr("train.loop.loop.assemble", programs)
    monkeypatch.setattr("train.report.figures.draw_run", lambda *_: None)
    return lambda out, steps, **options: fit(
        tiny(**CADENCE, steps=steps), out=out, devices=1, **options
    )


def wait_for_steps(process: subprocess.Popen, out: Path, steps: int) -> None:
    while process.poll() is None and len(read_metrics(out / "metrics.jsonl")) < steps:
        time.sleep(0.01)


@pytest.mark.slow
def test_all_processes_stop_at_the_same_step_and_any_layout_goes_on(start, tmp_path, fit_here):
    whole, one, several = tmp_path / "whole", tmp_path / "one", tmp_path / "several"
    stopped = start("--steps", 200, "--out", several)
    wait_for_steps(stopped, several, 10)
    stopped.send_signal(signal.SIGTERM)
    fit_here(one, 20)
    _, errors = stopped.communicate(timeout=120)
    assert stopped.returncode == 75, errors
    assert errors.count("asked to stop (SIGTERM): the checkpoint of step") == 1
    assert "Traceback" not in errors
    step = max(int(path.name) for path in (several / "checkpoints").iterdir())
    assert 10 <= step == len(losses(several)) < 200

    steps = max(30, step + 1)
    taken_over = start("--steps", steps, "--resume", "--out", one)
    fit_here(whole, steps)
    fit_here(several, steps, resume=True)
    _, errors = taken_over.communicate(timeout=240)
    assert taken_over.returncode == 0, errors
    expected = summary(whole)
    for out in (one, several):
        assert_close(np.float32(losses(out)), np.float32(losses(whole)), reduction_length=100)
        # 359 test images, which no layout divides by its batch.
        for name in ("test.examples", "test.accuracy", "test.error_percent"):
            assert summary(out)[name] == expected[name]
        loss, wanted = np.float32(summary(out)["test.loss"]), np.float32(expected["test.loss"])
        assert_close(loss, wanted, reduction_length=100)
    assert (summary(one)["processes"], summary(one)["devices"]) == (2, 4)
    assert (one / "figures" / "confusion.png").is_file()


def test_what_one_process_finds_wrong_ends_all_with_one_sentence(start, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")  # which the first process finds
    process = start("--steps", 8, "--out", tmp_path)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert errors.count("error: ") == 1
    assert "is not empty and holds no run (thesis.tex is in it)" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_processes_that_would_train_different_networks_are_refused(environment, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "train", "fit", "digits", *ARGUMENTS, "--steps", "8"]
    command += ["--out", str(tmp_path / "run"), "--distributed", "--coordinator", coordinator]
    processes = [
        subprocess.Popen(
            [*command, "--processes", "2", "--process-index", str(index), *different],
            cwd=ROOT,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, different in enumerate([[], ["--seed", "1", "--feed", "streaming"]])
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], errors
    assert "differ in: --seed, --feed: give each the same" in errors[0]
    assert errors[1].count("error: ") == 0
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_run(start, tmp_path):
    out = tmp_path / "run"
    process = start("--steps", 100_000, "--out", out, devices=1)
    wait_for_steps(process, out, 5)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    subprocess.run(["kill", "-KILL", children[1]], check=True)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 137, errors
    (sentence,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert sentence.startswith(
        "error: process 1 of 2 was ended by SIGKILL, and the run with it: what"
    )
    assert errors.splitlines()[-1] == sentence
    assert not any(Path(f"/proc/{child}").exists() for child in children)


@pytest.mark.slow
def test_processes_end_after_their_launcher_with_a_checkpoint(start, tmp_path):
    out = tmp_path / "run"
    process = start("--steps", 100_000, "--out", out, devices=1)
    wait_for_steps(process, out, 5)
    process.kill()
    output, errors = process.communicate(timeout=120)  # which the others hold open
    assert "[Gloo]" not in output + errors
    assert errors.splitlines()[-1].startswith("asked to stop (SIGTERM): the checkpoint of step ")
    assert len(list((out / "checkpoints").iterdir())) >= 1


def test_a_process_that_is_stopped_or_killed_is_named(capsys):
    children = [subprocess.Popen(["sleep", "600"]) for _ in range(3)]
    try:
        launcher._tell_of_lost(children)
        assert capsys.readouterr().err == ""
        children[2].send_signal(signal.SIGSTOP)
        children[0].send_signal(signal.SIGABRT)  # as JAX ends those that are left
        children[0].wait()
        while not launcher._is_stopped(children[2]):
            time.sleep(0.01)
        launcher._tell_of_lost(children)
        assert "error: process 2 of 3 is stopped, and the run with it" in capsys.readouterr().err
        children[1].kill()
        children[1].wait()
        launcher._tell_of_lost(children)
        assert "error: process 1 of 3 was ended by SIGKILL" in capsys.readouterr().err
    finally:
        for child in children:
            child.kill()
            child.wait()


def test_a_process_that_is_stopped_for_long_is_told_with_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(launcher, "STOPPED_SECONDS", 0.2)
    child = subprocess.Popen(["sleep", "1"])
    child.send_signal(signal.SIGSTOP)
    timer = threading.Timer(1, child.send_signal, [signal.SIGCONT])
    timer.start()
    assert launcher._wait([child]) == 0
    told = f"note: process 0 of 1 is stopped, and the others wait for it: kill -CONT {child.pid}"
    assert capsys.readouterr().err.count(told) == 1


@pytest.mark.parametrize("index", [0, 1])
def test_processes_that_do_not_come_are_told(index):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    program = (
        "from train.distributed import processes\n"
        "from train.system.printing import printed\n"
        "assert processes.TELL_SECONDS < 60\n"
        "processes.TELL_SECONDS, processes.WAIT_SECONDS = 1, 3\n"
        f"with printed(): processes.join('localhost:{port}', 2, {index})\n"
    )
    ended = run_python(program)
    assert ended.returncode == 2
    note, error = ended.stderr.splitlines()
    assert note == f"note: waiting for the other processes, at localhost:{port}"
    assert error.startswith(f"error: the other processes did not come to localhost:{port} within 3")


def test_a_folder_that_holds_a_run_is_told_before_anything_starts(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(launcher, "launch", None)
    (tmp_path / "config.json").write_text("{}")
    command = ["launch", "--processes", "2", "--", "fit", "digits", "--out", str(tmp_path)]
    assert main(command) == 2
    assert f"{tmp_path} holds a run already: replace it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["0", "--", "fit", "digits"], "--processes: '0' is not"),
        (
            ["2", "--devices-per-process", "0", "--", "fit", "digits"],
            "--devices-per-process: '0' is",
        ),
        (["2", "--", "evaluate", "runs/digits"], "launch starts a fit"),
        (["2", "--"], "launch starts a fit"),
    ],
)
def test_a_launch_that_cannot_be_is_told(arguments, message, capsys):
    assert main(["launch", "--processes", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_too_few_gpus_are_told_before_anything_starts(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    with pytest.raises(UserError, match=r"0,1,2, too few GPUs for 2 in process 1"):
        launch(2, ["fit", "digits"], 2)
