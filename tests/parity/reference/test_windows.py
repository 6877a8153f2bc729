"""Windows of a capsule convolution, and the votes of what they see."""

import torch

from parity.reference.windows import Windows, class_votes, matrix_votes
from tests.parity.reference.by_hand import close, float64


def test_windows_one_above_the_other():
    first, second = Windows.stack((9, 7), (3, 2), (2, 1))
    assert (first.counts, second.grid, second.counts) == ((4, 3), (4, 3), (3, 2))


def test_a_window_sees_its_capsules_row_by_row():
    windows = Windows((5, 7), 3, 2)
    x = torch.arange(2 * 5 * 7 * 4 * 6).reshape(2, 5, 7, 4, 6)
    seen = windows.seen(x)
    assert seen.shape == (2 * 2 * 3, 3 * 3 * 4, 6)
    for example, row, column in ((0, 0, 0), (1, 1, 2), (1, 0, 1)):
        own = seen[(example * 2 + row) * 3 + column].reshape(3, 3, 4, 6)
        for y, z, capsule in ((0, 0, 1), (2, 1, 3), (1, 2, 0)):
            assert torch.equal(own[y, z, capsule], x[example, 2 * row + y, 2 * column + z, capsule])


def test_shares_of_all_parents_of_a_capsule_sum_to_one():
    """On a grid of three columns the capsules of the middle one are in both windows."""
    windows = Windows((2, 3), 2, 1)
    logits = torch.randn(2 * 2, 2 * 2 * 1, 5, dtype=torch.float64)
    shares = windows.over_all_parents(logits).reshape(2, 2, 2, 2, 5)  # [B, windows, y, x, J]
    by_hand = logits.exp().reshape(2, 2, 2, 2, 5)
    for y in range(2):
        outer = by_hand[:, 0, y, 0], by_hand[:, 1, y, 1]
        close(shares[:, 0, y, 0], outer[0] / outer[0].sum(dim=1, keepdim=True))
        close(shares[:, 1, y, 1], outer[1] / outer[1].sum(dim=1, keepdim=True))
        total = (by_hand[:, 0, y, 1] + by_hand[:, 1, y, 0]).sum(dim=1, keepdim=True)
        close(shares[:, 0, y, 1], by_hand[:, 0, y, 1] / total)
        close(shares[:, 1, y, 0], by_hand[:, 1, y, 0] / total)


def test_a_vote_is_the_pose_times_the_matrix():
    pose = float64([[[1, 2, 3, 4]]])
    matrices = float64([[[[5, 6], [7, 8]]]])
    assert matrix_votes(pose, matrices).flatten().tolist() == [19, 22, 43, 50]


def test_votes_for_classes_have_the_places_of_centres_in_their_last_column():
    matrices = torch.randn(4, 10, 2, 2).double()
    votes = class_votes(torch.zeros(1, 3, 5, 4, 4).double(), matrices)
    assert votes.shape == (1, 3 * 5 * 4, 10, 4)
    by_place = votes.unflatten(1, (3, 5, 4))[0, :, :, 2, 7]
    for y in range(3):
        for x in range(5):
            close(by_place[y, x], float64([0, (y + 0.5) / 3, 0, (x + 0.5) / 5]))
