"""Normals truncated to an interval: bounds as torch takes them, or in standard deviations."""

import math
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext

from numinit.engines.driver import RangeError
from numinit.engines.spec import Plan, Sampled
from numinit.initializers.base import Distribution, Initializer
from numinit.initializers.distributions import set_real, set_scale
from numinit.stream import normal_tail
from numinit.stream.constant import CONSTANT
from numinit.stream.dtypes import DType
from numinit.stream.transform import Transform
from numinit.stream.truncated_normal import (
    FAR,
    FAR_TRUNCATED_NORMAL,
    TRUNCATED_NORMAL,
    WIDE_TRUNCATED_NORMAL,
)

FARTHEST = 10**9  # beyond, every value is the bound itself
NEAR = Decimal("2.25")  # an interval that begins no farther out suits float32
THIN = Decimal("0.25")  # an interval of at least this width does, too


@dataclass(frozen=True)
class TruncNormal(Distribution):
    """Normal, truncated to [a, b]: absolute bounds, as torch's ``trunc_normal_`` takes them.

    Element i is ``std * Phi^-1(Phi(alpha) + u (Phi(beta) - Phi(alpha))) + mean`` with alpha and
    beta the bounds in standard deviations and u = (word + 1/2) / 2**32 (float64: 2**64), never
    outside [a, b] in any type. Far tails and thin slices are as exact as the rest.

    Raises
    ------
    ValueError
        If std is negative, a > b, or no number of the array's type lies in [a, b].
    TypeError
        For a complex array.
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
        least = self.a if math.isinf(self.a) else -dtype.floor(-self.a)
        most = self.b if math.isinf(self.b) else dtype.floor(self.b)
        if least > most:
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
            inner = _central(low, high, 32 if narrow else 64)
            chosen = TRUNCATED_NORMAL if narrow or bits == 64 else WIDE_TRUNCATED_NORMAL
            return chosen, chosen.Parameters(*outer, *inner)

    def divided(self, divisor: float) -> Distribution:
        a, b = ((bound - self.mean) / divisor + self.mean for bound in (self.a, self.b))
        return replace(self, std=self.std / divisor, a=a, b=b)


@dataclass(frozen=True)
class TruncatedNormal(Initializer):
    """Normal, truncated to bounds in standard deviations, as in JAX and Keras.

    ``jax.nn.initializers.truncated_normal(stddev, lower=lower, upper=upper)`` and Keras'
    ``TruncatedNormal(mean, stddev)``: `std` is that of the whole normal, of which -2 to 2 standard
    deviations keep 0.88. (`VarianceScaling` makes up for that.)

    Parameters
    ----------
    mean, std : float
    lower, upper : float
        Values lie in [mean + lower * std, mean + upper * std].
    """

    mean: float = 0.0
    std: float = 1.0
    lower: float = -2.0
    upper: float = 2.0

    def __post_init__(self) -> None:
        set_real(self, "mean")
        set_scale(self, "std")
        lower, upper = set_real(self, "lower"), set_real(self, "upper")
        if not lower <= upper:
            raise RangeError(
                f"lower, upper: {lower} and {upper} were given; lower <= upper is accepted"
            )
        self._absolute()

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        return Sampled(self._absolute())

    def _absolute(self) -> TruncNormal:
        """The same with absolute bounds."""
        mean, std = self.mean, self.std
        if not std:
            return TruncNormal(mean, std, mean, mean)
        return TruncNormal(mean, std, mean + self.lower * std, mean + self.upper * std)


def _point(value: float, least: float, most: float) -> tuple[Transform, tuple[float, ...]]:
    value = min(max(value, least), most)
    return CONSTANT, CONSTANT.Parameters(value, value)


def _central(low: Decimal, high: Decimal, bits: int) -> tuple[float, ...]:
    """Those of `numinit.stream.truncated_normal.Parameters` from `step` on."""
    below, above = normal_tail.upper_tail(-low), normal_tail.upper_tail(high)
    # A difference of the two tails that are small: nothing cancels.
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
    """Those of `numinit.stream.truncated_normal.FarParameters` from `step` on."""
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
