"""Recipes, one a file: the docstring tells how to run it, on what, and what comes out."""

import inspect

from train.config.fit_config import FitConfig
from train.presets import (
    affnist,
    affnist_small,
    cifar10,
    digits,
    digits_aff_capsnet,
    digits_attention_capsnet,
    digits_cnn,
    digits_deepcaps,
    digits_efficient_capsnet,
    digits_matrix_capsnet,
    digits_sr_capsnet,
    digits_vb_capsnet,
    efficient_capsnet,
    fashion_mnist,
    kmnist,
    mnist,
    mnist_large_batch,
    mnist_small,
    multi_mnist,
    multi_mnist_small,
    smallnorb,
    smallnorb_matrix_capsnet,
    svhn_cropped,
)
from train.system.errors import UserError

_RECIPES = {
    "affnist": affnist,
    "affnist-small": affnist_small,
    "cifar10": cifar10,
    "digits": digits,
    "digits-aff_capsnet": digits_aff_capsnet,
    "digits-cnn": digits_cnn,
    "digits-deepcaps": digits_deepcaps,
    "digits-attention_capsnet": digits_attention_capsnet,
    "digits-efficient_capsnet": digits_efficient_capsnet,
    "digits-matrix_capsnet": digits_matrix_capsnet,
    "digits-sr_capsnet": digits_sr_capsnet,
    "digits-vb_capsnet": digits_vb_capsnet,
    "fashion_mnist": fashion_mnist,
    "kmnist": kmnist,
    "mnist": mnist,
    "mnist-efficient_capsnet": efficient_capsnet,
    "mnist-large-batch": mnist_large_batch,
    "mnist-small": mnist_small,
    "multi_mnist": multi_mnist,
    "multi_mnist-small": multi_mnist_small,
    "smallnorb": smallnorb,
    "smallnorb-matrix_capsnet": smallnorb_matrix_capsnet,
    "svhn_cropped": svhn_cropped,
}


def list_presets() -> list[str]:
    """The names that `get_preset` takes."""
    return sorted(_RECIPES)


def get_preset(name: str) -> FitConfig:
    """The configuration of a recipe.

    Raises:
        UserError: if there is no recipe of that name.
    """
    return _recipe(name).CONFIG


def describe_preset(name: str) -> str:
    """The text of a recipe: what it is, how to run it, and what to expect.

    Raises:
        UserError: if there is no recipe of that name.
    """
    return inspect.cleandoc(_recipe(name).__doc__ or "")


def _recipe(name: str):  # type: ignore[no-untyped-def]  # a module with CONFIG
    if name not in _RECIPES:
        raise UserError(f"unknown preset {name!r}, choose from: {', '.join(list_presets())}.")
    return _RECIPES[name]
