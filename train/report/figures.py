"""The pictures of a run: one function a figure, each writes one PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from train.data import Batch, Examples
from train.learn.objective import Objective, is_right, predict
from train.learn.scoring import Evaluation
from train.run.folder import Run

OFFSETS = np.linspace(-0.25, 0.25, 11)
"""What is added to a dimension of a class capsule in the paper's Figure 4."""

_RIGHT, _WRONG = "#2a7f3f", "#b3261e"
_TRAIN, _TEST = "#6b7f99", "#c2571a"


def draw_run(
    run: Run,
    rows: Sequence[Mapping[str, Any]],
    model: nnx.Module,
    test: Examples,
    evaluation: Evaluation,
) -> None:
    """Draws every figure of a run into its folder.

    Args:
        run: the run.
        rows: the lines of its `metrics.jsonl`.
        model: the trained network.
        test: the test split.
        evaluation: the network's result on it.

    Raises:
        OSError: if a figure cannot be written.
    """
    run.figures.mkdir(exist_ok=True)
    title = (
        f"{run.config.preset}, {evaluation.metrics['accuracy']:.2%} of {len(test):,} test images"
    )
    draw_curves(run.figures / "curves.png", rows, title)
    several = test.labels_per_image > 1
    if not several:
        draw_confusion(
            run.figures / "confusion.png",
            evaluation.labels,
            evaluation.predictions,
            run.class_names,
            title,
        )
    if getattr(model, "decoder", None) is None:
        return
    objective = Objective.of(run.config)
    draw = draw_overlaps if several else draw_reconstructions
    draw(run.figures / "reconstructions.png", model, objective, test, evaluation, run.class_names)
    draw_dimensions(run.figures / "dimensions.png", model, objective, test, run.class_names)


def draw_curves(path: Path, rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Draws loss and error against the step, for training batches and the test split.

    Args:
        path: the PNG.
        rows: the lines of a `metrics.jsonl`.
        title: what the figure is of.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss, error = figure.subplots(1, 2)
    for split, colour, label in (("train", _TRAIN, "training batches"), ("test", _TEST, "test")):
        chosen = [r for r in rows if r["split"] == split and r.get("loss") is not None]
        steps = [r["step"] for r in chosen]
        # A dot for each evaluation of the test split, of which there may be one alone.
        style = {"color": colour, "label": label, "marker": "o" if split == "test" else None}
        width = {"linewidth": 1 if split == "train" else 2, "markersize": 4}
        loss.plot(steps, [r["loss"] for r in chosen], **style, **width)
        error.plot(steps, [100 * (1 - r["accuracy"]) for r in chosen], **style, **width)
    loss.set(xlabel="step", ylabel="loss", yscale="log", title="Loss")
    # Linear below a tenth of a percent, so that no error at all has its place.
    error.set_yscale("symlog", linthresh=0.1)
    error.set_ylim(bottom=0)
    error.set_yticks([0, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
    error.set(xlabel="step", ylabel="wrong, %", title="Classification error")
    for axes in (loss, error):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def draw_confusion(
    path: Path,
    labels: np.ndarray,
    predictions: np.ndarray,
    class_names: Sequence[str],
    title: str,
) -> None:
    """Draws which class was taken for which.

    Args:
        path: the PNG.
        labels: integers `[n]`.
        predictions: integers `[n]`.
        class_names: a name for each class.
        title: what the figure is of.
    """
    count = len(class_names)
    table = np.zeros((count, count), np.int64)
    np.add.at(table, (labels, predictions), 1)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)

    side = min(max(5.0, 0.55 * count + 1.5), 16.0)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    # The square root of the shares lets single mistakes be seen beside full rows.
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
    if count <= 30:
        for row, column in zip(*np.nonzero(table), strict=True):
            dark = shares[row, column] > 0.3
            axes.text(
                column,
                row,
                f"{table[row, column]}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else "black",
            )
        longest = max(map(len, class_names))
        axes.set_xticks(range(count), class_names, rotation=90 if longest > 2 else 0)
        axes.set_yticks(range(count), class_names)
    axes.set(xlabel="predicted class", ylabel="true class", title=title)
    figure.savefig(path, dpi=120)


def draw_reconstructions(
    path: Path,
    model: nnx.Module,
    objective: Objective,
    test: Examples,
    evaluation: Evaluation,
    class_names: Sequence[str],
    columns: int = 16,
) -> None:
    """Draws test images, their reconstructions, and below them images that were misjudged.

    Args:
        path: the PNG.
        model: a network with a decoder.
        objective: how images are normalised.
        test: the test split.
        evaluation: the network's result on it.
        class_names: a name for each class.
        columns: how many images a row has.
    """
    wrong = evaluation.wrong[:columns]
    groups = [("first test images", np.arange(min(columns, len(test))))]
    if len(wrong):
        groups.append(("misjudged", wrong))
    figure = Figure(figsize=(0.9 * columns, 2.5 * len(groups)), layout="constrained")
    all_axes = figure.subplots(len(groups), 1, squeeze=False)[:, 0]
    for axes, (title, chosen) in zip(all_axes, groups, strict=True):
        images = objective.normalise(jnp.asarray(test.gather(chosen).images), jnp.float32)
        decoded = _apply(model, images).reconstruction
        centres = _show_grid(axes, np.stack([images, decoded]), objective)
        axes.set_title(f"{title}, and how they are reconstructed", fontsize=11, pad=20)
        axes.set_yticks(centres[0], ["image", "decoded"], fontsize=8)
        _tell_judgements(axes, centres[1], evaluation, chosen, class_names)
    figure.savefig(path, dpi=120)


def draw_overlaps(
    path: Path,
    model: nnx.Module,
    objective: Objective,
    test: Examples,
    evaluation: Evaluation,
    class_names: Sequence[str],
    columns: int = 16,
) -> None:
    """Draws overlapping objects, and over each other what the network takes for them.

    Figure 5 of Sabour, Frosst and Hinton 2017, arXiv:1710.09829: the image; its parts, red and
    green; and the reconstructions of the two classes that are most present, in the same colours.
    Rows of images that are judged right, and of images that are not.

    Args:
        path: the PNG.
        model: a network with a decoder.
        objective: how images are normalised.
        test: the test split, its images of two classes each.
        evaluation: the network's result on it.
        class_names: a name for each class.
        columns: how many images a row has.
    """
    wrong = evaluation.wrong
    right = np.setdiff1d(np.arange(len(evaluation.labels)), wrong)
    groups = [
        ("judged right", right[:columns]),
        ("misjudged: classes → predicted ones", wrong[:columns]),
    ]
    groups = [(title, chosen) for title, chosen in groups if len(chosen)]
    figure = Figure(figsize=(0.9 * columns, 3.4 * len(groups)), layout="constrained")
    all_axes = figure.subplots(len(groups), 1, squeeze=False)[:, 0]
    for axes, (title, chosen) in zip(all_axes, groups, strict=True):
        batch = objective.normalise_batch(test.gather(chosen), jnp.dtype(jnp.float32))
        labels = evaluation.labels[chosen]
        decoded = _apply_to_several(model, objective, batch._replace(labels=jnp.asarray(labels)))
        # What is predicted and present has the colour that its part has.
        shown = labels if objective.mask_in_test == "label" else evaluation.predictions[chosen]
        swapped = np.any(shown == labels[:, ::-1], axis=1)
        decoded = np.where(swapped[:, None, None, None, None], decoded[:, ::-1], decoded)
        rows = [np.asarray(batch.images), _in_two_colours(batch.parts), _in_two_colours(decoded)]
        rows[0] = np.repeat(rows[0].mean(axis=-1, keepdims=True), 3, axis=-1)
        centres = _show_grid(axes, np.stack(rows), objective)
        axes.set_title(title, fontsize=11, pad=20)
        axes.set_yticks(centres[0], ["image", "parts", "decoded"], fontsize=8)
        _tell_judgements(axes, centres[1], evaluation, chosen, class_names)
    figure.savefig(path, dpi=120)


def _in_two_colours(parts: Any) -> np.ndarray:
    """Two images each, `[n, 2, height, width, channels]`, as the red and the green of one."""
    grey = np.asarray(parts).mean(axis=-1)
    return np.stack([grey[:, 0], grey[:, 1], np.minimum(grey[:, 0], grey[:, 1])], axis=-1)


@nnx.jit(static_argnames="objective")
def _apply_to_several(model: nnx.Module, objective: Objective, batch: Batch) -> Any:
    return objective.apply(model, batch.images, batch.labels, training=False).reconstruction


def _tell_judgements(
    axes: Axes,
    centres: np.ndarray,
    evaluation: Evaluation,
    chosen: np.ndarray,
    class_names: Sequence[str],
) -> None:
    """Writes above each column which classes the image shows, and which it is taken for."""
    axes.xaxis.tick_top()
    labels, predictions = evaluation.labels[chosen], evaluation.predictions[chosen]
    texts = [
        _judgement(np.atleast_1d(label), np.atleast_1d(predicted), class_names)
        for label, predicted in zip(labels, predictions, strict=True)
    ]
    tilted: dict[str, Any] = {"rotation": 25, "ha": "left"} if max(map(len, texts)) > 10 else {}
    axes.set_xticks(centres, texts, fontsize=8, **tilted)
    wrong = np.isin(chosen, evaluation.wrong)
    for text, is_wrong in zip(axes.get_xticklabels(), wrong, strict=True):
        text.set_color(_WRONG if is_wrong else _RIGHT)


def _judgement(labels: np.ndarray, predicted: np.ndarray, class_names: Sequence[str]) -> str:
    names = ", ".join(class_names[label] for label in labels)
    if np.array_equal(np.sort(labels), np.sort(predicted)):
        return names
    return f"{names} → {', '.join(class_names[label] for label in predicted)}"


def draw_dimensions(
    path: Path,
    model: nnx.Module,
    objective: Objective,
    test: Examples,
    class_names: Sequence[str],
) -> None:
    """Draws what each dimension of a class capsule stands for.

    The capsule of the first test image that is recognised is decoded with one of its dimensions
    moved at a time: Figure 4 of Sabour, Frosst and Hinton 2017, arXiv:1710.09829.

    Args:
        path: the PNG.
        model: a network with a decoder.
        objective: how images are normalised.
        test: the test split.
        class_names: a name for each class.
    """
    first = test.gather(np.arange(min(64, len(test))))
    output = _apply(model, objective.normalise(jnp.asarray(first.images), jnp.float32))
    labels = jnp.asarray(first.labels)
    predictions = predict(output.lengths, labels)
    recognised = np.flatnonzero(is_right(predictions, labels))
    chosen = int(recognised[0]) if len(recognised) else 0
    label = int(np.atleast_1d(predictions[chosen])[0])
    grid = decode_dimensions(model, output.capsules.pose[chosen], label)

    dims, moves = grid.shape[:2]
    figure = Figure(figsize=(0.7 * moves + 1.2, 0.7 * dims + 1.0), layout="constrained")
    axes = figure.subplots()
    centres = _show_grid(axes, np.asarray(grid), objective)
    axes.xaxis.tick_top()
    axes.set_xticks(centres[1], [f"{offset:+.2f}" for offset in OFFSETS], fontsize=8)
    axes.set_yticks(centres[0], [f"{dimension}" for dimension in range(1, dims + 1)], fontsize=9)
    axes.set(ylabel="dimension", xlabel="added to it")
    axes.xaxis.set_label_position("top")
    axes.set_title(f"class {class_names[label]}: each dimension of its capsule, moved", fontsize=11)
    figure.savefig(path, dpi=120)


def decode_dimensions(model: Any, pose: jax.Array, label: int) -> jax.Array:
    """Decodes a class capsule with one dimension moved at a time.

    Args:
        model: a network with a decoder.
        pose: the class capsules of one image `[J, D]`.
        label: the class to decode.

    Returns:
        Images `[D, len(OFFSETS), height, width, channels]`.
    """
    classes, dim = pose.shape
    moves = jnp.asarray(OFFSETS, pose.dtype)
    step = jnp.eye(dim, dtype=pose.dtype)[:, None, :]
    moved = pose[label][None, None, :] + moves[None, :, None] * step
    mask = jnp.broadcast_to(jax.nn.one_hot(label, classes), (moved[..., 0].size, classes))
    poses = jnp.broadcast_to(moved.reshape(-1, 1, dim), (*mask.shape, dim))
    return model.decoder(poses, mask).reshape(dim, len(OFFSETS), *model.decoder.image_shape)


@nnx.jit
def _apply(model: nnx.Module, images: jax.Array) -> Any:
    return model(images)


def _show_grid(axes: Axes, grid: np.ndarray, objective: Objective) -> tuple[np.ndarray, np.ndarray]:
    """Shows normalised images `[rows, columns, height, width, channels]` as one picture.

    Returns:
        Where the rows and the columns have their centres.
    """
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
