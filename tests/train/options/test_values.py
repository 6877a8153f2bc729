import argparse

import pytest

from train.options.values import list_of, new_file, positive, seconds, size_in_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [("16GB", 16 * 10**9), ("512MiB", 2**29), ("1000", 1000), ("1.5 gb", 1_500_000_000)],
)
def test_sizes(text, size):
    assert size_in_bytes(text) == size


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (size_in_bytes, "much", "'much' is not a size such as 16GB"),
        (size_in_bytes, "0GB", "'0GB' is not a size"),
        (seconds, "inf", "'inf' is not a number of seconds above 0"),
        (seconds, "-1", "not a number of seconds"),
        (positive, "-1", "'-1' is not a whole number"),
        (new_file, "nowhere/b.json", "nowhere/b.json cannot be written: nowhere is no folder"),
        (list_of(positive), "32,many", "'many' is not a whole number of at least 1"),
    ],
)
def test_words_of_a_wrong_form(read, text, message):
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        read(text)
