"""The convolutional networks that capsules are compared with."""

from collections.abc import Mapping
from typing import Any

from train.config.fit_config import FitConfig
from train.config.model import ModelConfig

PUBLISHED: Mapping[str, Any] = {}
"""That of Sabour, Frosst and Hinton 2017, section 5."""

SMALL: Mapping[str, Any] = {
    "features": [32, 64, 64],
    "pool": 2,
    "hidden": [1024, 512],
}
"""About as many parameters as the CapsNet of `mnist-small` has, and three times its speed."""


def baseline(
    capsnet: FitConfig, network: Mapping[str, Any], *, loss: str = "cross_entropy"
) -> FitConfig:
    """A convolutional network, trained on the same examples for as long as a capsule network.

    Args:
        capsnet: how that is trained.
        network: options of the model `cnn`; none are the published one.
        loss: what tells it classes apart.

    Returns:
        The configuration, with Adam's default learning rate, as published.
    """
    return capsnet.changed(
        model="cnn",
        model_options=dict(network),
        routing=ModelConfig.routing,
        routing_options={},
        loss=loss,
        spread_steps=0,
        learning_rate=0.001,
    )
