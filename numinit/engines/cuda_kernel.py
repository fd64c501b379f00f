"""CUDA kernels: fill any strided view; a thread makes a few blocks of the stream at a time.

A view is a set of *rows* as in `numinit.engines.cpu_kernel`. A *unit* is what a thread makes at a
time: whole blocks of the stream that belong to one row, as many as fill 16 bytes or more.
Neighbouring threads take units that are neighbours in memory. So units are counted along a row
first, then along the outer dimensions. In a transposed view, they are counted along the dense outer
dimension before the row.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import cuda, types

from numinit.compiler.cuda import WIDEST, load_int64, packed, store_element, store_words
from numinit.compiler.inline import inline
from numinit.engines.cpu_kernel import (
    FIRST,
    FOURTH,
    SECOND,
    THIRD,
    element_of,
    kernel_name,
)
from numinit.engines.zeros import NoParameters, Pattern
from numinit.stream.dtypes import DType
from numinit.stream.philox import LOW, SHIFT, block_words, counter_high
from numinit.stream.transform import Transform


def unit_blocks(dtype: DType) -> int:
    """The number of blocks of the stream in a unit: as many as fill the widest store."""
    return max(1, WIDEST // (4 * dtype.itemsize))


class Variant(NamedTuple):
    """The properties that a kernel is compiled for."""

    transform: Transform
    dtype: DType
    pattern: Pattern | None = None
    dims: int = 0
    """The number of outer dimensions, without the one that is dense in memory."""
    transposed: bool = False
    """Whether an outer dimension is dense in memory."""
    by_rows: bool = False
    """Whether the global row of each index of the first outer dimension is looked up."""

    @property
    def signature(self) -> tuple[Any, ...]:
        """Numba's types of the kernel's arguments; see `fill_function`."""
        i8, cleared = types.int64, self.pattern.Parameters if self.pattern else NoParameters
        read = self.transform.Parameters
        return (
            *[i8] * 12,
            types.UniTuple(i8, max(3 * self.dims, 1)),
            types.NamedUniTuple(types.float64, len(read._fields), read),  # type: ignore[attr-defined]
            types.NamedUniTuple(i8, len(cleared._fields), cleared),  # type: ignore[attr-defined]
        )

    @property
    def name(self) -> str:
        """The name of the compiled kernel."""
        name = kernel_name(self.transform, self.dtype, self.pattern)
        return f"fill_{name}_{self.dims}" + "t" * self.transposed + "r" * self.by_rows


@inline
def divided(a, b):
    """Quotient and remainder, int64, of two int64 that are not negative."""
    quotient = np.uint64(a) // np.uint64(b)
    return np.int64(quotient), np.int64(np.uint64(a) - quotient * np.uint64(b))


def _elements(variant: Variant) -> Any:
    """A function that makes the four elements of a block, with those of the pattern cleared.

    Elements are numbers of the type, or pairs of them if it is complex.
    """
    wide, parts = variant.dtype.wide, variant.dtype.parts
    element, convert = element_of(variant.dtype)
    transform = variant.transform.float64 if wide else variant.transform.float32
    cleared = variant.pattern.cleared if variant.pattern else None
    zero = np.dtype(element.name).type(0)
    low_plane = SECOND if parts == 1 else THIRD  # of the first part; of the second one: FOURTH

    if not variant.transform.draws:

        @inline
        def words(block, high, low, seed, stream):
            return np.uint32(0), np.uint32(0), np.uint32(0), np.uint32(0)

    elif wide:

        @inline
        def words(block, high, low, seed, stream):
            a0, a1, a2, a3 = block_words(block & LOW, counter_high(block, high), seed, stream)
            b0, b1, b2, b3 = block_words(block & LOW, counter_high(block, low), seed, stream)
            return (a0 << SHIFT) | b0, (a1 << SHIFT) | b1, (a2 << SHIFT) | b2, (a3 << SHIFT) | b3

    else:

        @inline
        def words(block, high, low, seed, stream):
            a0, a1, a2, a3 = block_words(block & LOW, counter_high(block, high), seed, stream)
            return np.uint32(a0), np.uint32(a1), np.uint32(a2), np.uint32(a3)

    if parts == 1:

        @inline
        def made(block, seed, stream, p):
            x0, x1, x2, x3 = words(block, FIRST, low_plane, seed, stream)
            v0, v1 = transform(x0, x1, p)
            v2, v3 = transform(x2, x3, p)
            return convert(v0), convert(v1), convert(v2), convert(v3)

        nothing = zero

    else:

        @inline
        def made(block, seed, stream, p):
            x0, x1, x2, x3 = words(block, FIRST, low_plane, seed, stream)
            y0, y1, y2, y3 = words(block, SECOND, FOURTH, seed, stream)
            v0, v1 = transform(x0, y0, p), transform(x1, y1, p)
            v2, v3 = transform(x2, y2, p), transform(x3, y3, p)
            return v0, v1, v2, v3

        nothing = zero, zero

    if cleared is None:

        @inline
        def elements(block, seed, stream, p, m):
            return made(block, seed, stream, p)

    else:

        @inline
        def elements(block, seed, stream, p, m):
            v0, v1, v2, v3 = made(block, seed, stream, p)
            bits = 0
            for i in range(4):
                if cleared(4 * np.int64(block) + i, seed, stream, m):
                    bits |= 1 << i
            v0, v1 = nothing if bits & 1 else v0, nothing if bits & 2 else v1
            v2, v3 = nothing if bits & 4 else v2, nothing if bits & 8 else v3
            return v0, v1, v2, v3

    return elements


@inline
def store_some(place, stride, low, count, values):
    """Store the elements of a block that belong to a row.

    place : OUT address of the block's first element; stride : bytes between elements
    low : the position in the row of the block's first element, negative if it lies before the row
    count : elements in the row
    values : four elements
    """
    if low >= 0 and low < count:
        store_element(place, values[0])
    if low >= -1 and low < count - 1:
        store_element(place + stride, values[1])
    if low >= -2 and low < count - 2:
        store_element(place + 2 * stride, values[2])
    if low >= -3 and low < count - 3:
        store_element(place + 3 * stride, values[3])


@functools.cache
def _unit(transform: Transform, dtype: DType, pattern: Pattern | None) -> Any:
    """A function that makes and stores a unit."""
    size = dtype.itemsize
    elements = _elements(Variant(transform, dtype, pattern))
    blocks = unit_blocks(dtype)
    each = size  # 32-bit words in a block's 4 elements
    empty = (np.uint32(0),) * (blocks * each)

    @inline
    def unit(place, stride, low, count, block, seed, stream, p, m):
        whole = low >= 0 and low + 4 * blocks <= count
        wide = whole and stride == size and place & (WIDEST - 1) == 0
        words = empty
        for _ in range(blocks):
            values = elements(block, seed, stream, p, m)
            if wide:  # all blocks of the unit are stored together below
                words = words[each:] + packed(values)
            else:
                store_some(place, stride, low, count, values)
                place += 4 * stride
                low += 4
            block += np.uint64(1)
        if wide:
            store_words(place, words)

    return unit


@inline
def global_row(ids, position):
    """The global row, int64, of a position."""
    return load_int64(ids + 8 * position)


def fill_function(variant: Variant) -> Callable[..., None]:
    """The Python function of a kernel.

    Its arguments are int64, but for the last three:

    address : OUT address of the first element
    first : global index of the first element
    ids : IN address of the global rows, int64 (rows,), or 0
    seed, stream : the key, in two's complement
    units, per_row : units in all; units in a row
    inner, inner_stride : elements in a row; their distance in bytes
    rows, row_stride, row_step : size, stride in bytes and step in the global order of the outer
        dimension that is dense in memory, if the view is transposed
    outer : tuple of int64, the same three numbers of each other outer dimension
    p : the transform's parameters, a NamedTuple of float64
    m : the pattern's parameters, a NamedTuple of int64
    """
    dims, transposed, by_rows = variant.dims, variant.transposed, variant.by_rows
    unit_of = _unit(variant.transform, variant.dtype, variant.pattern)
    blocks = unit_blocks(variant.dtype)

    def fill(
        address, first, ids, seed, stream, units, per_row, inner, inner_stride,
        rows, row_stride, row_step, outer, p, m,
    ):  # fmt: skip
        key0, key1 = np.uint64(np.int64(seed)), np.uint64(np.int64(stream))
        unit = np.int64(cuda.grid(1))
        while unit < units:
            place, index, column = address, first, unit
            if transposed:
                column, position = divided(column, rows)
                place += position * row_stride
                index += position * row_step
            if dims:
                rest, column = divided(column, per_row)
                for d in range(3 * (dims - 1), -1, -3):
                    rest, position = divided(rest, outer[d])
                    place += position * outer[d + 1]
                    index += position * outer[d + 2]
                    if by_rows and d == 0:
                        index += global_row(ids, position) * inner
            block = (index >> 2) + column * blocks
            low = 4 * block - index  # the position in the row of the unit's first element
            unit_of(
                place + low * inner_stride, inner_stride, low, inner,
                np.uint64(block), key0, key1, p, m,
            )  # fmt: skip
            unit += np.int64(cuda.gridsize(1))

    fill.__name__ = variant.name
    return fill
