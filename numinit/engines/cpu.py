"""The CPU engine: plans a strided view and spreads its chunks over threads.

Threads are Python's own, running kernels without the GIL, and take chunks from one atomic
counter. Numba's threading layers are not used: one of them ends a forked child, another aborts
when two Python threads meet, and neither can be interrupted. The number of threads is Numba's.
"""

import contextlib
import functools
import queue
import threading
import time
from _thread import start_new_thread
from collections.abc import Callable
from typing import Any

import numpy as np

from numinit.engines.forks import forks
from numinit.engines.layout import View, laid_out
from numinit.engines.preparing import prepared
from numinit.engines.spec import Spec
from numinit.engines.threads import num_threads
from numinit.engines.zeros import NO_ZEROS, Pattern
from numinit.stream.dtypes import DType
from numinit.stream.transform import Transform

SERIAL = 1 << 17  # elements that one thread fills sooner than a second one wakes up
SERIAL_BYTES = 4 << 20  # the same of a constant that is contiguous
SLICE = 0.02  # seconds, about, that the calling thread fills between two looks at signals
NO_MORE = 1 << 62  # a counter beyond every number of chunks


class _Helpers:
    """The helper threads of a process, which live as long as it does and wait for jobs.

    Nothing is locked, for a signal's handler may fill while this thread is anywhere here. Nor is
    anybody waited for who a forked child would not have: threading.Thread does when it starts.
    """

    def __init__(self) -> None:
        # (concurrent.futures has locks that an interrupt can leave locked; this has none.)
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._started: list[int] = []

    def submit(self, job: Callable[[], None], count: int) -> None:
        """Let `count` threads run a job; fewer where no more can be started.

        Python threads that come here at once may start one more each.
        """
        with contextlib.suppress(RuntimeError):  # out of threads, or shutting down
            while len(self._started) < count:
                # In one step, so that no interrupt leaves one out.
                name = f"numinit-{len(self._started)}"
                self._started.extend(map(start_new_thread, (self._serve,), ((name,),)))
        for _ in range(min(count, len(self._started))):
            self._jobs.put(job)

    def _serve(self, name: str) -> None:
        threading.current_thread().name = name
        while True:
            self._jobs.get()()


_helpers: dict[int, _Helpers] = {}


def _submit(job: Callable[[], None], count: int) -> None:
    """Let `count` helper threads of this process run a job."""
    (_helpers.get(process := forks()) or _helpers.setdefault(process, _Helpers())).submit(
        job, count
    )


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
        made = transform, dtype, zeros and zeros.pattern
        if made not in _kernels:
            _kernels[made] = prepared(functools.partial(_kernel, *made))
        self._kernel = _kernels[made]
        layout = laid_out(view, zeros.parameters.cost if zeros else 1)
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
        begun = -1
        while begun != (begun := forks()):
            # Once, and again in a child that was born in between, by a signal's handler: it does
            # not know what its parent's helpers had done.
            crew = _Crew(self, kernel, chunks, work)
            try:
                crew.call(min(num_threads(), chunks) - 1)
                limit, begin = 1, time.monotonic()
                while kernel(crew.place, limit, *work):
                    # Between two slices Python handles signals: Ctrl-C is raised here.
                    end = time.monotonic()
                    limit = 2 * limit if end - begin < SLICE else max(limit // 2, 1)
                    begin = end
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


_kernels: dict[tuple[Transform, DType, Pattern | None], Any] = {}


def _kernel(transform: Transform, dtype: DType, pattern: Pattern | None) -> Any:
    from numinit.engines.cpu_kernel import fill_kernel  # late: importing Numba takes 0.5 s

    return fill_kernel(transform, dtype, pattern)


class _Crew:
    """The helper threads of one fill.

    An interrupt can come at any moment, and a job can wait until all helpers are free. So a helper
    that starts when the fill is over finds a counter, kept alive by this object, with no chunk
    left, and touches nothing else.
    """

    __slots__ = ("_alive", "_arguments", "_born", "_busy", "_done", "_kernel", "counter", "place")

    def __init__(self, fill: Fill, kernel: Any, chunks: int, work: tuple[Any, ...]) -> None:
        self._alive = fill  # its memory is read before the counter
        self.counter = np.zeros(1, np.int64)
        self.place = self.counter.ctypes.data
        self._kernel, self._arguments = kernel, (self.place, chunks, *work)
        self._born = forks()
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
                while self._busy and self._born == forks():  # a child has none of them
                    with contextlib.suppress(queue.Empty):
                        self._done.get(timeout=0.1)
                break
            except BaseException as error:  # whatever a signal's handler raises
                interrupt = error
        if interrupt is not None:
            raise interrupt
