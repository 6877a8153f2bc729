"""The weights that a run starts from, where they are those of another."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import capsjax
from capsjax.models import options_of, tensors_of
from train.config.fit_config import FitConfig
from train.distributed import processes
from train.learn.network import build_model
from train.learn.pmap import replicate
from train.learn.trainer import Trainer
from train.report.loading import load_model, network_of
from train.run.folder import load_run
from train.system.errors import UserError

_ANY = {
    *("dtype", "param_dtype", "remat", "routing", "routing_implementation"),
    *("initial_values", "dropout"),
}
"""Options of a network that its weights do not depend on."""

_DECODER = "decoder"


def start_from_weights(trainer: Trainer) -> None:
    """Gives a network in training the weights that its configuration wants, if it wants any.

    Where the classes are more or fewer, what depends on their number keeps its own initial values,
    and so do a decoder or parameters of a routing of another kind; that is told on stderr.

    Raises:
        UserError: there are no such weights, they are of another network, or something that is to
            be frozen would keep its initial values.
    """
    config, dataset = trainer.config, trainer.dataset
    name = config.model.init_from
    if name is None:
        return
    source = _source(name)
    own = nnx.eval_shape(lambda: build_model(config, dataset.image_shape, dataset.num_classes))
    _require_same_network(name, source, own, config)
    tensors, wanted = tensors_of(source.model), _shapes(own)
    like = nnx.eval_shape(lambda: build_model(config, dataset.image_shape, len(source.class_names)))
    of_classes = {n for n, shape in _shapes(like).items() if shape != wanted[n]}
    anew = _anew(name, tensors, wanted, _shapes(like))
    if frozen := sorted(n for n in anew if n.partition(".")[0] in config.optimizer.freeze):
        raise UserError(
            f"--freeze would keep {frozen[0]} at its initial values, since {name} has none for it: "
            "freeze other parts."
        )
    state = trainer.state

    def placed(tree: Any) -> Any:
        def value(path: Any, leaf: jax.Array) -> jax.Array:
            own_name = jax.tree_util.keystr(path, simple=True, separator=".")
            return leaf if own_name in anew else jnp.asarray(tensors[own_name], leaf.dtype)

        return jax.tree_util.tree_map_with_path(value, tree)

    params = placed(state.params)
    average = state.average and jax.tree.map(
        lambda new, old: new.astype(old.dtype), params, state.average
    )
    started = state._replace(params=params, model_state=placed(state.model_state), average=average)
    trainer.state = replicate(started, trainer.mesh)
    _tell(name, source, trainer, anew, of_classes)


def _source(name: str) -> capsjax.Network:
    path = Path(name)
    if processes.any_process(path.is_dir()):
        with processes.all_or_none():
            run = load_run(path)
        return network_of(run, load_model(run, "last"))
    try:
        return capsjax.load(name)
    except ValueError as error:
        raise UserError(f"--init-from {error}.") from error


def _require_same_network(
    name: str, source: capsjax.Network, own: nnx.Module, config: FitConfig
) -> None:
    (found, options), (wanted, own_options) = options_of(source.model), options_of(own)
    if found != wanted:
        raise UserError(
            f"--init-from {name} is a network {found}, and this one is to be {wanted}: choose "
            f"--model {found}, or other weights."
        )
    different = [
        option
        for option, value in own_options.items()
        if options.get(option) != value and option not in _ANY and not option.startswith(_DECODER)
    ]
    if different:
        of_source, of_own = (
            ", ".join(f"{n}={v[n]!r}" for n in different) for v in (options, own_options)
        )
        raise UserError(
            f"--init-from {name} is a {found} with {of_source}, and this one is to have {of_own}: "
            "give its --model-options, or other weights."
        )
    shape, own_shape = source.model.image_shape, own.image_shape  # type: ignore[attr-defined]
    if tuple(shape) != tuple(own_shape):
        raise UserError(
            f"--init-from {name} is a network for images of {tuple(shape)}, and these are of "
            f"{tuple(own_shape)}: bring them to that size, or choose other weights."
        )


def _shapes(model: nnx.Module) -> dict[str, tuple[int, ...]]:
    return {name: leaf.shape for name, leaf in tensors_of(model).items()}


def _anew(
    name: str,
    tensors: Mapping[str, jax.Array],
    wanted: Mapping[str, tuple[int, ...]],
    like: Mapping[str, tuple[int, ...]],
) -> set[str]:
    """The tensors that keep their own initial values.

    They are wanted of some shapes, and would be `like` others for as many classes as the tensors
    are of.
    """
    fitting = {n for n, shape in like.items() if n in tensors and tensors[n].shape == shape}
    anew = wanted.keys() - fitting
    if any(n.startswith(f"{_DECODER}.") for n in anew):
        anew |= {n for n in wanted if n.startswith(f"{_DECODER}.")}
    strange = {
        n
        for n in anew | (tensors.keys() - wanted.keys())
        if not n.startswith(f"{_DECODER}.") and "routing" not in n.split(".")
    }
    if strange:
        first = min(strange)
        there = "has it otherwise" if first in tensors else "lacks it"
        raise UserError(
            f"--init-from {name} is of another architecture: of {first}, which this network "
            f"{'has' if first in wanted else 'lacks'}, it {there}."
        )
    return anew | {n for n in fitting if like[n] != wanted[n]}


def _tell(
    name: str,
    source: capsjax.Network,
    trainer: Trainer,
    anew: Iterable[str],
    of_classes: Iterable[str],
) -> None:
    if not processes.is_first():
        return
    dataset, notes = trainer.dataset, []
    if by_classes := sorted(set(anew) & set(of_classes)):
        notes.append(
            f"{', '.join(by_classes)} start anew: it has {len(source.class_names)} classes, and "
            f"{dataset.name} has {dataset.num_classes}"
        )
    elif source.class_names != dataset.class_names:
        first = next(
            pair
            for pair in zip(source.class_names, dataset.class_names, strict=True)
            if len(set(pair)) > 1
        )
        notes.append("its classes have other names, such as {!r} for {!r}".format(*first))
    if others := sorted(set(anew) - set(of_classes)):
        notes.append(f"{', '.join(others)} start anew: it has none of this form")
    if source.preprocessing != trainer.config.data.preprocessing:
        notes.append(f"it saw images as {source.preprocessing}")
    for note in notes:
        print(f"note: of --init-from {name}, {note}", file=sys.stderr)
