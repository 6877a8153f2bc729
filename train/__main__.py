"""The command line: `python -m train fit|evaluate|predict|...`."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from train.bench.options import add_bench_options
from train.claims.options import add_claims_options
from train.command import UserErrorParser, add_config_options, config_changes
from train.compare.options import COMMON, add_compare_options
from train.config import option
from train.errors import CommandError, PreemptedError, UserError
from train.huge_pages import restart_with_huge_pages


def _parser() -> UserErrorParser:
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0, or that of `train.errors` which says why not."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        options = _parser().parse_args(arguments)
        code = {
            "fit": _fit,
            "launch": _launch,
            "evaluate": _evaluate,
            "predict": _predict,
            "bench": _bench,
            "compare": lambda options: _compare(options, arguments),
            "claims": lambda options: _claims(options, arguments),
            "show": _show,
            "presets": _presets,
        }[options.command](options)
    except PreemptedError as stopped:
        return _told(stopped, str(stopped))
    except CommandError as error:
        return _told(error, f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return code or 0


def _told(error: CommandError, text: str) -> int:
    """Prints why a command ends, once for all processes of a run; returns the exit code."""
    if error.agreed:
        from train import hosts  # which has been at work, then

        if not hosts.is_first():
            return error.exit_code
    print(text, file=sys.stderr)
    return error.exit_code


# Each command imports what it needs: JAX takes a second, which `--help` can do without.


def _fit(options) -> None:  # type: ignore[no-untyped-def]
    from train import hosts
    from train.compilation_cache import keep_compiled_programs
    from train.loop import fit

    place = hosts.Place(options.coordinator, options.processes, options.process_index)
    if options.distributed:
        hosts.join(place)
    elif place != hosts.Place():
        raise UserError(
            "--coordinator, --processes and --process-index say where a process stands among "
            "others: give --distributed too."
        )
    with hosts.together():
        _trust(options)
        config, out = _what_to_fit(options)
    keep_compiled_programs()
    with hosts.ending_all():
        summary = fit(
            config,
            out=out,
            data_dir=options.data_dir,
            feed_kind=options.feed,
            devices=options.devices,
            resume=options.resume,
            overwrite=options.overwrite,
            steps_per_dispatch=options.steps_per_dispatch,
        )
    if not hosts.is_first():
        return
    print(
        f"{out}: test accuracy {summary['test.accuracy']:.2%} "
        f"(error {summary['test.error_percent']:.2f} %) after {summary['steps']} steps, "
        f"{summary['images_per_second']:.0f} images/s, {summary['wall_seconds']:.0f} s"
    )


def _trust(options) -> None:  # type: ignore[no-untyped-def]
    """Loads the routing of the user's own that the command line names, if it names one."""
    from train.own_routing import trust

    trust(options.routing)


def _what_to_fit(options):  # type: ignore[no-untyped-def]
    """The configuration and the folder of a run."""
    from train.network import require_room
    from train.presets import get_preset, list_presets
    from train.run import load_run

    if options.preset:
        recipe = get_preset(options.preset)
        return config_changes(recipe, options), options.out or Path("runs") / options.preset
    if options.resume and options.out:
        run = load_run(options.out)
        require_room(run.config, run.image_shape, run.num_classes)
        return config_changes(run.config, options), options.out
    raise UserError(
        f"fit needs the name of a recipe, one of: {', '.join(list_presets())}; only --resume with "
        "--out goes without."
    )


def _launch(options) -> int:  # type: ignore[no-untyped-def]
    from train.launch import launch

    return launch(options.processes, options.fit, options.devices_per_process)


def _evaluate(options) -> None:  # type: ignore[no-untyped-def]
    from train.compilation_cache import keep_compiled_programs
    from train.evaluate import evaluate

    keep_compiled_programs()
    _trust(options)
    if len(options.runs) > 1:
        _evaluate_together(options)
        return
    (run,) = options.runs
    result = evaluate(
        run,
        dataset=options.dataset,
        data_dir=options.data_dir,
        which=options.checkpoint,
        devices=options.devices,
        routing_iterations=options.routing_iterations,
        inspect=options.inspect,
        test_examples=options.test_examples,
    )
    if options.json:
        print(json.dumps(result))
        return
    print(
        f"{run} at step {result['step']}: accuracy {result['accuracy']:.2%} on the "
        f"{result['examples']:,} test images of {result['dataset']}, loss {result['loss']:.5f}"
    )
    if options.inspect:
        for layer, found in result["inspection"].items():
            print(f"{layer}: {found['dead']:.0%} of the capsules are dead; by iteration,")
            for name in ("entropy", "agreement", "coupling_change", "pose_change"):
                values = ", ".join(f"{value:.3g}" for value in found[name])
                print(f"  {name.replace('_', ' ')}: {values or '-'}")
        print("figures/routing.png shows it")


def _evaluate_together(options) -> None:  # type: ignore[no-untyped-def]
    from train.ensemble import evaluate_together

    alone = {
        "devices": options.devices is not None,
        "routing_iterations": options.routing_iterations is not None,
        "inspect": options.inspect,
    }
    for name, is_given in alone.items():
        if is_given:
            raise UserError(f"{option(name)} is for a single run: leave it out, or the others.")
    result = evaluate_together(
        options.runs,
        dataset=options.dataset,
        data_dir=options.data_dir,
        which=options.checkpoint,
    )
    if options.json:
        print(json.dumps(result))
        return
    for folder, accuracy in zip(result["runs"], result["accuracies"], strict=True):
        print(f"{folder}: accuracy {accuracy:.2%}")
    print(
        f"{len(result['runs'])} networks together: accuracy {result['accuracy']:.2%} on the "
        f"{result['examples']:,} test images of {result['dataset']}"
    )


def _predict(options) -> None:  # type: ignore[no-untyped-def]
    from train.compilation_cache import keep_compiled_programs
    from train.predict import predict

    keep_compiled_programs()
    _trust(options)
    results = predict(options.run, options.images, which=options.checkpoint, invert=options.invert)
    if options.json:
        print(json.dumps(results))
        return
    for result in results:
        lengths = ", ".join(f"{name} {length:.3f}" for name, length in result["lengths"].items())
        print(f"{result['image']}: {' and '.join(result['classes'])} ({lengths})")
    if any(result["dark_on_light"] for result in results):
        print(
            "note: some images are dark on light; networks trained on light digits on a dark "
            "ground need --invert",
            file=sys.stderr,
        )


def _bench(options) -> None:  # type: ignore[no-untyped-def]
    from train.bench.command import run
    from train.presets import get_preset

    _trust(options)
    run(config_changes(get_preset(options.preset), options), options)


def _compare(options, arguments) -> None:  # type: ignore[no-untyped-def]
    from train.compare.command import run
    from train.compilation_cache import keep_compiled_programs

    keep_compiled_programs()
    run(options, arguments)


def _show(options) -> None:  # type: ignore[no-untyped-def]
    from train.show import show

    show(
        options.dataset,
        out=options.out,
        split=options.split,
        count=options.count,
        data_dir=options.data_dir,
    )
    print(options.out)


def _claims(options, arguments) -> None:  # type: ignore[no-untyped-def]
    from train.claims.command import run
    from train.compilation_cache import keep_compiled_programs

    keep_compiled_programs()
    run(options, arguments)


def _presets(options) -> None:  # type: ignore[no-untyped-def]
    from train.presets import describe_preset, list_presets

    if options.preset:
        print(describe_preset(options.preset))
        return
    width = max(map(len, list_presets()))
    for name in list_presets():
        print(f"{name:<{width}}  {describe_preset(name).splitlines()[0]}")


def _leave(code: int) -> NoReturn:
    """Ends the program: after an error on the spot.

    When a checkpoint cannot be begun, threads of Orbax would hold it for five minutes more.
    """
    if code == 0:
        sys.exit()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    restart_with_huge_pages()
    _leave(main())
