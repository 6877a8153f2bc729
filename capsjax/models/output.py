"""The output of a network, and how a network of capsules comes to it."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from capsjax import _checks
from capsjax.capsules import Capsules
from capsjax.layers import RoutedCapsules
from capsjax.models._stored import remembers
from capsjax.routing._batching import keys_of


class CapsNetOutput(NamedTuple):
    """The output of a network for a batch of images, in float32 at least.

    Attributes:
        capsules: the class capsules, poses `[batch, classes, dim]`, activations `[batch, classes]`;
            None for a network without capsules.
        lengths: `[batch, classes]`, the presence of each class, from 0 to 1; the largest is the
            prediction.
        coupling: `[batch, in_capsules, classes]`, the coupling coefficients of the last iteration;
            None for a network without capsules.
        reconstruction: `[batch, height, width, channels]`, or `[batch, k, height, width, channels]`
            of `k` classes of each image (see `reconstruct`); None for a model without a decoder.
        logits: `[batch, classes]`, what a softmax makes class probabilities of, for models that
            have such scores; None for others.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> model = capsjax.CapsNet(
        ...     image_shape=(8, 8, 1), num_classes=10, conv_features=8, conv_kernel=3,
        ...     primary_types=2, primary_kernel=3, decoder_hidden=(16,), rngs=nnx.Rngs(0)
        ... )
        >>> output = model(jnp.ones((2, 8, 8, 1)))
        >>> output.lengths.shape, output.capsules.pose.shape, output.reconstruction.shape
        ((2, 10), (2, 10, 16), (2, 8, 8, 1))
    """

    capsules: Capsules | None
    lengths: jax.Array
    coupling: jax.Array | None
    reconstruction: jax.Array | None
    logits: jax.Array | None = None


Keys = Iterator[dict[str, jax.Array]]
"""Options of a call for one routed layer after the other: a `key` `[batch]`; none to draw nothing.

Without a `key=None`, since `nnx.tabulate` (seen in 0.12.8) cannot list what is called with None.
"""

NOTHING_DRAWN: Keys = itertools.repeat({})

Decode = Callable[[jax.Array, jax.Array], jax.Array]
"""Poses `[batch, classes, dim]` and a mask `[batch, classes]` -> images."""


def reconstruct(decoder: Decode, pose: jax.Array, classes: jax.Array) -> jax.Array:
    """Decodes the capsules of given classes, each by itself or all at once.

    Where an image shows several objects, one at a time is decoded (Sabour, Frosst and Hinton 2017,
    arXiv:1710.09829, section 6.2); where any number of classes are present, they are together.

    Args:
        decoder: of a model.
        pose: poses of all class capsules `[batch, J, D]`.
        classes: integers `[batch]`, or `[batch, k]`; or booleans `[batch, J]`, which are present.

    Returns:
        Images `[batch, height, width, channels]`, or for `[batch, k]` of them
        `[batch, k, height, width, channels]`.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> decoder = capsjax.Decoder(10, 16, (8, 8, 1), hidden=(32,), rngs=nnx.Rngs(0))
        >>> capsjax.reconstruct(decoder, jnp.ones((2, 10, 16)), jnp.array([3, 7])).shape
        (2, 8, 8, 1)
    """
    if classes.dtype == bool:
        return decoder(pose, classes.astype(pose.dtype))
    mask = jax.nn.one_hot(classes, pose.shape[1], dtype=pose.dtype)
    if classes.ndim == 1:
        return decoder(pose, mask)
    count = classes.shape[1]
    images = decoder(jnp.repeat(pose, count, axis=0), lax.collapse(mask, 0, 2))
    return images.reshape(*classes.shape, *images.shape[1:])


class CapsuleNetwork(nnx.Module):
    """A network from images to the capsules of the classes, and back if it has a decoder.

    Attributes:
        image_shape: `(height, width, channels)` of the images that it is made for.
        num_classes: number of classes.
        decoder: a `Decode`; None for none.
        decoder_option: of a class, the option that is None for no decoder.
        stream: of a class, the stream of `rngs` that it draws from after `train()`, not after
            `eval()`, as `flax.nnx.Dropout` does; without one nothing is drawn.
        arguments: what its class was called with, as JSON; see `capsjax.save`.
    """

    decoder: Any = None
    decoder_option = "decoder_hidden"
    stream = "routing"
    arguments: str

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = remembers(cls.__init__)  # type: ignore[method-assign]

    def made_for(
        self,
        image_shape: Sequence[int],
        num_classes: int,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> dict[str, Any]:
        """Keeps what the network is made for, and its stream; returns the options of its layers.

        A ValueError if a dtype is no float, or it is no shape of an image.
        """
        self.image_shape, self.num_classes = _checks.image_shape(image_shape), num_classes
        self.deterministic = False  # the name that `train()` and `eval()` look for
        self.draw_from(rngs)
        return {
            "dtype": _checks.computed_dtype("dtype", dtype),
            "param_dtype": _checks.computed_dtype("param_dtype", param_dtype),
            "rngs": rngs,
        }

    def draw_from(self, rngs: nnx.Rngs) -> None:
        """Keeps a stream of its own, for what is drawn in training, if there is one in `rngs`."""
        self.rngs = nnx.data(rngs[self.stream].fork() if self.stream in rngs else None)

    def encode(self, images: jax.Array, keys: Keys = NOTHING_DRAWN) -> RoutedCapsules:
        """Images `[batch, height, width, channels]` -> class capsules and their coupling.

        Each routed layer is called with the next of the keys.
        """
        raise NotImplementedError

    def logits(self, capsules: Capsules) -> jax.Array | None:
        """The logits `[batch, classes]` of the class capsules, if there are such."""
        return None

    def decode(self, pose: jax.Array, mask: jax.Array) -> jax.Array:
        """Poses `[batch, classes, dim]` and a mask `[batch, classes]` -> images."""
        return self.decoder(pose, mask)

    def __call__(
        self, images: jax.Array, labels: jax.Array | None = None, *, keys: jax.Array | None = None
    ) -> CapsNetOutput:
        """Runs the network on a batch of images.

        Args:
            images: floats `[batch, *image_shape]`, from 0 to 1 where they are to be reconstructed.
            labels: `[batch]` integers: the classes whose capsules the decoder sees, in training;
                or `[batch, k]`, for a reconstruction of each; or booleans `[batch, classes]`,
                whether each is present. Without them it sees the longest.
            keys: random keys `[batch]`, one for each image, or a single one of which each gets its
                own, instead of the model's own stream, for what is drawn in training.

        Returns:
            Capsules, lengths, coupling, and reconstruction and logits if the network has such, in
            float32 at least.

        Raises:
            ValueError: images are of another shape or no floats, or labels are no such integers,
                such as one-hot ones, or no classes.
        """
        self.check(images, labels)
        keys = self._drawn(images, keys)
        capsules, coupling = self.encode(images, *(() if keys is None else (_each(keys),)))
        shown, logits = self._shown(capsules, labels), self.logits(capsules)
        return CapsNetOutput(capsules, capsules.activation, coupling, shown, logits)

    def _drawn(self, images: jax.Array, keys: jax.Array | None) -> jax.Array | None:
        """The keys of images, given or of the stream; None where nothing is to be drawn."""
        if self.deterministic:
            return None
        if keys is None and self.rngs is not None:
            keys = self.rngs()
        return None if keys is None else keys_of(keys, images.shape[:1])

    def _shown(self, capsules: Capsules, labels: jax.Array | None) -> jax.Array | None:
        """`reconstruct` of the classes `labels`, or of the longest; None without a decoder."""
        if self.decoder is None:
            return None
        classes = jnp.argmax(capsules.activation, axis=-1) if labels is None else labels
        return reconstruct(self.decode, capsules.pose, classes)

    def check(self, images: jax.Array, labels: jax.Array | None) -> None:
        """Raises a ValueError if images or labels are none that a call takes.

        The numbers of the labels are seen where they are not traced, as by `jax.jit`.
        """
        _checks.of_each("images", images, self.image_shape)
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(
                f"images must be floats, not {images.dtype}: scale them as for training, such as "
                "images / 255"
            )
        if labels is None or (
            labels.dtype == bool and labels.shape == (images.shape[0], self.num_classes)
        ):
            return
        # As many labels as classes are one-hot ones: which class it is would say nothing.
        is_one_hot = labels.ndim == 2 and labels.shape[1] >= max(self.num_classes, 2)
        is_integer = jnp.issubdtype(labels.dtype, jnp.integer)
        is_of_batch = labels.ndim in (1, 2) and labels.shape[0] == images.shape[0]
        if not is_integer or not is_of_batch or is_one_hot:
            raise ValueError(
                f"labels must be integers [batch], or [batch, k] of fewer than {self.num_classes} "
                f"classes, of {images.shape[0]} images, not {labels.dtype} {list(labels.shape)}: "
                "of one-hot labels, give labels.argmax(axis=-1), of several classes, booleans "
                "[batch, classes]"
            )
        is_array = isinstance(labels, np.ndarray | jax.Array)
        if not is_array or isinstance(labels, jax.core.Tracer):
            return
        if not getattr(labels, "is_fully_addressable", True):
            return
        seen = np.asarray(labels)  # also under a trace, where what JAX computes of them is none
        if ((seen < 0) | (seen >= self.num_classes)).any():
            raise ValueError(
                f"labels must be from 0 to {self.num_classes - 1}, not {seen.min()} to {seen.max()}"
            )


def _each(keys: jax.Array) -> Keys:
    """The keys of one layer after the other, of those of the images."""
    for number in itertools.count():
        yield {"key": jax.vmap(jax.random.fold_in, (0, None))(keys, number)}
