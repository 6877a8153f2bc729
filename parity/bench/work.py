"""What every contender does: a published network, and images of the shape that it was made for."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from train.system.errors import UserError, require_known

_MNIST, _CIFAR, _NORB = ((28, 28, 1), 10), ((32, 32, 3), 10), ((32, 32, 2), 5)

PUBLISHED: dict[str, tuple[tuple[int, int, int], int]] = {
    "aff_capsnet": _MNIST,
    "attention_capsnet": _CIFAR,
    "capsnet": _MNIST,
    "cnn": _MNIST,
    "deepcaps": ((64, 64, 3), 10),  # CIFAR-10, enlarged
    "efficient_capsnet": _MNIST,
    "matrix_capsnet": _NORB,  # patches of smallNORB
    "sr_capsnet": _CIFAR,
    "vb_capsnet": _NORB,
}
"""By the names of `capsjax.list_models()`, `(height, width, channels)` of images, and classes."""

# Where a network's defaults are those for other images, or say in capsjax what its reference has to
# be told; and nothing is drawn, in which the frameworks would differ.
_SPELT_OUT: dict[str, Mapping[str, Any]] = {
    "cnn": {"kernel_size": (5, 5, 5), "dropout": 0.0},
    "deepcaps": {"decoder_features": (64, 32, 16, 8), "decoder_strides": (1, 2, 2, 2)},
    "efficient_capsnet": {"primary_kernel": 9},
}


class Work(NamedTuple):
    """What every contender does."""

    model: str  # of `PUBLISHED`
    dtype: str  # "float32" or "bfloat16", of convolutions, votes and decoder
    iterations: int | None  # of the routing, if it iterates
    loss: str  # of the classes, by its name in `--loss`
    options: Mapping[str, Any]  # of the network, that its reference takes too
    images: np.ndarray  # of a step, uint8 `[batch, height, width, channels]`
    labels: np.ndarray  # int32 `[batch]`
    num_classes: int

    @property
    def batch_size(self) -> int:
        """Images in a step."""
        return len(self.images)

    @property
    def arguments(self) -> dict[str, Any]:
        """Those of the PyTorch network."""
        shape, iterations = self.images.shape[1:], self.iterations
        iterated = {} if iterations is None else {"iterations": iterations}
        sizes = {"image_shape": shape, "num_classes": self.num_classes}
        return {**sizes, **self.options, **iterated}


def make_work(
    model: str,
    batch_size: int,
    *,
    dtype: str = "float32",
    iterations: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Work:
    """The work of one network and batch size, on random images.

    Iterations are the published ones if None; options are those that differ from the published.

    Raises:
        UserError: there is no such network, or iterations are given of one that has none.
    """
    import capsjax
    from parity.reference.models import MODELS

    require_known("model", [model], PUBLISHED)
    kind, published = MODELS[model], capsjax.models.published_options(model)
    if kind.with_iterations(1):
        routing: Any = capsjax.create_routing(published["routing"])
        iterations = iterations or routing.iterations
    elif iterations is not None:
        raise UserError(f"{model} has no routing iterations: leave --routing-iterations out.")
    shape, num_classes = PUBLISHED[model]
    chosen = {**published, **_SPELT_OUT.get(model, {}), **(options or {})}
    chosen.pop("hidden_capsules", None)  # of which there are none, as in `parity.reference.CapsNet`
    random = np.random.default_rng(0)
    return Work(
        model,
        dtype,
        iterations,
        kind.loss,
        {name: chosen[name] for name in kind.tiny if name in chosen},
        random.integers(0, 256, (batch_size, *shape), dtype=np.uint8),
        random.integers(0, num_classes, batch_size, dtype=np.int32),
        num_classes,
    )
