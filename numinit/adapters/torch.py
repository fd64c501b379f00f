"""torch tensors: their memory, torch's generators as seeds, autograd's version counter."""

import threading
from typing import Any

import torch

from numinit.arrays import Adapter, Memory
from numinit.dtypes import DTYPES
from numinit.keys import Key

_DTYPES = {getattr(torch, name): dtype for name, dtype in DTYPES.items()}
_draws = threading.local()
_PLAIN = (torch.Tensor, torch.nn.Parameter)


def memory(tensor: torch.Tensor) -> Memory | None:
    """The memory of a CPU tensor; None for a meta tensor, which has nothing to fill.

    Raises
    ------
    TypeError
        For other devices, layouts and dtypes, and for tensors that only stand for one.
    """
    device = tensor.device.type
    if device == "meta":
        return None
    if device != "cpu":
        raise TypeError(
            f"tensor: it is on {tensor.device}; CPU tensors are accepted by this version of numinit"
        )
    if tensor.layout is not torch.strided:
        raise TypeError(f"tensor: its layout is {tensor.layout}; dense strided ones are accepted")
    if tensor.is_neg():
        raise TypeError("tensor: it is a lazily negated view; resolve_neg() gives a plain one")
    if type(tensor) not in _PLAIN and _stands_for_others(tensor):
        raise TypeError(
            f"tensor: a {type(tensor).__name__} has no memory of its own; pass the plain tensor "
            "that it holds (for a DTensor, to_local() with shape= and offset=)"
        )
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise TypeError(f"tensor: dtype {tensor.dtype} is not accepted; one of {', '.join(DTYPES)} is")
    size = dtype.itemsize
    return Memory(
        tensor.data_ptr(), dtype, tuple(tensor.shape), tuple([size * s for s in tensor.stride()])
    )


def _stands_for_others(tensor: torch.Tensor) -> bool:
    """Whether a subclass handles operations itself (DTensor, FakeTensor, ...)."""
    plain = torch._C._disabled_torch_dispatch_impl
    return getattr(type(tensor), "__torch_dispatch__", plain) is not plain


def default_key(tensor: torch.Tensor) -> Key:
    """A key from torch's global generator, so that torch.manual_seed governs it."""
    return key_from(torch.default_generator)


def key_from(generator: Any) -> Key | None:
    """A key from a torch.Generator, which advances; None for other objects."""
    if not isinstance(generator, torch.Generator):
        return None
    draw = getattr(_draws, str(generator.device), None)
    if draw is None:  # one number for each thread and device: cheaper than a new tensor
        draw = torch.empty((), dtype=torch.int64, device=generator.device)
        setattr(_draws, str(generator.device), draw)
    return Key(draw.random_(generator=generator).item())  # 63 bits


def written(tensor: torch.Tensor) -> None:
    """Tell autograd that the tensor was written in place."""
    if not tensor.is_inference():
        torch.autograd.graph.increment_version(tensor)


ADAPTER = Adapter(memory, default_key, written)
