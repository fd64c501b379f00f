"""What the initializers share that have one value in a few places, and zeros elsewhere."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from numinit.dtypes import DType
from numinit.initializers.base import Filler, Part
from numinit.initializers.computed import Box, Computed, Index, blocks, stored
from numinit.initializers.laws import Constant

FEW = 64  # elements for each that is selected: below, all values are made

#: The indices on one axis, for those of another.
Place = Callable[[np.ndarray], np.ndarray]


class Selection(NamedTuple):
    """Where a weight is not zero: at one place for each index of an axis."""

    axis: int
    value: float
    places: dict[int, Place]
    """Of other axes. On the rest, every index is selected."""


class Selected(Computed):
    """An initializer with one value in a few places, which a subclass selects."""

    def selection(self, shape: tuple[int, ...]) -> Selection:
        """Where a weight of an accepted shape has which value."""
        raise NotImplementedError

    def values(self, shape: tuple[int, ...], index: Index) -> np.ndarray:
        axis, value, places = self.selection(shape)
        ones = (index[other] == place(index[axis]) for other, place in places.items())
        return np.where(functools.reduce(np.logical_and, ones), value, 0.0)

    def filler(self, whole: tuple[int, ...], dtype: DType, part: Part) -> tuple[Filler, bool]:
        others = math.prod(whole[axis] for axis in self.selection(whole).places)
        if part.by_rows or others < FEW:
            return super().filler(whole, dtype, part)
        clear, _ = Constant(0.0).filler(whole, dtype, part._replace(on_gpu=False))
        select = self._filler(whole, dtype, part, self._select)

        def fill(*where: int) -> None:
            clear(*where)
            select(*where)

        return fill, False

    def _select(self, target: np.ndarray, whole: tuple[int, ...], dtype: DType, box: Box) -> None:
        """Write a box of a weight: what is selected, without the zeros."""
        axis, value, places = self.selection(whole)
        made = stored(np.asarray(value), dtype)
        own = {other: box.axes[other] for other in (axis, *places)}  # the target's axes
        size = {other: 1 if n is None else target.shape[n] for other, n in own.items()}
        free = [n for n in range(target.ndim) if n not in own.values()]
        for here, *parts in blocks((size[axis], *(target.shape[n] for n in free))):
            at = {axis: np.arange(here.start, here.stop, dtype=np.int64)}
            for other, place in places.items():
                at[other] = place(at[axis] + box.low[axis]) - box.low[other]
            inside = functools.reduce(
                np.logical_and, ((i >= 0) & (i < size[other]) for other, i in at.items())
            )
            if inside.any():
                index: dict[int | None, slice | np.ndarray] = dict(zip(free, parts, strict=True))
                index |= {own[other]: i[inside] for other, i in at.items()}
                target[tuple(index[n] for n in range(target.ndim))] = made
