"""Pictures are looked at by people; here it is what is drawn that counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.tolerance import assert_close
from train.learn.objective import Objective
from train.learn.program import assemble
from train.learn.scoring import Evaluation
from train.report import figures
from train.run.folder import Run


@pytest.fixture
def program(config, dataset):
    return assemble(config, dataset, devices=1)


@pytest.fixture
def drawn(monkeypatch):
    """Every figure that is saved, by the name of its file."""
    saved = {}
    save = figures.Figure.savefig

    def savefig(figure, path, **options):
        saved[path.name] = figure
        save(figure, path, **options)

    monkeypatch.setattr(figures.Figure, "savefig", savefig)
    return saved


ROWS = [
    {"step": 10, "split": "train", "loss": 0.5, "accuracy": 0.5},
    {"step": 20, "split": "train", "loss": None, "accuracy": 0.0},
    {"step": 20, "split": "test", "loss": 0.3, "accuracy": 0.9},
]


def test_a_run_has_its_four_figures(tmp_path, config, dataset, program):
    run = Run(tmp_path, config, dataset.image_shape, dataset.class_names)
    figures.draw_run(run, ROWS, program.model(), dataset.test, program.evaluate())
    for name in ("curves", "confusion", "reconstructions", "dimensions"):
        with Image.open(run.figures / f"{name}.png") as image:
            assert min(image.size) > 200
            assert len(image.convert("L").getcolors()) > 2


def test_the_curves_are_those_of_the_metrics(tmp_path, drawn):
    figures.draw_curves(tmp_path / "curves.png", ROWS, "title")
    loss, error = drawn["curves.png"].axes
    # A loss that was not finite is left out.
    assert [line.get_xydata().tolist() for line in loss.lines] == [[[10, 0.5]], [[20, 0.3]]]
    np.testing.assert_allclose(error.lines[1].get_xydata(), [[20, 10]])


def test_the_confusion_matrix_counts_true_and_predicted(tmp_path, drawn):
    labels, predictions = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1])
    figures.draw_confusion(tmp_path / "c.png", labels, predictions, ("a", "b", "c"), "title")
    (axes,) = drawn["c.png"].axes
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written == {(0, 0): "1", (1, 0): "1", (1, 1): "1", (1, 2): "1"}  # (column, row)
    np.testing.assert_allclose(axes.images[0].get_array()[0], np.sqrt([0.5, 0.5, 0]))


def test_a_hundred_classes_can_be_drawn(tmp_path, drawn):
    names = tuple(f"class {i}" for i in range(100))
    figures.draw_confusion(tmp_path / "c.png", np.arange(100), np.arange(100), names, "title")
    assert not drawn["c.png"].axes[0].texts


def test_misjudged_images_have_a_row_of_their_own(tmp_path, dataset, program, drawn):
    right = Evaluation({}, dataset.test.labels, dataset.test.labels)
    wrong = Evaluation({}, (dataset.test.labels + 1) % 3, dataset.test.labels)
    arguments = (program.model(), Objective(), dataset.test)
    figures.draw_reconstructions(tmp_path / "r.png", *arguments, right, dataset.class_names, 4)
    (only,) = drawn["r.png"].axes
    names, labels = dataset.class_names, dataset.test.labels
    assert [tick.get_text() for tick in only.get_xticklabels()] == [names[i] for i in labels[:4]]
    figures.draw_reconstructions(tmp_path / "w.png", *arguments, wrong, dataset.class_names, 4)
    _, misjudged = drawn["w.png"].axes
    assert misjudged.get_xticklabels()[0].get_text() == (
        f"{names[labels[0]]} → {names[(labels[0] + 1) % 3]}"
    )


def test_overlapping_objects_are_drawn_in_two_colours(tmp_path, config, pairs, drawn):
    program = assemble(config, pairs, devices=1)
    labels = pairs.test.gather(np.arange(10)).labels
    predictions = labels[:, ::-1].copy()
    predictions[3] = [labels[3, 1], 3 - labels[3].sum()]  # one of the two is wrong
    evaluation = Evaluation({}, predictions, labels)
    arguments = (program.model(), Objective(), pairs.test, evaluation, pairs.class_names)
    figures.draw_overlaps(tmp_path / "o.png", *arguments, 4)
    right, wrong = drawn["o.png"].axes
    names = pairs.class_names
    both = [", ".join(names[label] for label in row) for row in labels]
    ticks = [tick.get_text() for tick in right.get_xticklabels()]
    assert ticks == [both[i] for i in (0, 1, 2, 4)]
    (tick,) = wrong.get_xticklabels()
    assert tick.get_text() == f"{both[3]} → {', '.join(names[p] for p in predictions[3])}"
    batch = pairs.test.gather(np.asarray([3]))
    shown = wrong.images[0].get_array()
    np.testing.assert_allclose(shown[:16], batch.images[0].repeat(3, axis=-1) / 255, atol=1e-6)
    for channel in range(2):
        part = batch.parts[0, channel, ..., 0] / 255
        np.testing.assert_allclose(shown[17:33, :, channel], part, atol=1e-6)
    # What is predicted first is present as the second part, the green one.
    image = jnp.asarray(batch.images, jnp.float32) / 255
    output = Objective().apply(program.model(), image, jnp.asarray(labels[3:4]), training=False)
    np.testing.assert_allclose(shown[34:, :, 1], output.reconstruction[0, 0, ..., 0], atol=1e-5)
    np.testing.assert_allclose(shown[34:, :, 0], output.reconstruction[0, 1, ..., 0], atol=1e-5)


def test_what_is_shown_of_a_normalised_image_is_the_image(tmp_path, dataset, program, drawn):
    objective = Objective(input_mean=0.25, input_std=0.5)
    right = Evaluation({}, dataset.test.labels, dataset.test.labels)
    figures.draw_reconstructions(
        tmp_path / "r.png", program.model(), objective, dataset.test, right, dataset.class_names, 4
    )
    shown = drawn["r.png"].axes[0].images[0].get_array()
    np.testing.assert_allclose(shown[:8, :8], dataset.test.images[0, ..., 0] / 255, atol=1e-6)
    np.testing.assert_allclose(shown[:8, 9:17], dataset.test.images[1, ..., 0] / 255, atol=1e-6)


def test_the_dimensions_move_one_at_a_time(program):
    model = program.model()
    pose = jax.random.normal(jax.random.key(0), (3, 4)) / 4
    grid = figures.decode_dimensions(model, pose, 1)
    assert grid.shape == (4, 11, 8, 8, 1)
    mask = jnp.array([[0.0, 1.0, 0.0]])
    moved = pose.at[1, 2].add(-0.2)  # the second of -0.25, -0.20, ..., 0.25
    assert_close(grid[2, 1], model.decoder(moved[None], mask)[0], reduction_length=16)
    assert_close(grid[3, 5], model.decoder(pose[None], mask)[0], reduction_length=16)


def test_without_a_decoder_there_is_nothing_to_reconstruct(tmp_path, config, dataset, program):
    model = program.model()
    model.decoder = None
    run = Run(tmp_path, config, dataset.image_shape, dataset.class_names)
    figures.draw_run(run, ROWS, model, dataset.test, program.evaluate())
    assert {path.name for path in run.figures.iterdir()} == {"curves.png", "confusion.png"}
