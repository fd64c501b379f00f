"""The CPU engine: cuts a strided view into chunks and fills them with several threads.

The threads are Python's own. They run kernels without the GIL and take chunks from one atomic
counter. Numba's threading layers are not used: one of them ends a forked child, another aborts the
process when two Python threads use it at once, and neither can be interrupted.
"""

import contextlib
import functools
import queue
import threading
import time
from _thread import allocate_lock
from collections.abc import Callable
from typing import Any

import numpy as np

from numinit.engines.caches import cache_size
from numinit.engines.cpu_drive import Work, drive_function
from numinit.engines.cpu_kernel import kernel_name, run_function
from numinit.engines.forks import forks
from numinit.engines.layout import Layout, View, laid_out
from numinit.engines.pages import touched
from numinit.engines.preparing import prepared, started
from numinit.engines.spec import Spec
from numinit.engines.threads import get_num_threads
from numinit.engines.zeros import NO_ZEROS, Pattern
from numinit.stream.dtypes import DType
from numinit.stream.transform import Transform

SERIAL = 1 << 17  # elements that one thread fills before a second one would be awake
SERIAL_BYTES = 4 << 20  # the same for a constant in contiguous memory
LEAST_STREAMED = 4096  # bytes of a row: fewer have too many lines that are stored in parts
SLICE = 0.02  # seconds, about, after which the calling thread lets Python handle signals
NO_MORE = 1 << 62  # a counter beyond every number of chunks


class _Pool:
    """The worker threads of a process. They wait for jobs and live as long as the process.

    Nothing here is locked, because a signal's handler may interrupt this code at any place and fill
    an array itself. Nor does it wait for a thread that a forked child would lack, as the start of a
    threading.Thread does.
    """

    def __init__(self) -> None:
        # Unlike concurrent.futures, it has no lock that an interrupt can leave locked.
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._started: list[int] = []

    def submit(self, job: Callable[[], None], count: int) -> None:
        """Let `count` threads run a job, fewer if no more can be started.

        Python threads that call this at once may start one thread too many each.
        """
        while len(self._started) < count:
            if not started(self._started, self._serve, f"numinit-{len(self._started)}"):
                break
        for _ in range(min(count, len(self._started))):
            self._jobs.put(job)

    def _serve(self, name: str) -> None:
        threading.current_thread().name = name
        while True:
            self._jobs.get()()


_pools: dict[int, _Pool] = {}  # a forked child has none of its parent's threads


def _submit(job: Callable[[], None], count: int) -> None:
    """Let `count` worker threads of this process run a job."""
    pool = _pools.get(process := forks()) or _pools.setdefault(process, _Pool())
    pool.submit(job, count)


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

    __slots__ = ("_chunks", "_kept", "_kernel", "_row", "_serial", "_streamed", "_work")

    def __init__(self, view: View, dtype: DType, spec: Spec) -> None:
        transform, parameters, zeros = spec
        made = transform, dtype, zeros and zeros.pattern
        if made not in _kernels:
            _kernels[made] = prepared(functools.partial(_kernel, *made))
        self._kernel, run = _kernels[made]
        layout = laid_out(view, zeros.parameters.cost if zeros else 1)
        serial = SERIAL
        if not transform.draws and layout.inner_stride == dtype.itemsize and layout.tile == 1:
            serial = max(serial, SERIAL_BYTES // dtype.itemsize)
        self._chunks, self._serial = layout.chunks, layout.elements <= serial
        # Kept alive, because the kernel reads them by address.
        numbers = (
            layout.outer,
            np.array(parameters, np.float64),
            np.array(zeros.parameters if zeros else NO_ZEROS, np.int64),
        )
        places = (array.ctypes.data for array in numbers)
        work = Work(run, *layout[1:-1], len(layout.outer), *places)
        self._kept = np.array(work, np.int64), *numbers
        self._work = self._kept[0].ctypes.data
        self._streamed = streamed(layout, dtype.itemsize)
        self._row = layout.inner * dtype.itemsize

    def __call__(self, address: int, first: int, rows: int, seed: int, stream: int) -> None:
        """Fill the memory at `address`.

        Parameters
        ----------
        address : int
            Of the first element. The memory stays allocated during the call.
        first : int
            The global index of the first element.
        rows : int
            Address of the global row of each index of axis 0, contiguous int64, or 0.
        seed, stream : int
            The key, each below 2**64.
        """
        kernel, chunks = self._kernel, self._chunks
        if self._serial:
            kernel(self._work, 0, chunks, address, first, rows, seed, stream, 0)
            return
        # Into new pages other stores are faster, which find them in the caches.
        past = int(self._streamed and touched(address, self._row))
        work = address, first, rows, seed, stream, past
        begun = -1
        while begun != (begun := forks()):
            # Once, and again in a child that a signal's handler forked meanwhile: it lacks its
            # parent's workers and does not know which chunks they have filled.
            workers = _Workers(self, kernel, self._work, chunks, work)
            try:
                workers.call(min(get_num_threads(), chunks) - 1)
                limit, begin = 1, time.monotonic()
                while kernel(self._work, workers.place, limit, *work):
                    # Between two slices Python handles signals: Ctrl-C is raised here.
                    end = time.monotonic()
                    limit = 2 * limit if end - begin < SLICE else max(limit // 2, 1)
                    begin = end
            finally:
                workers.counter[0] = NO_MORE  # first of all, so that nobody starts another chunk
                # Handlers of two signals may raise, each just before a call begins.
                try:
                    workers.dismiss()
                finally:
                    try:
                        workers.dismiss()
                    finally:
                        workers.dismiss()


def streamed(layout: Layout, itemsize: int) -> bool:
    """Whether a fill is stored past the caches: if it is too large for them.

    Other stores read the memory that they write. They leave the last of it in the caches, though,
    where a reader would find a smaller array.
    """
    contiguous = layout.inner_stride == itemsize and layout.tile == 1
    rows = layout.inner * itemsize >= LEAST_STREAMED
    return contiguous and rows and layout.elements * itemsize > cache_size()


#: The driver and the address of the kernel.
_kernels: dict[tuple[Transform, DType, Pattern | None], tuple[Callable[..., int], int]] = {}


@functools.cache  # threads may ask at once, and compile one after the other
def _kernel(
    transform: Transform, dtype: DType, pattern: Pattern | None
) -> tuple[Callable[..., int], int]:
    from numinit.compiler.cpu import address  # late: it imports LLVM

    name = kernel_name(transform, dtype, pattern)
    made = address(run_function(transform, dtype, pattern), name)
    return _driver(dtype.itemsize // dtype.parts, dtype.parts), made


@functools.cache
def _driver(part: int, parts: int) -> Callable[..., int]:
    from numinit.compiler.calls import function
    from numinit.compiler.cpu import address

    return function(address(drive_function(part, parts), f"drive_{parts}x{part}"))


class _Workers:
    """The worker threads of one fill.

    A worker may start late, when the fill is over or was interrupted. It then finds no chunk left
    in the counter, which this object keeps alive, and touches nothing else.
    """

    __slots__ = ("_alive", "_arguments", "_born", "_busy", "_done", "_kernel", "counter", "place")

    def __init__(
        self, fill: Fill, kernel: Any, work: int, chunks: int, arguments: tuple[int, ...]
    ) -> None:
        self._alive = fill  # its memory is read before the counter
        self.counter = np.zeros(1, np.int64)
        self.place = self.counter.ctypes.data
        self._kernel, self._arguments = kernel, (work, self.place, chunks, *arguments)
        self._born = forks()
        self._busy: list[None] = []  # one element for each worker that runs the kernel
        # Wakes `dismiss`. Not a queue, see `numinit.engines.preparing.prepared`.
        self._done = allocate_lock()

    def call(self, count: int) -> None:
        """Let up to `count` other threads run the kernel, too."""
        if count > 0:
            _submit(self._work, count)

    def _work(self) -> None:
        self._busy.append(None)  # before the counter is read
        try:
            self._kernel(*self._arguments)
        finally:
            self._busy.pop()
            with contextlib.suppress(RuntimeError):  # released already
                self._done.release()

    def dismiss(self) -> None:
        """Wait for the workers, whatever interrupts, because they write the user's memory."""
        interrupt: BaseException | None = None
        while True:
            try:
                while self._busy and self._born == forks():  # a forked child has no workers
                    self._done.acquire(timeout=0.1)
                break
            except BaseException as error:  # whatever a signal's handler raises
                interrupt = error
        if interrupt is not None:
            raise interrupt
