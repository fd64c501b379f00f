"""Masks: which elements of a run are cleared after they were made.

`out` has the values of elements `index` to `index + taken` - 1 from `skip` on, each of `parts`
numbers; `m` the mask's parameters.
"""

import numpy as np
from numba import types

from numinit.bits import block_words, counter_high
from numinit.jit import inline, scratch
from numinit.transforms.permutation import permuted, shifted

COLUMNS = 256  # made side by side
PLANE = np.uint64(2)
PARAMETERS = 6  # of a mask, int64

column_scratch = scratch(types.uint64, COLUMNS)


@inline
def clear_range(out, parts, skip, index, taken, seed, stream, m):
    """Clear the elements from index `m[0]` to `m[1]` - 1."""
    first = m[0] - index if m[0] > index else 0
    last = m[1] - index if m[1] - index < taken else taken
    for j in range((skip + first) * parts, (skip + last) * parts):
        out[j] = 0


@inline
def clear_sparse(out, parts, skip, index, taken, seed, stream, m):
    """Clear `m[2]` elements of each column of a matrix of `m[0]` rows and `m[1]` columns.

    The row r is cleared where its place in the column's permutation is below `m[2]`. The keys of
    column c's network, of digits below `m[3]` and `m[4]` in `m[5]` rounds, are the words of block c
    in plane 2.
    """
    key0, key1, key2, key3 = column_scratch(), column_scratch(), column_scratch(), column_scratch()
    left, right = column_scratch(), column_scratch()
    rows, columns, cleared, rounds = np.uint64(m[0]), m[1], np.uint64(m[2]), m[5]
    a, b = np.uint64(m[3]), np.uint64(m[4])
    row = index // columns
    column = index - row * columns
    while taken > 0:
        count = columns - column
        count = taken if taken < count else count
        count = COLUMNS if count > COLUMNS else count
        for j in range(count):
            block = np.uint64(column + j)
            key0[j], key1[j], key2[j], key3[j] = block_words(
                block & np.uint64(0xFFFFFFFF), counter_high(block, PLANE), seed, stream
            )
            left[j], right[j] = np.uint64(row) // b, np.uint64(row) % b
        for number in range(rounds):
            for j in range(count):
                left[j] = shifted(left[j], a, right[j], key0[j], key1[j], number)
                right[j] = shifted(right[j], b, left[j], key2[j], key3[j], number)
        for j in range(count):
            place = left[j] * b + right[j]
            # A row that is none, of numbers that another thread writes, might never come back.
            while place >= rows and np.uint64(row) < rows:
                place = permuted(place, a, b, rounds, key0[j], key1[j], key2[j], key3[j])
            if place < cleared:
                for part in range(parts):
                    out[(skip + j) * parts + part] = 0
        taken -= count
        skip += count
        column += count
        if column == columns:
            row, column = row + 1, 0


MASKS = {"range": clear_range, "sparse": clear_sparse}


@inline
def in_range(index, seed, stream, m):
    """Whether `clear_range` clears an element."""
    return m[0] <= index and index < m[1]


@inline
def in_sparse(index, seed, stream, m):
    """Whether `clear_sparse` clears an element."""
    row = index // m[1]
    block, place = np.uint64(index - row * m[1]), np.uint64(row)
    key0, key1, key2, key3 = block_words(
        block & np.uint64(0xFFFFFFFF), counter_high(block, PLANE), seed, stream
    )
    a, b = np.uint64(m[3]), np.uint64(m[4])
    # A unit may reach beyond the last row, from where the walk might never come back.
    walking = place < np.uint64(m[0])
    while walking:
        place = permuted(place, a, b, m[5], key0, key1, key2, key3)
        walking = place >= np.uint64(m[0])
    return place < np.uint64(m[2])


#: The same element by element, for CUDA's threads.
CLEARED = {"range": in_range, "sparse": in_sparse}
