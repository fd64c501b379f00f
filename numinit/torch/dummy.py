"""Weights of the right shapes and types that need not be any model's, for tests of serving.

A loader of vLLM that uses them, registered by a plugin (the entry point ``vllm.general_plugins``)
and chosen by ``load_format="numinit"``::

    from vllm.model_executor.model_loader import register_model_loader
    from vllm.model_executor.model_loader.base_loader import BaseModelLoader

    @register_model_loader("numinit")
    class NuminitLoader(BaseModelLoader):
        def download_model(self, model_config):
            pass

        def load_weights(self, model, model_config):
            numinit.torch.dummy_(model, seed=0)
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch

from numinit.arrays.frameworks import framework_of
from numinit.initializers import Constant, Initializer, Uniform
from numinit.show import show
from numinit.stream.dtypes import DType
from numinit.stream.rounding import floor_byte
from numinit.torch.devices import direct, filled, pieces
from numinit.torch.named import named_tensors
from numinit.torch.steps import FILLED
from numinit.weights.keys import Key, as_key

__all__ = ["dummy_"]

BOUND = 1e-3  # vLLM's own
PIECE = 1 << 18  # elements that are made at a time in a type that numinit does not fill
#: Types of counters and indices, for which zero is right or harmless.
COUNTS = {"bool", "int16", "int64", "uint16", "uint32", "uint64"}
#: A type of exponents without significands, and the bits of 2**-10 in it.
SCALE = {"float8_e8m0fnu": 117}
#: Bytes as the engines fill them.
INT8 = DType("int8", 1, "I8", 8, 0, 127.0, floor_byte, False)
UINT8 = DType("uint8", 1, "U8", 8, 0, 256.0, floor_byte, False)

Shape = tuple[int, ...]


class _Job(NamedTuple):
    """A window of a weight to fill, and how."""

    tensor: torch.Tensor
    init: Initializer
    kind: DType | None
    """The type in which it is filled; None if torch rounds to the tensor's type, from float32."""
    whole: Shape
    low: Shape
    """Where the window begins in the whole weight."""
    key: Key


def dummy_(target: Any, seed: Any = 0, *, bound: float = BOUND) -> Any:
    """Fill all weights in place with small finite values, whatever their types.

    The values depend on the seed, the name and the shape of a tensor, so they are the same on every
    process that has a tensor of that name and shape; of a DTensor each process gets its part. No
    memory is needed but a piece of 1 MiB for the types that only torch fills.

    * floating-point and complex: uniform on ``[-bound, bound)``; in a type whose normal numbers
      begin above ``bound / 4``, such as float8_e4m3fn, on four times its smallest normal number.
    * int8: integers from -8 to 7.
    * packed ones (uint8, int32 of two axes or more, float4_e2m1fn_x2, int1 to uint7, bits8 ...):
      any bits.
    * float8_e8m0fnu, which holds scales: 2**-10.
    * other integers and booleans, which count or select: zero.
    * quantized ones of torch: from -8 to 8 of their steps.
    * tensors that consist of others, such as torchao's: each of the others by its own rule.
    * floating-point buffers of a module, and tensors named ``running_var``: uniform on
      ``[bound / 2, bound)``, because a variance may not be negative. A module's buffers that its
      ``state_dict`` lacks stay as they are.

    Parameters
    ----------
    target : torch.nn.Module or mapping of str to torch.Tensor
        A module or a state dict; values that are no tensors are passed over.
    seed : int, Key or any other seed
        The tensor `name` is drawn from ``as_key(seed).fold_in(name)``.
    bound : float
        The bound of floating-point values.

    Returns
    -------
    Module or mapping
        The same object.

    Raises
    ------
    TypeError, ValueError
        Naming the tensor, if one has no memory or no such layout. Nothing was touched.

    Examples
    --------
    >>> import torch
    >>> from numinit.torch import dummy_
    >>> state = {"w": torch.empty(4, 8, dtype=torch.float8_e5m2), "n": torch.empty(2, dtype=torch.int64)}
    >>> state = dummy_(state, seed=0)
    >>> bool((state["w"].float().abs() <= 1e-3).all()), state["n"].tolist()
    (True, [0, 0])
    """
    if not isinstance(bound, int | float) or not 0 < bound < math.inf:
        raise ValueError(f"bound: {show(bound)} was given; a positive finite number is accepted")
    key, jobs = as_key(seed), list[_Job]()
    seen = set[Any]()
    for name, tensor, buffer in _tensors(target):
        positive = buffer or name.rpartition(".")[2] == "running_var"
        try:
            for job in _jobs(tensor.detach(), key.fold_in(name), bound, positive, None):
                memory = job.tensor
                place = memory.data_ptr(), tuple(memory.shape), memory.stride(), memory.dtype
                if memory.numel() and place not in seen:  # of tied ones the first name decides
                    seen.add(place)
                    jobs.append(job)
        except (TypeError, ValueError) as error:
            raise type(error)(f"tensor {show(name)}: {error}") from error
    with torch.no_grad():
        for job in jobs:
            _fill(job)
    return target


def _tensors(target: Any) -> Iterator[tuple[str, torch.Tensor, bool]]:
    """Names, tensors and whether they are buffers."""
    if isinstance(target, torch.nn.Module):
        for name, tensor, buffer, persistent, _ in named_tensors(target):
            if persistent:
                yield name, tensor, buffer
    elif isinstance(target, Mapping):
        for name, tensor in target.items():
            if isinstance(tensor, torch.Tensor):
                yield name, tensor, False
    else:
        raise TypeError(
            f"target: a {type(target).__name__} was given; a torch.nn.Module or a mapping of names "
            "to tensors is accepted"
        )


def _jobs(
    tensor: torch.Tensor, key: Key, bound: float, positive: bool, window: tuple[Shape, Shape] | None
) -> Iterator[_Job]:
    """What is to be filled for a tensor, which is a window of a weight or, with None, all of it."""
    framework = framework_of(tensor)
    if framework.parts is not None:
        whole, parts = framework.parts(tensor)
        for part, low in parts:
            yield from _jobs(part, key, bound, positive, (whole, low))
        return
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _jobs(getattr(tensor, name), key.fold_in(name), bound, positive, None)
        return
    if tensor.is_meta:
        raise ValueError("it is on the meta device, which has no memory")
    if tensor.layout is not torch.strided:
        raise TypeError(f"its layout is {tensor.layout}; strided ones are accepted")
    whole, low = window or (tuple(tensor.shape), (0,) * tensor.ndim)
    name = str(tensor.dtype).removeprefix("torch.")
    init: Initializer
    if tensor.is_quantized:
        step = _step(tensor)
        yield _Job(tensor, Uniform(-8 * step, 8 * step), None, whole, low, key)
    elif name in SCALE:
        yield _Job(tensor.view(torch.uint8), Constant(SCALE[name]), None, whole, low, key)
    elif name in COUNTS or (name == "int32" and tensor.ndim < 2):
        yield _Job(tensor, Constant(0), None, whole, low, key)
    elif name == "int8":
        yield _Job(tensor, Uniform(-8, 8), INT8, whole, low, key)
    elif name == "complex32":
        parts = torch.view_as_real(tensor)
        init, kind = Uniform(-bound, bound), FILLED[torch.float16]
        yield _Job(parts, init, kind, (*whole, 2), (*low, 0), key)
    elif tensor.dtype in FILLED or (tensor.is_floating_point() and "_x2" not in name):
        least = torch.finfo(tensor.dtype).smallest_normal
        most = bound if least <= bound / 4 else 4 * least
        init = Uniform(most / 2 if positive else -most, most)
        yield _Job(tensor, init, FILLED.get(tensor.dtype), whole, low, key)
    else:
        size = tensor.dtype.itemsize
        if size > 1:
            inner = _inner(tensor)
            tensor = tensor.movedim(inner, -1)
            whole, low = (
                (*shape[:inner], *shape[inner + 1 :], shape[inner] * size) for shape in (whole, low)
            )
        yield _Job(tensor.view(torch.uint8), Uniform(0, 256), UINT8, whole, low, key)


def _step(tensor: torch.Tensor) -> float:
    """The largest step of a quantized tensor."""
    if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return float(tensor.q_scale())
    return float(tensor.q_per_channel_scales().max())


def _inner(tensor: torch.Tensor) -> int:
    """The axis whose neighbours are neighbours in memory, the last of several."""
    for axis in reversed(range(tensor.ndim)):
        if tensor.stride(axis) == 1:
            return axis
    raise TypeError("its elements are apart on every axis; neighbours on one axis are accepted")


def _fill(job: _Job) -> None:
    """Carry out a job."""
    tensor, init, kind, whole, low, key = job
    if isinstance(init, Constant):
        tensor.fill_(int(init.value.real))
        return

    def fill(window: torch.Tensor, at: Shape) -> None:
        if kind in (INT8, UINT8):
            init._fill_as(kind, window.view(torch.float8_e5m2), whole, at, key)
        else:
            init.fill_(window, shape=whole, offset=at, seed=key)

    if kind is not None:
        filled(tensor, low, fill, init, whole)
        return
    near = tensor.device if direct(tensor.device) else "cpu"
    buffer = torch.empty(min(PIECE, tensor.numel()), device=near)
    for part, at in pieces(tensor, low, PIECE):
        made = buffer[: part.numel()].view(part.shape)
        fill(made, at)
        part.copy_(made)
