"""A routing from a file: found, tried out, trained, and never run unasked."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from train.__main__ import main
from train.config.config_file import from_values
from train.config.fit_config import FitConfig
from train.learn.network import build_model
from train.learn.user_routing import is_own, make_routing, takes_iterations, trust
from train.run.folder import Run, load_run
from train.system.errors import UserError

MINE = """
import dataclasses
import jax.numpy as jnp
import capsjax

@dataclasses.dataclass(frozen=True)
class Mine:
    sharpness: float = 1.0

    def __call__(self, votes, activation):
        coupling = jnp.broadcast_to(activation[:, None] * self.sharpness, votes.shape[:2])
        pose = capsjax.squash(jnp.einsum("ij,ijd->jd", coupling, votes))
        return capsjax.Routed(pose, capsjax.norm(pose), coupling)

def repeated(votes, activation, *, iterations=2):
    return Mine(1.0 / iterations)(votes, activation)

def flat(votes, activation):
    return Mine()(votes, activation)._replace(pose=votes.sum(0).ravel())

def infinite(votes, activation):
    routed = Mine()(votes, activation)
    return routed._replace(activation=routed.activation / 0)

def steep(votes, activation):
    routed = Mine()(votes, activation)
    return routed._replace(activation=jnp.sqrt(routed.activation * 0))

def greedy(votes, activation, *, images):
    return Mine()(votes, activation)

def narrow(votes, activation):
    routed = Mine()(votes, activation)
    return routed._replace(activation=routed.activation[:3])

def undefined(votes, activation):
    return nothing_like_this(votes)

class Weighted:
    def __init__(self, rngs):
        pass

number = 3
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE, encoding="utf-8")
    return lambda attribute: f"{path}:{attribute}"


def trusted(name, **options):
    trust(name)
    return make_routing(name, **options)


def test_a_class_gets_the_options_and_a_function_becomes_partial(mine):
    assert trusted(mine("Mine"), sharpness=2.0).sharpness == 2.0
    assert trusted(mine("repeated"), iterations=5).keywords == {"iterations": 5}
    assert takes_iterations(mine("repeated"))
    assert not takes_iterations(mine("Mine"))
    assert is_own(mine("Mine"))
    assert not is_own("dynamic")


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("flat", r"flat returned pose of shape \(48,\), expected \(3, 16\)"),
        ("infinite", "infinite returned activation with values that are not finite"),
        ("steep", "steep returned a gradient with values that are not finite"),
        ("greedy", "greedy needs 'images'; a routing may need: pose, softmax"),
        ("undefined", r"undefined fails on votes \(6, 3, 16\) .*NameError: name 'nothing_like_th"),
        (
            "Weighted",
            "missing 1 required .* a routing that needs sizes or rngs is made by the `",
        ),
    ],
)
def test_what_is_wrong_is_told_with_the_output_and_what_was_expected(
    attribute, message, mine, config
):
    trust(mine(attribute))
    with jax.debug_nans(False), pytest.raises(UserError, match=message):
        build_model(config.changed(routing=mine(attribute)), (8, 8, 1), 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.py:Mine", "there is no file nowhere.py"),
        ("{}:Yours", "has no Yours that could be called: it has Mine, Weighted, flat, greedy"),
        ("{}:number", "has no number that could be called: it has Mine, Weighted, flat, greedy"),
    ],
)
def test_a_file_that_is_not_there_or_has_no_such_thing(name, message, mine):
    path = mine("").rpartition(":")[0]
    with pytest.raises(UserError, match=message):
        trust(name.format(path))


def test_a_file_that_fails_is_told(tmp_path):
    (tmp_path / "broken.py").write_text("import nothing_like_this", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be run: ModuleNotFoundError"):
        trust(f"{tmp_path / 'broken.py'}:Mine")


def test_a_configuration_names_code_and_never_runs_it(tmp_path, config):
    (tmp_path / "harm.py").write_text(f"open({str(tmp_path / 'done')!r}, 'w')", encoding="utf-8")
    values = {**dataclasses.asdict(config), "routing": f"{tmp_path / 'harm.py'}:Harm"}
    read = from_values(json.loads(json.dumps(values)), tmp_path / "config.json")
    with pytest.raises(UserError, match="which is code: if you trust that file, name it with"):
        build_model(read, (8, 8, 1), 3)
    assert not (tmp_path / "done").exists()


def test_unknown_names_are_still_refused():
    with pytest.raises(UserError, match="unknown routing 'dynamics', choose from"):
        FitConfig.of(routing="dynamics")


def test_it_is_trained_resumed_evaluated_and_named_each_time(mine, tmp_path, capsys):
    out, name = tmp_path / "run", mine("Mine")
    fit = ["fit", "digits", "--steps", "2", "--batch-size", "64", "--devices", "1"]
    options = ["--model-options", "conv_features=4", "primary_types=2", "decoder_hidden=[4]"]
    assert main([*fit, *options, "--routing", name, "--out", str(out)]) == 0
    assert load_run(out).config.model.routing == name
    assert main(["evaluate", str(out), "--routing", name, "--devices", "1"]) == 0
    capsys.readouterr()
    from train.learn import user_routing

    user_routing._trusted.clear()  # as in a new process
    assert main(["evaluate", str(out), "--devices", "1"]) == 2
    assert "name it with --routing" in capsys.readouterr().err
    assert np.isfinite(json.loads((out / "summary.json").read_text())["test.loss"])

    file, resume = tmp_path / "mine.py", ["fit", "--resume", "--routing", name, "--out", str(out)]
    file.write_text(f"# mine\n{MINE}", encoding="utf-8")
    assert main([*resume, "--devices", "1"]) == 0
    file.write_text(MINE.replace("1.0", "2.0"), encoding="utf-8")
    assert main([*resume, "--steps", "3", "--devices", "1"]) == 2
    assert f"differs in: the code of {name}" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["fit", "compare"])
def test_one_that_fits_what_it_is_tried_on_alone_leaves_nothing(command, mine, tmp_path, capsys):
    out = tmp_path / "run"
    asked = ["fit", "digits", "--routing"] if command == "fit" else ["compare", "--routings"]
    assert main([*asked, mine("narrow"), "--out", str(out)]) == 2
    printed = capsys.readouterr().err
    assert "fails in this network: ValueError: narrow returned activation of shape (3,)" in printed
    assert not out.exists()


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_run_is_not_measured_with_another_routing(command, tmp_path, capsys):
    Run(tmp_path, FitConfig.of(), (8, 8, 1), ("a", "b")).save()
    images = ["image.png"] if command == "predict" else []
    assert main([command, str(tmp_path), *images, "--routing", "em"]) == 2
    assert f"--routing is em, but {tmp_path} was trained with dynamic" in capsys.readouterr().err
