"""Laws: the distributions whose parameters are given, not derived from a shape."""

import math
import numbers
from dataclasses import dataclass, field, replace
from typing import Any

from numinit.dtypes import DType, as_dtype
from numinit.dtypes import RangeError as RangeError
from numinit.engines.cpu import Formula
from numinit.initializers.base import Law


def real(name: str, value: Any) -> float:
    """`value` as a float; an error names the parameter."""
    if not hasattr(value, "__float__"):  # a string, which float() would parse
        raise TypeError(f"{name}: {value!r} was given; a real number is accepted")
    try:
        return float(value)
    except OverflowError:
        raise RangeError(f"{name}: the number is beyond the largest float64") from None
    except (TypeError, ValueError):
        raise TypeError(f"{name}: {value!r} was given; a real number is accepted") from None


def set_real(initializer: Any, name: str) -> float:
    """Make a field of a frozen dataclass a float, whatever kind of number was given.

    -0.0 becomes 0.0: the two are equal, and equal initializers make equal values.
    """
    number = real(name, getattr(initializer, name)) + 0.0
    object.__setattr__(initializer, name, number)
    return number


def set_scale(initializer: Any, name: str) -> None:
    """The same for a field that may not be negative."""
    number = set_real(initializer, name)
    if not number >= 0:
        raise RangeError(f"{name}: {number!r} was given; a number >= 0 is accepted")


def divided(name: str, value: float, divisor: float) -> float:
    """A parameter divided, refused if only the quotient is infinite."""
    quotient = value / divisor
    if math.isinf(quotient) and math.isfinite(value):
        raise RangeError(f"{name}: {value!r} divided by {divisor!r} is beyond the largest float64")
    return quotient


@dataclass(frozen=True)
class Constant(Law):
    """Every element is `value`, rounded to the array's type.

    Raises
    ------
    ValueError
        If a finite value is beyond the largest of the array's type.
    """

    value: complex = 0.0

    def __post_init__(self) -> None:
        value: complex = self.value
        if isinstance(value, numbers.Complex) and not isinstance(value, numbers.Real):
            value = complex(value)
        else:
            value = real("value", value)
        object.__setattr__(self, "value", value)

    def formula(self, dtype: DType) -> Formula:
        value = self.value
        if isinstance(value, complex) and not dtype.complex:
            raise TypeError(f"value: {value} was given for {dtype.name}; a real number is accepted")
        for part in (value.real, value.imag):
            dtype.refuse_beyond("value", part)
        return Formula("constant", (value.real, value.imag if dtype.complex else value.real))


@dataclass(frozen=True)
class Zeros(Constant):
    """Every element is 0."""

    value: float = field(default=0.0, init=False, repr=False)


@dataclass(frozen=True)
class Ones(Constant):
    """Every element is 1."""

    value: float = field(default=1.0, init=False, repr=False)


@dataclass(frozen=True)
class Uniform(Law):
    """Uniform on [low, high): never `high`, in any type.

    Element i is ``u * (high - low) + low`` with one rounding, u = (word >> 8) * 2**-24 (float64:
    53 bits) and both constants rounded to float32, then moved to the nearest value of the array's
    type within [low, high). Both parts of a complex element are such values.

    Raises
    ------
    ValueError
        If the bounds are not finite, low > high, or the array's type has no such numbers. With low == high every element is `low`.
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        low, high = set_real(self, "low"), set_real(self, "high")
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise RangeError(
                f"low, high: {low} and {high} were given; finite low <= high is accepted"
            )

    def formula(self, dtype: DType) -> Formula:
        low, high = self.low, self.high
        widest = as_dtype(dtype.real).max
        if max(abs(low), abs(high)) > dtype.max or high - low > widest:
            raise RangeError(
                f"low, high: [{low}, {high}) is too wide for {dtype.name}; bounds up to "
                f"{dtype.max:.6g} and a width up to {widest:.6g} are accepted"
            )
        least, most = dtype.ceil(low), dtype.below(high)
        if least > most:  # no value of the type lies in the interval
            least = most = dtype.floor(low)
        return Formula("uniform", (high - low, low, least, most))

    def narrowed(self, divisor: float) -> Law:
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2 / divisor
        return replace(self, low=middle - half, high=middle + half)


@dataclass(frozen=True)
class Normal(Law):
    """Normal with the given mean and standard deviation, by the Box-Muller transform.

    The two parts of a complex element are independent, each with half the variance.

    Raises
    ------
    ValueError
        If std is negative, or a finite mean or std beyond the largest of the array's type.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        set_real(self, "mean")
        set_scale(self, "std")

    def formula(self, dtype: DType) -> Formula:
        dtype.refuse_beyond("mean", self.mean)
        dtype.refuse_beyond("std", self.std)
        if dtype.complex:
            return Formula("normal", (self.mean, self.std / math.sqrt(2.0), 0.0))
        return Formula("normal", (self.mean, self.std, self.mean))

    def narrowed(self, divisor: float) -> Law:
        return replace(self, std=divided("std", self.std, divisor))
