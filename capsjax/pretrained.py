"""A trained network as one file, with all that it takes to use it."""

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from capsjax import _checks
from capsjax._version import __version__
from capsjax.models import describe_model, restore_model, tensors_of
from capsjax.preprocessing import Preprocessing, fitted
from capsjax.weights import (
    FLOATS,
    Contents,
    list_pretrained,
    read_pretrained,
    read_weights,
    write_weights,
)

BATCH = 64
"""Images that `predict` computes at once."""

PRESENT = 0.5
"""The length beyond which a class is taken to be present, half-way between the two margins."""


class Prediction(NamedTuple):
    """What a network takes `n` images for.

    Attributes:
        classes: the name of each image's class, that of the largest length.
        labels: int32 `[n]`, the numbers of these classes.
        lengths: `[n, classes]`, the presence of each class, from 0 to 1: the lengths of the class
            capsules, or for a network with a softmax its probabilities. Float32 at least.
        class_names: the names of all classes.
        present: the names of the classes that each image shows, the longest first: as many as the
            network's `labels_per_image`, or all that are longer than `PRESENT`.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    lengths: np.ndarray
    class_names: tuple[str, ...]
    present: tuple[tuple[str, ...], ...]

    def top(self, count: int) -> list[dict[str, float]]:
        """Of each image the most present classes and their lengths, the longest first.

        So many, or all there are: for images that show several objects, or to see what came close.

        Examples:
            >>> import capsjax, numpy as np
            >>> images = np.zeros((1, 8, 8, 1), np.uint8)
            >>> [of_image] = capsjax.load("capsnet/digits").predict(images).top(2)
            >>> len(of_image)
            2
        """
        longest = np.argsort(-self.lengths, axis=-1, kind="stable")[:, :count]
        return [
            {self.class_names[label]: float(lengths[label]) for label in labels}
            for labels, lengths in zip(longest, self.lengths, strict=True)
        ]


class Network:
    """A network for images as they come: what is done to them, the model, and names for classes.

    Args:
        model: a network of `capsjax.models`, or any `flax.nnx.Module` that returns a
            `CapsNetOutput` of a batch of images. It may have an `image_shape` and `num_classes`.
        class_names: a name for each class, no two alike; their numbers if not given.
        preprocessing: what is done to images; by default pixels are scaled to 0 to 1.
        image_shape: `(height, width, channels)` of the images, before a crop; that of the model if
            not given.
        labels_per_image: how many classes an image shows; None for any number of them.

    Raises:
        ValueError: class names are alike, they, the image shape and the model do not fit each
            other, they are not given and the model does not have them, or an image cannot show so
            many classes.

    Examples:
        >>> import capsjax, numpy as np
        >>> network = capsjax.load("capsnet/digits")
        >>> network.predict(np.zeros((5, 8, 8, 1), np.uint8)).lengths.shape
        (5, 10)
    """

    def __init__(
        self,
        model: nnx.Module,
        class_names: Sequence[str] | None = None,
        *,
        preprocessing: Preprocessing | None = None,
        image_shape: Sequence[int] | None = None,
        labels_per_image: int | None = 1,
    ) -> None:
        self.model, self.preprocessing = model, preprocessing or Preprocessing()
        kind = type(model).__name__
        own_shape, count = (getattr(model, name, None) for name in ("image_shape", "num_classes"))
        for name, given, has in (
            ("image_shape", image_shape, own_shape),
            ("class_names", class_names, count),
        ):
            if given is None and has is None:
                raise ValueError(f"{name} must be given: this {kind} has no such attribute")
        self.image_shape = _checks.image_shape(own_shape if image_shape is None else image_shape)
        seen = self.preprocessing.seen_shape(self.image_shape)
        numbers = [str(number) for number in range(count or 0)]
        self.class_names = _checks.names(
            "class_names", numbers if class_names is None else class_names
        )
        if len(set(self.class_names)) < len(self.class_names):
            raise ValueError(f"class_names must be different ones, not {self.class_names}")
        own_shape = seen if own_shape is None else tuple(own_shape)
        count = len(self.class_names) if count is None else count
        if seen != own_shape or len(self.class_names) != count:
            raise ValueError(
                f"images of {self.image_shape}, of which {seen} is seen, in "
                f"{len(self.class_names)} classes do not fit a {kind} for {own_shape} in {count} "
                "classes"
            )
        if labels_per_image is not None:
            labels_per_image = _checks.positive_integer("labels_per_image", labels_per_image)
        if labels_per_image is not None and labels_per_image > count:
            raise ValueError(
                f"labels_per_image must be from 1 to {count}, the number of classes, or None for "
                f"any number, not {labels_per_image}"
            )
        self.labels_per_image = labels_per_image

    def __repr__(self) -> str:
        return (
            f"Network({type(self.model).__name__}, image_shape={self.image_shape}, "
            f"{len(self.class_names)} classes)"
        )

    def predict(self, images: Any) -> Prediction:
        """Classifies images.

        Images of another size are shrunk or enlarged to fit, their proportions kept, and centred on
        black; colours become grey for a network that was trained on grey images, and the other way
        round. The rest is as in training: light drawings on dark stay light on dark, and pixels
        become floats in the dtype of the weights. They are computed some at a time, in the model's
        dtype, on the devices of its weights. Batches are
        normalised as the network has learned to, and nothing is dropped out; the model stays in the
        mode that it is in.

        Args:
            images: an array of NumPy or JAX, `[n, height, width, channels]`, or one image
                `[height, width, channels]`, or `[height, width]` in grey; uint8 from 0 to 255, or
                floats from 0 to 1.

        Returns:
            The predicted classes and all lengths, of one image as of a batch of one.

        Raises:
            ValueError: images are of another form, dtype or range, or an image of Pillow is neither
                grey (`L`) nor `RGB`.
        """
        return self.classified(self.lengths(self.pixels(images)))

    def pixels(self, images: Any) -> np.ndarray:
        """Images of `predict` as a batch `[n, *image_shape]`, in their dtype."""
        if (mode := getattr(images, "mode", "L")) not in ("L", "RGB"):  # of Pillow
            raise ValueError(
                f"an image must be grey or of red, green and blue, not of Pillow's mode {mode!r}, "
                'whose numbers are no such: give image.convert("L") or image.convert("RGB")'
            )
        array = np.asarray(images)
        if array.ndim == 2:
            array = array[..., None]
        if array.ndim == 3:
            array = array[None]
        if array.ndim != 4:
            raise ValueError(
                "images must be [n, height, width, channels], or one image without n, not "
                f"{list(np.shape(images))}"
            )
        if jnp.issubdtype(array.dtype, jnp.floating):
            low, high = (array.min(), array.max()) if array.size else (0, 0)
            if not 0 <= low <= high <= 1:
                raise ValueError(
                    f"images as floats must be from 0 to 1, not from {low} to {high}: divide them "
                    "by their largest possible value, or give uint8"
                )
        elif array.dtype != np.uint8:
            raise ValueError(
                f"images must be uint8 from 0 to 255 or floats from 0 to 1, not {array.dtype}: "
                "convert them"
            )
        return fitted(array, self.image_shape)

    def lengths(self, images: np.ndarray) -> np.ndarray:
        """The lengths `[n, classes]` of images as `pixels` returns them."""
        # Once for both: of one image, looking through a model takes as long as computing it.
        graphdef, params, rest = nnx.split(self.model, nnx.Param, ...)  # type: ignore[misc]
        variables = jax.tree.leaves(params)
        dtype = variables[0].dtype if variables else jnp.dtype(jnp.float32)
        if not len(images):
            return np.zeros((0, len(self.class_names)), np.float32)
        return np.concatenate(
            [
                _lengths(graphdef, (params, rest), self.preprocessing(jnp.asarray(some), dtype))
                for some in np.split(images, range(BATCH, len(images), BATCH))
            ]
        )

    def classified(self, lengths: np.ndarray) -> Prediction:
        """The prediction that lengths `[n, classes]` come to; of equal ones the first counts."""
        order = np.argsort(-lengths, axis=-1, kind="stable")
        labels = order[:, 0].astype(np.int32)
        counts = (lengths > PRESENT).sum(axis=-1)
        if self.labels_per_image is not None:
            counts[:] = self.labels_per_image
        names = [[self.class_names[label] for label in longest] for longest in order]
        present = (tuple(of[:count]) for of, count in zip(names, counts, strict=True))
        classes = tuple(of[0] for of in names)
        return Prediction(classes, labels, lengths, self.class_names, tuple(present))


@functools.partial(jax.jit, static_argnums=0)
def _lengths(graphdef: nnx.GraphDef, state: tuple, images: jax.Array) -> jax.Array:
    model = nnx.merge(graphdef, *state)
    model.eval()
    return model(images).lengths


def save(
    network: Network | nnx.Module,
    path: str | os.PathLike,
    *,
    dtype: DTypeLike | None = None,
    decoder: bool = True,
) -> None:
    """Writes a network as a safetensors file, whole or not at all, for `load`.

    The file holds the weights and statistics of batches, and in its metadata the model, its options
    and routing, the class names, and what is done to images. It holds no code: a routing or squash
    of one's own cannot be saved. Of several processes, one alone is to call this.

    Args:
        network: a `Network`, or a network of `capsjax.models`, which is saved as `Network(model)`.
        path: the file; it is replaced.
        dtype: what the numbers are stored in, such as `"float16"` for half the bytes; their own if
            not given. The model computes as before.
        decoder: whether the decoder is saved, if there is one: it may be most of the weights, and
            classes are told without.

    Raises:
        ValueError: a file cannot describe the network, or the dtype is no float or too narrow for a
            number.
        OSError: the file cannot be written.

    Examples:
        >>> import capsjax, tempfile
        >>> from flax import nnx
        >>> model = capsjax.create_model(
        ...     "efficient_capsnet", image_shape=(28, 28, 1), num_classes=10, rngs=nnx.Rngs(0)
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     capsjax.save(model, f"{folder}/mine.safetensors", dtype="float16")
        ...     capsjax.load(f"{folder}/mine.safetensors")
        Network(EfficientCapsNet, image_shape=(28, 28, 1), 10 classes)
    """
    if not isinstance(network, Network):
        describe_model(network)  # refuses what has no image shape
        network = Network(network)
    model, options, routing = describe_model(network.model)
    tensors: dict[str, Any] = dict(tensors_of(network.model))
    option = type(network.model).decoder_option  # type: ignore[attr-defined]
    if not decoder and option in options:
        options[option] = None
        tensors = {n: value for n, value in tensors.items() if not n.startswith("decoder.")}
    if dtype is not None:
        kind = _checks.floating_dtype("dtype", dtype)
        _checks.one_of("dtype", kind.name, FLOATS.values())
        tensors = {name: _narrowed(name, value, kind) for name, value in tensors.items()}
    fields = dataclasses.asdict(network.preprocessing)
    contents = Contents(
        model,
        network.image_shape,
        network.class_names,
        options,
        routing,
        fields,
        tensors,
        labels_per_image=network.labels_per_image,
    )
    write_weights(path, contents)


def _narrowed(name: str, value: Any, dtype: jnp.dtype) -> np.ndarray:
    wide = np.asarray(value)
    with np.errstate(over="ignore"):
        narrow = wide.astype(dtype)
    if not np.array_equal(np.isfinite(wide), np.isfinite(narrow)):
        raise ValueError(f"{name} has numbers that are too large for {dtype}: keep its dtype")
    return narrow


def load(
    path: str | os.PathLike,
    *,
    dtype: DTypeLike | None = None,
    param_dtype: DTypeLike | None = None,
    device: jax.Device | jax.sharding.Sharding | None = None,
    rngs: nnx.Rngs | None = None,
) -> Network:
    """Loads a network that `save` or `python -m train export` has written, or one that ships.

    Nothing of a file is run, and of what does not fit its own description no network is made.

    Args:
        path: the file, or a name of `list_pretrained()`.
        dtype: that of the computation, if not the one that the network had.
        param_dtype: that of the parameters, likewise.
        device: where they go, a device or a sharding; by default JAX's default device.
        rngs: source of what is drawn in training, as of `create_model`: a file has none, and
            without it nothing is drawn.

    Returns:
        The network; its `model` can be trained as any `flax.nnx.Module`, after its method `train`
        is called: it is in the mode of evaluation.

    Raises:
        ValueError: there is no such file, it is damaged, of a newer version, or holds other tensors
            than its network has; or it has float64 numbers, or shall have, and JAX's x64 mode is
            off.

    Examples:
        >>> import capsjax
        >>> capsjax.load("capsnet/digits")
        Network(CapsNet, image_shape=(8, 8, 1), 10 classes)
    """
    is_shipped = isinstance(path, str) and path in list_pretrained()
    contents = read_pretrained(str(path)) if is_shipped else read_weights(path)
    for name, value in (("dtype", dtype), ("param_dtype", param_dtype)):
        if value is not None:
            _checks.computed_dtype(name, value)
    try:
        model = restore_model(
            contents, dtype=dtype, param_dtype=param_dtype, device=device, rngs=rngs
        )
        return Network(
            model,
            contents.class_names,
            preprocessing=Preprocessing(**contents.preprocessing),
            image_shape=contents.image_shape,
            labels_per_image=contents.labels_per_image,
        )
    except Exception as error:  # a damaged description may ask JAX for anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ValueError(
            f"{path} cannot be loaded: {reason} (it was written by capsjax {contents.written_by}, "
            f"this is {__version__})"
        ) from error
