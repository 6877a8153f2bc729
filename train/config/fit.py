"""What a run is made of, and every check on user input that needs no data.

`FitConfig` is what decides the numbers of a run; it is saved with the run and has to be the same
when the run is resumed. Where and on what a run happens is no part of it.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import capsjax
from train.data import is_dataset, list_datasets
from train.system.errors import UserError

DTYPES = ("float32", "bfloat16", "float64")
MASKS = ("label", "longest")
LOSSES = ("margin", "spread", "cross_entropy", "sigmoid_cross_entropy")


OPTIMIZERS = ("adam", "adamw", "lamb", "lars", "muon")
SCHEDULES = ("exponential", "cosine", "constant")
SCALINGS = ("none", "linear", "sqrt")

FILE_SEPARATOR = ".py:"
"""In the place of a name: a file of the user's, and what in it."""

POSITIVE = "more than 0"
NOT_NEGATIVE = "0 or more"
BETWEEN = "more than 0 and less than 1"
SHARE = "from 0 to 1"
_HOLDS: dict[str, Callable[[Any], bool]] = {
    POSITIVE: lambda value: value > 0,
    NOT_NEGATIVE: lambda value: value >= 0,
    BETWEEN: lambda value: 0 < value < 1,
    SHARE: lambda value: 0 <= value <= 1,
}


def setting(
    default: Any,
    text: str,
    choices: tuple[str, ...] | None = None,
    bound: str | None = None,
    *,
    also: Callable[[str], bool] | None = None,
) -> Any:
    """A field of a configuration, with the help text of its command-line option.

    Args:
        default: its value, or what makes it.
        text: the help text.
        choices: the names that it may have.
        bound: what a number has to be, of `_HOLDS`.
        also: tells which names are a choice beside those listed.
    """
    metadata = {"help": text, "choices": choices, "bound": bound, "also": also}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class FitConfig:
    """Everything that decides the numbers of a training run.

    Raises:
        UserError: on a value out of its range or a name that does not exist.
    """

    preset: str = setting("digits", "recipe that the other values come from")
    dataset: str = setting(
        "digits",
        "data set to train and test on; docs/datasets.md tells what each needs",
        list_datasets(),
        also=is_dataset,
    )
    input_mean: float = setting(0.0, "subtracted from pixels, which are 0 to 1")
    input_std: float = setting(1.0, "what pixels are divided by after that", bound=POSITIVE)
    standardise: bool = setting(
        False, "each image is given mean 0 and variance 1, instead of the two before"
    )
    train_examples: int | None = setting(
        None, "train with the first so many images alone (if not given, all)", bound=POSITIVE
    )
    test_examples: int | None = setting(
        None,
        "measure with the first so many test images alone (if not given, all; of a set that is "
        "made, as many as there are images that it is made of)",
        bound=POSITIVE,
    )
    max_shift: int = setting(
        0, "training images are shifted by up to this many pixels", bound=NOT_NEGATIVE
    )
    crop: int | None = setting(
        None,
        "side of the square that the network sees of an image, anywhere in training, in the middle "
        "in test (if not given, the whole image)",
        bound=POSITIVE,
    )
    max_brightness: float = setting(
        0.0,
        "up to this is added to the pixels of a training image, or taken away, as the network "
        "sees them",
        bound=NOT_NEGATIVE,
    )
    max_contrast: float = setting(
        0.0,
        "by up to this share the pixels of a training image move from their mean, or towards it",
        bound=SHARE,
    )

    model: str = setting("capsnet", "network to train", tuple(capsjax.list_models()))
    model_options: dict[str, Any] = setting(  # noqa: RUF009
        dict, "arguments that differ from the published ones"
    )
    routing: str = setting(
        "dynamic",
        "routing algorithm, or FILE.py:NAME of one of your own, whose code is run",
        tuple(capsjax.list_routings()),
        also=lambda name: FILE_SEPARATOR in name,
    )
    routing_iterations: int = setting(3, "routing iterations", bound=POSITIVE)
    routing_options: dict[str, Any] = setting(dict, "further arguments of the routing")  # noqa: RUF009
    dtype: str = setting("float32", "dtype of the computation", DTYPES)
    param_dtype: str = setting("float32", "dtype of the parameters", DTYPES)

    loss: str = setting("margin", "what tells classes apart", LOSSES)
    spread_steps: int = setting(
        0,
        "steps in which the margin of a spread loss grows from 0.2 to 0.9 (0: always 0.9)",
        bound=NOT_NEGATIVE,
    )
    margin_of: str = setting(
        "length", "the margin loss sees lengths, or their softmax", ("length", "softmax")
    )
    margin_power: int = setting(2, "power of the margin's hinges", bound=POSITIVE)
    margin_weight: float = setting(
        1.0, "weight of the loss that tells classes apart", bound=NOT_NEGATIVE
    )
    reconstruction_weight: float = setting(
        0.0005, "weight of the summed squared reconstruction error", bound=NOT_NEGATIVE
    )
    mask_in_training: str = setting("label", "class whose capsule is decoded in training", MASKS)
    mask_in_test: str = setting("longest", "class whose capsule is decoded in test", MASKS)

    batch_size: int = setting(128, "images in a step, over all devices", bound=POSITIVE)
    epochs: float = setting(10.0, "passes over the training set", bound=POSITIVE)
    steps: int | None = setting(None, "training steps, instead of epochs", bound=POSITIVE)
    stop_at_accuracy: float | None = setting(
        None,
        "share of test images, from 0 to 1: end with the first evaluation that has as many right",
        bound=BETWEEN,
    )
    micro_batches: int = setting(
        1,
        "parts in which a device takes its share of a batch, one after the other, to save memory",
        bound=POSITIVE,
    )
    remat: bool = setting(
        False, "compute what is inside a layer anew for the gradient, to save memory"
    )
    optimizer: str = setting("adam", "what turns gradients into updates", OPTIMIZERS)
    weight_decay: float = setting(
        0.0, "weight decay of all but adam, on matrices only", bound=NOT_NEGATIVE
    )
    clip_norm: float | None = setting(
        None, "longest gradient; a longer one is shortened to it", bound=POSITIVE
    )
    ema_decay: float | None = setting(
        None,
        "share that a moving average of the weights keeps in a step; it is then what is evaluated",
        bound=BETWEEN,
    )
    learning_rate: float = setting(0.001, "learning rate at its highest", bound=POSITIVE)
    lr_scaling: str = setting(
        "none", "how the learning rate grows with the batch, from --base-batch on", SCALINGS
    )
    base_batch: int = setting(
        128, "batch that --learning-rate is for, if it is scaled", bound=POSITIVE
    )
    warmup_steps: int = setting(
        0, "steps in which the learning rate rises from zero", bound=NOT_NEGATIVE
    )
    schedule: str = setting("exponential", "how the learning rate falls after that", SCHEDULES)
    decay_rate: float = setting(
        0.3, "factor on the learning rate every --decay-steps steps, if exponential", bound=POSITIVE
    )
    decay_steps: int | None = setting(
        None,
        "steps in which the learning rate falls by --decay-rate, or to zero on a cosine (if not "
        "given, what the warm-up leaves of the run)",
        bound=POSITIVE,
    )
    max_skipped: int = setting(
        10,
        "updates skipped in a row, because loss or gradient is not finite, that a run bears",
        bound=NOT_NEGATIVE,
    )
    seed: int = setting(
        0, "decides initial values, order of the data and augmentation", bound=NOT_NEGATIVE
    )

    log_every: int = setting(10, "steps between two lines of metrics", bound=POSITIVE)
    evaluate_every: int | None = setting(
        None, "steps between two evaluations (if not given, an epoch)", bound=POSITIVE
    )
    checkpoint_every: int = setting(200, "steps between two checkpoints", bound=POSITIVE)

    def __post_init__(self) -> None:
        """Checks every value that can be checked without the data."""
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))
        if self.standardise and (self.input_mean, self.input_std) != (0, 1):
            raise UserError(
                f"--input-mean is {self.input_mean} and --input-std is {self.input_std}, but with "
                "--standardise each image has its own: leave them out."
            )
        if self.weight_decay and self.optimizer == "adam":
            raise UserError(
                f"--weight-decay is {self.weight_decay}, but adam has none: choose the --optimizer "
                "adamw, lamb, lars or muon."
            )
        if self.micro_batches > 1 and self.routing_options.get("shared_logits"):
            raise UserError(
                f"--micro-batches is {self.micro_batches}, but with shared_logits the examples of "
                "a batch have to be routed together: leave one of the two out."
            )

    def total_steps(self, training_examples: int) -> int:
        """Length of the run: `steps`, or the steps in which `epochs` epochs have been seen."""
        if self.steps is not None:
            return self.steps
        return max(1, math.ceil(self.epochs * training_examples / self.batch_size))

    @property
    def rate_follows_length(self) -> bool:
        """Whether the learning rate depends on how long the run is."""
        return self.schedule != "constant" and self.decay_steps is None

    def evaluation_interval(self, training_examples: int) -> int:
        """Steps between two evaluations."""
        return self.evaluate_every or math.ceil(training_examples / self.batch_size)


def _check(field: dataclasses.Field, value: Any) -> None:
    name, metadata = field.name, field.metadata
    choices, also = metadata["choices"], metadata["also"]
    if choices and value not in choices and not (also and also(value)):
        if name == "routing" and str(value).endswith(".py"):
            raise UserError(f"--routing {value} is a file: name what is in it, {value}:NAME.")
        raise UserError(
            f"unknown {name.replace('_', ' ')} {value!r}, choose from: {', '.join(choices)}."
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{option(name)} is {value}, but must be a finite number.")
    bound = metadata["bound"]
    if bound is None or value is None:
        return
    if not _HOLDS[bound](value):
        raise UserError(f"{option(name)} is {value}, but must be {bound}.")


def option(name: str) -> str:
    """The command-line option of a field."""
    return f"--{name.replace('_', '-')}"


# How often a run looks up is no part of what a training step computes, nor is what it keeps in
# memory meanwhile, and neither is how long the run is, unless the learning rate follows it.
CADENCE = frozenset({"log_every", "evaluate_every", "checkpoint_every"})
MEMORY = frozenset({"micro_batches", "remat"})
LENGTH = frozenset({"steps", "epochs"})


def differences(saved: FitConfig, wanted: FitConfig) -> list[str]:
    """The fields in which a run cannot be resumed, each with the saved and the wanted value."""
    may_change = CADENCE | MEMORY
    if not saved.rate_follows_length:
        may_change |= LENGTH
    return [
        f"{field.name} (was {getattr(saved, field.name)!r}, now {getattr(wanted, field.name)!r})"
        for field in dataclasses.fields(FitConfig)
        if field.name not in may_change
        and getattr(saved, field.name) != getattr(wanted, field.name)
    ]


def to_values(config: FitConfig) -> dict[str, Any]:
    """A configuration as plain values, for JSON."""
    return dataclasses.asdict(config)


def from_values(values: Any, source: Path) -> FitConfig:
    """Makes a configuration of the plain values of a file.

    A field that the file lacks has its default: the file may be older than the field.

    Args:
        values: what the file holds.
        source: the file, for the error message.

    Raises:
        UserError: if a field is unknown, of the wrong type or out of its range.
    """
    if not isinstance(values, dict):
        raise UserError(f"{source} holds no configuration: expected a JSON object.")
    fields = {field.name for field in dataclasses.fields(FitConfig)}
    if wrong := sorted(values.keys() - fields):
        printable = (name if name.isprintable() else repr(name) for name in wrong)
        raise UserError(f"{source} has unknown fields: {', '.join(printable)}.")
    for name, value in values.items():
        expected = allowed_types(FitConfig, name)
        accepted = (*expected, int) if float in expected else expected
        # For Python, a bool is an int.
        if isinstance(value, bool) != (bool in expected) or not isinstance(value, accepted):
            raise UserError(f"{source} has {name} = {value!r}, which is of the wrong type.")
    return FitConfig(**values)


def allowed_types(config: type, name: str) -> tuple[type, ...]:
    """The plain types of a field's annotation: `int | None` gives `(int, NoneType)`."""
    annotation = typing.get_type_hints(config)[name]
    members = (
        typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    )
    return tuple(typing.get_origin(member) or member for member in members)
