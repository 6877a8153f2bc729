"""Names of parameters and of their parts."""

import pytest

from parity.layouts import targets


@pytest.mark.parametrize(
    ("target", "template", "module_list", "number", "parameter", "part", "module"),
    [
        ("conv.bias", "conv.bias", None, None, "conv.bias", 0, "conv"),
        ("a.norms.12.var", "a.norms.{n}.var", "a.norms", 12, "a.norms.12.var", 0, "a.norms.12"),
        ("a.{n}.b.k", "a.{n}.b.k", "a", None, "a.{n}.b.k", 0, "a.{n}.b"),
        ("pose.bias[1]", "pose.bias[1]", None, None, "pose.bias", 1, "pose"),
        ("l.0.k[2]", "l.{n}.k[2]", "l", 0, "l.0.k", 2, "l.0"),
    ],
)
def test_what_a_name_tells(target, template, module_list, number, parameter, part, module):
    assert targets.template(target) == template
    assert targets.module_list(target) == module_list
    assert targets.number(target) == number
    assert targets.parameter(target) == parameter
    assert targets.part(target) == part
    assert targets.module(target) == module
