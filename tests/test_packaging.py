"""The house: who may import whom, what the wheel holds, and that the locks agree."""

import ast
import email
import graphlib
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

import capsjax

ROOT = Path(__file__).parents[1]

LIBRARY_NEEDS = {"jax", "flax", "optax", "safetensors"}

# The rooms of each package from the bottom up: a room imports those below it and itself. What
# stands in one set is on one level, and has nothing to do with the others there.
ROOMS: dict[str, list[set[str]]] = {
    "capsjax": [
        {"_checks", "_deprecated", "_version"},
        {"capsules", "preprocessing", "weights"},
        {"ops", "losses"},
        {"routing"},
        {"layers"},
        {"inspection", "models"},
        {"pretrained"},
        {"__init__"},
    ],
    "train": [
        {"system"},
        {"distributed"},
        {"data"},
        {"config"},
        {"presets"},
        {"learn"},
        {"run"},
        {"report"},
        {"bench", "loop"},
        {"study"},
        {"options"},
        {"cli"},
        {"__main__", "__init__"},
    ],
    "parity": [
        {"reference"},
        {"layouts"},
        {"check"},
        {"user_module"},
        {"bench"},
        {"cli"},
        {"__main__", "__init__"},
    ],
}


# --- Arrows


def modules(package: str) -> dict[str, Path]:
    """Every module of a package of this checkout: dotted name -> file."""
    found = {}
    for file in sorted((ROOT / package).rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(name: str, file: Path, known: set[str]) -> set[str]:
    """The dotted names a module imports, wherever in it the import stands.

    `from package import x` counts as `package.x` where that is a module among `known`.
    """
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            members = {f"{base}.{alias.name}" for alias in node.names}
            found |= (members & known) | ({base} if members - known else set())
    return found


def imports_of(package: str) -> Iterator[tuple[str, str]]:
    """Every import in a package, as (module, what it imports)."""
    files = modules(package)
    for name, file in files.items():
        for target in sorted(imports(name, file, set(files))):
            yield name, target


def top(name: str) -> str:
    return name.partition(".")[0]


def room(name: str) -> str:
    """The room that a module is in: `capsjax.routing.em` -> `routing`."""
    return [*name.split("."), "__init__"][1]


def test_library_imports_what_it_asks_for_numpy_and_the_standard_library_alone():
    allowed = LIBRARY_NEEDS | {"numpy", "capsjax"} | sys.stdlib_module_names
    strangers = [(m, t) for m, t in imports_of("capsjax") if top(t) not in allowed]
    assert not strangers


def test_library_knows_no_clock_and_of_files_those_of_weights_alone():
    files = {"glob", "io", "os", "pathlib", "shutil", "subprocess", "tempfile"}
    clocks = {"datetime", "time"}
    found = [(m, t) for m, t in imports_of("capsjax") if top(t) in files | clocks]
    assert not [(m, t) for m, t in found if room(m) not in {"weights", "pretrained"}]
    assert not [(m, t) for m, t in found if top(t) in clocks]


def test_training_program_imports_no_parity_torch_or_tensorflow():
    forbidden = {"parity", "tests", "torch", "tensorflow"}
    assert not [(m, t) for m, t in imports_of("train") if top(t) in forbidden]


def test_the_references_import_torch_and_one_another_alone():
    allowed = {"torch", "parity.reference"} | sys.stdlib_module_names
    strangers = [
        (m, t)
        for m, t in imports_of("parity")
        if m.startswith("parity.reference")
        and top(t) not in allowed
        and not t.startswith("parity.reference")
    ]
    assert not strangers


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_import_downwards(package):
    level = {name: number for number, names in enumerate(ROOMS[package]) for name in names}
    homeless = {room(m) for m in modules(package)} - level.keys()
    assert not homeless, f"give {homeless} a place in ROOMS"
    upward = [
        (m, t)
        for m, t in imports_of(package)
        if top(t) == package and room(m) != room(t) and level[room(m)] <= level[room(t)]
    ]
    assert not upward


@pytest.mark.parametrize("package", ["train", "parity"])
def test_a_folder_has_a_dozen_files_and_says_what_lives_there(package):
    """A recipe is a file: their folder may be larger."""
    for folder in {file.parent for file in modules(package).values()}:
        files = [path for path in folder.iterdir() if path.is_file()]
        assert len(files) <= 14 or folder.name == "presets", folder
        text = (folder / "__init__.py").read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(text)), folder


@pytest.mark.parametrize("package", ["capsjax", "train", "parity"])
def test_nothing_imports_in_a_circle(package):
    graph = {name: set() for name in modules(package)}
    for module, target in imports_of(package):
        if target in graph:
            graph[module].add(target)
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


# --- Locks


def pins(lock: str) -> dict[str, set[str]]:
    """A lock's requirements: name -> its lines (two where the version depends on Python)."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / "requirements" / lock).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            found.setdefault(line.partition("==")[0], set()).add(line)
    return found


def versions(lines: set[str]) -> set[str]:
    return {line.partition(" ;")[0] for line in lines}


@pytest.mark.parametrize("lock", ["train.txt", "dev.txt", "parity.txt", "docs.txt"])
def test_every_line_of_a_lock_is_one_exact_version(lock):
    lines = set().union(*pins(lock).values())
    assert lines
    assert not [x for x in lines if not re.fullmatch(r"[a-z0-9-]+==[0-9][^ ;/:@+]*( ; .+)?", x)]


def test_locks_agree():
    train, dev, parity = pins("train.txt"), pins("dev.txt"), pins("parity.txt")
    assert train.items() <= dev.items()
    assert not [name for name in parity.keys() & dev.keys() if parity[name] != dev[name]]
    docs = pins("docs.txt")  # may need on all systems what `dev` needs on some
    assert not [n for n in docs.keys() & dev.keys() if versions(docs[n]) != versions(dev[n])]


def test_parity_lock_leaves_cuda_to_pip():
    assert not [n for n in pins("parity.txt") if n.startswith(("nvidia", "cuda", "triton"))]


# --- The wheel


def run(*command: str | Path, cwd: Path) -> str:
    """Runs a command that must succeed, in a clean Python environment; its standard output."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip")
    run(*pip, "wheel", ROOT, "--no-deps", "--no-build-isolation", "-w", out, cwd=out)
    (file,) = out.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def empty_environment(wheel, tmp_path_factory) -> Path:
    """The interpreter of a new environment that holds the wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", "env", cwd=folder)
    python = folder / "env" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", wheel, "-c", ROOT / "requirements" / "dev.txt", cwd=folder)
    return python


def test_wheel_holds_the_library_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if not name.endswith("/")}
    metadata = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    parts = [*modules("capsjax").values(), *(ROOT / "capsjax" / "weights").glob("*/*.*")]
    paths = {file.relative_to(ROOT).as_posix() for file in parts}
    assert {path for path in paths if "__pycache__" not in path} <= files
    assert {Path(name).parts[0] for name in files} == {"capsjax", metadata}
    assert f"{metadata}/licenses/LICENSE" in files


FORWARD = """
import importlib.metadata, importlib.util, json
import jax.numpy as jnp
from flax import nnx
import capsjax

model = capsjax.CapsNet(
    image_shape=(8, 8, 1), num_classes=10, conv_features=8, conv_kernel=3, primary_types=2,
    primary_dim=4, primary_kernel=3, primary_stride=2, class_dim=8, decoder_hidden=(16,),
    rngs=nnx.Rngs(0),
)
lengths = model(jnp.ones((2, 8, 8, 1), jnp.float32)).lengths
strangers = ["train", "parity", "tests", "torch", "tensorflow_datasets"]
predicted = {}
for name in capsjax.list_pretrained():
    network = capsjax.load(name)
    images = jnp.zeros((3, *network.image_shape), jnp.uint8)
    predicted[name] = len(network.predict(images).classes)
print(json.dumps({
    "file": capsjax.__file__,
    "version": [capsjax.__version__, importlib.metadata.version("capsjax")],
    "shape": lengths.shape,
    "sensible": bool(((lengths > 0) & (lengths < 1)).all()),
    "predicted": predicted,
    "strangers": [name for name in strangers if importlib.util.find_spec(name)],
}))
"""


@pytest.mark.slow
def test_wheel_works_in_an_empty_environment(empty_environment, tmp_path):
    told = json.loads(run(empty_environment, "-I", "-c", FORWARD, cwd=tmp_path))
    assert Path(told["file"]).is_relative_to(empty_environment.parents[1])
    assert told["version"][0] == told["version"][1]
    assert told["shape"] == [2, 10]
    assert told["sensible"]
    assert told["predicted"].keys() >= {"capsnet/digits"}
    assert set(told["predicted"].values()) == {3}
    assert told["strangers"] == []


def test_wheel_asks_for_what_the_library_imports_alone_and_offers_no_extras(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    asked = metadata.get_all("Requires-Dist")
    assert {re.match(r"[a-z]+", r)[0] for r in asked} == LIBRARY_NEEDS
    assert metadata.get_all("Provides-Extra") is None  # train and parity are not in it


def test_the_citation_has_the_version_and_licence_of_the_library():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {capsjax.__version__}\n" in citation
    assert "\nlicense: Apache-2.0\n" in citation


def test_an_editable_install_needs_nothing_but_the_locks_and_leads_to_this_checkout(tmp_path):
    """As `make` installs it, without a network."""
    build = "from hatchling.build import build_editable as b; print(b(__import__('sys').argv[1]))"
    name = run(sys.executable, "-c", build, tmp_path, cwd=ROOT).splitlines()[-1]
    with zipfile.ZipFile(tmp_path / name) as archive:
        (path,) = (n for n in archive.namelist() if n.endswith(".pth"))
        assert archive.read(path).decode().strip() == str(ROOT)


def test_source_distribution_holds_the_library_and_none_of_the_tests(tmp_path):
    build = "from hatchling.build import build_sdist; print(build_sdist(__import__('sys').argv[1]))"
    name = run(sys.executable, "-c", build, tmp_path, cwd=ROOT).splitlines()[-1]
    with tarfile.open(tmp_path / name) as archive:
        files = [Path(*Path(member.name).parts[1:]) for member in archive.getmembers()]
    top_level = {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "pyproject.toml"}
    assert {file.parts[0] for file in files} <= top_level | {"capsjax", "PKG-INFO", ".gitignore"}
    assert top_level <= {str(file) for file in files}
