"""Arrays as memory: the form in which engines take the array of any framework."""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from numinit.stream.dtypes import DType

#: The memory of a strided array, valid while the array lives: the address, None for an array that
#: has only a shape; the element type; the shape; the strides in bytes; and where it is: () in the
#: host's memory, else the ordinal of the GPU and the handle of the stream.
Memory = tuple[int | None, DType, tuple[int, ...], tuple[int, ...], tuple[()] | tuple[int, int]]

#: A window of an array that is spread over memories: an array that has the window's memory, and
#: where the window begins.
Part = tuple[Any, tuple[int, ...]]

Function = Callable[[Any], Any]


def nothing(array: Any) -> None:
    """Do nothing, for a framework that needs no such function."""


class Framework(NamedTuple):
    """The functions of a framework. Its module has one of these as ``FRAMEWORK``."""

    kind: type
    """The type of its arrays."""
    memory: Callable[[Any], Memory]
    """The memory of an array that may be written."""
    values: Callable[[Any], np.ndarray]
    """An array's values, in a type of NumPy that holds them exactly; may share its memory."""
    written: Callable[[Any], None] = nothing
    """Called after the memory was written."""
    default_seed: Callable[[Any], int] | None = None
    """The seed for an array if the caller gives none; None for the process-wide generator's."""
    seed_from: Callable[[Any], int | None] = nothing
    """The next seed of one of the framework's generators; returns None for other objects."""
    of_arrays: Callable[[Function], Function] | None = None
    """Turns a function of the framework's arrays into one of NumPy's."""
    parts: Callable[[Any], tuple[tuple[int, ...], Iterable[Part]]] | None = None
    """For arrays without one memory: the whole shape, and the windows that this process holds."""


def refuse_misaligned(
    address: int, dtype: DType, shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    """Refuse misaligned elements: if a GPU stores one, its whole context is lost.

    Raises
    ------
    ValueError
        If the address, or the stride of an axis longer than 1, is not a multiple of the size of an
        element, or of one part of a complex element.
    """
    unit = dtype.itemsize // dtype.parts
    if not math.gcd(address, *strides) % unit:
        return
    steps = (stride for stride, size in zip(strides, shape, strict=True) if size > 1)
    if 0 not in shape and (address % unit or any(step % unit for step in steps)):
        raise ValueError(
            f"array: address {address:#x} and strides {strides} bytes were given; on a GPU, "
            f"multiples of {unit} are accepted for {dtype.name}"
        )


def refuse_own_items(array: Any, plain: Any) -> None:
    """Refuse an array whose elements are more than memory, such as one with a mask or units.

    Its class has a ``__setitem__`` of its own, unlike np.memmap, np.matrix and np.recarray.

    Parameters
    ----------
    array : array
        Of the class `plain` or a subclass.
    plain : type
        The framework's own class.

    Raises
    ------
    TypeError
        If the class of the array has a ``__setitem__`` of its own.
    """
    kind: Any = type(array)
    if kind.__setitem__ is not plain.__setitem__:
        raise TypeError(
            f"array: a {kind.__name__} was given, which sets elements in its own way; a plain "
            "array, such as a masked array's data, is accepted"
        )
