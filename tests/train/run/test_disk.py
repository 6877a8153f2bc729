"""A disk that fills up, or can no longer be written, while a run trains on it."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.soak.tiny import ARGUMENTS
from tests.train.conftest import ROOT
from tests.train.saved import arrays
from train import data
from train.loop import loop
from train.loop.loop import fit
from train.report import figures
from train.run.checkpoint_files import Checkpoints
from train.system.errors import UserError


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A small disk of its own, in memory; only root can have one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("no disk may be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> None:
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def empty(disk: Path) -> None:
    (disk / "filler").unlink()


@contextlib.contextmanager
def locked(folder: Path, view: Path) -> Iterator[None]:
    """Nothing can be written to a folder, from one moment to the next.

    `view` shows the folder and is made read-only where nobody writes through it; a mount that
    somebody writes through at this moment would be refused as busy.
    """
    view.mkdir()
    with contextlib.ExitStack() as mounts:

        def mount(*arguments: str) -> None:
            subprocess.run(["mount", *arguments], check=True)

        mount("--bind", str(folder), str(view))
        mounts.callback(subprocess.run, ["umount", "--lazy", str(view)], check=True)
        mount("-o", "remount,bind,ro", str(view))
        mount("--bind", str(view), str(folder))
        mounts.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)
        yield


def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_room(
    disk, tmp_path, config, dataset, programs, monkeypatch
):
    monkeypatch.setattr(data, "load_dataset", lambda *_, **__: dataset)
    monkeypatch.setattr(loop, "assemble", programs)
    monkeypatch.setattr(figures, "draw_run", lambda *_: None)
    config = config.changed(steps=12, checkpoint_every=2, evaluate_every=12)
    whole, out = tmp_path / "whole", disk / "run"
    fit(config, out=whole, devices=1)

    save = Checkpoints.save

    def harmed(self, state, *arguments):
        if int(state.step) == 6:
            self._wait()
            fill(disk)
        save(self, state, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", harmed)
        with pytest.raises(
            UserError, match=r"cannot be written to .* \(No space left on device\)"
        ) as caught:
            fit(config, out=out, devices=1)
    assert len(str(caught.value).splitlines()) == 1
    assert not (out / "summary.json").exists()
    assert last_checkpoint(out) == 4
    assert os.path.ismount(disk)
    empty(disk)
    fit(config, out=out, devices=1, resume=True)
    for ours, theirs in zip(arrays(out), arrays(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def last_checkpoint(out: Path) -> int:
    steps = [path.name for path in (out / "checkpoints").iterdir() if path.name.isdecimal()]
    return max(map(int, steps), default=0)


def test_a_permission_that_is_lost_ends_the_program_with_a_sentence(disk, environment):
    out = disk / "run"
    arguments = ["fit", "digits", "--out", str(out), "--steps", "100000", *ARGUMENTS]
    with subprocess.Popen(
        [sys.executable, "-m", "train", *arguments, "--checkpoint-every", "10"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            while process.poll() is None and not (out / "checkpoints" / "20").is_dir():
                time.sleep(0.01)
            with locked(out / "checkpoints", disk / "view"):
                _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 2
    last = said.splitlines()[-1]
    assert last.startswith("error: checkpoints cannot be written to ")
    assert "Traceback" not in said
    assert last_checkpoint(out) >= 10
    assert not (out / "summary.json").exists()
