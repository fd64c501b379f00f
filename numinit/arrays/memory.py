"""Arrays as memory: what every framework's array is turned into before it is filled."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from numinit.stream.dtypes import DType

#: A strided array's memory, valid while the array lives: the address, or None for an array that
#: has a shape only; the element type; the shape; the strides in bytes; where it is: nothing for
#: the host's memory, the ordinal of a GPU and the handle of the stream to work on for a GPU's.
Memory = tuple[int | None, DType, tuple[int, ...], tuple[int, ...], tuple[()] | tuple[int, int]]

Function = Callable[[Any], Any]


def nothing(array: Any) -> None:
    """Do nothing: what a framework without such a need has."""


class Framework(NamedTuple):
    """What is asked of a framework: one of these in its file, as ``FRAMEWORK``."""

    kind: type
    """The type of its arrays."""
    memory: Callable[[Any], Memory]
    """The memory of an array that may be written."""
    values: Callable[[Any], np.ndarray]
    """An array's values, in a type of NumPy that holds them exactly; may share its memory."""
    written: Callable[[Any], None] = nothing
    """Called after the memory was written."""
    default_seed: Callable[[Any], int] | None = None
    """The next seed for an array when none is given; None for the process-wide generator's."""
    seed_from: Callable[[Any], int | None] = nothing
    """The next seed of one of its generators; None for other objects."""
    of_arrays: Callable[[Function], Function] | None = None
    """A function of its arrays as a function of NumPy's."""


def refuse_misaligned(
    address: int, dtype: DType, shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    """Refuse elements that a GPU cannot store: one such store ends the whole context.

    Raises
    ------
    ValueError
        Unless the address and the strides that count are multiples of an element's part.
    """
    unit = dtype.itemsize // (2 if dtype.complex else 1)
    steps = (stride for stride, size in zip(strides, shape, strict=True) if size > 1)
    if 0 not in shape and (address % unit or any(step % unit for step in steps)):
        raise ValueError(
            f"array: address {address:#x} and strides {strides} bytes were given; on a GPU, "
            f"multiples of {unit} are accepted for {dtype.name}"
        )


def refuse_own_items(array: Any, plain: Any) -> None:
    """Refuse a subclass whose elements are more than memory: masked arrays, units, ...

    Such a class has its own ``__setitem__``. Others (np.memmap, np.matrix, np.recarray) have not.

    Raises
    ------
    TypeError
    """
    kind: Any = type(array)
    if kind.__setitem__ is not plain.__setitem__:
        raise TypeError(
            f"array: a {kind.__name__} was given, which sets elements in its own way; a plain "
            "array, such as a masked array's data, is accepted"
        )
