"""Huge pages for the arrays of a CPU.

XLA takes the memory of a training step from the C library and gives it back after the step, and the
kernel hands it out again in pages of 4 KiB, zeroed one fault at a time: a fifth of the time of the
paper's CapsNet at batch 128 on two cores. In pages of 2 MiB that all but disappears. The GNU C
library asks for them if the environment has a setting when the program starts.
"""

import os
import platform
import sys
from pathlib import Path

VARIABLE = "GLIBC_TUNABLES"
SETTING = "glibc.malloc.hugetlb=1"
FIRST_VERSION = (2, 35)
POLICY = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart_with_huge_pages() -> None:
    """Starts this program anew with huge pages, where they are to be had by asking.

    To be called before anything else is done. Returns where there is nothing to ask for: not with
    the GNU C library on Linux, an administrator who decided for or against them, or a user who set
    `GLIBC_TUNABLES`, whatever to; an empty value keeps the program as it is.
    """
    if VARIABLE not in os.environ and _are_given_on_request():
        os.environ[VARIABLE] = SETTING
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _are_given_on_request() -> bool:
    library, version = platform.libc_ver()
    if library != "glibc" or tuple(map(int, version.split(".")[:2])) < FIRST_VERSION:
        return False
    try:
        return "[madvise]" in POLICY.read_text(encoding="ascii")
    except OSError:
        return False
