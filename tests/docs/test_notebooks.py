"""The notebooks run, and hold no results: these are made anew for the site."""

import json
import os
import subprocess
import sys

import pytest

from tests.docs.pages import NOTEBOOKS, ROOT, cells, name

EXECUTE = ROOT / "docs" / "notebooks" / "execute.py"


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name)
def test_a_notebook_runs_as_it_is(notebook, tmp_path):
    pytest.importorskip("matplotlib")
    if "torch" in "".join(cells(notebook, "code")):
        pytest.importorskip("torch")
    # In a folder that has nothing to do with the checkout, as of any user.
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    env.pop("XLA_FLAGS", None)  # the tests' own, with which training is slow
    command = [sys.executable, EXECUTE, notebook, "--out", tmp_path]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / f"{notebook.stem}.md").read_text(encoding="utf-8")
    assert page.startswith("# ")
    assert page.count("```text") >= 3
    for picture in tmp_path.glob("*.png"):
        assert f"]({picture.name})" in page


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name)
def test_a_notebook_is_kept_without_results(notebook):
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
