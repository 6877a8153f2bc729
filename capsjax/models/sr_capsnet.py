"""The self-routing capsule network of Hahn, Pyeon and Kim 2019."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax._checks import NotNegativeInt, PositiveInt, checked
from capsjax.capsules import in_a_list
from capsjax.layers import (
    CapsuleNorm,
    ConvPrimaryCaps,
    DenseCaps,
    NormalizedConv,
    ResidualFeatures,
    RoutedCapsules,
)
from capsjax.models._stack import conv_caps_stack
from capsjax.models.output import NOTHING_DRAWN, CapsuleNetwork, Keys
from capsjax.ops.patches import Padding
from capsjax.routing import AnyRouting, Competition, SelfRouting, as_routing

_PADDED: Padding = ((1, 1), (1, 1))

# As the authors' code draws the matrices of a capsule in sight: all their elements are its fan.
_caps_init = nnx.initializers.variance_scaling(
    2.0, "fan_in", "uniform", in_axis=(-3, -2, -1), out_axis=(), batch_axis=-4
)


class SRCapsNet(CapsuleNetwork):
    """A convolutional network, primary capsules, and class capsules by self-routing.

    Hahn, Pyeon and Kim 2019, "Self-Routing Capsule Networks", NeurIPS, section 4; what the paper
    leaves open is as in the authors' code (github.com/coder3000/SR-CapsNet). The capsules stand in
    the place of the last pooling and dense layer of a ResNet-20, or of a smaller network. Poses are
    normalised over the batch, and so are the activations of primary capsules before their sigmoid.
    On 32x32x3 images of CIFAR-10 or SVHN and 10 classes it has 931,664 parameters, and 3,187,536
    with `conv_caps=1`; the paper has 0.9M and 3.2M for SR-1 and SR-2. With `backbone="convnet"`, on
    32x32x1 images of smallNORB and 5 classes, there are 814,960.

    The activations of its class capsules are shares of 1, class probabilities; it is trained with
    the logarithm of that of the label (`--loss cross_entropy` of the training program, which takes
    shares of the activations of any other routing, as the authors do in comparisons).

    Args:
        image_shape, num_classes, routing, batch_axis, dtype, param_dtype, rngs: see `create_model`.
        backbone: `"resnet"`, a residual network of three widths, each twice the one before on half
            as many rows and columns; or `"convnet"`, six convolutions up to eight times the width,
            on an eighth of the rows and columns.
        width: filters of the first convolution.
        blocks: residual blocks of each width, 3 for ResNet-20; of `"resnet"` alone.
        caps_types, caps_dim: types of capsules in each layer below the classes, and the dimension
            of their poses. In the coupling, they are ordered as `in_a_list` has them.
        conv_caps: layers of convolutional capsules between primary and class capsules, of 3x3
            windows; the first one above a `"resnet"` has a stride of 2.
        class_dim: dimension of the class capsules' poses. If not given, with self-routing, which
            needs no votes, capsules vote for the classes with their own poses, without matrices, as
            published; another routing has matrices for poses of `caps_dim`.
        competition: whether an input capsule of a convolutional layer shares itself out over the
            capsules of each `"patch"` for itself, as published, or of `"all"` positions.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> model = capsjax.models.SRCapsNet(
        ...     image_shape=(8, 8, 1), num_classes=10, rngs=nnx.Rngs(0),
        ...     width=8, blocks=1, caps_types=4, caps_dim=8, conv_caps=1
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
        backbone: Literal["resnet", "convnet"] = "resnet",
        width: PositiveInt = 16,
        blocks: PositiveInt = 3,
        caps_types: PositiveInt = 32,
        caps_dim: PositiveInt = 16,
        conv_caps: NotNegativeInt = 0,
        class_dim: PositiveInt | None = None,
        competition: Competition = "patch",
        routing: AnyRouting = "self-routing",
        batch_axis: str | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        options = self.made_for(image_shape, num_classes, dtype, param_dtype, rngs)
        normalized = {"batch_axis": batch_axis, **options}
        routing = as_routing(routing)
        self.features: ResidualFeatures | nnx.Sequential
        if backbone == "convnet":
            self.features, shape = _convnet(image_shape, width, **normalized)
        else:
            self.features = ResidualFeatures(
                image_shape,
                features=(width, 2 * width, 4 * width),
                blocks=(blocks, blocks, blocks),
                strides=(1, 2, 2),
                shortcut="zeros",
                kernel_init=nnx.initializers.he_uniform(),
                **normalized,
            )
            shape = self.features.output_shape
        self.primary_caps = ConvPrimaryCaps(
            shape,
            caps_types,
            caps_dim,
            kernel_size=3,
            padding=_PADDED,
            activation="logit",
            use_bias=False,
            kernel_init=nnx.initializers.he_uniform(),
            **options,
        )
        self.primary_norm = CapsuleNorm(
            caps_types, caps_dim, over="element", logits=True, **normalized
        )
        strides = [2 if backbone == "resnet" and not index else 1 for index in range(conv_caps)]
        self.conv_caps, grid = conv_caps_stack(
            self.primary_caps.output_shape,
            ([caps_types] * conv_caps, [3] * conv_caps, strides),
            lambda *_: _caps_init,
            padding=_PADDED,
            routing=routing,
            competition=competition,
            **options,
        )
        self.conv_norms = nnx.List(
            CapsuleNorm(caps_types, caps_dim, over="element", **normalized) for _ in strides
        )
        votes_with_poses = class_dim is None and isinstance(routing, SelfRouting)
        self.class_caps = DenseCaps(
            math.prod(grid[:3]),
            caps_dim,
            num_classes,
            caps_dim if class_dim is None else class_dim,
            transform=None if votes_with_poses else "linear",
            routing=routing,
            **options,
        )

    def encode(self, images: jax.Array, keys: Keys = NOTHING_DRAWN) -> RoutedCapsules:
        capsules = self.primary_norm(self.primary_caps(self.features(images)))
        for layer, norm in zip(self.conv_caps, self.conv_norms, strict=True):
            capsules = norm(layer(capsules, **next(keys)).capsules)
        return self.class_caps(in_a_list(capsules), **next(keys))


def _convnet(shape: Sequence[int], width: int, **options: Any) -> tuple[nnx.Sequential, Any]:
    """The network that the authors have for smallNORB up to its primary capsules, and its shape."""
    layers = []
    for factor, stride in ((1, 1), (2, 2), (2, 1), (4, 2), (4, 1), (8, 2)):
        layer = NormalizedConv(
            shape, factor * width, kernel_size=3, stride=stride, padding=_PADDED, **options
        )
        layers.append(layer)
        shape = layer.output_shape
    return nnx.Sequential(*layers), shape
