"""Every PyTorch reference against what is known of its dialect, worked out by hand."""

from dataclasses import dataclass

import pytest
import torch
from torch.nn import functional

from parity.reference import DIALECTS, REFERENCES
from parity.reference.dialects import xifengguo, xifengguo_keras
from parity.reference.models import capsnet

pytestmark = pytest.mark.torch


@dataclass(frozen=True)
class Rules:
    """What a dialect does, as a row of a table.

    Attributes:
      order: of the primary capsules. A: the flat NCHW output cut in pieces; B: capsule P t + p of
        channel K t + k; C: T p + t of channel K t + k; D: P t + p of channel T k + t.
      softmax_over: "outputs" or "inputs".
      shared: one set of logits for the batch.
      squash: of the class capsules, by its name in `by_hand`.
      passes: of the published routing.
      margin: what the margin loss is made of.
      error: "sum" or "mean" over the pixels, and `weight` what it is multiplied with.
      decodes: the capsule shown in training, when labels are given.
      mean, std: of the input normalisation.
    """

    order: str
    softmax_over: str = "outputs"
    shared: bool = False
    squash: str = "squash_paper"
    passes: int = 3
    margin: str = "squared, summed over classes"
    error: str = "sum"
    weight: float = 0.0005
    decodes: str = "label"
    decodes_in_test: str = "longest"
    mean: float = 0.0
    std: float = 1.0


NORMALISED = {"decodes": "longest", "mean": 0.1307, "std": 0.3081}
RULES = {
    "reference": Rules("C"),
    "gram-ai": Rules("D", softmax_over="inputs", margin="of softmax"),
    "xifengguo": Rules("A", squash="squash_eps_on_length", error="mean", weight=0.392),
    "xifengguo-keras": Rules("C", squash="squash_eps_in_root", error="mean", weight=0.392),
    "jindongwang": Rules(
        "A",
        softmax_over="inputs",
        shared=True,
        squash="squash_each_element",
        margin="not squared",
        error="mean",
        **NORMALISED,
    ),
    "cedrickchee": Rules("D", shared=True, **NORMALISED),
    "laubonghaudoi": Rules("C", decodes_in_test="label"),
    "adambielski": Rules("B", passes=4, margin="mean over classes", error="mean"),
}


def names(*layers: str, of: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of layers whose weights have the shape `of`."""
    shapes = {}
    for layer in layers:
        shapes |= {f"{layer}.weight": of, f"{layer}.bias": of[:1]}
    return shapes


def decoder(pattern: str, numbers: tuple[int, int, int], inputs: int = 160) -> dict:
    """Names and shapes of the three layers of a decoder of 28x28 images."""
    sizes = [(512, inputs), (1024, 512), (784, 1024)]
    shapes = {}
    for number, size in zip(numbers, sizes, strict=True):
        shapes |= names(pattern.format(number), of=size)
    return shapes


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
    | {
        "capsnet.digitCaps.weights": (1152, 8, 160),
        "capsnet.digitCaps.routing_module.b": (1152, 10),
    }
    | decoder("reconstruction_net.fc{}", (1, 2, 3)),
}

# Class weights as [I, J, D, K]: name, and how they get there.
CLASS_WEIGHTS = {
    "reference": ("class_caps.weight", lambda w, J, D: w),
    "gram-ai": ("digit_capsules.route_weights", lambda w, J, D: w.permute(1, 0, 3, 2)),
    "xifengguo": ("digitcaps.weight", lambda w, J, D: w.permute(1, 0, 2, 3)),
    "xifengguo-keras": ("digitcaps.W", lambda w, J, D: w.permute(1, 0, 2, 3)),
    "jindongwang": ("digit_capsules.W", lambda w, J, D: w[0]),
    "cedrickchee": ("digits.weight", lambda w, J, D: w[0]),
    "laubonghaudoi": ("DigitCaps.W", lambda w, J, D: w[0].permute(0, 1, 3, 2)),
    "adambielski": (
        "capsnet.digitCaps.weights",
        lambda w, J, D: w.view(w.shape[0], w.shape[1], J, D).permute(0, 2, 3, 1),
    ),
}

every_reference = pytest.mark.parametrize("name", REFERENCES)


def build(name: str, sizes: dict, **changes) -> torch.nn.Module:
    """A network in float64 with weights large enough that routing has something to do."""
    torch.manual_seed(0)
    model = REFERENCES[name](**sizes | changes).double()
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith(("bias", "routing_module.b")):
            torch.nn.init.normal_(parameter, std=0.3)
        else:
            parameter.data *= 4
    return model


def tiny_batch(size: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(size, 2, 9, 8, generator=generator, dtype=torch.float64)
    return images, torch.arange(size) % 5


def random_votes(batch: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(batch, 2, 2, 2, generator=generator, dtype=torch.float64)


def test_every_reference_has_its_row_in_the_tables_here():
    assert set(RULES) == set(STATE_DICTS) == set(CLASS_WEIGHTS) == set(REFERENCES)
    assert set(REFERENCES) == {"reference", *DIALECTS}


@every_reference
def test_names_and_shapes_of_the_published_size(name):
    with torch.device("meta"):
        model = REFERENCES[name]()
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert shapes == STATE_DICTS[name]


def test_without_decoder_adambielski_has_no_prefix(tiny):
    model = build("adambielski", tiny, decoder_hidden=None)
    assert set(model.state_dict()) == {
        "conv1.weight",
        "conv1.bias",
        "primaryCaps.conv.weight",
        "primaryCaps.conv.bias",
        "digitCaps.weights",
        "digitCaps.routing_module.b",
    }


@every_reference
@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_stages_in_order_with_their_shapes(name, iterations, tiny):
    model = build(name, tiny, iterations=iterations)
    images, labels = tiny_batch()
    expected = {
        "conv1": (3, 4, 7, 6),
        "primary_s": (3, 18, 4),
        "primary_u": (3, 18, 4),
        "u_hat": (3, 18, 5, 6),
    }
    for r in range(1, iterations + 1):
        expected |= {f"b{r}": (3, 18, 5), f"c{r}": (3, 18, 5)}
        expected |= {f"s{r}": (3, 5, 6), f"v{r}": (3, 5, 6)}
    if name == "reference":  # other routings can take the place of its own
        expected |= {"capsules": (3, 5, 6), "coupling": (3, 18, 5)}
    expected |= {"lengths": (3, 5), "mask": (3, 5), "reconstruction": (3, 144)}
    stages = model(images, labels)
    assert [(key, tuple(value.shape)) for key, value in stages.items()] == list(expected.items())
    assert all(value.dtype == torch.float64 for value in stages.values())
    terms = model.losses(stages, images, labels)
    shapes = {key: tuple(value.shape) for key, value in terms.items()}
    assert shapes == {"margin": (3,), "reconstruction": (3,), "total": ()}


@every_reference
def test_without_decoder_there_is_no_reconstruction(name, tiny):
    model = build(name, tiny, decoder_hidden=None)
    images, labels = tiny_batch()
    stages = model(images, labels)
    assert list(stages)[-1] == "mask"
    terms = model.losses(stages, images, labels)
    assert list(terms) == ["margin", "total"]
    torch.testing.assert_close(terms["total"], terms["margin"].mean())


@every_reference
def test_published_number_of_passes(name):
    with torch.device("meta"):
        assert REFERENCES[name]().iterations == RULES[name].passes


@every_reference
def test_float32_and_float64_agree(name, tiny):
    images, labels = tiny_batch()
    model = build(name, tiny)
    wide = model(images, labels)
    narrow = model.float()(images.float(), labels)
    for stage, value in narrow.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), wide[stage], rtol=1e-4, atol=1e-4, msg=stage)


def channels_of(model: torch.nn.Module, conv1: torch.Tensor) -> list[torch.Tensor]:
    """The output `[B, H, W]` of each filter of the primary capsules, in the order of the names."""
    primary = [value for key, value in model.state_dict().items() if "primary" in key.lower()]
    filters, biases = torch.cat(primary[::2]), torch.cat(primary[1::2])
    return [
        functional.conv2d(conv1, filters[n : n + 1], biases[n : n + 1], stride=2)[:, 0]
        for n in range(len(filters))
    ]


@every_reference
def test_primary_capsules_are_numbered_as_the_dialect_numbers_them(name, tiny):
    T, K, H, W = 3, 4, 3, 2
    P = H * W
    model = build(name, tiny)
    stages = model(tiny_batch()[0])
    channels = channels_of(model, stages["conv1"])
    assert len(channels) == T * K
    expected = torch.full((3, T * P, K), torch.nan, dtype=torch.float64)
    for channel, maps in enumerate(channels):
        for y in range(H):
            for x in range(W):
                p = y * W + x
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
                expected[:, n, k] = maps[:, y, x]
    torch.testing.assert_close(stages["primary_s"], expected)


@every_reference
def test_conv1_is_a_rectified_convolution(name, tiny):
    model = build(name, tiny)
    images, _ = tiny_batch()
    weight, bias = list(model.state_dict().values())[:2]
    expected = functional.conv2d(images, weight, bias)
    conv1 = model(images)["conv1"]
    assert (expected < 0).any()
    torch.testing.assert_close(conv1, expected.clamp(min=0))


@every_reference
def test_primary_squash(name, tiny, by_hand):
    stages = build(name, tiny)(tiny_batch()[0])
    s, u = stages["primary_s"].detach(), stages["primary_u"].detach()
    if name == "cedrickchee":  # a length over the capsules, for each component
        s, u = s.transpose(1, 2), u.transpose(1, 2)
    rule = "squash_paper" if name == "jindongwang" else RULES[name].squash
    squash = getattr(by_hand, rule)
    expected = [[squash(vector) for vector in example] for example in s.tolist()]
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(u, expected, rtol=1e-12, atol=1e-14)


@every_reference
def test_votes(name, tiny):
    model = build(name, tiny)
    stages = model(tiny_batch()[0])
    key, to_canonical = CLASS_WEIGHTS[name]
    W = to_canonical(model.state_dict()[key], 5, 6)
    assert W.shape == (18, 5, 6, 4)
    u, u_hat = stages["primary_u"], stages["u_hat"]
    for i, j in [(0, 0), (1, 4), (17, 2), (9, 3)]:
        for d in range(6):
            expected = sum(W[i, j, d, k] * u[2, i, k] for k in range(4))
            torch.testing.assert_close(u_hat[2, i, j, d], expected)


@every_reference
@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
def test_routing_done_by_hand(name, iterations, two_by_two, by_hand):
    rules = RULES[name]
    model = build(name, two_by_two, iterations=iterations)
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
        squash=getattr(by_hand, rules.squash),
        prior=prior,
    )
    assert len(stages) == 4 * iterations
    for r, expected in enumerate(history, start=1):
        for symbol, numbers in expected.items():
            torch.testing.assert_close(
                stages[f"{symbol}{r}"].detach(),
                torch.tensor(numbers, dtype=torch.float64),
                rtol=1e-12,
                atol=1e-14,
                msg=lambda text, stage=f"{symbol}{r}": f"{stage}: {text}",
            )


@every_reference
def test_coupling_sums_to_one_over_the_axis_of_the_dialect(name, tiny):
    stages = build(name, tiny, iterations=3)(tiny_batch()[0])
    over, other = (2, 1) if RULES[name].softmax_over == "outputs" else (1, 2)
    c = stages["c3"]
    torch.testing.assert_close(c.sum(dim=over), torch.ones_like(c.sum(dim=over)))
    assert not torch.allclose(c.sum(dim=other), torch.ones_like(c.sum(dim=other)), atol=1e-2)


@every_reference
def test_batch_mates_matter_only_where_logits_are_shared(name, tiny):
    model = build(name, tiny, iterations=3)
    images, labels = tiny_batch()
    together, alone = model(images, labels), model(images[:1], labels[:1])
    torch.testing.assert_close(together["u_hat"][:1], alone["u_hat"])
    assert torch.allclose(together["v1"][:1], alone["v1"])
    same = torch.allclose(together["v3"][:1], alone["v3"], rtol=1e-10, atol=1e-12)
    assert same is not RULES[name].shared


@every_reference
def test_gradients_of_the_routing(name, two_by_two):
    """Through all passes they are those of finite differences; detached, those of a fixed c."""
    model = build(name, two_by_two, iterations=3)
    votes = random_votes().requires_grad_()
    through_all = torch.autograd.gradcheck(
        lambda u_hat: model.route(u_hat)["v3"], votes, raise_exception=False
    )
    assert through_all is (name != "xifengguo")


def test_detaching_changes_gradients_and_not_values(two_by_two):
    """XifengGuo's last pass is a squashed sum with constant coupling, gradient included."""
    detached = build("xifengguo", two_by_two, iterations=3)
    attached = build("xifengguo-keras", two_by_two, iterations=3)
    gradients, values = [], []
    for model in (detached, attached):
        votes = random_votes().requires_grad_()
        v = model.route(votes)["v3"]
        v.sum().backward()
        gradients.append(votes.grad)
        values.append(v.detach())
    torch.testing.assert_close(values[0], values[1], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(gradients[0], gradients[1], rtol=1e-2)

    votes = random_votes().requires_grad_()
    c = detached.route(votes)["c3"].detach()
    xifengguo.squash(torch.einsum("bij,bijd->bjd", c, votes)).sum().backward()
    torch.testing.assert_close(gradients[0], votes.grad)


def test_a_single_pass_of_xifengguo_is_not_detached(two_by_two):
    votes = random_votes().requires_grad_()
    build("xifengguo", two_by_two, iterations=1).route(votes)["v1"].sum().backward()
    assert votes.grad.abs().max() > 0


def test_the_prior_of_adambielski_is_learned(tiny):
    model = build("adambielski", tiny)
    images, labels = tiny_batch()
    stages = model(images, labels)
    prior = model.capsnet.digitCaps.routing_module.b
    assert torch.equal(stages["b1"], prior.expand(3, 18, 5))
    model.losses(stages, images, labels)["total"].backward()
    assert prior.grad.abs().max() > 0


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
def test_nothing_becomes_nan_where_every_capsule_is_zero(name, tiny):
    model = build(name, tiny)
    for key, parameter in model.named_parameters():
        if key.endswith("bias"):
            torch.nn.init.zeros_(parameter)
    images, labels = torch.zeros(3, 2, 9, 8).double().requires_grad_(), tiny_batch()[1]
    stages = model(images, labels)
    assert torch.equal(stages["primary_s"], torch.zeros(3, 18, 4).double())
    assert torch.equal(stages["lengths"], torch.zeros(3, 5).double())
    model.losses(stages, images, labels)["total"].backward()
    gradients = [images.grad, *(p.grad for p in model.parameters() if p.grad is not None)]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert all(torch.isfinite(value).all() for value in stages.values())


@every_reference
def test_lengths_are_those_of_the_last_pass(name, tiny):
    stages = build(name, tiny)(tiny_batch()[0])
    v = stages[f"v{RULES[name].passes}"]
    torch.testing.assert_close(stages["lengths"], (v**2).sum(dim=2).sqrt())


@every_reference
def test_which_capsule_is_decoded(name, tiny):
    rules, model = RULES[name], build(name, tiny)
    images, _ = tiny_batch()
    longest = model(images)["lengths"].argmax(dim=1)
    labels = (longest + 1) % 5
    shown = labels if rules.decodes == "label" else longest
    assert torch.equal(model(images, labels)["mask"].argmax(dim=1), shown)
    assert torch.equal(model(images)["mask"].argmax(dim=1), longest)
    assert (model(images, labels)["mask"].sum(dim=1) == 1).all()


@every_reference
def test_the_decoder_sees_the_chosen_capsule_in_its_place(name, tiny):
    model = build(name, tiny)
    images, labels = tiny_batch()
    stages = model(images, labels)
    v, shown = stages[f"v{RULES[name].passes}"], stages["mask"].argmax(dim=1)
    if name == "laubonghaudoi":
        x = torch.stack([v[n, j] for n, j in enumerate(shown)])
    else:
        x = torch.zeros(3, 5 * 6).double()
        for n, j in enumerate(shown):
            x[n, 6 * j : 6 * (j + 1)] = v[n, j]
    dense = [value for key, value in model.state_dict().items() if "decoder" in key.lower()]
    dense = dense or [value for key, value in model.state_dict().items() if ".fc" in key]
    assert len(dense) == 6
    x = functional.linear(x, *dense[:2]).clamp(min=0)
    x = functional.linear(x, *dense[2:4]).clamp(min=0)
    expected = 1 / (1 + torch.exp(-functional.linear(x, *dense[4:])))
    torch.testing.assert_close(stages["reconstruction"], expected)


@every_reference
def test_losses_by_hand(name, tiny):
    rules, model = RULES[name], build(name, tiny)
    images, labels = tiny_batch()
    stages = model(images, labels)
    terms = model.losses(stages, images, labels)

    lengths = stages["lengths"].detach()
    if rules.margin == "of softmax":
        lengths = torch.exp(lengths) / torch.exp(lengths).sum(dim=1, keepdim=True)
    power = 1 if rules.margin == "not squared" else 2
    margins, errors = [], []
    for n, label in enumerate(labels.tolist()):
        margin = 0.0
        for j, length in enumerate(lengths[n].tolist()):
            missing = max(0.0, 0.9 - length) if j == label else max(0.0, length - 0.1)
            margin += (1.0 if j == label else 0.5) * missing**power
        margins.append(margin / 5 if rules.margin == "mean over classes" else margin)
        error = 0.0
        for y in range(9):
            for x in range(8):
                for channel in range(2):
                    pixel = stages["reconstruction"][n, (y * 8 + x) * 2 + channel].item()
                    error += (pixel - images[n, channel, y, x].item()) ** 2
        errors.append(error / 144 if rules.error == "mean" else error)
    total = sum(m + rules.weight * e for m, e in zip(margins, errors, strict=True)) / 3

    assert terms["margin"].tolist() == pytest.approx(margins, rel=1e-12)
    assert terms["reconstruction"].tolist() == pytest.approx(errors, rel=1e-12)
    assert terms["total"].item() == pytest.approx(total, rel=1e-12)


def test_on_784_pixels_xifengguo_weighs_the_reconstruction_as_the_paper_does():
    images, labels = torch.rand(2, 1, 28, 28).double(), torch.tensor([0, 1])
    outputs = {
        "lengths": torch.rand(2, 10).double(),
        "reconstruction": torch.rand(2, 784).double(),
    }
    with torch.device("meta"):
        models = [REFERENCES[n]() for n in ("reference", "xifengguo", "xifengguo-keras")]
    totals = [model.losses(outputs, images, labels)["total"].item() for model in models]
    assert totals[1:] == pytest.approx([totals[0]] * 2, rel=1e-12)


@every_reference
def test_what_the_dialect_states_about_itself(name):
    rules, reference = RULES[name], REFERENCES[name]
    assert (reference.input_mean, reference.input_std) == (rules.mean, rules.std)
    assert reference.mask_in_training == rules.decodes
    assert reference.mask_in_test == rules.decodes_in_test


@every_reference
def test_a_state_dict_loads_strictly_and_computes_the_same(name, tiny):
    model = build(name, tiny)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    other = REFERENCES[name](**tiny).double()
    images, labels = tiny_batch()
    assert not torch.equal(other(images, labels)["lengths"], model(images, labels)["lengths"])
    other.load_state_dict(state, strict=True)
    for stage, value in model(images, labels).items():
        assert torch.equal(other(images, labels)[stage], value), stage
    state.pop(next(iter(state)))
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict(state, strict=True)


@every_reference
def test_every_parameter_has_a_gradient(name, tiny):
    model = build(name, tiny)
    images, labels = tiny_batch()
    model.losses(model(images, labels), images, labels)["total"].backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > 0, key


@every_reference
def test_no_iteration_and_too_small_images_are_refused(name, tiny):
    with pytest.raises(ValueError, match="at least 1 iteration, not 0"):
        build(name, tiny, iterations=0)
    with pytest.raises(ValueError, match="too small"):
        build(name, tiny, image_shape=(4, 8, 2))
