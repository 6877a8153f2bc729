"""Looking inside a trained network: what its routing does, as numbers and as figures."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Rectangle

import capsjax
from train.data import Batch, Examples, centre_crop
from train.learn.objective import Objective
from train.report.recording import member, watch
from train.system.errors import UserError
from train.system.files import finite_or_none

EXAMPLES = 256
"""Test images that are looked at, the first."""
SHOWN_PARTS = 8
"""Primary capsules that the tree of an image shows."""
VOTES_BYTES = 2**28
"""Of a layer's votes: fewer images are looked at where those of all would take more."""
CLASSES = "class_caps"
"""The name of the layer of class capsules in every network."""


class Seen(NamedTuple):
    """What a layer was given, and what it made of it where it was called iteration by iteration.

    Attributes:
        arguments: of its call.
        steps: arguments and result of every call of its `step`.
    """

    arguments: tuple[Any, ...]
    steps: list[tuple[tuple[Any, ...], Any]]


def look_inside(
    model: nnx.Module, objective: Objective, images: np.ndarray
) -> tuple[dict[str, Seen], Any]:
    """Runs a network on images, its layers of routed capsules under watch.

    Args:
        model: the network.
        objective: knows how images are normalised.
        images: uint8 `[n, height, width, channels]`.

    Returns:
        By the name of each layer what it was given, and the network's output.

    Raises:
        UserError: the network has no such layers.
    """
    names = routed_layers(model)
    if not names:
        raise UserError(f"{type(model).__name__} has no layer of routed capsules to look into.")
    graphdef, state = nnx.split(model)

    @jax.jit
    def run(state: Any, images: jax.Array) -> tuple[list[Seen], Any]:
        looked_at = nnx.merge(graphdef, state)
        watched = watch(looked_at, names)
        unlabelled = jnp.zeros(len(images), jnp.int32)
        normalised = objective.normalise(images, jnp.float32)
        output = objective.apply(looked_at, normalised, unlabelled, training=False)
        return [Seen(part.arguments, part.steps) for part in watched.values()], output

    seen, output = run(state, jnp.asarray(images))
    return dict(zip(names, seen, strict=True)), output


def routed_layers(model: nnx.Module) -> list[str]:
    """The names of a network's layers whose routing can be looked into, that of classes last."""
    named = [
        ".".join(map(str, path))
        for path, module in nnx.iter_modules(model)
        if hasattr(module, "iterations") and hasattr(module, "votes")
    ]
    return sorted(named, key=lambda name: (name == CLASSES, name))


def inspect(
    model: nnx.Module,
    objective: Objective,
    test: Examples,
    class_names: Sequence[str],
    folder: Path,
    title: str,
) -> dict[str, Any]:
    """Looks into the layers of a network on test images, and draws what is there.

    Args:
        model: the network.
        objective: knows how images are normalised.
        test: the test split.
        class_names: a name for each class.
        folder: where `routing.png` and, for a CapsNet, `parts.png` go.
        title: what the figures are of.

    Returns:
        By the name of each layer the fields of `capsjax.Inspected` as plain values.

    Raises:
        UserError: the network has no layer to look into, or its routing cannot show its work.
        OSError: a figure cannot be written.
    """
    some = test.gather(np.arange(min(EXAMPLES, len(test))))
    layers, output = look_inside(model, objective, some.images)
    try:
        inspected = {
            name: jax.device_get(_inspected(member(model, name), seen))
            for name, seen in layers.items()
        }
    except ValueError as error:
        raise UserError(f"{error}.") from error
    folder.mkdir(exist_ok=True)
    draw_routing(folder / "routing.png", inspected, np.asarray(output.lengths), title)
    if objective.crop is not None:
        some = some._replace(images=centre_crop(some.images, objective.crop))
    primary = getattr(model, "primary_caps", None)
    if isinstance(primary, capsjax.PrimaryCaps) and primary.order == "position_major":
        below = layers[CLASSES].arguments[0]
        draw_parts(folder / "parts.png", model, output, below, some, class_names, title)
    return {name: _plain(of_layer) for name, of_layer in inspected.items()}


def _inspected(layer: Any, seen: Seen) -> capsjax.Inspected:
    """Looks into a layer, on as many images as there is room for."""
    if seen.steps:
        below, steps = zip(*((arguments[0], step) for arguments, step in seen.steps), strict=True)
        look: Any = functools.partial(capsjax.inspect_steps, layer)
        given: Any = (below, steps)
    else:
        look, given = functools.partial(capsjax.inspect_layer, layer), seen.arguments
    pose = jax.tree.leaves(given)[0]  # what comes first in Capsules
    votes = jax.eval_shape(layer.votes, pose)
    of_image = votes.size // len(pose) * votes.dtype.itemsize
    count = max(1, VOTES_BYTES // of_image)
    return jax.jit(look)(*jax.tree.map(lambda x: x[:count], given))


def _plain(inspected: capsjax.Inspected) -> dict[str, Any]:
    return {
        name: np.asarray(value).tolist() if np.ndim(value) else finite_or_none(float(value))
        for name, value in inspected._asdict().items()
    }


def draw_routing(
    path: Path, inspected: Mapping[str, capsjax.Inspected], lengths: np.ndarray, title: str
) -> None:
    """Draws entropy, agreement and change of each layer by iteration, and how present classes are.

    Args:
        path: the PNG.
        inspected: of each layer, by its name.
        lengths: `[n, classes]`.
        title: what the figure is of.
    """
    figure = Figure(figsize=(16, 3.6), layout="constrained")
    entropy, agree, coupling, pose, present = figure.subplots(1, 5)
    for name, of_layer in inspected.items():
        label = f"{name} ({float(of_layer.dead):.0%} dead)"
        iterations = np.arange(1, len(of_layer.entropy) + 1)
        entropy.plot(iterations, of_layer.entropy, "o-", label=label)
        agree.plot(iterations, of_layer.agreement, "o-")
        coupling.plot(iterations[1:], of_layer.coupling_change, "o-")
        pose.plot(iterations[1:], of_layer.pose_change, "o-")
    entropy.set(title="Entropy of the coupling (nats)")
    entropy.legend(fontsize=8)
    agree.set(title="Agreement of votes and poses", ylim=(-1.05, 1.05))
    coupling.set(title="Change of the coupling")
    pose.set(title="Change of the poses, share of length")
    for axes in (entropy, coupling, pose):
        axes.update_datalim([(1, 0)])
        axes.autoscale_view()  # with a margin at the top, of all that is shown
        axes.set_ylim(bottom=0)
    most = max(len(of_layer.entropy) for of_layer in inspected.values())
    for axes in (entropy, agree, coupling, pose):
        axes.set_xticks(np.arange(1, most + 1))
        axes.set_xlabel("iteration")
        axes.grid(alpha=0.3)
    present.hist(lengths.max(axis=1), bins=30, range=(0, 1), alpha=0.7, label="longest")
    others = np.sort(lengths, axis=1)[:, :-1].ravel()
    present.hist(others, bins=30, range=(0, 1), alpha=0.7, label="all others")
    present.set(title="Class capsules", xlabel="length", yscale="log")
    present.legend(fontsize=8)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def draw_parts(
    path: Path,
    model: Any,
    output: Any,
    below: capsjax.Capsules,
    some: Batch,
    class_names: Sequence[str],
    title: str,
) -> None:
    """Draws which parts of an image the winning class capsule is made of, for four images.

    A line goes from each of the primary capsules that give it most (coupling times length) to the
    class; a square is what such a capsule sees of the image.

    Args:
        path: the PNG.
        model: a `CapsNet` whose capsules are numbered position by position.
        output: of the network for these images.
        below: its primary capsules.
        some: the images.
        class_names: a name for each class.
        title: what the figure is of.
    """
    figure = Figure(figsize=(13, 4), layout="constrained")
    panels = figure.subplots(1, 4)
    types = model.primary_caps.types
    rows, side, step = _receptive_fields(model, some.images.shape[1:3])
    labels = some.labels.reshape(len(some.labels), -1)[:, 0]  # of several, the first
    shown = [int(np.argmax(labels == label)) for label in np.unique(labels)[:4]]
    for axes, index in zip(panels, shown, strict=False):
        lengths = np.asarray(output.lengths[index])
        best = int(lengths.argmax())
        given = np.asarray(output.coupling[index, :, best] * below.activation[index])
        axes.imshow(some.images[index].mean(axis=-1), cmap="gray_r")
        height, width = some.images.shape[1:3]
        top = (width / 2 - 0.5, -0.28 * height)
        for capsule in np.argsort(given)[::-1][:SHOWN_PARTS]:
            y, x = divmod(int(capsule) // types, rows[1])
            left, upper = x * step - 0.5, y * step - 0.5
            share = float(given[capsule] / given.max()) if given.max() > 0 else 0.0
            strength = 0.2 + 0.8 * share
            axes.add_patch(
                Rectangle(
                    (left, upper), side, side, fill=False, edgecolor="#2f6690", alpha=strength
                )
            )
            centre = (left + side / 2, upper + side / 2)
            axes.add_patch(
                ConnectionPatch(centre, top, "data", "data", color="#c2571a", alpha=strength)
            )
        axes.text(
            *top,
            f"{class_names[best]}  ({lengths[best]:.2f})",
            ha="center",
            va="bottom",
            fontsize=11,
        )
        axes.set_xlim(-0.5, width - 0.5)
        axes.set_ylim(height - 0.5, -0.45 * height)
        axes.set_axis_off()
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    figure.suptitle(f"{title}: the {SHOWN_PARTS} parts that give the winning class most")
    figure.savefig(path, dpi=110)


def _receptive_fields(model: Any, size: Sequence[int]) -> tuple[tuple[int, int], int, int]:
    """Rows and columns of the grid of primary capsules, the side of what each sees, the steps."""
    first, second = model.features.conv, model.primary_caps.conv
    (k1, _), (k2, _) = first.kernel_size, second.kernel_size
    s1, s2 = _stride(first), _stride(second)
    positions = model.primary_caps.num_capsules // model.primary_caps.types
    rows = ((size[0] - k1) // s1 + 1 - k2) // s2 + 1
    return (rows, positions // rows), k1 + (k2 - 1) * s1, s1 * s2


def _stride(conv: Any) -> int:
    return conv.strides if isinstance(conv.strides, int) else conv.strides[0]
