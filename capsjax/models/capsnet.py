"""CapsNet, the capsule network of Sabour, Frosst and Hinton 2017."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax import _checks
from capsjax.capsules import Squash, SquashFunction
from capsjax.layers import ConvFeatures, Decoder, DenseCaps, PrimaryCaps
from capsjax.models.output import CapsNetOutput, decoded
from capsjax.routing import Implementation, Routing, UnsizedRouting, as_routing


class CapsNet(nnx.Module):
    """A convolution, primary capsules, class capsules by routing, and a decoder.

    The defaults are the paper's (arXiv:1710.09829, section 4): on 28x28x1 images and 10 classes it
    has 8,215,568 parameters, 6,804,224 of them outside the decoder.

    Args:
        image_shape: `(height, width, channels)` of one image.
        num_classes: number of class capsules.
        conv_features: filters of the first convolution.
        conv_kernel: side of its kernel.
        conv_stride: its stride.
        primary_types: types of primary capsules.
        primary_dim: dimension of their poses.
        primary_kernel: side of the kernel they are made with.
        primary_stride: its stride.
        primary_order: how they are numbered, see `PrimaryCaps`.
        primary_squash: how they are squashed; a function, or the fields of a `Squash` by name.
        class_dim: dimension of the class capsules' poses.
        shared_transform: whether all primary capsules vote with the same matrices.
        routing: how the class capsules come about; a name, or an object. One with parameters is
            given as an `UnsizedRouting`, such as `LearnedPrior()`, which is built once the number
            of primary capsules is known.
        routing_implementation: how it is computed, `"xla"`, `"recompute"` or `"pallas"`, see
            `route_dense`; if not given, what was measured to be the fastest.
        decoder_hidden: sizes of the decoder's hidden layers; None for no decoder.
        decoder_combine: whether the decoder sees the masked class capsules one after the other,
            `"concat"`, or their `"sum"`.
        remat: compute what is inside convolution, primary capsules, class capsules and decoder
            anew for the gradient, instead of keeping it: more work for less memory.
        dtype: dtype of convolutions, votes and decoder. Norms, softmax and what the model returns
            are float32 at least.
        param_dtype: dtype of the parameters.
        rngs: source of the initial values.

    Raises:
        ValueError: the image is too small for the kernels, a size is not a positive integer, or
            another argument has a wrong value.
    """

    def __init__(
        self,
        *,
        image_shape: Sequence[int],
        num_classes: int,
        conv_features: int = 256,
        conv_kernel: int = 9,
        conv_stride: int = 1,
        primary_types: int = 32,
        primary_dim: int = 8,
        primary_kernel: int = 9,
        primary_stride: int = 2,
        primary_order: Literal["position_major", "type_major", "flat"] = "position_major",
        primary_squash: SquashFunction = Squash(),  # noqa: B008 (frozen, has no state)
        class_dim: int = 16,
        shared_transform: bool = False,
        routing: str | Routing | UnsizedRouting = "dynamic",
        routing_implementation: Implementation | None = None,
        decoder_hidden: Sequence[int] | None = (512, 1024),
        decoder_combine: Literal["concat", "sum"] = "concat",
        remat: bool = False,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        _checks.each_positive_integer(
            num_classes=num_classes,
            conv_features=conv_features,
            conv_kernel=conv_kernel,
            conv_stride=conv_stride,
            primary_types=primary_types,
            primary_dim=primary_dim,
            primary_kernel=primary_kernel,
            primary_stride=primary_stride,
            class_dim=class_dim,
        )
        image_shape = _checks.image_shape(image_shape)
        dtype = _checks.floating_dtype("dtype", dtype)
        param_dtype = _checks.floating_dtype("param_dtype", param_dtype)
        self.num_classes = num_classes
        self.remat = remat
        self.features = ConvFeatures(
            image_shape,
            conv_features,
            kernel_size=conv_kernel,
            stride=conv_stride,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.primary_caps = PrimaryCaps(
            self.features.output_shape,
            primary_types,
            primary_dim,
            kernel_size=primary_kernel,
            stride=primary_stride,
            order=primary_order,
            squash=primary_squash,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.class_caps = DenseCaps(
            self.primary_caps.num_capsules,
            primary_dim,
            num_classes,
            class_dim,
            shared=shared_transform,
            routing=as_routing(routing),
            implementation=routing_implementation,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.decoder = nnx.data(
            None
            if decoder_hidden is None
            else Decoder(
                num_classes,
                class_dim,
                image_shape,
                hidden=_checks.positive_integers("decoder_hidden", decoder_hidden),
                combine=decoder_combine,
                dtype=dtype,
                param_dtype=param_dtype,
                rngs=rngs,
            )
        )

    def __call__(self, images: jax.Array, labels: jax.Array | None = None) -> CapsNetOutput:
        """Runs the network on a batch of images.

        Args:
            images: `[batch, height, width, channels]`, values from 0 to 1.
            labels: `[batch]` integers: the classes whose capsules the decoder sees, in training;
                or `[batch, k]`, for a reconstruction of each. Without them it sees the longest.

        Returns:
            Capsules, lengths, coupling and reconstruction, in float32 at least.
        """
        block = nnx.remat(_run) if self.remat else _run
        capsules, coupling = block(
            self.class_caps, block(self.primary_caps, block(self.features, images))
        )
        decoder = None if self.decoder is None else functools.partial(block, self.decoder)
        return decoded(capsules, coupling, labels, decoder)


def _run(layer: Callable[..., Any], *inputs: Any) -> Any:
    return layer(*inputs)
