"""Truncated normal values by the inverse of the distribution function: one word an element.

    u = (word + 1/2) / 2**32,  z = Phi^-1(Phi(a) + u (Phi(b) - Phi(a)))      (2**64 for float64)

Both tail probabilities of z are made with full relative accuracy. lower = Phi(z) counts up from
Phi(a) with the word. upper = 1 - Phi(z) counts up from 1 - Phi(b) with the word's complement. Then,
after M. Giles, "Approximating the erfinv function", GPU Computing Gems 2 (2011),

    z = (lower - upper) R(v),  v = -2 ln(4 lower upper),

where R is smooth and even in z. It is a ratio of polynomials here, in float64 one on each of three
intervals. Where all of [a, b] lies 6 or more standard deviations from the mean, z follows from the
distance to the nearer bound instead (`far_float64`), which is accurate in every tail.
"""

import math
from typing import NamedTuple

import numpy as np

from numinit.compiler.inline import inline
from numinit.compiler.intrinsics import fma, product, quotient, root
from numinit.stream.elementary import (
    minus_2_log_float32,
    minus_2_log_float64,
    reduced_float32,
    reduced_float64,
)
from numinit.stream.transform import Transform
from numinit.stream.uniform import clamp

#: From so many standard deviations on, intervals are far.
FAR = 6.0

SIGN32 = np.uint32(0x80000000)
SIGN64 = np.uint64(0x8000000000000000)

# R(v)**2 = v + N(v) / D(v) on [0, 52], float32: z within 8.8e-8. The large term v is added last, so
# that the roundings before it are relatively small. A ratio for R itself has an error of 2e-6.
N0 = np.float32(1.5707981586456299)
N1 = np.float32(-0.4989870488643646)
N2 = np.float32(0.019355181604623795)
N3 = np.float32(-0.002760926028713584)
N4 = np.float32(5.29398130311165e-06)
N5 = np.float32(-4.163537141721463e-06)
N6 = np.float32(-3.843017015725536e-09)
D0 = np.float32(1.0)
D1 = np.float32(0.05716275796294212)
D2 = np.float32(0.010083973407745361)
D3 = np.float32(0.00048580527072772384)
D4 = np.float32(2.5472472771070898e-05)
D5 = np.float32(9.869364703263273e-07)

# R(v) = N(v - v0) / D(v - v0) on [0, 12], [12, 45] and [45, 130] with v0 = 0, 12, 45, float64: z
# within 2.8e-16, 1.7e-15, 4.2e-16. From the highest power down.
NUMERATORS = (
    (2.710429168233904e-10, 1.7142256484388795e-12, 2.718812010214621e-16),
    (1.7806696709477825e-08, 7.249700157689188e-10, 7.054900740005728e-13),
    (6.241934818212697e-07, 7.731822203319025e-08, 4.720000301706585e-10),
    (1.4922672017265393e-05, 4.326710112702013e-06, 1.2783902564830366e-07),
    (0.0002652018179485817, 0.00015590857863804025, 1.6823529217293372e-05),
    (0.0035778266013499023, 0.003842450366920124, 0.0011658910547987084),
    (0.03580584660640466, 0.06365931624924542, 0.043300135726255504),
    (0.2616307766461404, 0.6515486594302795, 0.821437837060745),
    (1.2533141373155026, 3.23349241689967, 6.492194583261047),
)
DENOMINATORS = (
    (1.1166989503499447e-11, 3.025457663242548e-14, 2.061982021637546e-18),
    (2.8155595204677153e-09, 4.469543375599886e-11, 1.7243207436455554e-14),
    (1.0867999910278357e-07, 8.246643478922493e-09, 2.0473923815272615e-11),
    (3.356721600583794e-06, 5.779506077534468e-07, 8.170358672407902e-09),
    (7.250032442011622e-05, 2.49424860136725e-05, 1.433610651626378e-06),
    (0.0009511835537344347, 0.0006984934087537308, 0.00012363286119052995),
    (0.015120190225105358, 0.013520992193588243, 0.005400889170451525),
    (0.07785146341728368, 0.15782276046684182, 0.1149276648207542),
    (1.0, 1.0, 1.0),
)

# ln(z (1 - Phi(z)) / phi(z)) = G(1 / z**2) / z**2 for z >= 6, float64: 1.2e-15.
G0 = -0.9999999999999363
G1 = 2.4999999994430766
G2 = -12.333332521708966
G3 = 88.24953382007787
G4 = -816.0608926590407
G5 = 9176.189285475284
G6 = -119234.55476420498
G7 = 1647396.5204744881
G8 = -20860424.18655399
G9 = 194513844.97392625
G10 = -924385016.281196


class Parameters(NamedTuple):
    """Parameters of `truncated_float32` and `truncated_float64`."""

    mean: float
    std: float
    least: float
    """The least value of the array's type within the bounds."""
    most: float
    """The greatest one."""
    step: float
    """By how much 2 lower grows, and 2 upper shrinks, from one word to the next."""
    lower: float
    """2 lower of the word 0."""
    upper: float
    """2 upper of the largest word, whose complement is 0."""
    middle: float
    """lower - upper of the word 2**31; of 64 bits, 2**63."""


class FarParameters(NamedTuple):
    """Parameters of `far_float64`.

    Below, a is the magnitude of the bound nearer to the mean, and
    t = (1 - Phi(|z|)) / (1 - Phi(a)).
    """

    mean: float
    std: float
    least: float
    """The least value of the array's type within the bounds."""
    most: float
    """The greatest one."""
    step: float
    """By how much t grows from one word to the next, or from one complement in the upper tail."""
    rest: float
    """t where that word or complement is 0."""
    sign: float
    """1 for the upper tail, -1 for the lower one."""
    square: float
    """a**2."""
    inverse: float
    """1 / a**2."""
    beyond: float
    """`beyond` of 1 / a**2."""


@inline
def one_float32(word, p):
    """One uint32 word to one float32 value."""
    step = np.float32(p.step)
    lower = fma(np.float32(word), step, np.float32(p.lower))
    upper = fma(np.float32(np.uint32(~word)), step, np.float32(p.upper))
    difference = fma(np.float32(np.int32(word ^ SIGN32)), step, np.float32(p.middle))
    exponent, f = reduced_float32(lower * upper)
    v = minus_2_log_float32(exponent, f)
    numerator = fma(fma(fma(fma(fma(fma(N6, v, N5), v, N4), v, N3), v, N2), v, N1), v, N0)
    denominator = fma(fma(fma(fma(fma(D5, v, D4), v, D3), v, D2), v, D1), v, D0)
    z = difference * root(v + quotient(numerator, denominator))
    return clamp(
        fma(z, np.float32(p.std), np.float32(p.mean)), np.float32(p.least), np.float32(p.most)
    )


@inline
def truncated_float32(word0, word1, p):
    """Two uint32 words to two float32 values ``z * std + mean``; z is exact to 1e-6."""
    return one_float32(word0, p), one_float32(word1, p)


@inline
def pick(v, row):
    """The element of `row`, a float64 for each of the three intervals, for that of `v`."""
    return row[0] if v < 12.0 else (row[1] if v < 45.0 else row[2])


@inline
def one_float64(word, p):
    """One uint64 word to one float64 value."""
    lower = fma(np.float64(word), p.step, p.lower)
    upper = fma(np.float64(~word), p.step, p.upper)
    difference = fma(np.float64(np.int64(word ^ SIGN64)), p.step, p.middle)
    exponent, f = reduced_float64(lower * upper)
    v = minus_2_log_float64(exponent, f)
    t = v - pick(v, (0.0, 12.0, 45.0))
    numerator, denominator = pick(v, NUMERATORS[0]), pick(v, DENOMINATORS[0])
    for k in range(1, 9):
        numerator = fma(numerator, t, pick(v, NUMERATORS[k]))
        denominator = fma(denominator, t, pick(v, DENOMINATORS[k]))
    z = difference * (numerator / denominator)
    return clamp(fma(z, p.std, p.mean), p.least, p.most)


@inline
def truncated_float64(word0, word1, p):
    """As `truncated_float32`: two uint64 words to two float64 values; z is exact to 1e-14."""
    return one_float64(word0, p), one_float64(word1, p)


@inline
def beyond(v):
    """2 ln(z (1 - Phi(z)) / phi(z)), float64, for v = 1 / z**2 and z >= 6."""
    g = fma(fma(fma(fma(fma(G10, v, G9), v, G8), v, G7), v, G6), v, G5)
    g = fma(fma(fma(fma(fma(g, v, G4), v, G3), v, G2), v, G1), v, G0)
    return product(g + g, v)


@inline
def one_far(word, p):
    """One uint64 word to one float64 value of a far interval, in the upper or lower tail."""
    word = ~word if p.sign > 0.0 else word
    exponent, f = reduced_float64(fma(np.float64(word), p.step, p.rest))
    target = minus_2_log_float64(exponent, f)
    # Solve h + ln(1 + h / a**2) - beyond(1 / z**2) + beyond(1 / a**2) = target for h = z**2 - a**2.
    h = target
    for _ in range(3):  # Newton's method: an error of at most 1.3 falls to 2e-5, 1e-9, 1e-16
        v = 1.0 / (p.square + h)
        exponent, f = reduced_float64(fma(h, p.inverse, 1.0))
        log = minus_2_log_float64(exponent, f)
        residue = fma(log, -0.5, h - target) - (beyond(v) - p.beyond)
        h -= residue / fma(fma(fma(10.0, v, -2.0), v, 1.0), v, 1.0)
    z = math.sqrt(p.square + h) * p.sign
    return clamp(fma(z, p.std, p.mean), p.least, p.most)


@inline
def far_float64(word0, word1, p):
    """As `truncated_float64`, for an interval that lies `FAR` or more from the mean."""
    return one_far(word0, p), one_far(word1, p)


@inline
def widened(word):
    """The uint64 in the middle of those whose upper half is the uint32 `word`."""
    return (np.uint64(word) << np.uint64(32)) | np.uint64(0x80000000)


@inline
def wide_float32(word0, word1, p):
    """`truncated_float64` of two uint32 words, rounded once to float32."""
    x, y = truncated_float64(widened(word0), widened(word1), p)
    return np.float32(x), np.float32(y)


@inline
def far_float32(word0, word1, p):
    """`far_float64` of two uint32 words, rounded once to float32."""
    x, y = far_float64(widened(word0), widened(word1), p)
    return np.float32(x), np.float32(y)


TRUNCATED_NORMAL = Transform("truncated", Parameters, truncated_float32, truncated_float64)
#: The same, computed in float64: for intervals too thin or too far out for float32.
WIDE_TRUNCATED_NORMAL = Transform("truncated_wide", Parameters, wide_float32, truncated_float64)
#: For intervals that lie `FAR` or more standard deviations from the mean.
FAR_TRUNCATED_NORMAL = Transform("truncated_far", FarParameters, far_float32, far_float64)
