"""Efficient-CapsNet (Mazzia, Salvetti and Chiaberge 2021)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax._checks import Fraction, ImageShape, PositiveInt, PositiveInts, checked, sizes_by_layer
from capsjax.capsules import Capsules, ExponentialSquash, SquashFunction
from capsjax.layers import BatchNorm, Decoder, DenseCaps, PrimaryCaps, RoutedCapsules
from capsjax.layers.features import WindowConv
from capsjax.models.output import NOTHING_DRAWN, CapsuleNetwork, Keys
from capsjax.ops.patches import Windows
from capsjax.routing import AnyRouting

# He's deviation for a product with a matrix of each pair of capsules, as Keras counts the inputs of
# a weight with four axes: the first two, which here are capsules, are for it the side of a kernel.
_he_of_capsules = nnx.initializers.variance_scaling(
    2.0, "fan_in", "truncated_normal", in_axis=-1, out_axis=-2
)


class EfficientCapsNet(CapsuleNetwork):
    """Four convolutions, a few primary capsules of whole maps, self-attention, and a decoder.

    Mazzia, Salvetti and Chiaberge 2021, "Efficient-CapsNet: capsule network with self-attention
    routing", arXiv:2101.12491. The defaults are those for MNIST: on 28x28x1 images and 10 classes
    it has 161,824 parameters, as published, and 1,573,168 with the decoder. What the paper leaves
    open is as in the authors' code: the rectifier comes before the batch normalisation, whose
    constants are those of Keras; initial values are those of He et al. 2015 (arXiv:1502.01852), but
    for the primary capsules and the last layer of the decoder, which have Glorot's. Lengths are
    without the code's `length_epsilon=1e-7`. It is trained with the margin loss and 0.0005 times
    the squared reconstruction error (in the code 0.392 times its mean over the pixels, which is the
    same).

    A filter of the primary capsules sees one feature alone, everywhere in the image: so there are
    only 16 of them, each made of 8 features. The published networks for smallNORB and MultiMNIST
    have other convolutions. What a port of it to PyTorch has otherwise are arguments.

    Args:
        image_shape, num_classes, routing, batch_axis, dtype, param_dtype, rngs: see `create_model`.
        features, kernel_sizes, strides: of each convolution.
        norm_first: whether a batch is normalised before the rectifier, instead of after it.
        norm_momentum, norm_epsilon: of `BatchNorm`.
        primary_dim: dimension of the primary capsules' poses; it divides the last of `features`.
        primary_kernel: side of the kernel of the primary capsules; if not given, the shorter side
            of the maps below, so that on square images a filter sees all of a map, as published.
        primary_stride: its stride.
        primary_squash: how they are squashed; see `squash_from`.
        class_dim: dimension of the class capsules' poses.
        length_epsilon: from 0 to 1, added to the square of a class capsule's length, under the
            root of what the network returns as its `lengths`.
        decoder_hidden: sizes of the decoder's hidden layers; None for no decoder.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> model = capsjax.models.EfficientCapsNet(
        ...     image_shape=(8, 8, 1), num_classes=10, rngs=nnx.Rngs(0),
        ...     features=(8, 16), kernel_sizes=(3, 3), strides=(1, 1), decoder_hidden=(16,)
        ... )
        >>> model(jnp.ones((2, 8, 8, 1))).lengths.shape
        (2, 10)
    """

    @checked
    def __init__(
        self,
        *,
        image_shape: ImageShape,
        num_classes: PositiveInt,
        features: Sequence[int] = (32, 64, 64, 128),
        kernel_sizes: Sequence[int] = (5, 3, 3, 3),
        strides: Sequence[int] = (1, 1, 1, 2),
        norm_first: bool = False,
        norm_momentum: float = 0.99,
        norm_epsilon: float = 1e-3,
        primary_dim: PositiveInt = 8,
        primary_kernel: int | None = None,
        primary_stride: int = 1,
        primary_squash: SquashFunction = ExponentialSquash(),  # noqa: B008 (frozen, has no state)
        class_dim: PositiveInt = 16,
        length_epsilon: Fraction = 0.0,
        routing: AnyRouting = "self-attention",
        decoder_hidden: PositiveInts | None = (512, 1024),
        batch_axis: str | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        options = self.made_for(image_shape, num_classes, dtype, param_dtype, rngs)
        layers = sizes_by_layer(
            "convolution", features=features, kernel_sizes=kernel_sizes, strides=strides
        )
        self.norm_first, self.length_epsilon = norm_first, length_epsilon
        if not layers:
            raise ValueError("features must have a value for each convolution, one at least")
        if features[-1] % primary_dim:
            raise ValueError(
                f"primary_dim is {primary_dim}, but must divide the last of features, "
                f"{features[-1]}: capsules are made of so many of them"
            )
        he_normal = nnx.initializers.he_normal()
        convolutions, below = [], image_shape
        for filters, kernel_size, stride in layers:
            windows = Windows.of((below[0], below[1]), kernel_size, stride, "VALID")
            convolutions.append(
                WindowConv(windows, below[-1], filters, kernel_init=he_normal, **options)
            )
            below = (*windows.counts, filters)
        self.convolutions = nnx.List(convolutions)
        self.norms = nnx.List(
            BatchNorm(
                filters,
                momentum=norm_momentum,
                epsilon=norm_epsilon,
                batch_axis=batch_axis,
                **options,
            )
            for filters in features
        )
        self.primary_caps = PrimaryCaps(
            below,
            features[-1] // primary_dim,
            primary_dim,
            kernel_size=min(below[:2]) if primary_kernel is None else primary_kernel,
            stride=primary_stride,
            squash=primary_squash,
            depthwise=True,
            **options,
        )
        self.class_caps = DenseCaps(
            self.primary_caps.num_capsules,
            primary_dim,
            num_classes,
            class_dim,
            routing=routing,
            kernel_init=_he_of_capsules,
            **options,
        )
        if decoder_hidden is not None:
            self.decoder = Decoder(
                num_classes,
                class_dim,
                image_shape,
                hidden=decoder_hidden,
                hidden_init=he_normal,
                **options,
            )

    def encode(self, images: jax.Array, keys: Keys = NOTHING_DRAWN) -> RoutedCapsules:
        x = images
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            maps = convolution(x)
            x = nnx.relu(norm(maps)) if self.norm_first else norm(nnx.relu(maps))
        (pose, length), coupling = self.class_caps(self.primary_caps(x), **next(keys))
        if self.length_epsilon:
            length = jnp.sqrt(jnp.square(length) + self.length_epsilon)
        return RoutedCapsules(Capsules(pose, length), coupling)
