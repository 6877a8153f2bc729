"""The figures of a run, and what figures of studies have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

from train.config.fit_config import FitConfig
from train.data import Batch, Examples, classes_of
from train.learn.objective import Objective
from train.learn.scoring import Scores
from train.report.class_figures import draw_classes, draw_confusion
from train.run.folder import Run
from train.system.files import write_figure
from train.system.lettering import plain, plain_names

OFFSETS = np.linspace(-0.25, 0.25, 11)
"""Added to a dimension of a class capsule in the paper's Figure 4."""

COLUMNS = 16
"""Images in a row of reconstructions, at most."""

_RIGHT, _WRONG = "#2a7f3f", "#b3261e"
_TRAIN, _VALIDATION, _TEST = "#6b7f99", "#2a7f3f", "#c2571a"


@dataclass(frozen=True)
class Tested:
    """The trained network of a run and the images that it was tested on."""

    run: Run
    model: Any
    test: Examples
    scores: Scores  # of the network on the test split

    @property
    def objective(self) -> Objective:
        """What the network was trained for, which knows how images are normalised."""
        return Objective.of(self.run.config)

    def output(self, chosen: np.ndarray) -> tuple[Batch, Any]:
        """At most `COLUMNS` examples, normalised, and the network's output for them."""
        # As many each time: the network is compiled once.
        batch = jax.tree.map(jnp.asarray, self.test.gather(np.resize(chosen, COLUMNS)))
        batch = self.objective.normalise_batch(batch, jnp.dtype(jnp.float32))
        both = (batch, _apply(self.model, self.objective, batch))
        return jax.tree.map(lambda array: array[: len(chosen)], both)


@nnx.jit(static_argnames="objective")
def _apply(model: nnx.Module, objective: Objective, batch: Batch) -> Any:
    return objective.apply(model, batch.images, batch.labels, training=False)


def draw_run(tested: Tested, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draws every figure of a run into its folder; `rows` are the lines of its `metrics.jsonl`.

    Raises:
        OSError: if a figure cannot be written.
    """
    run, test, scores = tested.run, tested.test, tested.scores
    right = f"{scores.metrics['accuracy']:.2%} of {len(test):,} test images"
    title = f"{heading(run.config)}: {right} are recognised"
    counts = scores.by_class(run.num_classes)
    figures = {
        "curves": draw_curves(rows, title),
        "classes": draw_classes(counts, run.class_names, title),
    }
    if test.labels_per_image == 1:
        labels, predictions = scores.labels, scores.predictions
        figures["confusion"] = draw_confusion(labels, predictions, run.class_names, title)
    if getattr(tested.model, "decoder", None) is not None:
        figures["reconstructions"] = draw_reconstructions(tested, title)
        figures["dimensions"] = draw_dimensions(tested)
    run.figures.mkdir(exist_ok=True)
    for name, figure in figures.items():
        write_figure(run.figures / f"{name}.png", figure)


def heading(config: FitConfig) -> str:
    """The network and the data of a run, for the title of a figure; of a path its last part."""
    kind, _, where = config.data.dataset.partition(":")
    return plain(f"{config.model.name} on {Path(where).name or kind}")


def draw_curves(rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Draws loss and error against the step, of the lines of a `metrics.jsonl`."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss, error = figure.subplots(1, 2)
    for split, colour, label in (
        ("train", _TRAIN, "training, mean since the line before"),
        ("validation", _VALIDATION, "validation"),
        ("test", _TEST, "test"),
    ):
        plotted = ("loss", "accuracy")
        chosen = [r for r in rows if r["split"] == split and None not in map(r.get, plotted)]
        steps = [r["step"] for r in chosen]
        if not chosen:
            continue
        # A dot for each evaluation, of which there may be one alone.
        style = {"color": colour, "label": label, "marker": None if split == "train" else "o"}
        width = {"linewidth": 1 if split == "train" else 2, "markersize": 4}
        loss.plot(steps, [r["loss"] for r in chosen], **style, **width)
        error.plot(steps, [100 * (1 - r["accuracy"]) for r in chosen], **style, **width)
    loss.set(xlabel="step", ylabel="loss", yscale="log", title="Loss")
    scale_errors(error, "y")
    error.set_ylim(bottom=-0.01)  # so that no error at all is not on the frame
    error.set(xlabel="step", ylabel="wrong, %", title="Classification error")
    for axes in (loss, error):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(frameon=False)
    figure.suptitle(title)
    return figure


def draw_reconstructions(tested: Tested, title: str) -> Figure:
    """Draws test images, how a decoder reconstructs them, and what they are taken for.

    Above are the first test images, or, where each shows several objects, the first that are judged
    right; below, images that are misjudged. Overlapping objects are drawn as in Figure 5 of Sabour,
    Frosst and Hinton 2017, arXiv:1710.09829: the image; its parts, red and green; and the
    reconstructions of the two classes that are most present, in the same colours.
    """
    wrong = tested.scores.wrong
    every = np.arange(len(tested.scores.labels))
    several = tested.test.labels_per_image not in (1, None)
    first = (
        ("judged right", np.setdiff1d(every, wrong)) if several else ("first test images", every)
    )
    groups = [first, (f"mistakes: class → what is predicted; {len(wrong):,} in all", wrong)]
    groups = [(of_group, chosen[:COLUMNS]) for of_group, chosen in groups if len(chosen)]
    by_label = tested.objective.settings.mask_in_test == "label"
    shown = "the class" if by_label else "what is predicted"
    size = (0.9 * COLUMNS, (3.4 if several else 2.5) * len(groups))
    figure = Figure(figsize=size, layout="constrained")
    all_axes = figure.subplots(len(groups), 1, squeeze=False)[:, 0]
    figure.suptitle(f"{title}; decoded: the capsule of {shown}", fontsize=11)
    for axes, (of_group, chosen) in zip(all_axes, groups, strict=True):
        rows = _picture_rows(tested, chosen)
        centres = _show_grid(axes, np.stack(list(rows.values())), tested.objective)
        axes.set_title(of_group, fontsize=11, pad=20)
        axes.set_yticks(centres[0], rows, fontsize=8)
        _write_judgements(axes, centres[1], tested, chosen)
    return figure


def _picture_rows(tested: Tested, chosen: np.ndarray) -> dict[str, np.ndarray]:
    """Normalised pictures of the chosen images `[n, height, width, channels]`, by their row."""
    batch, output = tested.output(chosen)
    images, decoded = np.asarray(batch.images), np.asarray(output.reconstruction)
    if batch.parts is None:
        return {"image": images, "decoded": decoded}
    labels = tested.scores.labels[chosen]
    # What is predicted and present has the colour that its part has.
    by_label = tested.objective.settings.mask_in_test == "label"
    shown = labels if by_label else tested.scores.predictions[chosen]
    swapped = np.any(shown == labels[:, ::-1], axis=1)
    decoded = np.where(swapped[:, None, None, None, None], decoded[:, ::-1], decoded)
    return {
        "image": np.repeat(images.mean(axis=-1, keepdims=True), 3, axis=-1),
        "parts": _in_two_colours(batch.parts),
        "decoded": _in_two_colours(decoded),
    }


def _in_two_colours(parts: Any) -> np.ndarray:
    """Two images each, `[n, 2, height, width, channels]`, as the red and the green of one."""
    red, green = np.moveaxis(np.asarray(parts).mean(axis=-1), 1, 0)
    return np.stack([red, green, np.minimum(red, green)], axis=-1)


def _write_judgements(axes: Axes, centres: np.ndarray, tested: Tested, chosen: np.ndarray) -> None:
    """Writes above each column which classes the image shows, and which it is taken for."""
    scores, wrong, names = tested.scores, tested.scores.wrong, plain_names(tested.run.class_names)
    texts = []
    for index in chosen:
        labels, predicted = (
            ", ".join(names[label] for label in classes_of(of[index])) or "none"
            for of in (scores.labels, scores.predictions)
        )
        text = f"{labels} → {predicted}" if index in wrong else labels
        texts.append(text)
    axes.xaxis.tick_top()
    tilted: dict[str, Any] = {"rotation": 25, "ha": "left"} if max(map(len, texts)) > 10 else {}
    axes.set_xticks(centres, texts, fontsize=8, **tilted)
    for label, index in zip(axes.get_xticklabels(), chosen, strict=True):
        label.set_color(_WRONG if index in wrong else _RIGHT)


def draw_dimensions(tested: Tested) -> Figure:
    """Draws what a dimension of each class capsule stands for.

    A row for each class, of its first test image that is recognised: the image, and what is decoded
    while the dimension that changes the picture most is moved, as in Figure 4 of Sabour, Frosst and
    Hinton 2017, arXiv:1710.09829. What changes most comes first.
    """
    labels, wrong = _classes(tested.scores.labels), tested.scores.wrong
    recognised = np.setdiff1d(np.arange(len(labels)), wrong)
    recognised = recognised[labels[recognised] >= 0]
    chosen = recognised[np.unique(labels[recognised], return_index=True)[1]][:COLUMNS]
    chosen = chosen if len(chosen) else np.zeros(1, int)
    batch, output = tested.output(chosen)
    effects, most, moved = map(
        np.asarray, _most_effective(tested.model, output.capsules.pose, labels[chosen])
    )
    order = effects.argsort()[::-1]
    grid = np.concatenate([np.asarray(batch.images)[order, None], moved[order]], axis=1)

    rows, columns = grid.shape[:2]
    figure = Figure(figsize=(0.7 * columns + 1.6, 0.7 * rows + 1.0), layout="constrained")
    axes = figure.subplots()
    centres = _show_grid(axes, grid, tested.objective)
    axes.xaxis.tick_top()
    moves = ["decoded" if move == 0 else f"{move:+.2f}" for move in OFFSETS]
    axes.set_xticks(centres[1], ["image", *moves], fontsize=8)
    names = plain_names(tested.run.class_names)
    of_row = [f"{names[labels[chosen[i]]]}, dim. {most[i] + 1}" for i in order]
    axes.set_yticks(centres[0], of_row, fontsize=9)
    title = (
        "Decoded with one dimension of the class capsule moved: of each class the one that changes "
        "the pixels most,\nand the class whose pixels change most first"
    )
    axes.set_title(title, fontsize=11)
    return figure


def _classes(labels: np.ndarray) -> np.ndarray:
    """A class of each image, of labels of any kind: the first, or -1 where it shows none."""
    if labels.dtype == bool:
        return np.where(labels.any(axis=1), labels.argmax(axis=1), -1)
    return labels.reshape(len(labels), -1)[:, 0]


@nnx.jit
def _most_effective(
    model: Any, poses: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The dimension that changes the picture most, of the class capsules of poses `[N, J, D]`.

    Returns:
        The mean change of a pixel `[N]`, the dimension `[N]`, and `[N, len(OFFSETS), ...]` images.
    """

    def of_one(pose_and_label: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
        decoded = _decode_dimensions(model, *pose_and_label)
        change = jnp.abs(decoded - decoded[:, len(OFFSETS) // 2, None])
        effects = change.mean(axis=tuple(range(1, change.ndim)))
        return effects.max(), effects.argmax(), decoded[effects.argmax()]

    return jax.lax.map(of_one, (poses, jnp.asarray(labels)))


def _decode_dimensions(model: Any, pose: jax.Array, label: jax.Array) -> jax.Array:
    """Images `[D, len(OFFSETS), ...]` of a class of poses `[J, D]`, one dimension of it moved."""
    classes, dim = pose.shape
    moves = jnp.asarray(OFFSETS, pose.dtype)
    step = jnp.eye(dim, dtype=pose.dtype)[:, None, :]
    moved = pose[label][None, None, :] + moves[None, :, None] * step
    mask = jnp.broadcast_to(jax.nn.one_hot(label, classes), (moved[..., 0].size, classes))
    poses = jnp.broadcast_to(moved.reshape(-1, 1, dim), (*mask.shape, dim))
    return model.decoder(poses, mask).reshape(dim, len(OFFSETS), *model.decoder.image_shape)


def _show_grid(axes: Axes, grid: np.ndarray, objective: Objective) -> tuple[np.ndarray, np.ndarray]:
    """Shows normalised images `[rows, columns, ...]` in one; the centres of rows and columns."""
    rows, columns, height, width, channels = grid.shape
    pixels = np.asarray(objective.pixels(jnp.asarray(grid)))
    gap = max(1, height // 14)
    canvas = np.ones((rows * (height + gap) - gap, columns * (width + gap) - gap, channels))
    for (row, column), _ in np.ndenumerate(grid[..., 0, 0, 0]):
        top, left = row * (height + gap), column * (width + gap)
        canvas[top : top + height, left : left + width] = pixels[row, column]
    # Of a stereo pair, one image.
    axes.imshow(canvas if channels == 3 else canvas[..., 0], cmap="gray", vmin=0, vmax=1)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return (
        np.arange(rows) * (height + gap) + (height - 1) / 2,
        np.arange(columns) * (width + gap) + (width - 1) / 2,
    )


def scale_errors(axes: Axes, along: Literal["x", "y"]) -> None:
    """Makes an axis of errors in percent logarithmic, and linear below a tenth of a percent.

    So that no error at all has its place, and few errors are told apart beside many.
    """
    {"x": axes.set_xscale, "y": axes.set_yscale}[along]("symlog", linthresh=0.1)
    axis = {"x": axes.xaxis, "y": axes.yaxis}[along]
    axis.set_major_locator(FixedLocator([0, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]))
    axis.set_major_formatter("{x:g}")


def mark_seeds(
    axes: Axes, labels: Sequence[str], values: Sequence[Sequence[float]], colour: str
) -> dict[str, Line2D]:
    """Draws a dot for each seed and a bar at their mean, at a place on the y axis for each label.

    Returns:
        A dot and a bar by what they mean, for a legend.
    """
    marks: dict[str, Line2D] = {}
    places = range(len(labels))[::-1]
    for place, of_seeds in zip(places, values, strict=True):
        seeds = axes.plot(of_seeds, [place] * len(of_seeds), "o", color=colour, markersize=5)
        mean = axes.plot([np.mean(of_seeds)], [place], "|", color="black", markersize=15)
        marks = {"a seed": seeds[0], "mean": mean[0]}
    axes.set_yticks(places, list(map(plain, labels)), fontsize=9)
    axes.set_ylim(-0.6, len(labels) - 0.4)
    axes.grid(axis="x", alpha=0.3)
    return marks
