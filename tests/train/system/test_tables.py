"""Tables as plain text and as Markdown."""

import pytest

from train.system.tables import aligned, markdown_lines


def test_cells_stand_below_one_another_and_no_line_ends_in_spaces():
    assert aligned([["name", "n"], ["a", "1,000"], ["longer", ""]]) == (
        "name    n\na       1,000\nlonger"
    )


def test_a_row_of_another_length():
    with pytest.raises(ValueError, match="argument"):
        aligned([["a", "b"], ["c"]])


def test_a_table_in_markdown():
    assert markdown_lines([["a", "b"], ["1", ""]]) == ["| a | b |", "| --- | --- |", "| 1 |  |"]


def test_a_name_is_a_cell_whatever_is_in_it():
    cells = [["class"], ["a|b\n\x1b[2J"]]
    assert aligned(cells) == "class\na|b\\n\\x1b[2J"
    assert markdown_lines(cells)[-1] == r"| a\|b\n\x1b[2J |"
