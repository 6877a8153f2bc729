import io

from train.bench.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def go(stream):
    with Progress(2, stream) as progress:
        for what in ("first", "second"):
            progress.begin(what)
            progress.done()
    return stream.getvalue()


def test_plain_lines_without_a_terminal():
    assert go(io.StringIO()) == "1/2: first\n2/2: second\n"


def test_a_bar_on_a_terminal():
    said = go(Terminal())
    assert "second: 100%" in said
    assert "2/2" in said
