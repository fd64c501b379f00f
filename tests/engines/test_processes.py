"""Signals and forks at the worst moments, numbers of threads, and arguments that change in a call.

What may hang runs in processes of its own with a timeout.
"""

import importlib.util
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import spec_of

import numinit as ni
from numinit.engines import threads
from numinit.engines.layout import View
from numinit.initializers import base
from numinit.stream.dtypes import as_dtype
from numinit.weights import shapes

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no os.fork")
needs_posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")

PRELUDE = """
import os, signal, sys, threading, time
import numpy as np
import numinit as ni
from numinit.engines import preparing

LARGE = 1 << 22
def check(made, want):
    assert np.array_equal(made, want)

def child_ends_well(child):
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

def forked(work):
    child = os.fork()
    if not child:
        signal.alarm(30)  # a child that hangs dies
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child
"""


def run(script, **environment):
    made = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PRELUDE + script],
        env={**os.environ, "NUMBA_NUM_THREADS": "4", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    return made


# Signals and forks


@needs_posix
@pytest.mark.parametrize("size", [8, 1 << 22])
def test_a_handler_draws_and_fills_while_the_main_thread_does(size):
    run(f"""
array, other, came, busy = np.empty({size}, np.float32), np.empty({size}, np.float32), 0, False
ni.normal_(array)
def handler(*_):
    global came, busy
    if not busy:  # a handler that takes longer than the timer would pile up
        busy = True
        ni.normal_(other)
        came, busy = came + 1, False
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 1e-3, 1e-3)
end = time.monotonic() + 10
while came < 50 and time.monotonic() < end:
    ni.normal_(array)
signal.setitimer(signal.ITIMER_REAL, 0)
assert came >= 10, came
""")


@needs_posix
@pytest.mark.parametrize("delay", [0.02, 0.1, 0.7, 1.5])
def test_a_handler_fills_while_the_main_thread_imports_and_compiles(delay, tmp_path):
    """Compiling inside of compiling would end the process, importing inside of importing fail."""
    run(
        f"""
made = []
signal.signal(signal.SIGALRM, lambda *_: made.append(ni.Uniform()(100, seed=1)))
signal.setitimer(signal.ITIMER_REAL, {delay})
first = ni.Normal()(100, seed=1)
while not made:
    time.sleep(0.01)
check(made[0], ni.Uniform()(100, seed=1))
check(first, ni.Normal()(100, seed=1))
""",
        NUMBA_CACHE_DIR=str(tmp_path),
    )


def test_filling_in_the_middle_of_a_compilation_is_refused():
    """A destructor may run there, and waiting would be for ever."""
    run("""
ni.Normal()(4)
with preparing.preparing:
    assert ni.Normal()((5, 5)).size == 25  # has its kernel
    try:
        ni.Uniform()(4)
    except RuntimeError as error:
        assert "in the middle of a compilation" in str(error)
    else:
        raise AssertionError
assert ni.Uniform()(4).size
""")


FORKS_LATE = """
def handler(*_):
    global child
    time.sleep(0.3)
    if not (child := os.fork()):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)  # a child that hangs dies
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.2)
"""


@needs_fork
def test_a_handler_forks_late_while_the_main_thread_waits_for_a_kernel():
    """A queue's `get` would wait for ever after a handler that outlasts it, up to Python 3.12."""
    run(
        """
run_soon = preparing._run
preparing._run = lambda *arguments: (time.sleep(1), run_soon(*arguments))
"""
        + FORKS_LATE
        + """assert preparing.prepared(lambda: 7) == 7
if not child:
    os._exit(0)
child_ends_well(child)
"""
    )


@needs_fork
def test_a_handler_forks_late_while_the_main_thread_waits_for_its_workers():
    run(
        """
from numinit.engines.cpu import _Workers
workers = _Workers(None, lambda *_: time.sleep(1), 0, 1, ())
workers.call(1)
while not workers._busy:
    time.sleep(0.01)
"""
        + FORKS_LATE
        + """workers.dismiss()
if not child:
    os._exit(0)
assert not workers._busy
child_ends_well(child)
"""
    )


def test_who_is_interrupted_leaves_no_work_behind():
    """Else a thread would come for each time that the main thread was interrupted."""
    run("""
held, release, done = threading.Event(), threading.Event(), []
def hold():
    with preparing.preparing:
        held.set()
        release.wait()
def interrupt():
    while sys._current_frames()[main].f_code is not preparing.prepared.__code__:
        time.sleep(0.01)
    signal.raise_signal(signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
main = threading.get_ident()
thread = threading.Thread(target=hold, daemon=True); thread.start(); held.wait()
for _ in range(3):
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        preparing.prepared(lambda: done.append("left"))
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError
release.set(); thread.join()
preparing.prepared(lambda: None)
time.sleep(0.2)
assert not done
""")


def test_only_the_thread_that_imports_compiles_for_itself(tmp_path):
    """Another one would wait for the module. A handler must not interrupt the compiler else."""
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(1)\n")
    (tmp_path / "fills.py").write_text(
        "import threading\nfrom numinit.engines.preparing import prepared\n"
        "own = prepared(threading.get_ident) == threading.get_ident()\n"
    )
    run(f"""
sys.path.insert(0, {str(tmp_path)!r})
thread = threading.Thread(target=__import__, args=("slow",)); thread.start()
while "slow" not in sys.modules:
    time.sleep(0.01)
assert preparing.prepared(threading.get_ident) != threading.get_ident()
thread.join()
import fills
assert fills.own
""")


def test_a_handler_that_raises_in_the_compiler_leaves_no_lock():
    """Numba's own locks are taken in Python code, which a handler may leave in between."""
    run("""
import numba, numba.core.registry
assert len(locks := preparing._locks_of_numba()) == 4
preparing._importing = lambda: True
class Stop(BaseException): pass
def interrupted():
    for lock in locks:
        lock.acquire()
    raise Stop
try:
    preparing.prepared(interrupted)
except Stop:
    pass
else:
    raise AssertionError
free = []
thread = threading.Thread(target=lambda: free.extend(lock.acquire(timeout=5) for lock in locks))
thread.start(); thread.join()
assert free == [True] * 4
""")


def test_nothing_is_imported_beside_a_fork():
    """A child could never import it, nor any thread after a handler that raised in the import."""
    run("""
for name in "NUMBA_NUM_THREADS", "OMP_NUM_THREADS":
    os.environ.pop(name, None)
beside = []
class Spy:
    def find_spec(self, name, *_):
        if not preparing.preparing._is_owned():
            beside.append(name)
sys.meta_path.insert(0, Spy())
ni.normal_(np.empty(LARGE, np.float32))
ni.Sparse(0.5)((64, 8))
import colorsys
assert beside == ["colorsys"], beside
""")


@needs_fork
def test_a_handler_forks_during_a_fill():
    """The child has the rest to do, and no helpers: not those of the fill, nor any to wait for."""
    run("""
array, parent, children = np.empty(LARGE, np.float32), os.getpid(), []
normal = ni.Normal()
want = normal.fill_(array, seed=1).copy()
def handler(*_):
    if child := os.fork():
        children.append(child)
    else:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(30)
signal.signal(signal.SIGALRM, handler)
for turn in range(30):
    array[:] = 0
    signal.setitimer(signal.ITIMER_REAL, 1e-4 * (turn + 1))
    normal.fill_(array, seed=1)
    right = np.array_equal(array, want) and np.array_equal(normal(LARGE, seed=1), want)
    if os.getpid() != parent:
        os._exit(0 if right else 3)
    assert right
    while len(children) <= turn:
        time.sleep(0.001)
        if os.getpid() != parent:
            os._exit(0)
for child in children:
    child_ends_well(child)
""")


LOCKS = {
    "compiler": "from numba.core.compiler_lock import global_compiler_lock as lock",
    "target": "lock = vars(numba.core.registry.CPUTarget)['_toplevel_target_context']._lock",
    "typing": "lock = vars(numba.core.registry.CPUTarget)['_toplevel_typing_context']._lock",
    "llvm": "from llvmlite.binding import ffi; lock = ffi.lib._lock",
}


@needs_fork
@pytest.mark.parametrize("name", LOCKS)
def test_a_child_born_while_another_thread_compiles_the_users_code(name):
    run(f"""
import numba, numba.core.registry
{LOCKS[name]}
def compile(n):
    return numba.njit(lambda x: x + n)(1)
held, release = threading.Event(), threading.Event()
def hold():
    with lock:  # as the compiler does, and who makes its first context
        held.set()
        release.wait()
thread = threading.Thread(target=hold); thread.start(); held.wait()
threading.Timer(0.5, release.set).start()
begin = time.monotonic()
child = forked(lambda: compile(2))
assert time.monotonic() - begin > 0.3  # born when the other thread was done
child_ends_well(child)
thread.join()
compile(3)
""")


def test_a_first_fill_beside_the_users_first_compilation():
    """Numba's first context is made under a lock of its own, and in it the compiler's is taken."""
    run("""
import numba
from numba.core.cpu import CPUContext
begun, init = threading.Event(), CPUContext.init
def slowly(self):
    begun.set()
    time.sleep(0.5)
    init(self)
CPUContext.init = slowly
thread = threading.Thread(target=numba.njit, args=(lambda x: x,), daemon=True)
thread.start(); begun.wait()
ni.Normal()(4)
thread.join()
""")


@needs_fork
def test_a_handler_that_raises_while_a_fork_waits():
    """Python forks all the same, so it must be with the lock; and the parent gets it back."""
    made = run("""
class Stop(BaseException): pass
def stop(*_): raise Stop
held, release = threading.Event(), threading.Event()
def hold():
    with preparing.preparing:
        held.set()
        release.wait()
thread = threading.Thread(target=hold); thread.start(); held.wait()
signal.signal(signal.SIGALRM, stop)
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
def later():
    time.sleep(0.5)
    signal.setitimer(signal.ITIMER_REAL, 0)
    time.sleep(0.1)
    release.set()
threading.Thread(target=later).start()
begin = time.monotonic()
def free():
    assert preparing.preparing.acquire(timeout=5)
    preparing.preparing.release()
child = forked(lambda: (free(), ni.Normal()(4)))
assert time.monotonic() - begin > 0.4, "not locked"
child_ends_well(child)
thread.join()
other = threading.Thread(target=free); other.start(); other.join()
assert not preparing._holds
""")
    assert "Stop" in made.stderr  # Python's word on an exception that nobody can catch


@needs_fork
def test_a_child_without_the_locks_has_new_ones():
    """Should the hook before a fork fail: what another thread had is nobody's in the child."""
    run("""
import contextlib, numba
assert len(locks := preparing._locks_of_numba()) == 4
held, release = threading.Event(), threading.Event()
def hold():
    with contextlib.ExitStack() as stack:
        for lock in (preparing.preparing, *locks):
            stack.enter_context(lock)
        held.set()
        release.wait()
thread = threading.Thread(target=hold); thread.start(); held.wait()
preparing._before_fork.__code__ = (lambda: None).__code__
child = forked(lambda: ni.Uniform()(4))
release.set(); thread.join()
child_ends_well(child)
""")


@needs_posix
def test_fuzz_of_signals_and_forks():
    """A few cases of the long run, `benchmarks.fuzz_processes`."""
    root = Path(__file__).parents[2]
    if not (root / "benchmarks" / "fuzz_processes.py").is_file():
        pytest.skip("the tests run without the benchmarks")
    spec = importlib.util.spec_from_file_location(
        "fuzz_processes", root / "benchmarks" / "fuzz_processes.py"
    )
    fuzz = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzz)
    for seed in 1, 2:
        failure, done = fuzz.case(seed)
        assert not failure
        assert done["main_fill"]


# What is slow is still interrupted


@needs_posix
@pytest.mark.parametrize("rows", [2, 3, 1000])
def test_interrupt_ends_a_sparse_fill(rows):
    """Some thirty rounds of a network for each element: a slice is what takes a moment."""
    run(f"""
class Stop(BaseException): pass
def stop(*_): raise Stop
signal.signal(signal.SIGALRM, stop)
array = np.zeros(({rows}, 3 * 10**8 // {rows}), np.float16)
ni.Sparse(0.5)((3, 3), "float16")  # compiled
signal.setitimer(signal.ITIMER_REAL, 0.1)
begin = time.perf_counter()
try:
    ni.Sparse(0.5).fill_(array, seed=1)
except Stop:
    late = time.perf_counter() - begin - 0.1
else:
    raise AssertionError("not interrupted")
assert late < 1, late
""")


@pytest.mark.parametrize("window", ["hann", "bartlett"])
def test_a_frame_whose_norm_would_take_for_ever_is_refused(window):
    huge = (2**40, 1, 2)
    with pytest.raises(ValueError, match=r"^shape: a frame of 1099511627776 .* up to 2\*\*24"):
        ni.STFT(window=window).block(huge, (0, 0, 0))
    with pytest.raises(ValueError, match=r"^shape: a frame"):
        ni.STFT(window=window).rows(huge, [0])
    for free in ni.STFT(window=window, scaling=None), ni.STFT(window=None):
        assert free.block(huge, (slice(2**39, 2**39 + 4), 0, 0)).shape == (4,)


# Row numbers that another thread changes


@pytest.mark.parametrize("init", [ni.Normal(), ni.Sparse(0.5), ni.Eye()])
def test_row_numbers_are_copied_before_they_are_checked(init, monkeypatch):
    ids, seen = np.zeros(8, np.int64), []

    def check(numbers, whole):
        seen.append(numbers)
        least = original(numbers, whole)
        ids[:] = 2**40  # now, as another thread may
        return least

    original = base.check_rows
    want = init.rows((5, 3), ids.copy(), seed=1)
    for module in shapes, base:
        monkeypatch.setattr(module, "check_rows", check)
    with pytest.raises(IndexError, match=r"^ids: 1099511627776 is out of range for 5 rows"):
        init.rows((5, 3), ids, seed=1)  # changed after the first look, noticed at the second
    ids[:] = 0
    monkeypatch.setattr(base, "as_rows", lambda rows, whole: rows)
    np.testing.assert_array_equal(init.rows((5, 3), ids, seed=1), want)  # changed after the second
    assert not any(np.shares_memory(numbers, ids) for numbers in seen[1:])


def test_a_row_that_is_none_ends():
    """The walk of Sparse would not come back to a row that there is."""
    from numinit.engines import cpu

    layout = (
        View((4, 3), (12, 4), (0, 1), True),
        as_dtype("float32"),
        spec_of(ni.Sparse(0.5), (5, 3)),
    )
    out, rows = np.zeros((4, 3), np.float32), np.array([5, 8, 2**40, -(2**40)])
    done = threading.Thread(
        target=cpu.Fill(*layout), args=(out.ctypes.data, 0, rows.ctypes.data, 1, 0), daemon=True
    )
    done.start()
    done.join(20)
    assert not done.is_alive()


# Threads


def group(root, *parts, **files):
    folder = root.joinpath("sys/fs/cgroup", *parts)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("cpu_", "cpu.")).write_text(text)


def own_groups(root, text):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(text)


@pytest.fixture
def many_cpus(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 48, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(48)), raising=False)


VERSION_2 = [
    ({"": "max 100000"}, 48),
    ({"": "200000 100000"}, 2),
    ({"": "50000 100000"}, 1),
    ({"": "250000 100000"}, 3),
    ({"a/b": "max 100000", "a": "400000 100000"}, 4),
    ({"a/b": "300000 100000", "a": "800000 100000"}, 3),
    ({"a/b/c": "100000 100000"}, 48),  # another's
    ({"": "nonsense"}, 48),
    ({"": ""}, 48),
    ({"": "0 0"}, 48),
    ({}, 48),
]


@pytest.mark.parametrize(("quotas", "want"), VERSION_2)
def test_the_quota_of_a_container(quotas, want, tmp_path, many_cpus):
    own_groups(tmp_path, "0::/a/b\n")
    for path, text in quotas.items():
        group(tmp_path, path, cpu_max=text)
    got, source = threads.default(str(tmp_path))
    assert (got, source == "CPU quota of the container") == (want, want < 48)


@pytest.mark.parametrize("folder", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(
    ("path", "quota", "want"), [("", 200000, 2), ("docker/x", 150000, 2), ("docker", -1, 48)]
)
def test_the_quota_of_a_container_of_the_first_version(
    folder, path, quota, want, tmp_path, many_cpus
):
    own_groups(tmp_path, f"9:memory:/else\n4:{folder}:/docker/x\n1:name=systemd:/z\n0::/\n")
    files = {"cpu_cfs_quota_us": f"{quota}\n", "cpu_cfs_period_us": "100000\n"}
    group(tmp_path, folder, path, **files)
    assert threads.default(str(tmp_path))[0] == want


def test_a_group_above_the_mounted_ones_is_not_looked_for(tmp_path, many_cpus):
    own_groups(tmp_path, "0::/../../etc\nnonsense\n\n")
    group(tmp_path, cpu_max="300000 100000")
    assert threads.default(str(tmp_path))[0] == 3


@pytest.mark.parametrize(
    ("told", "want"), [("3", 3), (" 7,2,1", 7), ("", 48), ("0", 48), ("-2", 48), ("many", 48)]
)
def test_omp_num_threads(told, want, tmp_path, many_cpus, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert threads.default(str(tmp_path / told.strip().replace(",", "")))[0] == want


@pytest.mark.parametrize(
    ("environment", "code", "want"),
    [
        ({"OMP_NUM_THREADS": "3"}, "", (3, "OMP_NUM_THREADS")),
        ({"OMP_NUM_THREADS": "3", "NUMBA_NUM_THREADS": "5"}, "", (5, "NUMBA_NUM_THREADS")),
        (
            {"OMP_NUM_THREADS": "3", "NUMBA_NUM_THREADS": "5"},
            "import numba; numba.set_num_threads(2)",
            (2, "numba.set_num_threads"),
        ),
        (
            {"NUMBA_NUM_THREADS": "5"},
            "import numba, numinit; numba.set_num_threads(2); numinit.set_num_threads(7)",
            (7, "numinit.set_num_threads"),
        ),
    ],
)
def test_who_says_how_many_threads(environment, code, want):
    clean = {n: v for n, v in os.environ.items() if not n.endswith("_NUM_THREADS")}
    made = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{code}\nfrom numinit import cli\nfrom numinit.engines import threads\n"
            "cli.main(['info'])\nprint(threads.get_num_threads(), threads.source())",
        ],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    *lines, last = made.stdout.splitlines()
    assert last == f"{want[0]} {want[1]}"
    line = next(line for line in lines if line.startswith("threads:"))
    assert line.split()[1] == str(want[0])
    assert line.endswith(f"({want[1]})")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no CPU affinity to set")
def test_cpu_affinity():
    script = """
import os
from numinit.engines import threads
before = threads.get_num_threads()  # also where the affinity changes later
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
assert threads.get_num_threads() == 1
"""
    clean = {n: v for n, v in os.environ.items() if not n.endswith("_NUM_THREADS")}
    subprocess.run([sys.executable, "-c", script], env=clean, check=True, timeout=60)


@pytest.mark.parametrize(
    ("number", "error"), [(0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError)]
)
def test_a_wrong_number_of_threads(number, error):
    before = threads.get_num_threads()
    with pytest.raises(error, match=f"^number: {number} was given"):
        ni.set_num_threads(number)
    assert threads.get_num_threads() == before


def test_the_number_is_found_fast():
    threads.default()
    begin = time.process_time()
    for _ in range(1000):
        threads.default()
    assert time.process_time() - begin < 0.1


def test_a_fork_takes_the_locks_of_the_compiler_first():
    """Whoever holds them may want those of the standard library, which are taken after them."""
    script = (
        "import os, sys\n"
        "order, register = [], os.register_at_fork\n"
        "def noted(**hooks):\n"
        "    order.append(sys._getframe(1).f_globals['__name__'])\n"
        "    register(**hooks)\n"
        "os.register_at_fork = noted\n"
        "import numinit as ni\n"
        "ni.Normal()((2,), seed=0)\n"
        "own = order.index('numinit.engines.preparing')\n"
        "late = {'logging', 'concurrent.futures.thread'} & {*order[own:]}\n"
        "assert not late, order\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=120)
