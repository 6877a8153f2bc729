"""Looking inside a trained network: what its routing does, as numbers and as figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Rectangle

import capsjax
from train.data import Batch, Examples
from train.errors import UserError
from train.objective import Objective
from train.run import finite_or_none

EXAMPLES = 256
"""Test images that are looked at, the first."""
SHOWN_PARTS = 8
"""Primary capsules that the tree of an image shows."""


class _Recorder:
    """Stands in the place of a layer and keeps what it was given."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.below: Any = None

    def __call__(self, below: Any) -> Any:
        self.below = below
        return self.layer(below)


def below_classes(
    model: nnx.Module, objective: Objective, images: np.ndarray
) -> tuple[Any, capsjax.Capsules, Any]:
    """The layer of class capsules, what it is given for some images, and the model's output.

    Args:
        model: a network with a layer `class_caps` that sees all capsules below.
        objective: knows how images are normalised.
        images: uint8 `[n, height, width, channels]`.

    Raises:
        UserError: the network has no such layer.
    """
    layer = getattr(model, "class_caps", None)
    if not isinstance(layer, capsjax.DenseCaps | capsjax.ClassCaps):
        raise UserError(
            f"{type(model).__name__} has no layer of class capsules above all others to look into."
        )
    recorder = _Recorder(layer)
    looked_at: Any = nnx.clone(model)
    looked_at.class_caps = nnx.static(recorder)
    seen = objective.normalise(jnp.asarray(images), jnp.float32)
    output = objective.apply(looked_at, seen, jnp.zeros(len(images), jnp.int32), training=False)
    return layer, recorder.below, output


def inspect(
    model: nnx.Module,
    objective: Objective,
    test: Examples,
    class_names: Sequence[str],
    folder: Path,
    title: str,
) -> dict[str, Any]:
    """Looks into the class capsules of a network on test images, and draws what is there.

    Args:
        model: the network.
        objective: knows how images are normalised.
        test: the test split.
        class_names: a name for each class.
        folder: where `routing.png` and, for a CapsNet, `parts.png` go.
        title: what the figures are of.

    Returns:
        The fields of `capsjax.Inspected` as plain values.

    Raises:
        UserError: the network has no layer to look into, or its routing cannot show its work.
        OSError: a figure cannot be written.
    """
    some = test.gather(np.arange(min(EXAMPLES, len(test))))
    layer, below, output = below_classes(model, objective, some.images)
    try:
        inspected = jax.device_get(
            jax.jit(lambda below: capsjax.inspect_layer(layer, below))(below)
        )
    except ValueError as error:
        raise UserError(f"{error}.") from error
    folder.mkdir(exist_ok=True)
    draw_routing(folder / "routing.png", inspected, np.asarray(output.lengths), title)
    primary = getattr(model, "primary_caps", None)
    if isinstance(primary, capsjax.PrimaryCaps) and primary.order == "position_major":
        draw_parts(folder / "parts.png", model, output, below, some, class_names, title)
    return {
        name: np.asarray(value).tolist() if np.ndim(value) else finite_or_none(float(value))
        for name, value in inspected._asdict().items()
    }


def draw_routing(path: Path, inspected: capsjax.Inspected, lengths: np.ndarray, title: str) -> None:
    """Draws entropy, agreement and change by iteration, and how present classes are.

    Args:
        path: the PNG.
        inspected: of the class capsules.
        lengths: `[n, classes]`.
        title: what the figure is of.
    """
    figure = Figure(figsize=(13, 3.4), layout="constrained")
    entropy, agree, change, present = figure.subplots(1, 4)
    iterations = np.arange(1, len(inspected.entropy) + 1)
    undecided = np.log(lengths.shape[1])
    entropy.plot(iterations, inspected.entropy, "o-", color="#2f6690")
    entropy.axhline(undecided, color="grey", linestyle="--", linewidth=0.8)
    entropy.set(title="Entropy of the coupling (nats)", ylim=(0, 1.08 * undecided))
    agree.plot(iterations, inspected.agreement, "o-", color="#2f6690")
    agree.set(title="Agreement of votes and poses", ylim=(-1.05, 1.05))
    for name, values, color in (
        ("coupling, mean distance", inspected.coupling_change, "#2f6690"),
        ("pose, share of its length", inspected.pose_change, "#c2571a"),
    ):
        change.plot(iterations[1:], values, "o-", color=color, label=name)
    change.set(title="Change from the iteration before")
    change.set_ylim(bottom=0)
    if len(iterations) > 1:
        change.legend(fontsize=8)
    for axes in (entropy, agree, change):
        axes.set_xticks(iterations)
        axes.set_xlabel("iteration")
        axes.grid(alpha=0.3)
    present.hist(lengths.max(axis=1), bins=30, range=(0, 1), alpha=0.7, label="longest")
    others = np.sort(lengths, axis=1)[:, :-1].ravel()
    present.hist(others, bins=30, range=(0, 1), alpha=0.7, label="all others")
    present.set(
        title=f"Class capsules ({float(inspected.dead):.0%} dead)", xlabel="length", yscale="log"
    )
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
