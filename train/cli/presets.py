"""`presets`: lists the recipes."""

from dataclasses import dataclass

from train.options.command import Command, argument


@dataclass(kw_only=True)
class Presets(Command):
    """List the recipes.

    Lists the recipes of `fit`, or explains one.
    """

    preset: str | None = argument("the recipe to explain", metavar="PRESET", default=None)

    def run(self) -> int:
        """Prints a line a recipe, or the whole text of one."""
        from train.presets import describe_preset, list_presets

        if self.preset:
            print(describe_preset(self.preset))
            return 0
        width = max(map(len, list_presets()))
        for name in list_presets():
            print(f"{name:<{width}}  {describe_preset(name).splitlines()[0]}")
        return 0
