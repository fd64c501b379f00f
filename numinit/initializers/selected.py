"""What the initializers share that have one value in a few places, and zeros elsewhere."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from numinit.dtypes import DType
from numinit.initializers.base import Filler, Part
from numinit.initializers.computed import CHUNK, Computed, Index, stored
from numinit.initializers.laws import Constant

FEW = 64  # at least as many zeros for each other value: else these are not few places

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
        select, draws = super().filler(whole, dtype, part)
        if part.by_rows or self._dense(whole):
            return select, draws
        clear, _ = Constant(0.0).filler(whole, dtype, part._replace(on_gpu=False))

        def fill(*where: int) -> None:
            clear(*where)
            select(*where)

        return fill, draws

    def _dense(self, shape: tuple[int, ...]) -> bool:
        """Whether so many elements are selected that all values are made."""
        return math.prod(shape[other] for other in self.selection(shape).places) < FEW

    def _write(
        self,
        target: np.ndarray,
        whole: tuple[int, ...],
        dtype: DType,
        low: tuple[int, ...],
        axes: tuple[int | None, ...],
        ids: np.ndarray | None = None,
    ) -> None:
        if ids is not None or self._dense(whole):
            super()._write(target, whole, dtype, low, axes, ids)
            return
        axis, value, places = self.selection(whole)
        made = stored(np.asarray(value), dtype)
        size = [1 if at is None else target.shape[at] for at in axes]
        for begin in range(0, size[axis], CHUNK):
            here = np.arange(begin, min(begin + CHUNK, size[axis]), dtype=np.int64)
            at = {axis: here}
            for other, place in places.items():
                at[other] = place(here + low[axis]) - low[other]
            inside: np.ndarray = np.True_  # type: ignore[assignment]
            for other, i in at.items():
                inside = inside & (i >= 0) & (i < size[other])
            if not inside.any():
                continue
            index: list[slice | np.ndarray] = [slice(None)] * target.ndim
            for other, i in at.items():
                if (found := axes[other]) is not None:
                    index[found] = i[inside]
            # In parts, between which Ctrl-C is seen, along the longest axis that is taken whole.
            whole_axes = [n for n in range(target.ndim) if isinstance(index[n], slice)]
            along = max(whole_axes, key=target.shape.__getitem__, default=None)
            if along is None:
                target[tuple(index)] = made
                continue
            ones = np.count_nonzero(inside) * math.prod(target.shape[n] for n in whole_axes)
            step = max(1, CHUNK * target.shape[along] // ones)
            for first in range(0, target.shape[along], step):
                index[along] = slice(first, first + step)
                target[tuple(index)] = made
