"""Table 1 of CapsNet's paper: routing and reconstruction lessen the errors on MNIST."""

from collections.abc import Sequence

from train.presets import get_preset
from train.study.trial.baselines import BASELINE, PUBLISHED, SMALL, baseline, mistakes, reduced
from train.study.trial.definition import Arm, Budget, Claim, Contrast

ERROR = "test error, %"
BEST = "CapsNet, 3 iterations, reconstruction"

# The paper's errors, of Table 1, by iterations and whether there is reconstruction.
_PAPER = {(1, False): 0.34, (1, True): 0.29, (3, False): 0.35, (3, True): 0.25}


def arms(budget: Budget) -> Sequence[Arm]:
    """The baseline, and CapsNet with 1 and 3 iterations, with and without reconstruction."""
    if budget == "paper":
        base, network = get_preset("mnist"), PUBLISHED
    else:
        base, network = reduced(epochs=10, validation=0), SMALL
    if budget == "small":
        base = base.changed(train_examples=10_000, epochs=3)
    capsnets = [
        Arm(
            f"CapsNet, {iterations} iteration{'s' if iterations > 1 else ''}, "
            f"{'' if reconstructs else 'no '}reconstruction",
            base.changed(
                routing_iterations=iterations,
                model_options=base.model.options
                if reconstructs
                else {**base.model.options, "decoder_hidden": None},
            ),
            {ERROR: error},
        )
        for (iterations, reconstructs), error in _PAPER.items()
    ]
    return [Arm(BASELINE, baseline(base, network), {ERROR: 0.39}), *capsnets]


CLAIM = Claim(
    says="Capsules that route in 3 iterations and learn to reconstruct recognise more digits than "
    "a convolutional network with more parameters.",
    source="Sabour, Frosst and Hinton 2017, arXiv:1710.09829, Table 1",
    arms=arms,
    quantities=[mistakes(ERROR)],
    contrasts=[
        Contrast(BEST, BASELINE, ERROR),
        Contrast(BEST, "CapsNet, 1 iteration, no reconstruction", ERROR),
    ],
)
