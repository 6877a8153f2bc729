"""Errors of a process among others: which of them say that another one is lost."""

import pytest

from train.distributed import processes


@pytest.mark.parametrize(
    ("message", "lost"),
    [
        ("UNKNOWN: Gloo all-reduce failed: [external/gloo/gloo/transport/tcp/pair.cc:538]", True),
        ("INTERNAL: NCCL operation ncclAllReduce failed", True),
        ("DEADLINE_EXCEEDED: Barrier timed out. Id: save", True),
        ("UNAVAILABLE: from /xla.coordination.CoordinationService/PollForError", True),
        ("INTERNAL: during compilation of optimization_barrier", False),
        ("division by zero", False),
    ],
)
def test_what_says_that_another_process_is_lost(message, lost, monkeypatch):
    assert not processes.says_loss(RuntimeError(message))  # there is no other
    monkeypatch.setattr(processes, "are_several", lambda: True)
    assert processes.says_loss(RuntimeError(message)) is lost
