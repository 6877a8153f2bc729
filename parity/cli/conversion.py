"""The commands `import` and `export` of `python -m parity`."""

import argparse
from pathlib import Path

from parity.layouts import builtin_layouts
from train.cli.config_options import add_config_options, config_changes


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Adds the commands to a parser; their options are given to `run_import` and `run_export`."""
    layouts = ", ".join(f"{layout.name} ({layout.about})" for layout in builtin_layouts())
    epilog = f"Layouts: {layouts}."
    weights = commands.add_parser(
        "import",
        help="make a run of a file of PyTorch weights",
        description="Makes a run of a file of weights (.pt, .pth, .safetensors, or .h5 of Keras) "
        "that computes what the PyTorch network computes; `python -m train` evaluate, predict and "
        "fit --resume take it.",
        epilog=epilog,
    )
    weights.add_argument("weights", metavar="WEIGHTS", type=Path, help="the file of weights")
    _add_layout(weights, "a name, the path of a TOML file, or auto (the default)", default="auto")
    weights.add_argument("--out", type=Path, required=True, help="folder of the run")
    weights.add_argument(
        "--overwrite", action="store_true", help="replace the run in --out, if there is one"
    )
    add_config_options(weights)

    export = commands.add_parser(
        "export",
        help="write the weights of a run for PyTorch",
        description="Writes the weights of a run as a PyTorch network has them, so that its "
        "load_state_dict(..., strict=True) takes them; refuses where that network would compute "
        "something else.",
        epilog=epilog,
    )
    export.add_argument("run", metavar="RUN", type=Path, help="folder of a run")
    _add_layout(export, "a name, or the path of a TOML file", required=True)
    export.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        required=True,
        help="the file; its suffix says which kind: .pt, .pth, .safetensors or, for Keras, .h5",
    )
    export.add_argument(
        "--checkpoint",
        choices=("last", "best"),
        default="last",
        help="the newest one, or the one with the highest test accuracy (default: last)",
    )
    export.add_argument("--overwrite", action="store_true", help="replace FILE, if there is one")
    export.add_argument(
        "--force",
        action="store_true",
        help="write the weights even if the layout's network computes something else with them",
    )


def _add_layout(parser: argparse.ArgumentParser, what: str, **keywords: object) -> None:
    parser.add_argument(
        "--layout",
        metavar="NAME|FILE",
        help=f"what the PyTorch network calls its tensors: {what}",
        **keywords,  # type: ignore[arg-type]
    )


# JAX and PyTorch take seconds, which `--help` can do without.


def run_import(options: argparse.Namespace) -> int:
    """`import`: makes the run and says what it is; returns the exit code.

    Raises:
        UserError: on bad input.
    """
    from parity.layouts.importing import import_weights

    imported = import_weights(
        options.weights,
        layout=options.layout,
        out=options.out,
        dataset=options.dataset,
        change=lambda config: config_changes(config, options),
        overwrite=options.overwrite,
    )
    run = imported.run
    images = "x".join(map(str, run.image_shape))
    print(
        f"{run.folder}: {imported.parameters:,} parameters of {options.weights} as the layout "
        f"{imported.layout.name}, for {images} images in {run.num_classes} classes "
        f"({run.config.data.dataset})"
    )
    for dtype, count in imported.casts.items():
        print(f"note: {count} tensors of {dtype} were converted to {run.config.model.param_dtype}")
    if imported.others and options.dataset is None:
        print(f"note: {', '.join(imported.others)} would fit, too: --dataset says which it is for")
    return 0


def run_export(options: argparse.Namespace) -> int:
    """`export`: writes the file and says what is in it; returns the exit code.

    Raises:
        UserError: on bad input.
    """
    from parity.layouts.exporting import export_run

    exported = export_run(
        options.run,
        layout=options.layout,
        out=options.out,
        which=options.checkpoint,
        overwrite=options.overwrite,
        force=options.force,
    )
    print(
        f"{options.out}: {exported.tensors} tensors, {exported.parameters:,} parameters of "
        f"{options.run} at step {exported.step}, as the layout {exported.layout.name}"
    )
    for difference in exported.differences:
        print(f"note: the run computes something else in {difference}")
    return 0
