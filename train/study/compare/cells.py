"""The cells of a comparison: each model with each routing on each data set, and its training."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import capsjax
from train.config.checked import flag
from train.config.config_file import EARLY_END, completed
from train.config.fit_config import FitConfig, as_said, require_heeded, with_options
from train.data import as_file_name, is_dataset, list_datasets
from train.data.catalog import SOURCES
from train.learn.network import require_used
from train.learn.user_routing import code_fingerprint, is_own, trust
from train.presets import get_preset, list_presets
from train.run.folder import ROUTING
from train.system.errors import UserError, require_known

PUBLISHED = "published"
"""In the place of a routing: the one that the model was published with."""

NONE = "none"
"""The routing of a model that has none to choose."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """A network that is compared."""

    model: str  # a name of `capsjax.list_models()`
    routing: str  # a name, `FILE.py:NAME`, or `NONE`
    dataset: str  # a name of `list_datasets()`
    config: FitConfig  # how it is trained; its seed is not used

    @property
    def name(self) -> str:
        """The name, which is a file name, too."""
        routing = self.routing.rpartition("/")[2].replace(":", "-")
        return f"{as_file_name(self.dataset)}-{self.model}-{routing}"

    @property
    def label(self) -> str:
        """The name in a figure."""
        routing = self.routing.rpartition(":")[2]
        return self.model if self.routing == NONE else f"{self.model}, {routing}"

    def identity(
        self,
        seeds: int,
        robustness_examples: int,
        folds: int | None,
        fingerprints: Mapping[str, str],
    ) -> dict[str, Any]:
        """All that decides the numbers of the cell, as plain values, to compare a kept result by.

        Arguments are those of `train.study.compare.comparison.compare`, and the fingerprints of the
        images, by their splits.
        """
        code = code_fingerprint(self.routing)
        return {
            "seeds": list(range(seeds)),
            "config": {**self.config.flat(), "seed": 0},
            "robustness_examples": robustness_examples,
            **({} if folds is None else {"folds": folds}),
            "fingerprints": {**fingerprints, **({ROUTING: code} if code else {})},
        }


def list_cells(
    models: Sequence[str],
    routings: Sequence[str],
    datasets: Sequence[str],
    settings: Mapping[str, Any],
    recipe: str | None = None,
) -> list[Cell]:
    """All combinations that there are: a model without a choice of routings is one cell.

    Routings are names, `FILE.py:NAME` of one's own, whose code is run, or `PUBLISHED`. Settings, by
    the flat names of `FitConfig`, are those that all have in common; options of model and routing
    come beside those of its recipe. All cells take from a recipe how images are prepared, the
    optimiser and the schedule; without one, each model is trained by its own (`own_recipe`). None
    ends early: all are trained for as long as their recipes say.

    Raises:
        UserError: a name does not exist, a value is out of its range, steps and epochs are both
            given, a setting says nothing in any cell, or two cells would have one file.
    """
    values = as_said(settings)
    for routing in routings:
        trust(routing)
    require_known("model", models, capsjax.list_models())
    known = [PUBLISHED, *capsjax.list_routings()]
    require_known("routing", [name for name in routings if not is_own(name)], known)
    require_known("data set", [n for n in datasets if not is_dataset(n)], list_datasets())
    cells = []
    for dataset in datasets:
        for model in models:
            published = capsjax.models.published_routing(model)
            base = own_recipe(model, dataset)
            if recipe is not None:
                base = _trained_as(base, get_preset(recipe))
            for routing in routings if published else [NONE]:
                chosen = published if routing == PUBLISHED else routing
                config = base.changed(**dict.fromkeys(EARLY_END))
                if published and chosen != base.model.routing:
                    # The recipe's options are of another routing.
                    config = config.changed(routing=chosen, routing_options={})
                given = values if published else values | {"routing_options": {}}
                config = config.changed(**with_options(config, given))
                cells.append(Cell(model, chosen or NONE, dataset, config))
    require_heeded(settings, (cell.config for cell in cells))
    require_used(settings, [cell.config.model for cell in cells])
    by_name = {cell.name: cell for cell in cells}  # each once
    for cell in cells:
        if (other := by_name[cell.name]) != cell:
            names = (cell.routing, other.routing)
            if names[0] == names[1]:
                names = (cell.dataset, other.dataset)
            raise UserError(
                f"{names[0]} and {names[1]} would have the same name here, {cell.name}: give one "
                "of them another name."
            )
    return list(by_name.values())


def _trained_as(config: FitConfig, recipe: FitConfig) -> FitConfig:
    """A configuration with what another says of images, optimiser and schedule."""
    data = dataclasses.replace(recipe.data, dataset=config.data.dataset)
    return dataclasses.replace(
        config, data=data, optimizer=recipe.optimizer, schedule=recipe.schedule
    )


def own_recipe(model: str, dataset: str) -> FitConfig:
    """The configuration by which a model is trained on a data set.

    A recipe for both if there is one, `DATASET-MODEL`, or for the data set, if that is of this
    model; otherwise the model's published sizes as in its recipe for the embedded digits, for as
    long as the data set's recipe says and with images prepared as there. Data sets of the same
    official files, as the splits of smallNORB are, have one recipe. A UserError if there is none.
    """
    presets = list_presets()
    source = SOURCES.get(dataset)
    of_files = source.tfds_name if source else dataset
    of_dataset = get_preset(of_files) if of_files in presets else None
    for name in (f"{of_files}-{model}", of_files):
        if name in presets and get_preset(name).model.name == model:
            return get_preset(name).changed(dataset=dataset)
    digits = "digits" if get_preset("digits").model.name == model else f"digits-{model}"
    if digits not in presets:
        raise UserError(f"there is no recipe to train {model} on {dataset} by.")
    config = get_preset(digits)
    if of_dataset is not None:
        epochs, batch_size = of_dataset.schedule.epochs, of_dataset.schedule.batch_size
        config = config.changed(epochs=epochs, steps=None, batch_size=batch_size)
        config = dataclasses.replace(config, data=of_dataset.data)
    return config.changed(preset=f"{dataset}-{model}", dataset=dataset, model_options={})


def difference(wanted: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """In what a cell's identity and that of a kept result differ, for a message."""
    kept = result["identity"]
    kept = {**kept, "config": completed(kept["config"])}
    for name in ("seeds", "folds"):
        if kept.get(name) != wanted.get(name):
            return f"{name} {kept.get(name)}, now {wanted.get(name)}"
    before, now = kept.get("fingerprints"), wanted["fingerprints"]
    if before is None:
        return "images of which nothing was kept"
    if changed := [name for name in {**before, **now} if before.get(name) != now.get(name)]:
        return " and ".join(
            "another code of the routing" if name == ROUTING else f"other {name} images"
            for name in changed
        )
    ours, theirs = wanted["config"], kept["config"]
    names = [name for name in ours if theirs.get(name) != ours[name]]
    texts = [f"{flag(name)} {theirs.get(name)!r}, now {ours[name]!r}" for name in names]
    return ", ".join(texts) or ("" if kept == wanted else "other options")
