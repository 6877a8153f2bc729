"""The self-routing capsule network of Hahn, Pyeon and Kim 2019."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax import _checks
from capsjax.capsules import in_a_list
from capsjax.layers import ConvCaps, ConvPrimaryCaps, DenseCaps, ResidualFeatures
from capsjax.layers.capsule_norm import CapsuleNorm
from capsjax.layers.normalized import NormalizedConv
from capsjax.models.output import CapsNetOutput
from capsjax.ops.patches import Padding
from capsjax.routing import Routing, SelfRouter, SelfRouting, UnsizedRouting, as_routing
from capsjax.routing.patches import Competition

BACKBONES = ("resnet", "convnet")

_PADDED: Padding = ((1, 1), (1, 1))

# As the authors' code draws a matrix of every capsule in sight, with all its outputs for inputs.
_caps_init = nnx.initializers.variance_scaling(
    2.0, "fan_in", "uniform", in_axis=(-3, -2, -1), out_axis=()
)


class SRCapsNet(nnx.Module):
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
        image_shape: `(height, width, channels)` of one image.
        num_classes: number of class capsules.
        backbone: `"resnet"`, a residual network of three widths, each twice the one before on half
            as many rows and columns; or `"convnet"`, six convolutions up to eight times the width,
            on an eighth of the rows and columns.
        width: filters of the first convolution.
        blocks: residual blocks of each width, 3 for ResNet-20; of `"resnet"` alone.
        caps_types: types of primary capsules, and of each layer above.
        caps_dim: dimension of their poses.
        conv_caps: layers of convolutional capsules between primary and class capsules, of 3x3
            windows; the first one above a `"resnet"` has a stride of 2.
        class_dim: dimension of the class capsules' poses. If not given, with self-routing, which
            needs no votes, capsules vote for the classes with their own poses, without matrices, as
            published; another routing has matrices for poses of `caps_dim`.
        competition: whether an input capsule of a convolutional layer shares itself out over the
            capsules of each `"patch"` for itself, as published, or of `"all"` positions.
        routing: how capsules come about; a name, or an object.
        batch_axis: name of the mapped axis over which a batch is spread, so that it is normalised
            as a whole; None where a batch is in one piece.
        dtype: dtype of convolutions and votes; statistics of a batch, what routing makes of votes,
            and what the model returns, are float32 at least.
        param_dtype: dtype of the parameters.
        rngs: source of the initial values.

    Raises:
        ValueError: a size is not a positive integer, or another argument has a wrong value.
    """

    def __init__(
        self,
        *,
        image_shape: Sequence[int],
        num_classes: int,
        backbone: Literal["resnet", "convnet"] = "resnet",
        width: int = 16,
        blocks: int = 3,
        caps_types: int = 32,
        caps_dim: int = 16,
        conv_caps: int = 0,
        class_dim: int | None = None,
        competition: Competition = "patch",
        routing: str | Routing | UnsizedRouting = "self-routing",
        batch_axis: str | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        _checks.each_positive_integer(
            num_classes=num_classes,
            width=width,
            blocks=blocks,
            caps_types=caps_types,
            caps_dim=caps_dim,
        )
        _checks.one_of("backbone", backbone, BACKBONES)
        if conv_caps != 0:
            _checks.positive_integer("conv_caps, if not 0,", conv_caps)
        dtypes: dict[str, Any] = {
            "dtype": _checks.floating_dtype("dtype", dtype),
            "param_dtype": _checks.floating_dtype("param_dtype", param_dtype),
        }
        self.num_classes = num_classes
        routing = as_routing(routing)
        normalized: dict[str, Any] = {"batch_axis": batch_axis, "rngs": rngs, **dtypes}
        image_shape = _checks.image_shape(image_shape)
        self.features: ResidualFeatures | _ConvNet
        if backbone == "convnet":
            self.features = _ConvNet(image_shape, width, **normalized)
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
        self.primary_caps = ConvPrimaryCaps(
            self.features.output_shape,
            caps_types,
            caps_dim,
            kernel_size=3,
            padding=_PADDED,
            activation="logit",
            use_bias=False,
            kernel_init=nnx.initializers.he_uniform(),
            rngs=rngs,
            **dtypes,
        )
        self.primary_norm = CapsuleNorm(
            caps_types, caps_dim, over="element", logits=True, **normalized
        )
        layers: list[ConvCaps] = []
        norms: list[CapsuleNorm] = []
        grid = self.primary_caps.output_shape
        for index in range(conv_caps):
            layer = ConvCaps(
                grid,
                caps_types,
                caps_dim,
                kernel_size=3,
                stride=2 if backbone == "resnet" and index == 0 else 1,
                padding=_PADDED,
                routing=routing,
                competition=competition,
                kernel_init=_caps_init,
                rngs=rngs,
                **dtypes,
            )
            layers.append(layer)
            norms.append(CapsuleNorm(caps_types, caps_dim, over="element", **normalized))
            grid = layer.output_shape
        self.conv_caps, self.conv_norms = nnx.List(layers), nnx.List(norms)
        votes_with_poses = class_dim is None and isinstance(routing, SelfRouter | SelfRouting)
        self.class_caps = DenseCaps(
            math.prod(grid[:3]),
            caps_dim,
            num_classes,
            caps_dim if class_dim is None else _checks.positive_integer("class_dim", class_dim),
            transform=None if votes_with_poses else "linear",
            routing=routing,
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
            float32 at least. Capsule `B p + b` of those below is the one of type `b` of `B` at
            position `p = y * width + x`.
        """
        del labels
        capsules = self.primary_norm(self.primary_caps(self.features(images)))
        for layer, norm in zip(self.conv_caps, self.conv_norms, strict=True):
            capsules = norm(layer(capsules)[0])
        capsules, coupling = self.class_caps(in_a_list(capsules))
        return CapsNetOutput(capsules, capsules.activation, coupling, None)


class _ConvNet(nnx.Module):
    """The network that the authors have for smallNORB, up to its primary capsules."""

    def __init__(self, image_shape: tuple[int, int, int], width: int, **options: Any) -> None:
        layers, shape = [], image_shape
        for factor, stride in ((1, 1), (2, 2), (2, 1), (4, 2), (4, 1), (8, 2)):
            layer = NormalizedConv(
                shape, factor * width, kernel_size=3, stride=stride, padding=_PADDED, **options
            )
            layers.append(layer)
            shape = layer.output_shape
        self.layers = nnx.List(layers)
        self.output_shape = shape

    def __call__(self, maps: jax.Array) -> jax.Array:
        for layer in self.layers:
            maps = layer(maps)
        return maps
