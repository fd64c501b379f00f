"""Patterns of zeros: which elements of a sampled weight are set to 0 after they were made.

Each pattern has two forms, because a CPU's thread makes a run of elements and a GPU's thread a few.
In both, `seed` and `stream` are the key, uint64, and `m` has the pattern's parameters, int64.

clear(out, parts, skip, index, taken, seed, stream, m)
    For the CPU: clears elements of a run in place. `out` is an IN OUT pointer to the values,
    `parts` numbers an element. Elements `index` to `index` + `taken` - 1 begin at its element
    `skip`.
cleared(index, seed, stream, m)
    For CUDA: whether element `index`, int64, is cleared.
"""

from typing import Any, NamedTuple

import numpy as np

from numinit.compiler.inline import Inline, inline
from numinit.compiler.intrinsics import scratch
from numinit.stream.permutation import permuted, shifted
from numinit.stream.philox import block_words, counter_high

COLUMNS = 256  # columns whose rows are permuted side by side
PLANE = np.uint64(2)  # of the stream, for the keys of the permutations


class Pattern(NamedTuple):
    """A pattern, as kernels see it."""

    name: str
    """Part of the names of compiled kernels, unique: letters, digits and underscores."""
    Parameters: Any
    """A NamedTuple of int. Its `cost` is how many times as long as usual an element takes."""
    clear: Inline
    """The form for the CPU."""
    cleared: Inline
    """The form for CUDA."""


class Zeros(NamedTuple):
    """The zeros of one weight."""

    pattern: Pattern
    parameters: Any
    """An instance of the pattern's `Parameters`."""


class NoParameters(NamedTuple):
    """The parameters of a kernel without a pattern: it reads none."""

    nothing: int = 0


NO_ZEROS = NoParameters()


class RangeParameters(NamedTuple):
    """The elements from index `first` to `last` - 1."""

    first: int
    last: int

    @property
    def cost(self) -> int:
        """The time per element relative to a weight without zeros."""
        return 1


class SparseParameters(NamedTuple):
    """Some elements of each column of a matrix; see `numinit.stream.permutation`."""

    rows: int
    columns: int
    zeros: int
    """Zeros in each column."""
    left: int
    """The digits of the network that permutes the rows are below `left` and `right`."""
    right: int
    rounds: int
    """Rounds of that network."""

    @property
    def cost(self) -> int:
        """The time per element relative to a weight without zeros; the rounds take most of it."""
        return 1 + self.rounds // 4


words = scratch("uint64", COLUMNS)


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

    Row r is cleared if the column's permutation moves it to a place below `m.zeros`. The keys of
    the permutation of column c are the words of block c in plane 2.

    The last half of the last round moves a place within the `m.right` places that share the digit
    `left`. It is left out where all of these are cleared, or none, and all are rows.
    """
    key0, key1, key2, key3 = words(), words(), words(), words()
    left, right, unsure = words(), words(), words()
    rows, columns, cleared, rounds = np.uint64(m.rows), m.columns, np.uint64(m.zeros), m.rounds
    a, b = np.uint64(m.left), np.uint64(m.right)
    split, full = cleared // b, rows // b
    below = split if split < full else full
    row = index // columns
    column = index - row * columns
    while taken > 0:
        count = columns - column
        count = taken if taken < count else count
        count = COLUMNS if count > COLUMNS else count
        x, y = np.uint64(row) // b, np.uint64(row) % b
        for j in range(count):
            block = np.uint64(column + j)
            key0[j], key1[j], key2[j], key3[j] = block_words(
                block & np.uint64(0xFFFFFFFF), counter_high(block, PLANE), seed, stream
            )
            left[j], right[j] = shifted(x, a, y, key0[j], key1[j], 0), y
        for number in range(1, rounds):
            for j in range(count):
                right[j] = shifted(right[j], b, left[j], key2[j], key3[j], number - 1)
                left[j] = shifted(left[j], a, right[j], key0[j], key1[j], number)
        for j in range(count):
            for part in range(parts):
                if left[j] < below:
                    out[(skip + j) * parts + part] = 0
        few = 0
        for j in range(count):
            unsure[few] = np.uint64(j)
            few += left[j] == split or left[j] >= full
        for i in range(few):
            j = np.int64(unsure[i])
            place = left[j] * b + shifted(right[j], b, left[j], key2[j], key3[j], rounds - 1)
            # If another thread overwrites the parameters, `row` may be no row, and the walk endless.
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
    # A unit may reach beyond the last row, where the walk might never end.
    walking = place < np.uint64(m.rows)
    while walking:
        place = permuted(place, a, b, m.rounds, key0, key1, key2, key3)
        walking = place >= np.uint64(m.rows)
    return place < np.uint64(m.zeros)


RANGE = Pattern("range", RangeParameters, clear_range, in_range)
SPARSE = Pattern("sparse", SparseParameters, clear_sparse, in_sparse)
