"""The optimiser that a configuration describes, and its learning rate."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from train.config.fit_config import FitConfig
from train.system.errors import UserError


def learning_rate(config: FitConfig, training_examples: int) -> optax.Schedule:
    """The learning rate of each update: a warm-up, then one of four ways down.

    The highest rate is `learning_rate`, times the batch in units of `base_batch` (`linear`: Goyal
    et al. 2017, arXiv:1706.02677, section 2.1) or times the root of that (`sqrt`: You et al. 2019,
    arXiv:1904.00962, section 4.3). It is reached in `warmup_steps` equal steps from zero, which is
    itself left out: it would waste an update. From there it stays (`constant`), falls by
    `decay_rate` in `decay_steps` again and again (`exponential`; `staircase`: all at once at their
    end), or to zero within them on half a cosine (`cosine`: Loshchilov and Hutter 2016,
    arXiv:1608.03983, equation 5); it never falls below `learning_rate_floor`.

    It is a function of the number of updates taken, scalars or arrays of any shape. The number of
    training examples is what a run given in epochs is as long as.

    Raises:
        UserError: if the run ends before the warm-up does, or the floor is above the highest rate.
    """
    settings = config.schedule
    total, warmup = settings.total_steps(training_examples), settings.warmup_steps
    if warmup >= total:
        raise UserError(
            f"--warmup-steps is {warmup}, but the run ends after {total}: choose fewer, or train "
            "longer."
        )
    ratio = settings.batch_size / settings.base_batch
    scale = {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[settings.lr_scaling]
    highest, steps = settings.learning_rate * scale, settings.decay_steps or total - warmup
    schedule = {
        "constant": lambda: optax.constant_schedule(highest),
        "exponential": lambda: optax.exponential_decay(highest, steps, settings.decay_rate),
        "staircase": lambda: optax.exponential_decay(
            highest, steps, settings.decay_rate, staircase=True
        ),
        "cosine": lambda: optax.cosine_decay_schedule(highest, steps),
    }[settings.decay]()
    floor = settings.learning_rate_floor
    if floor > highest:
        raise UserError(
            f"--learning-rate-floor is {floor:g}, but the learning rate is {highest:g} at its "
            "highest: choose a lower floor."
        )
    if floor:
        schedule = _not_below(schedule, floor)
    if warmup:
        # optax.linear_schedule computes it down from the highest, and so the first ones inexactly.
        schedule = optax.join_schedules(
            [lambda step: highest * (step + 1) / (warmup + 1), schedule], [warmup]
        )

    def rate(step: Any) -> jax.Array:
        # Given an int32 step, optax would answer in float32 even in x64 mode.
        wide = jnp.asarray(step, float)
        return jnp.broadcast_to(schedule(wide), wide.shape)

    return rate


def _not_below(schedule: optax.Schedule, floor: float) -> optax.Schedule:
    return lambda step: jnp.maximum(schedule(step), floor)


def is_matrix(params: Any) -> Any:
    """Which tensors decay and have a trust ratio: those of two dimensions and more.

    That leaves out biases, norms and gains, by their shape and not by their name. The matrices
    `[I, J, D, K]` of all pairs of capsules count as one tensor, with one trust ratio.
    """
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)


def lamb(rate: optax.Schedule, weight_decay: float) -> optax.GradientTransformation:
    """LAMB (You et al. 2019, arXiv:1904.00962, algorithm 2), trust ratio and decay for matrices.

    `optax.lamb` with a mask on the trust ratio, which it does not have.
    """
    return optax.chain(
        optax.scale_by_adam(eps=1e-6),
        optax.add_decayed_weights(weight_decay, mask=is_matrix),
        optax.masked(optax.scale_by_trust_ratio(), is_matrix),
        optax.scale_by_learning_rate(rate),
    )


def muon(rate: optax.Schedule, weight_decay: float) -> optax.GradientTransformation:
    """Muon (Jordan et al. 2024): the momentum of each matrix, all its singular values made alike.

    The updates have the root mean square that Adam's have (Liu et al. 2025, arXiv:2502.16982,
    equation 4), so that a learning rate means the same to both. Biases are Adam's, with Nesterov's
    look ahead (Dozat 2016, "Incorporating Nesterov momentum into Adam"), as everything else is.
    """
    return optax.contrib.muon(
        rate,
        weight_decay=weight_decay,
        weight_decay_mask=is_matrix,
        muon_weight_dimension_numbers=matrix_axes,
        consistent_rms=0.2,
    )


def matrix_axes(params: Any) -> Any:
    """Which axes of a tensor are a matrix's rows, summed over, and which its columns, for Muon.

    A kernel of a convolution, `[y, x, in, out]` in a module called `conv`, is one matrix; of the
    matrices `[I, J, D, K]` of all pairs of capsules, those from one capsule below to all above are.
    """

    def axes(path: tuple[Any, ...], leaf: jax.Array) -> Any:
        if leaf.ndim == 2:
            return optax.contrib.MuonDimensionNumbers(0, 1)
        if leaf.ndim == 4:
            is_convolution = any(getattr(key, "key", None) == "conv" for key in path)
            rows, columns = ((0, 1, 2), 3) if is_convolution else (2, (1, 3))
            return optax.contrib.MuonDimensionNumbers(rows, columns)
        return None

    return jax.tree_util.tree_map_with_path(axes, params)


def build_optimizer(
    config: FitConfig, training_examples: int | None = None
) -> optax.GradientTransformation:
    """The configuration's optimiser: clipping by the global norm, then its updates.

    Without the number of training examples it is for a state that is not trained.

    Raises:
        UserError: as `learning_rate`.
    """
    rate = (
        optax.constant_schedule(config.schedule.learning_rate)
        if training_examples is None
        else learning_rate(config, training_examples)
    )
    decay = config.optimizer.weight_decay
    optimizer = {
        "adam": lambda: optax.adam(rate),
        "adamw": lambda: optax.adamw(rate, weight_decay=decay, mask=is_matrix),
        "lamb": lambda: lamb(rate, decay),
        # You et al. 2017, arXiv:1708.03888, algorithm 1.
        "lars": lambda: optax.lars(rate, decay, is_matrix, trust_ratio_mask=is_matrix),
        "muon": lambda: muon(rate, decay),
        "sgd": lambda: optax.chain(
            optax.add_decayed_weights(decay, is_matrix),
            optax.sgd(rate, config.optimizer.momentum or None),
        ),
    }[config.optimizer.name]()
    if config.optimizer.clip_norm is None:
        return optimizer
    return optax.chain(optax.clip_by_global_norm(config.optimizer.clip_norm), optimizer)
