"""CPU kernels: fill any strided view, unit by unit, with a transform of the stream.

A view is a set of *rows*: `inner` elements at consecutive global indices, `inner_stride` bytes
apart. The outer dimensions say where each row starts, in memory and in the global order. Rows are
cut into *segments*; a *unit* is one segment of one row or, where the last outer dimension is the
one that is dense in memory (a transposed view), of `tile` rows at once, so that whole cache lines
are written. Every unit's values depend on global indices alone.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types

from numinit.bits import LOW, SHIFT, block_words, counter_high
from numinit.engines.plan import TILE, TILE_SEGMENT
from numinit.jit import (
    address_of,
    as_uint32,
    fetch_add,
    function,
    inline,
    kernel,
    pointer_to,
    scratch,
)
from numinit.transforms.normal import normal_float32, normal_float64
from numinit.transforms.rounding import bfloat16_bits, float16_bits
from numinit.transforms.uniform import constant, uniform_float32, uniform_float64

BATCH = 128  # blocks between the two stages: their words and values stay in the first-level cache
LANES = 16  # batches are padded to two of the widest vectors, so that no scalar tail runs


@inline
def same(x):
    """The value itself: the store of float32 and float64."""
    return x


@inline
def store_words(even, odd, block, blocks, plane, seed, stream):
    """First stage: words 0, 2 of each block to `even`, 1, 3 to `odd`, two in each uint64.

    The blocks do not cross a multiple of 2**32, so that the second counter word is the same for
    all and much of the first rounds is computed once.
    """
    low, high = block & LOW, counter_high(block, plane)
    for j in range(blocks):
        w0, w1, w2, w3 = block_words(low + np.uint64(j), high, seed, stream)
        even[j] = w0 | (w2 << SHIFT)
        odd[j] = w1 | (w3 << SHIFT)


#: dtype name: (transform's precision, type stored, conversion before the store)
STORES: dict[str, tuple[str, Any, Any]] = {
    "float32": ("float32", types.float32, same),
    "float64": ("float64", types.float64, same),
    "float16": ("float32", types.uint16, float16_bits),
    "bfloat16": ("float32", types.uint16, bfloat16_bits),
}

#: law: transform by precision
TRANSFORMS: dict[str, dict[str, Any]] = {
    "constant": {"float32": constant, "float64": constant},
    "uniform": {"float32": uniform_float32, "float64": uniform_float64},
    "normal": {"float32": normal_float32, "float64": normal_float64},
}

SIGNATURE = types.int64(*[types.int64] * 16, *[types.float64] * 4)

int64_pointer = pointer_to(types.int64)
word_scratch = scratch(types.uint64, BATCH)


@functools.cache
def fill_kernel(law: str, dtype: str) -> Callable[..., int]:
    """The compiled kernel for a law ("normal", ...) and a dtype's name.

    Its arguments, integers but for the last four:

    counter : address of the chunk counter, which all threads share; 0 for a single thread
    limit : return after this many chunks even if there are more
    chunks : the work ends when the counter reaches it
    address : of the first element
    first : its global index
    ids : address of the global row numbers, or 0 where they follow from `outer`
    seed, stream : the key, in two's complement
    grain, units : units in a chunk; units
    inner, inner_stride : elements in a row; their distance in bytes
    segment, tile : elements of a row in a unit; rows in a unit
    dims, outer : number of outer dimensions; address of their int64 triples (size, stride in
        bytes, step in the global order)
    p0, p1, p2, p3 : parameters of the transform

    Returns 1 if chunks may be left, else 0.
    """
    precision, element, convert = STORES[dtype]
    transform = TRANSFORMS[law][precision]
    real = np.float64 if precision == "float64" else np.float32
    itemsize = element.bitwidth // 8
    needs_words = law != "constant"
    needs_low = needs_words and precision == "float64"
    plane0, plane1 = np.uint64(0), np.uint64(1)
    element_pointer = pointer_to(element)
    value_scratch = scratch(element, 4 * BATCH)
    tile_scratch = scratch(element, TILE * TILE_SEGMENT)

    @function(f"run_{law}_{dtype}")
    def run(address, stride, count, index, seed, stream, p0, p1, p2, p3):
        """Elements index, index + 1, ... of the global order, `stride` bytes apart."""
        even, odd, spare = word_scratch(), word_scratch(), value_scratch()
        even32, odd32 = as_uint32(even), as_uint32(odd)
        if needs_low:
            even_low, odd_low = word_scratch(), word_scratch()
            even_low32, odd_low32 = as_uint32(even_low), as_uint32(odd_low)
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
            direct = stride == itemsize and taken == 4 * padded
            if needs_words:
                store_words(even, odd, block, padded, plane0, seed, stream)
            if needs_low:
                store_words(even_low, odd_low, block, padded, plane1, seed, stream)
            out = element_pointer(address) if direct else spare
            for j in range(2 * padded):
                if needs_low:
                    x = (np.uint64(even32[j]) << SHIFT) | np.uint64(even_low32[j])
                    y = (np.uint64(odd32[j]) << SHIFT) | np.uint64(odd_low32[j])
                else:
                    x, y = even32[j], odd32[j]
                v0, v1 = transform(x, y, p0, p1, p2, p3)
                out[2 * j] = convert(v0)
                out[2 * j + 1] = convert(v1)
            if not direct:
                for j in range(taken):
                    element_pointer(address + j * stride)[0] = spare[skip + j]
            address += taken * stride
            index += taken
            count -= taken

    @kernel(f"{law}_{dtype}", SIGNATURE)
    def fill(
        counter, limit, chunks, address, first, ids, seed, stream,
        grain, units, inner, inner_stride, segment, tile, dims, outer, p0, p1, p2, p3,
    ):  # fmt: skip
        key0, key1 = np.uint64(seed), np.uint64(stream)
        q0, q1, q2, q3 = real(p0), real(p1), real(p2), real(p3)
        tiles = tile_scratch()
        triples, rows_of = int64_pointer(outer), int64_pointer(ids)
        segments = (inner + segment - 1) // segment
        rows, row_stride, row_step = 1, 0, 0
        if dims:
            last = 3 * (dims - 1)
            rows, row_stride, row_step = triples[last], triples[last + 1], triples[last + 2]
        groups = (rows + tile - 1) // tile
        for turn in range(limit):
            chunk = fetch_add(counter, 1) if counter else turn
            if chunk >= chunks:
                return 0
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
                # A tile is made in order and then copied column by column.
                for t in range(height):
                    where, stride = place, inner_stride
                    if tile > 1:
                        where, stride = address_of(tiles) + t * segment * itemsize, itemsize
                    run(where, stride, count, index + t * row_step, key0, key1, q0, q1, q2, q3)
                if tile > 1:
                    for j in range(count):
                        for t in range(height):
                            there = place + j * inner_stride + t * row_stride
                            element_pointer(there)[0] = tiles[t * segment + j]
        return 1

    return fill
