"""A PyTorch module that somebody else wrote: loads it, calls it, and finds the capsules in it."""

import dataclasses
import importlib.util
import itertools
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from parity.check.pairs import DtypeName
from parity.layouts.state_files import State, with_counters
from parity.user_module import INPUT_LAYOUTS, InputLayout
from train.bench.worker import in_one_line
from train.system.errors import UserError

What = Literal["lengths", "poses"]

_CONVOLUTIONS = (torch.conv2d, functional.conv2d)


def load_module(spec: str, state: State, *, path: Path, dtype: DtypeName) -> nn.Module:
    """Makes a module of a Python file, whose code is run, with the tensors of a state dict.

    Of `FILE.py:NAME` the class or the function is called without arguments; the module is set to
    evaluation in a dtype. A UserError, which names the `path` of the tensors, if the file or the
    name is missing, running it fails, no module comes out, or the tensors are of another one.
    """
    module = in_dtype(make_module(spec), dtype)
    tensors = {
        name: torch.from_numpy(array if array.dtype.kind == "i" else array.astype(dtype))
        for name, array in with_counters(state, 0).items()
    }
    try:
        module.load_state_dict(tensors, strict=True)
    except (
        Exception,
        SystemExit,
    ) as error:  # a tensor that does not fit, or whatever their own way raises
        told = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"{path} does not fit {spec}: {told}.") from error
    return module


def in_dtype(module: nn.Module, dtype: DtypeName) -> nn.Module:
    """The module itself, its tensors from now on in a dtype, set to evaluation."""
    return module.to(dtype=getattr(torch, dtype)).eval()


def make_module(spec: str) -> nn.Module:
    """Makes a module of the class or with the function `FILE.py:NAME`, whose code is run.

    A UserError if the file or the name is missing, running it fails, or no module comes out.
    """
    file, colon, name = spec.rpartition(":")
    if not (colon and file and name):
        raise UserError(f"--against is {spec!r}, but must be FILE.py:CLASS.")
    path = Path(file)
    if not path.is_file():
        raise UserError(f"there is no file {path}.")
    module = _run(path)
    made = getattr(module, name, None)
    if made is None:
        classes = [
            name
            for name, value in vars(module).items()
            if isinstance(value, type)
            and issubclass(value, nn.Module)
            and value.__module__ == module.__name__
        ]
        there = ", ".join(classes) or "no module class"
        raise UserError(f"{path} has no {name}; there is {there}.")
    if isinstance(made, nn.Module):
        return made
    if not callable(made):
        raise UserError(f"{spec} is a {type(made).__name__}, but must be a class or a function.")
    try:
        made = made()
    except (Exception, SystemExit) as error:  # whatever their code raises
        raise UserError(
            f"{spec} cannot be made without arguments ({in_one_line(error)}): name a function that "
            "returns the module."
        ) from error
    if not isinstance(made, nn.Module):
        raise UserError(f"{spec} makes a {type(made).__name__}, but must make a torch.nn.Module.")
    return made


def _run(path: Path) -> Any:
    """Runs a Python file as a module of its own, in which it can import its neighbours."""
    spec = importlib.util.spec_from_file_location(f"parity_against_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is no Python file: name one that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(f"{path} cannot be run ({in_one_line(error)}).") from error
    finally:
        sys.path.pop(0)
    return module


class Call(NamedTuple):
    """A call of a module that came through, with images `[B, H, W, C]` to differentiate by.

    The module was given them in the `layout`, and the further `arguments`. The `outputs` are the
    tensors that it returned, by index or key, with dots where they are nested; a single tensor is
    called `""`. Of each 2-D convolution, in order, there are the kernel `[out, in, y, x]` and the
    strides.
    """

    images: torch.Tensor
    layout: InputLayout
    arguments: tuple[torch.Tensor, ...]
    outputs: Mapping[str, torch.Tensor]
    convolutions: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)`."""
        height, width, channels = self.images.shape[1:]
        return int(height), int(width), int(channels)

    @property
    def how(self) -> str:
        """The images' layout and the other arguments in words."""
        labels = [" and one-hot labels" if a.ndim == 2 else " and labels" for a in self.arguments]
        return f"{self.layout.upper()} images{''.join(labels)}"

    def again(self, module: nn.Module, dtype: DtypeName) -> "Call":
        """The same call of a module in another dtype."""
        wider = getattr(torch, dtype)
        arguments = [a.to(wider) if a.is_floating_point() else a for a in self.arguments]
        images = self.images.detach().to(wider).numpy()
        return _call(module, images, self.layout, tuple(arguments))


def calls(
    module: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    layout: InputLayout | None,
    failures: list[str],
) -> Iterator[Call]:
    """Calls a module in every way that may be meant, and yields the calls that come through.

    The module takes `(images)` or `(images, labels)`, labels as integers or one-hot; images, here
    `[B, H, W, C]` in its dtype, in a layout, or if None in NCHW, NHWC and, for images of one
    channel, `[B, H W]`. `failures` takes the reason of every call that failed.
    """
    truth = torch.from_numpy(labels.astype(np.int64))
    one_hot = functional.one_hot(truth, num_classes).to(torch.from_numpy(images).dtype)
    layouts = [layout] if layout else INPUT_LAYOUTS[: 3 if images.shape[-1] == 1 else 2]
    further: tuple[tuple[torch.Tensor, ...], ...] = ((), (truth,), (one_hot,))
    for name, arguments in itertools.product(layouts, further):
        try:
            yield _call(module, images, name, arguments)
        except CallError as error:
            failures.append(str(error))


class CallError(Exception):
    """A call that failed, and why."""


def _call(
    module: nn.Module,
    images: np.ndarray,
    layout: InputLayout,
    arguments: tuple[torch.Tensor, ...],
) -> Call:
    seen = torch.from_numpy(images.copy()).requires_grad_()
    laid_out = seen.flatten(1) if layout == "flat" else seen
    if layout == "nchw":
        # A copy: of one channel, `contiguous` would keep the strides of NHWC, in which PyTorch then
        # computes, and the `view` after a convolution, which any loader's images allow, would fail.
        laid_out = seen.permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)
    call = Call(seen, layout, arguments, {}, ())
    try:
        with warnings.catch_warnings(), _Convolutions() as convolutions:
            warnings.simplefilter("ignore")  # theirs, not ours
            returned = module(laid_out, *arguments)
    except (Exception, SystemExit) as error:  # whatever their code raises
        shape = list(laid_out.shape)
        raise CallError(f"{call.how} {shape}: {in_one_line(error)}") from error
    outputs = dict(tensors_in(returned))
    return call._replace(outputs=outputs, convolutions=tuple(convolutions.seen))


class _Convolutions(TorchFunctionMode):
    """Notes the kernels and strides of convolutions: no tensor of a state dict has strides."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        if func in _CONVOLUTIONS:
            given = dict(zip(("input", "weight", "bias", "stride"), args, strict=False)) | kwargs
            stride = given.get("stride", 1)
            strides = (stride, stride) if isinstance(stride, int) else tuple(stride)
            self.seen.append((tuple(given["weight"].shape), strides))
        return func(*args, **kwargs)


def tensors_in(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in nested containers, by their names."""
    if isinstance(value, torch.Tensor):
        yield name, value
        return
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    elif isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from tensors_in(item, f"{name}.{key}" if name else str(key))


class View(NamedTuple):
    """A tensor that holds capsules, its axes in our order: lengths `[B, J]` or poses `[B, J, D]`.

    Gradients flow through. The name is that of `Call.outputs`; where it is not `certain`, sizes
    alone do not decide the order of the axes.
    """

    name: str
    what: What
    tensor: torch.Tensor
    certain: bool


def _view_of(name: str, tensor: torch.Tensor, sizes: tuple[int, int, int]) -> View | None:
    """A tensor as capsule lengths or poses, if it has their shape but for units and order."""
    if not tensor.is_floating_point():
        return None
    shape = [size for size in tensor.shape if size != 1]
    choices: tuple[tuple[What, tuple[int, ...]], ...] = (("lengths", sizes[:2]), ("poses", sizes))
    for what, wanted in choices:
        for order in itertools.permutations(range(len(wanted))):
            if [wanted[axis] for axis in order if wanted[axis] != 1] == shape:
                laid_out = tensor.reshape([wanted[axis] for axis in order])
                laid_out = laid_out.permute([order.index(axis) for axis in range(len(wanted))])
                return View(name, what, laid_out, len(set(shape)) == len(shape))
    return None


def find_capsules(
    outputs: Mapping[str, torch.Tensor], wanted: str | None, sizes: tuple[int, int, int]
) -> View:
    """The one tensor of `Call.outputs` that holds capsule lengths or poses, or a UserError.

    Wanted is that of an index or key, or in a container of such; None for any. The sizes are batch,
    classes and dimension of the class capsules.
    """
    there = ", ".join(f"{name or 'one tensor'} {list(t.shape)}" for name, t in outputs.items())
    there = there or "no tensor"
    inside = {
        name: tensor
        for name, tensor in outputs.items()
        if wanted is None or name == wanted or name.startswith(f"{wanted}.")
    }
    if not inside:
        raise UserError(f"the module returns no output {wanted!r}; there is {there}.")
    views = [view for name, tensor in inside.items() if (view := _view_of(name, tensor, sizes))]
    if len(views) == 1:
        return views[0]
    shapes = f"capsule lengths {list(sizes[:2])} or poses {list(sizes)}"
    if not views:
        has = "no output of the module has" if wanted is None else f"the output {wanted!r} has not"
        raise UserError(f"{has} the shape of {shapes}; there is {there}.")
    names = ", ".join(f"{view.name} {list(outputs[view.name].shape)}" for view in views)
    raise UserError(
        f"more than one output of the module has the shape of {shapes}: choose with --output one "
        f"of {names}."
    )
