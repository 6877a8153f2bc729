"""Named axes, against NumPy's own."""

import numpy as np
import pytest

from parity.layouts.axes import groups, letters, parse_axes, shape

SIZES = {"a": 2, "b": 3, "c": 5, "k": 4}


def numbers(*sizes: int) -> np.ndarray:
    return np.arange(np.prod(sizes), dtype=np.float32).reshape(sizes)


def test_a_permutation():
    x = numbers(2, 3, 5)
    moved = parse_axes("a b c -> c a b", None).to_target([x], SIZES)
    np.testing.assert_array_equal(moved, x.transpose(2, 0, 1))


def test_an_axis_of_size_one_is_dropped():
    x = numbers(1, 2, 3)
    dropped = parse_axes("1 a b -> b a", None).to_target([x], SIZES)
    np.testing.assert_array_equal(dropped, x[0].T)


def test_an_axis_is_split_with_the_last_name_running_fastest():
    x = numbers(2, 15)
    split = parse_axes("a (b c) -> b a c", None).to_target([x], SIZES)
    np.testing.assert_array_equal(split, x.reshape(2, 3, 5).transpose(1, 0, 2))


def test_tensors_are_interleaved_or_concatenated():
    tensors = [numbers(2, 3) + 100 * k for k in range(4)]
    inner = parse_axes("a b -> b (a k)", "k").to_target(tensors, SIZES)
    outer = parse_axes("a b -> b (k a)", "k").to_target(tensors, SIZES)
    for k in range(4):
        for a in range(2):
            np.testing.assert_array_equal(inner[:, 4 * a + k], tensors[k][a])
            np.testing.assert_array_equal(outer[:, 2 * k + a], tensors[k][a])


@pytest.mark.parametrize(
    ("text", "stacked"),
    [
        ("a b c -> c a b", None),
        ("1 a b c -> b c a", None),
        ("a (b c) -> b a c", None),
        ("a b -> b (a k)", "k"),
        ("1 (b a) -> (k a) b", "k"),
    ],
)
def test_there_and_back_is_the_same(text, stacked):
    axes = parse_axes(text, stacked)
    size = shape(axes.source, SIZES)
    tensors = [numbers(*size) + 1000 * k for k in range(4 if stacked else 1)]
    target = axes.to_target(tensors, SIZES)
    assert target.shape == shape(axes.target, SIZES)
    back = axes.to_source(target, SIZES)
    assert len(back) == len(tensors)
    for piece, tensor in zip(back, tensors, strict=True):
        np.testing.assert_array_equal(piece, tensor)
        assert piece.flags.c_contiguous


def test_names_of_several_letters_and_words_of_python_are_names_too():
    x = numbers(2, 3, 5)
    sizes = {"in": 2, "out": 3, "is": 5}
    moved = parse_axes("in out is -> is (out in)", None).to_target([x], sizes)
    np.testing.assert_array_equal(moved, x.transpose(2, 1, 0).reshape(5, 6))


def test_axes_are_kept_as_they_are_written():
    axes = parse_axes("  1 y x  t k -> 1 y x (t k)", None)
    assert (axes.source, axes.target) == ("1 y x t k", "1 y x (t k)")
    assert groups(axes.target) == [(), ("y",), ("x",), ("t", "k")]
    assert letters(axes.target) == ["y", "x", "t", "k"]


@pytest.mark.parametrize("text", ["", "a,b", "a (b", "a 2", "A b", "a (b (c))"])
def test_what_is_no_list_of_axes(text):
    with pytest.raises(ValueError, match="is not a list of axes"):
        parse_axes(f"{text} -> a", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a b", "no '->'"),
        ("a b -> b", "a on one side only"),
        ("a -> a b", "b on one side only"),
        ("a a -> a", "twice"),
    ],
)
def test_sides_that_do_not_belong_together(text, message):
    with pytest.raises(ValueError, match=message):
        parse_axes(text, None)
