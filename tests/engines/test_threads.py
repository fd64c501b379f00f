"""Threads, forks, signals and interpreter exits: fills stay right, and never hang.

Everything runs in processes of its own with a timeout, for a hang must fail and Numba reads its
settings once.
"""

import os
import subprocess
import sys

import numpy as np
import oracle
import pytest

import numinit as ni

PRELUDE = """
import os, signal, sys, threading, time
import numpy as np
import numinit as ni
from numinit.engines import cpu
from numinit.engines.layout import View
from numinit.engines.spec import Spec
from numinit.stream.dtypes import DTYPES

NORMAL = ni.Normal()
SHAPE = 700, 1001  # spread over threads, and nothing divides anything
LARGE = 1 << 20


def serial(shape=SHAPE, seed=1):
    "The values, made in parts too small for a second thread."
    size = 1 << 16
    total = int(np.prod(shape))
    parts = [NORMAL.block(total, slice(i, i + size), seed=seed) for i in range(0, total, size)]
    return np.concatenate(parts).reshape(shape)


def fill_of(array):
    "What fills a run of float32."
    spec = Spec(*NORMAL.transform(DTYPES["float32"]))
    return cpu.Fill(View(array.shape, (4,), (1,)), DTYPES["float32"], spec)


def right(shape=SHAPE, seed=1):
    return np.array_equal(NORMAL(shape, seed=seed), serial(shape, seed))


class Counting:
    "Counts the helpers that are asked for."
    def __init__(self):
        self.count, self.original = 0, cpu._submit
        cpu._submit = self.submit

    def submit(self, job, count):
        self.count += count
        self.original(job, count)

    def helpers(self, fill):
        self.count = 0
        fill()
        return self.count


def helper_threads():
    return [t for t in threading.enumerate() if t.name.startswith("numinit")]


def drain():
    "Wait until the helpers have done all that was submitted before."
    if helper_threads():
        done = threading.Event()
        cpu._submit(done.set, 1)
        assert done.wait(20)
"""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no os.fork")
needs_posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")


def run(script, threads=8, **environment):
    """Run a script after the prelude, to the end and without a word on stderr; what it printed."""
    made = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PRELUDE + script],
        env={**os.environ, "NUMBA_NUM_THREADS": str(threads), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "No threading layer could be loaded" in made.stderr:
        pytest.skip("Numba lacks this threading layer here")
    assert made.returncode == 0, made.stdout + made.stderr
    assert made.stderr == ""
    return made.stdout.split()


def test_values_and_helpers_for_every_number_of_threads():
    run("""
import numba
expected, pool = serial(), Counting()
ids = np.arange(SHAPE[0])[::-1]

def contiguous(out): NORMAL.fill_(out, seed=1)
def transposed(out): NORMAL.fill_(np.ndarray(SHAPE, out.dtype, out, 0, (4, 4 * SHAPE[0])), seed=1)
def by_rows(out): out[:] = NORMAL.rows(SHAPE, ids, seed=1)

for threads in 1, 2, 7, 8:
    numba.set_num_threads(threads)
    for way, want in (
        (contiguous, expected),
        (transposed, expected.T.reshape(SHAPE)),
        (by_rows, expected[ids]),
    ):
        out = np.full(SHAPE, np.nan, np.float32)
        assert pool.helpers(lambda: way(out)) == threads - 1, (way, threads, pool.count)
        assert np.array_equal(out, want), (way, threads)

# set_num_threads is a thread's own setting
def other():
    numba.set_num_threads(3)
    counts.append(pool.helpers(lambda: NORMAL(LARGE, seed=1)))
counts = []
numba.set_num_threads(5)
thread = threading.Thread(target=other); thread.start(); thread.join()
counts.append(pool.helpers(lambda: NORMAL(LARGE, seed=1)))
assert counts == [2, 4], counts
""")


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_environment_sets_the_threads_and_numbas_layer_stays_asleep(threads):
    run(
        f"""
import numba
assert Counting().helpers(lambda: NORMAL(131072, seed=1)) == 0
assert not helper_threads()
assert Counting().helpers(lambda: NORMAL(LARGE, seed=1)) == {threads} - 1
assert len(helper_threads()) <= {threads} - 1
assert right()
try:
    layer = numba.threading_layer()
except ValueError:
    pass
else:
    raise AssertionError(layer)
""",
        threads=threads,
    )


def test_python_threads_fill_at_once():
    run("""
from concurrent.futures import ThreadPoolExecutor
barrier = threading.Barrier(8)
def work(seed):
    barrier.wait()
    return [NORMAL(SHAPE, seed=seed) for _ in range(4)]
with ThreadPoolExecutor(8) as pool:
    made = list(pool.map(work, range(8)))
for seed, arrays in enumerate(made):
    want = serial(seed=seed)
    assert all(np.array_equal(array, want) for array in arrays), seed
""")


FORKS = {
    "after a fill": "",
    # the child is born while helpers of another thread's fill are at work
    "during a fill": """
stop, begun = threading.Event(), threading.Event()
def fill_on():
    while not stop.is_set():
        begun.set()
        NORMAL(1 << 22, seed=2)
other = threading.Thread(target=fill_on); other.start(); begun.wait()
""",
}


@needs_fork
@pytest.mark.parametrize("when", FORKS)
def test_forked_children_fill(when):
    run(
        """
import multiprocessing
def forked(work):
    child = os.fork()
    if not child:
        signal.alarm(30)  # a child that hangs dies
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

assert right() and helper_threads()
"""
        + FORKS[when]
        + """
for _ in range(5):
    assert forked(right)
assert forked(lambda: forked(right) and right() and forked(right) and bool(helper_threads()))
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(right, [SHAPE] * 4) == [True] * 4
assert right()
if "stop" in globals():
    stop.set(); other.join()
"""
    )


PRANGE = """
import numba
@numba.njit(parallel=True, nogil=True)
def total(n):
    s = 0
    for i in numba.prange(n):
        s += i
    return s
assert total(1000) == 499500
"""


@pytest.mark.parametrize("layer", ["workqueue", "omp"])
def test_beside_numbas_parallel_code(layer):
    run(
        PRANGE
        + f"""
assert numba.threading_layer() == {layer!r}
done = threading.Event()
def loop():
    while not done.is_set():
        assert total(100000) == 4999950000
    ended.append(True)
ended = []
other = threading.Thread(target=loop); other.start()
for _ in range(5):
    assert right()
done.set(); other.join()
assert ended
if hasattr(os, "fork"):
    child = os.fork()
    if not child:
        signal.alarm(30)
        code = 1
        try:
            code = 0 if right() else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
""",
        NUMBA_THREADING_LAYER=layer,
    )


def test_exit_while_daemon_threads_fill():
    run("""
begun = threading.Semaphore(0)
def fill_on():
    array = np.empty(1 << 22, np.float32)
    while True:
        begun.release()
        NORMAL.fill_(array, seed=1)
for _ in range(3):
    threading.Thread(target=fill_on, daemon=True).start()
for _ in range(9):
    begun.acquire()
""")


def test_fill_in_atexit():
    printed = run("""
import atexit
atexit.register(lambda: print(right(), flush=True))
assert not sys.argv[1:] and right()
""")
    assert printed == ["True"]
    # the first large fill of all, when no pool can be made any more
    assert run("import atexit; atexit.register(lambda: print(right(), flush=True))") == ["True"]


def test_threads_that_want_a_kernel_at_once_compile_it_once():
    """Also where nothing can be cached."""
    run("""
from numinit.compiler import cache, cpu as compiler
cache.directory = lambda: None
ni.Uniform()(4, seed=1)
made, compiled, barrier = [], compiler.compiled, threading.Barrier(4)
compiler.compiled = lambda function: (made.append(function), compiled(function))[1]
def fill():
    barrier.wait()
    NORMAL(4, seed=1)
threads = [threading.Thread(target=fill) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(made) == 1, made
""")


@pytest.mark.parametrize("size", [1 << 16, 1 << 17])  # newer Pythons refuse less
def test_a_program_that_gives_its_threads_small_stacks(size, tmp_path):
    """The threads that compile and that fill have larger ones."""
    run(
        f"""
threading.stack_size({size})
array = np.empty(SHAPE[::-1], np.complex128).T
NORMAL.fill_(array, seed=1)
assert threading.stack_size() == {size}
assert np.array_equal(array, NORMAL(SHAPE, "complex128", seed=1))
""",
        NUMBA_CACHE_DIR=str(tmp_path),
    )


def test_a_thread_with_a_small_stack_compiles(tmp_path):
    run(
        """
done = []
threading.stack_size(1 << 17)
thread = threading.Thread(target=lambda: done.append(ni.Sparse(0.5)((30, 70), seed=1).size))
thread.start(); thread.join()
assert done == [2100]
""",
        NUMBA_CACHE_DIR=str(tmp_path),
    )


def test_a_thread_with_a_small_stack_fills():
    run("""
kinds = ni.Normal(), ni.Sparse(0.5)
def made():
    return [kind((30, 70), "complex128", seed=1) for kind in kinds]
wanted = made()
def fill():
    done.append(np.array_equal(made(), wanted))
done = []
threading.stack_size(1 << 17)
thread = threading.Thread(target=fill)
thread.start(); thread.join()
assert done == [True]
""")


def test_machine_code_outlives_the_modules_that_made_it():
    """A destructor may fill an array when Python ends."""
    run(
        """
import gc
from numinit.compiler import calls
NORMAL(4, seed=1)
calls._made.clear()
gc.collect()
assert np.array_equal(NORMAL(4, seed=1), serial(4))
(kernel, _), *_ = cpu._kernels.values()
assert kernel.__name__ == "kernel"
""",
        PYTHONMALLOC="debug",
    )


@needs_posix
def test_interrupt_ends_a_long_fill():
    run(
        """
signal.signal(signal.SIGINT, signal.default_int_handler)
array = np.zeros(1 << 30, np.float16)  # about a second's work, and few of its pages come to be
NORMAL(LARGE, "float16", seed=1)  # compiled
sent = []
def interrupt():
    while not array[0]:
        pass
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    NORMAL.fill_(array, seed=1)
except KeyboardInterrupt:
    late = time.perf_counter() - sent[0]
    first = np.count_nonzero(array[::256])
else:
    raise AssertionError("not interrupted")
assert late < 1, late
assert 0 < first < array.size // 256 // 2, first
assert right((1 << 22,))
assert np.count_nonzero(array[::256]) == first
""",
        threads=2,
    )


@needs_posix
def test_interrupts_at_any_moment_leave_nobody_writing():
    """Signals from the first moments of a fill to its last; the handler's exception is its own."""
    run("""
class Stop(BaseException): pass
def stop(*_): raise Stop
signal.signal(signal.SIGALRM, stop)
array, stopped = np.empty(1 << 22, np.float32), 0
NORMAL.fill_(array, seed=1)
start = time.perf_counter()
NORMAL.fill_(array, seed=1)
took = time.perf_counter() - start
for turn in range(60):
    array[:] = 0
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-6 + took * turn / 50)
        NORMAL.fill_(array, seed=1)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Stop:
        stopped += 1
    array[:] = 0  # whoever still writes, writes over this
    drain()
    assert not array.any(), turn
assert stopped, took
assert right()
""")


def test_an_interrupt_while_helpers_start_is_held_until_they_stop():
    run("""
active, begun = [], threading.Event()
class Breaking(Counting):
    def submit(self, job, count):
        super().submit(job, count)
        begun.wait()
        raise KeyboardInterrupt
class Watched:
    def __init__(self, kernel): self.kernel = kernel
    def __call__(self, *args):
        active.append(None)
        begun.set()
        try:
            return self.kernel(*args)
        finally:
            active.pop()
array = np.zeros(1 << 28, np.float32)  # more than is done before the interrupt
fill = fill_of(array)
fill._kernel = Watched(fill._kernel)
pool = Breaking()
try:
    fill(array.ctypes.data, 0, 0, 1, 0)
except KeyboardInterrupt:
    assert not active and not array.all()
else:
    raise AssertionError("not interrupted")
cpu._submit = pool.original
assert right()
""")


def test_work_that_found_no_thread_is_harmless_later():
    """The fill goes on alone, and nothing of it is left for a thread that starts later."""
    run("""
def refuse(self): raise RuntimeError("can't start new thread")
start, threading.Thread.start = threading.Thread.start, refuse
array = NORMAL(SHAPE, seed=1)
assert np.array_equal(array, serial())
array[:] = 0
threading.Thread.start = start
for _ in range(20):
    assert right()
drain()
assert helper_threads() and not array.any()
""")


@needs_fork
def test_numbas_locks_do_not_matter():
    """Numba's get_num_threads takes locks, which a fork at that moment leaves locked."""
    run("""
import numba
from numba.np.ufunc import parallel
numba.set_num_threads(3)
held, release = threading.Event(), threading.Event()
def hold():
    with parallel._backend_init_process_lock, parallel._backend_init_thread_lock:
        held.set()
        release.wait()
other = threading.Thread(target=hold); other.start(); held.wait()
child = os.fork()
if not child:
    signal.alarm(30)
    code = 1
    try:
        code = 0 if right() else 2
    finally:
        os._exit(code)
status = os.waitpid(child, 0)[1]
release.set(); other.join()
assert os.waitstatus_to_exitcode(status) == 0
""")


@needs_posix
@pytest.mark.skipif(sys.platform == "darwin", reason="ru_maxrss is in bytes there")
def test_a_fill_needs_no_memory():
    run("""
import resource
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
array = np.ones(1 << 27, np.float32)
NORMAL(10, seed=1)  # compiled
before = peak()
NORMAL.fill_(array, seed=1)
assert peak() - before < 16, (before, peak())
""")


TALL = 10**10, 4
TALL_COUNT = 1 << 16  # rows of a window: enough for threads


@pytest.mark.parametrize("index", [2**31, 2**32, 2**33, 2**34 + 2**31, 4 * 10**10 - 2**17])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_windows_far_into_a_table(index, dtype):
    """Around where 32 bits end, for elements and for blocks of four; the words are the oracle's."""
    key = ni.Key(5, 2**40 + 7)
    init = ni.Uniform()
    low = index // 4 - TALL_COUNT // 2
    block = init.block(TALL, slice(low, low + TALL_COUNT), dtype, seed=key)
    for order in "CF":
        window = np.empty(block.shape, dtype, order)
        init.fill_(window, shape=TALL, offset=(low, 0), seed=key)
        np.testing.assert_array_equal(window, block)
    part = np.empty((TALL_COUNT, 2), dtype)
    init.fill_(part, shape=TALL, offset=(low, 1), seed=key)
    np.testing.assert_array_equal(part, block[:, 1:3])
    rows = [0, TALL_COUNT // 2 - 1, TALL_COUNT // 2, TALL_COUNT - 1]
    np.testing.assert_array_equal(init.rows(TALL, np.add(rows, low), dtype, seed=key), block[rows])
    bits = 8 * block.itemsize
    exact = [
        [
            float(
                oracle.uniform(oracle.words(4 * (low + row) + j, bits, key.seed, key.stream), bits)
            )
            for j in range(4)
        ]
        for row in rows
    ]
    np.testing.assert_array_equal(block[rows], np.array(exact, dtype))


@needs_fork
def test_two_signals_at_once_leave_nobody_writing():
    """Sent by a child: Python's own threads do not survive two such handlers in start and join."""
    run("""
import ctypes, fcntl, struct, termios
class Stop(BaseException): pass
armed = False
def stop(*_):
    if armed:  # Python runs a handler when it likes: a late one is harmless
        raise Stop
ready, go = os.pipe()
if not os.fork():
    os.close(go)
    while os.read(ready, 1):
        time.sleep(0.003)
        os.kill(os.getppid(), signal.SIGUSR1)
        os.kill(os.getppid(), signal.SIGUSR2)
    os._exit(0)
os.close(ready)
both = {signal.SIGUSR1, signal.SIGUSR2}
signal.pthread_sigmask(signal.SIG_BLOCK, both)
array, active, checked = np.empty(1 << 24, np.float32), [], 0
fill = fill_of(array)
def watched(place, *args, kernel=fill._kernel):
    late = ctypes.c_int64.from_address(place).value >= cpu.NO_MORE  # it will find nothing to do
    if late or threading.current_thread() is threading.main_thread():
        return kernel(place, *args)
    active.append(None)
    try:
        return kernel(place, *args)
    finally:
        active.pop()
fill._kernel = watched
fill(array.ctypes.data, 0, 0, 1, 0)  # its helpers leave the signals to this thread
for number in both:
    signal.signal(number, stop)
signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
woken, wake = os.pipe()  # a byte for each signal that came, never read: nothing to lose count of
os.set_blocking(wake, False)
signal.set_wakeup_fd(wake)
def wait(count):
    while struct.unpack("i", fcntl.ioctl(woken, termios.FIONREAD, bytes(4)))[0] < count:
        time.sleep(0.0001)
for turn in range(1, 21):
    busy, armed = None, True
    try:  # two may come, each anywhere
        try:
            try:
                os.write(go, b".")
                fill(array.ctypes.data, 0, 0, 1, 0)
            except Stop:
                busy = len(active)
            wait(2 * turn)
        except Stop:
            pass
        wait(2 * turn)
    except Stop:
        pass
    armed = False
    drain()
    assert not busy, turn
    checked += busy is not None
os.close(go)
os.wait()
assert checked
assert right()
""")


@needs_posix
def test_interrupt_ends_a_fill_of_short_rows():
    """A row of two elements costs as much as one of sixty-four."""
    run(
        """
signal.signal(signal.SIGINT, signal.default_int_handler)
array = np.zeros((1 << 26, 3), np.float16)
view = array[:, :2]
NORMAL.fill_(np.zeros((1000, 2), np.float16), seed=1)  # compiled
sent = []
def interrupt():
    while not array[0, 0]:
        pass
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    NORMAL.fill_(view, seed=1)
except KeyboardInterrupt:
    late = time.perf_counter() - sent[0]
else:
    raise AssertionError("not interrupted")
assert late < 1, late
""",
        threads=2,
    )


@needs_fork
def test_a_child_born_while_another_thread_draws_or_compiles():
    """Neither the lock of the generators nor that of the compiler stays locked in a child."""
    run(
        """
def draw():
    while not stop.is_set():
        ni.weights.keys.default_generator.next_key()
def compile():
    for dtype in "float32", "float64", "float16":
        ni.Uniform()(4, dtype, seed=0)
ni.Zeros()(4)  # imports all of Numba
stop = threading.Event()
others = [threading.Thread(target=work, daemon=True) for work in (draw, compile)]
for other in others:
    other.start()
for _ in range(6):
    child = os.fork()
    if not child:
        signal.alarm(30)
        code = 1
        try:
            code = 0 if ni.Uniform()(4).size and ni.Uniform()(4, "float16").size else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
stop.set()
for other in others:
    other.join()
""",
        NUMBA_CACHE_DIR=os.devnull,  # every process compiles
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    "fill",
    [
        "ni.Normal().fill_(big, seed=0)",
        "ni.TruncNormal(a=8, b=9).fill_(big.T, seed=0)",
        "ni.Sparse(0.5).fill_(big[:, ::2], seed=0)",
        "ni.Normal().fill_(big, shape=(1 << 20, 1 << 14), offset=(5, 7), seed=0)",
        "ni.Normal().rows((10**9, 1), ids, seed=0)",
        "ni.Normal().rows((10**9, 1), ids.astype(np.int32) - 5, seed=0)",
    ],
)
def test_extra_memory_is_below_16_mib(fill):
    """Beyond the arrays themselves, by the peak of the process's own memory."""
    (extra,) = run(
        f"""
def peak():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) << 10
big = np.ones((1 << 13, 1 << 12), np.float32)
ids = np.random.default_rng(0).integers(0, 10**9, 4_000_000)
small, some = big[:64, :64], ids[:10]
big, whole, ids, every = small, big, some, ids
{fill}
big, ids = whole, every.astype(np.int32) if "int32" in {fill!r} else every
kept = 4 * ids.size if "rows" in {fill!r} else 0  # the new array
if "int32" in {fill!r}:
    kept += 2 * 4 * ids.size  # the arguments
open("/proc/self/clear_refs", "w").write("5")
before = peak()
{fill}
print(peak() - before - kept)
""",
        threads=2,
    )
    assert int(extra) < 16 << 20
