"""Can layers of routed capsules be stacked? Peer 2021, Mitterreiter 2023, Everett 2023."""

from collections.abc import Sequence

from train.presets import get_preset
from train.study.trial.baselines import mistakes, reduced
from train.study.trial.definition import Arm, Budget, Claim, Contrast
from train.study.trial.inside import inside

ERROR = "test error, %"
DEAD = "dead capsules, %"
STARVED = "capsules that get hardly any gradient, %"
ENTROPY = "entropy of the coupling, % of uniform"
HIDDEN = 16
"""Capsules of each further layer."""
DEPTHS = range(1, 6)


def _name(depth: int) -> str:
    return f"{depth} routed layer{'s' if depth > 1 else ''}"


def arms(budget: Budget) -> Sequence[Arm]:
    """CapsNet with one to five routed layers, and the deepest one with a bias in each."""
    if budget == "paper":
        base = get_preset("mnist").changed(epochs=10)
    else:
        base = reduced(epochs=5, validation=0)
    if budget == "small":
        base = base.changed(train_examples=20_000, epochs=2)
    configs = {
        depth: base.changed(
            model_options={**base.model.options, "hidden_capsules": [HIDDEN] * (depth - 1)}
        )
        for depth in DEPTHS
    }
    deepest = max(DEPTHS)
    return [
        *(Arm(_name(depth), config) for depth, config in configs.items()),
        Arm(f"{_name(deepest)}, bias", configs[deepest].changed(routing="dynamic-bias")),
    ]


CLAIM = Claim(
    says="The more layers route, the more capsules die or get hardly any gradient, and the more "
    "images are mistaken; a bias helps.",
    source="Peer, Stabinger and Rodriguez-Sanchez 2021, Pattern Recognition Letters 144 (the "
    "bias); Mitterreiter, Koch, Giesen and Laue 2023, arXiv:2301.01583 (capsules that starve); "
    "Everett, Zhong and Leontidis 2023, arXiv:2305.11178 (activations that vanish); their networks "
    "are other ones",
    arms=arms,
    quantities=[
        mistakes(ERROR),
        inside("dead", DEAD),
        inside("starved", STARVED),
        inside("entropy", ENTROPY),
    ],
    contrasts=[
        Contrast(_name(1), _name(3), ERROR),
        Contrast(_name(1), _name(5), ERROR),
        Contrast(_name(2), _name(5), DEAD),
        Contrast(_name(2), _name(5), STARVED),
        Contrast(f"{_name(5)}, bias", _name(5), ERROR),
    ],
)
