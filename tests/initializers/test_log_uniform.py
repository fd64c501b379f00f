"""Log-uniform values and their inverse softplus; truncation at any bounds; one more gain."""

import math

import mpmath
import numpy as np
import oracle
import pytest
from helpers import law_of

import numinit as ni
from numinit.initializers.truncated_normal import truncated_std
from numinit.initializers.variance_scaling import TRUNCATED_STD

KEY = ni.Key(5, 7)
BOUNDS = [(0.001, 0.1, 1e-4), (0.3, 0.4, 0.32), (1e-8, 1e8, 0.0), (500, 800, 0), (0.2, 3, 0.0)]


def exact(low, high, floor, inverse, u):
    """The definition, in 120 bits."""
    with mpmath.workprec(120):
        x = mpmath.exp(u * mpmath.log(mpmath.mpf(high) / low)) * low
        x = min(max(x, mpmath.mpf(floor)), mpmath.mpf(high))
        return mpmath.log(mpmath.expm1(x)) if inverse else x


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize(("low", "high", "floor"), BOUNDS)
def test_values_are_those_of_the_definition(low, high, floor, inverse):
    init = ni.LogUniform(low, high, inverse, floor)
    narrow, wide = init((400,), seed=KEY), init((400,), "float64", seed=KEY)
    for i in range(400):
        words = [oracle.word(i, plane, KEY.seed, KEY.stream) for plane in (0, 1)]
        u32, u64 = (words[0] >> 8) * 2.0**-24, ((words[0] << 32 | words[1]) >> 11) * 2.0**-53
        expected = exact(low, high, floor, inverse, mpmath.mpf(u64))
        # Near x = ln 2 the inverse softplus is 0, and rounding is relative to x.
        error = 2e-14 * max(abs(expected), min(1, high) if inverse else 0)
        assert abs(mpmath.mpf(float(wide[i])) - expected) <= error, i
        expected = float(exact(low, high, floor, inverse, mpmath.mpf(u32)))
        assert abs(float(narrow[i]) - expected) <= 1e-7 * max(abs(expected), 1e-6), i


def test_softplus_of_the_values_is_log_uniform():
    stats = pytest.importorskip("scipy.stats")
    made = ni.LogUniform(0.001, 0.1, inverse_softplus=True)((200_000,), "float64", seed=KEY)
    u = np.log(np.log1p(np.exp(made)) / 0.001) / math.log(100)
    assert stats.kstest(u, "uniform").pvalue > 1e-6
    half = ni.LogUniform(0.001, 0.1, floor=0.01)((10_000,), seed=KEY)
    assert abs((half < 0.0100001).mean() - 0.5) < 0.03


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float8_e4m3fn"])
def test_no_value_is_beyond_the_bounds(dtype):
    pytest.importorskip("ml_dtypes")
    made = ni.LogUniform(0.3, 0.7)((9999,), dtype, seed=KEY).astype(np.float64)
    assert made.min() >= 0.3 and made.max() <= 0.7
    assert (ni.LogUniform(0.31, 0.31)((9,), "float64", seed=KEY) == 0.31).all()


@pytest.mark.parametrize(
    ("arguments", "dtype", "message"),
    [
        ((0.0, 1.0), "float32", "low, high: 0.0 and 1.0 were given"),
        ((2.0, 1.0), "float32", "low, high: 2.0 and 1.0"),
        ((1.0, math.inf), "float32", "low, high: 1.0 and inf"),
        ((1.0, 2.0, False, 3.0), "float32", "floor: 3.0 was given; 0 to 2.0"),
        ((1.0, 2.0, 1), "float32", "inverse_softplus: 1 was given"),
        ((1.0, 1e6), "float16", "high: 1000000.0 was given"),
        ((1.0, 2.0), "complex64", "log-uniform values are real"),
    ],
)
def test_what_is_refused(arguments, dtype, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ni.LogUniform(*arguments)((3,), dtype)
    with pytest.raises(ValueError, match="LogUniform has no spread to scale"):
        ni.DepthScaled(ni.LogUniform(1, 2), 2)((3,))


@pytest.mark.parametrize(
    ("lower", "upper"), [(-2, 2), (-3, 3), (-1, 0.5), (0, math.inf), (2, 3), (-0.1, 0.1), (-9, 9)]
)
def test_truncated_std(lower, upper):
    stats = pytest.importorskip("scipy.stats")
    made = truncated_std(float(lower), float(upper))
    assert made == pytest.approx(stats.truncnorm(lower, upper).std(), rel=1e-9)
    init = ni.TruncatedNormal(0.5, 0.02, lower, upper, corrected=True)
    plain = ni.TruncatedNormal(0.5, 0.02 / made, lower, upper)
    assert law_of(init, ()) == law_of(plain, ())
    values = init((1000, 1000), "float64", seed=0)
    assert values.std() == pytest.approx(0.02, rel=0.005)


def test_truncation_as_of_variance_scaling():
    assert truncated_std(-2.0, 2.0) == TRUNCATED_STD
    scaled = ni.VarianceScaling(1.0, "fan_in", "truncated_normal")((40, 64), seed=KEY)
    same = ni.TruncatedNormal(std=0.125, corrected=True)((40, 64), seed=KEY)
    np.testing.assert_array_equal(scaled, same)


def test_what_cannot_be_corrected():
    for lower, upper in [(1, 1), (0, 1e-6), (math.inf, math.inf)]:
        with pytest.raises(ValueError, match=r"lower, upper: .* are accepted"):
            ni.TruncatedNormal(lower=lower, upper=upper, corrected=True)
    with pytest.raises(TypeError, match="corrected: 1 was given"):
        ni.TruncatedNormal(corrected=1)


def test_a_gain_of_kaiming():
    for kind in (ni.KaimingNormal, ni.KaimingUniform):
        law = law_of(kind(nonlinearity="relu", gain=0.1), (8, 32))
        assert law.std == pytest.approx(0.1 * math.sqrt(2 / 32), rel=1e-15)
        assert law_of(kind(gain=1), (8, 32)) == law_of(kind(), (8, 32))
        with pytest.raises(ValueError, match=r"gain: -1.0 was given"):
            kind(gain=-1)
