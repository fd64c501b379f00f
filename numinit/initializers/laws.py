"""Laws: the distributions whose parameters are given, not derived from a shape."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from numinit.dtypes import DType, as_dtype
from numinit.initializers.base import Law


def real(name: str, value: Any) -> float:
    """`value` as a float; a TypeError names the field."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: {value!r} was given; a real number is accepted") from None


@dataclass(frozen=True)
class Constant(Law):
    """Every element is `value`, rounded to the array's type."""

    value: float = 0.0

    name: ClassVar[str] = "constant"
    random: ClassVar[bool] = False

    def __post_init__(self) -> None:
        real("value", self.value)

    def parameters(self, dtype: DType) -> tuple[float, float, float, float]:
        return float(self.value), 0.0, 0.0, 0.0


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
    53 bits), then moved to the nearest value of the array's type within [low, high).

    Raises
    ------
    ValueError
        If the bounds are not finite or low > high. With low == high every element is `low`.
    """

    low: float = 0.0
    high: float = 1.0

    name: ClassVar[str] = "uniform"

    def __post_init__(self) -> None:
        low, high = real("low", self.low), real("high", self.high)
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise ValueError(
                f"low, high: {low} and {high} were given; finite low <= high is accepted"
            )

    def parameters(self, dtype: DType) -> tuple[float, float, float, float]:
        low, high = float(self.low), float(self.high)
        wide = dtype.name == "float64"
        arithmetic = _FLOAT64 if wide else _FLOAT32
        if max(abs(low), abs(high), high - low) > arithmetic.max:
            raise ValueError(
                f"low, high: [{low}, {high}) is too wide for {dtype.name}; a width and bounds up "
                f"to {arithmetic.max:.3g} are accepted"
            )
        least, most = -dtype.floor(-low), dtype.below(high)
        if least > most:  # no value of the type lies in the interval
            least = most = dtype.floor(low)
        return (high - low) * 2.0 ** (-53 if wide else -24), low, least, most


_FLOAT32, _FLOAT64 = as_dtype("float32"), as_dtype("float64")


@dataclass(frozen=True)
class Normal(Law):
    """Normal with the given mean and standard deviation, by the Box-Muller transform.

    Raises
    ------
    ValueError
        If std is negative.
    """

    mean: float = 0.0
    std: float = 1.0

    name: ClassVar[str] = "normal"

    def __post_init__(self) -> None:
        real("mean", self.mean)
        if not real("std", self.std) >= 0:
            raise ValueError(f"std: {self.std!r} was given; a number >= 0 is accepted")

    def parameters(self, dtype: DType) -> tuple[float, float, float, float]:
        return float(self.mean), float(self.std), 0.0, 0.0
