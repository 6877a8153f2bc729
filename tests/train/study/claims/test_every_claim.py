"""Each claim as it is, but for a few arms, and two steps of training on a few images."""

import json

import pytest

from tests.train.data.small_files import small_mnist, small_smallnorb
from train.__main__ import main
from train.data import catalog
from train.data.sources import smallnorb
from train.study import claims
from train.study.claims import get_claim, list_claims


def shortened(claim):
    """The same claim about networks that were trained for two steps.

    Of its contrasts the first and the last, and of its arms those of these; all where nothing is
    contrasted. Of the others it is tested that they can be built.
    """
    contrasts = list(dict.fromkeys([*claim.contrasts[:1], *claim.contrasts[-1:]]))
    contrasted = {name for contrast in contrasts for name in contrast[:2]}

    def arms(budget):
        return [
            arm._replace(
                config=arm.config.changed(
                    steps=2,
                    evaluate_every=2,
                    batch_size=8,
                    train_examples=None,
                    test_examples=None,
                ),
            )
            for arm in claim.arms(budget)
            if arm.name in contrasted or not contrasted
        ]

    return claim._replace(arms=arms, contrasts=contrasts)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", list_claims())
def test_a_claim_runs_to_its_end(name, mnist_files, monkeypatch, request, tmp_path, capsys):
    for source in smallnorb.SOURCES:
        small = small_smallnorb(mnist_files, source, side=96)
        monkeypatch.setitem(catalog.SOURCES, source.name, small)
    fashion = small_mnist(mnist_files, catalog.SOURCES["fashion_mnist"], 40, 40)
    monkeypatch.setitem(catalog.SOURCES, "fashion_mnist", fashion)
    monkeypatch.setattr(claims, "get_claim", lambda name: shortened(get_claim(name)))
    if not get_claim(name).figures:
        request.getfixturevalue("no_figures")
    out = tmp_path / "out"
    options = ["--seeds", "1", "--data-dir", str(mnist_files), "--out", str(out)]
    assert main(["claims", name, *options]) == 0, capsys.readouterr().err
    found = json.loads((out / "results.json").read_text())
    quantities = [quantity.name for quantity in get_claim(name).quantities]
    assert [list(arm["values"]) for arm in found["arms"]] == [quantities] * len(found["arms"])
    assert all(arm["steps"] == [2] for arm in found["arms"])
