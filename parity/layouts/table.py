"""A layout: the names and axes of a PyTorch network's tensors, read from a TOML file."""

import functools
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import capsjax
from parity.layouts import names
from parity.layouts.axes import Axes, parse_axes
from parity.layouts.model_table import DECODER, MODELS, ModelTable, model_table, parameter_names
from train.config.config_file import from_values
from train.config.fit_config import FitConfig
from train.learn.network import build_routing
from train.system.errors import UserError, require_known

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
OUTPUTS = ("lengths", "softmax", "squared")
"""What a network returns of the lengths of its capsules."""

ORDERS = ("chw", "hwc")
"""The order in which a decoder draws an image: all pixels of a channel, or all channels of one."""

_KEYS = ("name", "about", "model", "aliases", "formats", "weights", "options")
_CHOICES = {"lengths_are": OUTPUTS, "decoder_draws": ORDERS}
"""Further keys, and what they may be."""
_OF_A_ROUTING = {
    "class_caps.routing.prior": "dynamic-prior",
    "class_caps.routing.bias": "dynamic-bias",
}
"""The routing of CapsNet that has a parameter."""
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

    Options are those of `DIALECT_FIELDS` and `REDUCTIONS` that differ from the paper's.
    """

    name: str
    about: str  # whose network it is
    aliases: tuple[str, ...]  # other names of the layout
    formats: tuple[str, ...]  # the suffixes of the files in which such networks are kept
    rows: tuple[Row, ...]
    options: Mapping[str, Any]
    model: str = "capsnet"  # which network it is, one of `MODELS`
    lengths_are: str = "lengths"  # what it returns of lengths, one of `OUTPUTS`
    decoder_draws: str = "chw"  # as PyTorch has images; one of `ORDERS`

    @property
    def table(self) -> ModelTable:
        """The axes and sizes of the model."""
        return model_table(self.model)

    def config(
        self, image_shape: tuple[int, int, int] | None = None, num_classes: int | None = None
    ) -> FitConfig:
        """The configuration of a network, its sizes left out.

        By the number of pixels a mean over them is divided, by that of classes one over classes.
        """
        fields = {name: value for name, value in self.options.items() if name not in REDUCTIONS}
        # A decay of its own: one that follows the length of a run could not be made longer.
        config = FitConfig.of(
            preset=f"imported:{self.name}",
            model=self.model,
            decay_rate=0.96,
            decay_steps=2000,
            **fields,
        )
        margin, error = config.objective.margin_weight, config.objective.reconstruction_weight
        if num_classes and self.options.get("margin_over_classes") == "mean":
            config = config.changed(margin_weight=margin / num_classes)
        if image_shape and self.options.get("reconstruction_over_pixels") == "mean":
            config = config.changed(reconstruction_weight=error / math.prod(image_shape))
        return config


def all_options(config: FitConfig) -> dict[str, Any]:
    """The options of a configuration's model, with every default written out."""
    return {**capsjax.models.published_options(config.model.name), **config.model.options}


def read_layout(path: Path) -> Layout:
    """Reads a table; a UserError if that fails, or it says something that no table can say."""
    if not path.is_file():
        raise UserError(f"there is no file {path}.")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from error
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits
        raise UserError(f"{path} is not valid TOML: {error}.") from error
    try:
        return _layout(path, values)
    except (ValueError, TypeError, UserError) as error:
        text = f"{str(error).removesuffix('.')}."
        raise UserError(text if str(path) in text else f"{path}: {text}") from error


_published = functools.cache(read_layout)
_FILES = {
    path.stem.replace("_", "-"): path
    for path in sorted((Path(__file__).parent / "published").glob("*.toml"))
}


def builtin_layouts() -> list[Layout]:
    """The layouts that come with the program."""
    return [_published(path) for path in _FILES.values()]


def get_layout(name: str) -> Layout:
    """A layout by its name, one of its other names, or the path of a TOML file; or a UserError."""
    known = name.replace("_", "-")
    if known in _FILES:
        return _published(_FILES[known])
    if Path(name).suffix == ".toml" or Path(name).is_file():
        return read_layout(Path(name))
    for layout in builtin_layouts():
        if known in layout.aliases:
            return layout
    raise UserError(
        f"unknown layout {name!r}, choose from: {', '.join(_FILES)}, or name a TOML file."
    )


def _layout(path: Path, values: Mapping[str, Any]) -> Layout:
    require_known("key", values, (*_KEYS, *_CHOICES))
    for key in ("name", "about"):
        if not isinstance(values.get(key, ""), str):
            raise ValueError(f"{key} is {values[key]!r}, but must be a text")
    model = values.get("model", Layout.model)
    require_known("model", [model], MODELS)
    formats = _texts("formats", values.get("formats", FORMATS))
    require_known("format", formats, ALL_FORMATS)
    chosen = {key: values[key] for key in _CHOICES if key in values}
    for key, value in chosen.items():
        require_known(key, [value], _CHOICES[key])
    rows = values.get("weights")
    if not isinstance(rows, list) or not rows:
        raise ValueError(
            "there are no weights: give a list of rows [source, target, axes], such as "
            '["conv1.bias", "features.conv.bias", "f -> f"]'
        )
    layout = Layout(
        name=values.get("name", path.stem),
        about=values.get("about", ""),
        aliases=_texts("aliases", values.get("aliases", ())),
        formats=formats,
        rows=tuple(_row(row, model_table(model)) for row in rows),
        options=_options(path, values.get("options", {}), model),
        model=model,
        **chosen,
    )
    _check_rows(layout)
    return layout


def _row(value: Any, table: ModelTable) -> Row:
    texts = isinstance(value, list) and all(isinstance(text, str) for text in value)
    if not texts or len(value) != 3:
        raise ValueError(f"the row {value!r} is not three texts [source, target, axes]")
    source, target, axes = value
    choices = table.axes.get(names.template(target))
    if choices is None:
        known = ", ".join(table.axes)
        raise ValueError(f"unknown target {target!r} of {source!r}, choose from: {known}")
    pattern = names.Pattern(source)
    is_repeated = "{n}" in target
    if is_repeated and pattern.letter != "n":
        raise ValueError(
            f"the target {target!r} is one of several, so {source!r} needs a number of the letter n"
        )
    row = Row(pattern, target, parse_axes(axes, None if is_repeated else pattern.letter))
    if row.axes.target not in choices:
        right = "' or '".join(choices)
        raise ValueError(
            f"the axes of {target} are '{right}', not '{row.axes.target}' (in the row of "
            f"{source!r})"
        )
    return row


def _options(path: Path, values: Any, model: str) -> dict[str, Any]:
    """The options, if the model and its routing have them and they are of the right types."""
    if not isinstance(values, dict):
        raise ValueError(f"options must be a table of names and values, not {values!r}")
    require_known("option", values, (*DIALECT_FIELDS, *REDUCTIONS))
    for name in REDUCTIONS:
        if values.get(name, "sum") not in ("sum", "mean"):
            raise ValueError(f"{name} is {values[name]!r}, but must be 'sum' or 'mean'")
    fields = {name: value for name, value in values.items() if name not in REDUCTIONS}
    config = from_values({"model": model, **fields}, path)
    known = sorted(set(capsjax.model_options(model)) - _NOT_OF_A_LAYOUT)
    require_known("model option", config.model.options, known)
    build_routing(config)
    return dict(values)


def _check_rows(layout: Layout) -> None:
    """Demands one row for each parameter that the model has with the layout's options."""
    targets = [row.target for row in layout.rows]
    if twice := sorted({target for target in targets if targets.count(target) > 1}):
        raise ValueError(f"there is more than one row for {', '.join(twice)}")
    for decoder in (True, False):
        rows: dict[str, Row] = {}
        for row in layout.rows:
            for name in row.source.some_names(decoder=decoder):
                if rows.setdefault(name, row) is not row:
                    raise ValueError(
                        f"two rows have a tensor {name}: {rows[name].source.text!r} and "
                        f"{row.source.text!r}"
                    )
    is_flat = layout.options.get("model_options", {}).get("primary_order") == "flat"
    for row in layout.rows:
        if "(k t)" in row.axes.target and not is_flat:
            raise ValueError(
                "channels in the order (k t) need the primary_order 'flat'; with the others they "
                f"are (t k) (in the row of {row.source.text!r})"
            )
    needed = parameter_names(layout.config())
    known = layout.table.axes
    if unknown := sorted(needed - {names.parameter(target) for target in known}):
        raise ValueError(
            f"with these options {layout.model} has {', '.join(unknown)}, of which a layout knows "
            "nothing"
        )
    wanted = [target for target in known if names.parameter(target) in needed]
    named = {names.template(target) for target in targets}
    why = "options, and rows and options (routing, model_options) belong together"
    model = layout.model
    missing = [t for t in wanted if t not in named and names.module_list(t) != DECODER]
    if missing:
        which = ", ".join(missing)
        raise ValueError(f"the table has no row for {which}: {model} has that with these {why}")
    if idle := ", ".join(sorted(named - set(wanted))):
        needs = [f"routing = {of!r}" for target, of in _OF_A_ROUTING.items() if target in idle]
        hint = f"; such a row needs {needs[0]}" if needs else ""
        raise ValueError(
            f"the table has a row for {idle}, which {model} has not with these {why}{hint}"
        )


def _texts(key: str, values: Any) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{key} must be a list of texts, not {values!r}")
    return tuple(values)
