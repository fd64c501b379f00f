"""The CUDA engine: one launch fills a strided view on a GPU, on the caller's stream.

No package of CUDA is imported, and no driver is called, before a GPU's memory is filled. A launch
allocates nothing, waits for nothing, and leaves the current device as it was.
"""

import functools
import itertools
import math
from array import array
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from numinit.engines.cuda_driver import (
    Rows,
    check_installed,
    copy,
    current,
    launch,
    load,
    properties,
)
from numinit.engines.layout import View, laid_out
from numinit.engines.preparing import prepared, preparing
from numinit.engines.spec import Spec
from numinit.engines.zeros import NO_ZEROS
from numinit.stream.dtypes import DType


class Shape(NamedTuple):
    """Of a launch."""

    threads: int
    """In a thread block."""
    blocks: int
    """The most for each multiprocessor: two waves or more, so that the last one costs little."""


# As an H200 was fastest.
NARROW = Shape(512, 8)  # a unit is one store
WIDE = Shape(256, 64)


class Fill:
    """A fill of a GPU's memory that is ready to run, as `numinit.engines.cpu.Fill` is for the CPU.

    Parameters
    ----------
    view, dtype, spec
        As `numinit.engines.cpu.Fill` takes them.

    Raises
    ------
    ImportError
        If the packages that compile for GPUs are missing.
    """

    __slots__ = ("_fixed", "_inner", "_loose", "_outer", "_span", "_variant", "_words")

    def __init__(self, view: View, dtype: DType, spec: Spec) -> None:
        check_installed()
        with (
            preparing
        ):  # a fork in the middle of an import would leave its locks locked in the child
            from numinit.engines.cuda_kernel import Variant, unit_blocks

        transform, parameters, zeros = spec
        layout = laid_out(view)
        outer = layout.outer.tolist()
        dense = outer.pop() if layout.tile > 1 else (1, 0, 0)
        self._variant = Variant(
            transform, dtype, zeros and zeros.pattern, len(outer), layout.tile > 1, view.by_rows
        )
        self._inner = layout.inner
        # Whether rows may begin at different places within a block of the stream.
        self._loose = any(step % 4 for _, _, step in (*outer, dense)) or (
            view.by_rows and layout.inner % 4 > 0
        )
        self._outer = math.prod(size for size, _, _ in outer) * dense[0]
        self._span = 4 * unit_blocks(dtype)
        inner = layout.inner, layout.inner_stride, *dense
        around = tuple(itertools.chain(*outer)) or (0,)
        cleared = zeros.parameters if zeros else NO_ZEROS
        self._fixed = (*inner, around, parameters, cleared)
        words = array("q", (*inner, *around))
        words.frombytes(array("d", parameters).tobytes())
        words.extend(cleared)
        self._words = array("Q", words.tobytes())

    def __call__(
        self, address: int, first: int, rows: int, seed: int, stream: int, device: int, queue: int
    ) -> None:
        """Start filling the memory at `address`.

        Parameters
        ----------
        address, first, rows, seed, stream
            As `numinit.engines.cpu.Fill` takes them. `address` and `rows` are in the GPU's memory,
            which stays allocated until the work is done.
        device : int
            The ordinal of the GPU.
        queue : int
            The handle of the CUDA stream that the work is put on.
        """
        skip = 3 if self._loose else first & 3
        per_row = -(-(skip + self._inner) // self._span)
        units = per_row * self._outer
        own = array("Q", (address, first, rows, seed, stream, units, per_row))
        with current(device):
            kernel, threads, most = _loaded(self._variant, device)
            if most == 0:
                kernel[2, 3](*array("q", own.tobytes()), *self._fixed)
                return
            launch(kernel, min(-(-units // threads), most), threads, queue, own + self._words)


@functools.cache
def _loaded(variant: Any, device: int) -> tuple[Any, int, int]:
    """A kernel, loaded on a GPU, threads in a block, and the most blocks to launch.

    Under the simulator it is Numba's kernel, and zeros.
    """
    # As for the CPU: Numba has one compiler lock for both.
    return prepared(functools.partial(_load, variant, device))


@functools.cache  # looked up inside the lock, so that only the first of several threads loads it
def _load(variant: Any, device: int) -> tuple[Any, int, int]:
    from numinit.compiler.cuda import SIMULATED, simulated
    from numinit.engines.cuda_kernel import fill_function

    if SIMULATED:
        return simulated(fill_function(variant), variant.signature), 0, 0
    gpu, shape = properties(device), NARROW if variant.narrow else WIDE
    made = _image(variant, gpu.capability)
    with current(device):  # in the thread that `prepared` chooses
        kernel = load(*made)
    return kernel, shape.threads, shape.blocks * gpu.multiprocessors


@functools.cache  # one for all GPUs of a compute capability
def _image(variant: Any, capability: tuple[int, int]) -> tuple[bytes, bytes]:
    from numinit.compiler.cuda import image
    from numinit.engines.cuda_kernel import fill_function

    return image(fill_function(variant, capability), variant.signature, capability)


class Copied:
    """A fill that runs on the host and is copied to a GPU; gaps between elements are not written.

    Parameters
    ----------
    fill : callable
        Fills host memory of the layout that `without_gaps` makes of this one; called as
        `numinit.engines.cpu.Fill` is.
    shape : tuple of int
        Without a zero.
    strides : tuple of int
        In bytes, in the GPU's memory.
    itemsize : int
        Bytes of an element.

    Raises
    ------
    ImportError
        If the packages that compile for GPUs are missing.
    """

    __slots__ = ("_before", "_fill", "_first", "_outer", "_rows", "_size")

    def __init__(
        self,
        fill: Callable[[int, int, int, int, int], None],
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        itemsize: int,
    ) -> None:
        check_installed()
        self._fill, self._size = fill, math.prod(shape) * itemsize
        # Bytes at lower addresses than element 0, in the GPU's memory and in the host's.
        self._before = _below(shape, strides)
        self._first = _below(shape, without_gaps(shape, strides, itemsize))
        width, outer = itemsize, list[tuple[int, int]]()
        for pitch, size in sorted(
            (abs(s), n) for s, n in zip(strides, shape, strict=True) if n > 1
        ):
            if pitch == width:
                width *= size  # no gap: one longer row
            elif outer and pitch == math.prod(outer[-1]):
                outer[-1] = outer[-1][0], outer[-1][1] * size
            else:
                outer.append((pitch, size))
        pitch, height = outer.pop(0) if outer else (width, 1)
        self._rows = Rows(width, height, pitch)
        self._outer = [range(0, pitch * size, pitch) for pitch, size in reversed(outer)]

    def __call__(
        self, address: int, first: int, rows: int, seed: int, stream: int, device: int, queue: int
    ) -> None:
        """Fill the memory at `address`, and wait until the values are copied. See `Fill`."""
        host = np.empty(self._size, np.uint8)
        self._fill(host.ctypes.data + self._first, first, rows, seed, stream)
        offsets = map(sum, itertools.product(*self._outer))
        copy(address - self._before, host.ctypes.data, self._rows, offsets, device, queue)


def without_gaps(
    shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int
) -> tuple[int, ...]:
    """The strides of an array whose elements lie in the same order in memory, side by side."""
    found, width = list(strides), itemsize
    for axis in sorted(range(len(shape)), key=lambda axis: abs(strides[axis])):
        if shape[axis] > 1:
            found[axis] = width if strides[axis] > 0 else -width
            width *= shape[axis]
    return tuple(found)


def _below(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """How many bytes below the first element an array begins."""
    return -sum(min(0, s * (n - 1)) for s, n in zip(strides, shape, strict=True))
