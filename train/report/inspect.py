"""Looking inside a trained network: what its routing does, in numbers and figures."""

import functools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Rectangle

import capsjax
from capsjax.inspection import Inspected, inspect_iterations
from train.data import Batch, centre_crop
from train.learn.objective import Objective
from train.report.figures import Tested, heading
from train.report.recording import member, record, routed_layers
from train.system.errors import UserError
from train.system.files import finite_or_none, keeping, write_figure
from train.system.lettering import plain, plain_names

EXAMPLES = 256
"""Test images that are looked at, the first."""
SHOWN_PARTS = 8
"""Primary capsules that the tree of an image shows."""
VOTES_BYTES = 2**28
"""Of a layer's votes: fewer images are looked at where those of all would take more."""


def inspect(tested: Tested) -> dict[str, Any]:
    """Looks into the layers of a run's network on test images, and draws what is there.

    Into the figures of the run, if they can be written, go `routing.png` and, for a CapsNet,
    `parts.png`. Returns by the name of each layer the fields of `Inspected` as plain values.

    Raises:
        UserError: the network has no layer to look into, or its routing cannot show its work.
    """
    run, model, objective = tested.run, tested.model, tested.objective
    some = tested.test.some(EXAMPLES)
    inspected, below, output = look_inside(model, objective, jnp.asarray(some.images))
    inspected = {name: jax.device_get(of_layer) for name, of_layer in inspected.items()}
    accuracy = tested.scores.metrics["accuracy"]
    title = f"{heading(run.config)}, {plain(run.config.model.routing)}, {accuracy:.2%}"
    drawn = {"routing": draw_routing(inspected, np.asarray(output.lengths), title)}
    primary = getattr(model, "primary_caps", None)
    is_shown = isinstance(primary, capsjax.PrimaryCaps) and primary.order == "position_major"
    if is_shown and not getattr(model, "hidden_caps", ()):
        if objective.data.crop is not None:
            some = some._replace(images=centre_crop(some.images, objective.data.crop))
        drawn["parts"] = draw_parts(model, output, below, some, run.class_names, title)
    with keeping(run.figures):
        run.figures.mkdir(exist_ok=True)
        for name, figure in drawn.items():
            write_figure(run.figures / f"{name}.png", figure)
        print(f"{run.figures / 'routing.png'} shows it", file=sys.stderr)
    return {
        name: {
            {"vote_cosine": "agreement"}.get(field, field): (
                np.asarray(value).tolist() if np.ndim(value) else finite_or_none(float(value))
            )
            for field, value in of_layer._asdict().items()
        }
        for name, of_layer in inspected.items()
    }


def look_inside(
    model: nnx.Module, objective: Objective, images: jax.Array
) -> tuple[dict[str, Inspected], Any, Any]:
    """What each routed layer does, the capsules below the last of them, and the output."""
    names = routed_layers(model)
    graphdef, state = nnx.split(model)

    @jax.jit
    def run(state: Any, images: jax.Array) -> tuple[dict[str, Any], Any]:
        recorded = nnx.merge(graphdef, state)
        recorders = record(recorded, names)
        unlabelled = jnp.zeros(len(images), jnp.int32)
        normalised = objective.normalise(images, jnp.float32)
        output = objective.apply(recorded, normalised, unlabelled, training=False)
        return {name: (part.arguments, part.iterated) for name, part in recorders.items()}, output

    calls, output = run(state, images)
    try:
        inspected = {name: _inspected(member(model, name), *calls[name]) for name in names}
    except ValueError as error:
        raise UserError(f"{error}.") from error
    below = next(iter(calls[names[-1]][0]), None)  # which is unknown where it is called by parts
    return inspected, below, output


def _inspected(layer: Any, arguments: tuple[Any, ...], iterated: Sequence[Any]) -> Inspected:
    """Looks into a layer, on as many images as there is room for."""
    look, given = functools.partial(capsjax.inspect_layer, layer), arguments
    if iterated:
        look = functools.partial(inspect_iterations, layer)
        given = tuple(zip(*((below, made) for (below, *_), made in iterated), strict=True))
    pose = jax.tree.leaves(given)[0]  # what comes first in Capsules
    votes = jax.eval_shape(layer.votes, pose)
    of_image = votes.size // len(pose) * votes.dtype.itemsize
    count = max(1, VOTES_BYTES // of_image)
    return jax.jit(look)(*jax.tree.map(lambda x: x[:count], given))


def draw_routing(inspected: Mapping[str, Inspected], lengths: np.ndarray, title: str) -> Figure:
    """Draws each layer by iteration, and a histogram of the lengths `[n, classes]`."""
    figure = Figure(figsize=(16, 3.6), layout="constrained")
    entropy, agree, coupling, pose, present = figure.subplots(1, 5)
    for name, of_layer in inspected.items():
        label = f"{name} ({float(of_layer.dead):.0%} dead)"
        iterations = np.arange(1, len(of_layer.entropy) + 1)
        entropy.plot(iterations, of_layer.entropy, "o-", label=label)
        agree.plot(iterations, of_layer.vote_cosine, "o-")
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
    return figure


def draw_parts(
    model: Any,
    output: Any,
    below: capsjax.Capsules,
    some: Batch,
    class_names: Sequence[str],
    title: str,
) -> Figure:
    """Draws which parts of an image the winning class capsule is made of, for four images.

    A line goes from each of the primary capsules that give it most (coupling times length) to the
    class; a square is what such a capsule sees of the image.

    The network is a `CapsNet` whose capsules are numbered position by position; `output` is its
    output for the images, and `below` its primary capsules.
    """
    figure = Figure(figsize=(13, 4), layout="constrained")
    panels = figure.subplots(1, 4)
    types = model.primary_caps.types
    columns, side, stride = _receptive_fields(model, some.images.shape[1])
    labels = some.labels.reshape(len(some.labels), -1)[:, 0]  # of several, the first
    shown = [int(np.argmax(labels == label)) for label in np.unique(labels)[:4]]
    height, width = some.images.shape[1:3]
    top, names = (width / 2 - 0.5, -0.28 * height), plain_names(tuple(class_names))
    for axes, index in zip(panels, shown, strict=False):
        lengths = np.asarray(output.lengths[index])
        best = int(lengths.argmax())
        given = np.asarray(output.coupling[index, :, best] * below.activation[index])
        axes.imshow(some.images[index].mean(axis=-1), cmap="gray_r")
        for capsule in np.argsort(given)[::-1][:SHOWN_PARTS]:
            y, x = divmod(int(capsule) // types, columns)
            corner = (x * stride - 0.5, y * stride - 0.5)
            centre = (corner[0] + side / 2, corner[1] + side / 2)
            alpha = 0.2 + 0.8 * float(given[capsule] / given.max() if given.max() > 0 else 0)
            square = Rectangle(corner, side, side, fill=False, edgecolor="#2f6690", alpha=alpha)
            axes.add_patch(square)
            line = ConnectionPatch(centre, top, "data", "data", color="#c2571a", alpha=alpha)
            axes.add_patch(line)
        name = f"{names[best]}  ({lengths[best]:.2f})"
        axes.text(*top, name, ha="center", va="bottom", fontsize=11)
        axes.set_xlim(-0.5, width - 0.5)
        axes.set_ylim(height - 0.5, -0.45 * height)
    for axes in panels:
        axes.set_axis_off()
    figure.suptitle(f"{title}: the {SHOWN_PARTS} parts that give the winning class most")
    return figure


def _receptive_fields(model: Any, height: int) -> tuple[int, int, int]:
    """Columns of the grid of primary capsules, the side of what each sees, and their distance."""
    convs = (model.features.conv, model.primary_caps.conv)
    k1, k2 = (conv.kernel_size[0] for conv in convs)
    s1, s2 = (int(np.ravel(conv.strides)[0]) for conv in convs)
    positions = model.primary_caps.num_capsules // model.primary_caps.types
    rows = ((height - k1) // s1 + 1 - k2) // s2 + 1
    return positions // rows, k1 + (k2 - 1) * s1, s1 * s2
