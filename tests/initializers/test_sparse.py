"""Sparse matrices: the count in every column, the choice against a plain oracle, its evenness."""

import itertools
import math

import numpy as np
import oracle
import pytest
from helpers import law_of
from hypothesis import given
from hypothesis import strategies as st

import numinit as ni
from numinit.stream.permutation import network
from numinit.weights.keys import Key

KEY = Key(0x0123456789ABCDEF, 0xFEDCBA9876543210)


@given(st.integers(1, 90), st.integers(1, 40), st.floats(0, 1), st.integers(0, 9))
def test_the_count_is_exact_in_each_column(rows, columns, sparsity, seed):
    values = ni.Sparse(sparsity, 2.0)((rows, columns), "float64", seed=seed)
    zeros = values == 0
    assert (zeros.sum(0) == math.ceil(sparsity * rows)).all()
    dense = ni.Normal(0, 2.0)((rows, columns), "float64", seed=seed)
    np.testing.assert_array_equal(values, np.where(zeros, 0, dense))


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.37, 0.5, 0.97, 1.0])
@pytest.mark.parametrize(("rows", "columns"), [(1, 5), (2, 3), (3, 4), (5, 3), (16, 40), (17, 9), (64, 300), (257, 31)])  # fmt: skip
def test_the_choice_is_that_of_the_definition(rows, columns, sparsity):
    """Also where the zeros, or the rows, end with a digit of the network."""
    zeros = ni.Sparse(sparsity)((rows, columns), seed=KEY) == 0
    count = math.ceil(sparsity * rows)
    for column in range(columns):
        keys = oracle.block_words(column, 2, KEY.seed, KEY.stream)
        expected = [oracle.place(row, rows, keys) < count for row in range(rows)]
        assert zeros[:, column].tolist() == expected


@given(st.integers(1, 2**32))
def test_the_size_of_the_network(n):
    a, b, rounds = network(n)
    assert (a, b) == oracle.network(n)[:2] and n <= a * b < n + a and a <= 2**16
    assert n == 1 or (rounds >= 5 and n**rounds > 2**63)
    if n < 1000:
        keys = oracle.block_words(n, 2, 1, 2)
        assert sorted(oracle.place(x, n, keys) for x in range(n)) == list(range(n))


def test_every_subset_is_as_likely():
    """Chi-square of the subsets of few rows, 10 tests of 1e-8: false alarm 1e-7."""
    stats = pytest.importorskip("scipy.stats")
    for rows, count in [
        (2, 1),
        (3, 1),
        (3, 2),
        (4, 2),
        (5, 2),
        (5, 3),
        (6, 3),
        (7, 2),
        (8, 4),
        (9, 3),
    ]:
        columns = 400_000
        zeros = ni.Sparse(count / rows)((rows, columns), seed=rows) == 0
        codes = (1 << np.arange(rows)) @ zeros
        expected = sorted(
            sum(1 << r for r in s) for s in itertools.combinations(range(rows), count)
        )
        found = np.bincount(codes, minlength=1 << rows)
        assert found.sum() == found[expected].sum()
        assert stats.chisquare(found[expected]).pvalue > 1e-8, (rows, count)


def test_rows_neighbours_and_keys_are_independent():
    """Counts of a row are binomial; pairs are as hypergeometric as they should be: 6 sigma each."""
    rows, columns = 2000, 4000
    zeros = ni.Sparse(0.25)((rows, columns), seed=1) == 0
    z = (zeros.sum(1) - columns / 4) / math.sqrt(columns * 3 / 16)
    assert abs(z).max() < 6 and z.std() == pytest.approx(1, abs=6 / math.sqrt(2 * rows))
    other = ni.Sparse(0.25)((rows, columns), seed=2) == 0
    for a, b in [(zeros[1:], zeros[:-1]), (zeros[:, 1:], zeros[:, :-1]), (zeros, other), (zeros[45:], zeros[:-45])]:  # fmt: skip
        both = (a & b).mean()
        assert both == pytest.approx(1 / 16, abs=6 * math.sqrt(15 / 256 / a.size))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "complex64"])
def test_parts_layouts_and_threads(dtype):
    shape = (123, 517)
    init = ni.Sparse(0.4, 0.5)
    whole = init(shape, dtype, seed=KEY)
    np.testing.assert_array_equal(
        init.rows(shape, [5, 122, -1], dtype, seed=KEY), whole[[5, 122, -1]]
    )
    window = (slice(20, 90), slice(33, 501))
    np.testing.assert_array_equal(init.block(shape, window, dtype, seed=KEY), whole[window])
    part = np.ones((70, 468), dtype)
    init.fill_(part, shape=shape, offset=(20, 33), seed=KEY)
    np.testing.assert_array_equal(part, whole[window])
    for view in (np.ones((517, 123), dtype).T, np.ones((246, 1034), dtype)[::2, ::2], np.ones(shape, dtype)[:, ::-1]):  # fmt: skip
        np.testing.assert_array_equal(init.fill_(view, seed=KEY), whole)


def test_a_block_of_what_fits_no_memory():
    shape = (2**32, 2**29)
    block = ni.Sparse(0.5).block(shape, (slice(2**32 - 7, None), slice(2**29 - 300, None)), seed=1)
    assert 0.4 < (block == 0).mean() < 0.6
    with pytest.raises(ValueError, match="rows"):
        law_of(ni.Sparse(0.5), (2**32 + 1, 2))


def test_empty_ones_and_extremes():
    assert ni.Sparse(0.5)((0, 4)).shape == (0, 4)
    assert ni.Sparse(0.5)((4, 0)).shape == (4, 0)
    assert (ni.Sparse(1.0)((5, 6), seed=0) == 0).all()
    assert (ni.Sparse(0.0)((5, 6), seed=0) != 0).all()


@pytest.mark.parametrize(
    ("sparsity", "std", "error", "name"),
    [
        (-0.1, 1, ValueError, "sparsity"),
        (1.1, 1, ValueError, "sparsity"),
        (math.nan, 1, ValueError, "sparsity"),
        ("0.5", 1, TypeError, "sparsity"),
        (0.5, -1, ValueError, "std"),
    ],
)
def test_bad_fields(sparsity, std, error, name):
    with pytest.raises(error, match=name):
        ni.Sparse(sparsity, std)


@pytest.mark.parametrize("shape", [(), (3,), (3, 4, 5)])
def test_only_matrices(shape):
    array = np.full(shape, 7, np.float32)
    with pytest.raises(ValueError, match="2 dimensions"):
        ni.sparse_(array, 0.5)
    assert (array == 7).all()
