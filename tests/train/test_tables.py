"""Tables as plain text."""

import pytest

from train.tables import aligned


def test_cells_stand_below_one_another_and_no_line_ends_in_spaces():
    assert aligned([["name", "n"], ["a", "1,000"], ["longer", ""]]) == (
        "name    n\na       1,000\nlonger"
    )


def test_a_row_of_another_length():
    with pytest.raises(ValueError, match="argument"):
        aligned([["a", "b"], ["c"]])
