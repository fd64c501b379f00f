"""When kernels are imported, compiled and loaded: one at a time, never inside of another, and not
while the process forks.

Numba's compiler and Python's imports do not survive being entered from their own middle, which is
where a signal's handler or a destructor may run: LLVM aborts the process. And a child that is born
while another thread is at it would find their locks locked for ever.
"""

import atexit
import functools
import os
import queue
import sys
import threading
from _thread import start_new_thread
from collections.abc import Callable
from typing import Any, TypeVar

from numinit.engines.forks import forks

T = TypeVar("T")

#: Held while a kernel is compiled or loaded, and over a fork. Whoever holds Numba's compiler's lock
#: does not wait for it.
preparing = threading.RLock()


def prepared(work: Callable[[], T]) -> T:
    """The result of a function that imports or compiles, run on its own.

    The main thread, in which handlers run, only waits for another one, so that a handler that
    fills may wait, too.

    Raises
    ------
    RuntimeError
        Where this thread is in the middle of compiling: waiting would be for ever.
    """
    compiler = _compiler_lock()
    forking = bool(_holds) and _is_owned(preparing)  # a handler, while a fork waits or begins
    if _at_work if forking else _is_owned(preparing) or (compiler and _is_owned(compiler)):
        raise RuntimeError(
            "a signal's handler or a destructor fills an array, which needs a kernel to be compiled, "
            "in the middle of a compilation; fill such an array once before"
        )
    main = threading.current_thread() is threading.main_thread()
    while main and not forking and not _importing():
        born, results = forks(), queue.SimpleQueue[tuple[Any, BaseException | None]]()
        try:
            start_new_thread(_run, (work, results))
        except RuntimeError:  # out of threads, or shutting down
            break
        while True:
            try:
                result, error = results.get(timeout=0.1)
            except queue.Empty:
                if forks() != born:  # a child, to which the thread did not come along
                    break
                continue
            if error is not None:
                raise error
            made: T = result
            return made
    with preparing:
        return _at(work)


def _run(work: Callable[[], T], results: Any) -> None:
    with preparing:
        try:
            results.put((_at(work), None))
        except BaseException as error:
            results.put((None, error))


_at_work: list[None] = []  # as long as whoever holds `preparing` is at it


def _at(work: Callable[[], T]) -> T:
    _at_work.append(None)
    try:
        return work()
    finally:
        _at_work.pop()


def _importing() -> bool:
    """Whether a module is being imported, perhaps by this thread, and others would wait for it."""
    return any(map(_is_initializing, list(sys.modules.values())))


def _is_initializing(module: Any) -> bool:
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


def _compiler_lock() -> Any:
    """The lock of Numba's compiler, None before Numba is imported."""
    module = sys.modules.get("numba.core.compiler_lock")
    lock = getattr(module, "global_compiler_lock", None)
    return getattr(lock, "_lock", None)


def _is_owned(lock: Any) -> bool:
    return bool(lock._is_owned())


def _settle() -> None:
    """Let a compilation end before the process does: LLVM would lose its ground."""
    if preparing.acquire(timeout=10):
        preparing.release()


atexit.register(_settle)

# Python prints what is raised in a hook of a fork and goes on. So a handler's exception must leave
# neither a fork without the locks nor locks without a fork: what takes and records a lock, and what
# lets it go, are steps of C alone, between which no handler runs.
_holds: list[int] = []  # dropping an element lets go of its lock


@functools.cache
def _hold(lock: Any) -> type[int]:
    return type("_Hold", (int,), {"__del__": staticmethod(lock.release)})


def _before_fork() -> None:
    """Wait for both locks, whatever interrupts."""
    compiler, interrupt = _compiler_lock(), None
    # A handler may fork in the middle of a compilation, which another thread's waits for.
    inside = compiler is not None and _is_owned(compiler)
    for lock in (preparing, *[compiler] * (compiler is not None)):
        waiting = True
        while waiting:
            try:
                if inside and not lock.acquire(blocking=False):
                    break
                if inside:
                    lock.release()
                _holds.extend(map(_hold(lock), map(lock.acquire, (True,))))
                waiting = False
            except BaseException as error:  # whatever a signal's handler raises
                interrupt = error
    if interrupt is not None:
        raise interrupt


def _after_fork() -> None:
    """Another thread's locks are nobody's in a child."""
    locks: tuple[Any, ...] = preparing, _compiler_lock()
    for lock in locks:
        if lock is not None and lock.acquire(blocking=False):
            lock.release()
        elif lock is not None:
            lock._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_holds.clear, after_in_child=_holds.clear
    )
    os.register_at_fork(after_in_child=_after_fork)
