"""The values as samples: moments, Kolmogorov-Smirnov, tails and correlations.

Every check computes a p-value from the law of its statistic and fails below ALPHA. There are
fewer than 500 of them, so a perfect generator with a random seed would fail this file with a
probability below 5e-7; with the seeds fixed here, it never does.

16-bit values are a discrete law: the cell of each value is the interval of reals that round to it,
and its probability follows from the distribution function. Their tests use that law exactly.
"""

import functools
import math

import numpy as np
import pytest

import numinit as ni

stats = pytest.importorskip("scipy.stats")
special = pytest.importorskip("scipy.special")

ALPHA = 1e-9
SIDE = 2048
SIZE = SIDE * SIDE
LAWS = {"Uniform": ni.Uniform(), "Normal": ni.Normal()}
WIDE, NARROW = ["float32", "float64"], ["float16", "bfloat16"]
CASES = [(law, dtype) for law in LAWS for dtype in WIDE + NARROW]

every_law = pytest.mark.parametrize("law", LAWS)
every_case = pytest.mark.parametrize(("law", "dtype"), CASES)


def cdf(law, x):
    return special.ndtr(x) if law == "Normal" else np.clip(x, 0.0, 1.0)


@functools.lru_cache(2)
def sample(law, dtype, seed=0):
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    values = LAWS[law]((SIZE,), dtype, seed=ni.Key(seed, 1))
    values.flags.writeable = False
    return values


def assert_standard_normal(z, tests=1):
    """Two-sided, for the worst of so many z (Bonferroni)."""
    worst = float(np.max(np.abs(z)))
    p = min(1.0, 2 * tests * stats.norm.sf(worst))
    assert p >= ALPHA, f"z = {worst}, p = {p}"


def two_sided(below, above):
    p = min(1.0, 2 * min(below, above))
    assert p >= ALPHA, f"p = {p}"


# The discrete laws of the 16-bit types.


@functools.cache
def cells(law, dtype):
    """Their finite values in order and the probability of each, from float32 rounded once."""
    kind = np.dtype(dtype if dtype == "float16" else pytest.importorskip("ml_dtypes").bfloat16)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        values = np.arange(2**16, dtype=np.uint16).view(kind).astype(np.float64)
    values = np.unique(values[np.isfinite(values)])  # -0.0 and 0.0 are one value
    if law == "Uniform":
        values = values[(values >= 0) & (values < 1)]  # the clamp: what rounds to 1 stays below
    edges = (values[1:] + values[:-1]) / 2
    p = np.diff(cdf(law, edges), prepend=0.0, append=1.0)
    if law == "Normal":  # differences of numbers near 1 lose the upper tail: take it from below
        p = np.where(values > 0, p[::-1], p)
    assert math.isclose(p.sum(), 1, abs_tol=1e-12)
    return values, p


def moment(law, dtype, k):
    """The k-th raw moment (about 1/2 for the uniform)."""
    if dtype in NARROW:
        values, p = cells(law, dtype)
        return float(((values - (0.5 if law == "Uniform" else 0)) ** k * p).sum())
    if k % 2:
        return 0.0
    return 1 / ((k + 1) * 2**k) if law == "Uniform" else float(special.factorial2(k - 1))


@every_case
def test_moments_to_the_4th(law, dtype):
    x = sample(law, dtype).astype(np.float64) - (0.5 if law == "Uniform" else 0)
    power = np.ones_like(x)
    for k in range(1, 5):
        power *= x
        mean = moment(law, dtype, k)
        deviation = math.sqrt((moment(law, dtype, 2 * k) - mean**2) / SIZE)
        assert_standard_normal((power.mean() - mean) / deviation)


@every_law
@pytest.mark.parametrize("dtype", WIDE)
def test_kolmogorov_smirnov(law, dtype):
    at = cdf(law, np.sort(sample(law, dtype)).astype(np.float64))
    steps = np.arange(SIZE + 1) / SIZE
    distance = max((steps[1:] - at).max(), (at - steps[:-1]).max()) * math.sqrt(SIZE)
    # Both ends: a sample that is too even is no random one either.
    two_sided(stats.kstwobign.cdf(distance), stats.kstwobign.sf(distance))


@every_law
@pytest.mark.parametrize("dtype", NARROW)
def test_every_16_bit_value_is_as_frequent_as_its_cell_is_wide(law, dtype):
    values, p = cells(law, dtype)
    found = np.searchsorted(values, sample(law, dtype).astype(np.float64))
    counts = np.bincount(found, minlength=values.size)
    # Chi-squared over neighbours pooled until 100 are expected.
    group = np.minimum((np.cumsum(p) - p / 2) * SIZE // 100, SIZE // 100 - 1).astype(np.int64)
    _, group = np.unique(group, return_inverse=True)
    expected, got = np.bincount(group, p) * SIZE, np.bincount(group, counts)
    few = expected < 20
    assert expected[~few].size > 100
    expected = np.append(expected[~few], expected[few].sum() or [])
    got = np.append(got[~few], got[few].sum() if few.any() else [])
    chi2 = (np.square(got - expected) / expected).sum()
    two_sided(stats.chi2.cdf(chi2, got.size - 1), stats.chi2.sf(chi2, got.size - 1))


@pytest.mark.parametrize(
    ("dtype", "chunks"), [("float32", 16), ("float64", 16), ("float16", 4), ("bfloat16", 4)]
)
def test_tails_to_5_sigma(dtype, chunks):
    """Counts beyond 1 to 5 sigma, each side and both: binomial, exactly.

    Over 2**26 values of float32 38 are expected beyond 5 sigma, so that a missing tail shows.
    """
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    above, below = np.zeros((2, 6), np.int64)
    for chunk in range(chunks):
        x = LAWS["Normal"]((SIZE,), dtype, seed=ni.Key(chunk, 2))
        x = x.astype(np.float32) if dtype in NARROW else x
        x = x[np.abs(x) > 1]
        for t in range(1, 6):
            above[t] += np.count_nonzero(x > t)
            below[t] += np.count_nonzero(x < -t)
    for t in range(1, 6):
        p = stats.norm.sf(t)
        if dtype in NARROW:
            values, probabilities = cells("Normal", dtype)
            p = probabilities[values > t].sum()
        for count, probability in ((above[t], p), (below[t], p), (above[t] + below[t], 2 * p)):
            law = stats.binom(chunks * SIZE, probability)
            two_sided(law.cdf(count), law.sf(count - 1))


@pytest.mark.parametrize("dtype", WIDE)
def test_the_ends_of_the_uniform(dtype):
    """Counts within 2**-10 to 2**-20 of either end: binomial, exactly."""
    x = sample("Uniform", dtype)
    for e in (10, 15, 20):
        law = stats.binom(SIZE, 2.0**-e)
        for count in (np.count_nonzero(x < 2.0**-e), np.count_nonzero(x >= 1 - 2.0**-e)):
            two_sided(law.cdf(count), law.sf(count - 1))


# Correlations: products of independent standard values have mean 0 and variance 1.


def standard(law, values):
    """Values, and their squares, with mean 0 and variance 1: dependence may hide in either."""
    x = values.astype(np.float64)
    if law == "Uniform":
        x = (x - 0.5) * math.sqrt(12)
    return x, (x * x - 1) / math.sqrt(2 if law == "Normal" else 0.8)


@every_law
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_neighbours_are_uncorrelated(law, dtype):
    """Lags 1 to 8 of values and of squares: within a pair, a block, and between blocks."""
    # (The rounding to bfloat16 moves means by less than 1e-5, which no correlation here can see.)
    for x in standard(law, sample(law, dtype)):
        for lag in range(1, 9):
            assert_standard_normal(x[lag:] @ x[:-lag] / math.sqrt(x.size - lag))


@every_law
def test_places_in_a_block_are_alike(law):
    """The four words of a block make values of the same law: means of values and squares."""
    for x in standard(law, sample(law, "float32")):
        assert_standard_normal(x.reshape(-1, 8).sum(0) / math.sqrt(SIZE / 8), tests=8)


@every_law
@pytest.mark.parametrize("width", [1000, 2048, 64])
def test_rows_are_uncorrelated(law, width):
    """A row with the next 8, and columns with theirs."""
    rows = SIZE // width
    for x in standard(law, sample(law, "float32")[: rows * width].reshape(rows, width)):
        for lag in range(1, 9):
            for a, b in ((x[lag:], x[:-lag]), (x[:, lag:], x[:, :-lag])):
                assert_standard_normal(np.vdot(a, b) / math.sqrt(a.size))


def neighbouring_keys():
    """Keys that differ as little as keys can, and those that names and numbers make."""
    base = 0x0123456789ABCDEF
    root = ni.Key(0)
    generator = ni.Generator(0)
    keys = [ni.Key(seed) for seed in range(32)]
    keys += [ni.Key(0, stream) for stream in range(1, 32)]
    keys += [ni.Key(base), *(ni.Key(base ^ 1 << bit) for bit in range(64))]
    keys += [ni.Key(base, 1 << bit) for bit in range(64)]
    keys += [root.fold_in(n) for n in range(32)] + [root.fold_in(f"w{n}") for n in range(32)]
    keys += [ni.Key(seed).fold_in("w") for seed in range(1, 9)]
    keys += [ni.Key(2**64 - 1), ni.Key(2**64 - 1, 2**64 - 1), generator.next_key().fold_in("w")]
    assert len(set(keys)) == len(keys)
    return keys


@every_law
def test_neighbouring_keys_are_uncorrelated(law):
    """Every pair of 267 keys, at shifts of 0 to 8 elements: equal or overlapping streams show."""
    keys, size = neighbouring_keys(), 1 << 13
    x = np.stack([LAWS[law]((size,), seed=key) for key in keys])
    if law == "Uniform":
        x = (x - np.float32(0.5)) * np.float32(math.sqrt(12))
    for shift in range(9):
        z = x[:, shift:] @ x[:, : size - shift].T / math.sqrt(size - shift)
        if shift == 0:
            # A row with itself is no product of independent values; half of the rest is twice.
            z = z[np.triu_indices(len(keys), 1)]
        assert_standard_normal(z, tests=z.size)


@pytest.mark.parametrize(("dtype", "count"), [("float32", 24), ("float64", 53)])
def test_every_bit_of_a_uniform_is_a_coin(dtype, count):
    """And no two of them are the same coin, nor any with its neighbour's."""
    size = 1 << 18
    words = (sample("Uniform", dtype)[:size].astype(np.float64) * 2.0**count).astype(np.int64)
    coins = ((words >> np.arange(count)[:, None]) & 1).astype(np.float32) * 2 - 1
    assert_standard_normal(coins.sum(1) / math.sqrt(size), tests=count)
    for shift in (0, 1):
        z = coins[:, shift:] @ coins[:, : size - shift].T / math.sqrt(size - shift)
        z = z[np.triu_indices(count, 1)] if shift == 0 else z
        assert_standard_normal(z, tests=z.size)


@pytest.mark.parametrize("place", ["plane 0", "plane 1"])
def test_both_halves_of_a_float64_word_are_uniform(place):
    """The 24 bits that float32 has too, and the 29 of the second plane; and their correlation."""
    x = sample("Uniform", "float64")
    high = np.floor(x * 2.0**24) * 2.0**-24
    low = (x - high) * 2.0**24
    found = (high if place == "plane 0" else low)[: 1 << 20]
    result = stats.kstest(found, "uniform", method="asymp")
    two_sided(1 - result.pvalue, result.pvalue)
    for lag in range(9):
        a, b = (high - 0.5)[lag:], (low - 0.5)[: SIZE - lag]
        assert_standard_normal(a @ b * 12 / math.sqrt(a.size))
