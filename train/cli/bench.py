"""`bench`: measures what training costs."""

from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

from train.config.checked import flag
from train.options.command import argument, option, settings
from train.options.shared import DataDir, Devices, Recorded
from train.options.values import list_of, new_file, positive, seconds, size_in_bytes
from train.system.errors import UserError

SWEEP = "what to compare (lists; all combinations are measured)"
INSTEAD = "what to measure instead"
GROWN = {"batch": "batch_sizes", "iterations": "iterations", "capsules": "primary_types"}
"""The list whose quantity grows."""
LISTS = {
    "model": "models",
    "batch_size": "batch_sizes",
    "dtype": "dtypes",
    "routing_iterations": "iterations",
}
"""Settings, and the lists that have several of them."""
NO_OPTIONS = (
    *("validation", "test_examples", "stop_at_accuracy", "patience"),
    *("log_every", "evaluate_every", "checkpoint_every", "init_from", "freeze"),
)
"""The settings of what comes before, beside and after training."""


@dataclass(kw_only=True)
class Bench(DataDir, Devices, Recorded):
    """Measure what training costs.

    Measures the training step of a recipe: images a second, memory, of a CapsNet the split
    between its parts, and the share of what the machine can do; and how they grow.
    """

    preset: str = argument("recipe (default: digits)", metavar="PRESET", default="digits")
    models: list[str] | None = option(
        None,
        "networks; unless --routing is given, others than the recipe's with the routing that they "
        "were published with",
        metavar="NAME,...",
        parse=list_of(str),
        group=SWEEP,
    )
    batch_sizes: list[int] | None = option(
        None, "images in a step", metavar="N,N,...", parse=list_of(positive), group=SWEEP
    )
    dtypes: list[str] | None = option(
        None, "such as float32", metavar="NAME,...", parse=list_of(str), group=SWEEP
    )
    iterations: list[int] | None = option(
        None, "routing iterations", metavar="N,N,...", parse=list_of(positive), group=SWEEP
    )
    implementations: list[str] | None = option(
        None,
        "the model's option routing_implementation; 'none' leaves the choice to the library",
        metavar="NAME,...",
        parse=list_of(str),
        group=SWEEP,
    )
    primary_types: list[int] | None = option(
        None,
        "types of primary capsules, which decide how many there are",
        metavar="N,N,...",
        parse=list_of(positive),
        group=SWEEP,
    )
    grow: list[Literal["batch", "iterations", "capsules"]] = option(
        [],
        "how cost grows, one quantity at a time: batch 1, 2, 4, ... to the largest that fits, "
        "iterations 1 to 5, primary capsules of 8 to 128 types",
        metavar="batch|iterations|capsules",
        group=SWEEP,
    )
    forward: bool = option(
        False,
        "the forward pass on one device, of the lists above; if nothing else is said at batch 1, "
        "4, 16, ... 4,096",
        group=INSTEAD,
        instead="measured",
    )
    start: bool = option(
        False,
        "the time from the command to its first line of metrics, nothing compiled before",
        group=INSTEAD,
        instead="measured",
    )
    feed: bool = option(
        False,
        "images a second of the data feeds, without training",
        group=INSTEAD,
        instead="measured",
    )
    predict_memory: int | None = option(
        None,
        "the largest batch whose step fits in so much memory of a device, such as 16GB",
        metavar="BYTES",
        parse=size_in_bytes,
        group=INSTEAD,
        instead="measured",
    )
    scaling: bool = option(
        False,
        "weak and strong scaling over the devices present: with --batch-size images on each, and "
        "with as many on all of them",
        group=INSTEAD,
        instead="measured",
    )
    repetitions: int = option(5, "rounds", metavar="N", parse=positive)
    seconds: float = option(0.5, "about how long a round is", metavar="S", parse=seconds)
    json: Path | None = option(None, "write the figures there", metavar="FILE", parse=new_file)
    plot: Path | None = option(
        None, "draw them into this folder; of training and --scaling", metavar="DIR"
    )
    settings: dict[str, Any] = settings(leave_out=NO_OPTIONS)

    def run(self) -> int:
        """Measures, prints what was found, and writes what was asked for."""
        from train.options.recipe import with_settings
        from train.presets import get_preset

        # What is wrong with them is told before JAX is imported, which takes seconds.
        self._refuse_unheeded()
        preset = get_preset(self.preset)
        of_each = [self.settings | {"model": name} for name in dict.fromkeys(self.models or ())]
        settings = of_each or [self.settings]
        configs = [with_settings(preset, given) for given in settings]
        from train.bench.benchmark import Benchmark
        from train.bench.timing import Rounds
        from train.learn.network import require_iterations
        from train.learn.user_routing import trust

        trust(self.settings.get("routing"))
        for name, is_given in {
            "--iterations": self.iterations,
            "--grow iterations": "iterations" in self.grow,
            "--routing-iterations": "routing_iterations" in self.settings,
        }.items():
            for config in configs if is_given else ():
                require_iterations(config.model, name)
        rounds = Rounds(self.repetitions, self.seconds)
        benchmark = Benchmark(*configs, data_dir=self.data_dir, devices=self.devices, rounds=rounds)
        varied = {
            "batch_size": self.batch_sizes,
            "dtype": self.dtypes,
            "iterations": self.iterations,
            "implementation": self.implementations,
            "primary_types": self.primary_types,
        }
        if self.forward:
            if "batch_size" in self.settings:
                varied["batch_size"] = [self.settings["batch_size"]]
            report = benchmark.forward(varied)
        elif self.start:
            report = benchmark.start(
                [partial(_fit, self.preset, s, self.data_dir, self.devices) for s in settings],
                "train.loop.loop",
                self.data_dir,
            )
        elif self.feed:
            report = benchmark.feeds()
        elif self.predict_memory is not None:
            report = benchmark.memory(self.predict_memory)
        elif self.scaling:
            report = benchmark.scaling()
        else:
            report = benchmark.training(varied, self.grow)
        report.deliver(json=self.json, plot=self.plot)
        self.keep("bench", {"kind": "bench", "text": report.text, **report.values})
        return 0

    def _refuse_unheeded(self) -> None:
        """Raises `UserError` where a list is given of what is measured otherwise.

        So it does where one value is given beside a list of them, where figures are wanted of what
        has none, and where devices are counted of what runs on one.
        """
        grown = {GROWN[quantity]: f"--grow {quantity}" for quantity in self.grow}
        for setting, name in LISTS.items():
            several = flag(name) if getattr(self, name) else grown.get(name)
            if setting in self.settings and several:
                raise UserError(
                    f"{flag(setting)} is one value, but {several} has several: leave "
                    "one of them out."
                )
        if self.forward and self.devices is not None:
            raise UserError("--forward is measured on one device: leave --devices out.")
        for quantity in self.grow:
            if getattr(self, GROWN[quantity]):
                raise UserError(
                    f"{flag(GROWN[quantity])} is a list, but --grow {quantity} measures one of its "
                    "own: leave one of them out."
                )
        lists = [field.name for field in fields(self) if field.metadata.get("group") == SWEEP]
        heeded = {"forward": {*lists} - {"grow"}, "start": {"models"}, "scaling": {"plot"}}
        for instead in ("forward", "start", "feed", "predict_memory", "scaling"):
            if getattr(self, instead) in (None, False):
                continue
            given = [name for name in (*lists, "plot") if getattr(self, name)]
            refused = [name for name in given if name not in heeded.get(instead, ())]
            if refused:
                raise UserError(
                    f"{flag(refused[0])} is not for {flag(instead)}: leave one of them out."
                )


def _fit(
    preset: str, settings: dict[str, Any], data_dir: Path | None, devices: int | None, out: Path
) -> None:
    """What `python -m train fit` does, with a line of metrics for each step."""
    from train.cli.fit import Fit

    own = {**settings, "log_every": 1}
    Fit(preset=preset, settings=own, data_dir=data_dir, devices=devices, out=out).run()
