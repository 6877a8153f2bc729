import jax
import jax.numpy as jnp
import pytest
from jax import lax

from train.bench.costs import compiled_count, flops, footprint, peak_bytes, room


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def product(a, b):
    return a @ b


def loop(a, b, length=5, **options):
    return lax.scan(lambda c, _: (c @ b, None), a, length=length, **options)[0]


def nested(a, b):
    return lax.scan(lambda c, _: (loop(c, b, 3), None), a, length=4)[0]


def checkpointed(a, b):
    return jax.jit(jax.checkpoint(loop))(a, b)


def of_platform(a, b):
    return lax.platform_dependent(a, b, cpu=lambda a, b: a @ b @ b, default=loop)


def either(a, b):
    return lax.cond(a[0, 0] > 0, loop, product, a, b)


def unused(a, b):
    return jax.vjp(jnp.matmul, a, b)[1](a)[0]


@pytest.mark.parametrize(
    ("function", "turns"),
    [
        (product, 1),
        (loop, 5),
        (nested, 12),
        (checkpointed, 5),
        (of_platform, 5),
        (either, 5),
        (unused, 1),
        *((lambda a, b, u=u: loop(a, b, 7, unroll=u), 7) for u in (2, 3, True)),
        (lambda a, b: loop(a, b, 0), 0),
    ],
)
def test_every_turn_of_a_loop_counts(function, turns):
    once = 2 * 16**3
    counted = flops(function, shape(16, 16), shape(16, 16))
    assert counted // once == turns
    assert counted % once <= 20 * turns  # the counters of the loops


def test_xla_itself_counts_one_turn_of_a_loop():
    """The reason for the count of the others; the day that this fails, it can go."""
    lowered = jax.jit(loop).lower(shape(16, 16), shape(16, 16))
    assert lowered.cost_analysis()["flops"] // (2 * 16**3) == 1
    assert lowered.compile().cost_analysis()["flops"] // (2 * 16**3) == 1


def test_padding_is_no_work():
    def convolve(x, kernel, stride=1, **groups):
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            **groups,
        )

    # Of 3 taps along each axis, 5 positions meet 2 + 3 + 3 + 3 + 2 real elements.
    assert flops(convolve, shape(1, 5, 5, 4), shape(3, 3, 4, 6)) == 2 * 13 * 13 * 4 * 6
    grouped = flops(
        lambda x, kernel: convolve(x, kernel, feature_group_count=2),
        shape(1, 5, 5, 4),
        shape(3, 3, 2, 6),
    )
    assert grouped == 2 * 13 * 13 * 2 * 6


def test_the_compiler_counts_too():
    compiled = jax.jit(jnp.matmul).lower(shape(16, 24), shape(24, 40)).compile()
    assert compiled_count(compiled) == 2 * 16 * 24 * 40
    assert compiled_count(compiled, "bytes accessed") == 4 * (16 * 24 + 24 * 40 + 16 * 40)
    assert compiled_count(compiled, "patience") is None


def test_without_a_cpu_nothing_is_counted(monkeypatch):
    def refuse(backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "local_devices", refuse)
    assert flops(product, shape(16, 16), shape(16, 16)) is None


def test_donated_arguments_do_not_count_twice():
    x = jnp.ones(1000)
    kept = footprint(jax.jit(lambda x: x + 1).lower(x).compile())
    with jax.debug_nans(False):  # which keeps what was donated
        donated = footprint(jax.jit(lambda x: x + 1, donate_argnums=0).lower(x).compile())
    assert (kept["arguments"], kept["outputs"], kept["total"]) == (4000, 4000, 8000)
    assert donated["total"] == 4000


class Device:
    def __init__(self, **statistics):
        self._statistics = statistics

    def memory_stats(self):
        return self._statistics or None


def test_an_accelerator_knows_its_memory_and_a_cpu_its_process_s():
    gpus = [
        Device(bytes_limit=100, peak_bytes_in_use=70),
        Device(bytes_limit=90, peak_bytes_in_use=80),
    ]
    assert (room(gpus), peak_bytes(gpus)) == (90, 80)
    cpus = [Device(), Device()]
    assert room(cpus) == room(cpus[:1]) // 2 > 0
    assert peak_bytes(cpus) > 10**7
