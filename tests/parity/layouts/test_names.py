"""Names with a number in them."""

import pytest

from parity.layouts.names import Pattern


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("caps.{k}.weight", ["caps.0.weight", "caps.1.weight", "caps.2.weight"]),
        ("decoder.{2n}.bias", ["decoder.0.bias", "decoder.2.bias", "decoder.4.bias"]),
        ("fc{n+1}.bias", ["fc1.bias", "fc2.bias", "fc3.bias"]),
        ("l{3n+1}", ["l1", "l4", "l7"]),
    ],
)
def test_counting(text, names):
    pattern = Pattern(text)
    assert [pattern.name(index, decoder=True) for index in range(3)] == names
    assert [pattern.matches(name)[0] for name in names] == [0, 1, 2]


def test_other_names_do_not_match():
    assert Pattern("decoder.{2n}.bias").matches("decoder.1.bias") is None
    assert Pattern("fc{n+1}.bias").matches("fc0.bias") is None
    assert Pattern("fc{n}.bias").matches("fc01.bias") is None
    assert Pattern("fc.bias").matches("fcxbias") is None
    assert Pattern("fc.bias").letter is None


def test_a_part_that_only_a_network_with_decoder_has():
    pattern = Pattern("[net.]conv.weight")
    assert pattern.name(None, decoder=True) == "net.conv.weight"
    assert pattern.name(None, decoder=False) == "conv.weight"
    assert pattern.matches("net.conv.weight") == (None, True)
    assert pattern.matches("conv.weight") == (None, False)


@pytest.mark.parametrize("text", ["", "a b", "a.{k}.{t}", "a.{k-1}", "a.{1}", "a]b", "[[a]b]c"])
def test_what_is_no_pattern(text):
    with pytest.raises(ValueError, match="is not a name with at most one number"):
        Pattern(text)
