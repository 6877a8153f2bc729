"""A layout: the names and axes of a PyTorch network's tensors, read from a TOML file."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import capsjax
from parity.layouts import names
from parity.layouts.axes import Axes, parse_axes
from parity.layouts.model_table import (
    DECODER,
    ModelTable,
    list_models,
    model_table,
    parameter_names,
)
from train.config.fit_config import FitConfig
from train.config.model import ModelConfig
from train.config.saved import from_values
from train.learn.own_routing import make_routing, takes_iterations
from train.system.errors import UserError

DIALECT_FIELDS = (
    "input_mean",
    "input_std",
    "model_options",
    "routing",
    "routing_iterations",
    "routing_options",
    "loss",
    "margin_of",
    "margin_power",
    "margin_weight",
    "reconstruction_weight",
    "mask_in_training",
    "mask_in_test",
)
"""The fields of `FitConfig` in which public implementations differ."""

REDUCTIONS = ("margin_over_classes", "reconstruction_over_pixels")
"""Options of a layout beside those: whether a loss is a `"sum"`, as here, or a `"mean"`."""

FORMATS = (".pt", ".pth", ".safetensors")
ALL_FORMATS = (*FORMATS, ".h5", ".hdf5")
_KEYS = ("name", "about", "model", "aliases", "formats", "weights", "options")
_NOT_OF_A_LAYOUT = {"routing", "batch_axis"}


@dataclass(frozen=True)
class Row:
    """A tensor's name, its parameter or part of one (`{n}`: number in a list), and the axes."""

    source: names.Pattern
    target: str
    axes: Axes

    @property
    def is_repeated(self) -> bool:
        """Whether the row stands for all modules of a list."""
        return "{n}" in self.target

    @property
    def is_decoder(self) -> bool:
        """Whether the row is of a decoder, which a network need not have."""
        return names.module_list(self.target) == DECODER


@dataclass(frozen=True)
class Layout:
    """The names and axes of a PyTorch network's tensors, and the options of what it computes.

    Attributes:
        name: of the layout.
        about: whose network it is.
        aliases: other names of the layout.
        formats: the suffixes of the files in which such networks are kept.
        rows: tensors and parameters.
        options: those of `DIALECT_FIELDS` and `REDUCTIONS` that differ from the defaults, which are
            the paper's.
        model: which network it is, one of `list_models()`.
    """

    name: str
    about: str
    aliases: tuple[str, ...]
    formats: tuple[str, ...]
    rows: tuple[Row, ...]
    options: Mapping[str, Any]
    model: str = "capsnet"

    @property
    def table(self) -> ModelTable:
        """The axes and sizes of the model."""
        return model_table(self.model)

    def config(
        self, image_shape: tuple[int, int, int] | None = None, num_classes: int | None = None
    ) -> FitConfig:
        """The configuration of a network, its sizes left out.

        Args:
            image_shape: `(height, width, channels)`, by which a mean over pixels is divided.
            num_classes: by which a mean over classes is divided.
        """
        fields = {name: value for name, value in self.options.items() if name not in REDUCTIONS}
        # A decay of its own, and not one that follows the length of a run, which then could not be
        # made longer.
        config = FitConfig.of(
            preset=f"imported:{self.name}",
            model=self.model,
            decay_rate=0.96,
            decay_steps=2000,
            **fields,
        )
        changes, weights = {}, config.objective
        if num_classes and self.options.get("margin_over_classes") == "mean":
            changes["margin_weight"] = weights.margin_weight / num_classes
        if image_shape and self.options.get("reconstruction_over_pixels") == "mean":
            pixels = math.prod(image_shape)
            changes["reconstruction_weight"] = weights.reconstruction_weight / pixels
        return config.changed(**changes)


def read_layout(path: Path) -> Layout:
    """Reads a table.

    Raises:
        UserError: if the file cannot be read, or says something that no table can say.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}.") from error
    _require_known(path, "key", values, _KEYS)
    for key in ("name", "about"):
        if not isinstance(values.get(key, ""), str):
            raise UserError(f"{path}: {key} is {values[key]!r}, but must be a text.")
    model = values.get("model", Layout.model)
    _require_known(path, "model", [model], tuple(list_models()))
    layout = Layout(
        name=values.get("name", path.stem),
        about=values.get("about", ""),
        aliases=_texts(path, "aliases", values.get("aliases", ())),
        formats=_texts(path, "formats", values.get("formats", FORMATS), ALL_FORMATS),
        rows=_rows(path, values.get("weights"), model_table(model)),
        options=_options(path, values.get("options", {}), model),
        model=model,
    )
    _check_rows(path, layout)
    return layout


def _rows(path: Path, values: Any, table: ModelTable) -> tuple[Row, ...]:
    if not isinstance(values, list) or not values:
        raise UserError(
            f"{path} has no weights: give a list of rows [source, target, axes], such as "
            '["conv1.bias", "features.conv.bias", "f -> f"].'
        )
    return tuple(_row(path, value, table) for value in values)


def _row(path: Path, value: Any, table: ModelTable) -> Row:
    texts = isinstance(value, list) and all(isinstance(text, str) for text in value)
    if not texts or len(value) != 3:
        raise UserError(f"{path}: the row {value!r} is not three texts [source, target, axes].")
    source, target, axes = value
    choices = table.axes.get(names.template(target))
    if choices is None:
        known = ", ".join(table.axes)
        raise UserError(f"{path}: unknown target {target!r} of {source!r}, choose from: {known}.")
    try:
        pattern = names.Pattern(source)
        repeated = "{n}" in target
        if repeated and pattern.letter != "n":
            raise ValueError(
                f"the target {target!r} is one of several, so {source!r} needs a number of the "
                "letter n"
            )
        row = Row(pattern, target, parse_axes(axes, None if repeated else pattern.letter))
    except ValueError as error:
        raise UserError(f"{path}: {error}.") from error
    if row.axes.target not in choices:
        right = "' or '".join(choices)
        raise UserError(
            f"{path}: the axes of {target} are '{right}', not '{row.axes.target}' (in the row of "
            f"{source!r})."
        )
    return row


def _options(path: Path, values: Any, model: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise UserError(f"{path}: options must be a table of names and values, not {values!r}.")
    _require_known(path, "option", values, (*DIALECT_FIELDS, *REDUCTIONS))
    for name in REDUCTIONS:
        if values.get(name, "sum") not in ("sum", "mean"):
            raise UserError(f"{path}: {name} is {values[name]!r}, but must be 'sum' or 'mean'.")
    fields = {name: value for name, value in values.items() if name not in REDUCTIONS}
    try:
        from_values({"model": model, **fields}, path)
    except UserError as error:
        text = str(error)
        raise UserError(text if str(path) in text else f"{path}: {text}") from error
    _check_options(path, fields, model)
    return dict(values)


def _check_options(path: Path, fields: Mapping[str, Any], model: str) -> None:
    """Refuses options of the model or of the routing that these do not have."""
    choices = tuple(sorted(set(capsjax.model_options(model)) - _NOT_OF_A_LAYOUT))
    _require_known(path, "model option", fields.get("model_options", {}), choices)
    routing, options = fields.get("routing", ModelConfig.routing), fields.get("routing_options", {})
    if takes_iterations(routing):
        iterations = fields.get("routing_iterations", ModelConfig.routing_iterations)
        options = {"iterations": iterations, **options}
    try:
        make_routing(routing, **options)
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: {error}.") from error


def _check_rows(path: Path, layout: Layout) -> None:
    """Demands one row for each parameter that the model has with the layout's options."""
    all_targets = [row.target for row in layout.rows]
    if twice := sorted({target for target in all_targets if all_targets.count(target) > 1}):
        raise UserError(f"{path} has more than one row for {', '.join(twice)}.")
    is_flat = layout.options.get("model_options", {}).get("primary_order") == "flat"
    for row in layout.rows:
        if "(k t)" in row.axes.target and not is_flat:
            raise UserError(
                f"{path}: channels in the order (k t) need the primary_order 'flat'; with the "
                f"others they are (t k) (in the row of {row.source.text!r})."
            )
    try:
        needed = parameter_names(layout.config())
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    table = layout.table
    if unknown := sorted(needed - {names.parameter(target) for target in table.axes}):
        raise UserError(
            f"{path}: with these options {layout.model} has {', '.join(unknown)}, of which a "
            "layout knows nothing."
        )
    wanted = [target for target in table.axes if names.parameter(target) in needed]
    named = {names.template(target) for target in all_targets}
    missing = [t for t in wanted if t not in named and names.module_list(t) != DECODER]
    if missing:
        raise UserError(
            f"{path} has no row for {', '.join(missing)}: {layout.model} has that with these "
            "options, and rows and options (routing, model_options) belong together."
        )
    if idle := sorted(named - set(wanted)):
        raise UserError(
            f"{path} has a row for {', '.join(idle)}, which {layout.model} has not with these "
            "options: rows and options (routing, model_options) belong together."
        )


def _texts(
    path: Path, key: str, values: Any, choices: tuple[str, ...] | None = None
) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise UserError(f"{path}: {key} must be a list of texts, not {values!r}.")
    if choices:
        _require_known(path, key.removesuffix("s"), values, choices)
    return tuple(values)


def _require_known(path: Path, what: str, names: Any, choices: tuple[str, ...]) -> None:
    for name in names:
        if name not in choices:
            raise UserError(f"{path}: unknown {what} {name!r}, choose from: {', '.join(choices)}.")
