import dataclasses

from parity.bench.gpu.plan import Plan
from parity.bench.gpu.table import rows

PLAN = dataclasses.asdict(Plan())


def part(found, failure=None):
    return {"found": found, "failure": failure, "seconds": 1.0}


def speed(batch_size, images_per_second, failure=None):
    return {
        "batch_size": batch_size,
        "implementation": None,
        "failure": failure,
        "images_per_second": images_per_second,
        "slowest": images_per_second,
        "fastest": images_per_second,
    }


def contender(name, batch_size, images_per_second, ratio, failure=None):
    return {
        "contender": name,
        "work": "train",
        "batch_size": batch_size,
        "images_per_second": images_per_second,
        "ratio": ratio,
        "failure": failure,
    }


def table(**parts):
    return {row.figure: row for row in rows({"parts": parts, "plan": PLAN})}


def test_the_best_batch_and_its_share_of_the_ceiling():
    lines = table(
        machine=part({"ceilings": {"matrix_flops": {"bfloat16": 8e14}}}),
        training=part({"flops_per_image": 1e9, "rows": [speed(256, 100_000), speed(512, 200_000)]}),
    )
    best = lines["training, bfloat16, best batch (batch 512, routing by default)"]
    assert (best.reached, best.aim) == ("200,000 images/s", "200,000 images/s")
    share = lines["training, bfloat16, share of the rate of matrix products"]
    assert share.reached == "25.0%"


def test_the_fastest_of_each_side_are_compared():
    lines = table(
        contenders=part(
            {
                "rows": [
                    contender("capsjax", 512, 300.0, 1.0),
                    contender("torch-fast", 512, 100.0, 3.0),
                    contender("capsjax", 128, 200.0, 1.0),
                    contender("torch-compile", 128, 150.0, 4 / 3),
                    contender("torch-reference", 128, None, None, "RuntimeError: out of memory"),
                ]
            }
        )
    )
    first = lines[
        "training, bfloat16, capsjax (batch 512) / fastest PyTorch (torch-compile, batch 128)"
    ]
    assert (first.reached, first.aim) == ("2.00", "1.5")
    assert lines["training, bfloat16, batch 512, capsjax / torch-fast"].reached.startswith("3.00 ")
    failed = lines["training, bfloat16, batch 128, torch-reference"]
    assert failed.reached == "failed: RuntimeError: out of memory"


def test_what_failed_has_a_line_and_cannot_break_the_table():
    lines = table(
        training=part({"rows": [speed(256, None, "XlaRuntimeError: a | b")]}, "not done in time")
    )
    assert lines["training, bfloat16, batch 256, routing by default"].reached == (
        "XlaRuntimeError: a \\| b"
    )
    assert lines["training"].reached == "failed: not done in time"


def test_what_an_epoch_the_memory_and_parity_came_to():
    run = {"summary": {"dataset": "mnist", "test.error_percent": 0.25}, "dtype": "bfloat16"}
    run |= {"batch_size": 512, "epochs": 3.0, "training_seconds": 0.5, "epoch_seconds": 0.75}
    largest = {"implementation": "xla", "failed": [4096], "failure": None}
    largest |= {"batch_size": 2048, "peak_bytes": 70e9}
    checked = {"comparisons": 1000, "beyond": 1, "cases": 2, "cases_there_are": 3}
    lines = table(
        epoch=part({"run": run}),
        memory=part(
            {
                "largest": largest,
                "implementations": {
                    "xla": {"failure": None, "bytes_per_image": 2e6},
                    "pallas": {"failure": "no kernel"},
                },
            }
        ),
        parity=part({"tiny": checked | {"first_difference": "routing: c (batch 1)"}}),
        recipe=part({"bfloat16": {"probe": run, "run": run}, "float32": {"probe": run}}),
    )
    assert list(lines.values()) == [
        (
            "an epoch of mnist in fit, bfloat16, batch 512, evaluation apart",
            "0.500 s (with it 0.750 s)",
            "",
        ),
        ("largest batch that trains, bfloat16, routing xla", "2,048 (70 GB; not 4,096)", ""),
        ("memory of a training step for an image, bfloat16, routing xla", "2 MB", ""),
        (
            "memory of a training step for an image, bfloat16, routing pallas",
            "failed: no kernel",
            "",
        ),
        (
            "parity check, tiny network, float32: comparisons within their limits",
            "999 of 1,000 in 2 of 3 cases; first beyond: routing: c (batch 1)",
            "all",
        ),
        ("test error of fit mnist, bfloat16, 3 of the recipe's 50 epochs", "0.25 %", ""),
        ("test error of fit mnist, float32", "no time was left for an epoch", ""),
    ]
