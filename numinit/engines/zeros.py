"""Patterns of zeros: which elements of a sampled weight are cleared after they were made.

Each has two forms. The one for the CPU clears a run: `out` has the values of elements `index` to
`index` + `taken` - 1 from `skip` on, each of `parts` numbers; `m` are the pattern's parameters. The one
for CUDA's threads says whether one element is cleared.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from numinit.compiler.inline import Inline, inline, scratch_words
from numinit.stream.permutation import permuted, shifted
from numinit.stream.philox import block_words, counter_high

COLUMNS = 256  # made side by side
PLANE = np.uint64(2)


class Pattern(NamedTuple):
    """What a pattern is to the kernels."""

    name: str
    """Of the compiled kernels, for good: letters, digits and underscores."""
    Parameters: Callable[..., tuple[int, ...]]
    """A NamedTuple of int."""
    clear: Inline
    """Clears a run."""
    cleared: Inline
    """Whether an element is cleared."""


class Zeros(NamedTuple):
    """The zeros of one weight."""

    pattern: Pattern
    parameters: tuple[int, ...]
    """An instance of the pattern's `Parameters`."""


class NoParameters(NamedTuple):
    """Of no pattern."""

    nothing: int = 0


NO_ZEROS = NoParameters()


class RangeParameters(NamedTuple):
    """The elements from index `first` to `last` - 1."""

    first: int
    last: int


class SparseParameters(NamedTuple):
    """Some elements of each column of a matrix; see `numinit.stream.permutation`."""

    rows: int
    columns: int
    zeros: int
    """In each column."""
    left: int
    """The digits of the network that permutes the rows are below `left` and `right`."""
    right: int
    rounds: int


@inline
def clear_range(out, parts, skip, index, taken, seed, stream, m):
    """Clear the elements of `RangeParameters`."""
    first = m.first - index if m.first > index else 0
    last = m.last - index if m.last - index < taken else taken
    for j in range((skip + first) * parts, (skip + last) * parts):
        out[j] = 0


@inline
def clear_sparse(out, parts, skip, index, taken, seed, stream, m):
    """Clear `m.zeros` elements of each column.

    The row r is cleared where its place in the column's permutation is below `m.zeros`. The keys of
    column c's network are the words of block c in plane 2.
    """
    key0, key1 = scratch_words(COLUMNS), scratch_words(COLUMNS)
    key2, key3 = scratch_words(COLUMNS), scratch_words(COLUMNS)
    left, right = scratch_words(COLUMNS), scratch_words(COLUMNS)
    rows, columns, cleared, rounds = np.uint64(m.rows), m.columns, np.uint64(m.zeros), m.rounds
    a, b = np.uint64(m.left), np.uint64(m.right)
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
            while place >= rows:
                place = permuted(place, a, b, rounds, key0[j], key1[j], key2[j], key3[j])
            if place < cleared:
                for part in range(parts):
                    out[(skip + j) * parts + part] = 0
        taken -= count
        skip += count
        column += count
        if column == columns:
            row, column = row + 1, 0


@inline
def in_range(index, seed, stream, m):
    """Whether `clear_range` clears an element."""
    return m.first <= index and index < m.last


@inline
def in_sparse(index, seed, stream, m):
    """Whether `clear_sparse` clears an element."""
    row = index // m.columns
    block, place = np.uint64(index - row * m.columns), np.uint64(row)
    key0, key1, key2, key3 = block_words(
        block & np.uint64(0xFFFFFFFF), counter_high(block, PLANE), seed, stream
    )
    a, b = np.uint64(m.left), np.uint64(m.right)
    # A unit may reach beyond the last row, from where the walk might never come back.
    walking = place < np.uint64(m.rows)
    while walking:
        place = permuted(place, a, b, m.rounds, key0, key1, key2, key3)
        walking = place >= np.uint64(m.rows)
    return place < np.uint64(m.zeros)


RANGE = Pattern("range", RangeParameters, clear_range, in_range)
SPARSE = Pattern("sparse", SparseParameters, clear_sparse, in_sparse)
