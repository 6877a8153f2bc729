import os
import runpy
import subprocess
import sys

import pytest

from tests.train.conftest import ROOT
from train.system import huge_pages


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine where huge pages are given on request, and the restarts that were asked for."""
    policy = tmp_path / "enabled"
    policy.write_text("always [madvise] never\n")
    restarts = []
    monkeypatch.setattr(huge_pages, "POLICY", policy)
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr("os.execv", lambda *call: restarts.append(call))
    monkeypatch.delenv(huge_pages.VARIABLE, raising=False)
    return policy, restarts


def test_the_same_program_starts_again_with_the_setting(machine, monkeypatch):
    _, restarts = machine
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "train", "presets"])
    huge_pages.restart_with_huge_pages()
    assert restarts == [(sys.executable, [sys.executable, "-m", "train", "presets"])]
    assert os.environ[huge_pages.VARIABLE] == huge_pages.SETTING
    huge_pages.restart_with_huge_pages()  # as the program that was started does
    assert len(restarts) == 1


@pytest.mark.parametrize("value", ["", "glibc.malloc.check=1"])
def test_a_users_own_setting_counts(machine, monkeypatch, value):
    monkeypatch.setenv(huge_pages.VARIABLE, value)
    huge_pages.restart_with_huge_pages()
    assert not machine[1]


@pytest.mark.parametrize(
    ("libc", "policy"),
    [
        (("glibc", "2.31"), "always [madvise] never"),
        (("", ""), "always [madvise] never"),
        (("glibc", "2.36"), "[always] madvise never"),
        (("glibc", "2.36"), "always madvise [never]"),
        (("glibc", "2.36"), None),
    ],
)
def test_nothing_is_started_where_asking_is_of_no_use(machine, monkeypatch, libc, policy):
    file, restarts = machine
    monkeypatch.setattr("platform.libc_ver", lambda: libc)
    file.unlink() if policy is None else file.write_text(policy)
    huge_pages.restart_with_huge_pages()
    assert not restarts


RESTARTS = """
import os, sys
from train.system.huge_pages import VARIABLE, restart_with_huge_pages
restart_with_huge_pages()
print(sys.argv[1:], os.environ[VARIABLE])
sys.exit(3)
"""


def test_a_restarted_program_keeps_its_arguments_and_exit_code(environment):
    if not huge_pages._are_given_on_request():
        pytest.skip("huge pages are not to be had by asking here")
    environment.pop(huge_pages.VARIABLE, None)
    finished = subprocess.run(
        [sys.executable, "-c", RESTARTS, "one", "--two"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 3
    assert finished.stdout == f"['one', '--two'] {huge_pages.SETTING}\n"


@pytest.mark.parametrize("program", ["train", "parity"])
def test_both_programs_restart_before_anything_else(machine, monkeypatch, program):
    def restart(*call):
        raise InterruptedError(call[1])

    monkeypatch.setattr("os.execv", restart)
    monkeypatch.delitem(sys.modules, f"{program}.__main__", raising=False)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", program, "no-such-command"])
    with pytest.raises(InterruptedError, match=f"'-m', '{program}', 'no-such-command'"):
        runpy.run_module(program, run_name="__main__")
