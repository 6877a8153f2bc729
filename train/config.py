"""What a run is made of, and every check on user input that needs no data.

`FitConfig` is what decides the numbers of a run; it is saved with the run and has to be the same
when the run is resumed. `RunOptions` is where and on what the run happens.
"""

import dataclasses
import json
import math
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import capsjax
from train.data import list_datasets
from train.data.feed import FeedKind
from train.errors import UserError

DTYPES = ("float32", "bfloat16", "float64")


def setting(default: Any, text: str, choices: tuple[str, ...] | None = None) -> Any:
    """A field of a configuration, with the help text of its command-line option."""
    kinds = {"default_factory": default} if callable(default) else {"default": default}
    return dataclasses.field(**kinds, metadata={"help": text, "choices": choices})  # type: ignore[call-overload]


@dataclass(frozen=True)
class FitConfig:
    """Everything that decides the numbers of a training run.

    Raises:
        UserError: on a value out of its range or a name that does not exist.
    """

    preset: str = setting("digits", "recipe that the other values come from")
    dataset: str = setting("digits", "data set to train and test on", list_datasets())
    max_shift: int = setting(0, "training images are shifted by up to this many pixels")
    model: str = setting("capsnet", "network to train", tuple(capsjax.list_models()))
    model_sizes: dict[str, Any] = setting(dict, "sizes that differ from the published ones")
    routing: str = setting("dynamic", "routing algorithm", tuple(capsjax.list_routings()))
    routing_iterations: int = setting(3, "routing iterations")
    dtype: str = setting("float32", "dtype of the computation", DTYPES)
    param_dtype: str = setting("float32", "dtype of the parameters", DTYPES)
    reconstruction_weight: float = setting(
        0.0005, "weight of the summed squared reconstruction error in the loss"
    )
    batch_size: int = setting(128, "images in a step, over all devices")
    epochs: float = setting(10.0, "passes over the training set")
    steps: int | None = setting(None, "training steps, instead of epochs")
    learning_rate: float = setting(0.001, "Adam's learning rate at the start")
    decay_rate: float = setting(0.96, "factor on the learning rate every --decay-steps steps")
    decay_steps: int = setting(2000, "steps in which the learning rate falls by --decay-rate")
    seed: int = setting(0, "decides initial values, order of the data and augmentation")
    log_every: int = setting(10, "steps between two lines of metrics")
    evaluate_every: int | None = setting(None, "steps between two evaluations, an epoch if not set")
    checkpoint_every: int = setting(200, "steps between two checkpoints")

    def __post_init__(self) -> None:
        """Checks every value that can be checked without the data."""
        for field in dataclasses.fields(self):
            choices, value = field.metadata["choices"], getattr(self, field.name)
            if choices and value not in choices:
                raise UserError(
                    f"unknown {field.name.replace('_', ' ')} {value!r}, "
                    f"choose from: {', '.join(choices)}."
                )
        positive = (
            "routing_iterations",
            "batch_size",
            "epochs",
            "steps",
            "learning_rate",
            "decay_rate",
            "decay_steps",
            "log_every",
            "evaluate_every",
            "checkpoint_every",
        )
        not_negative = ("seed", "max_shift", "reconstruction_weight")
        for name in (*positive, *not_negative):
            value = getattr(self, name)
            if value is None:
                continue
            too_small = value < 0 if name in not_negative else value <= 0
            if too_small or not math.isfinite(value):
                bound = "0 or more" if name in not_negative else "more than 0"
                raise UserError(f"--{name.replace('_', '-')} is {value}, but must be {bound}.")

    def total_steps(self, training_examples: int) -> int:
        """Length of the run: `steps`, or the steps in which `epochs` epochs have been seen."""
        if self.steps is not None:
            return self.steps
        return max(1, math.ceil(self.epochs * training_examples / self.batch_size))

    def evaluation_interval(self, training_examples: int) -> int:
        """Steps between two evaluations."""
        return self.evaluate_every or math.ceil(training_examples / self.batch_size)


@dataclass(frozen=True)
class RunOptions:
    """Where a run happens and on what; none of it changes a number of the run."""

    out: Path
    data_dir: Path | None = None
    cache_dir: Path | None = None
    feed: FeedKind = "auto"
    devices: int | None = None
    resume: bool = False
    overwrite: bool = False


# How long a run is and how often it looks up are no part of what a training step computes.
MAY_CHANGE_ON_RESUME = frozenset(
    {"steps", "epochs", "log_every", "evaluate_every", "checkpoint_every"}
)


def differences(saved: FitConfig, wanted: FitConfig) -> list[str]:
    """The fields in which a run cannot be resumed, each with the saved and the wanted value."""
    return [
        f"{field.name} (was {getattr(saved, field.name)!r}, now {getattr(wanted, field.name)!r})"
        for field in dataclasses.fields(FitConfig)
        if field.name not in MAY_CHANGE_ON_RESUME
        and getattr(saved, field.name) != getattr(wanted, field.name)
    ]


def to_json(config: FitConfig) -> str:
    """A configuration as the text of `config.json`."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str, path: Path) -> FitConfig:
    """Reads the text of a `config.json`.

    Args:
        text: the file's content.
        path: the file, for the error message.

    Raises:
        UserError: if it is not JSON, or a field is unknown, missing or of the wrong type.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): is this a run folder?") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no configuration: expected a JSON object.")
    fields = {field.name: field for field in dataclasses.fields(FitConfig)}
    if wrong := sorted(fields.keys() ^ values.keys()):
        raise UserError(f"{path} has missing or unknown fields: {', '.join(wrong)}.")
    for name, value in values.items():
        expected = allowed_types(FitConfig, name)
        accepted = (*expected, int) if float in expected else expected
        if isinstance(value, bool) or not isinstance(value, accepted):
            raise UserError(f"{path} has {name} = {value!r}, which is of the wrong type.")
    sizes = {k: tuple(v) if isinstance(v, list) else v for k, v in values["model_sizes"].items()}
    return FitConfig(**{**values, "model_sizes": sizes})


def allowed_types(config: type, name: str) -> tuple[type, ...]:
    """The plain types of a field's annotation: `int | None` gives `(int, NoneType)`."""
    annotation = typing.get_type_hints(config)[name]
    members = (
        typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    )
    return tuple(typing.get_origin(member) or member for member in members)
