"""Truncated normals, with absolute bounds or with bounds in standard deviations."""

import functools
import math
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext

from numinit.engines.spec import Plan, Sampled
from numinit.initializers.base import Distribution, Initializer
from numinit.initializers.distributions import set_real, set_scale
from numinit.show import show
from numinit.stream import normal_tail
from numinit.stream.constant import CONSTANT
from numinit.stream.dtypes import DTYPES, DType, RangeError, quotient
from numinit.stream.transform import Transform
from numinit.stream.truncated_normal import (
    FAR,
    FAR_TRUNCATED_NORMAL,
    TRUNCATED_NORMAL,
    WIDE_TRUNCATED_NORMAL,
)

FARTHEST = 10**9  # beyond this many standard deviations, every value is the nearer bound
NEAR = Decimal("2.25")  # float32 is exact enough for an interval that begins no farther out
THIN = Decimal("0.25")  # and that has at least this width


@dataclass(frozen=True)
class TruncNormal(Distribution):
    """Normal, truncated to the absolute bounds [a, b], as in torch's ``trunc_normal_``.

    Element i is ``std * Phi^-1(Phi(alpha) + u (Phi(beta) - Phi(alpha))) + mean``. alpha and beta
    are the bounds in standard deviations, and u is (word + 1/2) / 2**32 of a 32-bit word, or
    (word + 1/2) / 2**64 of a 64-bit word for float64 arrays. No value is outside [a, b], in any
    type. Far tails and narrow intervals are as exact as the rest.

    Parameters
    ----------
    mean, std : float
        The mean and the standard deviation before truncation.
    a, b : float
        The bounds; one of them may be infinite, or both.

    Raises
    ------
    TypeError
        If the array is complex.
    ValueError
        If `std` is negative, a > b, or no number of the array's type lies in [a, b].

    Examples
    --------
    >>> values = ni.TruncNormal(a=10.0, b=11.0)(1000, seed=0)
    >>> bool(values.min() >= 10 and values.max() <= 11)
    True
    """

    mean: float = 0.0
    std: float = 1.0
    a: float = -2.0
    b: float = 2.0

    def __post_init__(self) -> None:
        mean = set_real(self, "mean")
        set_scale(self, "std")
        a, b = set_real(self, "a"), set_real(self, "b")
        if not (math.isfinite(mean) and math.isfinite(self.std)):
            raise RangeError(
                f"mean, std: {mean} and {self.std} were given; finite ones are accepted"
            )
        if not (a <= b and a < math.inf and b > -math.inf):
            raise RangeError(f"a, b: {a} and {b} were given; bounds with a <= b are accepted")

    def transform(self, dtype: DType) -> tuple[Transform, tuple[float, ...]]:
        if dtype.complex:
            raise TypeError(
                f"dtype: a normal truncated to an interval is real, not {dtype.name}; VarianceScaling "
                'with distribution="truncated_normal" truncates complex ones to a disk'
            )
        mean, std = self.mean, self.std
        reach = math.inf if dtype.infinite else dtype.max
        least = -reach if self.a == -math.inf else dtype.ceil(self.a)
        most = reach if self.b == math.inf else dtype.floor(self.b)
        if least > most or least == math.inf or most == -math.inf:
            raise RangeError(f"a, b: no {dtype.name} lies between {self.a} and {self.b}")
        with localcontext(normal_tail.CONTEXT):
            if std == 0 or self.a == self.b:
                return _point(mean, least, most)
            low, high = ((Decimal(x) - Decimal(mean)) / Decimal(std) for x in (self.a, self.b))
            outer = (mean, std, least, most)
            bits = 64 if dtype.real == "float64" else 32
            if low >= FAR or high <= -FAR:
                nearer, farther = (low, high) if low > 0 else (-high, -low)
                if nearer > FARTHEST:
                    return _point(self.a if low > 0 else self.b, least, most)
                inner = _far(nearer, farther, 1.0 if low > 0 else -1.0)
                return FAR_TRUNCATED_NORMAL, FAR_TRUNCATED_NORMAL.Parameters(*outer, *inner)
            narrow = bits == 32 and low <= NEAR and high >= -NEAR and high - low >= THIN
            narrow = narrow and max(abs(mean), std) <= DTYPES["float32"].max
            inner = _central(low, high, 32 if narrow else 64)
            chosen = TRUNCATED_NORMAL if narrow or bits == 64 else WIDE_TRUNCATED_NORMAL
            return chosen, chosen.Parameters(*outer, *inner)

    def divided(self, divisor: float) -> Distribution:
        a, b = (
            quotient(name, bound - self.mean, divisor) + self.mean
            for name, bound in (("a", self.a), ("b", self.b))
        )
        return replace(self, std=quotient("std", self.std, divisor), a=a, b=b)


@dataclass(frozen=True)
class TruncatedNormal(Initializer):
    """Normal, truncated to bounds in standard deviations, as in JAX and Keras.

    This is ``jax.nn.initializers.truncated_normal(stddev, lower=lower, upper=upper)`` and Keras'
    ``TruncatedNormal(mean, stddev)``. The values' standard deviation is less than `std`: 0.88 std
    for bounds of -2 and 2. With `corrected` it is `std`, as `VarianceScaling` makes it.

    Parameters
    ----------
    mean, std : float
        The mean and the standard deviation before truncation.
    lower, upper : float
        Values lie in [mean + lower * std, mean + upper * std].
    corrected : bool
        Whether `std` is the standard deviation after truncation. The one before it, in which the
        bounds are counted, is then larger.

    Raises
    ------
    TypeError
        If the array is complex, or `corrected` is no bool.
    ValueError
        If `std` is negative or lower > upper, or they are too close to be corrected for.

    Examples
    --------
    >>> values = ni.TruncatedNormal(std=0.5)((1000, 1000), seed=0)
    >>> bool(abs(values).max() <= 1), round(float(values.std()), 2)
    (True, 0.44)
    """

    mean: float = 0.0
    std: float = 1.0
    lower: float = -2.0
    upper: float = 2.0
    corrected: bool = False

    def __post_init__(self) -> None:
        set_real(self, "mean")
        set_scale(self, "std")
        if not isinstance(self.corrected, bool):
            raise TypeError(
                f"corrected: {show(self.corrected)} was given; True or False is accepted"
            )
        lower, upper = set_real(self, "lower"), set_real(self, "upper")
        if not lower <= upper:
            raise RangeError(
                f"lower, upper: {lower} and {upper} were given; lower <= upper is accepted"
            )
        self._absolute()

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        return Sampled(self._absolute())

    def _absolute(self) -> TruncNormal:
        """Return the same distribution with absolute bounds."""
        mean, std = self.mean, self.std
        if not std:
            return TruncNormal(mean, std, mean, mean)
        if self.corrected:
            std = quotient("std", std, truncated_std(self.lower, self.upper))
        a, b = mean + self.lower * std, mean + self.upper * std
        for name, bound, given in (("lower", a, self.lower), ("upper", b, self.upper)):
            if math.isinf(bound) and all(map(math.isfinite, (mean, std, given))):
                raise RangeError(
                    f"{name}: {given} standard deviations of {std} are beyond the largest float64"
                )
        return TruncNormal(mean, std, a, b)


@functools.lru_cache(256)
def truncated_std(lower: float, upper: float) -> float:
    """The standard deviation of a standard normal between two bounds.

    Its variance is 1 + (l phi(l) - u phi(u)) / Z - ((phi(l) - phi(u)) / Z)**2, with Z the mass.
    """
    with localcontext(normal_tail.CONTEXT):
        bounds = Decimal(lower), Decimal(upper)
        densities = [_density(bound) for bound in bounds]
        moments = [b * d if d else d for b, d in zip(bounds, densities, strict=True)]
        tails = [normal_tail.upper_tail(b) for b in bounds]
        mass = tails[0] - tails[1]
        if lower < 0 < upper:
            mass = 1 - normal_tail.upper_tail(-bounds[0]) - tails[1]
        if mass <= 0:
            variance = mass
        else:
            mean = (densities[0] - densities[1]) / mass
            variance = 1 + (moments[0] - moments[1]) / mass - mean * mean
    # 1 - Phi is known to 30 digits, and two differences have cancelled.
    if not variance > 1e-10:
        raise RangeError(
            f"lower, upper: {lower} and {upper} were given; bounds that are farther apart, and not "
            "far in a tail, are accepted where corrected"
        )
    return float(variance.sqrt())


def _density(x: Decimal) -> Decimal:
    """The density of the standard normal; 0 at an infinity."""
    return Decimal(0) if abs(x) > 1000 else (-x * x / 2).exp() / normal_tail.ROOT_2_PI


def _point(value: float, least: float, most: float) -> tuple[Transform, tuple[float, ...]]:
    value = min(max(value, least), most)
    return CONSTANT, CONSTANT.Parameters(value, value)


def _central(low: Decimal, high: Decimal, bits: int) -> tuple[float, ...]:
    """Return the fields of `numinit.stream.truncated_normal.Parameters` from `step` on."""
    below, above = normal_tail.upper_tail(-low), normal_tail.upper_tail(high)
    # A difference of the two tails that are small, so that no digits cancel.
    share = (
        1 - below - above
        if low < 0 < high
        else (
            normal_tail.upper_tail(low) - above
            if low >= 0
            else normal_tail.upper_tail(-high) - below
        )
    )
    step = 2 * share / 2**bits
    half = step / 2
    return tuple(map(float, (step, 2 * below + half, 2 * above + half, below - above + half)))


def _far(near: Decimal, far: Decimal, sign: float) -> tuple[float, ...]:
    """Return the fields of `numinit.stream.truncated_normal.FarParameters` from `step` on."""
    squares = near * near
    ratio = near * normal_tail.mills(near)
    rest = Decimal(0)
    if far.is_finite() and far < 2 * FARTHEST:
        rest = ((squares - far * far) / 2).exp() * normal_tail.mills(far) / normal_tail.mills(near)
    step = (1 - rest) / 2**64
    return (
        *map(float, (step, rest + step / 2)),
        sign,
        *map(float, (squares, 1 / squares, 2 * ratio.ln())),
    )
