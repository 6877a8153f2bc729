"""The tables and the chart of what was measured side by side."""

from parity.bench.side_by_side import summarise
from parity.bench.table import draw, markdown

MACHINE = {"device_kind": "a device", "cores": 2, "jax": "0.1", "torch": "2.3"}
MACHINE |= {"ceilings": {"matrix_flops": {"float32": 8e9}}}


def test_a_point_is_a_line_of_each_table(results):
    rows = [{**row, "flops_per_image": 1e8} for row in summarise(results)]
    text = markdown(rows, MACHINE)
    assert text.startswith(
        "a device, 2 cores, JAX 0.1, PyTorch 2.3; matrix products 8 GFLOP/s in float32; rates are "
        "medians of 3 rounds in turns.\n\nTraining step, images a second:"
    )
    training, forward = (part.splitlines() for part in text.split("\n\n")[2:5:2])
    heads = "network | dtype | batch | capsjax | plain | base | broken | capsjax / faster PyTorch"
    work = "GFLOP an image | of the matrix products"
    assert (
        training[0]
        == f"| {heads} | {work} | memory, GB | first step, s | of it tracing + compiling |"
    )
    assert forward[0] == f"| {heads} | {work} |"
    point = "| `capsnet` | float32 | 8 | 40.0 | 2.0 | 10.0 | fails | 4.00 (2.00 to 4.00)"
    assert training[2] == f"{point} | 0.1 | 50% | 1.07 / 2.15 | 1.5 / 0.5 | 0.4 + 0.9 |"
    # Of 16 images there is one contender alone.
    assert (
        training[3] == "| `capsnet` | float32 | 16 | - | - | 20.0 | - | - |  |  | 1.07 | 1.5 |  |"
    )
    assert forward[2].endswith("| 4.00 (4.00 to 4.00) | 0.1 | 10% |")
    rows[0]["rounds"] = 2
    assert "medians of 2 to 3 rounds in turns" in markdown(rows, MACHINE)
    assert text.endswith("capsnet, float32, batch 8: broken cannot run: no such device")


def test_the_chart_has_a_bar_for_everything_that_ran(results):
    train, forward = draw(summarise(results), "title").axes
    bars = [bars.patches for bars in train.containers if hasattr(bars, "patches")]
    assert [[bar.get_width() for bar in of_one] for of_one in bars] == [[40], [2], [10, 20]]
    middles = [bar.get_y() + bar.get_height() / 2 for bar in bars[2]]
    assert [round(middle, 3) for middle in middles] == [0.267, 1.267]
    labels = [text.get_text() for text in train.get_yticklabels()]
    assert labels == ["capsnet, float32, batch 8", "capsnet, float32, batch 16"]
    assert forward.get_title() == "forward pass"
