"""Writing the network of a run as one file, which needs nothing of the run."""

import importlib.util
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

import capsjax
from train.learn.network import count_parameters
from train.learn.training_state import trained_model
from train.report.loading import load_state, network_of
from train.run.checkpoint_files import Which
from train.run.folder import load_run
from train.system.errors import UserError
from train.system.files import write_whole

Kind = Literal["safetensors", "jax"]

SUFFIXES: dict[str, Kind] = {".safetensors": "safetensors", ".jax": "jax"}

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
"""What an exported program runs on."""


class Exported(NamedTuple):
    """What was written."""

    kind: Kind
    step: int
    parameters: int  # of the file
    bytes: int


def export(
    folder: Path,
    path: Path,
    *,
    kind: Kind | None = None,
    which: Which = "last",
    dtype: str | None = None,
    decoder: bool = True,
    overwrite: bool = False,
) -> Exported:
    """Writes the network of a run, whole or not at all.

    As safetensors it is for `capsjax.load`; as a program of `jax.export` it takes a batch of images
    uint8 of any size and returns their lengths, for JAX alone. The kind follows from the suffix, if
    it is not given.

    Args:
        folder: of the run.
        path: the file.
        kind: of the file.
        which: the checkpoint.
        dtype: what weights are stored in, of safetensors; their own if not given.
        decoder: whether the decoder is in the file; a program has none.
        overwrite: replace a file that is there.

    Raises:
        UserError: on bad input, or if the file cannot be written.
    """
    kind = kind or SUFFIXES.get(path.suffix)
    if kind is None:
        raise UserError(
            f"{path} has the suffix {path.suffix!r}, but must have one of: "
            f"{', '.join(SUFFIXES)}; or say which with --format."
        )
    if kind == "jax" and dtype is not None:
        raise UserError(
            f"--dtype is {dtype}, but a program holds weights as it computes with them: leave it "
            "out, or write safetensors."
        )
    if kind == "jax" and importlib.util.find_spec("flatbuffers") is None:
        raise UserError(
            "a program of jax.export is written by the package flatbuffers, which is not "
            "installed: run make, or pip install flatbuffers."
        )
    if path.is_dir() or (path.exists() and not overwrite):
        raise UserError(f"{path} is there already: replace it (--overwrite), or name another file.")
    run = load_run(folder)
    _, state = load_state(run, which, devices=1)
    network = network_of(run, trained_model(run.config, run.image_shape, run.num_classes, state))
    try:
        if kind == "jax":
            write_whole(path, program(network))
        else:
            capsjax.save(network, path, dtype=dtype, decoder=decoder)
        size = path.stat().st_size
    except ValueError as error:
        raise UserError(f"{folder} cannot be written to a file: {error}.") from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}): make room or give permission "
            "there, or name another file."
        ) from error
    params = dict(state.params)
    if not decoder or kind == "jax":
        params.pop("decoder", None)
    return Exported(kind, int(state.step), count_parameters(params), size)


def program(network: capsjax.Network) -> bytes:
    """A network as a program of `jax.export`: images uint8 `[n, *image_shape]` to their lengths.

    It is for a batch of any size from 1 on, on any of `PLATFORMS`, and holds the weights. Where an
    operation has several implementations it is as for the platform at hand.
    """
    graphdef, variables = nnx.split(network.model)
    dtype = jax.tree.leaves(nnx.state(network.model, nnx.Param))[0].dtype

    def lengths(images: jax.Array) -> jax.Array:
        model = nnx.merge(graphdef, variables)
        model.eval()
        return model(network.preprocessing(images, dtype)).lengths

    (count,) = jax.export.symbolic_shape("n")
    images = jax.ShapeDtypeStruct((count, *network.image_shape), jnp.uint8)
    exported = jax.export.export(jax.jit(lengths), platforms=PLATFORMS)(images)
    return bytes(exported.serialize())
