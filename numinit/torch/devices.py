"""Memory on any device: filled in place, or made on the host in pieces and copied."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from numinit.engines.spec import Whole
from numinit.initializers import Initializer
from numinit.torch.steps import FILLED

PIECE = 64 << 20  # bytes that are made on the host at a time for another device

Place = tuple[int, ...]


def direct(device: torch.device) -> bool:
    """Whether numinit fills a device's memory itself."""
    return device.type in ("cpu", "meta") or (
        device.type == "cuda" and torch.version.cuda is not None
    )


def filled(
    tensor: torch.Tensor,
    low: Place,
    fill: Callable[[torch.Tensor, Place], Any],
    init: Initializer,
    shape: Place,
) -> None:
    """Call a function that fills windows: for a tensor, or for pieces on the host, which are copied.

    Parameters
    ----------
    tensor : torch.Tensor
    low : tuple of int
        Where it begins in the whole weight.
    fill : callable
        ``fill(window, low)``, where the window has the tensor's type.
    init, shape : Initializer, tuple of int
        Those of the whole weight. One that is made whole for any part of it is one piece.
    """
    if direct(tensor.device):
        fill(tensor, low)
        return
    kind = FILLED.get(tensor.dtype)
    whole = kind is not None and isinstance(init.plan(shape, kind), Whole)
    most = tensor.numel() if whole else max(1, PIECE // tensor.dtype.itemsize)
    for part, begin in pieces(tensor, low, most):
        host = torch.empty(part.shape, dtype=part.dtype, device="cpu")
        fill(host, begin)
        part.copy_(host)


def pieces(tensor: torch.Tensor, low: Place, most: int) -> Iterator[tuple[torch.Tensor, Place]]:
    """Cut a tensor into windows of at most `most` elements; also give where they begin."""
    if tensor.numel() <= most:
        yield tensor, low
        return
    axis = next(axis for axis, size in enumerate(tensor.shape) if size > 1)
    step = max(1, most * tensor.shape[axis] // tensor.numel())
    for begin in range(0, tensor.shape[axis], step):
        count = min(step, tensor.shape[axis] - begin)
        start = (*low[:axis], low[axis] + begin, *low[axis + 1 :])
        yield from pieces(tensor.narrow(axis, begin, count), start, most)
