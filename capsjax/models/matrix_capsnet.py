"""The matrix capsules of Hinton, Sabour and Frosst 2018."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax import _checks
from capsjax.layers import ClassCaps, ConvCaps, ConvFeatures, ConvPrimaryCaps
from capsjax.layers.convolutional import Coordinates
from capsjax.models._sizes import square, together
from capsjax.models.output import CapsNetOutput
from capsjax.routing import ExpectationMaximization, Routing, UnsizedRouting, as_routing
from capsjax.routing.patches import Competition


class MatrixCapsNet(nnx.Module):
    """A convolution, and layers of capsules whose poses are matrices, up to the classes.

    Hinton, Sabour and Frosst 2018, "Matrix capsules with EM routing" (ICLR 2018,
    openreview.net/forum?id=HJWLfGWRb), section 4 and figure 1: `A` filters, `B` types of primary
    capsules, two convolutional layers of `C` and `D` types, and the classes. What the paper leaves
    open is that of the authors' code, `capsule_em` of google-research: no padding, primary capsules
    without biases, the initial values of all matrices, and EM routing's constants. What public
    re-implementations have otherwise are arguments. Its loss is the spread loss, with a margin
    that grows from 0.2 to 0.9 (`--loss spread --spread-steps N` of the training program).

    On patches of 32x32x2 of smallNORB and 5 classes it has 316,650 parameters, and 68,618 with the
    smaller sizes of section 5, `conv_features=64`, `primary_types=8` and `caps_types=(16, 16)`. The
    paper has 310K and 68K: the same, cut off after two digits.

    Two things are the paper's where the code differs. Positions are added to the right-hand column
    of a vote and run from 0 to 1; in the code, they are distances from the centre in hundreds of
    pixels, and are added to the first two numbers of a vote. And routing starts from assignments
    that are equal over all parents of a capsule; in the code, over those at each position.

    Args:
        image_shape: `(height, width, channels)` of one image.
        num_classes: number of class capsules.
        conv_features: filters of the convolution, `A`.
        conv_kernel: side of its kernel.
        conv_stride: its stride.
        conv_padding: zeros on each side of the image.
        conv_norm: whether a batch is normalised between the convolution and its rectifier, see
            `BatchNorm`.
        norm_momentum: share that the moving averages keep in a step.
        norm_epsilon: added to the variance.
        primary_types: types of primary capsules, `B`.
        primary_bias: whether primary capsules have biases.
        primary_offset: added to what the sigmoid of their activations is taken of.
        caps_types: types of capsules of each convolutional capsule layer, `C` and `D`.
        caps_kernels: the side of each one's windows.
        caps_strides: the stride between them.
        pose_dim: numbers of a pose, a square: 16 for 4x4.
        competition: whether a capsule's assignments are shared out over its parents at `"all"`
            positions, or in each `"patch"` apart, as most re-implementations have it.
        routing: how capsules come about; a name, or an object.
        class_routing: the same for the class capsules. If not given, it is `routing`, and if that
            is EM routing in the formulation of the authors' code, with what the code has for its
            class layer: a quarter of `inverse_temperature`, `initial_beta_u=2` and
            `initial_beta_a=1`.
        class_coordinates: which position is added to votes for classes, see `ClassCaps`.
        batch_axis: name of the mapped axis over which a batch is spread, so that it is normalised
            as a whole; None where a batch is in one piece.
        dtype: dtype of convolutions and votes; what routing makes of them, and what the model
            returns, are float32 at least.
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
        conv_features: int = 32,
        conv_kernel: int = 5,
        conv_stride: int = 2,
        conv_padding: int = 0,
        conv_norm: bool = False,
        norm_momentum: float = 0.99,
        norm_epsilon: float = 1e-3,
        primary_types: int = 32,
        primary_bias: bool = False,
        primary_offset: float = -1.0,
        caps_types: Sequence[int] = (32, 32),
        caps_kernels: Sequence[int] = (3, 3),
        caps_strides: Sequence[int] = (2, 1),
        pose_dim: int = 16,
        competition: Competition = "all",
        routing: str | Routing | UnsizedRouting = "em",
        class_routing: str | Routing | UnsizedRouting | None = None,
        class_coordinates: Coordinates = "centre",
        batch_axis: str | None = None,
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
        )
        pose_dim = square("pose_dim", pose_dim)
        layers = together(
            "capsule layer",
            caps_types=caps_types,
            caps_kernels=caps_kernels,
            caps_strides=caps_strides,
        )
        dtypes: dict[str, Any] = {
            "dtype": _checks.floating_dtype("dtype", dtype),
            "param_dtype": _checks.floating_dtype("param_dtype", param_dtype),
        }
        routing = as_routing(routing)
        self.num_classes = num_classes
        self.features = ConvFeatures(
            _checks.image_shape(image_shape),
            conv_features,
            kernel_size=conv_kernel,
            stride=conv_stride,
            padding=conv_padding,
            normalize=conv_norm,
            norm_momentum=norm_momentum,
            norm_epsilon=norm_epsilon,
            batch_axis=batch_axis,
            rngs=rngs,
            **dtypes,
        )
        self.primary_caps = ConvPrimaryCaps(
            self.features.output_shape,
            primary_types,
            pose_dim,
            activation_offset=primary_offset,
            use_bias=primary_bias,
            kernel_init=_primary_init(primary_types),
            rngs=rngs,
            **dtypes,
        )
        conv_caps, grid = [], self.primary_caps.output_shape
        for types, kernel_size, stride in layers:
            layer = ConvCaps(
                grid,
                types,
                pose_dim,
                kernel_size=kernel_size,
                stride=stride,
                routing=routing,
                competition=competition,
                transform="matrix",
                kernel_init=nnx.initializers.truncated_normal(0.3),
                rngs=rngs,
                **dtypes,
            )
            conv_caps.append(layer)
            grid = layer.output_shape
        self.conv_caps = nnx.List(conv_caps)
        self.class_caps = ClassCaps(
            grid,
            num_classes,
            pose_dim,
            routing=_of_classes(routing) if class_routing is None else as_routing(class_routing),
            coordinates_of=class_coordinates,
            kernel_init=nnx.initializers.truncated_normal(0.01),
            rngs=rngs,
            **dtypes,
        )

    def __call__(self, images: jax.Array, labels: jax.Array | None = None) -> CapsNetOutput:
        """Runs the network on a batch of images.

        Args:
            images: `[batch, height, width, channels]`.
            labels: not used; for other networks a decoder's.

        Returns:
            Class capsules, their activations as lengths, and the coupling of the class layer, in
            float32 at least.
        """
        del labels
        capsules = self.primary_caps(self.features(images))
        for layer in self.conv_caps:
            capsules, _ = layer(capsules)
        capsules, coupling = self.class_caps(capsules)
        return CapsNetOutput(capsules, capsules.activation, coupling, None)


def _of_classes(routing: Routing | UnsizedRouting) -> Routing | UnsizedRouting:
    """The routing of the class layer beside that of the layers below."""
    if not isinstance(routing, ExpectationMaximization) or routing.formulation != "code":
        return routing
    return dataclasses.replace(
        routing,
        inverse_temperature=routing.inverse_temperature / 4,
        initial_beta_u=2.0,
        initial_beta_a=1.0,
    )


def _primary_init(types: int) -> nnx.Initializer:
    """Of the filters of `types` primary capsules, those of their poses before their activations."""

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32, **_: Any) -> jax.Array:
        of_poses, of_activations = jax.random.split(key)
        *inputs, outputs = shape
        poses = nnx.initializers.truncated_normal(0.5)
        activations = nnx.initializers.truncated_normal(3.0)
        return jnp.concatenate(
            [
                poses(of_poses, (*inputs, outputs - types), dtype),
                activations(of_activations, (*inputs, types), dtype),
            ],
            axis=-1,
        )

    return init
