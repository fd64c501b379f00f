"""Log-uniform values, and values whose softplus is log-uniform: one word an element.

    x = exp(u * width + low),  softplus^-1(x) = x + ln(1 - exp(-x))

Both are computed in float64, also for float32, and rounded once.
"""

from typing import NamedTuple

import numpy as np

from numinit.compiler.inline import inline
from numinit.compiler.intrinsics import bits_float64, fma
from numinit.stream.elementary import minus_2_log_float64, reduced_float64
from numinit.stream.transform import Transform
from numinit.stream.uniform import UNIT24, UNIT53, clamp

LOG2_E = 1.4426950408889634
LN2_HIGH = 0.6931471803691238  # 33 bits: its products with exponents are exact
LN2_LOW = 1.9082149292705877e-10
ROUNDED = 6755399441055744.0  # 1.5 * 2**52: adding it rounds to an integer
SMALL = 0.35  # below, 1 - exp(-x) would cancel


class Parameters(NamedTuple):
    """Parameters of the transforms."""

    width: float
    """ln high - ln low."""
    low: float
    """ln low."""
    bottom: float
    """To what lower values x are raised."""
    top: float
    """The largest x."""
    least: float
    """The least value of the array's type that a result may have."""
    most: float
    """The greatest one."""


@inline
def exp_float64(x):
    """exp(x) within 2 ulp, float64, for |x| <= 690."""
    shifted = fma(x, LOG2_E, ROUNDED)
    n = shifted - ROUNDED
    r = fma(n, -LN2_LOW, fma(n, -LN2_HIGH, x))
    # Taylor's series: an error of 2e-18 for |r| <= ln 2 / 2.
    p = fma(r, 1.1470745597729725e-11, 1.6059043836821613e-10)
    p = fma(
        fma(fma(p, r, 2.08767569878681e-09), r, 2.505210838544172e-08), r, 2.755731922398589e-07
    )
    p = fma(
        fma(fma(p, r, 2.7557319223985893e-06), r, 2.48015873015873e-05), r, 0.0001984126984126984
    )
    p = fma(fma(fma(p, r, 0.001388888888888889), r, 0.008333333333333333), r, 0.041666666666666664)
    p = fma(fma(p, r, 0.16666666666666666), r, 0.5)
    scale = bits_float64(np.uint64(np.int64(n) + np.int64(1023)) << np.uint64(52))
    return fma(fma(p, r * r, r), scale, scale)


@inline
def inverse_softplus_float64(x):
    """ln(exp(x) - 1) = x + ln(1 - exp(-x)), float64, for x > 0."""
    # 1 - exp(-x) = x - x**2/2 + x**3/6 - ...: an error of 1e-17 for x <= SMALL.
    p = fma(x, -1.1470745597729725e-11, 1.6059043836821613e-10)
    p = fma(
        fma(fma(p, x, -2.08767569878681e-09), x, 2.505210838544172e-08), x, -2.755731922398589e-07
    )
    p = fma(
        fma(fma(p, x, 2.7557319223985893e-06), x, -2.48015873015873e-05), x, 0.0001984126984126984
    )
    p = fma(
        fma(fma(p, x, -0.001388888888888889), x, 0.008333333333333333), x, -0.041666666666666664
    )
    p = fma(fma(p, x, 0.16666666666666666), x, -0.5)
    near = fma(p, x * x, x)
    far = 1.0 - exp_float64(-x if x < 690.0 else -690.0)
    exponent, f = reduced_float64(near if x < SMALL else far)
    return fma(minus_2_log_float64(exponent, f), -0.5, x)


@inline
def x_of(u, p):
    """The log-uniform number of a uniform one on [0, 1), float64."""
    return clamp(exp_float64(fma(u, p.width, p.low)), p.bottom, p.top)


@inline
def log_uniform_float32(word0, word1, p):
    """Two uint32 words to two float32 values, with u = (word >> 8) * 2**-24."""
    u0 = np.float64(np.int32(word0 >> np.uint32(8))) * np.float64(UNIT24)
    u1 = np.float64(np.int32(word1 >> np.uint32(8))) * np.float64(UNIT24)
    x0, x1 = clamp(x_of(u0, p), p.least, p.most), clamp(x_of(u1, p), p.least, p.most)
    return np.float32(x0), np.float32(x1)


@inline
def log_uniform_float64(word0, word1, p):
    """As `log_uniform_float32`: two uint64 words to two float64; u = (word >> 11) * 2**-53."""
    u0 = np.float64(np.int64(word0 >> np.uint64(11))) * UNIT53
    u1 = np.float64(np.int64(word1 >> np.uint64(11))) * UNIT53
    return clamp(x_of(u0, p), p.least, p.most), clamp(x_of(u1, p), p.least, p.most)


@inline
def inverse_softplus_float32(word0, word1, p):
    """As `log_uniform_float32`, of the numbers whose softplus is that."""
    u0 = np.float64(np.int32(word0 >> np.uint32(8))) * np.float64(UNIT24)
    u1 = np.float64(np.int32(word1 >> np.uint32(8))) * np.float64(UNIT24)
    x0, x1 = inverse_softplus_float64(x_of(u0, p)), inverse_softplus_float64(x_of(u1, p))
    return np.float32(clamp(x0, p.least, p.most)), np.float32(clamp(x1, p.least, p.most))


@inline
def inverse_softplus_of_log_uniform_float64(word0, word1, p):
    """As `inverse_softplus_float32`, of two uint64 words to two float64."""
    u0 = np.float64(np.int64(word0 >> np.uint64(11))) * UNIT53
    u1 = np.float64(np.int64(word1 >> np.uint64(11))) * UNIT53
    x0, x1 = inverse_softplus_float64(x_of(u0, p)), inverse_softplus_float64(x_of(u1, p))
    return clamp(x0, p.least, p.most), clamp(x1, p.least, p.most)


LOG_UNIFORM = Transform("log_uniform", Parameters, log_uniform_float32, log_uniform_float64)
INVERSE_SOFTPLUS = Transform(
    "inverse_softplus",
    Parameters,
    inverse_softplus_float32,
    inverse_softplus_of_log_uniform_float64,
)
