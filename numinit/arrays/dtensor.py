"""DTensors of torch: which windows of the whole a process holds, and in what memory."""

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from numinit.arrays.memory import Framework, Memory, Part
from numinit.arrays.torch import default_seed, seed_from

try:
    from torch.distributed.tensor import DTensor, Placement
except ImportError:  # torch 2.4
    from torch.distributed._tensor import DTensor, Placement

Run = tuple[int, int]
"""The first index and the number of consecutive indices on an axis."""


def memory(tensor: Any) -> Memory:
    """Refuse a DTensor where one memory is needed."""
    raise TypeError(
        "tensor: a DTensor has no memory of its own; fill_ and the functions of torch.nn.init "
        "accept it, and elsewhere its local tensor is accepted"
    )


def values(tensor: Any) -> np.ndarray:
    """Refuse a DTensor where all values are needed."""
    raise TypeError("tensor: a DTensor holds a part of its values; full_tensor() is accepted")


def parts(tensor: Any) -> tuple[tuple[int, ...], Iterable[Part]]:
    """The whole shape of a DTensor, and the windows that this process holds.

    There is one window, or several where shards are strided, or one that is empty. A process
    outside of the mesh holds none.

    Raises
    ------
    TypeError
        If it is to be summed over processes, is placed in an unknown way, or its local tensor is
        not as its placements say.
    """
    whole = tuple(tensor.shape)
    mesh, placements = tensor.device_mesh, tensor.placements
    place = mesh.get_coordinate()
    runs = shards(whole, placements, tuple(mesh.shape), place or (0,) * mesh.ndim)
    if place is None:
        return whole, ()
    with torch.no_grad():
        local = tensor.to_local()
    held = tuple(sum(size for _, size in axis) for axis in runs)
    if tuple(local.shape) != held:
        raise TypeError(
            f"tensor: {placements!r} of shape {whole} on a mesh of shape {tuple(mesh.shape)} give "
            f"this process a local tensor of shape {held}; it has one of shape {tuple(local.shape)}"
        )
    return whole, list(_windows(local, runs))


def shards(
    whole: tuple[int, ...],
    placements: Iterable[Placement],
    mesh: tuple[int, ...],
    place: Iterable[int],
) -> list[list[Run]]:
    """The indices on each axis that a process holds, as `torch.distributed.tensor` deals them out.

    Parameters
    ----------
    whole : tuple of int
        The whole shape.
    placements, mesh, place
        The placement, the number of processes and the process's place along each axis of the mesh.

    Returns
    -------
    list of list of (int, int)
        For each axis of the tensor the runs of indices, in the order of the local tensor.
    """
    axes: list[list[Run]] = [[(0, size)] for size in whole]
    for placement, processes, index in zip(placements, mesh, place, strict=True):
        kind = type(placement).__name__
        if kind == "Replicate":
            continue
        if kind not in ("Shard", "_StridedShard"):
            raise TypeError(
                f"tensor: its placement {placement!r} was given; Shard, _StridedShard and Replicate "
                "are accepted, because values that are summed over processes have no single origin"
            )
        axis = placement.dim % len(whole)
        factor = getattr(placement, "split_factor", 1) if kind == "_StridedShard" else 1
        pieces = (_chunk(axes[axis], factor, number) for number in range(factor))
        axes[axis] = [run for piece in pieces for run in _chunk(piece, processes, index)]
    return axes


def _chunk(runs: list[Run], number: int, index: int) -> list[Run]:
    """One of the chunks that torch.chunk makes of some indices; some at the end may be empty."""
    total = sum(size for _, size in runs)
    step = -(-total // number)
    begin, end = min(index * step, total), min((index + 1) * step, total)
    kept, at = [], 0
    for first, size in runs:
        low, high = max(begin, at), min(end, at + size)
        if low < high:
            kept.append((first + low - at, high - low))
        at += size
    return kept


def _windows(local: torch.Tensor, runs: list[list[Run]]) -> Iterable[Part]:
    """The local tensor's windows and where they begin in the whole."""
    joined = [_joined(axis) for axis in runs]
    for window in itertools.product(*joined):
        part = local
        for axis, (begin, _, size) in enumerate(window):
            if size < part.shape[axis]:
                part = part.narrow(axis, begin, size)
        yield part, tuple(first for _, first, _ in window)


def _joined(axis: list[Run]) -> list[tuple[int, int, int]]:
    """Runs with where they begin in the local tensor; neighbours are one, and none is an empty one."""
    made: list[tuple[int, int, int]] = []
    at = 0
    for first, size in axis:
        if made and sum(made[-1][1:]) == first:
            made[-1] = (*made[-1][:2], made[-1][2] + size)
        else:
            made.append((at, first, size))
        at += size
    return made or [(0, 0, 0)]


FRAMEWORK = Framework(
    DTensor, memory, values, default_seed=default_seed, seed_from=seed_from, parts=parts
)
