"""The convolutional network that Sabour, Frosst and Hinton 2017 compare CapsNet with."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from capsjax._checks import Fraction, ImageShape, PositiveInt, PositiveInts, checked, sizes_by_layer
from capsjax.capsules import Capsules, accumulation_dtype, norm, squash
from capsjax.layers.decoder import Decoder
from capsjax.models.output import CapsNetOutput, CapsuleNetwork
from capsjax.ops import conv_general_dilated


class CNN(CapsuleNetwork):
    """Convolutions, dense layers, and a softmax over the classes: no capsules.

    With `class_dim` the classes have vectors instead of scores: the last layer gives one a class,
    squashed, whose length is the class's presence, as of a class capsule, but nothing is routed.
    A decoder may then reconstruct the image from the vector of one class. So a network without
    routing can be compared with CapsNet part by part (Gu, Tresp and Hu 2021, arXiv:2103.15459).

    The baseline of arXiv:1710.09829, section 5: three convolutions, two dense layers, the last of
    which is connected with dropout to the classes; its loss is cross entropy. On 28x28x1 images and
    10 classes it has 35,445,522 parameters; the paper has 35.4 million, which convolutions of
    padded images alone make. With `features=(512, 256)`, `kernel_size=(9, 5)`, `pool=2` and
    `hidden=(1024,)` it is the baseline of section 6: on 36x36x1 images it has 24,563,978
    parameters; the paper has 24.56 million.

    Args:
        image_shape, num_classes, dtype, param_dtype, rngs: see `create_model`.
        features: filters of each convolution.
        kernel_size: side of their kernels, or one for each; the stride is 1, and images are padded
            with zeros.
        pool: after each convolution, the largest of `pool` times `pool` values; 1 for all.
        hidden: sizes of the dense layers.
        dropout: share of the last dense layer that is dropped in training, that is after `train()`,
            not after `eval()`, as of `flax.nnx.Dropout`. What is dropped is drawn from `keys` of a
            call, or from the stream `dropout` of the `rngs`, `nnx.Rngs(params=0, dropout=1)`;
            without either nothing is dropped. A half is the common share; the paper has no number.
        class_dim: values in the vector of a class; None for a softmax.
        decoder_hidden: sizes of the decoder's hidden layers; None for no decoder. It needs
            `class_dim`.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> model = capsjax.models.CNN(
        ...     image_shape=(8, 8, 1), num_classes=10, rngs=nnx.Rngs(0),
        ...     features=(8,), kernel_size=3, hidden=(16,)
        ... )
        >>> model(jnp.ones((2, 8, 8, 1))).lengths.shape
        (2, 10)
    """

    stream = "dropout"

    @checked
    def __init__(
        self,
        *,
        image_shape: ImageShape,
        num_classes: PositiveInt,
        features: PositiveInts = (256, 256, 128),
        kernel_size: int | Sequence[int] = 5,
        pool: PositiveInt = 1,
        hidden: PositiveInts = (328, 192),
        dropout: Fraction = 0.5,
        class_dim: PositiveInt | None = None,
        decoder_hidden: PositiveInts | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        height, width, channels = image_shape
        self.pool, self.dropout, self.class_dim = pool, dropout, class_dim
        sides = kernel_size if isinstance(kernel_size, Sequence) else [kernel_size] * len(features)
        layers = sizes_by_layer("convolution", features=features, kernel_size=sides)
        if dropout == 1:
            raise ValueError("dropout must be less than 1: with 1 nothing is left")
        options = self.made_for(image_shape, num_classes, dtype, param_dtype, rngs)
        self.convolutions = nnx.List(
            nnx.Conv(
                n_in,
                n_out,
                (side, side),
                padding="SAME",
                conv_general_dilated=conv_general_dilated,
                kernel_init=nnx.initializers.he_normal(),
                **options,
            )
            for n_in, (n_out, side) in zip((channels, *features), layers, strict=False)
        )
        shrunk = pool ** len(features)
        positions = (height // shrunk) * (width // shrunk)
        if not positions:
            raise ValueError(
                f"nothing is left of an image of {height}x{width} when {len(features)} times one "
                f"of {pool}x{pool} values is kept"
            )
        flat = positions * (features[-1] if features else channels)
        self.hidden = nnx.List(
            nnx.Linear(n_in, n_out, kernel_init=nnx.initializers.he_normal(), **options)
            for n_in, n_out in itertools.pairwise((flat, *hidden))
        )
        self.classes = nnx.Linear((flat, *hidden)[-1], num_classes * (class_dim or 1), **options)
        if decoder_hidden is not None:
            if class_dim is None:
                raise ValueError("decoder_hidden needs class_dim: scores cannot be decoded")
            self.decoder = Decoder(
                num_classes, class_dim, image_shape, hidden=decoder_hidden, **options
            )

    def __call__(
        self, images: jax.Array, labels: jax.Array | None = None, *, keys: jax.Array | None = None
    ) -> CapsNetOutput:
        """Runs the network on a batch of images.

        Args:
            images: floats `[batch, *image_shape]`, values from 0 to 1.
            labels: `[batch]`, or `[batch, k]`: the classes whose vectors the decoder sees, in
                training; without them the longest.
            keys: random keys `[batch]`, one for each image, or a single one, instead of the model's
                own stream.

        Returns:
            Class probabilities as lengths, and logits, in float32 at least; no capsules. With
            `class_dim` capsules and their lengths, a reconstruction if there is a decoder, and no
            logits.

        Raises:
            ValueError: see `CapsuleNetwork`.
        """
        self.check(images, labels)
        x = images
        for convolution in self.convolutions:
            x = nnx.relu(convolution(x))
            if self.pool > 1:
                x = _max_pool(x, self.pool)
        x = lax.collapse(x, 1)
        for layer in self.hidden:
            x = nnx.relu(layer(x))
        if self.dropout and (drawn := self._drawn(images, keys)) is not None:
            x = jax.vmap(self._drop)(drawn, x)
        logits = self.classes(x)
        logits = logits.astype(accumulation_dtype(logits.dtype))
        if self.class_dim is None:
            return CapsNetOutput(None, jax.nn.softmax(logits), None, None, logits)
        pose = squash(logits.reshape(x.shape[0], self.num_classes, self.class_dim))
        capsules = Capsules(pose, norm(pose))
        return CapsNetOutput(capsules, capsules.activation, None, self._shown(capsules, labels))

    def _drop(self, key: jax.Array, x: jax.Array) -> jax.Array:
        kept = jax.random.bernoulli(key, 1 - self.dropout, x.shape)
        return jnp.where(kept, x / (1 - self.dropout), jnp.zeros_like(x))


def _max_pool(x: jax.Array, size: int) -> jax.Array:
    """`[batch, height, width, channels]` -> the largest of each square; of equal ones the first.

    What `flax.nnx.max_pool` computes, whose gradient takes a CPU 30 times as long: XLA looks for
    the largest again, window by window, on one core.
    """
    height, width = (side - side % size for side in x.shape[1:3])
    largest = x[:, :height:size, :width:size]
    for row, column in itertools.product(range(size), repeat=2):
        other = x[:, row:height:size, column:width:size]
        largest = jnp.where((largest >= other) | jnp.isnan(largest), largest, other)
    return largest
