"""Logarithm, powers, exponential, sine and cosine of float64 arrays, the same on every machine.

NumPy's own differ between processors in the last bit. These are sums, products and quotients of
float64, which are correctly rounded everywhere: each result is made as an unevaluated sum of two
float64 with an error of 2**-60 or less, relative to the result, and rounded once at the end. So it
is the correctly rounded one in all but about one case in 128, and never off by more than 0.51 ulp.
An argument that is not finite, or is outside of the domain, gives NaN.
"""

import functools
from decimal import Decimal, localcontext
from typing import Any

import numpy as np

from numinit.stream.normal_tail import CONTEXT

#: A float64 array or scalar.
Array = Any
#: The sum of two float64, of which the second is at most half an ulp of the first.
Pair = tuple[Array, Array]

TURNS = 1 << 27  # quarters of a turn: beyond, the parts of pi / 2 are too few
CELLS = 64  # tables have an entry for each 64th
FAR = 800.0  # exp of it is beyond float64, and exp of -FAR is 0
SPLITTER = 134217729.0  # 2**27 + 1
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")


def log(x: Array) -> Array:
    """The natural logarithm; NaN below 0, and -infinity at 0."""
    x = np.asarray(x, np.float64)
    inside = (x > 0) & (x < np.inf)
    made: Array = np.add(*_log(np.where(inside, x, 1.0)))
    return np.where(inside, made, np.where(x == 0, -np.inf, np.nan))


def exp(x: Array) -> Array:
    """The exponential."""
    x = np.asarray(x, np.float64)
    inside = np.isfinite(x)
    high, low, exponent = _exp(np.where(inside, x, 0.0), np.zeros_like(x))
    return np.where(inside, np.ldexp(high + low, exponent), np.nan)


def power(x: Array, y: Array) -> Array:
    """``x ** y``; NaN for a negative `x` unless `y` is an integer."""
    x, y = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
    inside = np.isfinite(x) & np.isfinite(y) & ((x >= 0) | (np.rint(y) == y))
    negative = (x < 0) & (np.mod(np.where(inside, y, 0.0), 2.0) == 1.0)
    base = np.where(inside & (x != 0), np.abs(x), 1.0)
    high, low = _log(base)
    far = ~(np.abs(y * high) < FAR)
    times = np.where(far, 0.0, np.where(inside, y, 0.0))
    product, rest = _times(times, high)
    product = np.where(far, np.copysign(FAR, y * high), product)
    high, low, exponent = _exp(product, rest + times * low)
    made = np.ldexp(high + low, exponent)
    made = np.where(x == 0, np.where(y > 0, 0.0, np.where(y == 0, 1.0, np.inf)), made)
    return np.where(inside, np.where(negative, -made, made), np.nan)


def sin(x: Array) -> Array:
    """The sine of an angle in radians, below 2**27 quarters of a turn."""
    return sin_cos(np.asarray(x, np.float64), 0.0)[0]


def cos(x: Array) -> Array:
    """The cosine of an angle in radians, below 2**27 quarters of a turn."""
    return sin_cos(np.asarray(x, np.float64), 0.0)[1]


def exp_pair(high: Array, low: Array | float) -> Pair:
    """The exponential of a pair as a pair, where it is far from the ends of float64."""
    high, low, exponent = _exp(np.asarray(high, np.float64), low)
    return np.ldexp(high, exponent), np.ldexp(low, exponent)


def log_pair(x: Array) -> Pair:
    """The logarithm of finite numbers above 0 as a pair."""
    return _log(np.asarray(x, np.float64))


def times(x: Array, pair: Pair) -> Pair:
    """A number times a pair."""
    high, low = _times(x, pair[0])
    return _sum(high, low + x * pair[1])


def remainder(x: Array, quotient: Array, divisor: Array) -> Array:
    """``x - quotient * divisor``, where that is small."""
    product, off = _times(quotient, divisor)
    return (x - product) - off


def sin_cos(high: Array, low: Array | float) -> tuple[Array, Array]:
    """The sine and the cosine of an angle in radians that is given as a pair."""
    parts, table = _pi_parts(), _sines()
    turns: Array = np.rint(high * float(2 / PI))
    inside = np.abs(turns) < TURNS
    turns, high = np.where(inside, turns, 0.0), np.where(inside, high, 0.0)
    rest, error = high - turns * parts[0], low - turns * parts[3]
    for part in parts[1:3]:
        rest, off = _sum(rest, turns * -part)
        error = error + off
    rest, error = _sum(rest, error)
    negative: Array = np.signbit(rest)
    rest, error = np.abs(rest), np.where(negative, -error, error)
    cell = np.rint(rest * CELLS).astype(np.int64)
    t = rest - cell / CELLS
    sine, sine_low, cosine, cosine_low = table[:, cell]
    z = t * t
    more = -z * t * (1.0 / 6.0) * (1.0 - z * (1.0 / 20.0) * (1.0 - z * (1.0 / 42.0)))  # sin t - t
    less = z * -0.5 * (1.0 - z * (1.0 / 12.0) * (1.0 - z * (1.0 / 30.0)))  # cos t - 1
    product, off = _times(cosine, t)
    s, off2 = _sum(sine, product)
    s = s + (off2 + (off + (sine_low + sine * less + cosine * (more + error) + cosine_low * t)))
    product, off = _times(sine, t)
    c, off2 = _sum(cosine, -product)
    c = c + (off2 - (off - (cosine_low + cosine * less - sine * (more + error) - sine_low * t)))
    s = np.where(negative, -s, s)
    quarter = turns.astype(np.int64) & 3
    swapped = quarter & 1 == 1
    turned: tuple[Array, Array] = np.where(swapped, c, s), np.where(swapped, s, c)
    s, c = turned
    made_sin = np.where(quarter >= 2, -s, s)
    made_cos = np.where((quarter == 1) | (quarter == 2), -c, c)
    return np.where(inside, made_sin, np.nan), np.where(inside, made_cos, np.nan)


def _sum(a: Array, b: Array | float) -> Pair:
    """The sum and its rounding error, exactly."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _times(a: Array, b: Array) -> Pair:
    """The product and its rounding error, exactly, for numbers of usual sizes."""
    product = a * b
    high_a = SPLITTER * a
    high_a = high_a - (high_a - a)
    high_b = SPLITTER * b
    high_b = high_b - (high_b - b)
    low_a, low_b = a - high_a, b - high_b
    return product, low_a * low_b - (
        ((product - high_a * high_b) - low_a * high_b) - high_a * low_b
    )


def _log(x: Array) -> Pair:
    """The logarithm of finite numbers above 0.

    x = 2**e m with m near c, a 64th: ln x = e ln 2 + ln c + 2 artanh((m - c) / (m + c)).
    """
    ln2, ln2_low, logs, logs_low = _logs()
    m, e = np.frexp(x)
    small = m < 0.7071067811865476
    m, e = np.where(small, 2.0 * m, m), np.where(small, e - 1, e).astype(np.float64)
    cell = np.rint(m * CELLS).astype(np.int64)
    c = cell / CELLS
    d = m - c
    whole, whole_low = _sum(m, c)
    s = d / whole
    product, off = _times(s, whole)
    s_low = ((d - product) - off - s * whole_low) / whole
    z = s * s
    series = z * (1 / 3 + z * (1 / 5 + z * (1 / 7 + z * (1 / 9 + z * (1 / 11)))))
    high, off = _sum(e * ln2, logs[cell])
    high, off2 = _sum(high, 2.0 * s)
    rest = 2.0 * s * series + 2.0 * s_low + e * ln2_low + logs_low[cell]
    return _sum(high, off + off2 + rest)


def _exp(high: Array, low: Array | float) -> tuple[Array, Array, Array]:
    """The exponential of a pair of finite numbers as a pair near 1 and an exponent of 2.

    x = (64 e + j) ln 2 / 64 + r: exp x = 2**e 2**(j / 64) exp r.
    """
    parts, powers, powers_low = _powers()
    far = np.abs(high) > FAR
    high, low = np.where(far, np.copysign(FAR, high), high), np.where(far, 0.0, low)
    n = np.rint(high * float(CELLS / Decimal(2).ln(CONTEXT)))
    r, off = _sum(high - n * parts[0], -n * parts[1])
    r, off = _sum(r, off + (low - n * parts[2]))
    series = 1 / 6 + r * (1 / 24 + r * (1 / 120 + r * (1 / 720 + r * (1 / 5040))))
    q = off + r * r * (0.5 + r * series)
    number = n.astype(np.int64)
    cell = number & (CELLS - 1)
    t, t_low = powers[cell], powers_low[cell]
    product, off = _times(t, r)
    made, off2 = _sum(t, product)
    made, rest = _sum(made, off2 + (off + (t * q + (t_low + t_low * r))))
    return made, rest, (number - cell) // CELLS


def _pair(x: Decimal) -> tuple[float, float]:
    high = float(x)
    return high, float(x - Decimal(high))


def _parts(x: Decimal, bits: int, count: int) -> list[float]:
    """A number as a sum: `count` - 1 parts of so many bits, and the rest."""
    parts = []
    for _ in range(count - 1):
        scale = Decimal(2) ** (bits - int(np.frexp(float(x))[1]))
        part = (x * scale).to_integral_value() / scale
        parts.append(float(part))
        x -= part
    return [*parts, float(x)]


@functools.cache
def _logs() -> tuple[float, float, Array, Array]:
    """The parts of ln 2, the first of which has 42 bits, and of ln(c / 64)."""
    with localcontext(CONTEXT):
        ln2, ln2_low = _parts(Decimal(2).ln(), 42, 2)
        pairs = [_pair((Decimal(max(c, 1)) / CELLS).ln()) for c in range(2 * CELLS)]
    high, low = np.array(pairs).T
    return ln2, ln2_low, high, low


@functools.cache
def _powers() -> tuple[list[float], Array, Array]:
    """The parts of ln 2 / 64, of 36 bits, and of 2**(j / 64)."""
    with localcontext(CONTEXT):
        ln2 = Decimal(2).ln()
        parts = _parts(ln2 / CELLS, 36, 3)
        high, low = np.array([_pair((ln2 * j / CELLS).exp()) for j in range(CELLS)]).T
    return parts, high, low


@functools.cache
def _pi_parts() -> list[float]:
    """The parts of pi / 2, of 26 bits, so that their products with numbers of turns are exact."""
    with localcontext(CONTEXT):
        return _parts(PI / 2, 26, 4)


@functools.cache
def _sines() -> Array:
    """The sine and the cosine of c / 64 up to an eighth of a turn, each as a pair; float64 (4, c)."""
    with localcontext(CONTEXT):
        rows = []
        for c in range(CELLS):
            x = Decimal(c) / CELLS
            terms, term = [Decimal(1)], Decimal(1)
            for n in range(1, 50):
                term = term * x / n
                terms.append(term)
            sine = sum((-1) ** (n // 2) * terms[n] for n in range(1, 50, 2))
            cosine = sum((-1) ** (n // 2) * terms[n] for n in range(0, 50, 2))
            rows.append((*_pair(Decimal(sine)), *_pair(Decimal(cosine))))
    return np.array(rows).T
