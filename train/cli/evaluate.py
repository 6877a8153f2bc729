"""`evaluate`: measures trained networks on test or validation images."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from train.config.checked import flag
from train.options.command import argument, option
from train.options.shared import Arrays, Devices, Trained
from train.options.values import positive
from train.system.errors import UserError


@dataclass(kw_only=True)
class Evaluate(Trained, Arrays, Devices):
    """Measure a trained network on test images.

    Measures the network of a run on the test images of its data set, on its validation images, or
    on another set with images of the same shape. Several runs are measured as one network, by the
    mean of their lengths.
    """

    runs: list[Path] = argument("folder of a run, or of several", metavar="RUN", many=True)
    dataset: str | None = option(None, "another data set than the run's", metavar="NAME")
    classes_by_index: bool = option(
        False, "take the classes of another data set in their order, whatever their names"
    )
    split: Literal["test", "validation"] = option(
        "test", "images to measure on; those to choose by are the run's validation images"
    )
    routing_iterations: int | None = option(
        None, "route N times, instead of as often as in training", metavar="N"
    )
    test_examples: int | None = option(
        None,
        "measure on N test images, of each class its share, or the first of a set that is made "
        "(default: as the run did; of another data set all, or, if it is made, as many as there "
        "are images that it is made of)",
        metavar="N",
    )
    top_k: int | None = option(
        None,
        "measure how often the class of an image is among the K longest (default: 5, where there "
        "are more classes than that)",
        metavar="K",
        parse=positive,
    )
    inspect: bool = option(
        False,
        "look into the routing: entropy, cosine of votes and poses, change by iteration, dead "
        "capsules; drawn as figures/routing.png in the run's folder",
    )

    def run(self) -> int:
        """Measures, and prints the result."""
        from train.report.class_table import NOT_FINITE, in_words
        from train.system.caches import keep_compiled_programs

        keep_compiled_programs()
        self.trust_routing(self.runs)
        several = len(self.runs) > 1
        result = self._ensemble() if several else self._single()
        if self.json:
            print(json.dumps(result))
        elif several:
            for folder, accuracy in zip(result["runs"], result["accuracies"], strict=True):
                print(f"{folder}: accuracy {accuracy:.2%}")
            print(
                f"{len(self.runs)} networks together: accuracy {result['accuracy']:.2%} on the "
                f"{result['examples']:,} test images of {result['dataset']}"
            )
            print(in_words(result))
        else:
            loss = result["loss"]
            print(
                f"{self.runs[0]} at step {result['step']}: accuracy {result['accuracy']:.2%} on "
                f"the {result['examples']:,} {self.split} images of {result['dataset']}, "
                f"loss {'-' if loss is None else f'{loss:.5f}'}"
            )
            if loss is None:
                print(NOT_FINITE)
            print(in_words(result))
            if "batch" in result:
                print(
                    "note: images of a batch share their logits, so that results depend on which "
                    f"are together, here {result['batch']} at a time"
                )
            for layer, found in result.get("inspection", {}).items():
                print(f"{layer}: {found['dead']:.0%} of the capsules are dead; by iteration,")
                for name in ("entropy", "vote_cosine", "coupling_change", "pose_change"):
                    values = ", ".join(
                        "-" if value is None else f"{value:.3g}" for value in found[name]
                    )
                    print(f"  {name.replace('_', ' ')}: {values or '-'}")
        return 0

    def _single(self) -> dict[str, Any]:
        from train.report.evaluate import evaluate

        return evaluate(
            self.runs[0],
            dataset=self.dataset,
            data_dir=self.data_dir,
            which=self.checkpoint,
            devices=self.devices,
            routing_iterations=self.routing_iterations,
            inspect=self.inspect,
            split=self.split,
            test_examples=self.test_examples,
            by_index=self.classes_by_index,
            layout=self.layout,
            top=self.top_k,
        )

    def _ensemble(self) -> dict[str, Any]:
        from train.report.evaluate import evaluate_ensemble

        for name in ("devices", "routing_iterations", "inspect", "split", "top_k"):
            if getattr(self, name) not in (None, False, "test"):
                raise UserError(f"{flag(name)} is for a single run: leave it out, or the others.")
        return evaluate_ensemble(
            self.runs,
            dataset=self.dataset,
            data_dir=self.data_dir,
            which=self.checkpoint,
            test_examples=self.test_examples,
            by_index=self.classes_by_index,
            layout=self.layout,
        )
