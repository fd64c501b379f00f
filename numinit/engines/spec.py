"""What is wanted of a weight: the three kinds of plan, as every engine takes them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np

from numinit.engines.zeros import Zeros
from numinit.stream.dtypes import DType, quotient
from numinit.stream.transform import Transform

Index = tuple[np.ndarray, ...]
#: The indices on one axis, for those of another.
Place = Callable[[np.ndarray], np.ndarray]


class Spec(NamedTuple):
    """What a kernel is made for and reads."""

    transform: Transform
    parameters: tuple[float, ...]
    """An instance of the transform's `Parameters`."""
    zeros: Zeros | None = None


class Distribution(Protocol):
    """A distribution whose parameters are given."""

    def transform(self, dtype: DType) -> tuple[Transform, tuple[float, ...]]:
        """The transform for arrays of a type, and an instance of its `Parameters`.

        Raises
        ------
        TypeError, ValueError
            If the type cannot hold such values.
        """

    def divided(self, divisor: float) -> "Distribution":
        """The same distribution with its standard deviation divided, and its mean kept.

        Raises
        ------
        ValueError
            If it has no spread.
        """


@dataclass(frozen=True)
class Sampled:
    """A weight that is drawn: any element alone, on any engine."""

    distribution: Distribution
    zeros: Zeros | None = None
    """Elements that are cleared; their places belong to one shape."""

    def divided(self, divisor: float) -> "Sampled":
        """The same with the standard deviation divided."""
        return replace(self, distribution=self.distribution.divided(divisor))


class Selection(NamedTuple):
    """Where a weight is not zero: at one place for each index of an axis."""

    axis: int
    value: float
    places: dict[int, Place]
    """Of other axes. On the rest, every index is selected."""


@dataclass(frozen=True, eq=False)
class ByIndex:
    """A weight whose values follow from the indices: nothing is drawn, and the host makes it."""

    name: str
    """Of the initializer, for messages."""
    values: Callable[[Index], np.ndarray]
    """The exact or nearest float64 or complex128 values at some indices: for each axis of the whole
    weight an int64 array along it. They broadcast together, and the result with them. Only those of
    axis 0 may be other than consecutive."""
    largest: float = 1.0
    """A bound of the finite values' magnitudes."""
    complex: bool = False
    """Whether the values are complex."""
    selection: Selection | None = None
    """Where the values are not zero, if that is a few places."""

    def divided(self, divisor: float) -> "ByIndex":
        """Refused: there is no spread."""
        raise ValueError("init: values that follow from indices have no spread to scale")


@dataclass(frozen=True, eq=False)
class Whole:
    """A weight that is made at once, because every element depends on others."""

    name: str
    """Of the initializer, for messages."""
    make: Callable[[str, int, int, np.ndarray | None, float], np.ndarray]
    """Called with "float32", "float64", "complex64" or "complex128", the key's seed and stream, a place
    of the whole weight's shape or None, and the gain. Returns the values in that type, in any memory
    order; they may be made in the place, which is then what is returned."""
    gain: float = 1.0
    """All values' factor."""
    errors: tuple[float, float] = (0.0, 0.0)
    """How far a value, in float32 and in float64, may be from another machine's, with a gain of 1."""
    varies: Callable[[int, int], np.ndarray] | None = None
    """Which elements may be that far, of a run in C order: called with its first index and its size.
    All of them if left out."""
    compile: Callable[[str], object] | None = None
    """Compiles what `make` needs for a type, so that a failure comes before memory or a file is made."""

    def divided(self, divisor: float) -> "Whole":
        """The same with the gain divided."""
        return replace(self, gain=quotient("gain", self.gain, divisor))

    def tolerance(self, dtype: DType) -> float:
        """How far a value, before it is rounded to a type, may be from another machine's."""
        return abs(self.gain) * self.errors[dtype.wide]


#: What an initializer answers.
Plan = Sampled | ByIndex | Whole
