"""CPU kernels: make the values of a run of elements, with a transform of the stream."""

from collections.abc import Callable

import numpy as np

from numinit.compiler.inline import Inline, inline
from numinit.compiler.intrinsics import (
    LINE,
    address_of,
    as_uint32,
    pointer_to,
    record,
    scratch,
    stream_line,
    widest_vectors,
)
from numinit.engines.layout import LEAST
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


def element_of(dtype: DType) -> tuple[str, Inline]:
    """Numba's type of a part of an element in memory, and the function that rounds to it."""
    if dtype.rounding is not None:
        return f"uint{8 * dtype.itemsize}", dtype.rounding
    return ("float64" if dtype.wide else "float32"), same


def kernel_name(transform: Transform, dtype: DType, pattern: Pattern | None) -> str:
    """The name of a kernel, and of the file of its machine code."""
    return "_".join(filter(None, (transform.name, dtype.name, pattern and pattern.name)))


word_scratch = scratch("uint64", BATCH)


def run_function(transform: Transform, dtype: DType, pattern: Pattern | None) -> Callable[..., int]:
    """The kernel of a transform, an element type and a pattern of zeros, for Numba to compile.

    It makes the elements of one run. Its arguments are int64:

    address : OUT address of the first element
    stride : bytes between elements
    count : number of elements
    index : global index of the first element
    seed, stream : the key, in two's complement
    parameters : IN address of the transform's parameters, float64
    zeros : IN address of the pattern's parameters, int64
    streamed : whether the elements, which are contiguous then, are stored past the caches

    It returns 0.
    """
    wide, parts = dtype.wide, dtype.parts
    element, convert = element_of(dtype)
    transformed = transform.float64 if wide else transform.float32
    has_zeros = pattern is not None
    clear = pattern.clear if has_zeros else same
    load_parameters = record(transform.Parameters, "float64")
    load_zeros = record(pattern.Parameters if has_zeros else NoParameters, "int64")
    needs_words = transform.draws
    # Plane 0 has the words of real elements and of first parts; in float64, their upper halves.
    needs_low = needs_words and wide
    needs_second = needs_words and parts == 2
    itemsize = dtype.itemsize
    element_pointer = pointer_to(element)
    value_scratch = scratch(element, 4 * BATCH * parts)

    @inline
    def joined(high, low, j):
        """Word j: uint64 of two halves if `wide`, else uint32."""
        return (np.uint64(high[j]) << SHIFT) | np.uint64(low[j]) if wide else high[j]

    @inline
    def copy_some(address, stride, spare, skip, begin, end):
        for j in range(begin, end):
            for part in range(parts):
                element_pointer(address + j * stride)[part] = spare[(skip + j) * parts + part]

    def run(address, stride, count, index, seed, stream, parameters, zeros, streamed):
        widest_vectors()
        key0, key1 = np.uint64(seed), np.uint64(stream)
        p, m = load_parameters(parameters), load_zeros(zeros)
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
                store_words(even0, odd0, block, padded, FIRST, key0, key1)
            if needs_low:
                store_words(
                    even1, odd1, block, padded, THIRD if needs_second else SECOND, key0, key1
                )
            if needs_second:
                store_words(even2, odd2, block, padded, SECOND, key0, key1)
                if needs_low:
                    store_words(even3, odd3, block, padded, FOURTH, key0, key1)
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
                clear(out, parts, skip, index, taken, key0, key1, m)
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
        return 0

    return run
