"""What decides the numbers of a run, in groups of settings; every setting has one name of its own.

Where and on what a run happens is no part of it.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from train.config.checked import NOT_NEGATIVE, Checked, allowed_types, flag, flat_name, setting
from train.config.settings import (
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    ScheduleConfig,
)
from train.system.errors import UserError


@dataclass(frozen=True)
class FitConfig(Checked):
    """Everything that decides the numbers of a training run.

    It is saved with the run, and has to be the same when the run is resumed.

    Raises:
        UserError: on a value out of its range or a name that does not exist.

    Example:
        >>> config = FitConfig.of(dataset="mnist", model="capsnet", batch_size=512)
        >>> config.schedule.batch_size
        512
        >>> config.changed(routing="em").model.routing
        'em'
    """

    preset: str = setting("digits", "recipe that the other values come from")
    seed: int = setting(
        0,
        "decides initial values, order of the data and augmentation",
        bound=NOT_NEGATIVE,
        largest=2**63 - 1,
    )
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    objective: ObjectiveConfig = dataclasses.field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = dataclasses.field(default_factory=ScheduleConfig)

    def __post_init__(self) -> None:
        """Checks what stands in no group, and what several groups have to do with each other."""
        super().__post_init__()
        if self.schedule.micro_batches > 1 and self.model.shares_logits:
            raise UserError(
                f"--micro-batches is {self.schedule.micro_batches}, but with shared_logits the "
                "examples of a batch have to be routed together: leave one of the two out."
            )

    @classmethod
    def of(cls, **values: Any) -> "FitConfig":
        """A configuration by the flat names of its settings, the others at their defaults."""
        return cls().changed(**values)

    def changed(self, **values: Any) -> "FitConfig":
        """This configuration with other values, by the flat names of the settings.

        Raises:
            UserError: on a value out of its range or a name that does not exist.
            KeyError: there is no such setting.
        """
        own: dict[str, Any] = {}
        groups: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            found = SETTINGS[name]
            into = own if found.group is None else groups.setdefault(found.group, {})
            into[found.field.name] = value
        for group, changes in groups.items():
            own[group] = dataclasses.replace(getattr(self, group), **changes)
        return dataclasses.replace(self, **own)

    def value(self, name: str) -> Any:
        """The value of a setting by its flat name."""
        found = SETTINGS[name]
        return getattr(getattr(self, found.group) if found.group else self, found.field.name)

    def flat(self) -> dict[str, Any]:
        """The values of all settings by their flat names."""
        return {name: self.value(name) for name in SETTINGS}


class Setting(NamedTuple):
    """A setting, the field of `FitConfig` whose group it is in, if any, and its plain types."""

    group: str | None
    field: dataclasses.Field
    types: tuple[type, ...]


def _settings() -> dict[str, Setting]:
    groups: dict[str | None, Any] = {None: FitConfig}
    groups |= {m.name: m.type for m in dataclasses.fields(FitConfig) if not m.metadata}
    return {
        flat_name(field): Setting(name, field, allowed_types(group, field.name))
        for name, group in groups.items()
        for field in dataclasses.fields(group)
        if field.metadata
    }


SETTINGS = _settings()
"""Where each setting is, by its flat name, which its option on the command line has."""


def as_said(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that a user gave, by flat names, with what they say of a recipe's others.

    Raises:
        UserError: if steps and epochs are both given.
    """
    if "steps" in given and "epochs" in given:
        raise UserError("--steps and --epochs both say how long to train: give one of them.")
    return {**given, **({"steps": None} if "epochs" in given else {})}


def with_options(config: FitConfig, values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by flat names, options of model and routing with the others of a configuration."""
    names = [name for name in ("model_options", "routing_options") if name in values]
    return {**values, **{name: {**config.value(name), **dict(values[name])} for name in names}}


def require_heeded(given: Mapping[str, Any], configs: Iterable[FitConfig]) -> None:
    """Refuses a setting of a user's that says nothing in any of the configurations it went into.

    Raises:
        UserError: if there is one.
    """
    configs = list(configs)
    for name, value in given.items():
        if (needed := SETTINGS[name].field.metadata["only_with"]) is None:
            continue
        other, those = needed
        found = dict.fromkeys(config.value(other) for config in configs)
        if not any(other_value in those for other_value in found):
            raise UserError(
                f"{flag(name)} is {value}, but says nothing with {flag(other)} "
                f"{' or '.join(found)}: leave it out, or choose {' or '.join(those)} there."
            )
