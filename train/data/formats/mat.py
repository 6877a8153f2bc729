"""MATLAB's own file format, version 5, read by SciPy.

SciPy trusts what it reads: files of sets that publish checksums are verified before they come here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from train.system.errors import UserError
from train.system.files import reading


def read(path: Path, names: Sequence[str]) -> list[Any]:
    """Reads variables of a file by their names, as `scipy.io.loadmat` gives them, in this order.

    Raises:
        UserError: if SciPy is not installed, or the file is missing, damaged or not in this format,
            or lacks one of the variables.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise UserError(
            f"{path} is read with SciPy, which is not installed: install the project's `train` "
            "extra."
        ) from error
    publisher = "get it again from the data set's publisher"
    with reading(path, "a MATLAB file of version 5", publisher), path.open("rb") as file:
        variables = loadmat(file, variable_names=names)
    if missing := [name for name in names if name not in variables]:
        raise UserError(f"{path} lacks the variable {missing[0]!r}: check that it is the file.")
    return [variables[name] for name in names]
