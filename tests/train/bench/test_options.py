import argparse

import pytest

from train.bench.options import add_bench_options
from train.cli.config_options import UserErrorParser
from train.system.errors import UserError


def parse(*arguments: str) -> argparse.Namespace:
    parser = UserErrorParser(prog="program")
    add_bench_options(parser.add_subparsers(dest="command").add_parser("bench"))
    return parser.parse_args(["bench", *arguments])


def test_lists():
    options = parse("--batch-sizes", "32,128,32", "--dtypes", "float32,bfloat16")
    assert options.batch_sizes == [32, 128]
    assert options.dtypes == ["float32", "bfloat16"]
    assert options.iterations is None


@pytest.mark.parametrize(
    ("text", "size"),
    [("16GB", 16 * 10**9), ("512MiB", 2**29), ("1000", 1000), ("1.5 gb", 1_500_000_000)],
)
def test_sizes(text, size):
    assert parse("--predict-memory", text).predict_memory == size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-sizes", "32,"], "'32,' is not a list"),
        (["--batch-sizes", "32,many"], "'many' is not a whole number of at least 1"),
        (["--iterations", "0"], "'0' is not a whole number of at least 1"),
        (["--repetitions", "-1"], "'-1' is not a whole number"),
        (["--seconds", "inf"], "'inf' is not a number of seconds above 0"),
        (["--predict-memory", "much"], "'much' is not a size such as 16GB"),
        (["--predict-memory", "0GB"], "'0GB' is not a size"),
        (["--grow", "sideways"], "invalid choice: 'sideways'"),
        (["--feed", "--predict-memory", "1GB"], "not allowed with argument --feed"),
    ],
)
def test_bad_values_are_told(arguments, message):
    with pytest.raises(UserError, match=message):
        parse(*arguments)
