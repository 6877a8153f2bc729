"""The loss of one batch on one device, and the figures that are counted of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax

import capsjax
from capsjax import CapsNetOutput, inspection
from capsjax.inspection import DEAD
from capsjax.pretrained import PRESENT
from train.config.fit_config import FitConfig
from train.config.settings import DataConfig, ObjectiveConfig
from train.data import Batch
from train.learn.augment import reshape_examples, shift_examples, vary_batch
from train.learn.metrics import Mean, masked_mean
from train.system.errors import UserError

TOP = 5
"""Classes among which that of an image has to be, for `measure_top`."""

SPREAD_MARGINS = (0.2, 0.9)
"""Of the spread loss at first and after `spread_steps`; Hinton et al. 2018, section 3."""


@dataclass(frozen=True)
class Objective:
    """The losses of a configuration; the defaults are those of CapsNet's paper.

    Sabour, Frosst and Hinton 2017, arXiv:1710.09829, sections 3 and 4.1.
    """

    settings: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    data: DataConfig = field(default_factory=DataConfig)
    frozen: tuple[str, ...] = ()
    """Parts of the network that are in training as they are in test."""

    @classmethod
    def of(cls, config: FitConfig) -> "Objective":
        """The objective that a configuration describes."""
        return cls(config.objective, config.data, tuple(config.optimizer.freeze))

    def require_fitting(self, labels_per_image: int | None) -> None:
        """Refuses losses that are not defined where an image is of several classes.

        Raises:
            UserError: if this one is not.
        """
        if labels_per_image == 1:
            return
        of_several = ["margin", "sigmoid_cross_entropy"]
        if labels_per_image is not None:
            of_several.insert(1, "cross_entropy")
        many = labels_per_image or "any number of"
        if self.settings.loss not in of_several:
            raise UserError(
                f"images are of {many} classes each, but the {self.settings.loss} loss "
                f"is of one: choose the --loss {' or '.join(of_several)}."
            )
        if self.settings.mask_in_training != "label":
            raise UserError(
                f"images are of {many} classes each, whose capsules are decoded in "
                "training: leave --mask-in-training at label."
            )
        if self.settings.class_weights != "none":
            raise UserError(
                f"images are of {many} classes each, but --class-weights are for "
                "images of one: leave them at none."
            )

    def weigh(self, labels: np.ndarray, classes: int) -> np.ndarray | None:
        """The weight in training of an example of each class, float64 `[classes]`, None for 1.

        Balanced, it is n/(k m), with m the training images of the class, n those of all, and k the
        classes that have some: the mean over all training images is 1. What is reported of a
        training step are the losses without weights, which compare with those of an evaluation.

        Args:
            labels: the classes of all training images, integers `[n]`.
            classes: how many there are.
        """
        if self.settings.class_weights == "none":
            return None
        counts = np.bincount(labels, minlength=classes)
        return len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))

    def normalise(self, images: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """Pixels, uint8 or floats from 0 to 1, as the network sees them in test: `dtype`."""
        return self.data.preprocessing(images, dtype)

    def normalise_batch(self, batch: Batch, dtype: jnp.dtype) -> Batch:
        """Images as the network sees them in test, and their parts alike."""
        return batch.with_images(lambda images: self.normalise(images, dtype))

    def augment(
        self, key: jax.Array, batch: Batch, positions: jax.Array, dtype: jnp.dtype
    ) -> Batch:
        """Images uint8 as the network sees them in training, and their parts alike: `dtype`.

        They are varied at random; key and positions are as in `train.learn.augment`.
        """
        batch = shift_examples(key, batch, positions, self.data)
        batch = reshape_examples(key, batch, positions, self.data)
        scale = self.data.preprocessing.scaled
        scaled = batch.with_images(lambda images: scale(images, dtype))
        return vary_batch(key, scaled, positions, self.data)

    def pixels(self, images: jax.Array) -> jax.Array:
        """Images as the network sees or makes them, from 0 to 1 for a viewer.

        A standardised image is shown as grey, black and white two deviations away.
        """
        data = self.data
        mean, deviation = (0.5, 0.25) if data.standardise else (data.input_mean, data.input_std)
        return jnp.clip(images * deviation + mean, 0, 1)

    def apply(
        self,
        model: nnx.Module,
        images: jax.Array,
        labels: jax.Array,
        *,
        training: bool,
        keys: jax.Array | None = None,
    ) -> CapsNetOutput:
        """Runs the model, its decoder shown the capsules of the labels or the longest ones.

        Args:
            model: the network; normalises a batch by itself in training, and as it has learned to
                in test.
            images: `[batch, height, width, channels]`, normalised.
            labels: integers `[batch]`, or `[batch, k]` where an image is of k classes; then there
                are k reconstructions. Or booleans `[batch, classes]`, which are present.
            training: whether it is for a step of training.
            keys: `[batch]`, of the examples, for what a model draws in training.
        """
        (model.train if training else model.eval)()
        for name in self.frozen:
            if isinstance(part := getattr(model, name), nnx.Module):
                part.eval()
        mask = self.settings.mask_in_training if training else self.settings.mask_in_test
        random = {"keys": keys} if training and keys is not None else {}
        output = model(images, labels if mask == "label" else None, **random)
        if labels.dtype == bool and output.logits is not None:
            raise UserError(
                "images are of any number of classes each, but the network shares out one among "
                "them: choose one with capsules of classes."
            )
        decoder = getattr(model, "decoder", None)
        if mask == "label" or labels.ndim == 1 or decoder is None:
            return output
        longest = predict(output.lengths, labels)
        return output._replace(
            reconstruction=capsjax.reconstruct(decoder, output.capsules.pose, longest)
        )

    def losses(
        self,
        output: CapsNetOutput,
        targets: jax.Array,
        labels: jax.Array,
        step: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """The `loss` and its terms without their weights, each `[batch]`.

        The terms are what tells classes apart, `margin_loss`, `spread_loss`, `cross_entropy` or
        `sigmoid_cross_entropy`, and, for a model with a decoder, `reconstruction_loss`.

        Args:
            output: what the model returned for the images.
            targets: what should be reconstructed, normalised: the images
                `[batch, height, width, channels]`, or, for labels `[batch, k]`, their parts
                `[batch, k, height, width, channels]`, whose errors are added up.
            labels: integers `[batch]`, or `[batch, k]`; or booleans `[batch, classes]`.
            step: the number of the training step, from which the margin of a spread loss follows;
                without, it is that of the end of training.
        """
        weight = self.settings.margin_weight
        name, of_classes = self._of_classes(output, labels, step)
        loss = of_classes if weight == 1 else weight * of_classes
        if output.reconstruction is None:
            return {"loss": loss, name: of_classes}
        reconstruction = capsjax.reconstruction_loss(output.reconstruction, targets)
        return {
            "loss": loss + self.settings.reconstruction_weight * reconstruction,
            name: of_classes,
            "reconstruction_loss": reconstruction,
        }

    def _of_classes(
        self, output: CapsNetOutput, labels: jax.Array, step: jax.Array | None
    ) -> tuple[str, jax.Array]:
        lengths = output.lengths
        targets = present(labels, lengths.shape[-1], lengths.dtype)
        if self.settings.loss == "cross_entropy":
            logits = log_probabilities(lengths) if output.logits is None else output.logits
            return "cross_entropy", optax.losses.softmax_cross_entropy(logits, targets)
        if self.settings.loss == "sigmoid_cross_entropy":
            logits = log_odds(lengths) if output.logits is None else output.logits
            of_each = optax.losses.sigmoid_binary_cross_entropy(logits, targets)
            return "sigmoid_cross_entropy", jnp.sum(of_each, axis=-1)
        if self.settings.loss == "spread":
            first, last = SPREAD_MARGINS
            margin: float | jax.Array = last
            if step is not None and self.settings.spread_steps > 0:
                margin = first + (last - first) * jnp.minimum(
                    step / self.settings.spread_steps, 1.0
                )
            return "spread_loss", capsjax.spread_loss(lengths, targets, margin=margin)
        seen = lengths if self.settings.margin_of == "length" else jax.nn.softmax(lengths)
        return "margin_loss", capsjax.margin_loss(seen, targets, power=self.settings.margin_power)


def log_probabilities(lengths: jax.Array) -> jax.Array:
    """Logarithms of the presence of classes; a softmax of them is shares of their sum."""
    return jnp.log(jnp.maximum(lengths, jnp.finfo(lengths.dtype).tiny))


def log_odds(lengths: jax.Array) -> jax.Array:
    """Logarithms of the odds of classes; a sigmoid of them is their presence again."""
    last = jnp.finfo(lengths.dtype)
    return jax.scipy.special.logit(jnp.clip(lengths, last.tiny, 1 - last.epsneg))


def present(labels: jax.Array, classes: int, dtype: Any) -> jax.Array:
    """1 for each class that an image is of, else 0: `[batch, classes]` of labels of any kind."""
    if labels.dtype == bool:
        return labels.astype(dtype)
    of_each = jax.nn.one_hot(labels, classes, dtype=dtype)
    return jnp.sum(of_each, axis=1) if labels.ndim == 2 else of_each


def predict(lengths: jax.Array, labels: jax.Array) -> jax.Array:
    """The classes whose `lengths` `[batch, classes]` are longest, the longest first.

    As many as there are `labels`, integers `[batch]` or `[batch, k]`: int32 of their shape. For
    labels that are booleans `[batch, classes]`, whether each class is longer than `PRESENT`.
    """
    if labels.dtype == bool:
        return lengths > PRESENT
    if labels.ndim == 1:
        return jnp.argmax(lengths, axis=-1).astype(jnp.int32)
    return lax.top_k(lengths, labels.shape[1])[1]


def is_right(predictions: jax.Array, labels: jax.Array) -> jax.Array:
    """Whether all classes of an image, `[batch]` or `[batch, k]`, are predicted in any order.

    Of booleans `[batch, classes]`, whether no class too many or too few is.
    """
    if labels.dtype == bool:
        return jnp.all(predictions == labels, axis=1)
    if labels.ndim == 1:
        return predictions == labels
    return jnp.all(jnp.sort(predictions, axis=1) == jnp.sort(labels, axis=1), axis=1)


def measure(
    output: CapsNetOutput,
    losses: Mapping[str, jax.Array],
    labels: jax.Array,
    mask: jax.Array | None = None,
) -> dict[str, Mean]:
    """Every loss term and the accuracy, as sums and counts over the examples of the mask."""
    correct = is_right(predict(output.lengths, labels), labels)
    per_example = {**losses, "accuracy": correct}
    return {name: masked_mean(values, mask) for name, values in per_example.items()}


def measure_top(
    output: CapsNetOutput, labels: jax.Array, mask: jax.Array | None = None, *, top: int = TOP
) -> dict[str, Mean]:
    """The share of images whose class is among the `top` longest, by its name.

    Nothing where images are of several classes, or where there are no more classes than that.
    """
    if labels.ndim > 1 or top >= output.lengths.shape[-1]:
        return {}
    is_among = jnp.any(lax.top_k(output.lengths, top)[1] == labels[:, None], axis=1)
    return {f"top_{top}_accuracy": masked_mean(is_among, mask)}


def class_lengths(output: CapsNetOutput) -> Mean:
    """The lengths of the class capsules, summed over a batch `[J]`, for `dead_share`."""
    count = jnp.asarray(len(output.lengths), jnp.int32)
    return Mean(jnp.sum(output.lengths, axis=0), count)


def dead_share(lengths: Mean) -> Mean:
    """The share of class capsules that are dead in a batch, of their lengths summed over it.

    In a small batch, or of many classes, so are those of classes that it has no image of.
    """
    return masked_mean(lengths.total < DEAD * lengths.examples)


def coupling_entropy(output: CapsNetOutput, mask: jax.Array | None = None) -> Mean:
    """The mean of `inspection.coupling_entropy` over the input capsules, summed over examples."""
    if output.coupling is None:
        raise ValueError("a network without capsules has no coupling")
    return masked_mean(jnp.mean(inspection.coupling_entropy(output.coupling), axis=-1), mask)
