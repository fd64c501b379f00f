"""CUDA kernels: fill any strided view; a thread makes a few blocks of the stream at a time.

A view is a set of *rows* as in `numinit.engines.cpu_drive`. A *unit* is what a thread makes at a
time: whole blocks of the stream that belong to one row, as many as fill 16 bytes or more.
Neighbouring threads take units that are neighbours in memory. So units are counted along a row
first, then along the outer dimensions. In a transposed view, they are counted along the dense outer
dimension before the row.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from numinit.compiler.cuda import Kind
from numinit.compiler.cuda_intrinsics import (
    WIDEST,
    grid,
    gridsize,
    kept,
    load_int64,
    low_word,
    packed,
    pairs_of,
    store_element,
    store_words,
)
from numinit.compiler.inline import Inline, inline
from numinit.engines.cpu_kernel import (
    FIRST,
    FOURTH,
    SECOND,
    THIRD,
    element_of,
    kernel_name,
    same,
)
from numinit.engines.zeros import NoParameters, Pattern
from numinit.stream.dtypes import DType
from numinit.stream.philox import LOW, SHIFT, block_words, counter_high
from numinit.stream.transform import Transform


def unit_blocks(dtype: DType) -> int:
    """The number of blocks of the stream in a unit: as many as fill the widest store."""
    return max(1, WIDEST // (4 * dtype.itemsize))


MOST = 2**30  # units that a loop counts down from


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
    def signature(self) -> tuple[Kind, ...]:
        """The types of the kernel's arguments; see `fill_function`."""
        cleared: Any = self.pattern.Parameters if self.pattern else NoParameters
        read: Any = self.transform.Parameters
        return (
            *["int64"] * 12,
            ("int64", max(3 * self.dims, 1)),
            (read, "float64"),
            (cleared, "int64"),
        )

    @property
    def narrow(self) -> bool:
        """Whether the widest store is a whole unit."""
        return 4 * unit_blocks(self.dtype) * self.dtype.itemsize == WIDEST

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


def _elements(variant: Variant, element: str, convert: Inline) -> Any:
    """A function that makes the four elements of a block, with those of the pattern cleared.

    Elements are numbers of Numba's type `element`, or pairs of them if the variant's is complex.
    """
    wide, parts = variant.dtype.wide, variant.dtype.parts
    transform = variant.transform.float64 if wide else variant.transform.float32
    cleared = variant.pattern.cleared if variant.pattern else None
    zero = np.dtype(element).type(0)
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
            return low_word(a0), low_word(a1), low_word(a2), low_word(a3)

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


def _store_some(convert: Inline) -> Any:
    """A function that stores the elements of a block that belong to a row."""

    @inline
    def store_some(place, stride, low, count, values):
        """Convert and store them.

        place : OUT address of the block's first element; stride : bytes between elements
        low : the position in the row of the block's first element, negative if it lies before it
        count : elements in the row
        values : four elements
        """
        if low >= 0 and low < count:
            store_element(place, convert(values[0]))
        if low >= -1 and low < count - 1:
            store_element(place + stride, convert(values[1]))
        if low >= -2 and low < count - 2:
            store_element(place + 2 * stride, convert(values[2]))
        if low >= -3 and low < count - 3:
            store_element(place + 3 * stride, convert(values[3]))

    return store_some


def _several(elements: Any, store_some: Any, blocks: int) -> tuple[Any, Any]:
    """Functions that make the elements of so many blocks, a nested tuple, and that store some."""
    if blocks == 1:
        return elements, store_some
    half = blocks // 2
    made_half, store_half = _several(elements, store_some, half)

    @inline
    def made(block, seed, stream, p, m):
        second = block + np.uint64(half)
        return made_half(block, seed, stream, p, m), made_half(second, seed, stream, p, m)

    @inline
    def store(place, stride, low, count, values):
        store_half(place, stride, low, count, values[0])
        store_half(place + 4 * half * stride, stride, low + 4 * half, count, values[1])

    return made, store


#: How GPUs from this compute capability on round pairs of float32 themselves.
PAIRS = 8, 0
ROUNDED_PAIRS = {"bfloat16": pairs_of("bf16x2"), "float16": pairs_of("f16x2")}


@functools.cache
def _unit(variant: Variant, pairs: bool) -> Any:
    """A function that makes and stores a unit; whether the GPU rounds pairs of float32 itself."""
    dtype = variant.dtype
    element, convert = element_of(dtype)
    if pairs and variant.transform.draws and dtype.name in ROUNDED_PAIRS:
        # All is float32 up to the store. The GPU's NaN, which nothing drawn is, would be another.
        elements = _elements(variant, "float32", same)
        pack, store_some = ROUNDED_PAIRS[dtype.name], _store_some(convert)
    else:
        elements = _elements(variant, element, convert)
        pack, store_some = packed, _store_some(same)
    made, store = _several(elements, store_some, unit_blocks(dtype))
    span = 4 * unit_blocks(dtype)

    @inline
    def unit(place, stride, low, before, count, wide, block, seed, stream, p, m):
        values = made(block, seed, stream, p, m)
        if wide:
            store_words(place, pack(values))
        else:
            store(place, stride, low + before * span, count, values)

    return unit


@inline
def once(count):
    """An int64 below `MOST` as an int32 that is computed once, before a loop."""
    return kept(np.int32(count))


@inline
def global_row(ids, position):
    """The global row, int64, of a position."""
    return load_int64(ids + 8 * position)


def fill_function(variant: Variant, capability: tuple[int, int] = (0, 0)) -> Callable[..., None]:
    """The Python function of a kernel for GPUs of a compute capability, or of a higher one.

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
    unit_of = _unit(variant._replace(dims=0, transposed=False, by_rows=False), capability >= PAIRS)
    blocks, size = unit_blocks(variant.dtype), variant.dtype.itemsize
    span = 4 * blocks

    def one_row(
        address, first, ids, seed, stream, units, per_row, inner, inner_stride,
        rows, row_stride, row_step, outer, p, m,
    ):  # fmt: skip
        key0, key1 = np.uint64(np.int64(seed)), np.uint64(np.int64(stream))
        unit, step = grid(), gridsize()
        low = -(first & 3)  # the position in the row of the first unit's first element
        place = address + low * inner_stride + unit * (span * inner_stride)
        # The units that are stored at once: from `begin` to `end`.
        begin, end = np.int64(low < 0), (inner - low) // span
        if inner_stride != size or place & (WIDEST - 1):
            end = begin
        while unit < units:
            # Up to where the upper half of a block's index grows, much is computed once.
            block = np.uint64((first >> 2) + unit * blocks)
            high, word = block & ~LOW, np.uint32(block & LOW)
            left = min(units - unit, (np.int64(LOW) - np.int64(block & LOW)) // blocks + 1, MOST)
            last = unit + left
            # Units are counted down. Those are stored at once with more left than `few`.
            few = left if unit < begin else min(max(last - end, 0), left)
            left, few, skip = once(left), once(few), np.int32(step)
            while left > 0:
                unit_of(
                    place, inner_stride, low, last - left, inner, left > few,
                    high | np.uint64(word), key0, key1, p, m,
                )  # fmt: skip
                place += step * (span * inner_stride)
                word = np.uint32(word + np.uint32(step * blocks))
                left = np.int32(left - skip)
            unit = last - left

    def fill(
        address, first, ids, seed, stream, units, per_row, inner, inner_stride,
        rows, row_stride, row_step, outer, p, m,
    ):  # fmt: skip
        key0, key1 = np.uint64(np.int64(seed)), np.uint64(np.int64(stream))
        unit = grid()
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
            place += low * inner_stride
            whole = low >= 0 and low + span <= inner
            wide = whole and inner_stride == size and place & (WIDEST - 1) == 0
            unit_of(place, inner_stride, low, 0, inner, wide, np.uint64(block), key0, key1, p, m)
            unit += gridsize()

    # One row of wide elements, too, is faster unit by unit: the two stores of a unit, each of half
    # a sector of memory, seem to be joined only where they do not come too fast.
    chosen = one_row if variant.narrow and not (dims or transposed) else fill
    chosen.__name__ = variant.name
    return chosen
