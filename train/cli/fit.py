"""`fit`: trains a network by a recipe.

The options here say where and on what; those that decide the numbers are the settings in
`train/config/settings.py`.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from train.options.command import argument, option, settings
from train.options.shared import DataDir, Devices, Recorded
from train.options.values import positive
from train.system.errors import UserError

if TYPE_CHECKING:
    from train.config.fit_config import FitConfig
    from train.data import Dataset

PROCESSES = "several processes, on one host or on many"


@dataclass(kw_only=True)
class Fit(DataDir, Devices, Recorded):
    """Train a network by a recipe.

    Trains a network by a recipe (`python -m train presets` lists them) and leaves a run folder with
    its configuration, metrics, checkpoints, figures and result.
    """

    epilog = (
        "Exit codes: 0, trained; 2, bad input, or a folder that cannot be written; 3, given up, "
        "since loss or gradient were not finite in too many steps in a row; 75, asked to stop by "
        "SIGTERM or Ctrl-C, with a checkpoint from which the same command with --resume goes on "
        "bit for bit."
    )

    preset: str | None = argument(
        "name of the recipe; with --dataset it may be left out, and a fitting one is taken, with "
        "--resume too, and the run's own configuration counts",
        metavar="PRESET",
        default=None,
    )
    out: Path | None = option(
        None, "folder of the run (default: runs/PRESET, or of that of the data)"
    )
    feed: Literal["auto", "resident", "streaming"] = option(
        "auto",
        "keep the training images on the devices, or stream them there (default: auto, on the "
        "devices where they fit)",
    )
    steps_per_dispatch: int | None = option(
        None,
        "the most steps that the devices are told to take at once, no more than 16, which changes "
        "the speed and no result (default: 4 on a CPU, else 16)",
        metavar="N",
        parse=positive,
    )
    profile: int | None = option(
        None,
        "record N steps, or some more where several are sent at once, after the first that are "
        "sent, in the run's folder `profile`, which TensorBoard shows",
        metavar="N",
        parse=positive,
    )
    resume: bool = option(False, "go on with the run in --out, if there is one", instead="present")
    overwrite: bool = option(False, "replace the run in --out, if there is one", instead="present")
    distributed: bool = option(
        False,
        "train with the other processes that were started with this command; on Slurm, Open MPI, "
        "Kubernetes and Cloud TPU they find each other",
        group=PROCESSES,
    )
    coordinator: str | None = option(
        None,
        "where process 0 listens (default: $JAX_COORDINATOR_ADDRESS)",
        metavar="HOST:PORT",
        group=PROCESSES,
    )
    processes: int | None = option(
        None, "how many (default: $JAX_NUM_PROCESSES)", metavar="N", group=PROCESSES
    )
    process_index: int | None = option(
        None,
        "the number of this one, from 0 (default: $JAX_PROCESS_ID)",
        metavar="I",
        group=PROCESSES,
    )
    settings: dict[str, Any] = settings()

    @property
    def folder(self) -> Path | None:
        """The folder of the run; None if nothing that names it was given."""
        if self.out or self.preset:
            return self.out or Path("runs", self.preset or "")
        if "dataset" not in self.settings:
            return None
        from train.data import as_file_name

        kind, _, where = self.settings["dataset"].partition(":")
        return Path("runs", as_file_name(Path(where).name or kind))

    def run(self) -> int:
        """Trains, and prints the result."""
        if self.preset and not self.distributed:  # where all processes say together what is wrong
            self._recipe(self.preset)  # before JAX is imported, which takes seconds

        from train.distributed import processes
        from train.learn.network import require_used
        from train.learn.user_routing import trust
        from train.loop.loop import fit
        from train.report.class_table import NOT_FINITE
        from train.run.folder import CONFIG, load_run
        from train.system.caches import keep_compiled_programs

        place = (self.coordinator, self.processes, self.process_index)
        if self.distributed:
            processes.join(*place)
        elif place != (None, None, None):
            raise UserError(
                "--coordinator, --processes and --process-index say where a process stands among "
                "others: give --distributed too."
            )
        dataset = None
        with processes.all_or_none():
            trust(self.settings.get("routing"))
            goes_on = self.resume and self.folder is not None and (self.folder / CONFIG).exists()
            if not self.preset and not goes_on and "dataset" in self.settings:
                dataset = self._take_fitting_preset()
            config, out = self._config_and_out()
            require_used(self.settings, [config.model])
            self.reserve(f"fit-{out.resolve().name}", "fit", config.flat())
        keep_compiled_programs()
        with processes.ending_all():
            summary = fit(
                config,
                out=out,
                data_dir=self.data_dir,
                dataset=dataset,
                feed_kind=self.feed,
                devices=self.devices,
                resume=self.resume,
                overwrite=self.overwrite,
                steps_per_dispatch=self.steps_per_dispatch,
                profile=self.profile,
            )
        if processes.is_first():
            print(
                f"{out}: test accuracy {summary['test.accuracy']:.2%} "
                f"(error {summary['test.error_percent']:.2f} %) after {summary['steps']} steps, "
                f"{summary['images_per_second']:.0f} images/s, {summary['wall_seconds']:.0f} s"
            )
            if summary.get("test.loss", 0) is None:
                print(NOT_FINITE)
            trained = load_run(out).config  # of one that had ended, its own
            values = {"kind": "fit", "config": trained.flat(), "summary": summary}
            self.keep(f"fit-{out.resolve().name}", values)
        return 0

    def _recipe(self, name: str) -> "FitConfig":
        from train.options.recipe import with_settings
        from train.presets import get_preset

        return with_settings(get_preset(name), self.settings)

    def _take_fitting_preset(self) -> "Dataset":
        """Takes the recipe for the data set that is named, and tells which; returns that set.

        Of few images the batches are smaller than the recipe's, so that there are four in an epoch.
        """
        import jax

        from train.config.settings import DataConfig
        from train.data import hold_out
        from train.data.formats.images import as_text
        from train.distributed import processes
        from train.presets import fitting_preset

        own = {"dataset", "image_axes", "labels_from"} & self.settings.keys()
        data = DataConfig(**{name: self.settings[name] for name in own})
        dataset = data.load(self.data_dir)
        self.out = self.folder
        self.preset = fitting_preset(data.dataset, dataset.image_shape)
        recipe = self._recipe(self.preset)
        count = len(hold_out(dataset, recipe.data.validation).train)
        smaller = ""
        if "batch_size" not in self.settings and recipe.schedule.batch_size > count:
            devices = (self.devices or jax.local_device_count()) * jax.process_count()
            on_each = max(1, count // (4 * devices))
            self.settings["batch_size"] = devices << (on_each.bit_length() - 1)
            smaller = f" in batches of {self.settings['batch_size']}"
        if processes.is_first():
            print(
                f"note: no recipe is named, so {self.preset} is taken{smaller}, which suits images "
                f"of {as_text(dataset.image_shape)}; `python -m train presets` lists all",
                file=sys.stderr,
            )
        return dataset

    def _config_and_out(self) -> "tuple[FitConfig, Path]":
        """What is trained, and the folder of the run."""
        from train.learn.network import require_room
        from train.options.recipe import with_settings
        from train.presets import list_presets
        from train.run.folder import load_run

        out = self.folder
        if self.preset and out:
            return self._recipe(self.preset), out
        if self.resume and out:
            run = load_run(out)
            require_room(run.config, run.image_shape, run.num_classes)
            return with_settings(run.config, self.settings), out
        raise UserError(
            f"fit needs the name of a recipe, one of: {', '.join(list_presets())}; only --dataset, "
            "and --resume with --out, go without."
        )
