"""What can be said on the command line of `python -m train`: commands, options, and their help."""

import argparse
from pathlib import Path

from train.bench.options import add_bench_options
from train.cli.config_options import UserErrorParser, add_config_options
from train.study.claims.options import add_claims_options
from train.study.compare.options import COMMON, add_compare_options


def build_parser() -> UserErrorParser:
    """A parser of the whole command line."""
    parser = UserErrorParser(
        prog="python -m train",
        description="Trains capsule networks, and measures and uses what was trained.",
        epilog="`python -m train COMMAND --help` explains a command.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    fit = commands.add_parser(
        "fit",
        help="train a network by a recipe",
        description="Trains a network by a recipe (`python -m train presets` lists them) and "
        "leaves a run folder with its configuration, metrics, checkpoints, figures and result.",
        epilog="Exit codes: 0, trained; 2, bad input, or a folder that cannot be written; 3, given "
        "up, since loss or gradient were not finite in too many steps in a row; 75, asked to stop "
        "by SIGTERM or Ctrl-C, with a checkpoint from which the same command with --resume goes "
        "on bit for bit.",
    )
    fit.add_argument(
        "preset",
        metavar="PRESET",
        nargs="?",
        help="name of the recipe; with --resume it may be left out, and the run's own "
        "configuration counts",
    )
    fit.add_argument("--out", type=Path, help="folder of the run (default: runs/PRESET)")
    _add_data_dir(fit)
    _add_devices(fit)
    fit.add_argument(
        "--feed",
        choices=("auto", "resident", "streaming"),
        default="auto",
        help="keep the training images on the devices, or stream them there (default: auto, "
        "on the devices where they fit)",
    )
    fit.add_argument(
        "--steps-per-dispatch",
        type=int,
        metavar="N",
        help="the most steps that the devices are told to take at once, which changes the speed "
        "and no result (default: about a second's worth)",
    )
    existing = fit.add_mutually_exclusive_group()
    existing.add_argument(
        "--resume", action="store_true", help="go on with the run in --out, if there is one"
    )
    existing.add_argument(
        "--overwrite", action="store_true", help="replace the run in --out, if there is one"
    )
    _add_distributed(fit)
    add_config_options(fit)

    launch = commands.add_parser(
        "launch",
        help="train in several processes on this machine",
        description="Starts a `fit` in several processes on this machine, which train together; "
        "stops them all when it is stopped, and when one of them fails.",
    )
    launch.add_argument(
        "--processes", type=int, metavar="N", required=True, help="how many processes"
    )
    launch.add_argument(
        "--devices-per-process",
        type=int,
        metavar="N",
        help="GPUs of each process, the first to the first, and so on; virtual devices on a CPU "
        "(default: each process sees all GPUs, which only one can use)",
    )
    launch.add_argument(
        "fit",
        metavar="-- fit ...",
        nargs=argparse.REMAINDER,
        help="the command, as it would be for one process",
    )

    evaluate = commands.add_parser(
        "evaluate",
        help="measure a trained network on test images",
        description="Measures the network of a run on the test images of its data set, or of "
        "another one with images of the same shape. Several runs are measured as one network, by "
        "the mean of their lengths.",
    )
    _add_run(evaluate, several=True)
    evaluate.add_argument("--dataset", metavar="NAME", help="another data set than the run's")
    _add_data_dir(evaluate)
    _add_devices(evaluate)
    evaluate.add_argument(
        "--routing-iterations",
        type=int,
        metavar="N",
        help="route N times, instead of as often as in training",
    )
    evaluate.add_argument(
        "--test-examples",
        type=int,
        metavar="N",
        help="measure on the first N test images (default: as the run did; of another data set "
        "all, or, if it is made, as many as there are images that it is made of)",
    )
    evaluate.add_argument(
        "--inspect",
        action="store_true",
        help="look into the routing: entropy, agreement and change by iteration, dead capsules, "
        "and the parts that an image is made of, as figures in the run's folder",
    )
    _add_json(evaluate)

    predict = commands.add_parser(
        "predict",
        help="classify image files",
        description="Classifies image files of any size, grey or in colour, with the network of "
        "a run; prints the class and the length of every class capsule.",
    )
    _add_run(predict)
    predict.add_argument("images", metavar="IMAGE", nargs="+", type=Path, help="an image file")
    predict.add_argument(
        "--invert",
        action="store_true",
        help="swap dark and light first: for dark digits on light paper",
    )
    _add_json(predict)

    bench = commands.add_parser(
        "bench",
        help="measure what training costs",
        description="Measures the training step of a recipe: images a second, memory, the split "
        "between its parts, and the share of what the machine can do; and how they grow.",
    )
    bench.add_argument(
        "preset", metavar="PRESET", nargs="?", default="digits", help="recipe (default: digits)"
    )
    _add_data_dir(bench)
    _add_devices(bench)
    add_bench_options(bench)
    add_config_options(bench)

    compare = commands.add_parser(
        "compare",
        help="train networks and routings on the same data, and tell them apart",
        description="Trains each model with each routing on each data set, from several seeds at "
        "once, and writes tables and figures: accuracy and its spread, paired differences with "
        "their confidence, likelihood, calibration, robustness, speed, memory. What is done is "
        "kept: the same command goes on after an interruption.",
    )
    add_compare_options(compare)
    _add_data_dir(compare)
    add_config_options(compare, only=COMMON)

    claims = commands.add_parser(
        "claims",
        help="try what papers say of capsule networks",
        description="Trains capsule networks and what they are compared with, from several seeds, "
        "and writes the paper's numbers beside ours, and whether the claim was seen.",
    )
    add_claims_options(claims)
    _add_data_dir(claims)

    show = commands.add_parser(
        "show",
        help="draw the images of a data set",
        description="Draws the first images of a data set with the names of their classes, to see "
        "what a network learns from; of images of several classes their parts, too.",
    )
    show.add_argument("dataset", metavar="DATASET", help="name of the data set")
    show.add_argument("--out", type=Path, metavar="FILE", required=True, help="the PNG to write")
    show.add_argument(
        "--split", choices=("train", "test"), default="train", help="which images (default: train)"
    )
    show.add_argument(
        "--count", type=int, default=60, metavar="N", help="how many images (default: 60)"
    )
    _add_data_dir(show)

    presets = commands.add_parser(
        "presets",
        help="list the recipes",
        description="Lists the recipes of `fit`, or explains one.",
    )
    presets.add_argument("preset", metavar="PRESET", nargs="?", help="the recipe to explain")
    return parser


def _add_run(parser: UserErrorParser, *, several: bool = False) -> None:
    if several:
        parser.add_argument(
            "runs", metavar="RUN", nargs="+", type=Path, help="folder of a run, or of several"
        )
    else:
        parser.add_argument("run", metavar="RUN", type=Path, help="folder of a run")
    parser.add_argument(
        "--checkpoint",
        choices=("last", "best"),
        default="last",
        help="the newest one, or the one with the highest test accuracy (default: last)",
    )
    parser.add_argument(
        "--routing",
        metavar="FILE.py:NAME",
        help="the run's routing, if it is your own: its code is run, and only if you name it",
    )


def _add_data_dir(parser: UserErrorParser) -> None:
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        type=Path,
        help="folder with the official files of the data set, where there is no network",
    )


def _add_devices(parser: UserErrorParser) -> None:
    parser.add_argument(
        "--devices",
        type=int,
        metavar="N",
        help="devices to use, of each process (default: all)",
    )


def _add_distributed(parser: UserErrorParser) -> None:
    group = parser.add_argument_group("several processes, on one host or on many")
    group.add_argument(
        "--distributed",
        action="store_true",
        help="train together with the other processes that were started with this command; on "
        "Slurm, Open MPI, Kubernetes and Cloud TPU they find each other",
    )
    group.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="where process 0 listens (default: $JAX_COORDINATOR_ADDRESS)",
    )
    group.add_argument(
        "--processes", type=int, metavar="N", help="how many (default: $JAX_NUM_PROCESSES)"
    )
    group.add_argument(
        "--process-index",
        type=int,
        metavar="I",
        help="the number of this one, from 0 (default: $JAX_PROCESS_ID)",
    )


def _add_json(parser: UserErrorParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
