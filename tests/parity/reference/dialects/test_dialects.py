"""Every PyTorch reference against what is known of its dialect, worked out by hand."""

import functools
from typing import NamedTuple

import pytest
import torch
from torch.nn import functional

from parity.reference import REFERENCES
from parity.reference.dialects import xifengguo, xifengguo_keras
from parity.reference.models import capsnet
from tests.parity.reference import by_hand
from tests.parity.reference.by_hand import TINY, TWO_BY_TWO, close, float64


class Rules(NamedTuple):
    """The choices of a dialect, as a row of a table.

    Attributes:
      order: of the primary capsules. A: the flat NCHW output cut in pieces; B: capsule P t + p of
        channel K t + k; C: T p + t of channel K t + k; D: P t + p of channel T k + t.
      softmax_over: "outputs" or "inputs".
      shared: one set of logits for the batch.
      squash: of the class capsules.
      passes: of the published routing.
      margin: what the margin loss is made of.
      error: "sum" or "mean" over the pixels, and `weight` what it is multiplied with.
      decodes: the capsule shown in training, when labels are given.
      mean, std: of the input normalisation.
    """

    order: str
    softmax_over: str = "outputs"
    shared: bool = False
    squash: object = by_hand.squash_paper
    passes: int = 3
    margin: str = "squared, summed over classes"
    error: str = "sum"
    weight: float = 0.0005
    decodes: str = "label"
    decodes_in_test: str = "longest"
    mean: float = 0.0
    std: float = 1.0


NORMALISED = {"decodes": "longest", "mean": 0.1307, "std": 0.3081}
WEIGHED = {"error": "mean", "weight": 0.392}
RULES = {
    "reference": Rules("C"),
    "gram-ai": Rules("D", softmax_over="inputs", margin="of softmax"),
    "xifengguo": Rules("A", squash=by_hand.squash_eps_on_length, **WEIGHED),
    "xifengguo-keras": Rules("C", squash=by_hand.squash_eps_in_root, **WEIGHED),
    "jindongwang": Rules(
        "A",
        softmax_over="inputs",
        shared=True,
        squash=by_hand.squash_each_element,
        margin="not squared",
        error="mean",
        **NORMALISED,
    ),
    "cedrickchee": Rules("D", shared=True, **NORMALISED),
    "laubonghaudoi": Rules("C", decodes_in_test="label"),
    "adambielski": Rules(
        "B", passes=4, margin="mean over classes", error="mean", decodes_in_test="label"
    ),
}


def names(*layers: str, of: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of layers whose weights have the shape `of`."""
    return {f"{name}.{x}": y for name in layers for x, y in (("weight", of), ("bias", of[:1]))}


def decoder(pattern: str, numbers: tuple[int, int, int], inputs: int = 160) -> dict:
    """Names and shapes of the three layers of a decoder of 28x28 images."""
    sizes = ((512, inputs), (1024, 512), (784, 1024))
    first, second, third = (
        names(pattern.format(n), of=size) for n, size in zip(numbers, sizes, strict=True)
    )
    return first | second | third


FIRST = (256, 1, 9, 9)
WHOLE = (256, 256, 9, 9)
BY_COMPONENT = (32, 256, 9, 9)
BY_TYPE = (8, 256, 9, 9)
STATE_DICTS = {
    "reference": names("conv1", of=FIRST)
    | names("primary", of=WHOLE)
    | {"class_caps.weight": (1152, 10, 16, 8)}
    | decoder("decoder.{}", (0, 2, 4)),
    "gram-ai": names("conv1", of=FIRST)
    | names(*(f"primary_capsules.capsules.{k}" for k in range(8)), of=BY_COMPONENT)
    | {"digit_capsules.route_weights": (10, 1152, 8, 16)}
    | decoder("decoder.{}", (0, 2, 4)),
    "xifengguo": names("conv1", of=FIRST)
    | names("primarycaps.conv2d", of=WHOLE)
    | {"digitcaps.weight": (10, 1152, 16, 8)}
    | decoder("decoder.{}", (0, 2, 4)),
    "xifengguo-keras": names("conv1", of=FIRST)
    | names("primarycap_conv2d", of=WHOLE)
    | {"digitcaps.W": (10, 1152, 16, 8)}
    | decoder("decoder.dense_{}", (1, 2, 3)),
    "jindongwang": names("conv_layer.conv", of=FIRST)
    | names(*(f"primary_capsules.capsules.{k}" for k in range(8)), of=BY_COMPONENT)
    | {"digit_capsules.W": (1, 1152, 10, 16, 8)}
    | decoder("decoder.reconstraction_layers.{}", (0, 2, 4)),
    "cedrickchee": names("conv1.conv0", of=FIRST)
    | names(*(f"primary.conv_units.{k}" for k in range(8)), of=BY_COMPONENT)
    | {"digits.weight": (1, 1152, 10, 16, 8)}
    | decoder("decoder.fc{}", (1, 2, 3)),
    "laubonghaudoi": names("Conv1", of=FIRST)
    | names(*(f"PrimaryCaps.capsules.{t}" for t in range(32)), of=BY_TYPE)
    | {"DigitCaps.W": (1, 1152, 10, 8, 16)}
    | decoder("Decoder.fc{}", (1, 2, 3), inputs=16),
    "adambielski": names("capsnet.conv1", of=FIRST)
    | names("capsnet.primaryCaps.conv", of=WHOLE)
    | {"capsnet.digitCaps.weights": (1152, 8, 160)}
    | {"capsnet.digitCaps.routing_module.b": (1152, 10)}
    | decoder("reconstruction_net.fc{}", (1, 2, 3)),
}

# Class weights as [I, J, D, K]: name, and how they get there.
CLASS_WEIGHTS = {
    "reference": ("class_caps.weight", lambda w: w),
    "gram-ai": ("digit_capsules.route_weights", lambda w: w.permute(1, 0, 3, 2)),
    "xifengguo": ("digitcaps.weight", lambda w: w.permute(1, 0, 2, 3)),
    "xifengguo-keras": ("digitcaps.W", lambda w: w.permute(1, 0, 2, 3)),
    "jindongwang": ("digit_capsules.W", lambda w: w[0]),
    "cedrickchee": ("digits.weight", lambda w: w[0]),
    "laubonghaudoi": ("DigitCaps.W", lambda w: w[0].permute(0, 1, 3, 2)),
    "adambielski": (
        "capsnet.digitCaps.weights",
        lambda w: w.view(*w.shape[:2], 5, 6).permute(0, 2, 3, 1),
    ),
}

every_reference = pytest.mark.parametrize("name", REFERENCES)
LABELS = torch.arange(3)


def build(name: str, sizes: dict = TINY, **changes) -> torch.nn.Module:
    """A network in float64 with weights large enough that routing has something to do."""
    torch.manual_seed(0)
    model = REFERENCES[name](**sizes | changes).double()
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith(("bias", "routing_module.b")):
            torch.nn.init.normal_(parameter, std=0.3)
        else:
            parameter.data *= 4
    return model


def random_images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(3, 2, 9, 8, generator=generator, dtype=torch.float64)


def random_votes() -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(3, 2, 2, 2, generator=generator, dtype=torch.float64)


class Seen(NamedTuple):
    model: torch.nn.Module
    images: torch.Tensor
    stages: dict[str, torch.Tensor]


@functools.cache
def seen(name: str) -> Seen:
    """A tiny network, to be left as it is, and what it computes of three images and labels."""
    model, images = build(name), random_images()
    return Seen(model, images, model(images, LABELS))


def test_every_reference_has_its_row_in_the_tables_here():
    assert set(RULES) == set(STATE_DICTS) == set(CLASS_WEIGHTS) == set(REFERENCES)


@every_reference
def test_names_and_shapes_of_the_published_size_and_what_the_dialect_states_about_itself(name):
    with torch.device("meta"):
        model = REFERENCES[name]()
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert shapes == STATE_DICTS[name]
    rules = RULES[name]
    assert model.iterations == rules.passes
    assert (model.input_mean, model.input_std) == (rules.mean, rules.std)
    assert (model.mask_in_training, model.mask_in_test) == (rules.decodes, rules.decodes_in_test)


def test_without_decoder_adambielski_has_no_prefix():
    of_layers = {f"{n}.{x}" for n in ("conv1", "primaryCaps.conv") for x in ("weight", "bias")}
    of_capsules = {"digitCaps.weights", "digitCaps.routing_module.b"}
    assert build("adambielski", decoder_hidden=None).state_dict().keys() == of_layers | of_capsules


@every_reference
@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_stages_in_order_with_their_shapes(name, iterations):
    model, images = build(name, iterations=iterations), random_images()
    expected = {
        "conv1": (3, 4, 7, 6),
        "primary_s": (3, 18, 4),
        "primary_u": (3, 18, 4),
        "u_hat": (3, 18, 5, 6),
    }
    for r in range(1, iterations + 1):
        expected |= {f"b{r}": (3, 18, 5), f"c{r}": (3, 18, 5)}
        expected |= {f"s{r}": (3, 5, 6), f"v{r}": (3, 5, 6)}
    expected |= {"capsules": (3, 5, 6), "coupling": (3, 18, 5), "lengths": (3, 5), "mask": (3, 5)}
    expected["reconstruction"] = (3, 144)
    stages = model(images, LABELS)
    assert [(key, tuple(value.shape)) for key, value in stages.items()] == list(expected.items())
    assert all(value.dtype == torch.float64 for value in stages.values())
    shapes = {k: tuple(v.shape) for k, v in model.losses(stages, images, LABELS).items()}
    assert shapes == {"margin": (3,), "reconstruction": (3,), "total": ()}


@every_reference
def test_without_decoder_there_is_no_reconstruction(name):
    model, images = build(name, decoder_hidden=None), random_images()
    stages = model(images, LABELS)
    assert list(stages)[-1] == "mask"
    terms = model.losses(stages, images, LABELS)
    assert list(terms) == ["margin", "total"]
    close(terms["total"], terms["margin"].mean())


@every_reference
def test_float32_and_float64_compute_the_same(name):
    narrow = build(name).float()(random_images().float(), LABELS)
    for stage, value in narrow.items():
        assert value.dtype == torch.float32
        close(value, seen(name).stages[stage], dtype="float32")


@every_reference
def test_conv1_is_a_rectified_convolution(name):
    model, images, stages = seen(name)
    expected = functional.conv2d(images, *list(model.state_dict().values())[:2])
    assert (expected < 0).any()
    close(stages["conv1"], expected.clamp(min=0))


def channels_of(model: torch.nn.Module, conv1: torch.Tensor) -> list[torch.Tensor]:
    """The output `[B, H, W]` of each filter of the primary capsules, in the order of the names."""
    primary = [value for key, value in model.state_dict().items() if "primary" in key.lower()]
    filters, biases = torch.cat(primary[::2]), torch.cat(primary[1::2])
    return [
        functional.conv2d(conv1, filters[n : n + 1], biases[n : n + 1], stride=2)[:, 0]
        for n in range(len(filters))
    ]


@every_reference
def test_primary_capsules_are_numbered_as_the_dialect_numbers_them(name):
    T, K, H, W = 3, 4, 3, 2
    P = H * W
    model, _, stages = seen(name)
    channels = channels_of(model, stages["conv1"])
    assert len(channels) == T * K
    expected = torch.full((3, T * P, K), torch.nan, dtype=torch.float64)
    for channel, maps in enumerate(channels):
        for p in range(P):
            match RULES[name].order:
                case "A":
                    flat = channel * P + p
                    n, k = flat // K, flat % K
                case "B":
                    n, k = P * (channel // K) + p, channel % K
                case "C":
                    n, k = T * p + channel // K, channel % K
                case "D":
                    n, k = P * (channel % T) + p, channel // T
            expected[:, n, k] = maps[:, p // W, p % W]
    close(stages["primary_s"], expected)


@every_reference
def test_primary_squash(name):
    s, u = (seen(name).stages[stage].detach() for stage in ("primary_s", "primary_u"))
    if name == "cedrickchee":  # a length over the capsules, for each component
        s, u = s.transpose(1, 2), u.transpose(1, 2)
    squash = by_hand.squash_paper if name == "jindongwang" else RULES[name].squash
    close(u, float64([[squash(vector) for vector in example] for example in s.tolist()]))


@every_reference
def test_votes(name):
    model, _, stages = seen(name)
    key, to_canonical = CLASS_WEIGHTS[name]
    W = to_canonical(model.state_dict()[key])
    assert W.shape == (18, 5, 6, 4)
    u, u_hat = stages["primary_u"], stages["u_hat"]
    for i, j in [(0, 0), (1, 4), (17, 2), (9, 3)]:
        for d in range(6):
            close(u_hat[2, i, j, d], sum(W[i, j, d, k] * u[2, i, k] for k in range(4)))


@every_reference
@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
def test_routing_done_by_hand(name, iterations):
    rules, model = RULES[name], build(name, TWO_BY_TWO, iterations=iterations)
    prior = None
    if name == "adambielski":
        prior = model.digitCaps.routing_module.b.tolist()
        assert any(logit != 0 for row in prior for logit in row)
    votes = random_votes()
    stages = model.route(votes)
    history = by_hand.route(
        votes.tolist(),
        iterations,
        softmax_over=rules.softmax_over,
        shared_by_batch=rules.shared,
        squash=rules.squash,
        prior=prior,
    )
    assert len(stages) == 4 * iterations
    for r, expected in enumerate(history, start=1):
        for symbol, numbers in expected.items():
            close(stages[f"{symbol}{r}"], float64(numbers))


@every_reference
def test_batch_mates_matter_only_where_logits_are_shared(name):
    model, images, stages = seen(name)
    alone = model(images[:1], LABELS[:1])
    for stage in ("u_hat", "v1"):
        close(stages[stage][:1], alone[stage])
    same = torch.allclose(stages["v3"][:1], alone["v3"], rtol=1e-10, atol=1e-12)
    assert same is not RULES[name].shared


@every_reference
def test_gradients_of_the_routing(name):
    """Through all passes they are those of finite differences; detached, those of a fixed c."""
    model = build(name, TWO_BY_TWO, iterations=3)
    through_all = torch.autograd.gradcheck(
        lambda u_hat: model.route(u_hat)["v3"],
        random_votes().requires_grad_(),
        raise_exception=False,
        fast_mode=True,
    )
    assert through_all is (name != "xifengguo")


def test_detaching_changes_gradients_and_not_values():
    """XifengGuo's last pass is a squashed sum with constant coupling, gradient included."""
    detached = build("xifengguo", TWO_BY_TWO)
    gradients, values = [], []
    for model in (detached, build("xifengguo-keras", TWO_BY_TWO)):
        votes = random_votes().requires_grad_()
        v = model.route(votes)["v3"]
        v.sum().backward()
        gradients.append(votes.grad)
        values.append(v.detach())
    close(values[0], values[1], dtype="float32")  # their squashes differ by 1e-7
    assert not torch.allclose(gradients[0], gradients[1], rtol=1e-2)

    votes = random_votes().requires_grad_()
    c = detached.route(votes)["c3"].detach()
    xifengguo.squash(torch.einsum("bij,bijd->bjd", c, votes)).sum().backward()
    close(gradients[0], votes.grad)

    alone = random_votes().requires_grad_()
    build("xifengguo", TWO_BY_TWO, iterations=1).route(alone)["v1"].sum().backward()
    assert alone.grad.abs().max() > 0


@pytest.mark.parametrize("squash", [capsnet.squash, xifengguo.squash, xifengguo_keras.squash])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_squash_at_zero_is_zero_with_a_zero_gradient(squash, dtype):
    s = torch.zeros(2, 3, dtype=dtype, requires_grad=True)
    v = squash(s)
    v.backward(torch.ones_like(v))
    assert v.dtype == dtype
    assert torch.equal(v, torch.zeros_like(v))
    assert torch.equal(s.grad, torch.zeros_like(v))


@every_reference
def test_nothing_becomes_nan_where_every_capsule_is_zero(name):
    model = build(name)
    for key, parameter in model.named_parameters():
        if key.endswith("bias"):
            torch.nn.init.zeros_(parameter)
    images = torch.zeros(3, 2, 9, 8).double().requires_grad_()
    stages = model(images, LABELS)
    assert torch.equal(stages["primary_s"], torch.zeros(3, 18, 4).double())
    assert torch.equal(stages["lengths"], torch.zeros(3, 5).double())
    model.losses(stages, images, LABELS)["total"].backward()
    gradients = [images.grad, *(p.grad for p in model.parameters() if p.grad is not None)]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert all(torch.isfinite(value).all() for value in stages.values())


@every_reference
def test_the_result_is_that_of_the_last_pass(name):
    stages, passes = seen(name).stages, RULES[name].passes
    assert torch.equal(stages["capsules"], stages[f"v{passes}"])
    assert torch.equal(stages["coupling"], stages[f"c{passes}"])
    close(stages["lengths"], (stages["capsules"] ** 2).sum(dim=2).sqrt())


@every_reference
def test_which_capsule_is_decoded(name):
    model, images, stages = seen(name)
    longest = stages["lengths"].argmax(dim=1)
    labels = (longest + 1) % 5
    shown = labels if RULES[name].decodes == "label" else longest
    mask = model(images, labels)["mask"]
    assert torch.equal(mask.argmax(dim=1), shown)
    assert (mask.sum(dim=1) == 1).all()
    assert torch.equal(model(images)["mask"].argmax(dim=1), longest)


@every_reference
def test_the_decoder_sees_the_chosen_capsule_in_its_place(name):
    model, _, stages = seen(name)
    v, shown = stages["capsules"], stages["mask"].argmax(dim=1)
    if name == "laubonghaudoi":
        x = torch.stack([v[n, j] for n, j in enumerate(shown)])
    else:
        x = torch.zeros(3, 5 * 6).double()
        for n, j in enumerate(shown):
            x[n, 6 * j : 6 * (j + 1)] = v[n, j]
    state = model.state_dict()
    dense = [value for key, value in state.items() if "decoder" in key.lower() or ".fc" in key]
    assert len(dense) == 6
    for layer in (dense[:2], dense[2:4]):
        x = functional.linear(x, *layer).clamp(min=0)
    drawn = 1 / (1 + torch.exp(-functional.linear(x, *dense[4:])))
    if name not in ("reference", "xifengguo-keras"):  # as PyTorch has images
        height, width, channels = TINY["image_shape"]
        drawn = drawn.reshape(3, channels, height * width).transpose(1, 2).flatten(1)
    close(stages["reconstruction"], drawn)


@every_reference
def test_losses_by_hand(name):
    rules, (model, images, stages) = RULES[name], seen(name)
    lengths = stages["lengths"].detach()
    if rules.margin == "of softmax":
        lengths = torch.exp(lengths) / torch.exp(lengths).sum(dim=1, keepdim=True)
    power = 1 if rules.margin == "not squared" else 2
    margins, errors = [], []
    for n, label in enumerate(LABELS.tolist()):
        margin = 0.0
        for j, length in enumerate(lengths[n].tolist()):
            missing = max(0.0, 0.9 - length) if j == label else max(0.0, length - 0.1)
            margin += (1.0 if j == label else 0.5) * missing**power
        margins.append(margin / 5 if rules.margin == "mean over classes" else margin)
        drawn = stages["reconstruction"][n].tolist()
        error = sum(
            (drawn[(y * 8 + x) * 2 + channel] - images[n, channel, y, x].item()) ** 2
            for y in range(9)
            for x in range(8)
            for channel in range(2)
        )
        errors.append(error / 144 if rules.error == "mean" else error)
    terms = model.losses(stages, images, LABELS)
    close(terms["margin"], float64(margins))
    close(terms["reconstruction"], float64(errors))
    total = sum(m + rules.weight * e for m, e in zip(margins, errors, strict=True)) / 3
    close(terms["total"], float64(total))


def test_on_784_pixels_xifengguo_weighs_the_reconstruction_as_the_paper_does():
    images, labels = torch.rand(2, 1, 28, 28).double(), torch.tensor([0, 1])
    outputs = {"lengths": torch.rand(2, 10).double(), "reconstruction": torch.rand(2, 784).double()}
    with torch.device("meta"):
        models = [REFERENCES[n]() for n in ("reference", "xifengguo", "xifengguo-keras")]
    of_paper, *others = (model.losses(outputs, images, labels)["total"] for model in models)
    for total in others:
        close(total, of_paper, terms=784)


@every_reference
def test_a_state_dict_loads_strictly_and_computes_the_same(name):
    model, images, stages = seen(name)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    other = REFERENCES[name](**TINY).double()
    assert not torch.equal(other(images, LABELS)["lengths"], stages["lengths"])
    other.load_state_dict(state, strict=True)
    for stage, value in other(images, LABELS).items():
        assert torch.equal(value, stages[stage]), stage
    state.pop(next(iter(state)))
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict(state, strict=True)


@every_reference
def test_every_parameter_has_a_gradient(name):
    model, images = build(name), random_images()
    model.losses(model(images, LABELS), images, LABELS)["total"].backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > 0, key


@every_reference
def test_no_iteration_and_too_small_images_are_refused(name):
    with pytest.raises(ValueError, match="at least 1 iteration, not 0"):
        build(name, iterations=0)
    with pytest.raises(ValueError, match="too small"):
        build(name, image_shape=(4, 8, 2))
