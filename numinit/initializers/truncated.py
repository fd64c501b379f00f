"""Normals truncated to an interval: bounds as torch takes them, or in standard deviations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext

from numinit import tails
from numinit.dtypes import DTYPES, DType
from numinit.engines.cpu import Formula
from numinit.initializers.base import Initializer, Law
from numinit.initializers.laws import RangeError, divided, set_real, set_scale

FAR = 6  # standard deviations: beyond, `numinit.transforms.truncated` goes from the bound
FARTHEST = 10**9  # beyond, every value is the bound itself
NEAR = Decimal("2.25")  # an interval that begins no farther out suits float32
THIN = Decimal("0.25")  # an interval of at least this width does, too


@dataclass(frozen=True)
class TruncNormal(Law):
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

    def formula(self, dtype: DType) -> Formula:
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
        with localcontext(tails.CONTEXT):
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
                return Formula("truncated far", (*outer, *inner))
            narrow = bits == 32 and low <= NEAR and high >= -NEAR and high - low >= THIN
            narrow = narrow and max(abs(mean), std) <= DTYPES["float32"].max
            inner = _central(low, high, 32 if narrow else 64)
            return Formula(
                "truncated" if narrow or bits == 64 else "truncated wide", (*outer, *inner)
            )

    def narrowed(self, divisor: float) -> Law:
        a, b = (
            divided(name, bound - self.mean, divisor) + self.mean
            for name, bound in (("a", self.a), ("b", self.b))
        )
        return replace(self, std=divided("std", self.std, divisor), a=a, b=b)


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
        self.law(())

    def law(self, shape: Sequence[int]) -> Law:
        mean, std = self.mean, self.std
        if not std:
            return TruncNormal(mean, std, mean, mean)
        a, b = mean + self.lower * std, mean + self.upper * std
        for name, bound, given in (("lower", a, self.lower), ("upper", b, self.upper)):
            if math.isinf(bound) and all(map(math.isfinite, (mean, std, given))):
                raise RangeError(
                    f"{name}: {given} standard deviations of {std} are beyond the largest float64"
                )
        return TruncNormal(mean, std, a, b)


def _point(value: float, least: float, most: float) -> Formula:
    value = min(max(value, least), most)
    return Formula("constant", (value, value))


def _central(low: Decimal, high: Decimal, bits: int) -> tuple[float, ...]:
    """Parameters of `truncated_float32` and `truncated_float64` from p[4] on."""
    below, above = tails.upper_tail(-low), tails.upper_tail(high)
    # A difference of the two tails that are small: nothing cancels.
    share = (
        1 - below - above
        if low < 0 < high
        else (tails.upper_tail(low) - above if low >= 0 else tails.upper_tail(-high) - below)
    )
    step = 2 * share / 2**bits
    half = step / 2
    return tuple(map(float, (step, 2 * below + half, 2 * above + half, below - above + half)))


def _far(near: Decimal, far: Decimal, sign: float) -> tuple[float, ...]:
    """Parameters of `far_float64` from p[4] on."""
    squares = near * near
    ratio = near * tails.mills(near)
    rest = Decimal(0)
    if far.is_finite() and far < 2 * FARTHEST:
        rest = ((squares - far * far) / 2).exp() * tails.mills(far) / tails.mills(near)
    step = (1 - rest) / 2**64
    return (
        *map(float, (step, rest + step / 2)),
        sign,
        *map(float, (squares, 1 / squares, 2 * ratio.ln())),
    )
