"""New memory for tensors, which the first fill touches fast."""

import ctypes
import functools
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

LEAST = 4 << 20  # bytes of a tensor that gets huge pages, as in NumPy
HUGE = 2 << 20
MADV_HUGEPAGE = 14


def final_memory(
    shape: Sequence[int],
    dtype: torch.dtype,
    device: Any = None,
    stride: Sequence[int] | None = None,
) -> torch.Tensor:
    """A new tensor, not initialized; in huge pages if it is large and on the CPU.

    Parameters
    ----------
    shape : sequence of int
    dtype : torch.dtype
    device : torch.device, str or None
    stride : sequence of int, optional
        In elements; C order if left out.
    """
    if stride is None:
        tensor = torch.empty(tuple(shape), dtype=dtype, device=device)
    else:
        tensor = torch.empty_strided(tuple(shape), tuple(stride), dtype=dtype, device=device)
    use_huge_pages(tensor)
    return tensor


def use_huge_pages(tensor: torch.Tensor) -> None:
    """Ask for huge pages under a large tensor in the host's memory, where the system has them.

    Memory that was never touched costs a page fault for each page; huge ones are 512 times fewer.
    """
    nbytes = math.prod(tensor.shape) * tensor.dtype.itemsize
    if nbytes < LEAST or not tensor.is_cpu or (advise := _advise()) is None:
        return
    storage = tensor.untyped_storage()
    address = storage.data_ptr()
    first = -(-address // HUGE) * HUGE
    size = (address + storage.nbytes()) // HUGE * HUGE - first
    if address and size > 0:  # a recorded tensor has none
        advise(first, size, MADV_HUGEPAGE)  # a wish: refusal changes nothing


@functools.cache
def _advise() -> Callable[[int, int, int], int] | None:
    if sys.platform != "linux":
        return None
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return advise
