"""CapsNet, the capsule network of Sabour, Frosst and Hinton 2017."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax._checks import Fraction, Number, PositiveInt, PositiveInts, checked
from capsjax.capsules import Squash, SquashFunction
from capsjax.layers import ConvFeatures, Decoder, DenseCaps, PrimaryCaps, RoutedCapsules
from capsjax.models.output import NOTHING_DRAWN, CapsuleNetwork, Keys
from capsjax.routing import AnyRouting, Implementation


class CapsNet(CapsuleNetwork):
    """A convolution, primary capsules, class capsules by routing, and a decoder.

    The defaults are the paper's (arXiv:1710.09829, section 4): on 28x28x1 images and 10 classes it
    has 8,215,568 parameters, 6,804,224 of them outside the decoder.

    The authors' code in TensorFlow has what the paper does not tell: primary votes are multiplied
    by 1/32 before bias and squash (`primary_scale`), class capsules have a bias inside of every
    iteration (the routing `dynamic-bias`), and values start otherwise (`initial_values`). It takes
    the margin loss 0.5 times and as the mean over batch and classes, so that the reconstruction
    weighs 20 times as much as here; the learning rate falls by 4 % every 2,000 steps, smoothly, to
    1e-6, over 300,000 steps of 128 images, 640 epochs. None of this is a default here; the recipe
    `mnist-authors` has it all.

    Args:
        image_shape, num_classes, routing, dtype, param_dtype, rngs: see `create_model`.
        conv_features, conv_kernel, conv_stride: filters of the first convolution, the side of its
            kernel, and its stride.
        conv_slope: what its rectifier multiplies negative numbers by, from 0 to 1: more than 0 for
            a leaky one.
        instance_norm: whether each map of the first convolution is normalised in each image by
            itself, before the rectifier.
        primary_types, primary_dim: types of primary capsules, and the dimension of their poses.
        primary_kernel, primary_stride: side of the kernel they are made with, and its stride.
        primary_order: how they are numbered, see `PrimaryCaps`.
        primary_squash: how they are squashed; a function, or the fields of a `Squash` by name.
        primary_scale: by which the output of the primary convolution is multiplied, before its bias
            is added.
        hidden_capsules: numbers of capsules of further routed layers between primary and class
            capsules, of the same dimension as these; none in the paper.
        class_dim: dimension of the class capsules' poses.
        shared_transform: whether all capsules of a layer vote with the same matrices.
        routing_implementation: how it is computed, `"xla"`, `"recompute"` or `"pallas"`, see
            `route_dense`; if not given, what was measured to be the fastest on a CPU, and `"xla"`
            elsewhere.
        decoder_hidden: sizes of the decoder's hidden layers; None for no decoder.
        decoder_combine: whether the decoder sees the masked class capsules one after the other,
            `"concat"`, or their `"sum"`.
        initial_values: `"scaled"` to the sizes of the layers, or those of the authors' code, at any
            size: `"authors"`, biases of 0.1, and matrices from truncated normal distributions with
            a deviation of 0.1, or 0.05 for the first kernel.
        remat: compute what is inside convolution, primary capsules, class capsules and decoder
            anew for the gradient, instead of keeping it: more work for less memory.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> model = capsjax.CapsNet(
        ...     image_shape=(8, 8, 1), num_classes=10, conv_features=8, conv_kernel=3,
        ...     primary_types=2, primary_kernel=3, decoder_hidden=(16,), rngs=nnx.Rngs(0)
        ... )
        >>> model(jnp.ones((2, 8, 8, 1))).lengths.shape
        (2, 10)
    """

    @checked
    def __init__(
        self,
        *,
        image_shape: Sequence[int],
        num_classes: PositiveInt,
        conv_features: PositiveInt = 256,
        conv_kernel: PositiveInt = 9,
        conv_stride: PositiveInt = 1,
        conv_slope: Fraction = 0.0,
        instance_norm: bool = False,
        primary_types: PositiveInt = 32,
        primary_dim: PositiveInt = 8,
        primary_kernel: PositiveInt = 9,
        primary_stride: PositiveInt = 2,
        primary_order: Literal["position_major", "type_major", "flat"] = "position_major",
        primary_squash: SquashFunction = Squash(),  # noqa: B008 (frozen, has no state)
        primary_scale: Number = 1.0,
        hidden_capsules: PositiveInts = (),
        class_dim: PositiveInt = 16,
        shared_transform: bool = False,
        routing: AnyRouting = "dynamic",
        routing_implementation: Implementation | None = None,
        decoder_hidden: PositiveInts | None = (512, 1024),
        decoder_combine: Literal["concat", "sum"] = "concat",
        initial_values: Literal["scaled", "authors"] = "scaled",
        remat: bool = False,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        options = self.made_for(image_shape, num_classes, dtype, param_dtype, rngs)
        self.remat = remat
        self.features = ConvFeatures(
            image_shape,
            conv_features,
            kernel_size=conv_kernel,
            stride=conv_stride,
            negative_slope=conv_slope,
            instance_norm=instance_norm,
            **options,
        )
        self.primary_caps = PrimaryCaps(
            self.features.output_shape,
            primary_types,
            primary_dim,
            kernel_size=primary_kernel,
            stride=primary_stride,
            order=primary_order,
            squash=primary_squash,
            scale=primary_scale,
            **options,
        )
        counts = (self.primary_caps.num_capsules, *hidden_capsules, num_classes)
        *hidden, self.class_caps = [
            DenseCaps(
                below,
                primary_dim if number == 0 else class_dim,
                above,
                class_dim,
                shared=shared_transform,
                routing=routing,
                implementation=routing_implementation,
                **options,
            )
            for number, (below, above) in enumerate(itertools.pairwise(counts))
        ]
        self.hidden_caps = nnx.List(hidden)
        if decoder_hidden is not None:
            self.decoder = Decoder(
                num_classes,
                class_dim,
                image_shape,
                hidden=decoder_hidden,
                combine=decoder_combine,
                **options,
            )
        if initial_values == "authors":
            self._draw_authors_values(rngs)

    def _draw_authors_values(self, rngs: nnx.Rngs) -> None:
        for path, parameter in nnx.iter_graph(self):
            if not isinstance(parameter, nnx.Param) or "routing" in path:
                continue
            if path[-1] == "bias":
                parameter[...] = jnp.full_like(parameter[...], 0.1)
            else:
                init = nnx.initializers.truncated_normal(0.05 if path[0] == "features" else 0.1)
                parameter[...] = init(rngs.params(), parameter.shape, parameter.dtype)

    def encode(self, images: jax.Array, keys: Keys = NOTHING_DRAWN) -> RoutedCapsules:
        capsules = self._run(self.primary_caps, self._run(self.features, images))
        for layer in self.hidden_caps:
            capsules, _ = self._run(layer, capsules, **next(keys))
        return self._run(self.class_caps, capsules, **next(keys))

    def decode(self, pose: jax.Array, mask: jax.Array) -> jax.Array:
        return self._run(self.decoder, pose, mask)

    def _run(self, layer: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
        return (nnx.remat(_call) if self.remat else _call)(layer, inputs, options)


def _call(layer: Callable[..., Any], inputs: Sequence[Any], options: dict[str, Any]) -> Any:
    return layer(*inputs, **options)
