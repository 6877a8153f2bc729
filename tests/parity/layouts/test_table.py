"""Tables that users write: what they can say, and what is said about those that are wrong."""

import re
from pathlib import Path

import pytest

import parity.layouts
from parity.layouts.table import builtin_layouts, get_layout, read_layout
from train.system.errors import UserError

FOLDER = Path(parity.layouts.__file__).parent / "published"
GRAM_AI = (FOLDER / "gram_ai.toml").read_text()


def table(tmp_path: Path, *changes: tuple[str, str], text: str = GRAM_AI) -> Path:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def test_a_file_is_a_layout_as_a_name_is(tmp_path):
    path = table(tmp_path)
    assert get_layout(str(path)) == read_layout(path) == get_layout("gram-ai")
    assert get_layout("gram_ai") == get_layout("gram-ai")


def test_the_name_is_by_default_that_of_the_file(tmp_path):
    assert read_layout(table(tmp_path, ('name = "gram-ai"', ""))).name == "mine"


def test_another_name_of_a_layout():
    assert get_layout("higgsfield") == get_layout("jindongwang")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(
        UserError, match="gram-ia.*adambielski, cedrickchee, efficient-capsnet.*TOML"
    ):
        get_layout("gram-ia")


def test_every_layout_has_a_row_in_the_docs():
    text = (Path(__file__).parents[3] / "docs" / "layouts.md").read_text(encoding="utf-8")
    for layout in builtin_layouts():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{layout.name}`"))
        assert f"`{layout.model}`" in row
        assert all(f"`{alias}`" in row for alias in layout.aliases)


@pytest.mark.parametrize("layout", builtin_layouts(), ids=lambda layout: layout.name)
def test_a_layout_is_named_as_its_file(layout):
    assert layout.about
    assert (FOLDER / f"{layout.name.replace('-', '_')}.toml").is_file()


def test_decoder_layers_can_be_named_one_by_one(tmp_path):
    rows = "\n".join(
        f'["out.{name}.{kind}", "decoder.layers.{n}.{target}", "{axes}"],'
        for n, name in enumerate(("first", "second", "last"))
        for kind, target, axes in (("w", "kernel", "in out -> in out"), ("b", "bias", "out -> out"))
    )
    text = re.sub(r"  \[\"decoder.*\n", "", GRAM_AI).replace(
        "]\n\n[options]", rows + "]\n[options]"
    )
    layout = read_layout(table(tmp_path, text=text))
    targets = [row.target for row in layout.rows if row.is_decoder]
    assert targets == [f"decoder.layers.{n}.{w}" for n in range(3) for w in ("kernel", "bias")]


def a_row(text: str) -> tuple[str, str]:
    line = next(line for line in GRAM_AI.splitlines() if line.strip().startswith('["conv1.bias"'))
    return line, text


WRONG = [
    (("name =", "nam ="), "unknown key 'nam' (did you mean name?), choose from: name, about"),
    (('name = "gram-ai"', "name = 3"), "name is 3, but must be a text"),
    (('name = "gram-ai"', 'formats = [".bin"]'), "unknown format '.bin', choose from: .pt"),
    (('name = "gram-ai"', "aliases = 1"), "aliases must be a list of texts"),
    (("weights = [", "weights = 3 #["), "is not valid TOML"),
    (("weights = [", f"weights = {'9' * 5000}\nx = ["), "is not valid TOML"),
    (("weights = [", f"x = {'[' * 5000}\nweights = ["), "is not valid TOML"),
    (("weights = [", "weight = ["), "unknown key 'weight'"),
    (a_row('["conv1.bias", "features.conv.bias"],'), "is not three texts"),
    (a_row('["conv1.bias", "features.bias", "f -> f"],'), "unknown target 'features.bias'"),
    (a_row('["conv1.bias", "features.conv.bias", "f"],'), "has no '->'"),
    (a_row('["conv1.bias", "features.conv.bias", "c -> c"],'), "bias are 'f', not 'c'"),
    (a_row('["conv1 bias", "features.conv.bias", "f -> f"],'), "is not a name with at most one"),
    (a_row(""), "has no row for features.conv.bias"),
    (a_row(2 * '["conv1.bias", "features.conv.bias", "f -> f"],'), "more than one row for"),
    (("decoder.{2n}.bias", "decoder.{2m}.bias"), "needs a number of the letter n"),
    (("decoder.{2n}.bias", "decoder.{n}.weight"), "two rows have a tensor decoder."),
    (("lengths_are =", "decoder_draws ="), "unknown decoder_draws 'softmax', choose from: chw, h"),
    (("t -> (t k)", "t -> (k t)"), "need the primary_order 'flat'"),
    (("margin_of =", "margin ="), "unknown option 'margin' (did you mean margin_of?), choose"),
    (('are = "softmax"', 'are = "norm"'), "unknown lengths_are 'norm', choose from: lengths, s"),
    (('of = "softmax"', 'of = "norm"'), "unknown margin of 'norm', choose from: length, softmax"),
    (('of = "softmax"', "of = 2"), "margin_of = 2, which is of the wrong type"),
    (("margin_of =", 'routing = "dynamic-prior" #'), "belong together"),
    (
        ("weights = [", 'weights = [\n["b", "class_caps.routing.bias", "j d -> j d"],'),
        "belong together; such a row needs routing = 'dynamic-bias'",
    ),
    (("margin_of =", "margin_power = 0 #"), "--margin-power is 0, but must be more than 0"),
    (("margin_of =", "margin_power = true #"), "margin_power = True, which is of the wrong type"),
    (("primary_order", "primary_ordre"), "unknown model option 'primary_ordre' (did you mean "),
    (("softmax_over", "softmax_axis"), "routing 'dynamic' has no option 'softmax_axis'"),
    (('over = "in"', 'over = "inputs"'), "unknown softmax_over 'inputs', choose from: out, in"),
    (("margin_of =", "margin_over_classes = 1 #"), "must be 'sum' or 'mean'"),
    (("[options]", "[option]"), "unknown key 'option' (did you mean options?)"),
    (("about =", 'model = "deepcaps" #'), "unknown model 'deepcaps', choose from: capsnet, eff"),
    (("about =", 'model = "matrix_capsnet" #'), "unknown target 'primary_caps.conv.kernel'"),
    (("margin_of =", 'routing = "em" #'), "has no option 'softmax_over'"),
    (("margin_of =", 'loss = "hinge" #'), "unknown loss 'hinge', choose from"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_a_wrong_table_is_told_in_one_sentence(tmp_path, change, message):
    path = table(tmp_path, change)
    with pytest.raises(UserError) as raised:
        read_layout(path)
    assert message in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


YL_1993 = (FOLDER / "yl_1993.toml").read_text()
OF_ANOTHER_MODEL = [
    (("conv_norm = true", ""), "row for features.norm.bias, features.norm.mean, features.norm"),
    (("primary_bias = true", ""), "row for primary_caps.pose.bias[0], primary_caps.pose.bias[1]"),
    (('["primary_caps.a.bias"', '#["'), "has no row for primary_caps.pose.bias[1]: matrix_capsnet"),
    (("1 b j p q -> b j p q", "1 j b p q -> j b p q"), "are 'b j p q', not 'j b p q'"),
    (("conv_padding", "primary_order"), "unknown model option 'primary_order'"),
    (("temperature_decay", "decay"), "routing 'em' has no option 'decay'"),
    (('routing = "em"', 'routing = "variational-bayes"'), "has no option 'formulation'"),
]


@pytest.mark.parametrize(("change", "message"), OF_ANOTHER_MODEL)
def test_a_wrong_table_of_another_model_too(tmp_path, change, message):
    with pytest.raises(UserError) as raised:
        read_layout(table(tmp_path, change, text=YL_1993))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_parameters_of_a_routing_that_no_row_can_name(tmp_path):
    change = ("margin_of =", 'routing = "em"\nmargin_of =')
    text = re.sub(r"routing_options.*\n", "", GRAM_AI)
    with pytest.raises(UserError, match="has class_caps.routing.beta_a, class_caps.routing.beta_u"):
        read_layout(table(tmp_path, change, text=text))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="there is no file .*none.toml"):
        get_layout(str(tmp_path / "none.toml"))
