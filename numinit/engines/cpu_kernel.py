"""CPU kernels: fill any strided view, unit by unit, with a transform of the stream.

A view is a set of *rows*: `inner` elements at consecutive global indices, `inner_stride` bytes
apart. The outer dimensions say where each row starts, in memory and in the global order. Rows are
cut into *segments*. A *unit* is one segment of one row. In a transposed view, the last outer
dimension is the one with neighbours in memory. There a unit is a *tile*: the same segment of `tile`
rows, so that whole cache lines are written. The values of a unit depend on global indices alone.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types

from numinit.compiler.cpu import function, kernel
from numinit.compiler.inline import Inline, inline
from numinit.compiler.intrinsics import (
    LINE,
    address_of,
    as_uint32,
    default_mode,
    fence,
    fetch_add,
    pointer_to,
    record,
    restore_mode,
    scratch,
    stream_line,
    widest_vectors,
)
from numinit.engines.layout import LEAST, TILE, TILE_SEGMENT
from numinit.engines.zeros import NoParameters, Pattern
from numinit.stream.dtypes import DType
from numinit.stream.philox import LOW, SHIFT, block_words, counter_high
from numinit.stream.transform import Transform

BATCH = 128  # blocks made at a time: their words and values stay in the first-level cache
FIRST, SECOND, THIRD, FOURTH = (np.uint64(plane) for plane in range(4))
LANES = LEAST // 4  # batches are padded to two of the widest vectors: no scalar tail runs


@inline
def same(x):
    """The value itself: float32 and float64 are not rounded."""
    return x


@inline
def store_words(even, odd, block, blocks, plane, seed, stream):
    """First stage: make the words of `blocks` blocks from `block` on.

    They do not cross a multiple of 2**32, so that the second counter word is the same for all, and
    much of the first rounds is computed once.

    even, odd : OUT pointers to uint64 (blocks,); words 0 and 2 of each block, words 1 and 3, the
        first in the lower half
    block, plane, seed, stream : uint64
    """
    low, high = block & LOW, counter_high(block, plane)
    for j in range(blocks):
        w0, w1, w2, w3 = block_words(low + np.uint64(j), high, seed, stream)
        even[j] = w0 | (w2 << SHIFT)
        odd[j] = w1 | (w3 << SHIFT)


def element_of(dtype: DType) -> tuple[Any, Inline]:
    """Numba's type of a part of an element in memory, and the function that rounds to it."""
    if dtype.rounding is not None:
        return getattr(types, f"uint{8 * dtype.itemsize}"), dtype.rounding
    return (types.float64 if dtype.wide else types.float32), same


def kernel_name(transform: Transform, dtype: DType, pattern: Pattern | None) -> str:
    """The name of a kernel, and of the file of its machine code."""
    return "_".join(filter(None, (transform.name, dtype.name, pattern and pattern.name)))


SIGNATURE = types.int64(*[types.int64] * 19)

int64_pointer = pointer_to(types.int64)
word_scratch = scratch(types.uint64, BATCH)


@functools.cache
def fill_kernel(transform: Transform, dtype: DType, pattern: Pattern | None) -> Callable[..., int]:
    """The compiled kernel of a transform, an element type and a pattern of zeros.

    Its arguments are int64:

    counter : IN OUT address of one int64, the next chunk, which all threads share; 0 for one thread
    limit : return after this many chunks even if there are more
    chunks : number of chunks in all
    address : OUT address of the first element
    first : global index of the first element
    ids : IN address of the global rows, int64 (rows,), or 0 where they follow from `outer`
    seed, stream : the key, in two's complement
    grain, units : units in a chunk; units in all
    inner, inner_stride : elements in a row; their distance in bytes
    segment, tile : elements of a row in a unit; rows in a unit
    dims : number of outer dimensions
    outer : IN address of int64 (dims, 3): size, stride in bytes, step in the global order
    parameters : IN address of the transform's parameters, float64
    zeros : IN address of the pattern's parameters, int64
    streamed : whether rows, which are contiguous then, are stored past the caches

    It returns 1 if chunks may be left, else 0.
    """
    wide, parts = dtype.wide, dtype.parts
    element, convert = element_of(dtype)
    transformed = transform.float64 if wide else transform.float32
    has_zeros = pattern is not None
    clear = pattern.clear if has_zeros else same
    load_parameters = record(transform.Parameters, types.float64)
    load_zeros = record(pattern.Parameters if has_zeros else NoParameters, types.int64)
    needs_words = transform.draws
    # Plane 0 has the words of real elements and of first parts; in float64, their upper halves.
    needs_low = needs_words and wide
    needs_second = needs_words and parts == 2
    itemsize = element.bitwidth // 8 * parts
    element_pointer = pointer_to(element)
    value_scratch = scratch(element, 4 * BATCH * parts)
    tile_scratch = scratch(element, TILE * TILE_SEGMENT * parts)
    name = kernel_name(transform, dtype, pattern)

    @inline
    def joined(high, low, j):
        """Word j: uint64 of two halves if `wide`, else uint32."""
        return (np.uint64(high[j]) << SHIFT) | np.uint64(low[j]) if wide else high[j]

    @inline
    def copy_some(address, stride, spare, skip, begin, end):
        for j in range(begin, end):
            for part in range(parts):
                element_pointer(address + j * stride)[part] = spare[(skip + j) * parts + part]

    @function(f"run_{name}")
    def run(address, stride, count, index, seed, stream, p, m, streamed):
        """Fill `count` elements from the global index `index` on, `stride` bytes apart."""
        widest_vectors()
        even0, odd0, spare = word_scratch(), word_scratch(), value_scratch()
        even, odd = as_uint32(even0), as_uint32(odd0)
        low_even, low_odd, even_y, odd_y, low_even_y, low_odd_y = even, odd, even, odd, even, odd
        if needs_low:
            even1, odd1 = word_scratch(), word_scratch()
            low_even, low_odd = as_uint32(even1), as_uint32(odd1)
        if needs_second:
            even2, odd2 = word_scratch(), word_scratch()
            even_y, odd_y = as_uint32(even2), as_uint32(odd2)
            if needs_low:
                even3, odd3 = word_scratch(), word_scratch()
                low_even_y, low_odd_y = as_uint32(even3), as_uint32(odd3)
        while count > 0:
            skip = index & 3
            blocks = (skip + count + 3) >> 2
            if blocks > BATCH:
                blocks = BATCH
            block = np.uint64(index >> 2)
            before_wrap = np.int64(LOW - (block & LOW)) + 1
            if blocks > before_wrap:
                blocks = before_wrap
            taken = 4 * blocks - skip
            if taken > count:
                taken = count
            padded = (blocks + LANES - 1) & ~(LANES - 1)
            direct = stride == itemsize and taken == 4 * padded and not streamed
            if needs_words:
                store_words(even0, odd0, block, padded, FIRST, seed, stream)
            if needs_low:
                store_words(
                    even1, odd1, block, padded, THIRD if needs_second else SECOND, seed, stream
                )
            if needs_second:
                store_words(even2, odd2, block, padded, SECOND, seed, stream)
                if needs_low:
                    store_words(even3, odd3, block, padded, FOURTH, seed, stream)
            out = element_pointer(address) if direct else spare
            for j in range(2 * padded):
                x, y = joined(even, low_even, j), joined(odd, low_odd, j)
                if parts == 1:
                    v0, v1 = transformed(x, y, p)
                    out[2 * j] = convert(v0)
                    out[2 * j + 1] = convert(v1)
                else:
                    v0, v1 = transformed(x, joined(even_y, low_even_y, j), p)
                    v2, v3 = transformed(y, joined(odd_y, low_odd_y, j), p)
                    out[4 * j] = v0
                    out[4 * j + 1] = v1
                    out[4 * j + 2] = v2
                    out[4 * j + 3] = v3
            if has_zeros:
                clear(out, parts, skip, index, taken, seed, stream, m)
            if not direct:
                begin, end = taken, taken  # of what is copied by lines
                if streamed:
                    head = -address & (LINE - 1)
                    size = taken * itemsize
                    if head + LINE <= size:
                        begin, source = head // itemsize, address_of(spare) + skip * itemsize
                        lines = (size - head) // LINE
                        end = begin + lines * LINE // itemsize
                        for j in range(lines):
                            where = head + j * LINE
                            stream_line(address + where, source + where)
                copy_some(address, stride, spare, skip, 0, begin)
                copy_some(address, stride, spare, skip, end, taken)
            address += taken * stride
            index += taken
            count -= taken

    @kernel(name, SIGNATURE)
    def fill(
        counter, limit, chunks, address, first, ids, seed, stream,
        grain, units, inner, inner_stride, segment, tile, dims, outer, parameters, zeros, streamed,
    ):  # fmt: skip
        widest_vectors()
        mode = default_mode()  # before the parameters are loaded, so that all arithmetic follows it
        key0, key1 = np.uint64(seed), np.uint64(stream)
        p, m = load_parameters(parameters), load_zeros(zeros)
        tiles = tile_scratch()
        triples, rows_of = int64_pointer(outer), int64_pointer(ids)
        segments = (inner + segment - 1) // segment
        rows, row_stride, row_step = 1, 0, 0
        if dims:
            last = 3 * (dims - 1)
            rows, row_stride, row_step = triples[last], triples[last + 1], triples[last + 2]
        groups = (rows + tile - 1) // tile
        left = 1
        for turn in range(limit):
            chunk = fetch_add(counter, 1) if counter else turn
            if chunk >= chunks:
                left = 0
                break
            stop = (chunk + 1) * grain
            if stop > units:
                stop = units
            for unit in range(chunk * grain, stop):
                rest = unit // segments
                column = (unit - rest * segments) * segment
                count = segment if segment < inner - column else inner - column
                row = (rest % groups) * tile
                rest //= groups
                place = address + column * inner_stride + row * row_stride
                index = first + column + row * row_step
                for d in range(3 * (dims - 2), -1, -3):
                    position = rest % triples[d]
                    rest //= triples[d]
                    place += position * triples[d + 1]
                    index += position * triples[d + 2]
                if ids:
                    index += rows_of[row] * inner
                height = tile if tile < rows - row else rows - row
                # A tile is made row by row, and then copied column by column.
                for t in range(height):
                    where, stride = place, inner_stride
                    if tile > 1:
                        where, stride = address_of(tiles) + t * segment * itemsize, itemsize
                    run(where, stride, count, index + t * row_step, key0, key1, p, m, streamed)
                if tile > 1:
                    for j in range(count):
                        for t in range(height):
                            there = element_pointer(place + j * inner_stride + t * row_stride)
                            for part in range(parts):
                                there[part] = tiles[(t * segment + j) * parts + part]
        if streamed:
            fence()
        restore_mode(mode)
        return left

    return fill
