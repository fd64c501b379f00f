"""Truncated normals: accuracy against mpmath and SciPy, bounds in every type, and both spellings."""

import functools
import math
import warnings

import mpmath
import numpy as np
import oracle
import pytest
from helpers import law_of
from numba import njit

import numinit as ni
from numinit.initializers.variance_scaling import EXP_MINUS_4, TRUNCATED_DISK_STD, TRUNCATED_STD
from numinit.stream import normal_tail as tails
from numinit.stream.dtypes import DTYPES, as_dtype
from numinit.stream.truncated_normal import TRUNCATED_NORMAL
from numinit.weights.keys import Key

INF = math.inf
KEY = Key(11, 3)

# Bounds in standard deviations: two-sided, one-sided, far tails, thin slices, none.
BOUNDS = [
    (-2, 2), (-3, 1), (-1, INF), (-INF, INF), (-100, 100), (0, INF), (-INF, 0), (2.25, INF),
    (2.26, INF), (5, INF), (-INF, -5), (5.99, INF), (6, INF), (-INF, -6), (8, 9), (-9, -8),
    (-0.001, 0.001), (1, 1.001), (6, 6.0001), (-40, -39.9), (40, INF), (1000, INF), (-2.25, -2),
    (-6.5, -5.9),
]  # fmt: skip
REAL = [name for name, dtype in DTYPES.items() if not dtype.complex]


@functools.cache
def compiled(known, dtype):
    transform = known.float64 if dtype == "float64" else known.float32

    @njit
    def loop(words, out, p):
        for i in range(words.size // 2):
            out[2 * i], out[2 * i + 1] = transform(words[2 * i], words[2 * i + 1], p)

    return loop


def transformed(law, dtype, words):
    known, parameters = law.transform(as_dtype(dtype))
    out = np.full(words.size, np.nan, dtype)
    compiled(known, dtype)(words, out, known.Parameters(*map(float, parameters)))
    return out


def some_words(bits, count):
    kind = np.uint32 if bits == 32 else np.uint64
    edges = [*oracle.EDGE_WORDS] if bits == 32 else []
    edges += [x for k in range(bits) for x in (2**k, 2**bits - 1 - 2**k)] + [0, 2**bits - 1]
    random = np.random.default_rng(bits).integers(0, 2**bits, count + len(edges) % 2, dtype=kind)
    return np.concatenate([np.array(edges, kind), random])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("a", "b"), BOUNDS)
def test_within_the_contract_of_the_exact_transform(a, b, dtype):
    bits, bound, eps = (32, 1e-6, 2.0**-24) if dtype == "float32" else (64, 1e-14, 2.0**-53)
    words = some_words(bits, 60)
    got = transformed(ni.TruncNormal(0, 1, a, b), dtype, words)
    assert ((got >= a) & (got <= b)).all()
    with mpmath.workdps(60):
        for w, z in zip(words, got, strict=True):
            exact = oracle.truncated(int(w), a, b, bits)
            # Beyond 16 sigma a rounding alone is more than the contract's bound.
            assert abs(exact - float(z)) <= max(bound, 1.01 * eps * abs(exact)), int(w)


def test_float32_arithmetic_is_within_the_contract_everywhere():
    """Against the float64 way, itself tested above: the whole tails, and millions of words."""
    random = np.random.default_rng(1).integers(0, 2**32, 1 << 21, dtype=np.uint32)
    tail = np.arange(1 << 18, dtype=np.uint32)
    spread = np.exp2(np.linspace(18, 31.9, 1 << 20)).astype(np.uint32)
    words = np.concatenate([random, tail, ~tail, spread, ~spread])
    as64 = (words.astype(np.uint64) << 32) + np.uint64(2**31)
    for a, b in [(-2, 2), (-INF, INF), (0, INF), (2.25, INF), (-INF, -2.25), (-1, INF), (-4, 4)]:
        law = ni.TruncNormal(0, 1, a, b)
        assert law.transform(as_dtype("float32"))[0] is TRUNCATED_NORMAL
        narrow, wide = transformed(law, "float32", words), transformed(law, "float64", as64)
        assert abs(narrow - wide).max() <= 1e-6, (a, b)


@pytest.mark.parametrize(("a", "b"), BOUNDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_monotone(a, b, dtype):
    """The inverse of a distribution function: a larger word makes no smaller value, to rounding."""
    bits, kind = (32, np.uint32) if dtype == "float32" else (64, np.uint64)
    words = np.sort(np.random.default_rng(5).integers(0, 2**bits, 2000, dtype=kind))
    got = transformed(ni.TruncNormal(0, 1, a, b), dtype, words).astype(np.float64)
    eps = 2.0**-22 if dtype == "float32" else 2.0**-50
    assert (np.diff(got) >= -eps * np.maximum(1, abs(got[1:]))).all()


@pytest.mark.parametrize(("a", "b"), BOUNDS)
def test_distribution_is_scipys(a, b):
    """Kolmogorov-Smirnov on 1e5 float64 values; 24 tests of 1e-10 each: false alarm 3e-9."""
    stats = pytest.importorskip("scipy.stats")
    values = ni.TruncNormal(0, 1, a, b)((100_000,), "float64", seed=KEY)
    if max(a, -b) > 30:  # scipy.stats.truncnorm is fine here, too; its result is checked above
        shifted = values - a if a > 0 else b - values
        limit = b - a if b - a < INF else INF
        rate = max(a, -b)  # the tail is nearly exponential: at most 1 / rate**2 away
        expected = -np.expm1(-rate * shifted) / -np.expm1(-rate * limit)
        ks = abs(np.sort(expected) - (np.arange(values.size) + 0.5) / values.size).max()
        assert ks <= 0.011 + 2 / rate**2
    else:
        assert stats.kstest(values, stats.truncnorm(a, b).cdf).pvalue > 1e-10


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize(
    ("mean", "std", "a", "b"),
    [
        (0, 1, -2, 2), (0, 0.02, -0.04, 0.04), (0, 1, 0.3, 0.7), (0, 1, 8, 9), (0, 1, -40, -39),
        (1, 0.5, -INF, 1.1), (0.1, 0.02, 0.1, INF), (0, 1e-3, -2, 2), (0, 1, 0, INF),
        (0, 100, -0.5, 0.5), (0.3, 0.02, 0.3, 0.3125),
    ],
)  # fmt: skip
def test_never_outside(mean, std, a, b, dtype):
    if dtype not in ("float16", "float32", "float64"):
        pytest.importorskip("ml_dtypes")
    values = ni.TruncNormal(mean, std, a, b)((1 << 16,), dtype, seed=KEY).astype(np.float64)
    assert ((values >= a) & (values <= b)).all()
    if mean == 0 and b - a > std:
        assert len(np.unique(values)) > 4


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize(("a", "b"), [(-2, 2), (0.301, INF), (8, 9), (-0.3, 0.3)])
def test_narrow_types_are_float32_rounded_once(a, b, dtype):
    pytest.importorskip("ml_dtypes")
    law = ni.TruncNormal(0, 1, a, b)
    narrow, wide = law((1 << 16,), dtype, seed=1), law((1 << 16,), seed=1)
    expected = wide.astype(narrow.dtype).astype(np.float64)
    inside = (expected >= a) & (expected <= b)
    assert inside.mean() > 0.5
    np.testing.assert_array_equal(narrow.astype(np.float64)[inside], expected[inside])


def test_float64_refines_float32():
    for a, b in [(-2, 2), (8, 9), (-0.001, 0.001)]:
        law = ni.TruncNormal(0, 1, a, b)
        wide, narrow = law((1 << 16,), "float64", seed=1), law((1 << 16,), seed=1)
        # Half a cell of 2**-32 is 1e-6 wide only in the last thousandth of a tail.
        assert np.quantile(abs(wide - narrow), 0.999) <= 1.2e-6


def test_point_masses():
    for law, value in [
        (ni.TruncNormal(0, 0, -1, 1), 0), (ni.TruncNormal(5, 0, -1, 1), 1),
        (ni.TruncNormal(0, 1, 0.5, 0.5), 0.5), (ni.TruncNormal(0, 1e-30, 1, 2), 1),
        (ni.TruncNormal(0, 1e-30, -2, -1), -1), (ni.TruncatedNormal(3, 0), 3),
    ]:  # fmt: skip
        for dtype in ("float32", "float64", "float16"):
            assert (law((100,), dtype, seed=0) == value).all(), law


def test_sigma_bounds():
    law = law_of(ni.TruncatedNormal(1.0, 0.5, -1.0, 3.0), (3, 4))
    assert law == ni.TruncNormal(1.0, 0.5, 0.5, 2.5)
    assert law_of(ni.TruncatedNormal(), ()) == ni.TruncNormal()
    assert law_of(ni.TruncatedNormal(0, 2, 1), ()) == ni.TruncNormal(0, 2, 2, 4)


@pytest.mark.parametrize("std", [1.0, 0.02, 3e3])
def test_variance_scaling_keeps_the_variance(std):
    """JAX's and Keras' constant; the sample variance to 6 standard errors: false alarm 2e-9."""
    n = 1 << 20
    values = ni.VarianceScaling(std**2 * 4, "fan_in", "truncated_normal")((n // 4, 4), seed=KEY)
    assert abs(values).max() <= 2 * std / TRUNCATED_STD * (1 + 1e-7)
    # The fourth moment of the truncated normal is below 2.4 squared variances.
    assert values.var(dtype=np.float64) == pytest.approx(std**2, rel=6 * math.sqrt(1.4 / n))


def test_constants():
    with mpmath.workdps(30):
        kept = 1 - 2 * oracle.upper_tail(2)
        variance = 1 - 4 * mpmath.npdf(2) / kept
        assert abs(mpmath.sqrt(variance) - TRUNCATED_STD) < 1e-16
        edge = mpmath.exp(-4)  # of |z|**2, exponential with mean 1, cut at 4
        disk = 1 - 4 * edge / (1 - edge)
        assert abs(mpmath.sqrt(disk) - TRUNCATED_DISK_STD) < 1e-16
        assert float(edge) == EXP_MINUS_4


@pytest.mark.parametrize("x", ["0", "1e-9", "1", "3.99", "4", "4.01", "6", "38", "200", "-2.5"])
def test_tails_in_decimal_arithmetic(x):
    with mpmath.workdps(60):
        exact = oracle.upper_tail(mpmath.mpf(x))
        got = mpmath.mpf(str(tails.upper_tail(tails.Decimal(x))))
        assert abs(got / exact - 1) < mpmath.mpf(10) ** -30
        if "-" not in x[:1]:
            mills = mpmath.mpf(str(tails.mills(tails.Decimal(x))))
            assert abs(mills * mpmath.npdf(mpmath.mpf(x)) / exact - 1) < mpmath.mpf(10) ** -30
    assert tails.upper_tail(tails.Decimal("inf")) == 0
    assert tails.upper_tail(tails.Decimal("-inf")) == 1


@pytest.mark.parametrize(
    ("fields", "error", "name"),
    [
        ({"std": -1}, ValueError, "std"),
        ({"std": math.nan}, ValueError, "std"),
        ({"std": INF}, ValueError, "std"),
        ({"mean": INF}, ValueError, "mean"),
        ({"a": 2, "b": 1}, ValueError, "a, b"),
        ({"a": math.nan}, ValueError, "a, b"),
        ({"a": INF, "b": INF}, ValueError, "a, b"),
        ({"a": "0"}, TypeError, "a"),
    ],
)
def test_bad_fields(fields, error, name):
    with pytest.raises(error, match=name):
        ni.TruncNormal(**fields)
    if name == "a, b":
        changed = {{"a": "lower", "b": "upper"}[key]: value for key, value in fields.items()}
        with pytest.raises(error):
            ni.TruncatedNormal(**changed)


def test_no_number_of_the_type_between_the_bounds():
    law = ni.TruncNormal(8, 1, 8.001, 8.002)
    assert len(np.unique(law((1000,), seed=0))) > 100
    array = np.full(10, 7, np.float16)
    with pytest.raises(ValueError, match="float16"):
        law.fill_(array)
    assert (array == 7).all()
    with pytest.raises(TypeError, match="complex64"):
        law((3,), "complex64")


def test_the_warning_of_torch():
    array = np.zeros(8, np.float32)
    with pytest.warns(UserWarning, match="more than 2 std") as caught:
        ni.trunc_normal_(array, mean=10, a=-1, b=1, seed=0)
    assert caught[0].filename == __file__
    assert (abs(array) <= 1).all() and array.mean() > 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ni.trunc_normal_(array, std=0.02, seed=0) is array  # bounds 100 sigma away
        ni.trunc_normal_(array, mean=3, a=-1, b=1, seed=0)
        with pytest.raises(RuntimeError, match=r"^a, b: "):
            ni.trunc_normal_(array, a=3, b=1, seed=0)  # refused, and nothing to warn of
