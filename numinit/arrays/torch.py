"""torch tensors: their memory, torch's generators as seeds, autograd's version counter."""

import contextlib
import copy
import functools
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad

from numinit.arrays.memory import Framework, Memory, refuse_misaligned, refuse_own_items
from numinit.arrays.numpy import NUMPY_NAMES
from numinit.stream.dtypes import DTYPES

_DTYPES = {getattr(torch, n): dtype for n, dtype in DTYPES.items() if hasattr(torch, n)}
_PLAIN = (torch.Tensor, torch.nn.Parameter)


def _object_stream(device: int) -> int:
    """The handle of a GPU's current stream."""
    return int(torch.cuda.current_stream(device).cuda_stream)


#: The same by the function that torch's compiled code calls: to make an object takes longer than a
#: launch. Builds without CUDA lack it.
_stream: Callable[[int], int] = getattr(torch._C, "_cuda_getCurrentRawStream", _object_stream)


_RULES = "torch._dynamo.trace_rules"  # imported by the first torch.compile
_untraced: list[bool] = []


def _keep_untraced() -> None:
    """Let torch.compile run this package as it is, as it does torch's own internals.

    It would trace all that fills, down to NumPy's arrays of addresses, and fail.
    """
    _untraced.append(True)
    with contextlib.suppress(Exception):  # a private function, in all of torch 2
        sys.modules[_RULES].add("numinit")


def memory(tensor: torch.Tensor) -> Memory:
    """The memory of a CPU or CUDA tensor; a meta tensor has a shape only.

    Raises
    ------
    TypeError
        If the device, layout or dtype is not accepted, or the tensor has no memory of its own.
    """
    if _RULES in sys.modules and not _untraced:
        _keep_untraced()
    on_cpu = tensor.is_cpu
    device = -1 if on_cpu else _device(tensor)
    if tensor.layout is not torch.strided:
        raise TypeError(f"tensor: its layout is {tensor.layout}; dense strided ones are accepted")
    if tensor.is_neg() or tensor.is_conj():
        raise TypeError(
            "tensor: it is a lazily negated or conjugated view; resolve_neg() and resolve_conj() "
            "give a plain one"
        )
    if type(tensor) not in _PLAIN and _stands_for_others(tensor):
        raise TypeError(
            f"tensor: a {type(tensor).__name__} has no memory of its own; pass the plain tensor "
            "that it holds"
        )
    if type(tensor) not in _PLAIN:
        refuse_own_items(tensor, torch.Tensor)
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise TypeError(
            f"tensor: dtype {tensor.dtype} is not accepted; one of {', '.join(DTYPES)} is"
        )
    try:
        address = tensor.data_ptr() if on_cpu or device >= 0 else None
    except RuntimeError:  # inside of a transform of torch.func
        address = 0
    if address == 0 and tensor.numel():
        raise TypeError(
            "tensor: its memory was freed, or a transform of torch.func, such as vmap or grad, has put "
            "it in another's place; a plain tensor is accepted"
        )
    try:
        shape, strides = tuple(tensor.shape), _bytes(tensor.stride(), dtype.itemsize)
    except RuntimeError:
        raise TypeError("tensor: it is nested; dense strided ones are accepted") from None
    if device < 0:
        return address, dtype, shape, strides, ()
    refuse_misaligned(address or 0, dtype, shape, strides)
    return address, dtype, shape, strides, (device, _stream(device))


def _device(tensor: torch.Tensor) -> int:
    """The GPU of a CUDA tensor; -1 for a meta tensor."""
    if tensor.is_meta:
        return -1
    if not tensor.is_cuda or torch.version.cuda is None:  # ROCm's tensors say "cuda" too
        raise TypeError(f"tensor: it is on {tensor.device}; CPU and CUDA tensors are accepted")
    return int(tensor.get_device())


@functools.lru_cache(1024)
def _bytes(strides: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    return tuple(stride * itemsize for stride in strides)


def _stands_for_others(tensor: torch.Tensor) -> bool:
    """Whether a subclass handles operations itself (DTensor, FakeTensor, ...)."""
    plain = torch._C._disabled_torch_dispatch_impl
    return getattr(type(tensor), "__torch_dispatch__", plain) is not plain


class _Draw(threading.local):
    """A tensor of each thread for one number of torch's generator: a new one would cost more.

    It is a plain tensor, also if the thread first draws in inference mode or with another default
    device.
    """

    def __init__(self) -> None:
        with torch.inference_mode(False):
            place = torch.from_numpy(np.empty((), np.int64))
        if type(place) is not torch.Tensor:
            raise RuntimeError("seed: torch draws none among fake tensors; pass seed=")
        self.place = place


_draw = _Draw()


def default_seed(tensor: torch.Tensor) -> int:
    """A seed of 63 bits from torch's global generator, so that torch.manual_seed governs it."""
    return int(_draw.place.random_().item())


def seed_from(generator: object) -> int | None:
    """A seed from a torch.Generator, which advances it; None for other objects."""
    if not isinstance(generator, torch.Generator):
        return None
    place = torch.empty((), dtype=torch.int64, device=generator.device)
    return int(place.random_(generator=generator).item())


def written(tensor: torch.Tensor) -> None:
    """Tell autograd that the tensor was written in place, by values that depend on no other."""
    if forward_ad._current_level >= 0:  # a tangent is zeroed, as torch's own functions do
        tangent = forward_ad.unpack_dual(tensor).tangent
        if tangent is not None:
            tangent.zero_()
    try:
        torch.autograd.graph.increment_version(tensor)
    except RuntimeError:
        if not tensor.is_inference():  # those have no counter
            raise


def values(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's values as a NumPy array; as float32 where NumPy lacks the type."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    if plain.dtype in _DTYPES and _DTYPES[plain.dtype].name not in NUMPY_NAMES:
        plain = plain.float()
    array: np.ndarray = plain.numpy()
    return array


def of_arrays(function: Callable[[Any], Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Turn a function of tensors, or a module, into a function of float64 NumPy arrays."""
    if isinstance(function, torch.nn.Module):
        function = copy.deepcopy(function).to("cpu", torch.float64).eval()

    def of_array(array: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            values: np.ndarray = function(torch.from_numpy(array)).numpy()
        return values

    return of_array


FRAMEWORK = Framework(torch.Tensor, memory, values, written, default_seed, seed_from, of_arrays)
