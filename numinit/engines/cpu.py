"""The CPU engine: plans a strided view and spreads its chunks over threads.

Threads are Python's own, running kernels without the GIL, and take chunks from one atomic
counter. Numba's threading layers are not used: one of them ends a forked child, another aborts
when two Python threads meet, and neither can be interrupted. The number of threads is Numba's.
"""

import contextlib
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from numinit.engines.layout import View, laid_out
from numinit.engines.spec import Spec
from numinit.engines.zeros import NO_ZEROS
from numinit.stream.dtypes import DType

SERIAL = 1 << 17  # elements that one thread fills sooner than a second one wakes up
SERIAL_BYTES = 4 << 20  # the same of a constant that is contiguous
SLICE = 16  # chunks that the calling thread fills between two looks at signals
NO_MORE = 1 << 62  # a counter beyond every number of chunks

Jobs = queue.SimpleQueue[Callable[[], None]]

# The helper threads live as long as the process and wait for jobs. (concurrent.futures has locks
# that an interrupt can leave locked; a SimpleQueue has none.)
_jobs: Jobs = queue.SimpleQueue()
_threads = 0
_threads_lock = threading.Lock()


def num_threads() -> int:
    """Threads a fill may use now: ``numba.get_num_threads()``, without launching a layer."""
    parallel = sys.modules.get("numba.np.ufunc.parallel")
    if parallel is not None and getattr(parallel, "_is_initialized", True):
        # Somebody may have called set_num_threads. The public get_num_threads takes locks first,
        # one of them shared with other processes, that a fork or a killed child leaves locked.
        ask = getattr(parallel, "_get_num_threads", parallel.get_num_threads)
        return int(ask())
    from numba import config  # here, for importing Numba takes longer than all the rest

    return int(config.NUMBA_NUM_THREADS)


class Fill:
    """A fill that is ready to run, for any memory, key and start.

    Parameters
    ----------
    view : View
        The layout.
    dtype : DType
        The element type.
    spec : Spec
        The values.
    """

    __slots__ = ("_chunks", "_fixed", "_kept", "_kernel", "_serial")

    def __init__(self, view: View, dtype: DType, spec: Spec) -> None:
        transform, parameters, zeros = spec
        with preparing:
            # Imported late: importing Numba takes 0.5 s.
            from numinit.engines.cpu_kernel import fill_kernel

            self._kernel = fill_kernel(transform, dtype, zeros and zeros.pattern)
        layout = laid_out(view)
        serial = SERIAL
        if not transform.draws and layout.inner_stride == dtype.itemsize and layout.tile == 1:
            serial = max(serial, SERIAL_BYTES // dtype.itemsize)
        self._chunks, self._serial = layout.chunks, layout.elements <= serial
        # Kept, because the kernel has their addresses.
        self._kept = (
            layout.outer,
            np.array(parameters, np.float64),
            np.array(zeros.parameters if zeros else NO_ZEROS, np.int64),
        )
        self._fixed = (
            layout.grain, layout.units, layout.inner, layout.inner_stride, layout.segment,
            layout.tile, len(layout.outer), *(array.ctypes.data for array in self._kept),
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
        crew = _Crew(self, kernel, chunks, work)
        try:
            crew.call(min(num_threads(), chunks) - 1)
            while kernel(crew.place, SLICE, *work):
                pass  # between two slices Python handles signals: Ctrl-C is raised here
        finally:
            crew.counter[0] = NO_MORE  # first of all: nobody starts another chunk
            # The handlers of two signals may raise, each on the way into a call.
            try:
                crew.dismiss()
            finally:
                try:
                    crew.dismiss()
                finally:
                    crew.dismiss()


class _Crew:
    """The helper threads of one fill.

    An interrupt can come at any moment, and a job can wait until all helpers are free. So a helper
    that starts when the fill is over finds a counter, kept alive by this object, with no chunk
    left, and touches nothing else.
    """

    __slots__ = ("_alive", "_arguments", "_busy", "_done", "_kernel", "counter", "place")

    def __init__(self, fill: Fill, kernel: Any, chunks: int, work: tuple[Any, ...]) -> None:
        self._alive = fill  # its memory is read before the counter
        self.counter = np.zeros(1, np.int64)
        self.place = self.counter.ctypes.data
        self._kernel, self._arguments = kernel, (self.place, chunks, *work)
        self._busy: list[None] = []  # as long as there are helpers at work
        self._done: queue.SimpleQueue[None] = queue.SimpleQueue()  # wakes `dismiss`

    def call(self, count: int) -> None:
        """Let up to `count` more threads run the kernel."""
        if count > 0:
            _submit(self._help, count)

    def _help(self) -> None:
        self._busy.append(None)  # before the counter is read
        try:
            self._kernel(*self._arguments)
        finally:
            self._busy.pop()
            self._done.put(None)

    def dismiss(self) -> None:
        """Wait for those at work, whatever interrupts: they write the user's memory."""
        interrupt: BaseException | None = None
        while True:
            try:
                while self._busy:
                    with contextlib.suppress(queue.Empty):
                        self._done.get(timeout=0.1)
                break
            except BaseException as error:  # whatever a signal's handler raises
                interrupt = error
        if interrupt is not None:
            raise interrupt


def _submit(job: Callable[[], None], count: int) -> None:
    """Let `count` helper threads run a job; fewer where no more can be started."""
    global _threads
    with _threads_lock, contextlib.suppress(RuntimeError):  # out of threads, or shutting down
        while _threads < count:
            name = f"numinit-{_threads}"
            threading.Thread(target=_serve, args=(_jobs,), name=name, daemon=True).start()
            _threads += 1
    for _ in range(min(count, _threads)):
        _jobs.put(job)


def _serve(jobs: Jobs) -> None:
    while True:
        jobs.get()()


#: Held while a kernel is compiled or loaded, and over a fork: a child that is born while another
#: thread is at it would find the locks of Numba and of the modules locked for ever.
preparing = threading.RLock()


def _after_fork() -> None:
    """A forked child has none of its parent's threads."""
    global _jobs, _threads, _threads_lock
    _jobs, _threads, _threads_lock = queue.SimpleQueue(), 0, threading.Lock()
    preparing.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=preparing.acquire,
        after_in_parent=preparing.release,
        after_in_child=_after_fork,
    )
