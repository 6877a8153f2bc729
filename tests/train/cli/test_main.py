"""The command line, as a user meets it: real programs on real digits, and every bad input."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from tests.train.cli.conftest import TINY, fails
from tests.train.conftest import ROOT
from train.__main__ import COMMANDS, main
from train.data.sources.mnist import MNIST
from train.learn.trainer import Trainer
from train.options.command import command_name
from train.run.folder import load_run, locked
from train.run.log import read_metrics


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory) -> Path:
    """A network that knows the digits, trained by the command line."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["fit", "digits", "--out", str(out), "--steps", "150"]) == 0
    return out


@pytest.mark.parametrize(
    "line",
    ["fit --lr 3", "fit digist", "fit digits --optimizer adamm", "bench digits --batch-size 0"],
)
def test_what_is_wrong_with_a_line_is_told_before_jax_is_imported(line):
    """Which takes a second at least; all of it takes a third of one."""
    words = [sys.executable, "-X", "importtime", "-m", "train", *line.split()]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    imported = [text.rpartition("|")[2].strip() for text in ended.stderr.splitlines()]
    assert "train.config.settings" in imported
    assert not {"jax", "numpy", "capsjax"} & {*imported}


# --- What a run leaves


def test_a_run_leaves_what_the_readme_says(digits_run):
    summary = json.loads((digits_run / "summary.json").read_text())
    assert summary["preset"] == "digits"
    assert summary["steps"] == 150
    assert summary["parameters"] == 148_608
    assert summary["test.accuracy"] > 0.9
    wrong = summary["test.error_percent"] * summary["test.examples"] / 100
    assert wrong == pytest.approx((1 - summary["test.accuracy"]) * 359)
    assert summary["test.loss"] > 0
    assert summary["validation.examples"] == 144  # a tenth of what there is to train with
    assert summary["validation.accuracy"] > 0.9
    assert summary["images_per_second"] > 0
    assert summary["wall_seconds"] > 0
    assert summary["devices"] == 8
    assert summary["jax_version"] == jax.__version__

    rows = read_metrics(digits_run / "metrics.jsonl")
    logged = [row["step"] for row in rows if row["split"] == "train"]
    assert logged == sorted({*range(10, 151, 10), *range(41, 150, 41)})
    assert {"loss", "accuracy", "learning_rate", "images_per_second"} <= rows[0].keys()
    figures = {path.name for path in (digits_run / "figures").iterdir()}
    assert figures == {
        *("curves.png", "classes.png", "confusion.png", "reconstructions.png", "dimensions.png")
    }
    assert [row["class"] for row in summary["test.classes"]] == list("0123456789")
    assert sum(row["support"] for row in summary["test.classes"]) == 359
    recalls = [row["recall"] for row in summary["test.classes"]]
    assert summary["test.balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert summary["test.accuracy"] < summary["test.top_5_accuracy"] <= 1
    assert list((digits_run / "tensorboard").glob("events.out.tfevents.*"))
    assert (digits_run / "checkpoints" / "150").is_dir()
    assert load_run(digits_run).class_names == tuple("0123456789")


ABSENT = ("tensorflow_datasets", "grain", "tensorboardX", "importlib_resources")


def test_a_run_needs_neither_grain_nor_tensorboardx_nor_tensorflow_datasets(environment, tmp_path):
    program = (
        f"import sys; sys.modules |= dict.fromkeys({ABSENT})\n"
        "import train.bench.benchmark\n"
        "from train.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    ended = subprocess.run(
        [
            *(sys.executable, "-c", program, "fit", "digits", *TINY),
            *("--steps", "4", "--log-every", "1", "--out", tmp_path / "run"),
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("TensorBoard events are left out") == 1
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [(row["split"], row["step"]) for row in rows] == [
        *(("train", step) for step in range(1, 5)),
        ("validation", 4),
        ("test", 4),
    ]


def test_evaluate_reproduces_the_summary_exactly(digits_run, capsys):
    summary = json.loads((digits_run / "summary.json").read_text())
    assert main(["evaluate", str(digits_run), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    for name in ("accuracy", "loss", "margin_loss", "reconstruction_loss"):
        assert result[name] == summary[f"test.{name}"]
    kept = json.loads((digits_run / "evaluations" / "digits-last.json").read_text())
    assert kept == result
    assert main(["evaluate", str(digits_run), "--split", "validation", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["split"], result["examples"]) == ("validation", 144)
    assert result["loss"] == summary["validation.loss"]
    assert main(["evaluate", str(digits_run), "--checkpoint", "best"]) == 0
    assert "of digits" in capsys.readouterr().out


def test_several_runs_are_measured_as_one_network(digits_run, capsys):
    assert main(["evaluate", str(digits_run), "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)["accuracy"]
    assert main(["evaluate", str(digits_run), str(digits_run), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["accuracies"] == [pytest.approx(alone)] * 2
    assert result["accuracy"] == pytest.approx(alone)
    assert main(["evaluate", str(digits_run), str(digits_run)]) == 0
    assert "2 networks together: accuracy" in capsys.readouterr().out
    both = [str(digits_run), str(digits_run)]
    assert main(["evaluate", *both, "--test-examples", "50", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["examples"] == 50
    (kept,) = (digits_run / "evaluations").glob("digits-last-2-networks-*-50-examples.json")
    assert json.loads(kept.read_text())["examples"] == 50
    sentence = fails(capsys, "evaluate", digits_run, digits_run, "--inspect")
    assert sentence == "error: --inspect is for a single run: leave it out, or the others."


def test_predict_reads_image_files(digits_run, tmp_path, capsys):
    from train.data import load_dataset

    test = load_dataset("digits").test
    paths = []
    for index in range(6):
        enlarged = Image.fromarray(test.images[index, ..., 0]).resize((80, 80), 0)
        paths.append(tmp_path / f"{index}.png")
        enlarged.convert("RGB").save(paths[-1])
    assert main(["predict", str(digits_run), *map(str, paths), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [r["image"] for r in results] == list(map(str, paths))
    right = sum(int(r["class"]) == test.labels[i] for i, r in enumerate(results))
    assert right >= 5
    for result in results:
        assert len(result["lengths"]) == 10
        assert result["length"] == max(result["lengths"].values())

    assert main(["predict", str(digits_run), str(paths[0])]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    first = results[0]["class"]
    assert line.startswith(f"{paths[0]}: {first} ({first} {results[0]['length']:.3f}, ")
    assert line.count(", ") == 4
    assert main(["predict", str(digits_run), str(paths[0]), "--invert"]) == 0
    assert "dark on light" in capsys.readouterr().err


def test_predict_sees_deep_and_drawn_images_as_they_are_and_tells_of_blank_ones(
    digits_run, tmp_path, capsys
):
    from train.data import load_dataset

    pixels = load_dataset("digits").test.images[0, ..., 0]
    ink = np.stack([np.zeros_like(pixels)] * 3 + [pixels], axis=-1)
    blank = np.zeros_like(pixels)
    kinds = {"grey": pixels, "deep": pixels.astype(np.uint16) * 257, "ink": ink, "blank": blank}
    for name, values in kinds.items():
        Image.fromarray(values).save(tmp_path / f"{name}.png")

    def predicted(name, *options):
        assert main(["predict", str(digits_run), str(tmp_path / name), "--json", *options]) == 0
        out, err = capsys.readouterr()
        return json.loads(out)[0]["lengths"], err

    grey, told = predicted("grey.png")
    assert not told
    assert predicted("deep.png")[0] == grey
    assert predicted("ink.png", "--invert")[0] == grey
    told = predicted("blank.png")[1]
    assert "blank.png came out as one single value" in told
    assert "in 1 of 1 images no class has a capsule longer than 0.5: nothing was recognised" in told


def test_presets_are_listed_and_explained(capsys):
    assert main(["presets"]) == 0
    listed = capsys.readouterr().out
    names = [line.split()[0] for line in listed.splitlines()]
    assert names == sorted(names)
    assert {"digits", "digits-cnn", "fashion_mnist", "mnist", "mnist-small"} <= set(names)
    assert main(["presets", "mnist"]) == 0
    assert "arXiv:1710.09829" in capsys.readouterr().out


@pytest.mark.parametrize("command", [command_name(command) for command in COMMANDS])
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert "usage: python -m train " + command in capsys.readouterr().out


# --- Whole programs


def test_one_device_and_four_have_the_same_loss_curve(no_figures, tmp_path, capsys):
    curves = []
    for devices in ("1", "4"):
        out = tmp_path / devices
        arguments = ("--steps", "20", "--log-every", "2", "--devices", devices, *TINY)
        assert main(["fit", "digits", "--out", str(out), *arguments]) == 0
        assert "step 20/20" in capsys.readouterr().err
        assert json.loads((out / "summary.json").read_text())["devices"] == int(devices)
        rows = read_metrics(out / "metrics.jsonl")
        curves.append([(row["step"], row["split"], row["loss"]) for row in rows])
    assert [point[:2] for point in curves[0]] == [point[:2] for point in curves[1]]
    losses = np.array([[point[2] for point in curve] for curve in curves])
    assert losses.shape[1] == 12
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def test_bad_input_ends_a_real_program_with_2_and_no_traceback(python_m_train, tmp_path):
    ended = python_m_train("fit", "digits", "--steps", "-5", "--out", tmp_path / "run")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr == "error: --steps is -5, but must be more than 0.\n"
    assert not (tmp_path / "run").exists()


def test_data_of_ones_own_goes_without_a_recipe(no_figures, tmp_path, capsys, monkeypatch):
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(20):
            pixels = np.random.default_rng(number).integers(0, 256, (12, 14), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    arguments = ("--dataset", f"folder:{tmp_path / 'pets'}", "--steps", "1", *TINY)
    # What goes on with a run, if there is one.
    assert main(["fit", *arguments, "--resume"]) == 0
    told = capsys.readouterr().err
    assert "note: no recipe is named, so digits is taken, which suits images of 12x14x1" in told
    assert told.count("no recipe") == 1
    assert main(["fit", *arguments[:-2], "--devices", "2", "--out", "few"]) == 0
    assert "so digits is taken in batches of 4, which suits" in capsys.readouterr().err
    assert load_run(Path("few")).config.schedule.batch_size == 4
    run = load_run(Path("runs/pets"))
    assert (run.config.preset, run.config.data.dataset) == ("digits", arguments[1])
    assert main(["fit", *arguments, "--resume"]) == 0
    told = capsys.readouterr().err
    assert "from step 1 on" in told
    assert "no recipe" not in told
    assert "unknown dataset 'mnits' (did you mean mnist?)" in fails(
        capsys, "fit", "--dataset", "mnits"
    )


# --- Bad input: one sentence, exit code 2, and nothing is left behind


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "dgits"], "unknown preset 'dgits' (did you mean digits?), choose from: affnist"),
        (
            ["fit", "digits", "--dataset", "mnits"],
            "unknown dataset 'mnits' (did you mean mnist?), choose",
        ),
        (["fit", "digits", "--routing", "x"], "unknown routing 'x', choose from: dynamic"),
        (
            ["fit", "digits", "--model", "x"],
            "unknown model 'x', choose from: aff_capsnet",
        ),
        (["fit", "digits", "--routing", "x.py"], "x.py is a file: name what is in it, x.py:NAME"),
        (
            ["fit", "digits", "--max-shift", "8"],
            "--max-shift is 8, but the images of digits",
        ),
        (
            ["launch", "--processes", "2", "--", "fit", "digits", "--stepz", "5"],
            "did you mean --",
        ),
        (["show", "digits", "--out", "digits.gif"], "a PNG is drawn: name it so, as in digits.png"),
        (["fit", "digits", "--feed", "x"], "invalid choice: 'x'"),
        (["fit", "digits", "--stepps", "3"], "(did you mean --steps?); the options of fit are"),
        (["fit", "digits", "--steps", "-3"], "--steps is -3, but must be more than 0"),
        (["fit", "digits", "--routing-iterations", "0"], "--routing-iterations is 0"),
        (
            ["fit", "digits-cnn", "--routing-iterations", "2"],
            "cnn has no routing iterations",
        ),
        (
            ["fit", "digits-cnn", "--routing", "dynamic"],
            "cnn has no routing to choose: leave --routing out",
        ),
        (
            ["fit", "digits-sr_capsnet", "--mask-in-test", "label"],
            "sr_capsnet reconstructs nothing, so leave --mask-in-test out",
        ),
        (
            ["compare", "--models", "cnn", "--reconstruction-weight", "1"],
            "cnn reconstructs nothing, so leave --reconstruction-weight out",
        ),
        (["compare", "--folds", "3", "--validation", "9"], "--validation says nothing with --fol"),
        (
            ["bench", "digits-cnn", "--iterations", "1,5"],
            "iterations: leave --iterations out",
        ),
        (["bench", "digits", "--models", "capsnet,cnn", "--grow", "iterations"], "leave --grow it"),
        (["fit", "digits", "--epochs", "nan"], "--epochs is nan"),
        (["fit", "digits", "--batch-size", "30"], "30 cannot be shared equally by 8 devices"),
        (["fit", "digits", "--batch-size", "4096"], "larger than the training set of 1294"),
        (["fit", "digits", "--devices", "99"], "--devices is 99, but this machine has 1 to 8"),
        (["fit", "digits", "--steps-per-dispatch", "0"], "--steps-per-dispatch: '0' is not a"),
        (["fit", "digits", "--profile", "0"], "--profile: '0' is not a whole number of at least 1"),
        (["fit", "digits", "--model-options", "x"], "not of the form NAME=VALUE"),
        (["fit", "digits", "--model-options", "conv_kernel=20"], "does not fit on an input"),
        (["fit", "digits", "--model-options", "conv_features=[]"], "this network cannot be made"),
        (["fit", "digits", "--seed", "1" + "0" * 400], "--seed is 1000000000..., but must be no"),
        (["fit", "digits", "--epochs", "1e300"], "--epochs is 1e+300, but 2^31 steps are too many"),
        (["fit", "digits", "--dtype", "float64"], "float64 needs JAX's x64 mode"),
        (["fit"], "fit needs the name of a recipe, one of: affnist, affnist-small, cifar10"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_bad_options(arguments, message, capsys, tmp_path):
    if arguments[:1] == ["fit"]:
        arguments = [*arguments, "--out", str(tmp_path / "run")]
    assert message in fails(capsys, *arguments)
    assert not list(tmp_path.iterdir())


def test_another_run_is_not_overwritten(digits_run, capsys):
    before = (digits_run / "summary.json").read_bytes()
    message = fails(capsys, "fit", "digits", "--out", digits_run, "--steps", "1")
    assert "holds a run already" in message
    assert (digits_run / "summary.json").read_bytes() == before


def test_an_out_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    message = fails(capsys, "fit", "digits", "--out", tmp_path / "file" / "run", *TINY)
    assert "cannot be written (Not a directory)" in message


@pytest.mark.usefixtures("digits_run")  # whose programs are kept, of which none could be written
def test_no_space_left_while_training(tmp_path, capsys):
    """A limit on the size of files stands for a full disk."""
    import resource

    out = tmp_path / "run"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        code = main(
            ["fit", "digits", "--out", str(out), "--steps", "150", "--checkpoint-every", "5"]
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "make room" in last
    assert not (out / "summary.json").exists()


@pytest.fixture
def idx_folder(tmp_path, official_files, monkeypatch) -> Path:
    """A folder that looks like the official files of MNIST."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "files"
    folder.mkdir()
    for file in MNIST.files:
        (folder / file.name).symlink_to(official_files / "mnist" / file.name)
    return folder


def replaced(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def bad_file(kind: str, folder: Path) -> str:
    path, labels, *_ = (folder / file.name for file in MNIST.files)
    if kind == "missing":
        path.unlink()
    elif kind == "truncated":
        replaced(path, path.read_bytes()[:-1000])
    elif kind == "corrupted":
        content = bytearray(path.read_bytes())
        content[5000] ^= 1
        replaced(path, bytes(content))
    else:
        path = labels
        replaced(path, gzip.compress(b"not the labels"))
    return path.name


@pytest.mark.parametrize("kind", ["missing", "truncated", "corrupted", "another checksum"])
def test_a_bad_idx_file(kind, idx_folder, tmp_path, capsys):
    name = bad_file(kind, idx_folder)
    arguments = ("--data-dir", idx_folder, "--out", tmp_path / "run")
    message = fails(capsys, "fit", "mnist-small", *arguments)
    assert name in message
    assert not (tmp_path / "run").exists()
    assert not list((tmp_path / "cache").rglob("*.array_record*"))


def test_a_data_dir_that_is_not_there(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "cache"))
    arguments = ("--data-dir", tmp_path / "nowhere", "--out", tmp_path / "run")
    assert "nowhere" in fails(capsys, "fit", "mnist", *arguments)
    assert not (tmp_path / "run").exists()


def test_no_network_and_no_files_ends_within_ten_seconds(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody listens
    begun = time.monotonic()
    message = fails(capsys, "fit", "mnist", "--out", tmp_path / "run")
    assert time.monotonic() - begun < 10
    assert "--data-dir" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", [["evaluate"], ["predict", "{image}"]])
def test_a_folder_without_a_run(command, tmp_path, capsys):
    image = tmp_path / "x.png"
    Image.new("L", (8, 8)).save(image)
    name, *rest = (part.format(image=image) for part in command)
    assert "holds no run" in fails(capsys, name, tmp_path / "nowhere", *rest)


def test_evaluate_with_images_of_another_shape(digits_run, mnist_files, capsys):
    assert main(["evaluate", str(digits_run), "--dataset", "nonsense"]) == 2
    assert "choose one of digits, mnist" in capsys.readouterr().err
    arguments = ("--dataset", "mnist", "--data-dir", str(mnist_files))
    assert main(["evaluate", str(digits_run), *arguments]) == 2
    assert "takes (8, 8, 1) in 10 classes" in capsys.readouterr().err


def test_predict_with_what_is_no_image(digits_run, tmp_path, capsys):
    (tmp_path / "x.png").write_text("no image")
    assert "x.png is not an image file" in fails(capsys, "predict", digits_run, tmp_path / "x.png")
    assert "there is no file" in fails(capsys, "predict", digits_run, tmp_path / "y.png")


# --- The other ways in which a run ends


def test_a_run_that_is_asked_to_stop_exits_with_75(no_figures, tmp_path, capsys, monkeypatch):
    send = Trainer.train

    def interrupted(self, *arguments, **options):
        if int(self.state.step):
            os.kill(os.getpid(), signal.SIGTERM)
        return send(self, *arguments, **options)

    monkeypatch.setattr(Trainer, "train", interrupted)
    arguments = ("fit", "digits", "--out", str(tmp_path / "run"), "--steps", "20", *TINY)
    assert main(list(arguments)) == 75
    assert "the same command with --resume goes on" in capsys.readouterr().err.splitlines()[-1]


def test_a_run_that_is_given_up_exits_with_3(tmp_path, capsys):
    arguments = ("--steps", "40", "--learning-rate", "1e38", "--max-skipped", "2", *TINY)
    with jax.debug_nans(False):
        assert main(["fit", "digits", "--out", str(tmp_path / "run"), *arguments]) == 3
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: loss or gradient were not finite in 3 steps in a row")


def test_outputs_that_are_not_finite_are_told_and_name_no_class(no_figures, tmp_path, capsys):
    run, image = str(tmp_path / "run"), tmp_path / "x.png"
    Image.new("L", (8, 8), 9).save(image)
    with jax.debug_nans(False):
        words = ["fit", "digits", "--out", run, "--steps", "1", "--learning-rate", "1e30", *TINY]
        assert main(words) == 0
        assert "the outputs of the network are not" in capsys.readouterr().out.splitlines()[-1]
        assert main(["evaluate", run, "--inspect", "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["loss"] is None
        assert result["inspection"]["class_caps"]["coupling_change"] == [None, None]
        assert main(["evaluate", run, "--inspect"]) == 0
        assert "loss -\nnote: the loss on these images is not" in capsys.readouterr().out
        for option in ("--top=1", "--json"):
            assert "no class can be named" in fails(capsys, "predict", run, image, option)
        assert "leave that run out" in fails(capsys, "evaluate", run, run)


def test_a_run_that_another_process_is_at_is_refused(tmp_path, capsys):
    out = tmp_path / "run"
    out.mkdir()
    with locked(out):
        message = fails(capsys, "fit", "digits", "--out", out, "--steps", "1", *TINY)
    assert "another process is training in" in message
    assert not list(out.iterdir())
