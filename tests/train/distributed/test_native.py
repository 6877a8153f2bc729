"""What native code prints of several processes: silence, or one sentence."""

import pytest

from tests.train.conftest import run_python

PAGE = (
    "E1129 14:14:13.139654 9943 coordination_service.cc:1549] Use error polling to propagate\n"
    "*** Check failure stack trace: ***\n"
    "    @ 0x7f73e1c40634 absl::LogMessage::SendToLog()\n"
)


@pytest.mark.parametrize(
    ("printed", "telling", "told"),
    [
        ("[Gloo] Rank 0 is connected to 1 peer ranks.\nW1129 something else\n", True, 0),
        (PAGE, True, 1),
        (PAGE, False, 0),
    ],
)
def test_a_page_of_stack_becomes_a_sentence_though_the_process_aborts(printed, telling, told):
    program = (
        "import os, sys\n"
        "from train.distributed.native import filter_native, tell_of_loss\n"
        "from train.system.printing import printed\n"
        "with printed():\n"
        "    print('before')\n"
        f"    filter_native(telling={telling})\n"
        "    print('after', flush=True)\n"
        "    print('a note', file=sys.stderr)\n"
        f"    os.write(1, {printed.encode()})\n"
        f"    tell_of_loss() if {told} else None\n"
        "    os.abort()\n"
    )
    ended = run_python(program)
    assert ended.returncode == -6
    assert ended.stdout == "before\nafter\n"
    note, *rest = ended.stderr.splitlines()
    assert note == "a note"
    if told:
        (sentence,) = rest
        assert sentence.startswith("error: another process of this run has ended, is stopped, or")
    else:
        assert rest == ([] if printed is PAGE else ["W1129 something else"])
