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

import capsjax
from capsjax.inspection import Inspected, inspect_iterations
from train.learn.objective import Objective
from train.report.figures import Tested, heading
from train.report.recording import member, record, routed_layers
from train.system.errors import UserError
from train.system.files import finite_or_none, keeping, write_figure
from train.system.lettering import plain

EXAMPLES = 256
"""Test images that are looked at, see `Examples.some`."""
VOTES_BYTES = 2**28
"""Of a layer's votes: fewer images are looked at where those of all would take more."""


def inspect(tested: Tested) -> dict[str, Any]:
    """Looks into the layers of a run's network on test images, and draws what is there.

    Into the figures of the run, if they can be written, goes `routing.png`. Returns by the name of
    each layer the fields of `Inspected` as plain values, and of how many `images` they are.

    Raises:
        UserError: the network has no layer to look into, or its routing cannot show its work.
    """
    run, model, objective = tested.run, tested.model, tested.objective
    images = jnp.asarray(tested.test.some(EXAMPLES).images)
    inspected, lengths, counts = look_inside(model, objective, images)
    inspected = {name: jax.device_get(of_layer) for name, of_layer in inspected.items()}
    accuracy = tested.scores.metrics["accuracy"]
    title = f"{heading(run.config)}, {plain(run.config.model.routing)}, {accuracy:.2%} right"
    figure = draw_routing(inspected, np.asarray(lengths), counts, title)
    with keeping(run.figures):
        run.figures.mkdir(exist_ok=True)
        write_figure(run.figures / "routing.png", figure)
        print(f"{run.figures / 'routing.png'} shows it", file=sys.stderr)
    return {
        name: {"images": counts[name]}
        | {
            field: (
                list(map(finite_or_none, np.asarray(value).tolist()))
                if np.ndim(value)
                else finite_or_none(float(value))
            )
            for field, value in of_layer._asdict().items()
        }
        for name, of_layer in inspected.items()
    }


def look_inside(
    model: nnx.Module, objective: Objective, images: jax.Array
) -> tuple[dict[str, Inspected], jax.Array, dict[str, int]]:
    """What each routed layer does, and the lengths of the class capsules `[n, classes]`.

    The last is how many of the images each layer was looked into with.
    """
    names = routed_layers(model)
    graphdef, state = nnx.split(model)

    @jax.jit
    def run(state: Any, images: jax.Array) -> tuple[dict[str, Any], jax.Array]:
        recorded = nnx.merge(graphdef, state)
        recorders = record(recorded, names)
        unlabelled = jnp.zeros(len(images), jnp.int32)
        normalised = objective.normalise(images, jnp.float32)
        output = objective.apply(recorded, normalised, unlabelled, training=False)
        calls = {name: (part.arguments, part.iterated) for name, part in recorders.items()}
        return calls, output.lengths

    calls, lengths = run(state, images)
    try:
        found = {name: _inspected(member(model, name), *calls[name]) for name in names}
    except ValueError as error:
        raise UserError(f"{error}.") from error
    inspected = {name: of_layer for name, (of_layer, _) in found.items()}
    return inspected, lengths, {name: count for name, (_, count) in found.items()}


def _inspected(
    layer: Any, arguments: tuple[Any, ...], iterated: Sequence[Any]
) -> tuple[Inspected, int]:
    """Looks into a layer, on as many images as there is room for; returns how many, too."""
    look, given = functools.partial(capsjax.inspect_layer, layer), arguments
    if iterated:
        look = functools.partial(inspect_iterations, layer)
        given = tuple(zip(*((below, made) for (below, *_), made in iterated), strict=True))
    pose = jax.tree.leaves(given)[0]  # what comes first in Capsules
    votes = jax.eval_shape(layer.votes, pose)
    of_image = votes.size // len(pose) * votes.dtype.itemsize
    count = min(len(pose), max(1, VOTES_BYTES // of_image))
    return jax.jit(look)(*jax.tree.map(lambda x: x[:count], given)), count


def draw_routing(
    inspected: Mapping[str, Inspected],
    lengths: np.ndarray,
    counts: Mapping[str, int],
    title: str,
) -> Figure:
    """Draws each layer by iteration, and a histogram of the lengths `[n, classes]`.

    The counts are of how many images each layer's numbers are.
    """
    figure = Figure(figsize=(10, 7), layout="constrained")
    (entropy, cosine), (pose, present) = figure.subplots(2, 2)
    for number, (name, of_layer) in enumerate(inspected.items()):
        style: dict[str, Any] = {
            "color": f"C{number}",
            "label": f"{name} ({of_layer.dead:.0%} dead; {counts[name]:,} images)",
        }
        iterations = np.arange(1, len(of_layer.entropy) + 1)
        entropy.plot(iterations, of_layer.entropy, "o-", **style)
        cosine.plot(iterations, of_layer.vote_cosine, "o-", **style)
        pose.plot(iterations[1:], 100 * np.asarray(of_layer.pose_change), "o-", **style)
        uniform = f"uniform coupling, ln {np.exp(of_layer.uniform):.0f}"
        entropy.axhline(of_layer.uniform, color="black", linestyle="--", label=uniform)
    entropy.set(title="How undecided the coupling is", ylabel="entropy in nats")
    cosine.set(title="How far votes agree with the pose they made", ylabel="mean cosine")
    cosine.set_ylim(min(0, cosine.get_ylim()[0]), 1)
    pose.set(title="How much an iteration changes the poses", ylabel="percent of their length")
    for axes in (entropy, pose):
        axes.update_datalim([(1, 0)])
        axes.autoscale_view()  # with a margin at the top, of all that is shown
        axes.set_ylim(bottom=0)
    most = max(len(of_layer.entropy) for of_layer in inspected.values())
    for axes in (entropy, cosine, pose):
        axes.set_xticks(np.arange(1, most + 1))
        axes.set_xlabel("iteration")
        axes.grid(alpha=0.3)
    present.hist(
        lengths.max(axis=1), bins=30, range=(0, 1), alpha=0.7, label="the longest of an image"
    )
    others = np.sort(lengths, axis=1)[:, :-1].ravel()
    present.hist(others, bins=30, range=(0, 1), alpha=0.7, label="all others")
    present.set(
        title=f"Lengths of the class capsules, {len(lengths):,} images",
        xlabel="length",
        ylabel="capsules",
    )
    if np.isfinite(lengths).any():
        present.set_yscale("log")
    for axes in (entropy, present):
        axes.legend(fontsize=8)
    figure.suptitle(title)
    return figure
