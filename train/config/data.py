"""What is trained and tested on, and how its images reach the network."""

from dataclasses import dataclass

from train.config.setting import BELOW_ONE, NOT_NEGATIVE, POSITIVE, SHARE, Checked, setting
from train.data import Dataset, hold_out, is_dataset, list_datasets
from train.system.errors import UserError


@dataclass(frozen=True)
class DataConfig(Checked):
    """What is trained and tested on, and how its images reach the network.

    Raises:
        UserError: on a value out of its range or a name that does not exist.
    """

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
    validation: float | None = setting(
        None,
        "training images to choose by, set aside: how many, or what share; 0 trains with all of "
        "them (if not given, 10,000 of 60,000, else a tenth, or the set's own)",
        bound=NOT_NEGATIVE,
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
        """Checks every setting, and that images are normalised in one way."""
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

    def choose(self, dataset: Dataset) -> Dataset:
        """The examples of a data set that these settings train, choose and measure with.

        Raises:
            UserError: if there are not as many.
        """
        return hold_out(dataset, self.validation).limited(self.train_examples, self.test_examples)
