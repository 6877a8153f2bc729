"""What was measured for a claim, drawn."""

from train.study.claims.figures import draw_quantities

from tests.train.study.claims.test_verdict import ERROR, claim, measured


def test_every_seed_the_mean_and_the_papers_value_whichever_arm_has_it():
    figure = draw_quantities(
        claim(), [measured("A", 1.0, 2.0, paper=0.25), measured("B", 2.0, 3.0)]
    )
    (axes,) = figure.axes
    assert [line.get_xdata().tolist() for line in axes.lines if line.get_marker() == "o"] == [
        [1, 2],
        [2, 3],
    ]
    of_all = {
        marker: [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == marker]
        for marker in "|D"
    }
    assert of_all == {"|": [1.5, 2.5], "D": [0.25]}
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["A", "B"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a seed", "mean", "paper"]
    assert axes.get_title() == ERROR.name


def test_values_that_lie_close_together_are_not_cut_off_at_the_edge():
    (axes,) = draw_quantities(claim(), [measured("A", 74.4, 75.0)]).axes
    left, right = axes.get_xlim()
    assert left == 0
    assert right > 77
