"""New memory for tensors, which the first fill touches fast."""

from collections.abc import Sequence
from typing import Any

import torch

from numinit.engines import pages


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
    """Ask for huge pages under a large tensor that is new, if it is in the host's memory."""
    if tensor.is_cpu and tensor.numel() * tensor.itemsize >= pages.LEAST:
        storage = tensor.untyped_storage()  # a recorded tensor's has no address
        pages.use_huge_pages(storage.data_ptr(), storage.nbytes())
