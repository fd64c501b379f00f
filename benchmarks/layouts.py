"""Strided views, parts of a larger weight, rows, new arrays and torch tensors."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

import numinit as ni

from .cases import KERNELS, MIB, cell, numpy_dtype
from .measure import seconds

SIDE = 4096
WHOLE = (40_000_000, 128)  # an embedding table of 20 GB in float32

#: layout -> the view that is filled, of a square array of 64 MiB in float32.
VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "contiguous": lambda a: a,
    "transposed": lambda a: a.T,
    "reversed": lambda a: a[::-1, ::-1],
    "every second column": lambda a: a[:, ::2],
    "every second row": lambda a: a[::2],
}
OTHERS = [
    "new array",
    "block of a larger weight",
    "rows in random order",
    "shard in place",
    "torch tensor",
]


@functools.lru_cache(1)
def call(initializer: str, layout: str, dtype: str) -> tuple[Callable[[], Any], int]:
    """A function that fills, and the number of elements that it fills."""
    init = cell(initializer, dtype, 4 * SIDE).init
    table = np.ones((SIDE, SIDE), numpy_dtype(dtype))
    rows = SIDE * SIDE // WHOLE[1]
    ids = np.random.default_rng(0).integers(0, WHOLE[0], rows)
    first = WHOLE[0] // 3
    if layout == "torch tensor":
        try:
            import torch
        except ImportError:
            raise NotImplementedError("torch is not installed") from None
        tensor = torch.ones(SIDE, SIDE, dtype=getattr(torch, dtype))
    view = VIEWS.get(layout, VIEWS["contiguous"])(table)
    made = {
        "new array": lambda: init(table.shape, dtype, seed=0),
        "block of a larger weight": lambda: init.block(
            WHOLE, (slice(first, first + rows), ...), dtype, seed=0
        ),
        "rows in random order": lambda: init.rows(WHOLE, ids, dtype, seed=0),
        "shard in place": lambda: init.fill_(
            table.reshape(rows, WHOLE[1]), shape=WHOLE, offset=(first, 0), seed=0
        ),
        "torch tensor": lambda: init.fill_(tensor, seed=0),
    }.get(layout, lambda: init.fill_(view, seed=0))
    made()
    return made, view.size


class EveryLayout:
    """By initializer, layout and dtype: 16.8 million elements of a square, all threads."""

    params = (KERNELS, [*VIEWS, *OTHERS], ["float32", "bfloat16"])
    param_names = ("initializer", "layout", "dtype")

    def setup(self, initializer, layout, dtype):
        self.call, self.elements = call(initializer, layout, dtype)

    def time_fill(self, initializer, layout, dtype):
        self.call()

    def track_elements_per_second(self, initializer, layout, dtype):
        return self.elements / seconds(self.call)

    track_elements_per_second.unit = "elements/s"


class NewArray:
    """The peak of the process's memory while it makes a whole weight of 1 GB."""

    params = KERNELS
    param_names = ("initializer",)

    def setup(self, initializer):
        self.init = cell(initializer, "float32", MIB).init

    def peakmem_of_a_gigabyte(self, initializer):
        return self.init((10**6, 250), seed=0)


class SmallWeight:
    """The fixed cost of a call: `kaiming_uniform_` of 64 x 8."""

    params = ["numinit, NumPy array", "numinit, torch tensor", "torch"]
    param_names = ("library, weight",)

    def setup(self, what):
        self.call = small(what)

    def track_microseconds(self, what):
        return 1e6 * seconds(self.call)

    track_microseconds.unit = "µs"


@functools.lru_cache(1)
def small(what: str) -> Callable[[], Any]:
    if "torch" not in what:
        weight = np.ones((64, 8), np.float32)
        return lambda: ni.kaiming_uniform_(weight)
    try:
        import torch
    except ImportError:
        raise NotImplementedError("torch is not installed") from None
    tensor = torch.ones(64, 8)
    fill = torch.nn.init.kaiming_uniform_ if what == "torch" else ni.kaiming_uniform_
    return lambda: fill(tensor)
