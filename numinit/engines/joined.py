"""Weights that are joined from parts of others: each part is filled by the road of its own plan."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from numinit.engines.by_index import boxes, row_numbers
from numinit.engines.layout import View, c_steps
from numinit.engines.spec import Joined, Part
from numinit.stream.dtypes import DType

KEPT = 64  # prepared fills of one view

Prepare = Callable[..., tuple[Any, bool]]
Key = tuple[int, int]


def fill_of(
    plan: Joined, whole: tuple[int, ...], dtype: DType, asked: View, prepare: Prepare
) -> Callable[..., None]:
    """A function that fills a view of a weight.

    Parameters
    ----------
    plan : Joined
        The parts.
    whole : tuple of int
        The shape of the whole weight.
    dtype : DType
        The element type.
    asked : View
        The memory, not empty.
    prepare : callable
        `numinit.engines.driver.prepared`, for the host's memory or a GPU's.

    Returns
    -------
    callable
        With the parameters of a call of `numinit.engines.cpu.Fill` or `numinit.engines.cuda.Fill`.
    """
    shape, strides, steps, by_rows = asked
    flat = steps == (1,) and not by_rows  # a run of elements in C order, across rows
    # Among the axes with more than one index, no two have the same step.
    owner = {step: axis for axis, step in enumerate(steps) if shape[axis] > 1}
    kept: dict[Any, Any] = {}

    def ready(number: int, sizes: tuple[int, ...], apart: tuple[int, ...]) -> Any:
        what = number, sizes, apart
        found = kept.get(what)  # looked up once: another thread may clear it at any time
        if found is None:
            part = plan.parts[number]
            layout = View(sizes, apart, c_steps(part.shape))
            found, _ = prepare(part.plan, part.shape, dtype, layout)
            if len(kept) >= KEPT:
                kept.clear()
            kept[what] = found
        return found

    def fill_window(
        address: int,
        low: tuple[int, ...],
        sizes: tuple[int, ...],
        apart: tuple[int, ...],
        key: Key,
        where: tuple[int, ...],
    ) -> None:
        axis = plan.axis
        for number, part, begin, count in _met(plan, low[axis], sizes[axis]):
            place = address + (part.start + begin * part.step - low[axis]) * apart[axis]
            own = _changed(sizes, axis, count), _changed(apart, axis, part.step * apart[axis])
            first = _changed(low, axis, part.offset + begin)
            index = sum(map(int.__mul__, first, c_steps(part.shape)))
            ready(number, *own)(place, index, 0, *_key(part, key), *where)

    def fill(address: int, first: int, rows: int, seed: int, stream: int, *where: int) -> None:
        key = seed, stream
        if by_rows:
            sizes, rest = (1, *shape[1:]), (0,) * (len(whole) - 1)
            for place, row in enumerate(row_numbers(rows, shape[0]).tolist()):
                fill_window(address + place * strides[0], (row, *rest), sizes, strides, key, where)
            return None
        if flat:
            for begin, low, sizes in boxes(whole, first, shape[0]):
                apart = tuple(step * strides[0] for step in c_steps(sizes))
                fill_window(address + begin * strides[0], low, sizes, apart, key, where)
            return None
        low = tuple(map(int, np.unravel_index(first, whole))) if whole else ()
        axes = [
            owner.get(step) if n > 1 else None
            for step, n in zip(c_steps(whole), whole, strict=True)
        ]
        sizes = tuple(1 if axis is None else shape[axis] for axis in axes)
        apart = tuple(0 if axis is None else strides[axis] for axis in axes)
        return fill_window(address, low, sizes, apart, key, where)

    return fill


def _met(plan: Joined, low: int, size: int) -> Iterator[tuple[int, Part, int, int]]:
    """The parts in a window along the axis: number, part, its first index there, and how many."""
    for number, part in enumerate(plan.parts):
        begin = max(0, -(-(low - part.start) // part.step))
        end = min(part.size, -(-(low + size - part.start) // part.step))
        if begin < end:
            yield number, part, begin, end - begin


def _key(part: Part, key: Key) -> Key:
    return key if part.key is None else part.key(*key)


def _changed(numbers: tuple[int, ...], axis: int, number: int) -> tuple[int, ...]:
    return (*numbers[:axis], number, *numbers[axis + 1 :])
