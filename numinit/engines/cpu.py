"""The CPU engine: plans a strided view and spreads its chunks over threads.

Threads are Python's own, running kernels without the GIL, and take chunks from one atomic
counter. Numba's threading layers are not used: one of them ends a forked child, another aborts
when two Python threads meet, and neither can be interrupted. The number of threads is Numba's.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import config

from numinit.engines.plan import plan

if TYPE_CHECKING:  # imported at the first large fill
    from concurrent.futures import Future, ThreadPoolExecutor

SERIAL = 1 << 17  # elements that one thread fills sooner than a second one wakes up
SLICE = 16  # chunks that the calling thread fills between two looks at signals
NO_MORE = 1 << 62  # a counter beyond every number of chunks

_pool: "ThreadPoolExecutor | None" = None
_pool_lock = threading.Lock()


def num_threads() -> int:
    """Threads a fill may use now: ``numba.get_num_threads()``, without launching a layer."""
    parallel = sys.modules.get("numba.np.ufunc.parallel")
    if parallel is not None and getattr(parallel, "_is_initialized", True):
        return int(parallel.get_num_threads())  # somebody may have called set_num_threads
    return int(config.NUMBA_NUM_THREADS)


class Fill:
    """A fill that is ready to run: a layout and a law, for any memory, key and start.

    Element (i0, i1, ...) lies ``sum(i * strides)`` bytes after the first and its global index is
    ``sum(i * steps)`` after the first one's.

    Parameters
    ----------
    shape : tuple of int
        Without a zero.
    strides, steps : tuple of int
        Distances of neighbours in bytes and in the global order; the last step is 1 or its
        axis has size 1 or was indexed away.
    law : str
        A key of `numinit.engines.kernels.TRANSFORMS`.
    dtype : str
        "float32", "float64", "float16" or "bfloat16".
    parameters : sequence of 4 floats
        As the law's transform takes them.
    by_rows : bool, optional
        The global row of each index of axis 0 is given at the call; the layout is contiguous.
    """

    __slots__ = ("_chunks", "_fixed", "_kernel", "_outer", "_serial")

    def __init__(
        self,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        steps: tuple[int, ...],
        law: str,
        dtype: str,
        parameters: Sequence[float],
        by_rows: bool = False,
    ) -> None:
        from numinit.engines.kernels import fill_kernel  # here, for it makes Numba work

        self._kernel = fill_kernel(law, dtype)
        p = plan(shape, strides, steps, by_rows)
        self._chunks, self._serial = p.chunks, p.elements <= SERIAL
        self._outer = p.outer  # kept, for the kernel has its address
        self._fixed = (
            p.grain, p.units, p.inner, p.inner_stride, p.segment, p.tile,
            len(p.outer), p.outer.ctypes.data, *parameters,
        )  # fmt: skip

    def __call__(self, address: int, first: int, rows: int, seed: int, stream: int) -> None:
        """Fill the memory at `address`.

        Parameters
        ----------
        address : int
            Of the first element; nobody frees the memory during the call.
        first : int
            The first element's global index.
        rows : int
            Address of the global rows, int64, or 0.
        seed, stream : int
            The key, each below 2**64.
        """
        kernel, chunks = self._kernel, self._chunks
        # 64-bit words in two's complement, so that the kernel sees one integer type.
        seed = seed - (1 << 64) if seed >> 63 else seed
        stream = stream - (1 << 64) if stream >> 63 else stream
        if self._serial:
            kernel(0, chunks, chunks, address, first, rows, seed, stream, *self._fixed)
            return
        work = (chunks, address, first, rows, seed, stream, *self._fixed)
        counter = np.zeros(1, np.int64)
        place = counter.ctypes.data
        with _helpers(kernel, min(num_threads(), chunks) - 1, counter, (place, chunks, *work)):
            while kernel(place, SLICE, *work):
                pass  # between two slices Python handles signals: Ctrl-C is raised here


@contextlib.contextmanager
def _helpers(
    kernel: Any, count: int, counter: np.ndarray, arguments: tuple[Any, ...]
) -> Iterator[None]:
    """Run a kernel in `count` more threads; when the body ends, so do they."""
    futures: list[Future[int]] = []
    try:
        if count > 0:
            with contextlib.suppress(RuntimeError):  # the interpreter is shutting down
                futures = [_executor().submit(kernel, *arguments) for _ in range(count)]
        yield
    finally:
        # Done, or interrupted: let nobody start another chunk, and wait for the started ones.
        counter[0] = NO_MORE
        _finish(futures)


def _finish(futures: "list[Future[int]]") -> None:
    """Wait for the helpers that have begun, whatever interrupts: they write the user's memory."""
    running = [future for future in futures if not future.cancel()]
    interrupt: BaseException | None = None
    for future in running:
        while True:
            try:
                future.result()
                break
            except KeyboardInterrupt as error:
                interrupt = error
    if interrupt is not None:
        raise interrupt


def _executor() -> "ThreadPoolExecutor":
    """The pool of helper threads, made at the first large fill of a process."""
    global _pool
    with _pool_lock:
        if _pool is None:
            from concurrent.futures import ThreadPoolExecutor

            _pool = ThreadPoolExecutor(config.NUMBA_NUM_THREADS, thread_name_prefix="numinit")
        return _pool


def _after_fork() -> None:
    """A forked child has none of its parent's threads."""
    global _pool, _pool_lock
    _pool, _pool_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
