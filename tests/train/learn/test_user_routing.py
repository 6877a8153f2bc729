"""A routing from a file: found, tried out, trained, and never run unasked."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from tests.tolerance import assert_close
from tests.train.saved import arrays
from train.__main__ import main
from train.config.config_file import from_values
from train.config.fit_config import FitConfig
from train.learn.network import build_model
from train.learn.user_routing import is_own, make_routing, takes_iterations, trust
from train.run.folder import Run, load_run
from train.system.errors import UserError

MINE = """
import dataclasses
import jax
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

def dropping(votes, activation, *, key):
    coupling = jnp.ones(votes.shape[:2])
    if key is not None:
        coupling = 2 * jax.random.bernoulli(key, 0.5, coupling.shape)
    pose = capsjax.squash(jnp.einsum("ij,ijd->jd", coupling, votes))
    return capsjax.Routed(pose, capsjax.norm(pose), coupling)

def steady(votes, activation):
    return dropping(votes, activation, key=None)

def drawn_badly(votes, activation, *, key):
    if key is not None:
        key = key.no_such_thing
    return Mine()(votes, activation)

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
        ("drawn_badly", r"drawn_badly fails on votes .*AttributeError: .*no_such_thing"),
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
        ("{}:Yours", "has no Yours that could be called: it has Mine, Weighted, drawn_badly, drop"),
        (
            "{}:number",
            "has no number that could be called: it has Mine, Weighted, drawn_badly, dro",
        ),
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


@pytest.mark.usefixtures("no_figures")
def test_it_is_trained_resumed_evaluated_and_named_each_time(mine, tmp_path, capsys):
    out, name = tmp_path / "run", mine("Mine")
    fit = ["fit", "digits", "--steps", "2", "--schedule", "constant", "--devices", "1"]
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
    assert main(["evaluate", str(out), "--routing", name, "--devices", "1"]) == 0
    assert f"the code of {name} has changed since {out} was trained" in capsys.readouterr().err


@pytest.mark.usefixtures("no_figures")
def test_what_it_draws_is_the_same_in_a_resumed_run_and_on_any_devices(mine, tmp_path, capsys):
    small = ["--model-options", "conv_features=4", "primary_types=2", "decoder_hidden=[4]"]
    fit = ["fit", "digits", *small, "--batch-size", "64", "--schedule", "constant", "--routing"]

    def trained(out, *options, routing="dropping"):
        assert main([*fit, mine(routing), "--out", str(tmp_path / out), *options]) == 0
        return arrays(tmp_path / out)

    whole = trained("whole", "--steps", "2", "--devices", "1")
    trained("half", "--steps", "1", "--devices", "1")
    resumed = trained("half", "--steps", "2", "--devices", "1", "--resume")
    spread = trained("spread", "--steps", "2", "--devices", "2")
    for ours, theirs, other in zip(whole, resumed, spread, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert_close(other, ours, reduction_length=64**2)
    plain = trained("plain", "--steps", "2", "--devices", "1", routing="steady")
    assert any(np.any(ours != theirs) for ours, theirs in zip(whole, plain, strict=True))
    evaluate = ["evaluate", str(tmp_path / "whole"), "--routing", mine("dropping"), "--json"]
    capsys.readouterr()
    tests = [main(evaluate) or json.loads(capsys.readouterr().out)["loss"] for _ in range(2)]
    assert tests[0] == tests[1]


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
