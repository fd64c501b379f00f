"""The CUDA engine: one launch fills a strided view on a GPU, on the caller's stream.

Nothing is imported of CUDA before a GPU's memory is to be filled, and no driver is asked for
anything before then. A launch allocates nothing, waits for nothing, and leaves the current device
as it was.
"""

import ctypes
import functools
import importlib.util
import itertools
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from numinit.engines.cpu import Formula
from numinit.engines.plan import plan

BLOCKS = (
    64  # of threads for a multiprocessor at most: some rounds, so that the last is a small part
)
LEAST_BLOCKS = 128  # below, Numba warns; idle ones cost nothing

_compiling = threading.Lock()


class MissingError(ImportError):
    """The package that compiles for GPUs is not installed."""


def check_installed() -> None:
    """Refuse to work without numba-cuda.

    Raises
    ------
    MissingError
        Naming the extras. (Numba's own numba.cuda, where it has one, is no longer maintained.)
    """
    if importlib.util.find_spec("numba_cuda") is None:
        raise MissingError(
            "array: it is in the memory of a GPU, for which numinit needs numba-cuda: "
            "pip install 'numinit[cuda12]' or 'numinit[cuda13]', by the version of CUDA"
        )


def _checked(result: tuple[Any, ...]) -> Any:
    """What a function of the driver returns.

    Raises
    ------
    RuntimeError
        With the driver's name for the error.
    """
    error, *values = result
    if int(error):
        raise RuntimeError(f"CUDA: {error.name}")
    return values[0] if values else None


def device_of(address: int) -> int:
    """The ordinal of the GPU that memory belongs to.

    Raises
    ------
    ValueError
        If it is no GPU's.
    """
    from numinit.jit_cuda import SIMULATED

    if SIMULATED:
        return 0
    from cuda.bindings import driver

    what = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    try:
        return int(_checked(driver.cuPointerGetAttribute(what, address)))
    except RuntimeError as error:
        raise ValueError(
            f"array: its address {address:#x} is not in the memory of a GPU ({error})"
        ) from None


def wait(device: int, queue: int = 0) -> None:
    """Wait for a stream of a GPU, the default one if left out."""
    from numba import cuda

    from numinit.jit_cuda import SIMULATED

    if SIMULATED:
        return
    from cuda.bindings import driver

    with cuda.gpus[device]:
        _checked(driver.cuStreamSynchronize(queue))


class Fill:
    """A fill that is ready to run, as `numinit.engines.cpu.Fill`, for memory of a GPU.

    Parameters
    ----------
    shape, strides, steps, dtype, formula, by_rows
        As `numinit.engines.cpu.Fill` takes them.

    Raises
    ------
    ImportError
        Without numba-cuda.
    """

    __slots__ = ("_fixed", "_inner", "_loose", "_outer", "_p", "_span", "_variant")

    def __init__(
        self,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        steps: tuple[int, ...],
        dtype: str,
        formula: Formula,
        by_rows: bool = False,
    ) -> None:
        check_installed()
        from numinit.engines.kernels import PARAMETERS
        from numinit.engines.kernels_cuda import Variant, unit_blocks
        from numinit.engines.masks import PARAMETERS as MASK_PARAMETERS

        p = plan(shape, strides, steps, by_rows)
        outer = p.outer.tolist()
        dense = outer.pop() if p.tile > 1 else (1, 0, 0)
        self._variant = Variant(formula.law, dtype, formula.mask, len(outer), p.tile > 1, by_rows)
        self._inner = p.inner
        # Whether a row may begin inside of a block although the first one does not.
        self._loose = any(step % 4 for _, _, step in (*outer, dense)) or (
            by_rows and p.inner % 4 > 0
        )
        self._outer = math.prod(size for size, _, _ in outer) * dense[0]
        self._span = 4 * unit_blocks(dtype)
        self._fixed = (p.inner, p.inner_stride, *dense, tuple(itertools.chain(*outer)) or (0,))
        self._p = (
            formula.parameters + (0.0,) * (PARAMETERS - len(formula.parameters)),
            formula.masked + (0,) * (MASK_PARAMETERS - len(formula.masked)),
        )

    def __call__(
        self, address: int, first: int, rows: int, seed: int, stream: int, device: int, queue: int
    ) -> None:
        """Start filling the memory at `address`.

        Parameters
        ----------
        address, first, rows, seed, stream
            As `numinit.engines.cpu.Fill` takes them; `address` and `rows` are the GPU's, and stay
            allocated until the work is done.
        device : int
            The ordinal of the GPU.
        queue : int
            The handle of the CUDA stream that the work is put on.
        """
        skip = 3 if self._loose else first & 3
        per_row = -(-(skip + self._inner) // self._span)
        units = per_row * self._outer
        seed = seed - (1 << 64) if seed >> 63 else seed
        stream = stream - (1 << 64) if stream >> 63 else stream
        _launch(
            self._variant, device, queue, units,
            (address, first, rows, seed, stream, units, per_row, *self._fixed, *self._p),
        )  # fmt: skip


def _launch(variant: Any, device: int, queue: int, units: int, arguments: tuple[Any, ...]) -> None:
    from numba import cuda

    from numinit.engines.kernels_cuda import THREADS, fill_kernel
    from numinit.jit_cuda import SIMULATED

    with cuda.gpus[device]:
        with _compiling:
            kernel = fill_kernel(variant)
        if SIMULATED:
            kernel[2, 3](*arguments)
            return
        blocks = min(-(-units // THREADS), BLOCKS * _multiprocessors(device))
        on = cuda.external_stream(queue) if queue else 0
        kernel[max(blocks, LEAST_BLOCKS), THREADS, on](*arguments)


@functools.cache
def _multiprocessors(device: int) -> int:
    from numba import cuda

    return int(cuda.gpus[device].MULTIPROCESSOR_COUNT)


class Copied:
    """A fill of the CPU's, for memory of a GPU: made on the host as a whole, then copied.

    Parameters
    ----------
    fill : callable
        Fills host memory in the order that `layout` gives.
    shape : tuple of int
        Without a zero.
    strides : tuple of int
        In bytes.
    itemsize : int

    Raises
    ------
    ImportError
        Without numba-cuda.
    ValueError
        If there are gaps between the elements.
    """

    __slots__ = ("_fill", "_size")

    def __init__(
        self,
        fill: Callable[[int, int, int, int, int], None],
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        itemsize: int,
    ) -> None:
        check_installed()
        extent = itemsize
        for stride, size in sorted((s, n) for s, n in zip(strides, shape, strict=True) if n > 1):
            if stride != extent:
                raise ValueError(
                    f"array: shape {shape} with strides {strides} bytes was given; on a GPU, these "
                    "values need an array without gaps, in any order of its axes"
                )
            extent *= size
        self._fill, self._size = fill, extent

    def __call__(
        self, address: int, first: int, rows: int, seed: int, stream: int, device: int, queue: int
    ) -> None:
        """Fill the memory at `address`; returns when the values were copied. See `Fill`."""
        host = np.empty(self._size, np.uint8)
        self._fill(host.ctypes.data, first, rows, seed, stream)
        _copy(address, host, device, queue)


def _copy(address: int, host: np.ndarray, device: int, queue: int) -> None:
    from numba import cuda

    from numinit.jit_cuda import SIMULATED

    if SIMULATED:
        ctypes.memmove(address, host.ctypes.data, host.size)
        return
    from cuda.bindings import driver

    with cuda.gpus[device]:
        _checked(driver.cuMemcpyHtoDAsync(address, host.ctypes.data, host.size, queue))
    wait(device, queue)  # before `host` is freed
