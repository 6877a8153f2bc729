"""The network, its routing and its precision."""

from dataclasses import dataclass
from typing import Any

import capsjax
from train.config.setting import POSITIVE, Checked, setting

DTYPES = ("float32", "bfloat16", "float64")

FILE_SEPARATOR = ".py:"
"""In the place of a name: a file of the user's, and what in it."""


@dataclass(frozen=True)
class ModelConfig(Checked):
    """The network, its routing and its precision.

    Raises:
        UserError: on a value out of its range or a name that does not exist.
    """

    name: str = setting("capsnet", "network to train", tuple(capsjax.list_models()), name="model")
    options: dict[str, Any] = setting(
        dict,
        "arguments that differ from the published ones",
        name="model_options",
    )
    routing: str = setting(
        "dynamic",
        "routing algorithm, or FILE.py:NAME of one of your own, whose code is run",
        tuple(capsjax.list_routings()),
        also=lambda name: FILE_SEPARATOR in name,
    )
    routing_iterations: int = setting(3, "routing iterations", bound=POSITIVE)
    routing_options: dict[str, Any] = setting(dict, "further arguments of the routing")
    dtype: str = setting("float32", "dtype of the computation", DTYPES)
    param_dtype: str = setting("float32", "dtype of the parameters", DTYPES)
    remat: bool = setting(
        False, "compute what is inside a layer anew for the gradient, to save memory"
    )
