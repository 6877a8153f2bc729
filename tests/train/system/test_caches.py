import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from tests.train.conftest import ROOT
from train.system import caches
from train.system.caches import VARIABLE, keep_compiled_programs


def folder_in_use() -> str | None:
    return jax.config.jax_compilation_cache_dir


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_the_folder_is_in_the_user_s_caches(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    keep_compiled_programs()
    folder = tmp_path / "caches" / "capsjax" / "xla"
    assert folder_in_use() == str(folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("caches", [None, "", "relative"])
def test_without_a_named_one_the_user_s_caches_are_at_home(caches, tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("HOME", str(tmp_path))
    if caches is None:
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", caches)
    keep_compiled_programs()
    assert folder_in_use() == str(tmp_path / ".cache" / "capsjax" / "xla")


def test_jax_s_own_variable_wins_and_an_empty_one_switches_it_off(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "mine"))
    keep_compiled_programs()
    assert folder_in_use() == str(tmp_path / "mine")
    monkeypatch.setenv(VARIABLE, "")
    keep_compiled_programs()
    assert folder_in_use() is None
    assert not (tmp_path / "caches").exists()


def test_a_folder_that_cannot_be_written_is_told_and_done_without(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file" / "xla"))
    keep_compiled_programs()
    assert folder_in_use() is None
    said = capsys.readouterr().err
    assert said.startswith(f"note: compiled programs are not kept, {tmp_path / 'file' / 'xla'}")
    assert said.count("\n") == 1


def test_the_oldest_programs_make_room(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(caches, "LIMIT", 250)
    folder = tmp_path / "capsjax" / "xla"
    folder.mkdir(parents=True)
    for age, name in enumerate("abcd"):
        (folder / name).write_bytes(bytes(100))
        os.utime(folder / name, (1000 - age, 1000 - age))
    keep_compiled_programs()
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]


USES_IT = """
import os, sys
import capsjax, train.learn.trainer, jax
from train.system.caches import VARIABLE, keep_compiled_programs
before = jax.config.jax_compilation_cache_dir
os.environ[VARIABLE] = sys.argv[1]
folder = keep_compiled_programs()
hits = []
jax.monitoring.register_event_listener(
    lambda event, **_: hits.append(event) if event.endswith("/cache_hits") else None
)
def compile():
    hits.clear()
    jax.clear_caches()
    jax.pmap(lambda x: x * 2 + 1)(jax.numpy.ones((1, 3))).block_until_ready()
    return bool(hits)
print(before, compile())
if "damage" in sys.argv:  # as by a process that was killed while it wrote
    for path in folder.glob("*-cache"):
        path.write_bytes(path.read_bytes()[:100])
    print(compile())
"""


def test_a_second_process_finds_what_the_first_compiled(environment, tmp_path):
    """Damage is no hindrance, and importing the library switches nothing on."""
    environment = {k: v for k, v in environment.items() if k != VARIABLE}
    printed = []
    for harm in ([], ["damage"]):
        ended = subprocess.run(
            [sys.executable, "-c", USES_IT, str(tmp_path / "xla"), *harm],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        printed += ended.stdout.split()
    assert printed == ["None", "False", "None", "True", "False"]


def test_these_tests_do_not_write_to_the_user_s_cache():
    assert Path(os.environ[VARIABLE]).name.startswith("capsjax-tests-")
