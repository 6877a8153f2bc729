"""Pictures are looked at by people; here it is what is drawn that counts."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from tests.tolerance import assert_close
from train.config.fit_config import FitConfig
from train.learn.network import build_model
from train.learn.objective import Objective
from train.learn.scoring import Scores
from train.report import figures
from train.run.folder import Run

ROWS = [
    {"step": 10, "split": "train", "loss": 0.5, "accuracy": 0.5},
    {"step": 20, "split": "train", "loss": None, "accuracy": 0.0},
    {"step": 20, "split": "validation", "loss": 0.4, "accuracy": 0.8},
    {"step": 20, "split": "test", "loss": 0.3, "accuracy": 0.9},
]


@pytest.fixture(scope="module")
def model(config):
    made = build_model(config, (8, 8, 1), 3)
    made.eval()
    return made


@pytest.fixture
def right(dataset):
    """What is known of a network that makes no mistakes."""
    return Scores({"accuracy": 1.0}, dataset.test.labels, dataset.test.labels)


@pytest.fixture
def run(tmp_path, config, dataset):
    return Run(tmp_path, config, dataset.image_shape, dataset.class_names)


def test_a_title_has_the_data_that_it_is_about(config):
    def of(dataset):
        return figures.heading(config.changed(preset="digits", dataset=dataset))

    assert of("mnist") == "capsnet on mnist"
    assert of("folder:/home/me/my $5 photos") == r"capsnet on my \$5 photos"
    assert of("npz:../scans.npz") == "capsnet on scans.npz"
    assert of("mnist_corrupted/fog") == "capsnet on mnist_corrupted/fog"


def test_classes_of_any_name_are_drawn(run, dataset, model, right, tmp_path):
    """Two dollars begin a formula, a byte is no UTF-8, and a letter has no font."""
    names = ("$1 (US$)", b"caf\xe9".decode("utf-8", "surrogateescape"), "猫" * 50)
    tested = figures.Tested(replace(run, class_names=names), model, dataset.test, right)
    figures.draw_run(tested, ROWS)
    names = ("curves", "classes", "confusion", "reconstructions", "dimensions")
    assert {path.stem for path in run.figures.iterdir()} == {*names}
    for path in run.figures.iterdir():
        with Image.open(path) as image:
            assert min(image.size) > 200
            assert len(image.convert("L").getcolors()) > 10
    axes = figures.draw_reconstructions(tested, "title").axes[0]
    assert {tick.get_text() for tick in axes.get_xticklabels()} <= {
        r"\$1 (US\$)",
        "caf�",
        "class 2",
    }


def test_without_a_decoder_there_is_nothing_to_reconstruct(run, dataset, model, right, monkeypatch):
    monkeypatch.setattr(model, "decoder", None)
    figures.draw_run(figures.Tested(run, model, dataset.test, right), ROWS)
    assert {path.name for path in run.figures.iterdir()} == {
        "curves.png",
        "classes.png",
        "confusion.png",
    }


def test_the_curves_are_those_of_the_metrics():
    loss, error = figures.draw_curves(ROWS, "title").axes
    # A loss that was not finite is left out.
    assert [line.get_xydata().tolist() for line in loss.lines] == [
        [[10, 0.5]],
        [[20, 0.4]],
        [[20, 0.3]],
    ]
    assert_close(error.lines[1].get_xydata(), [[20, 20]])
    assert_close(error.lines[2].get_xydata(), [[20, 10]])


def test_misjudged_images_have_a_row_of_their_own(run, dataset, model, right):
    wrong = right._replace(predictions=(dataset.test.labels + 1) % 3)
    tested = figures.Tested(run, model, dataset.test, right)
    (only,) = figures.draw_reconstructions(tested, "title").axes
    names, labels = dataset.class_names, dataset.test.labels
    assert [tick.get_text() for tick in only.get_xticklabels()] == [names[i] for i in labels]
    _, misjudged = figures.draw_reconstructions(replace(tested, scores=wrong), "title").axes
    assert misjudged.get_xticklabels()[0].get_text() == (
        f"{names[labels[0]]} → {names[(labels[0] + 1) % 3]}"
    )


def test_overlapping_objects_are_drawn_in_two_colours(tmp_path, pairs, model):
    config = FitConfig.of(crop=8)  # of 16x16
    objective = Objective.of(config)
    labels = pairs.test.gather(np.arange(10)).labels
    predictions = labels[:, ::-1].copy()
    predictions[3] = [labels[3, 1], 3 - labels[3].sum()]  # one of the two is wrong
    scores = Scores({}, predictions, labels)
    names = pairs.class_names
    run = Run(tmp_path, config, pairs.image_shape, names)
    tested = figures.Tested(run, model, pairs.test, scores)
    right, wrong = figures.draw_reconstructions(tested, "title").axes
    both = [", ".join(names[label] for label in row) for row in labels]
    ticks = [tick.get_text() for tick in right.get_xticklabels()]
    assert ticks == [text for i, text in enumerate(both) if i != 3]
    (tick,) = wrong.get_xticklabels()
    assert tick.get_text() == f"{both[3]} → {', '.join(names[p] for p in predictions[3])}"

    batch = pairs.test.gather(np.asarray([3]))
    image, parts = batch.images[:, 4:12, 4:12], batch.parts[0, :, 4:12, 4:12, 0]
    shown = wrong.images[0].get_array()
    assert_close(shown[:8], (image[0].repeat(3, axis=-1) / 255).astype(np.float32))
    for channel, part in enumerate(parts):
        assert_close(shown[9:17, :, channel], (part / 255).astype(np.float32))
    # What is predicted first is present as the second part, the green one.
    apply = nnx.jit(lambda net, image: objective.apply(net, image, labels[3:4], training=False))
    output = apply(model, jnp.asarray(image, jnp.float32) / 255)
    for channel, decoded in ((1, 0), (0, 1)):
        expected = np.asarray(output.reconstruction[0, decoded, ..., 0])
        assert_close(shown[18:, :, channel].astype(np.float32), expected, reduction_length=64 * 8)


def test_what_is_shown_of_a_normalised_image_is_the_image(run, dataset, model, right):
    run = replace(run, config=FitConfig.of(input_mean=0.25, input_std=0.5))
    tested = figures.Tested(run, model, dataset.test, right)
    shown = (
        figures.draw_reconstructions(tested, "title")
        .axes[0]
        .images[0]
        .get_array()
        .astype(np.float32)
    )
    for index, left in enumerate((0, 9)):
        image = (dataset.test.images[index, ..., 0] / 255).astype(np.float32)
        assert_close(shown[:8, left : left + 8], image)


def test_the_dimensions_move_one_at_a_time(model):
    pose = jax.random.normal(jax.random.key(0), (3, 4)) / 4
    grid = figures._decode_dimensions(model, pose, 1)
    assert grid.shape == (4, 11, 8, 8, 1)
    mask = jnp.array([[0.0, 1.0, 0.0]])
    moved = pose.at[1, 2].add(-0.2)  # the second of -0.25, -0.20, ..., 0.25
    assert_close(grid[2, 1], model.decoder(moved[None], mask)[0], reduction_length=16)
    assert_close(grid[3, 5], model.decoder(pose[None], mask)[0], reduction_length=16)


def test_each_class_has_a_row_by_how_much_its_strongest_dimension_changes(
    run, dataset, model, right
):
    """The first image of a class is not recognised, so that its second is shown."""
    labels = dataset.test.labels
    first = np.unique(labels, return_index=True)[1]
    predictions = labels.copy()
    predictions[first[1]] = (labels[first[1]] + 1) % 3
    chosen = [first[0], np.flatnonzero(labels == 1)[1], first[2]]
    tested = figures.Tested(run, model, dataset.test, right._replace(predictions=predictions))
    (axes,) = figures.draw_dimensions(tested).axes

    batch, output = tested.output(np.asarray(chosen))
    rows = {}
    for label, image, pose in zip(range(3), batch.images, output.capsules.pose, strict=True):
        decoded = np.asarray(figures._decode_dimensions(model, pose, label))
        changes = np.abs(decoded - decoded[:, 5:6]).mean(axis=(1, 2, 3, 4))
        name = f"{dataset.class_names[label]}, dim. {changes.argmax() + 1}"
        rows[name] = (changes.max(), image, decoded[changes.argmax(), 0])
    strongest_first = sorted(rows, key=lambda name: -rows[name][0])
    assert [tick.get_text() for tick in axes.get_yticklabels()] == strongest_first
    shown = axes.images[0].get_array().astype(np.float32)
    for top, name in zip((0, 9, 18), strongest_first, strict=True):
        _, image, least = rows[name]
        assert_close(shown[top : top + 8, :8], image[..., 0])
        assert_close(shown[top : top + 8, 9:17], least[..., 0], reduction_length=64 * 8)
