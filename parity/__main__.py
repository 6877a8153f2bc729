"""The command line: `python -m parity check|import|export|bench|gpu-report`."""

import operator
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from parity.bench.gpu.options import add_report_options
from parity.bench.options import add_bench_options
from parity.cli.against import add_against_options, refuse_without_module
from parity.cli.conversion import add_commands, run_export, run_import
from train.cli.config_options import UserErrorParser
from train.system.errors import UserError
from train.system.huge_pages import restart_with_huge_pages
from train.system.progress import each


def _parser() -> UserErrorParser:
    parser = UserErrorParser(
        prog="python -m parity",
        description="Proves that capsjax computes what PyTorch capsule networks compute.",
        epilog="`python -m parity COMMAND --help` explains a command.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    check = commands.add_parser(
        "check",
        help="compare every number of two networks with the same weights",
        description="Gives a PyTorch CapsNet and capsjax the same weights and inputs, compares "
        "every intermediate, loss, gradient and 20 steps of training, and names the first stage "
        "that parts. Exits with 0 if everything agrees, 1 if something does not, 2 on bad input.",
    )
    check.add_argument("--x64", action="store_true", help="compute in float64 (default: float32)")
    check.add_argument(
        "--layout",
        metavar="NAME",
        help="the PyTorch implementation to compare with (default: reference, the paper's); with "
        "--against what its weights are called, a name, a TOML file or auto (default: auto)",
    )
    check.add_argument(
        "--routing",
        metavar="NAME",
        help="compare CapsNet with this routing instead, a name of capsjax.list_routings()",
    )
    check.add_argument(
        "--model", metavar="NAME", help="compare this network, a name of capsjax.list_models()"
    )
    check.add_argument(
        "--all",
        action="store_true",
        help="compare every routing and every model, in float32 and in float64",
    )
    check.add_argument(
        "--sizes",
        choices=("tiny", "paper"),
        help="a tiny network, or one of the paper's sizes (default: both)",
    )
    check.add_argument(
        "--data-dir",
        metavar="DIR",
        type=Path,
        help="folder with MNIST's official files (default: the digits of scikit-learn)",
    )
    check.add_argument("--seed", type=int, default=0, help="of weights and images (default: 0)")
    check.add_argument("--json", metavar="FILE", type=Path, help="write the result as JSON")
    check.add_argument(
        "--report", metavar="DIR", type=Path, help="write report.md and its figures there"
    )
    check.add_argument(
        "--verbose", action="store_true", help="print every case, not the worst of each stage"
    )
    add_against_options(check)
    add_commands(commands)
    bench = commands.add_parser(
        "bench",
        help="time capsjax and PyTorch at the same work",
        description="Times a training step and a forward pass of the paper's CapsNet in capsjax "
        "and in PyTorch: in one run, in turns, each in a process of its own on the same cores.",
    )
    add_bench_options(bench)
    report = commands.add_parser(
        "gpu-report",
        help="measure all that needs an accelerator, and write one report",
        description="Measures training, PyTorch beside it, routing, memory, parity and a run of "
        "MNIST's recipe on the device, each within its share of the time, and writes report.json "
        "and report.md after each part. Exits with 1 if a part failed, which the report tells.",
    )
    add_report_options(report)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0, 1 where parity fails, or 2 for bad input."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        options = _parser().parse_args(arguments)
        commands = {
            "check": _check,
            "bench": _bench,
            "gpu-report": lambda options: _gpu_report(options, arguments),
            "import": run_import,
            "export": run_export,
        }
        return commands[options.command](options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


# Each command imports what it needs: JAX and PyTorch take seconds, which `--help` can do without.


def _bench(options) -> int:  # type: ignore[no-untyped-def]
    from parity.bench.runner import run

    run(options)
    return 0


def _gpu_report(options, arguments) -> int:  # type: ignore[no-untyped-def]
    from parity.bench.gpu.runner import run

    return run(options, arguments)


def _check(options) -> int:  # type: ignore[no-untyped-def]
    from parity.check import report
    from train.system.caches import keep_compiled_programs

    keep_compiled_programs()
    refuse_without_module(options)
    if options.seed < 0:
        raise UserError(f"--seed is {options.seed}, but must be 0 or more.")
    report.require_writable(options.json, options.report)
    if options.against is not None:
        from parity.against import comparing

        return comparing.run(options)

    def progress(jobs: Iterator, total: int) -> Iterator:
        return each(jobs, total, operator.itemgetter(0))

    _refuse_two_of(options)
    if options.all:
        return _check_all(options, progress)
    if options.routing is not None or options.model is not None:
        from parity.check.family import check_subject, find_subject

        subject = find_subject(options.routing, options.model)
        result = check_subject(
            subject, x64=options.x64, data_dir=options.data_dir, seed=options.seed
        )
    else:
        result = _check_layout(options, progress)
    print(report.table(result, verbose=options.verbose))
    print(report.verdict(result))
    if options.json is not None:
        report.write_json(options.json, result)
    if options.report is not None:
        report.write_report(options.report, result)
    return 0 if result.passed else 1


def _refuse_two_of(options) -> None:  # type: ignore[no-untyped-def]
    """Refuses options that contradict one another."""
    what = [name for name in ("all", "routing", "model", "layout") if getattr(options, name)]
    if len(what) > 1:
        raise UserError(f"--{what[0]} and --{what[1]} both say what to compare: give one of them.")
    if what and what[0] != "layout" and options.sizes is not None:
        raise UserError(f"--{what[0]} compares tiny networks: leave --sizes out.")
    if options.all and (options.x64 or options.report is not None):
        option = "--x64" if options.x64 else "--report"
        raise UserError(f"--all compares everything in both precisions: leave {option} out.")


def _check_layout(options, progress):  # type: ignore[no-untyped-def]
    """Compares with the paper's CapsNet, in every size, or with a public implementation."""
    from parity.check import cases
    from parity.check.family import check_subject, layout_subject
    from parity.check.pairs import PAIRS, SIZES
    from parity.reference import OTHERS

    layout = options.layout or "reference"
    if layout not in {*PAIRS, *OTHERS}:
        known = ", ".join(sorted({*PAIRS, *OTHERS}))
        raise UserError(f"there is no layout {layout!r}: choose one of {known}.")
    if layout in OTHERS:
        if options.sizes is not None:
            raise UserError(f"--layout {layout} compares tiny networks: leave --sizes out.")
        return check_subject(
            layout_subject(layout), x64=options.x64, data_dir=options.data_dir, seed=options.seed
        )
    return cases.check(
        layout=layout,
        sizes=tuple(SIZES) if options.sizes is None else (options.sizes,),
        x64=options.x64,
        data_dir=options.data_dir,
        seed=options.seed,
        progress=progress,
    )


def _check_all(options, progress) -> int:  # type: ignore[no-untyped-def]
    from parity.check import report
    from parity.check.family import check_all

    results = check_all(data_dir=options.data_dir, seed=options.seed, progress=progress)
    print(report.summary(results))
    if options.json is not None:
        report.write_json(options.json, results)
    return 0 if all(result.passed for of_name in results.values() for result in of_name) else 1


if __name__ == "__main__":
    restart_with_huge_pages()
    sys.exit(main())
