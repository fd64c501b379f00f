"""Shapes, axes, windows and rows of a weight, checked."""

import math
import numbers
import operator
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np

from numinit.arrays.frameworks import values_of
from numinit.engines.layout import c_steps
from numinit.show import show

Axes = int | Sequence[int]


def as_shape(shape: Any, name: str = "shape") -> tuple[int, ...]:
    """Return a shape as a tuple of non-negative integers whose product is below 2**63.

    Raises
    ------
    TypeError, ValueError
        If it is no such shape. The message has `name`.
    """
    try:
        dims = shape if isinstance(shape, Iterable) else (shape,)
        if type(shape) is not tuple and isinstance(shape, bytes | bytearray | Set | Mapping):
            raise TypeError  # iterable, and no shape
        result = tuple(operator.index(d) for d in dims)
    except TypeError:
        raise TypeError(
            f"{name}: {show(shape)} was given; a sequence of integers is accepted"
        ) from None
    if any(d < 0 for d in result):
        raise ValueError(f"{name}: {show(shape)} has a negative number; 0 and more are accepted")
    if math.prod(d for d in result if d) >= 1 << 63:
        raise ValueError(f"{name}: {show(shape)} has 2**63 elements or more")
    return result


def as_axes(name: str, axes: Any) -> tuple[int, ...]:
    """Return axes as a tuple of integers; a TypeError names the argument `name`."""
    try:
        return tuple(map(operator.index, axes if isinstance(axes, Iterable) else (axes,)))
    except TypeError:
        raise TypeError(
            f"{name}: {show(axes)} was given; an integer or a sequence of them is accepted"
        ) from None


def check_count(name: str, count: Any) -> None:
    """Refuse a count that is no positive integer."""
    integral = isinstance(count, numbers.Integral)
    if not integral or count < 1:
        kind = ValueError if integral else TypeError
        raise kind(f"{name}: {show(count)} was given; an integer of at least 1 is accepted")


def parse_index(index: Any, whole: tuple[int, ...]) -> list[tuple[int, int | None]]:
    """Return the first index and the size on each axis; an integer drops its axis, size None."""
    index = index if isinstance(index, tuple) else (index,)
    ellipses = sum(i is Ellipsis for i in index)
    if ellipses > 1 or len(index) - ellipses > len(whole):
        raise IndexError(f"index: {show(index)} does not fit shape {whole}")
    at = next((n for n, i in enumerate(index) if i is Ellipsis), len(index))
    missing = len(whole) - (len(index) - ellipses)
    index = index[:at] + (slice(None),) * missing + index[at + 1 :]
    parsed: list[tuple[int, int | None]] = []
    for axis, (item, size) in enumerate(zip(index, whole, strict=True)):
        if isinstance(item, slice):
            try:
                low, high, stride = item.indices(size)
            except TypeError:
                raise IndexError(f"index: {show(item)} on axis {axis} is not of integers") from None
            if stride != 1:
                raise IndexError(
                    f"index: step {show(stride)} on axis {axis}; only step 1 is accepted"
                )
            parsed.append((low, max(0, high - low)))
            continue
        if isinstance(item, (bool, np.bool_)) or not hasattr(item, "__index__"):
            raise IndexError(
                f"index: {show(item)} on axis {axis}; integers, slices and ... are accepted"
            )
        low = operator.index(item)
        if not -size <= low < size:
            raise IndexError(f"index: {show(low)} is out of range for axis {axis} of shape {whole}")
        parsed.append((low % size, None))
    return parsed


def as_rows(rows: Any, whole: tuple[int, ...]) -> np.ndarray:
    """Return row numbers as an array of integers, checked against a weight's shape."""
    if not whole:
        raise ValueError("shape: () has no rows; at least one axis is accepted")
    ids = values_of("ids", rows)
    if ids.dtype.kind not in "iu" and ids.size:
        raise TypeError(f"ids: {ids.dtype} values were given; integers are accepted")
    if ids.size:
        check_rows(ids, whole)
    return ids


def check_rows(ids: np.ndarray, whole: tuple[int, ...]) -> int:
    """Refuse row numbers that a weight does not have; return the least. There is at least one."""
    least, most = ids.min(), ids.max()
    for bad in least, most:
        if not -whole[0] <= bad < whole[0]:
            raise IndexError(f"ids: {bad} is out of range for {whole[0]} rows")
    return int(least)


def window_start(part: tuple[int, ...], whole: tuple[int, ...], offset: Any) -> int:
    """Return the index in the whole weight of the first element of a window inside it."""
    begin = (0,) * len(whole) if offset is None else as_shape(offset, "offset")
    if not len(part) == len(whole) == len(begin):
        raise ValueError(
            f"shape, offset: {whole} and {begin} were given; as many axes as the array's "
            f"shape {part} has are accepted"
        )
    if any(o + p > w for o, p, w in zip(begin, part, whole, strict=True)):
        raise ValueError(
            f"offset: a window of shape {part} at {begin} reaches beyond the whole shape {whole}"
        )
    return sum(map(operator.mul, begin, c_steps(whole)))


def run_start(count: int, whole: tuple[int, ...], start: Any) -> int:
    """Return the index in the whole weight, in C order, of the first element of a run inside it."""
    begin = as_shape(start, "start")
    if len(begin) != 1:
        raise TypeError(f"start: {show(start)} was given; one integer is accepted")
    if begin[0] + count > math.prod(whole):
        raise ValueError(
            f"start: {count} elements from {begin[0]} on reach beyond the {math.prod(whole)} of "
            f"shape {whole}"
        )
    return begin[0]
