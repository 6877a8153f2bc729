"""Runs made of PyTorch weights compute what the PyTorch network computes."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from PIL import Image

import capsjax
import train.__main__
from parity.__main__ import main
from parity.check.arithmetic import exact
from parity.check.pairs import learned
from parity.layouts import weights
from parity.layouts.importing import import_weights, recognise
from parity.layouts.match import match
from parity.layouts.table import Layout, get_layout
from parity.reference import OTHERS, REFERENCES
from tests.parity.layouts.dialects import (
    STRIDE,
    build,
    digits,
    saved,
    seen_by,
    state_of,
)
from tests.parity.layouts.test_table import FOLDER
from tests.tolerance import assert_close
from train.config.fit_config import FitConfig
from train.learn.objective import Objective
from train.report.loading import load_model
from train.run.folder import load_run
from train.system.errors import UserError

every_layout = pytest.mark.parametrize("name", REFERENCES)

BATCH = 24
# The longest sums: 64 pixels of an image forwards; the positions of a batch backwards.
FORWARD, BACKWARD = 64, BATCH * 6 * 6


def stride(config: FitConfig) -> FitConfig:
    """The tests' networks have a stride of 3, which weights do not tell."""
    return config.changed(model_options={**config.model.options, "primary_stride": 3})


def import_(path: Path, out: Path, layout: str = "auto", **options):
    return import_weights(path, layout=layout, out=out, change=stride, **options)


# --- What is computed


@every_layout
def test_a_run_computes_what_the_dialect_computes(name, tmp_path):
    """Lengths, coupling, reconstruction, losses and gradients, on real digits."""
    reference = build(name)
    imported = import_(saved(tmp_path / "weights.pt", reference.state_dict()), tmp_path / "run")
    assert imported.layout.name == name
    images, labels = digits(BATCH)
    seen, truth = seen_by(reference, images), torch.from_numpy(labels.astype(np.int64))

    with exact(x64=False):
        expected = reference(seen, truth)
        terms = reference.losses(expected, seen, truth)
        terms["total"].backward()
        (output, losses), gradient = compute(load_run(tmp_path / "run"), images, labels)

    last = max(stage for stage in expected if stage.startswith("c") and stage != "conv1")
    close(output.lengths, expected["lengths"], FORWARD)
    close(output.coupling, expected[last], FORWARD)
    close(output.reconstruction.reshape(BATCH, -1), expected["reconstruction"], FORWARD)
    assert (np.asarray(output.lengths).argmax(axis=1) != labels).any()  # so the masks differ
    config = imported.run.config
    assert config.objective.mask_in_test == reference.mask_in_test
    close(config.objective.margin_weight * losses["margin_loss"], terms["margin"], FORWARD)
    mean_over_pixels = get_layout(name).options.get("reconstruction_over_pixels") == "mean"
    scale = 1 / 64 if mean_over_pixels else 1
    close(scale * losses["reconstruction_loss"], terms["reconstruction"], FORWARD)
    close(jnp.mean(losses["loss"]), terms["total"], FORWARD)

    found = match(get_layout(name), learned(reference))
    of_reference = {key: p.grad.numpy() for key, p in reference.named_parameters()}
    for key, value in found.to_capsjax(of_reference).items():
        close(gradient[key], value, BACKWARD)


def compute(run, images: np.ndarray, labels: np.ndarray):
    model, objective = load_model(run, "last"), Objective.of(run.config)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    seen = objective.normalise(jnp.asarray(images), jnp.float32)

    @jax.jit
    def loss(params):
        output = objective.apply(nnx.merge(graphdef, params, rest), seen, labels, training=True)
        losses = objective.losses(output, seen, labels)
        return jnp.mean(losses["loss"]), (output, losses)

    gradient, values = jax.grad(loss, has_aux=True)(nnx.to_pure_dict(params))
    return values, weights.by_name(gradient)


def close(actual, expected, reduction_length: int) -> None:
    if isinstance(expected, torch.Tensor):
        expected = expected.detach().numpy()
    assert_close(np.asarray(actual), expected, reduction_length=reduction_length)


@pytest.mark.parametrize(("name", "scale"), [("xifengguo", 1e-6), ("xifengguo-keras", 1e-3)])
def test_small_capsules_show_the_epsilon_of_a_squash(name, scale, tmp_path):
    reference = build(name)
    with torch.no_grad():
        for parameter in list(reference.parameters())[2:4]:
            parameter *= scale
    import_(saved(tmp_path / "weights.pt", reference.state_dict()), tmp_path / "run")
    run = load_run(tmp_path / "run")
    images, _ = digits(BATCH)
    seen = Objective.of(run.config).normalise(jnp.asarray(images), jnp.float32)
    with exact(x64=False), torch.no_grad():
        expected = reference(seen_by(reference, images))["primary_u"].numpy()
        model = load_model(run, "last")
        features = model.features(seen)
        close(model.primary_caps(features).pose, expected, FORWARD)
        without = capsjax.squash(model.primary_caps.project(features))
    assert np.abs(without - expected).max() > 1e-3 * np.abs(expected).max()


def in_test(run, images: np.ndarray):
    """What the network of a run makes of uint8 images in test."""
    seen = Objective.of(run.config).normalise(jnp.asarray(images), jnp.float32)
    return jax.jit(lambda model, seen: model(seen))(load_model(run, "last"), seen)


@pytest.mark.parametrize("name", OTHERS)
def test_a_run_computes_in_test_what_another_network_computes(name, tmp_path):
    """With the averages of batches that it has learned, whatever is in the batch."""
    reference = build(name).eval()
    path = saved(tmp_path / "weights.pt", reference.state_dict())
    imported = import_weights(path, layout="auto", out=tmp_path / "run", dataset="digits")
    assert imported.layout.name == name
    assert imported.parameters == sum(p.numel() for p in reference.parameters())
    images, labels = digits(BATCH)
    seen, truth = seen_by(reference, images), torch.from_numpy(labels.astype(np.int64))
    with exact(x64=False), torch.no_grad():
        expected = reference(seen)
        terms = reference.losses(expected, seen, truth)
        output = in_test(imported.run, images)
        losses = Objective.of(imported.run.config).losses(
            output, jnp.asarray(seen.permute(0, 2, 3, 1).numpy()), jnp.asarray(labels)
        )
    close(output.lengths, expected["lengths"], FORWARD)
    close(output.coupling, expected["coupling"], FORWARD)
    close(output.capsules.pose, expected["capsules"], FORWARD)
    if "reconstruction" in expected:
        close(output.reconstruction, expected["reconstruction"], FORWARD)
    close(jnp.mean(losses["loss"]), terms["total"], FORWARD)


@pytest.mark.parametrize("name", OTHERS)
def test_every_option_of_the_layout_of_another_network_is_seen(name, tmp_path):
    """Without any one of them, the imported network computes something else."""
    path = saved(tmp_path / "weights.pt", build(name).state_dict())
    imported = import_weights(path, layout=name, out=tmp_path / "run", dataset="digits")
    images, _ = digits(BATCH)
    run, layout = imported.run, imported.layout
    expected = in_test(run, images)
    published = FitConfig.of(model=layout.model, routing=layout.options["routing"])
    without = {
        field: run.config.changed(**{field: published.value(field)})
        for field in ("input_mean", "input_std", "routing_iterations")
        if field in layout.options
    }
    for field in ("model_options", "routing_options"):
        for option in layout.options.get(field, {}):
            rest = {k: v for k, v in run.config.value(field).items() if k != option}
            without[option] = run.config.changed(**{field: rest})
    # What decides what is learned, and not what is computed; and what decides the parameters.
    for option in OF_LEARNING | OF_PARAMETERS:
        without.pop(option, None)
    assert without
    for option, config in without.items():
        output = in_test(dataclasses.replace(run, config=config), images)
        seen = [(output.lengths, expected.lengths), (output.capsules.pose, expected.capsules.pose)]
        # The smallest is the epsilon of a mass: it takes 1e-6 of a mean.
        assert max(np.abs(a - b).max() / np.abs(b).max() for a, b in seen) > 1e-6, option


OF_LEARNING = {"norm_momentum", "initial_beta_u", "initial_beta_a"}
OF_PARAMETERS = {"conv_norm", "primary_bias"}


def test_on_784_pixels_xifengguo_has_the_weight_of_the_paper():
    config = get_layout("xifengguo").config((28, 28, 1), 10)
    assert_close(config.objective.reconstruction_weight, 0.0005)


# --- What train makes of it


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run imported by the command line."""
    folder = tmp_path_factory.mktemp("imported")
    path = saved(folder / "weights.pt", build("gram-ai").state_dict())
    assert (
        main(["import", str(path), "--layout", "gram-ai", "--out", str(folder / "run"), *STRIDE])
        == 0
    )
    return folder / "run"


def test_evaluate_and_predict_take_the_run(run, capsys, tmp_path):
    assert train.__main__.main(["evaluate", str(run), "--json", "--devices", "1"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["step"], result["examples"], result["dataset"]) == (0, 359, "digits")
    reference = build("gram-ai")
    images, labels = digits(359)
    with torch.no_grad():
        lengths = reference(seen_by(reference, images))["lengths"]
    right = (lengths.argmax(dim=1).numpy() == labels).mean()
    assert_close(result["accuracy"], right)

    Image.fromarray(images[0, ..., 0]).save(tmp_path / "digit.png")
    assert train.__main__.main(["predict", str(run), str(tmp_path / "digit.png"), "--json"]) == 0
    (predicted,) = json.loads(capsys.readouterr().out)
    assert predicted["class"] == str(int(lengths[0].argmax()))
    close(list(predicted["lengths"].values()), lengths[0], FORWARD)


def test_an_evaluation_tells_that_a_batch_shares_its_logits(tmp_path, capsys):
    """As of PyTorch in batches of 256 and 103: no zeros are beside the last of 359 images."""
    reference = build("jindongwang")
    import_(saved(tmp_path / "w.pt", reference.state_dict()), tmp_path / "run")
    arguments = [str(tmp_path / "run"), "--devices", "1"]
    assert train.__main__.main(["evaluate", *arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["batch"] == 256
    images, labels = digits(359)
    total = 0.0
    for batch in (slice(0, 256), slice(256, 359)):
        seen, truth = seen_by(reference, images[batch]), torch.from_numpy(labels[batch]).long()
        with torch.no_grad():
            terms = reference.losses(reference(seen, truth), seen, truth)
        total += float(terms["margin"].mean()) * len(seen)
    close(np.float32(result["margin_loss"]), np.float32(total / 359), FORWARD)
    assert train.__main__.main(["evaluate", *arguments]) == 0
    assert "share their logits, so that results depend on which are together, here 256" in (
        capsys.readouterr().out
    )


def test_the_folder_holds_nothing_but_a_run(run):
    assert sorted(p.name for p in run.iterdir() if p.name != "evaluations") == [
        "checkpoints",
        "config.json",
    ]
    assert [p.name for p in run.parent.iterdir() if p.name.startswith(".")] == []


def test_settings_of_the_training_can_be_given(tmp_path, capsys):
    path = saved(tmp_path / "weights.pt", build("xifengguo", iterations=2).state_dict())
    arguments = ["import", path, "--out", tmp_path / "run", *STRIDE, "--routing-iterations", 2]
    assert main([*map(str, arguments), "--batch-size", "32", "--reconstruction-weight", "0.1"]) == 0
    config = load_run(tmp_path / "run").config
    assert (config.model.routing_iterations, config.schedule.batch_size) == (2, 32)
    assert config.objective.reconstruction_weight == 0.1
    assert config.model.options["primary_order"] == "flat"
    assert config.preset == "imported:xifengguo"
    assert "as the layout xifengguo, for 8x8x1 images in 10 classes (digits)" in (
        capsys.readouterr().out
    )


# --- Which layout


def test_a_file_that_two_layouts_fit_is_no_guess():
    layout = get_layout("gram-ai")
    twin = Layout("twin", "", (), layout.formats, layout.rows, {})
    state = {name: tensor.numpy() for name, tensor in build("gram-ai").state_dict().items()}
    with pytest.raises(UserError, match="more than one layout.*one of gram-ai, twin"):
        recognise(Path("w.pt"), state, [layout, get_layout("xifengguo"), twin])


def test_a_suffix_of_the_same_kind_of_file_will_do(tmp_path):
    table = (FOLDER / "gram_ai.toml").read_text()
    (tmp_path / "mine.toml").write_text(table.replace('name = "gram-ai"', 'formats = [".pth"]'))
    path = saved(tmp_path / "weights.pth", state_of(build("gram-ai")))
    with pytest.raises(UserError, match="is of a network for images of 64 pixels"):  # what is next
        import_weights(path, layout=str(tmp_path / "mine.toml"), out=tmp_path / "run")
    (tmp_path / "keras.toml").write_text(table.replace('name = "gram-ai"', 'formats = [".hdf5"]'))
    with pytest.raises(UserError, match=r"is a \.pt file, .* must be one of: \.hdf5"):
        import_weights(path, layout=str(tmp_path / "keras.toml"), out=tmp_path / "other")


def test_a_file_that_no_layout_fits_is_told_with_the_nearest(tmp_path):
    state = state_of(build("cedrickchee"))
    del state["digits.weight"]
    next(iter(state.values())).view(-1)[0] = torch.nan
    with pytest.raises(UserError) as raised:
        import_(saved(tmp_path / "weights.pt", state), tmp_path / "run")
    assert "fits no layout; the nearest is cedrickchee" in str(raised.value)
    assert "missing: digits.weight" in str(raised.value)
    assert "not finite: " in str(raised.value)


def test_a_file_of_another_network_lists_the_layouts(tmp_path):
    path = saved(tmp_path / "weights.pt", torch.nn.Linear(2, 2).state_dict())
    with pytest.raises(UserError, match="weight, bias are names of none of adambielski, ced"):
        import_(path, tmp_path / "run")
    path = saved(tmp_path / "weights.pt", {"conv1.weight": torch.zeros(5, 1, 3, 3)})
    with pytest.raises(UserError, match="equally near are .*gram-ai.*reference"):
        import_(path, tmp_path / "run")


TABLE = """
name = "mine"
weights = [
  ["stem.w",       "features.conv.kernel",      "y x c f -> y x c f"],
  ["stem.b",       "features.conv.bias",        "f -> f"],
  ["caps{t+1}.w",  "primary_caps.conv.kernel",  "y x f k -> y x f (t k)"],
  ["caps{t+1}.b",  "primary_caps.conv.bias",    "1 k -> (t k)"],
  ["transform",    "class_caps.kernel",         "j (d k) i -> i j d k"],
  ["out.{n}.w",    "decoder.layers.{n}.kernel", "in out -> in out"],
  ["out.{n}.b",    "decoder.layers.{n}.bias",   "out -> out"],
]
[options]
model_options = { primary_stride = 3 }
"""


def test_a_table_of_the_user(tmp_path):
    """The reference's weights, written in another way."""
    reference = build("reference")
    s = state_of(reference)
    state = {"stem.w": s["conv1.weight"].permute(2, 3, 1, 0), "stem.b": s["conv1.bias"]}
    for t in range(3):
        of_type = slice(4 * t, 4 * t + 4)
        state[f"caps{t + 1}.w"] = s["primary.weight"][of_type].permute(2, 3, 1, 0)
        state[f"caps{t + 1}.b"] = s["primary.bias"][None, of_type]
    state["transform"] = s["class_caps.weight"].permute(1, 2, 3, 0).reshape(10, 24, 12)
    for n in range(3):
        state[f"out.{n}.w"] = s[f"decoder.{2 * n}.weight"].T
        state[f"out.{n}.b"] = s[f"decoder.{2 * n}.bias"]
    (tmp_path / "mine.toml").write_text(TABLE)
    path = saved(tmp_path / "weights.pt", {k: v.contiguous() for k, v in state.items()})

    imported = import_weights(path, layout=str(tmp_path / "mine.toml"), out=tmp_path / "mine")
    import_(saved(tmp_path / "ref.pt", s), tmp_path / "ref")
    assert imported.run.config.preset == "imported:mine"
    mine, other = (load_model(load_run(tmp_path / name), "last") for name in ("mine", "ref"))
    for a, b in zip(*(jax.tree.leaves(nnx.state(m)) for m in (mine, other)), strict=True):
        np.testing.assert_array_equal(a, b)


# --- Bad input: everything is said at once, and nothing is written


def refused(path: Path, tmp_path: Path, layout: str = "gram-ai", **options) -> str:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError) as raised:
        import_(path, tmp_path / "run", layout, **options)
    assert sorted(tmp_path.iterdir()) == before
    return str(raised.value)


def test_all_damage_is_told_at_once(tmp_path):
    state = state_of(build("gram-ai"))
    del state["conv1.bias"]
    state["step"] = torch.tensor(3)
    state["decoder.2.bias"] = torch.zeros(12)
    state["decoder.0.bias"][2:4] = torch.nan
    state["digit_capsules.route_weights"][0, 0, 0, 0] = torch.inf
    text = refused(saved(tmp_path / "weights.pt", state), tmp_path)
    assert text.splitlines() == [
        f"{tmp_path / 'weights.pt'} does not fit the layout gram-ai:",
        "  missing: conv1.bias",
        "  not in the layout: step",
        "  wrong shape: decoder.2.bias is [12], expected [11] (out)",
        "  no floating dtype: step (int64)",
        "  not finite: digit_capsules.route_weights (1 infinite), decoder.0.bias (2 NaN)",
    ]


def test_images_that_no_data_set_has(tmp_path):
    path = saved(tmp_path / "w.pt", build("gram-ai", image_shape=(9, 8, 2)).state_dict())
    text = refused(path, tmp_path)
    assert "images of 72 pixels with 2 channels in 10 classes" in text
    assert "digits 8x8x1 in 10 classes, mnist 28x28x1 in 10 classes" in text
    path = saved(tmp_path / "w.pt", build("gram-ai").state_dict())
    assert "mnist 28x28x1 in 10 classes has no such" in refused(path, tmp_path, dataset="mnist")
    assert "unknown dataset 'mnits' (did you mean mnist?), choose" in refused(
        path, tmp_path, dataset="mnits"
    )


@pytest.mark.parametrize(
    ("sizes", "suggested"),
    [
        ({"image_shape": (32, 32, 3)}, "but --dataset cifar10 or --dataset svhn_cropped would fit"),
        (
            {"image_shape": (32, 32, 2), "num_classes": 5},
            "but --dataset smallnorb --crop 32 would fit",
        ),
        (
            {"image_shape": (28, 28, 2), "num_classes": 5, "decoder_hidden": None},
            "but --dataset smallnorb --crop 28 would fit",
        ),
    ],
)
def test_data_sets_that_would_fit_are_suggested(sizes, suggested, tmp_path):
    path = saved(tmp_path / "w.pt", build("gram-ai", **sizes).state_dict())
    assert suggested in refused(path, tmp_path)


def test_a_network_for_the_middle_of_images_is_imported_with_a_crop(tmp_path):
    path = saved(tmp_path / "w.pt", build("xifengguo", image_shape=(20, 20, 1)).state_dict())
    assert "but --dataset mnist --crop 20 would fit" in refused(
        path, tmp_path, "auto", dataset="mnist"
    )
    arguments = ["--out", str(tmp_path / "run"), "--dataset", "mnist", "--crop", "20", *STRIDE]
    assert main(["import", str(path), *arguments]) == 0
    config = load_run(tmp_path / "run").config
    assert config.data.crop == 20
    assert_close(config.objective.reconstruction_weight, 0.392 / 400)


def test_a_stride_that_cannot_be(tmp_path):
    path = saved(tmp_path / "w.pt", build("gram-ai").state_dict())
    with pytest.raises(UserError, match="12 primary capsules of 3 types") as raised:
        import_weights(path, layout="gram-ai", out=tmp_path / "run")
    # Those of the network, and others that leave as many positions.
    assert "--dataset digits --model-options conv_stride=1 primary_stride=3" in str(raised.value)
    assert (
        main(
            [
                "import",
                str(path),
                "--out",
                str(tmp_path / "r"),
                "--model-options",
                "primary_stride=0",
            ]
        )
        == 2
    )
    assert not (tmp_path / "r").exists()


def test_the_counters_of_batches_are_left_out_and_may_be_missing(tmp_path):
    state = state_of(build("yl-1993"))
    counter = "bn1.num_batches_tracked"
    assert counter in state
    import_weights(
        saved(tmp_path / "with.pt", state), layout="auto", out=tmp_path / "a", dataset="digits"
    )
    del state[counter]
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    import_weights(
        saved(tmp_path / "without.pt", {"state_dict": wrapped}),
        layout="auto",
        out=tmp_path / "b",
        dataset="digits",
    )
    a, b = (jax.tree.leaves(nnx.state(load_model(load_run(tmp_path / r), "last"))) for r in "ab")
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one, other)


def test_all_damage_of_another_network_is_told_at_once(tmp_path):
    state = state_of(build("yl-1993"))
    del state["bn1.running_var"], state["conv_caps2.beta_a"]
    state["bn2.weight"] = torch.zeros(5)
    state["class_caps.weights"] = torch.zeros(1, 6, 10, 2, 3)
    state["bn1.running_mean"][1] = torch.nan
    text = refused(saved(tmp_path / "weights.pt", state), tmp_path, "yl-1993")
    assert text.splitlines() == [
        f"{tmp_path / 'weights.pt'} does not fit the layout yl-1993:",
        "  missing: bn1.running_var, conv_caps2.beta_a",
        "  not in the layout: bn2.weight",
        "  wrong shape: class_caps.weights is [1, 6, 10, 2, 3], expected [1, 6, 10, 2, 2] "
        "(1 b j p q)",
        "  not finite: bn1.running_mean (1 NaN)",
    ]


def test_sizes_that_do_not_go_together_are_told(tmp_path):
    state = state_of(build("efficient-capsnet"))
    state["efficient_capsnet.routing_caps.W"] = torch.zeros(10, 5, 4, 6)
    state["efficient_capsnet.routing_caps.b"] = torch.zeros(10, 5, 1)
    path = saved(tmp_path / "w.pt", state)
    with pytest.raises(UserError) as raised:
        import_weights(path, layout="auto", out=tmp_path / "run", dataset="digits")
    first, second = str(raised.value).splitlines()
    assert "with 5 primary capsules of 3 types (with strides (1, 1, 1, 2) and 1, which" in first
    assert "--model-options strides=N primary_stride=N changes); digits 8x8x1 in 10" in first
    assert second == "  with digits: class_caps.kernel is (3, 10, 6, 4), not (5, 10, 6, 4)"


def test_a_network_that_does_not_tell_the_size_of_its_images(tmp_path):
    path = saved(tmp_path / "w.pt", build("yl-1993").state_dict())
    with pytest.raises(UserError, match="does not tell the size .* which of digits, mnist"):
        import_weights(path, layout="auto", out=tmp_path / "run")
    # That of the published size does not fit on digits.
    path = saved(
        tmp_path / "w.pt", OTHERS["yl-1993"](conv_features=4, primary_types=2).state_dict()
    )
    imported = import_weights(path, layout="auto", out=tmp_path / "run")
    assert (imported.run.config.data.dataset, imported.run.config.objective.loss) == (
        "mnist",
        "spread",
    )


def test_sets_with_the_same_images_are_named(tmp_path):
    sizes = {"image_shape": (28, 28, 1), "conv_kernel": 9, "primary_kernel": 9}
    path = saved(tmp_path / "w.pt", build("gram-ai", primary_stride=2, **sizes).state_dict())
    imported = import_weights(path, layout="auto", out=tmp_path / "run")
    assert imported.run.config.data.dataset == "mnist"
    assert imported.others == ("fashion_mnist", "kmnist")
    imported = import_weights(
        path, layout="auto", out=tmp_path / "run", dataset="fashion_mnist", overwrite=True
    )
    assert imported.run.class_names[0] == "T-shirt/top"


def test_a_folder_that_is_taken_stays_as_it_is(tmp_path):
    path = saved(tmp_path / "w.pt", build("gram-ai").state_dict())
    import_(path, tmp_path / "run")
    before = (tmp_path / "run" / "config.json").read_bytes()
    assert "holds a run already" in refused(path, tmp_path)
    assert (tmp_path / "run" / "config.json").read_bytes() == before
    other = saved(tmp_path / "other.pt", build("reference").state_dict())
    import_(other, tmp_path / "run", "reference", overwrite=True)
    assert load_run(tmp_path / "run").config.preset == "imported:reference"

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        import_(path, tmp_path / "mine", overwrite=True)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    assert {p.name for p in tmp_path.iterdir()} == {"w.pt", "other.pt", "run", "mine"}


def test_numbers_that_are_infinite_as_they_are_kept_are_refused(tmp_path):
    state = {n: t.double() for n, t in build("gram-ai").state_dict().items()}
    state["conv1.bias"][0] = 1e39
    told = refused(saved(tmp_path / "w.pt", state), tmp_path)
    assert "has numbers that are too large for float32: conv1.bias." in told


def test_a_configuration_of_another_network(tmp_path, capsys):
    path = saved(tmp_path / "w.pt", build("gram-ai").state_dict())
    arguments = ["import", str(path), "--out", str(tmp_path / "run"), *STRIDE]
    assert main([*arguments, "--routing", "dynamic-prior"]) == 2
    assert "class_caps.routing.prior" in capsys.readouterr().err
    assert main([*arguments, "class_dim=3"]) == 2
    assert "class_caps.kernel is" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
