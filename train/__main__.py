"""The command line: `python -m train fit|evaluate|predict|...`."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from train.cli.config_options import config_changes
from train.cli.options import build_parser
from train.config.setting import option
from train.system.errors import CommandError, PreemptedError, UserError
from train.system.huge_pages import restart_with_huge_pages


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0, or that of the `CommandError` that ended it."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        options = build_parser().parse_args(arguments)
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
        from train.distributed import processes

        if not processes.is_first():
            return error.exit_code
    print(text, file=sys.stderr)
    return error.exit_code


# Each command imports what it needs: JAX takes a second, which `--help` can do without.


def _fit(options) -> None:  # type: ignore[no-untyped-def]
    from train.distributed import processes
    from train.loop.loop import fit
    from train.system.caches import keep_compiled_programs

    place = processes.ProcessSpec(options.coordinator, options.processes, options.process_index)
    if options.distributed:
        processes.join(place)
    elif place != processes.ProcessSpec():
        raise UserError(
            "--coordinator, --processes and --process-index say where a process stands among "
            "others: give --distributed too."
        )
    with processes.all_or_none():
        _trust(options)
        config, out = _what_to_fit(options)
    keep_compiled_programs()
    with processes.ending_all():
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
    if not processes.is_first():
        return
    print(
        f"{out}: test accuracy {summary['test.accuracy']:.2%} "
        f"(error {summary['test.error_percent']:.2f} %) after {summary['steps']} steps, "
        f"{summary['images_per_second']:.0f} images/s, {summary['wall_seconds']:.0f} s"
    )


def _trust(options, runs=()) -> None:  # type: ignore[no-untyped-def]
    """Loads the routing of the user's own that the command line names, if it names one.

    Raises:
        UserError: there are runs, none of which was trained with it; or it cannot be loaded.
    """
    from train.learn.own_routing import trust
    from train.run.folder import load_run

    if runs and options.routing is not None:
        trained = sorted({load_run(run).config.model.routing for run in runs})
        if options.routing not in trained:
            raise UserError(
                f"--routing is {options.routing}, but {' and '.join(map(str, runs))} was trained "
                f"with {' and '.join(trained)}: leave it out, or name that, if it is your own."
            )
    trust(options.routing)


def _what_to_fit(options):  # type: ignore[no-untyped-def]
    """The configuration and the folder of a run."""
    from train.learn.network import require_room
    from train.presets import get_preset, list_presets
    from train.run.folder import load_run

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
    from train.distributed.launcher import launch

    command = options.fit[1:] if options.fit[:1] == ["--"] else options.fit
    if command[:1] != ["fit"]:
        raise UserError("launch starts a fit: end with `-- fit PRESET ...`.")
    build_parser().parse_args(command)  # what is wrong with it is told once, before all starts
    return launch(options.processes, command, options.devices_per_process)


def _evaluate(options) -> None:  # type: ignore[no-untyped-def]
    from train.report.evaluate import evaluate
    from train.system.caches import keep_compiled_programs

    keep_compiled_programs()
    _trust(options, options.runs)
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
    from train.report.ensemble import evaluate_together

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
    from train.report.predict import predict
    from train.system.caches import keep_compiled_programs

    keep_compiled_programs()
    _trust(options, [options.run])
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
    from train.bench.runner import run
    from train.presets import get_preset

    _trust(options)
    run(config_changes(get_preset(options.preset), options), options)


def _compare(options, arguments) -> None:  # type: ignore[no-untyped-def]
    from train.study.compare.runner import run
    from train.system.caches import keep_compiled_programs

    keep_compiled_programs()
    run(options, arguments)


def _show(options) -> None:  # type: ignore[no-untyped-def]
    from train.report.contact_sheet import show

    show(
        options.dataset,
        out=options.out,
        split=options.split,
        count=options.count,
        data_dir=options.data_dir,
    )
    print(options.out)


def _claims(options, arguments) -> None:  # type: ignore[no-untyped-def]
    from train.study.claims.runner import run
    from train.system.caches import keep_compiled_programs

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
