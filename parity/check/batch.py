"""The comparison of all stages of two networks for one batch."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from parity.check import tolerance
from parity.check.comparison import FORWARD, GRADIENT, TEST, Comparison, Result, error_between
from parity.check.inputs import of_kind
from parity.check.pairs import Pair
from parity.check.stages import Values, of_capsjax, of_reference
from parity.check.subjects import Case, Subject
from parity.reference.models import ModelReference
from train.data import Split


def reduction_lengths(pair: Pair, batch: int) -> dict[str, int]:
    """Terms of the longest sums of a pair's networks on a batch, as of `capsnet_lengths`."""
    if not isinstance(pair.reference, ModelReference):
        return capsnet_lengths(pair.model, batch)
    forward, backward = pair.reference.longest_sums
    return {FORWARD: forward, GRADIENT: max(forward, batch * backward)}


def capsnet_lengths(model: Any, batch: int) -> dict[str, int]:
    """Terms of the longest sums of a `CapsNet` on a batch.

    By the name of an early stage those on the way to it, under `"forward"` to all later ones, and
    under `"gradient"` to gradients, which sum over the batch and the positions as well.
    """
    conv1, conv2 = (
        int(np.prod(conv.kernel.shape[:3]))
        for conv in (model.features.conv, model.primary_caps.conv)
    )
    later = list(model.class_caps.kernel.shape)
    if model.decoder is not None:
        later += [layer.kernel.shape[0] for layer in model.decoder.layers]
        later.append(int(np.prod(model.decoder.image_shape)))
    primary = max(conv1, conv2)
    forward = max(primary, *later)
    height, width, _ = model.features.output_shape
    return {
        "conv1": conv1,
        "primary_s": primary,
        "primary_u": primary,
        FORWARD: forward,
        GRADIENT: max(forward, batch * height * width),
    }


def compare_batch(subject: Subject, case: Case, split: Split, result: Result) -> None:
    """Compares all inputs of a case, made of images of its size, and adds that to a result."""
    images, labels = split.images[: case.batch], split.labels[: case.batch]
    for biases in case.biases:
        pair = subject.pair(case, dtype=result.dtype, seed=result.seed, biases=biases)
        lengths = reduction_lengths(pair, case.batch)
        for kind in case.kinds:
            seen = of_kind(kind, images, pair)
            shown = result.dataset if kind == "images" else kind
            name = f"{case}, {shown}{'' if biases else ', no biases'}"
            # In test, too, once for each program that is compiled.
            modes = (True, False) if kind == "images" and case.gradients else (True,)
            for training in modes:
                how = {"gradients": case.gradients, "training": training}
                expected = of_reference(pair, seen, labels, **how)
                actual = of_capsjax(pair, seen, labels, **how)
                compared = compare(actual, expected, lengths, size=case.size, case=name)
                if result.dtype == "float32" and not all(found.held for found in compared):
                    wide, inputs = pair.in_dtype("float64"), seen.astype(np.float64)
                    truth = of_reference(wide, inputs, labels, **how)
                    compared = [_unless_rounding(c, actual, expected, truth) for c in compared]
                result.comparisons += compared


def compare(
    actual: Values, expected: Values, lengths: Mapping[str, int], *, size: str, case: str
) -> list[Comparison]:
    """Compares every stage that either network has, in the order of the reference.

    The dtype of the reference's values and the terms of the longest sums decide the limits.
    """
    dtype = next(iter(expected.values())).dtype.name
    comparisons = []
    for stage in dict.fromkeys([*expected, *actual]):
        error = error_between(actual.get(stage), expected.get(stage))
        kind: tolerance.Kind = "gradient" if stage.group == GRADIENT else "forward"
        length = lengths.get(stage.name if stage.group in (FORWARD, TEST) else kind, lengths[kind])
        limit = tolerance.limit(kind, dtype, length)
        comparisons.append(Comparison(stage, error, limit, size, case))
    return comparisons


def _unless_rounding(
    comparison: Comparison, actual: Values, expected: Values, truth: Values
) -> Comparison:
    """A comparison without a limit, if what parts is rounding, see `tolerance.is_rounding`."""
    stage, limit = comparison.stage, comparison.limit
    if comparison.held or stage not in expected:
        return comparison
    assert limit is not None
    itself, other = (
        error_between(values.get(stage), truth[stage]).relative for values in (expected, actual)
    )
    if not tolerance.is_rounding(itself, other, limit):
        return comparison
    note = f"the reference is {itself:.1e} from itself in float64"
    return comparison._replace(limit=None, error=comparison.error._replace(note=note))


def coarser_precisions(
    subject: Subject, size: str, split: Split, *, seed: int, batch: int = 7
) -> list[Comparison]:
    """The errors of capsjax in bfloat16 and with TF32 products, which have no limit."""
    images, labels = split.images[:batch], split.labels[:batch]
    comparisons = []
    for name, compute, precision in (
        ("bfloat16", "bfloat16", "highest"),
        ("TF32", None, "tensorfloat32"),
    ):
        pair = subject.pair(Case(size, 3, batch), dtype="float32", seed=seed, compute=compute)
        seen = of_kind("images", images, pair)
        expected = of_reference(pair, seen, labels)
        with jax.default_matmul_precision(precision):
            actual = of_capsjax(pair, seen, labels)
        in_size, case = f"{size} in {name}", f"{name}, batch {batch}"
        comparisons += [
            Comparison(stage, error_between(actual[stage], truth), None, in_size, case)
            for stage, truth in expected.items()
        ]
    return comparisons
