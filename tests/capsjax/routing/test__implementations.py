"""Which implementation of dense routing runs, and that a named one runs or is refused."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import Routed, Sizes, Squash, route
from capsjax.routing import Dynamic, DynamicPrior, Uniform, implementation_on, route_dense
from capsjax.routing._implementations import MEASURED
from tests.capsjax.ops.dense_cases import assert_as_from_votes, inputs
from tests.tolerance import assert_close

BATCH, I, J, D, K = 24, 18, 3, 4, 5  # noqa: E741
VOTES = f"tensor<{BATCH}x{I}x{J}x{D}xf32>"


class Own(Dynamic):
    """A user's routing that looks like the paper's."""

    def outcome(self, state):
        routed = super().outcome(state)
        return Routed(2 * routed.pose, routed.activation, routed.coupling)


def run(kernel, pose, routing=Dynamic(), implementation=None):  # noqa: B008
    activation = jnp.zeros(pose.shape[:2])
    return route_dense(routing, kernel, pose, activation, implementation=implementation)


def loss(*inputs, **options):
    return jnp.sum(run(*inputs, **options).pose ** 2)


def lowered(function, platform):
    traced = jax.jit(function).trace(*inputs(BATCH, I, J, D, K))
    return traced.lower(lowering_platforms=(platform,)).as_text()


def ran(text):
    """Which implementation a program holds."""
    if "tpu_custom_call" in text:
        return "pallas"
    return "xla" if VOTES in text else "recompute"


@pytest.mark.parametrize(
    ("platform", "name"),
    [(p, n) for p in ("cpu", "cuda", "tpu") for n in ("xla", "recompute")] + [("tpu", "pallas")],
)
def test_what_is_named_is_what_runs(platform, name):
    step = jax.grad(functools.partial(loss, implementation=name), argnums=(0, 1))
    assert ran(lowered(step, platform)) == name


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_what_is_said_to_be_the_choice_is_what_runs(platform):
    expected = implementation_on(platform, Dynamic(), BATCH)
    assert ran(lowered(loss, platform)) == expected


def test_a_training_step_on_a_cpu_holds_no_votes():
    step = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*inputs(BATCH, I, J, D, K))
    shape = re.compile(rf"f32\[{BATCH},{I},{J},{D}\]")
    assert implementation_on("cpu", Dynamic(), BATCH) == "recompute"
    assert not shape.search(step.compile().as_text())


def test_a_small_batch_keeps_its_votes():
    (platform, (name, from_batch)), *_ = MEASURED.items()
    assert implementation_on(platform, Dynamic(), from_batch) == name
    assert implementation_on(platform, Dynamic(), from_batch - 1) == "xla"
    assert implementation_on("abacus", Dynamic(), 128) == "xla"


def test_what_runs_by_default_computes_the_same():
    def function(kernel, pose):
        routed = run(kernel, pose)
        return routed.pose, routed.coupling

    assert_as_from_votes([function], Dynamic(), *inputs(BATCH, I, J, D, K))


@pytest.mark.parametrize(
    ("routing", "name"),
    [(Dynamic(), "xla"), (Dynamic(), "recompute"), (Uniform(), "xla")],
    ids=["xla", "recompute", "uniform"],
)
def test_what_is_masked_has_no_part_in_any_implementation(routing, name):
    kernel, pose = inputs(2, I, J, D, K)
    mask = jnp.asarray(np.arange(I) % 3 > np.arange(2)[:, None])
    activation = jnp.ones((2, I))

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
    def gradients(kernel, pose):
        routed = route_dense(routing, kernel, pose, activation, mask=mask, implementation=name)
        return jnp.sum(routed.pose**2), routed

    (by_kernel, by_pose), routed = gradients(kernel, jnp.where(mask[..., None], pose, 1e3))
    votes = jnp.einsum("ijdk,bik->bijd", kernel, pose)
    expected = route(routing, votes, activation, mask=mask)
    for a, e in zip(routed, expected, strict=True):
        assert_close(a, e, reduction_length=I)
    np.testing.assert_array_equal(by_pose[~mask], 0)
    (expected_by_kernel, _), _ = gradients(kernel, jnp.where(mask[..., None], pose, 0))
    np.testing.assert_array_equal(by_kernel, expected_by_kernel)


@pytest.mark.parametrize(
    "routing",
    [
        Own(),
        Dynamic(softmax_over="in"),
        Dynamic(shared_logits=True),
        DynamicPrior().build(Sizes(I, 8, J, 16), param_dtype="float32", rngs=nnx.Rngs(0)),
        lambda votes, activation: Routed(votes[0], activation[:J], votes[..., 0]),
    ],
    ids=["subclass", "over in", "shared", "prior", "function"],
)
def test_any_other_routing_is_routed_from_votes(routing):
    assert all(implementation_on(p, routing, 128) == "xla" for p in ("cpu", "cuda", "tpu"))
    kernel, pose = inputs(BATCH, I, J, D, K)
    by_default, from_votes = (run(kernel, pose, routing, name) for name in (None, "xla"))
    for a, e in zip(by_default, from_votes, strict=True):
        np.testing.assert_array_equal(a, e)
    for name in ("recompute", "pallas"):
        with pytest.raises(ValueError, match=f"{name}' computes a Dynamic .* there is: xla$"):
            run(kernel, pose, routing, name)


@pytest.mark.parametrize("options", [{"detach": True}, {"squash": Squash("element")}])
def test_pallas_computes_the_papers_routing_alone(options):
    with pytest.raises(ValueError, match="iterations alone, not .* there is: xla, recompute$"):
        run(*inputs(1, I, J, D, K), Dynamic(**options), "pallas")


def test_unknown_implementations_list_the_known_ones():
    with pytest.raises(ValueError, match="unknown implementation 'triton', choose from: xla, rec"):
        run(*inputs(1, I, J, D, K), implementation="triton")
