"""Names with a number in them, and names of parameters and of their parts."""

import pytest

from parity.layouts import names
from parity.layouts.names import Pattern


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("caps.{k}.weight", ["caps.0.weight", "caps.1.weight", "caps.2.weight"]),
        ("decoder.{2n}.bias", ["decoder.0.bias", "decoder.2.bias", "decoder.4.bias"]),
        ("fc{n+1}.bias", ["fc1.bias", "fc2.bias", "fc3.bias"]),
        ("l{3n+1}", ["l1", "l4", "l7"]),
    ],
)
def test_counting(text, named):
    pattern = Pattern(text)
    assert [pattern.name(index, decoder=True) for index in range(3)] == named
    assert pattern.letter in ("k", "n")


def test_a_name_without_a_number():
    assert Pattern("fc.bias").letter is None
    assert Pattern("fc.bias").name(None, decoder=True) == "fc.bias"


def test_a_part_that_only_a_network_with_decoder_has():
    pattern = Pattern("[net.]conv.weight")
    assert pattern.name(None, decoder=True) == "net.conv.weight"
    assert pattern.name(None, decoder=False) == "conv.weight"


@pytest.mark.parametrize("text", ["", "a b", "a.{k}.{t}", "a.{k-1}", "a.{1}", "a]b", "[[a]b]c"])
def test_what_is_no_pattern(text):
    with pytest.raises(ValueError, match="is not a name with at most one number"):
        Pattern(text)


@pytest.mark.parametrize(
    ("target", "template", "module_list", "number", "parameter", "part"),
    [
        ("conv.bias", "conv.bias", None, None, "conv.bias", 0),
        ("a.norms.12.var", "a.norms.{n}.var", "a.norms", 12, "a.norms.12.var", 0),
        ("a.{n}.b.k", "a.{n}.b.k", "a", None, "a.{n}.b.k", 0),
        ("pose.bias[1]", "pose.bias[1]", None, None, "pose.bias", 1),
        ("l.0.k[2]", "l.{n}.k[2]", "l", 0, "l.0.k", 2),
    ],
)
def test_what_a_name_tells(target, template, module_list, number, parameter, part):
    assert names.template(target) == template
    assert names.module_list(target) == module_list
    assert names.list_index(target) == number
    assert names.parameter(target) == parameter
    assert names.part(target) == part
