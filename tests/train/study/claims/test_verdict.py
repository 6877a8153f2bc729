"""What is said of a claim."""

import pytest
from train.study.claims.definition import Arm, Claim, Contrast, Quantity
from train.study.claims.verdict import Measured, limits, markdown, text, verdicts

from train.config.fit_config import FitConfig

ERROR = Quantity("error, %", lambda folder, data_dir: 0.0)


def claim(*contrasts):
    return Claim("Less is more.", "Nobody 1900", lambda budget: [], [ERROR], contrasts)


def measured(name, *errors, paper=None, steps=100):
    arm = Arm(name, FitConfig.of(batch_size=10), {} if paper is None else {ERROR.name: paper})
    return Measured(arm, {ERROR.name: errors}, 1234, [steps] * len(errors), 12.4)


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ((1.0, 1.1, 0.9), "Seen: A has 1.00 points less than B (error, %; 95 % interval ± 0.25"),
        ((3.0, 3.1, 2.9), "The opposite was seen: B has 1.00 points less than A (error, %;"),
        ((1.0, 2.5, 2.2), "Not seen, nor its opposite: A has 0.10 points less than B"),
    ],
)
def test_whether_it_was_seen(errors, expected):
    both = [measured("A", *errors), measured("B", 2.0, 2.0, 2.0)]
    (told,) = verdicts(claim(Contrast("A", "B", ERROR.name)), both)
    assert told.startswith(expected)
    assert told.endswith("3 seeds).")


def test_one_seed_tells_nothing():
    both = [measured("A", 1.0), measured("B", 2.0)]
    (told,) = verdicts(claim(Contrast("A", "B", ERROR.name)), both)
    assert told == "Cannot be told from one seed: A has 1.00 points less than B (error, %)."


def test_the_table_has_the_papers_numbers_beside_ours():
    both = [measured("A", 1.0, 2.0, paper=0.25), measured("B", 2.0, 2.0)]
    lines = text(claim(), both, "small").splitlines()
    assert lines[0].split("  ")[0] == "network"
    assert lines[1].split() == ["A", "1.50", "±", "0.71", "0.25", "1,234", "1,000", "12"]
    assert lines[2].split() == ["B", "2.00", "±", "0.00", "1,234", "1,000", "12"]
    page = markdown(claim(), both, "small", "python -m train claims x", ["a.png"])
    assert "| A | 1.50 ± 0.71 | 0.25 | 1,234 | 1,000 | 12 |" in page
    assert "`python -m train claims x`" in page
    assert "![a.png](a.png)" in page
    assert "- Nothing is compared here" in page


def test_a_small_budget_says_that_it_proves_nothing():
    both = [measured("A", 1.0, 2.0), measured("B", 1.0, 2.0, steps=50)]
    first, second = limits(both, "small")
    assert first == "Budget small: 2 seeds, 500 to 1,000 training images seen by each network."
    assert second.startswith("This budget proves nothing")
    assert len(limits(both, "paper")) == 1
