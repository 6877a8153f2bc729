"""The settings of a run, in groups; `train/options/recipe.py` makes options of them.

Making a group raises `UserError` on a value out of its range or a name that does not exist.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from train.config.checked import (
    BELOW_ONE,
    BETWEEN,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    Checked,
    setting,
)
from train.system.errors import UserError

# What is wrong with a command line is told before JAX is imported, which takes seconds.
if TYPE_CHECKING:
    from capsjax.preprocessing import Preprocessing
    from train.data import Dataset, npz

DTYPES = ("float32", "bfloat16", "float64")
FILE_SEPARATOR = ".py:"
"""In the place of a name: a file of the user's, and what in it."""
MASKS = ("label", "longest")
LOSSES = ("margin", "spread", "cross_entropy", "sigmoid_cross_entropy")
OPTIMIZERS = ("adam", "adamw", "lamb", "lars", "muon", "sgd")
DECAYS = ("exponential", "staircase", "cosine", "constant")
IMAGE_AXES = ("NHWC", "NCHW")
SCALINGS = ("none", "linear", "sqrt")
CLASS_WEIGHTS = ("none", "balanced")


def _datasets() -> tuple[str, ...]:
    from train.data import list_datasets

    return list_datasets()


def _is_dataset(name: str) -> bool:
    from train.data import is_dataset

    return is_dataset(name)


def _models() -> tuple[str, ...]:
    import capsjax

    return tuple(capsjax.list_models())


def _routings() -> tuple[str, ...]:
    import capsjax

    return tuple(capsjax.list_routings())


@dataclass(frozen=True)
class DataConfig(Checked):
    """What is trained and tested on, and how its images reach the network."""

    dataset: str = setting(
        "digits",
        "data set to train and test on; docs/datasets.md tells what each needs",
        _datasets,
        also=_is_dataset,
    )
    image_axes: str | None = setting(
        None,
        "order of the axes of images in an npz: file, where it has to be said",
        IMAGE_AXES,
    )
    labels_from: str | None = setting(
        None,
        "how an npz: file numbers its classes: the number of the first (if not given, 0), or "
        '"values", if each value that occurs is a class; class_names are then of these in '
        "ascending order",
    )
    input_mean: float = setting(0.0, "subtracted from pixels, which are 0 to 1")
    input_std: float = setting(1.0, "what pixels are divided by after that", bound=POSITIVE)
    standardise: bool = setting(
        False, "each image is given mean 0 and variance 1, instead of the two before"
    )
    validation: float | None = setting(
        None,
        "training images to choose by, set aside: how many, or what share; 0 trains with all of "
        "them (if not given, 10,000 of 60,000, else a tenth); where a set has some of its own, it "
        "is of these, and they are not trained with",
        bound=NOT_NEGATIVE,
    )
    train_examples: int | None = setting(
        None,
        "train with so many images alone, of each class its share, or the first of a set that is "
        "made (if not given, all)",
        bound=POSITIVE,
    )
    test_examples: int | None = setting(
        None,
        "measure with so many test images alone, of each class its share, or the first of a set "
        "that is made (if not given, all; of a set that is made, as many as there are images that "
        "it is made of)",
        bound=POSITIVE,
    )
    max_shift: int = setting(
        0, "training images are shifted by up to this many pixels", bound=NOT_NEGATIVE
    )
    flip: bool = setting(False, "half of the training images are flipped from left to right")
    max_rotation: float = setting(
        0.0, "training images are turned by up to so many degrees", bound=NOT_NEGATIVE
    )
    max_scaling: float = setting(
        0.0, "training images are enlarged or shrunk by up to this share", bound=BELOW_ONE
    )
    max_erased: float = setting(
        0.0, "a rectangle of up to this share of a training image's sides is made 0", bound=SHARE
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.standardise and (self.input_mean, self.input_std) != (0, 1):
            raise UserError(
                f"--input-mean is {self.input_mean} and --input-std is {self.input_std}, but with "
                "--standardise each image has its own: leave them out."
            )
        if self.validation is not None and self.validation > 1 and self.validation % 1:
            raise UserError(
                f"--validation is {self.validation}, but must be a share below 1 or a whole number."
            )

    @property
    def layout(self) -> "npz.Layout":
        """How the arrays of an npz: file are to be understood."""
        from train.data import npz

        return npz.Layout(self.image_axes, self.labels_from)

    def load(self, data_dir: str | Path | None = None) -> "Dataset":
        """Loads the data set, see `load_dataset`."""
        from train.data import load_dataset

        return load_dataset(self.dataset, data_dir=data_dir, layout=self.layout)

    @property
    def preprocessing(self) -> "Preprocessing":
        """What is done to the pixels of every image."""
        from capsjax.preprocessing import Preprocessing

        return Preprocessing(self.input_mean, self.input_std, self.standardise, self.crop)

    def choose(self, dataset: "Dataset") -> "Dataset":
        """The examples of a data set that these settings train, choose and measure with.

        Raises:
            UserError: if there are not as many.
        """
        from train.data import hold_out

        return hold_out(dataset, self.validation).limited(self.train_examples, self.test_examples)


@dataclass(frozen=True)
class ModelConfig(Checked):
    """The network, its routing and its precision."""

    name: str = setting("capsnet", "network to train", _models, name="model")
    options: dict[str, Any] = setting(
        dict,
        "arguments that differ from the published ones",
        name="model_options",
    )
    routing: str = setting(
        "dynamic",
        "routing algorithm, or FILE.py:NAME of one of your own, whose code is run",
        _routings,
        also=lambda name: FILE_SEPARATOR in name,
    )
    routing_iterations: int = setting(3, "routing iterations", bound=POSITIVE, largest=1000)
    routing_options: dict[str, Any] = setting(dict, "further arguments of the routing")
    dtype: str = setting("float32", "dtype of the computation", DTYPES)
    param_dtype: str = setting("float32", "dtype of the parameters", DTYPES)
    remat: bool = setting(
        False, "compute what is inside a layer anew for the gradient, to save memory"
    )
    init_from: str | None = setting(
        None,
        "start from the weights of a run, its folder, of a file that `export` has written, or of a "
        "network that ships, such as capsnet/digits; what depends on the number of classes starts "
        "anew where that is another",
    )

    @property
    def shares_logits(self) -> bool:
        """Whether what the network makes of an image depends on the others of its batch."""
        return bool(self.routing_options.get("shared_logits"))


@dataclass(frozen=True)
class ObjectiveConfig(Checked):
    """What is minimised."""

    loss: str = setting("margin", "what tells classes apart", LOSSES)
    spread_steps: int = setting(
        0,
        "steps in which the margin of a spread loss grows from 0.2 to 0.9 (0: always 0.9)",
        bound=NOT_NEGATIVE,
        only_with=("loss", ("spread",)),
    )
    margin_of: str = setting(
        "length",
        "the margin loss sees lengths, or their softmax",
        ("length", "softmax"),
        only_with=("loss", ("margin",)),
    )
    margin_power: int = setting(
        2, "power of the margin's hinges", bound=POSITIVE, only_with=("loss", ("margin",))
    )
    margin_weight: float = setting(
        1.0, "weight of the loss that tells classes apart", bound=NOT_NEGATIVE
    )
    class_weights: str = setting(
        "none",
        "how much an example counts in training; balanced: so much that all classes count alike, "
        "images / (classes x images of its class)",
        CLASS_WEIGHTS,
    )
    reconstruction_weight: float = setting(
        0.0005, "weight of the summed squared reconstruction error", bound=NOT_NEGATIVE
    )
    mask_in_training: str = setting("label", "class whose capsule is decoded in training", MASKS)
    mask_in_test: str = setting("longest", "class whose capsule is decoded in test", MASKS)


@dataclass(frozen=True)
class OptimizerConfig(Checked):
    """What turns gradients into updates."""

    name: str = setting("adam", "what turns gradients into updates", OPTIMIZERS, name="optimizer")
    weight_decay: float = setting(
        0.0,
        "weight decay of all but adam, on matrices only; of muon on those of two or four "
        "dimensions, which it orthogonalises",
        bound=NOT_NEGATIVE,
    )
    momentum: float = setting(
        0.9, "momentum of sgd; 0 for none", bound=BELOW_ONE, only_with=("optimizer", ("sgd",))
    )
    clip_norm: float | None = setting(
        None, "longest gradient; a longer one is shortened to it", bound=POSITIVE
    )
    ema_decay: float | None = setting(
        None,
        "share that a moving average of the weights keeps in a step; it is then what is evaluated, "
        "with the statistics of batches of the weights that are trained",
        bound=BETWEEN,
    )
    freeze: list[str] = setting(
        list,
        "parts of the network that stay as they are, such as features primary_caps, their "
        "statistics of batches too",
        bound=("names of parts", lambda value: all(isinstance(name, str) for name in value)),
    )
    max_skipped: int = setting(
        10,
        "updates skipped in a row, because loss or gradient is not finite, that a run bears",
        bound=NOT_NEGATIVE,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight_decay and self.name == "adam":
            raise UserError(
                f"--weight-decay is {self.weight_decay}, but adam has none: choose the --optimizer "
                "adamw, lamb, lars, muon or sgd."
            )


@dataclass(frozen=True)
class ScheduleConfig(Checked):
    """The course of a run: batches, length, learning rate, and when it is measured and kept."""

    batch_size: int = setting(128, "images in a step, over all devices", bound=POSITIVE)
    micro_batches: int = setting(
        1,
        "parts in which a device takes its share of a batch, one after the other, to save memory",
        bound=POSITIVE,
    )
    epochs: float = setting(10.0, "passes over the training set", bound=POSITIVE)
    steps: int | None = setting(None, "training steps, instead of epochs", bound=POSITIVE)
    stop_at_accuracy: float | None = setting(
        None,
        "share of validation images, between 0 and 1: end with the first evaluation that has as "
        "many right",
        bound=BETWEEN,
    )
    patience: int | None = setting(
        None,
        "end after so many evaluations in a row without a better accuracy on validation images",
        bound=POSITIVE,
    )
    learning_rate: float = setting(0.001, "learning rate at its highest", bound=POSITIVE)
    lr_scaling: str = setting(
        "none", "how the learning rate grows with the batch, from --base-batch on", SCALINGS
    )
    base_batch: int = setting(
        128,
        "batch that --learning-rate is for, if it is scaled",
        bound=POSITIVE,
        only_with=("lr_scaling", ("linear", "sqrt")),
    )
    warmup_steps: int = setting(
        0, "steps in which the learning rate rises from zero", bound=NOT_NEGATIVE
    )
    decay: str = setting(
        "exponential", "how the learning rate falls after that", DECAYS, name="schedule"
    )
    decay_rate: float = setting(
        0.3,
        "factor on the learning rate every --decay-steps steps, smoothly if exponential, at once "
        "if staircase",
        bound=POSITIVE,
        only_with=("schedule", ("exponential", "staircase")),
    )
    decay_steps: int | None = setting(
        None,
        "steps in which the learning rate falls by --decay-rate, or to zero on a cosine (if not "
        "given, what the warm-up leaves of the run)",
        bound=POSITIVE,
        only_with=("schedule", ("exponential", "staircase", "cosine")),
    )
    learning_rate_floor: float = setting(
        0.0, "below this the learning rate does not fall", bound=NOT_NEGATIVE
    )
    log_every: int = setting(10, "steps between two lines of metrics", bound=POSITIVE)
    evaluate_every: int | None = setting(
        None, "steps between two evaluations (if not given, an epoch)", bound=POSITIVE
    )
    checkpoint_every: int = setting(200, "steps between two checkpoints", bound=POSITIVE)

    def total_steps(self, training_examples: int) -> int:
        """Length of the run: `steps`, or the steps in which `epochs` epochs have been seen.

        Raises:
            UserError: if these are too many.
        """
        if self.steps is not None:
            return self.steps
        # As it is written: in binary 1.1 epochs of 10 steps would be a little more than 11.
        steps = Fraction(str(self.epochs)) * training_examples / self.batch_size
        if steps >= 2**31:
            raise UserError(
                f"--epochs is {self.epochs:g}, but 2^31 steps are too many: choose fewer."
            )
        return max(1, math.ceil(steps))

    @property
    def rate_follows_length(self) -> bool:
        """Whether the learning rate depends on how long the run is."""
        return self.decay != "constant" and self.decay_steps is None

    def evaluation_interval(self, training_examples: int) -> int:
        """Steps between two evaluations."""
        return self.evaluate_every or math.ceil(training_examples / self.batch_size)
