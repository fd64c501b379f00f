"""The kinds of plan, which an initializer returns and an engine carries out."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np

from numinit.engines.zeros import Zeros
from numinit.stream.dtypes import DType, quotient
from numinit.stream.transform import Transform

Index = tuple[np.ndarray, ...]
#: A function from indices on one axis to indices on another.
Place = Callable[[np.ndarray], np.ndarray]


class Spec(NamedTuple):
    """The input of a kernel: what it is compiled for, and the numbers that it reads."""

    transform: Transform
    parameters: tuple[float, ...]
    """An instance of the transform's `Parameters`."""
    zeros: Zeros | None = None


class Distribution(Protocol):
    """A distribution with known parameters, such as `numinit.Normal`.

    Examples
    --------
    >>> isinstance(ni.Normal(), ni.initializers.Distribution)
    True
    """

    def transform(self, dtype: DType) -> tuple[Transform, tuple[float, ...]]:
        """Return the transform for a type, and its parameters.

        Parameters
        ----------
        dtype : DType
            The type of the array; a value of `numinit.stream.dtypes.DTYPES`.

        Returns
        -------
        transform : Transform
        parameters : tuple of float
            An instance of ``transform.Parameters``.

        Raises
        ------
        TypeError, ValueError
            If the type cannot hold such values.

        Examples
        --------
        >>> from numinit.stream.dtypes import DTYPES
        >>> transform, parameters = ni.Uniform(1.0, 3.0).transform(DTYPES["float32"])
        >>> transform.name, parameters.width, parameters.low
        ('uniform', 2.0, 1.0)
        """

    def divided(self, divisor: float) -> "Distribution":
        """Return the distribution with its standard deviation divided, and its mean kept.

        Parameters
        ----------
        divisor : float
            A number > 0.

        Returns
        -------
        Distribution

        Raises
        ------
        ValueError
            If the distribution has no spread.

        Examples
        --------
        >>> ni.Normal(mean=1.0, std=0.5).divided(2.0)
        Normal(mean=1.0, std=0.25)
        """


@dataclass(frozen=True)
class Sampled:
    """A plan that samples each element by itself. CPUs and GPUs carry it out.

    Parameters
    ----------
    distribution : Distribution
        The distribution of the elements.
    zeros : Zeros, optional
        The elements that are set to zero. Their places belong to one shape.

    Examples
    --------
    The standard deviation of this initializer follows from the shape:

    >>> from dataclasses import dataclass
    >>> from numinit.initializers import Sampled
    >>> @dataclass(frozen=True)
    ... class InverseRows(ni.Initializer):
    ...     def plan(self, shape, dtype):
    ...         return Sampled(ni.Normal(std=1 / shape[0]))
    >>> bool(abs(InverseRows()((1000, 1000), seed=0).std() * 1000 - 1) < 0.01)
    True
    """

    distribution: Distribution
    zeros: Zeros | None = None

    def divided(self, divisor: float) -> "Sampled":
        """Return the plan with the standard deviation divided by `divisor`."""
        return replace(self, distribution=self.distribution.divided(divisor))


class Selection(NamedTuple):
    """The elements that are not zero: one for each index of an axis, if other axes have places."""

    axis: int
    value: float
    places: dict[int, Place]
    """Functions of an index on `axis`, one for each of the other axes. On axes that are not
    named, every index is selected."""


@dataclass(frozen=True, eq=False)
class ByIndex:
    """A plan that computes each element from its index, on the CPU. Nothing is drawn.

    Parameters
    ----------
    name : str
        The initializer's name, for messages.
    values : callable
        A function from the indices on each axis, a tuple of int64 arrays that broadcast together,
        to the values there: float64 or complex128, exact or rounded once, broadcastable to the
        same shape. The indices on every axis but axis 0 are consecutive.
    largest : float
        A bound of the finite values' magnitudes.
    complex : bool
        Whether the values are complex.
    selection : Selection, optional
        The places of values that are not zero, if those are few.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from numinit.initializers import ByIndex
    >>> @dataclass(frozen=True)
    ... class Ramp(ni.Initializer):
    ...     def plan(self, shape, dtype):
    ...         return ByIndex("Ramp", lambda index: index[0] * 1.0, largest=shape[0])
    >>> Ramp()((4,))
    array([0., 1., 2., 3.], dtype=float32)
    """

    name: str
    values: Callable[[Index], np.ndarray]
    largest: float = 1.0
    complex: bool = False
    selection: Selection | None = None

    def divided(self, divisor: float) -> "ByIndex":
        """Raise a ValueError, because such values have no spread."""
        raise ValueError("init: values that follow from indices have no spread to scale")


@dataclass(frozen=True, eq=False)
class Whole:
    """A plan that makes the whole weight at once, because its elements depend on each other.

    Parameters
    ----------
    name : str
        The initializer's name, for messages.
    make : callable
        ``make(dtype, seed, stream, place, gain)`` returns the values, in any memory order. `dtype`
        is "float32", "float64", "complex64" or "complex128". `seed` and `stream` are the key's.
        `place` is None, or an array of the weight's shape that `make` may fill and return.
    gain : float
        A factor of all values.
    errors : tuple of float
        Bounds of the differences between machines of a value with gain 1, in float32 and float64.
    varies : callable, optional
        ``varies(first, count)`` returns a mask of the elements that differ between machines, for
        a run of elements in C order. If left out, all may differ.
    compile : callable, optional
        ``compile(dtype)`` compiles what `make` calls. It runs first, so that a failure comes
        before memory is allocated or a file is created.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from numinit.initializers import Whole
    >>> @dataclass(frozen=True)
    ... class Centred(ni.Initializer):
    ...     def plan(self, shape, dtype):
    ...         def make(dtype, seed, stream, place, gain):
    ...             values = ni.Normal()(shape, dtype, seed=ni.Key(seed, stream))
    ...             return gain * (values - values.mean())
    ...         return Whole("Centred", make)
    >>> bool(abs(Centred()((64, 64), seed=0).mean()) < 1e-7)
    True
    """

    name: str
    make: Callable[[str, int, int, np.ndarray | None, float], np.ndarray]
    gain: float = 1.0
    errors: tuple[float, float] = (0.0, 0.0)
    varies: Callable[[int, int], np.ndarray] | None = None
    compile: Callable[[str], object] | None = None

    def divided(self, divisor: float) -> "Whole":
        """Return the plan with the gain divided by `divisor`."""
        return replace(self, gain=quotient("gain", self.gain, divisor))

    def tolerance(self, dtype: DType) -> float:
        """Return the bound of differences between machines, before rounding to `dtype`."""
        return abs(self.gain) * self.errors[dtype.wide]


class Part(NamedTuple):
    """Some of a weight's indices along an axis, and the weight whose elements lie there."""

    start: int
    """The first index."""
    step: int
    """The distance of the indices."""
    size: int
    """How many indices there are."""
    plan: "Plan"
    """The other weight: a plan of another kind than `Joined`, or one itself."""
    shape: tuple[int, ...]
    """Of the other weight."""
    offset: int
    """Where along the axis the first index lies in the other weight."""
    key: Callable[[int, int], tuple[int, int]] | None
    """From the key's seed and stream to those of the other weight's key; None if it is the same."""


@dataclass(frozen=True, eq=False)
class Joined:
    """A plan that joins parts of other weights along an axis.

    Parameters
    ----------
    name : str
        The initializer's name, for messages.
    axis : int
        At least 0.
    parts : tuple of Part
        Every index of the axis lies in one of them. None is made as a whole; `Whole` is the plan
        of a weight that has such a part.
    """

    name: str
    axis: int
    parts: tuple[Part, ...]

    def divided(self, divisor: float) -> "Joined":
        """Return the plan with the standard deviation of each part divided by `divisor`."""
        return replace(self, parts=divided_parts(self.parts, divisor))


def divided_parts(parts: tuple[Part, ...], divisor: float) -> tuple[Part, ...]:
    """Divide the standard deviations of parts; zeros stay."""
    return tuple(
        part if _is_zero(part.plan) else part._replace(plan=part.plan.divided(divisor))
        for part in parts
    )


def _is_zero(plan: "Plan") -> bool:
    return isinstance(plan, Sampled) and getattr(plan.distribution, "value", None) == 0


#: The answer of `Initializer.plan`.
Plan = Sampled | ByIndex | Whole | Joined
