"""Locks: kernels are compiled and loaded one at a time, and not while the process forks.

A handler of a signal or a destructor may run in the middle of a compilation. If it compiles as
well, LLVM aborts the process. A child that is forked while another thread compiles would find
Numba's and Python's locks locked for ever.
"""

import _frozen_importlib
import atexit
import concurrent.futures.thread  # noqa: F401  # see below
import contextlib
import functools
import itertools
import logging  # noqa: F401  # see below
import operator
import os
import sys
import threading
from _thread import allocate_lock, stack_size, start_new_thread
from collections.abc import Callable
from typing import Any, TypeVar

from numinit.engines.forks import forks

T = TypeVar("T")

STACK = 8 << 20  # bytes, as threads have on Linux; LLVM needs more than 128 KiB

#: Held while a kernel is compiled or loaded, and during a fork. A thread that holds a lock of Numba
#: never waits for it.
preparing = threading.RLock()


def prepared(work: Callable[[], T]) -> T:
    """Run a function that imports or compiles, while no other does; returns its result.

    A thread lets another one do the work and waits. So a signal's handler that needs a kernel can
    wait as well, and the stack is large enough.

    Raises
    ------
    RuntimeError
        If this thread is in the middle of a compilation, so that waiting would never end.
    """
    forking = bool(_holds) and _is_owned(preparing)  # a handler in the middle of `_before_fork`
    if _at_work if forking else any(map(_is_owned, (preparing, *_locks_of_numba()))):
        raise RuntimeError(
            "a signal's handler or a destructor fills an array, which needs a kernel to be compiled, "
            "in the middle of a compilation; fill such an array once before"
        )
    # In a forked child this thread works itself, so that it waits for nobody.
    if not forks() and not forking and not _importing():
        # A lock, because a queue's `get` with a timeout waits for ever, up to Python 3.12, if a
        # handler outlasts the timeout.
        born, done = forks(), allocate_lock()
        wanted, made = [work], list[tuple[Any, BaseException | None]]()
        done.acquire()
        try:
            if started([], _run, wanted, made, done):
                while not done.acquire(timeout=0.1) and forks() == born:
                    pass  # a forked child lacks that thread
        finally:
            wanted.clear()  # nobody waits any longer, as when a handler raised
        for result, error in made:
            if error is not None:
                raise error
            return result  # type: ignore[no-any-return]
    with preparing:
        try:
            return _at(work)
        finally:
            # What a handler that raised in the middle of Numba's code left locked.
            for lock in () if forking else _locks_of_numba():
                while _is_owned(lock):
                    lock.release()


def started(known: list[int], function: Callable[..., None], *arguments: Any) -> bool:
    """Whether a thread could be started that runs a function; it is added to the `known` ones.

    It has a stack that is large enough, though `threading.stack_size` may have been set for others.
    """
    before = stack_size()
    steps = (
        functools.partial(stack_size, before and max(before, STACK)),
        functools.partial(start_new_thread, function, arguments),
    )
    try:
        # In one step of C: neither an interrupt nor another thread comes between.
        known.extend(itertools.islice(map(operator.call, steps), 1, None))
    except RuntimeError:  # out of threads, or shutting down
        return False
    finally:
        stack_size(before)
    return True


def _run(
    wanted: list[Callable[[], T]], made: list[tuple[Any, BaseException | None]], done: Any
) -> None:
    with preparing:
        for work in list(wanted):
            try:
                made.append((_at(work), None))
            except BaseException as error:
                made.append((None, error))
    done.release()


_at_work: list[None] = []  # not empty while the owner of `preparing` compiles


def _at(work: Callable[[], T]) -> T:
    # Before the compiler's lock, because who makes these takes that lock in the middle of it.
    target = getattr(sys.modules.get("numba.core.registry"), "cpu_target", None)
    _ = target and target.target_context
    # With the lock of Numba's compiler: who compiles for itself by LLVM, whose lock comes after it,
    # must be seen to be inside when a handler forks.
    with _compiler_lock() or contextlib.nullcontext():
        try:
            _at_work.append(None)
            return work()
        finally:
            _at_work.clear()


def _importing() -> bool:
    """Whether this thread is importing a module, which another thread would wait for."""
    frame: Any = sys._getframe()
    while frame and frame.f_globals is not vars(_frozen_importlib):
        frame = frame.f_back
    return frame is not None


def _compiler_lock() -> Any:
    """The lock of Numba's compiler, None before Numba is imported."""
    module = sys.modules.get("numba.core.compiler_lock")
    lock = getattr(module, "global_compiler_lock", None)
    return getattr(lock, "_lock", None)


def _locks_of_numba() -> list[Any]:
    """The locks that compile, in the order in which Numba takes them; none before it is imported."""
    target = getattr(sys.modules.get("numba.core.registry"), "CPUTarget", None)
    llvm = getattr(sys.modules.get("llvmlite.binding.ffi"), "lib", None)
    contexts = ("_toplevel_target_context", "_toplevel_typing_context")  # made by the first @njit
    found = [getattr(vars(target or object).get(name), "_lock", None) for name in contexts]
    found += [_compiler_lock(), getattr(getattr(llvm, "_lock", None), "_lock", None)]
    return [lock for lock in found if lock is not None]


def _is_owned(lock: Any) -> bool:
    return bool(lock._is_owned())


def _settle() -> None:
    """At exit, let a compilation end first, because LLVM may crash otherwise."""
    if preparing.acquire(timeout=10):
        preparing.release()


atexit.register(_settle)

# Python forks even if a hook raises, as a handler of a signal may do in it. Such an exception must
# leave neither a fork without the locks nor a lock held after the fork. So a lock is taken and
# recorded in one step of C, and released in another, which no handler can interrupt.
_holds: list[int] = []  # the locks that are held; an element that is dropped releases its lock


@functools.cache
def _hold(lock: Any) -> type[int]:
    """A class whose objects release a lock when they are dropped."""
    return type("_Hold", (int,), {"__del__": staticmethod(lock.release)})


def _before_fork() -> None:
    """Take `preparing` and the locks of Numba, whatever interrupts."""
    locks, interrupt = _locks_of_numba(), None
    # A handler may fork in the middle of a compilation by this thread. Another thread may hold
    # `preparing` and wait for that compilation: then `preparing` is not waited for.
    inside = any(map(_is_owned, locks))
    for lock in (preparing, *locks):
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
    """Release, in a child, the locks of threads that it lacks."""
    for lock in (preparing, *_locks_of_numba()):
        if lock.acquire(blocking=False):
            lock.release()
        else:
            lock._at_fork_reinit()


# A fork takes locks in the reverse order of their registration. Whoever holds Numba's compiler may want
# those of logging and of concurrent.futures, so these must be registered before ours.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_holds.clear, after_in_child=_holds.clear
    )
    os.register_at_fork(after_in_child=_after_fork)
