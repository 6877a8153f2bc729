"""A configuration as plain values in a file, and in what two of them differ."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.config.fit_config import SETTINGS, FitConfig
from train.system.errors import UserError
from train.system.printing import escaped

# How often a run looks up is no part of what a training step computes, nor is what it keeps in
# memory meanwhile, and neither is when it has done enough, or how long it is at most, unless the
# learning rate follows that.
CADENCE = frozenset({"log_every", "evaluate_every", "checkpoint_every"})
MEMORY = frozenset({"micro_batches", "remat"})
LENGTH = frozenset({"steps", "epochs"})
EARLY_END = frozenset({"stop_at_accuracy", "patience"})

BEFORE = {"validation": 0}
"""What was the rule before there was a setting, where that is not its default."""


def differences(saved: FitConfig, wanted: FitConfig) -> list[str]:
    """The settings in which a run cannot be resumed, each with the saved and the wanted value."""
    may_change = CADENCE | MEMORY | EARLY_END
    if not saved.schedule.rate_follows_length:
        may_change |= LENGTH
    return [
        f"{name} (was {saved.value(name)!r}, now {wanted.value(name)!r})"
        for name in SETTINGS
        if name not in may_change and saved.value(name) != wanted.value(name)
    ]


def from_values(values: Any, source: Path) -> FitConfig:
    """Makes a configuration of the plain values of a file, which `dataclasses.asdict` has made.

    Settings may stand in their groups or, as in older files, flat. One that the file lacks has its
    default, or the value of `BEFORE`: the file may be older than the setting. `source`, the file,
    is for the error message.

    Raises:
        UserError: if a setting is unknown, of the wrong type or out of its range.
    """
    if not isinstance(values, dict):
        raise UserError(f"{source} holds no configuration: expected a JSON object.")
    names = {(found.group, found.field.name): name for name, found in SETTINGS.items()}
    groups = {group for group, _ in names}
    names |= {(None, name): name for name in SETTINGS}
    flat: dict[str, Any] = {}
    wrong = []
    for key, value in values.items():
        grouped = key in groups and isinstance(value, dict)
        for member, inner in value.items() if grouped else [(key, value)]:
            name = names.get((key if grouped else None, member))
            if name is None:
                wrong.append(f"{key}.{member}" if grouped else key)
            else:
                flat[name] = inner
    if wrong:
        raise UserError(f"{source} has unknown fields: {', '.join(map(escaped, sorted(wrong)))}.")
    for name, value in flat.items():
        expected = SETTINGS[name].types
        accepted = (*expected, int) if float in expected else expected
        # For Python, a bool is an int.
        if isinstance(value, bool) != (bool in expected) or not isinstance(value, accepted):
            shown = repr(value)[:80]
            raise UserError(f"{source} has {name} = {shown}, which is of the wrong type.")
    return FitConfig.of(**{**BEFORE, **flat})


def completed(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The flat values of a file with those of settings that are newer, as in `from_values`."""
    return {**FitConfig().flat(), **BEFORE, **flat}
