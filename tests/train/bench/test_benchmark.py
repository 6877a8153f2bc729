"""The command from its options to its files, and what it says where it cannot."""

import json
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from tests.train.bench.conftest import PREDICTION, make_row
from train.__main__ import main
from train.bench import benchmark
from train.bench.benchmark import Benchmark, load_or_imitate
from train.bench.ceilings import measure_machine
from train.bench.forward import BATCH_SIZES, measure_forward
from train.bench.timing import Rounds
from train.bench.training import measure_speed, measure_training
from train.study import records
from train.system.errors import DoesNotFitError, UserError

TINY = (
    *("--model-options", "conv_features=4", "conv_kernel=1", "primary_types=2"),
    *("primary_kernel=1", "decoder_hidden=[8]"),
    *("--repetitions", "2", "--seconds", "0.01"),
)


@pytest.mark.slow
def test_a_benchmark_in_its_processes(python_m_train, tmp_path):
    ended = python_m_train(
        *("bench", "--batch-sizes", "4", "--iterations", "2", *TINY),
        *("--json", tmp_path / "b.json", "--plot", tmp_path / "figures"),
        devices=2,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "b.json").read_text())
    (row,) = found["rows"]
    assert (row["batch_size"], row["iterations"], row["failure"]) == (4, 2, None)
    assert row["images_per_second"] == 4 / row["step_seconds"]
    assert row["slowest"] <= row["images_per_second"] <= row["fastest"]
    assert row["peak_bytes"] > 10**8
    assert [part["seconds"] > 0 for part in row["parts"]] == [True] * 5
    assert row["memory"]["temporaries"] > 0
    assert found["machine"]["devices"] == 2
    assert found["machine"]["ceilings"]["memory_bytes"] > 0
    assert found["data"] == {"name": "digits", "synthetic": False}
    assert found["growth"] == []
    assert ended.stdout.count("| 4 | float32 |") == 4
    assert "[1/1] batch 4, float32, 2 iterations" in ended.stderr
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["parts.png"]


@pytest.fixture
def measured(monkeypatch):
    """Measures nothing, on a machine of 4 devices; the calls, with what they were given.

    An image takes a millisecond, and each further device costs two. Batches of more than 8 do not
    fit, odd ones are bad input.
    """
    calls = []

    def in_own_process(function, *arguments):
        calls.append((function, *arguments))
        if function is measure_machine:
            ceilings = {"matrix_flops": {"float32": 1e9, "bfloat16": 2e9}, "memory_bytes": 1e9}
            about = {"devices": 4, "device_kind": "made up", "platform": "cpu"}
            return {**about, "ceilings": ceilings}
        config, _, *devices, _ = arguments
        batch = config.schedule.batch_size
        if function is measure_forward:
            about = {"device_kind": "made up", "batch_seconds": 0.002, "predict_seconds": 0.0025}
            return {**make_row(), **about, "batch_size": batch, "dtype": config.model.dtype}
        (devices,) = devices
        if function is measure_speed:
            seconds = (batch / devices + 2 * (devices - 1)) / 1e3
            rate = batch / seconds
            return {"step_seconds": seconds, "images_per_second": rate, "gradient_bytes": 10**6}
        if batch % 2:
            raise UserError("odd")
        if batch > 8:
            raise DoesNotFitError("no room")
        point = ("batch_size", "dtype", "iterations", "implementation", "primary_types")
        return {k: v for k, v in make_row().items() if k not in point}

    monkeypatch.setattr(benchmark, "in_own_process", in_own_process)
    return calls


def test_what_cannot_run_has_a_row_and_larger_batches_are_not_tried(measured, config):
    benchmark = Benchmark(
        config.changed(dataset="digits", train_examples=100),
        data_dir=None,
        devices=None,
        rounds=Rounds(2, 1.0),
    )
    dtypes = ["float32", "bfloat16"]
    found = benchmark.training({"batch_size": [1, 2, 4, 8, 16, 32], "dtype": dtypes})
    (_, named, devices, rounds), *others = measured
    assert (named, devices, rounds) == (dtypes, None, Rounds(2, 0.25))
    tried = [(c.model.dtype, c.schedule.batch_size) for f, c, *_ in others]
    assert sorted(tried) == sorted((d, b) for d in dtypes for b in (1, 2, 4, 8, 16))
    assert {function for function, *_ in others} == {measure_training}
    failures = {row["batch_size"]: row["failure"] for row in found.values["rows"]}
    assert failures == {1: "odd", 2: None, 4: None, 8: None, 16: "no room"}
    assert [growth["rows"] for growth in found.values["growth"]] == [[2, 4, 8]] * 2
    assert "a step takes" in found.text
    assert "100 images of digits" in found.text
    assert list(found.figures) == ["parts.png", "batch.png"]


def test_where_nothing_can_run_there_is_no_report(measured, config):
    benchmark = Benchmark(
        config.changed(dataset="digits"), data_dir=None, devices=None, rounds=Rounds()
    )
    with pytest.raises(UserError, match="^odd$"):
        benchmark.training({"batch_size": [1, 3]})


def test_a_forward_pass_at_growing_batches(measured, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "ROOT", tmp_path)
    assert main(["bench", "digits", "--forward", "--record", "mine"]) == 0
    assert [config.schedule.batch_size for _, config, *_ in measured] == list(BATCH_SIZES)
    said = capsys.readouterr().out
    assert said.startswith("Forward pass, made up, one device, images of the shape of digits:")
    assert (
        "| 4096 | float32 | 3 | 32 | 1,000 (900 to 1,100) | 2.00 | 2.50 | 2.5 | 500 | 1.2 |" in said
    )
    assert "| 4096 | float32 |" in records.render("mine")
    measured.clear()
    assert main(["bench", "--forward", "--batch-sizes", "2,8", "--dtypes", "bfloat16"]) == 0
    found = [(config.schedule.batch_size, config.model.dtype) for _, config, *_ in measured]
    assert found == [(2, "bfloat16"), (8, "bfloat16")]
    measured.clear()
    assert main(["bench", "--forward", "--batch-size", "32"]) == 0
    assert [config.schedule.batch_size for _, config, *_ in measured] == [32]


def test_scaling_over_the_devices_present(measured, tmp_path, capsys):
    out = tmp_path / "found.json"
    arguments = ["bench", "digits", "--scaling", "--batch-size", "8"]
    assert main([*arguments, "--json", str(out), "--plot", str(tmp_path)]) == 0
    rows = json.loads(out.read_text())["rows"]
    found = {(row["kind"], row["devices"]): row["efficiency"] for row in rows}
    assert found["weak", 1] == found["strong", 1] == 1
    assert found["weak", 4] == pytest.approx(8 / 14)
    assert found["strong", 4] == pytest.approx(2 / 8)
    said = capsys.readouterr().out
    assert "| weak | 4 | 32 | 14.00 | 2,286 | 57% |" in said
    assert "gradients of 1.0 MB" in said
    assert (tmp_path / "scaling.png").exists()
    # What both kinds of scaling ask for is measured once.
    assert len(measured) == 1 + 3 + 2


@pytest.fixture
def of_dataset(config):
    """A benchmark of a data set."""

    def make(dataset, devices, **changes):
        made = Benchmark(
            config.changed(dataset="digits", **changes),
            data_dir=None,
            devices=devices,
            rounds=Rounds(),
        )
        made.dataset = dataset
        return made

    return make


def test_the_largest_batch_as_a_report(monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "largest_batch", lambda *_, **__: PREDICTION)
    assert main(["bench", "digits", "--predict-memory", "60MB"]) == 0
    said = capsys.readouterr().out
    assert "the largest batch that fits in 60.0 MB a device is 4,900" in said
    assert "the program included" in said


def test_a_line_through_two_batches_predicts_a_third(config, dataset, of_dataset, monkeypatch):
    quick = {"conv_kernel": 1, "primary_kernel": 1, "decoder_hidden": None}
    quick |= {"routing_implementation": "xla"}
    changes = {"model_options": config.model.options | quick, "routing_iterations": 1}
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")  # the step alone counts
    budget = 2_660_000
    found = of_dataset(dataset, 1, **changes, batch_size=256, max_shift=0).memory(budget)
    found = found.values["prediction"]
    assert found["batch_size"] in list(found["compiled"])[2:]
    assert found["predicted_bytes"] == pytest.approx(found["compiled_bytes"], rel=0.02)
    assert found["compiled_bytes"] == found["compiled"][found["batch_size"]] <= budget


@pytest.mark.parametrize("backend", ["gpu", "cpu"])
def test_the_program_itself_and_all_devices_count_on_a_cpu(
    config, dataset, of_dataset, monkeypatch, backend
):
    """A step takes 1,000 bytes and 10 for an image of a device, 200 of them arguments."""
    asked = []

    def plan(size):
        asked.append(size)
        return {"total": 1000 + 10 * size // 2, "arguments": 200}

    mesh = SimpleNamespace(devices=SimpleNamespace(size=2))
    program = SimpleNamespace(
        mesh=mesh,
        config=config.changed(batch_size=2),
        lower=lambda size: SimpleNamespace(compile=lambda: size),
    )
    monkeypatch.setattr(benchmark, "smallest_program", lambda *_: program)
    monkeypatch.setattr(benchmark, "footprint", plan)
    monkeypatch.setattr(benchmark, "process_bytes", lambda: 5000)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    found = of_dataset(dataset, 2).memory(8005).values["prediction"]
    assert asked[:2] == [4, 8]
    # 1,000 + 5 n <= 8,005, or 5,000 + 2 (800 + 5 n) <= 8,005, for an even number of images.
    assert found["batch_size"] == (140 if backend == "cpu" else 1400)


@pytest.fixture
def feeds(monkeypatch, of_dataset):
    """Rows of the feeds, by a clock on which the rounds take 1 to 4 seconds."""

    def take(run, rounds):
        run(2)
        return [1.0, 2.0, 4.0]

    monkeypatch.setattr(benchmark, "time_rounds", take)
    monkeypatch.setattr(benchmark, "WORKERS", (0,))  # worker processes take seconds to start

    def measure(dataset, batch_size, devices):
        found = of_dataset(dataset, devices, batch_size=batch_size).feeds()
        assert f"Batches of {batch_size}, brought onto the device" in found.text
        return found.values["feeds"]

    return measure


def test_every_feed_is_measured(dataset, feeds):
    rows = feeds(dataset, 8, 2)
    assert [(row["feed"], row["workers"]) for row in rows] == [("resident", 0), ("streaming", 0)]
    for row in rows:
        assert (row["images_per_second"], row["slowest"], row["fastest"]) == (4, 2, 8)
        assert row["first_batch_seconds"] > 0


def test_examples_that_do_not_fit_are_streamed_alone(dataset, feeds, monkeypatch):
    monkeypatch.setattr("train.data.feeds.feed.RESIDENT_CPU_BYTES", 100)
    assert [row["feed"] for row in feeds(dataset, 8, 2)] == ["streaming"]


def test_examples_that_are_made_are_made_by_this_process_alone(pairs, feeds, monkeypatch):
    monkeypatch.setattr(benchmark, "WORKERS", (0, 1))
    assert [row["workers"] for row in feeds(pairs, 8, 1)] == [0, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digit"], r"unknown preset 'digit' \(did you mean digits\?\), choose from: affnist"),
        (["--dtypes", "float8"], r"unknown dtype 'float8' \(did you mean float64\?\), choose"),
        (["--dtypes", "float64"], "float64 needs JAX's x64 mode"),
        (["--json", "nowhere/b.json"], "cannot be written: nowhere is no folder"),
        (["--feed", "--devices", "9"], "--devices is 9, but this machine has 1 to 8"),
        (["--feed", "--batch-size", "20000"], "larger than the training set of 1438"),
        (
            ["--predict-memory", "1GB", "--model-options", "colour=red"],
            "this network cannot be made: .*colour",
        ),
        (["--feed", "--forward"], "not allowed with argument --feed"),
        (["--feed", "--predict-memory", "1GB"], "not allowed with argument --feed"),
        (["--feed", "--batch-sizes", "8"], "--batch-sizes is not for --feed: leave one of them"),
        (["--start", "--dtypes", "float32"], "--dtypes is not for --start"),
        (["--predict-memory", "1GB", "--models", "cnn"], "--models is not for --predict-memory"),
        (["--forward", "--grow", "batch"], "--grow is not for --forward"),
        (["--models", "cnn,capsent"], "unknown model 'capsent'"),
        (["--models", "cnn", "--model", "cnn"], "--model is one value, but --models has several"),
        (
            ["--grow", "batch", "--batch-size", "8"],
            "--batch-size is one value, but --grow batch has several",
        ),
        (["--forward", "--devices", "2"], "--forward is measured on one device: leave --devices"),
        (["--validation", "9"], "unknown argument '--validation'"),
        (
            ["--grow", "batch", "capsules", "--primary-types", "4"],
            "--primary-types is a list, but --grow capsules measures one of its own: leave",
        ),
        (["--feed", "--plot", "figures"], "--plot is not for --feed: leave one of them out"),
    ],
)
def test_bad_input_ends_with_a_sentence(arguments, message, capsys):
    assert main(["bench", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert len(said.err.strip().splitlines()) == 1
    assert re.search(message, said.err), said.err


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(benchmark, "_TRAINING", 100)


def test_what_is_embedded_is_real():
    dataset, synthetic = load_or_imitate("digits")
    assert not synthetic
    assert dataset.image_shape == (8, 8, 1)


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("mnist", (28, 28, 1), 10),
        ("fashion_mnist", (28, 28, 1), 10),
        ("smallnorb", (48, 48, 2), 5),
        ("multi_mnist", (36, 36, 1), 10),
        ("affnist-generated", (40, 40, 1), 10),
    ],
)
def test_what_is_not_at_hand_is_imitated_and_not_downloaded(name, shape, classes, empty_cache):
    dataset, synthetic = load_or_imitate(name)
    assert synthetic
    assert (dataset.name, dataset.image_shape, dataset.num_classes) == (name, shape, classes)
    assert len(np.unique(dataset.train.gather(np.arange(9)).images)) > 200


def test_files_that_are_named_are_taken_or_refused(tmp_path, empty_cache):
    with pytest.raises(UserError, match="does not exist"):
        load_or_imitate("mnist", data_dir=tmp_path)
