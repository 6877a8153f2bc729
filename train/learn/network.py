"""The network that a configuration describes."""

import contextlib
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import capsjax
from train.config.checked import flag
from train.config.fit_config import FitConfig
from train.config.settings import ModelConfig
from train.learn.user_routing import is_own, make_routing, takes_iterations
from train.system.errors import DoesNotFitError, UserError, first_line
from train.system.machine import physical_bytes


def build_model(
    config: FitConfig,
    image_shape: Sequence[int],
    num_classes: int,
    axis: str | None = None,
    rngs: nnx.Rngs | None = None,
) -> nnx.Module:
    """Makes the network, its parameters drawn from the configuration's seed or from `rngs`.

    Of images `(height, width, channels)` it sees `seen_shape`. The axis is the mapped one over
    which a batch is spread, for a routing whose examples share their logits and for statistics of a
    batch; None where a batch is in one piece.

    Raises:
        UserError: if a size does not fit the images, or an option does not exist.
    """
    require_precision(config)
    shape = seen_shape(config, image_shape)
    takes = capsjax.model_options(config.model.name)
    try:
        options = dict(config.model.options)
        if "routing" in takes:
            options["routing"] = build_routing(config, axis)
        elif config.model.routing != ModelConfig.routing or config.model.routing_options:
            raise ValueError(f"{config.model.name} has no routing to choose")
        if "batch_axis" in takes:
            options["batch_axis"] = axis
        if config.model.remat:
            options["remat"] = True
        return capsjax.create_model(
            config.model.name,
            image_shape=shape,
            num_classes=num_classes,
            dtype=jnp.dtype(config.model.dtype),
            param_dtype=jnp.dtype(config.model.param_dtype),
            rngs=rngs or nnx.Rngs(model_key(config)),
            **options,
        )
    except UserError:
        raise
    except (ValueError, TypeError) as error:
        message = first_line(error).rstrip(".")
        raise UserError(f"this network cannot be made: {message}.") from error
    except Exception as error:
        if not (config.model.options or config.model.routing_options):
            raise
        given = {**config.model.options, **config.model.routing_options}
        raise UserError(
            f"this network cannot be made with the options {repr(given)[:200]} "
            f"({type(error).__name__}: {first_line(error)[:160]}): correct them."
        ) from error


def require_fitting_routing(
    config: FitConfig, image_shape: Sequence[int], num_classes: int
) -> None:
    """Traces the network once, if its routing is one of the user's own.

    Raises:
        UserError: if the routing fails in it, or the network cannot be made.
    """
    if not is_own(config.model.routing):
        return
    images = jax.ShapeDtypeStruct((2, *seen_shape(config, image_shape)), config.model.dtype)
    try:
        jax.eval_shape(lambda x: build_model(config, image_shape, num_classes)(x), images)
    except UserError:
        raise
    except Exception as error:
        message = f"{type(error).__name__}: {first_line(error)}".rstrip(".")
        raise UserError(
            f"the routing {config.model.routing} fails in this network: {message}."
        ) from error


def seen_shape(config: FitConfig, image_shape: Sequence[int]) -> tuple[int, int, int]:
    """The shape `(height, width, channels)` of what the network sees of images.

    Raises:
        UserError: if `config.data.crop` is longer than a side of theirs.
    """
    height, width, channels = image_shape
    if config.data.crop is None:
        return height, width, channels
    if config.data.crop > min(height, width):
        raise UserError(
            f"--crop is {config.data.crop}, but the images are {height}x{width}: choose 1 to "
            f"{min(height, width)}."
        )
    return config.data.crop, config.data.crop, channels


def build_routing(config: FitConfig, axis: str | None = None) -> Any:
    """Makes the routing of a configuration's network; the axis is as of `build_model`.

    Raises:
        UserError: it is of the user's own and was not named on the command line.
        ValueError: it is none, or has no such option.
        TypeError: an option is wrong.
    """
    options = dict(config.model.routing_options)
    if axis is not None and config.model.shares_logits:
        options["shared_axes"] = (axis,)
    if takes_iterations(config.model.routing):
        options["iterations"] = config.model.routing_iterations
    return make_routing(config.model.routing, **options)


def has_iterations(model: ModelConfig) -> bool:
    """Whether a network routes in iterations."""
    return "routing" in capsjax.model_options(model.name) and takes_iterations(model.routing)


def has_decoder(model: ModelConfig) -> bool:
    """Whether a network reconstructs its images."""
    options = {**capsjax.models.published_options(model.name), **model.options}
    return any(options.get(name) is not None for name in ("decoder_hidden", "decoder_features"))


def require_used(given: Collection[str], models: Sequence[ModelConfig]) -> None:
    """Refuses settings, by their flat names, that say nothing to any of some networks.

    Raises:
        UserError: if there is one.
    """
    names = " and ".join(dict.fromkeys(model.name for model in models))
    has_routing = any("routing" in capsjax.model_options(model.name) for model in models)
    for name in ("routing", "routing_options"):
        if name in given and not has_routing:
            raise UserError(f"{names} has no routing to choose: leave {flag(name)} out.")
    if "routing_iterations" in given and not any(map(has_iterations, models)):
        require_iterations(models[0], "--routing-iterations")
    for name in ("reconstruction_weight", "mask_in_training", "mask_in_test"):
        if name in given and not any(map(has_decoder, models)):
            raise UserError(f"{names} reconstructs nothing, so leave {flag(name)} out.")


def require_iterations(model: ModelConfig, option: str) -> None:
    """Refuses an option that says how often to route, for a network that does not iterate.

    Raises:
        UserError: if it is one.
    """
    if not has_iterations(model):
        has_routing = "routing" in capsjax.model_options(model.name)
        what = model.routing if has_routing else model.name
        raise UserError(f"{what} has no routing iterations: leave {option} out.")


def require_room(config: FitConfig, image_shape: Sequence[int], num_classes: int) -> None:
    """Refuses a network whose parameters alone are more than this machine's memory holds.

    For a configuration that comes from a file, which may be damaged or somebody's joke.

    Raises:
        UserError: if they are, or the network cannot be made.
    """
    shapes = nnx.eval_shape(lambda: build_model(config, image_shape, num_classes))
    promised = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(nnx.state(shapes)))
    if promised > physical_bytes():
        raise UserError(
            f"this network has parameters of {promised:,} bytes, more than the memory of this "
            "machine: see where its configuration comes from."
        )


def structure(config: FitConfig, image_shape: Sequence[int], num_classes: int) -> nnx.GraphDef:
    """The structure of the network where a batch is in one piece, without any values."""
    return nnx.graphdef(nnx.eval_shape(lambda: build_model(config, image_shape, num_classes)))


def require_precision(config: FitConfig) -> None:
    """Refuses a dtype that JAX would silently replace by a narrower one.

    Raises:
        UserError: on float64 where JAX's x64 mode is off.
    """
    dtypes = (config.model.dtype, config.model.param_dtype)
    if "float64" in dtypes and not jax.config.read("jax_enable_x64"):
        raise UserError(
            "float64 needs JAX's x64 mode: set the environment variable JAX_ENABLE_X64=1."
        )


def model_key(config: FitConfig) -> jax.Array:
    """The random key of the initial values."""
    return jax.random.fold_in(_key(config.seed), 0)


def training_key(config: FitConfig) -> jax.Array:
    """The random key of the training steps."""
    return jax.random.fold_in(_key(config.seed), 1)


def _key(seed: int) -> jax.Array:
    """The random key of a seed of up to 63 bits, of which JAX takes 32 where x64 is off."""
    high, low = divmod(seed, 2**32)
    key = jax.random.key(low)
    return jax.random.fold_in(key, high) if high else key


def count_parameters(params: Any) -> int:
    """Number of values in a tree of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@contextlib.contextmanager
def out_of_memory_is_bad_input(
    batch_size: int, advice: str = "choose a smaller --batch-size or more --devices"
) -> Iterator[None]:
    """Makes one sentence of the error of a batch that does not fit, with what to do.

    Raises:
        DoesNotFitError: where the body runs out of a device's memory.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        # A CPU says "INTERNAL: ... Out of memory".
        if not re.search("RESOURCE_EXHAUSTED|out of memory", str(error), re.IGNORECASE):
            raise
        raise DoesNotFitError(
            f"a batch of {batch_size} does not fit in the memory of the devices: {advice}."
        ) from error
