"""A layout: what the tensors of a PyTorch CapsNet are called and mean, read from a TOML file."""

import inspect
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import capsjax
from parity.layouts.axes import Axes, describe, parse_axes
from parity.layouts.names import Pattern
from train.config import FitConfig, from_values, to_values
from train.errors import UserError

DECODER = "decoder.layers."
PRIOR = "class_caps.routing.prior"

# The axes that each parameter of `capsjax.CapsNet` has. f: filters of the first convolution; c:
# channels of the image; y, x: of a kernel; t, k: types and dimension of primary capsules; i, j:
# primary and class capsules; d: dimension of class capsules; in, out: of a dense layer.
TARGETS = {
    "features.conv.kernel": ("y x c f",),
    "features.conv.bias": ("f",),
    "primary_caps.conv.kernel": ("y x f (t k)", "y x f (k t)"),
    "primary_caps.conv.bias": ("(t k)", "(k t)"),
    "class_caps.kernel": ("i j d k",),
    PRIOR: ("i j",),
    f"{DECODER}{{n}}.kernel": ("in out",),
    f"{DECODER}{{n}}.bias": ("out",),
}
NEEDED = tuple(name for name in TARGETS if not name.startswith(DECODER) and name != PRIOR)

DIALECT_FIELDS = (
    "input_mean",
    "input_std",
    "model_options",
    "routing",
    "routing_iterations",
    "routing_options",
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
_KEYS = ("name", "about", "aliases", "formats", "weights", "options")


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        source: the name of the tensor or tensors.
        target: the parameter of `capsjax.CapsNet`; `{n}` stands for the number of a decoder layer.
        axes: how the one becomes the other.
    """

    source: Pattern
    target: str
    axes: Axes

    @property
    def is_repeated(self) -> bool:
        """Whether the row stands for all layers of a decoder."""
        return "{n}" in self.target

    @property
    def is_decoder(self) -> bool:
        """Whether the row is of a decoder, which a network need not have."""
        return self.target.startswith(DECODER)


@dataclass(frozen=True)
class Layout:
    """What a PyTorch CapsNet calls its tensors, how their axes lie, and what it computes.

    Attributes:
        name: of the layout.
        about: whose network it is.
        aliases: other names of the layout.
        formats: the suffixes of the files in which such networks are kept.
        rows: tensors and parameters.
        options: those of `DIALECT_FIELDS` and `REDUCTIONS` that differ from the defaults, which are
            the paper's.
    """

    name: str
    about: str
    aliases: tuple[str, ...]
    formats: tuple[str, ...]
    rows: tuple[Row, ...]
    options: Mapping[str, Any]

    def config(
        self, image_shape: tuple[int, int, int] | None = None, num_classes: int | None = None
    ) -> FitConfig:
        """What the network computes, its sizes left out.

        Args:
            image_shape: `(height, width, channels)`, which a mean over pixels is divided by.
            num_classes: what a mean over classes is divided by.
        """
        fields = {name: value for name, value in self.options.items() if name not in REDUCTIONS}
        # A decay of its own, and not one that follows the length of a run, which then could not be
        # made longer.
        config = FitConfig(
            preset=f"imported:{self.name}", decay_rate=0.96, decay_steps=2000, **fields
        )
        changes = {}
        if num_classes and self.options.get("margin_over_classes") == "mean":
            changes["margin_weight"] = config.margin_weight / num_classes
        if image_shape and self.options.get("reconstruction_over_pixels") == "mean":
            changes["reconstruction_weight"] = config.reconstruction_weight / math.prod(image_shape)
        return FitConfig(**{**to_values(config), **changes})


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
    layout = Layout(
        name=values.get("name", path.stem),
        about=values.get("about", ""),
        aliases=_texts(path, "aliases", values.get("aliases", ())),
        formats=_texts(path, "formats", values.get("formats", FORMATS), ALL_FORMATS),
        rows=_rows(path, values.get("weights")),
        options=_options(path, values.get("options", {})),
    )
    _check_together(path, layout)
    return layout


def _rows(path: Path, values: Any) -> tuple[Row, ...]:
    if not isinstance(values, list) or not values:
        raise UserError(
            f"{path} has no weights: give a list of rows [source, target, axes], such as "
            '["conv1.bias", "features.conv.bias", "f -> f"].'
        )
    return tuple(_row(path, value) for value in values)


def _row(path: Path, value: Any) -> Row:
    texts = isinstance(value, list) and all(isinstance(text, str) for text in value)
    if not texts or len(value) != 3:
        raise UserError(f"{path}: the row {value!r} is not three texts [source, target, axes].")
    source, target, axes = value
    template = re.sub(rf"^({re.escape(DECODER)})\d+\.", r"\1{n}.", target)
    if template not in TARGETS:
        raise UserError(
            f"{path}: unknown target {target!r} of {source!r}, choose from: {', '.join(TARGETS)}."
        )
    try:
        pattern = Pattern(source)
        repeated = "{n}" in target
        if repeated and pattern.letter != "n":
            raise ValueError(
                f"the target {target!r} is one of several, so {source!r} needs a number of the "
                "letter n"
            )
        row = Row(pattern, target, parse_axes(axes, None if repeated else pattern.letter))
    except ValueError as error:
        raise UserError(f"{path}: {error}.") from error
    if describe(row.axes.target) not in TARGETS[template]:
        right = "' or '".join(TARGETS[template])
        raise UserError(
            f"{path}: the axes of {target} are '{right}', not '{describe(row.axes.target)}' "
            f"(in the row of {source!r})."
        )
    return row


def _options(path: Path, values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise UserError(f"{path}: options must be a table of names and values, not {values!r}.")
    _require_known(path, "option", values, (*DIALECT_FIELDS, *REDUCTIONS))
    for name in REDUCTIONS:
        if values.get(name, "sum") not in ("sum", "mean"):
            raise UserError(f"{path}: {name} is {values[name]!r}, but must be 'sum' or 'mean'.")
    fields = {name: value for name, value in values.items() if name not in REDUCTIONS}
    try:
        from_values({**to_values(FitConfig()), **fields}, path)
    except UserError as error:
        text = str(error)
        raise UserError(text if str(path) in text else f"{path}: {text}") from error
    _check_options(path, fields)
    return dict(values)


def _check_options(path: Path, fields: Mapping[str, Any]) -> None:
    """Refuses options of the model or of the routing that these do not have."""
    known = set(inspect.signature(capsjax.CapsNet.__init__).parameters)
    choices = tuple(sorted(known - {"self", "image_shape", "num_classes", "routing", "rngs"}))
    _require_known(path, "model option", fields.get("model_options", {}), choices)
    routing = fields.get("routing", "dynamic")
    try:
        capsjax.create_routing(
            routing,
            iterations=fields.get("routing_iterations", 3),
            **fields.get("routing_options", {}),
        )
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: {error}.") from error


def _check_together(path: Path, layout: Layout) -> None:
    targets = [row.target for row in layout.rows]
    if twice := sorted({target for target in targets if targets.count(target) > 1}):
        raise UserError(f"{path} has more than one row for {', '.join(twice)}.")
    if lacking := [target for target in NEEDED if target not in targets]:
        raise UserError(f"{path} has no row for {', '.join(lacking)}.")
    has_prior, routing = PRIOR in targets, layout.options.get("routing", "dynamic")
    if has_prior != (routing == "dynamic-prior"):
        raise UserError(
            f"{path}: a row for {PRIOR} and the option routing = 'dynamic-prior' belong together."
        )
    is_flat = layout.options.get("model_options", {}).get("primary_order") == "flat"
    for row in layout.rows:
        if ("k", "t") in row.axes.target and not is_flat:
            raise UserError(
                f"{path}: channels in the order (k t) need the primary_order 'flat'; with the "
                f"others they are (t k) (in the row of {row.source.text!r})."
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
