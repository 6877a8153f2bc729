"""Does routing do better than no routing? Paik, Kwak and Kim 2019; Gu and Tresp 2020."""

from collections.abc import Sequence

from train.presets import get_preset
from train.study.trial.baselines import mistakes, reduced
from train.study.trial.definition import Arm, Budget, Claim, Contrast

ERROR = "test error, %"
UNIFORM, RANDOM, ROUTED = "uniform coupling", "random coupling", "dynamic, 3 iterations"


def arms(budget: Budget) -> Sequence[Arm]:
    """CapsNet whose primary capsules count alike, as drawn once, or as several iterations say.

    One iteration of dynamic routing is uniform coupling.
    """
    if budget == "paper":
        base = get_preset("fashion_mnist")
    else:
        base = reduced(dataset="fashion_mnist", epochs=5, validation=0)
    if budget == "small":
        base = base.changed(train_examples=10_000, epochs=3)
    return [
        Arm(UNIFORM, base.changed(routing="uniform")),
        Arm(RANDOM, base.changed(routing="random")),
        *(
            Arm(f"dynamic, {iterations} iterations", base.changed(routing_iterations=iterations))
            for iterations in (2, 3, 5)
        ),
    ]


CLAIM = Claim(
    says="Routing by agreement does better than to share out every capsule equally, or at random.",
    source="Sabour, Frosst and Hinton 2017, arXiv:1710.09829, says so of 3 iterations against 1; "
    "Paik, Kwak and Kim 2019, arXiv:1907.13327, and Gu and Tresp 2020, arXiv:1911.07968, deny it; "
    "here on Fashion-MNIST, where there is more to be mistaken than on MNIST",
    arms=arms,
    quantities=[mistakes(ERROR)],
    contrasts=[
        Contrast(ROUTED, UNIFORM, ERROR),
        Contrast(ROUTED, RANDOM, ERROR),
        Contrast("dynamic, 2 iterations", UNIFORM, ERROR),
        Contrast("dynamic, 5 iterations", UNIFORM, ERROR),
    ],
)
