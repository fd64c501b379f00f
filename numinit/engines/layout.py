"""Layouts: a strided view as the rows, tiles and chunks that kernels take.

See `numinit.engines.cpu_drive` for the terms.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

SEGMENT = 1 << 13  # elements of a long row in one unit: some microseconds of work
TILE = 16  # rows in a tile: 64 bytes of float32, a cache line
TILE_SEGMENT = 128  # elements of a row in a tile: more are no faster, and fill small stacks
LEAST = 64  # elements that a kernel computes at once, also for a shorter row
GRAIN = 1 << 20  # elements in a chunk, which one thread takes at a time: a few huge pages
CHUNKS = 64  # number of chunks in a smaller array, so that threads share it evenly


class View(NamedTuple):
    """The layout of memory, and which elements of a weight belong there.

    Element (i0, i1, ...) lies ``sum(i * strides)`` bytes after the first, and its global index is
    ``sum(i * steps)`` after the first one's.
    """

    shape: tuple[int, ...]
    """Without a zero."""
    strides: tuple[int, ...]
    """Distances of neighbours along each axis, in bytes."""
    steps: tuple[int, ...]
    """Distances of neighbours along each axis, in the global order. The last is 1, unless the last
    axis has size 1 or is missing because it was indexed by an integer."""
    by_rows: bool = False
    """Whether calls give the global row of each index of axis 0; the memory is contiguous then."""


class Layout(NamedTuple):
    """A view as the kernels take it; see `numinit.engines.cpu_drive`."""

    elements: int
    chunks: int
    grain: int
    units: int
    inner: int
    inner_stride: int
    segment: int
    tile: int
    outer: np.ndarray  # int64 (dimensions, 3): size, stride, step


def laid_out(view: View, weight: int = 1) -> Layout:
    """Choose rows, segments, tiles and chunks for a view that is not empty.

    Parameters
    ----------
    view : View
        The memory.
    weight : int, optional
        How many times as long as usual an element takes. Chunks have so many times fewer.
    """
    shape, strides, steps, by_rows = view
    dims = _merged(shape, strides, steps, by_rows)
    inner, inner_stride, segment, tile = 1, 0, 1, 1
    if len(dims) > by_rows and dims[-1][2] == 1:
        inner, inner_stride, _ = dims.pop()
        segment = min(inner, SEGMENT)
    if not by_rows:
        dims.sort(key=lambda dim: -abs(dim[1]))  # neighbours in memory last
        if dims and inner > 1 and abs(dims[-1][1]) < abs(inner_stride):
            segment, tile = min(inner, TILE_SEGMENT), TILE
    units = -(-inner // segment)
    if dims:
        units *= math.prod(size for size, _, _ in dims[:-1]) * -(-dims[-1][0] // tile)
    cost = max(segment, LEAST) * tile * weight
    grain = max(1, min(GRAIN, units * cost // CHUNKS) // cost)
    outer = np.array(dims, np.int64).reshape(-1, 3)
    return Layout(
        math.prod(shape), -(-units // grain), grain, units, inner, inner_stride, segment, tile,
        outer,
    )  # fmt: skip


def _merged(
    shape: tuple[int, ...], strides: tuple[int, ...], steps: tuple[int, ...], by_rows: bool
) -> list[tuple[int, int, int]]:
    """The (size, stride, step) of each dimension longer than 1, neighbours merged if possible."""
    dims: list[tuple[int, int, int]] = []
    for axis, (size, stride, step) in enumerate(zip(shape, strides, steps, strict=True)):
        row_axis = by_rows and axis == 0
        if size == 1 and not row_axis:
            continue
        if len(dims) > by_rows and dims[-1][1:] == (size * stride, size * step):
            dims[-1] = (dims[-1][0] * size, stride, step)
        else:
            dims.append((size, stride, step))
    return dims


@functools.lru_cache(1024)
def c_steps(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Distances of neighbours along each axis in C order, in elements."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def refuse_overlap(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> None:
    """Refuse a layout in which two elements share a byte, such as a broadcast view.

    Raises
    ------
    ValueError
        If elements overlap. Interleaved axes that do not overlap are refused as well, unless
        slicing an array can make them.
    """
    extent = itemsize
    for stride, size in sorted(
        (abs(stride), size) for stride, size in zip(strides, shape, strict=True) if size > 1
    ):
        if stride < extent:
            raise ValueError(
                f"array: elements of it overlap in memory (shape {shape}, strides {strides} "
                "bytes), as in a broadcast or expanded view; an array whose elements are apart "
                "is accepted"
            )
        extent += stride * (size - 1)
