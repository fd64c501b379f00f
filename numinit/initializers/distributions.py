"""Distributions with known parameters: constant, uniform, log-uniform, normal."""

import math
import numbers
from dataclasses import dataclass, field, replace
from decimal import Decimal, localcontext
from typing import Any, ClassVar

import numpy as np

from numinit.initializers.base import Distribution
from numinit.show import show
from numinit.stream.constant import CONSTANT
from numinit.stream.dtypes import DType, RangeError, as_dtype, quotient
from numinit.stream.log_uniform import INVERSE_SOFTPLUS, LOG_UNIFORM
from numinit.stream.normal import NORMAL
from numinit.stream.normal_tail import CONTEXT
from numinit.stream.transform import Transform
from numinit.stream.uniform import UNIFORM


def real(name: str, value: Any) -> float:
    """Return `value` as a float; an error names the parameter."""
    # float() would parse a string, and drop the imaginary part of a complex number of NumPy's.
    if not hasattr(value, "__float__") or isinstance(value, np.complexfloating):
        raise TypeError(f"{name}: {show(value)} was given; a real number is accepted")
    try:
        return float(value)
    except OverflowError:
        raise RangeError(f"{name}: the number is beyond the largest float64") from None
    except (TypeError, ValueError, RuntimeError):  # the last one by torch
        raise TypeError(f"{name}: {show(value)} was given; a real number is accepted") from None


def is_complex(value: Any) -> bool:
    """Whether a value is a number that is not real."""
    return isinstance(value, numbers.Complex) and not isinstance(value, numbers.Real)


def set_real(initializer: Any, name: str) -> float:
    """Make a field of a frozen dataclass a float, whatever kind of number was given.

    -0.0 becomes 0.0: the two are equal, and equal initializers make equal values.
    """
    number = real(name, getattr(initializer, name)) + 0.0
    object.__setattr__(initializer, name, number)
    return number


def set_scale(initializer: Any, name: str) -> None:
    """Do the same for a field that may not be negative."""
    number = set_real(initializer, name)
    if not number >= 0:
        raise RangeError(f"{name}: {show(number)} was given; a number >= 0 is accepted")


@dataclass(frozen=True)
class Constant(Distribution):
    """Every element is `value`, rounded to the array's type.

    Parameters
    ----------
    value : float or complex
        A complex number needs a complex array.

    Raises
    ------
    TypeError
        If `value` is no number, or is complex and the array is real.
    ValueError
        If a finite value is beyond the largest number of the array's type.

    Examples
    --------
    >>> ni.Constant(0.1)(2, "float64")
    array([0.1, 0.1])
    """

    has_spread: ClassVar[bool] = False

    value: complex = 0.0

    def __post_init__(self) -> None:
        value = self.value
        value = complex(value) if is_complex(value) else real("value", value)
        object.__setattr__(self, "value", value)

    def transform(self, dtype: DType) -> tuple[Transform, tuple[float, ...]]:
        value = self.value
        if isinstance(value, complex) and not dtype.complex:
            raise TypeError(f"value: {value} was given for {dtype.name}; a real number is accepted")
        for part in (value.real, value.imag):
            dtype.refuse_beyond("value", part)
        second = value.imag if dtype.complex else value.real
        return CONSTANT, CONSTANT.Parameters(value.real, second)


@dataclass(frozen=True)
class Zeros(Constant):
    """Every element is 0.

    Examples
    --------
    >>> ni.Zeros()((2, 2)).tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    """

    value: float = field(default=0.0, init=False, repr=False)


@dataclass(frozen=True)
class Ones(Constant):
    """Every element is 1.

    Examples
    --------
    >>> ni.Ones()((2, 2)).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """

    value: float = field(default=1.0, init=False, repr=False)


@dataclass(frozen=True)
class Uniform(Distribution):
    """Uniform on [low, high): no value is `high`, in any type.

    Element i is ``u * (high - low) + low`` with one rounding. u is (word >> 8) * 2**-24 of a 32-bit
    word, and ``high - low`` and `low` are rounded to float32. In float64 arrays u is
    (word >> 11) * 2**-53 of a 64-bit word, and the two are not rounded. The value is then moved to
    the nearest number of the array's type within [low, high). Both parts of a complex element are
    such values.

    Parameters
    ----------
    low, high : float
        The bounds. If they are equal, every element is `low`.

    Raises
    ------
    ValueError
        If the bounds are not finite, if low > high, or if the array's type has no such numbers.

    Examples
    --------
    >>> values = ni.Uniform(2.0, 3.0)(1000, seed=0)
    >>> bool((values >= 2).all() and (values < 3).all())
    True
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        low, high = set_real(self, "low"), set_real(self, "high")
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise RangeError(
                f"low, high: {low} and {high} were given; finite numbers, the second not below the first, are accepted"
            )

    def transform(self, dtype: DType) -> tuple[Transform, tuple[float, ...]]:
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
        if most == 0 and high - low < 2.0**-100:  # only there may a rounded value be -0.0
            most = -0.0  # so that it is the smaller one on every machine
        return UNIFORM, UNIFORM.Parameters(high - low, low, least, most)

    def divided(self, divisor: float) -> Distribution:
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2 / divisor
        return replace(self, low=middle - half, high=middle + half)


@dataclass(frozen=True)
class LogUniform(Distribution):
    """Log-uniform on [low, high]: the logarithm is uniform. Or the inverse softplus of that.

    Element i is ``exp(u * (ln high - ln low) + ln low)``, raised to `floor` if it is less, with u as
    for `Uniform`. With `inverse_softplus` it is ln(exp(x) - 1) of that x, so that softplus of the
    element is x: Mamba's bias of its time steps is
    ``LogUniform(0.001, 0.1, inverse_softplus=True, floor=1e-4)`` (state-spaces/mamba,
    mamba_simple.py). Both are made in float64 and rounded once.

    Parameters
    ----------
    low, high : float
        The bounds, from 1e-290 to 1e290.
    inverse_softplus : bool
    floor : float
        At most `high`.

    Raises
    ------
    TypeError
        If `inverse_softplus` is no bool, or the array is complex.
    ValueError
        If the bounds or the floor are others, or the array's type has no such numbers.

    Examples
    --------
    >>> values = ni.LogUniform(0.001, 0.1)(10_000, seed=0)
    >>> bool(values.min() >= 0.001), bool(values.max() <= 0.1), round(float(np.median(values)), 3)
    (True, True, 0.01)
    """

    has_spread: ClassVar[bool] = False

    low: float
    high: float
    inverse_softplus: bool = False
    floor: float = 0.0

    def __post_init__(self) -> None:
        low, high, floor = (set_real(self, name) for name in ("low", "high", "floor"))
        if not 1e-290 <= low <= high <= 1e290:
            raise RangeError(
                f"low, high: {low} and {high} were given; numbers from 1e-290 to 1e290, the second "
                "not below the first, are accepted"
            )
        if not 0 <= floor <= high:
            raise RangeError(f"floor: {floor} was given; 0 to {high} (high) is accepted")
        if not isinstance(self.inverse_softplus, bool):
            raise TypeError(
                f"inverse_softplus: {show(self.inverse_softplus)} was given; True or False is accepted"
            )

    def transform(self, dtype: DType) -> tuple[Transform, tuple[float, ...]]:
        if dtype.complex:
            raise TypeError(f"dtype: log-uniform values are real, not {dtype.name}")
        bottom, top = max(self.low, self.floor), self.high
        with localcontext(CONTEXT):
            logs = [Decimal(x).ln() for x in (self.low, self.high)]
            width, low = float(logs[1] - logs[0]), float(logs[0])
            ends = [Decimal(x) for x in (bottom, top)]
            if self.inverse_softplus:  # ln(exp x - 1)
                ends = [x + (1 - (-x).exp()).ln() if x < 1000 else x for x in ends]
            least, most = map(float, ends)
        dtype.refuse_beyond("high", self.high, max(abs(least), abs(most)))
        least, most = dtype.ceil(least), dtype.floor(most)
        if least > most:  # no value of the type lies in the interval
            least = most = dtype.floor(least)
        parameters = LOG_UNIFORM.Parameters(width, low, bottom, top, least, most)
        return INVERSE_SOFTPLUS if self.inverse_softplus else LOG_UNIFORM, parameters


@dataclass(frozen=True)
class Normal(Distribution):
    """Normal with the given mean and standard deviation, by the Box-Muller transform.

    The two parts of a complex element are independent, and each has half the variance.

    Parameters
    ----------
    mean, std : float
        The mean, and the standard deviation, at least 0.

    Raises
    ------
    ValueError
        If `std` is negative, or a finite `mean` or `std` is beyond the largest number of the
        array's type.

    Examples
    --------
    >>> values = ni.Normal(mean=3.0, std=0.5)((1000, 1000), seed=0)
    >>> round(float(values.mean()), 2), round(float(values.std()), 2)
    (3.0, 0.5)
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        set_real(self, "mean")
        set_scale(self, "std")

    def transform(self, dtype: DType) -> tuple[Transform, tuple[float, ...]]:
        dtype.refuse_beyond("mean", self.mean)
        dtype.refuse_beyond("std", self.std)
        if dtype.complex:
            return NORMAL, NORMAL.Parameters(self.mean, self.std / math.sqrt(2.0), 0.0)
        return NORMAL, NORMAL.Parameters(self.mean, self.std, self.mean)

    def divided(self, divisor: float) -> Distribution:
        return replace(self, std=quotient("std", self.std, divisor))
