"""How kernels for the CPU, and the functions linked into them, are compiled and cached."""

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba import njit
from numba.core import caching, config
from numba.core.serialize import dumps

from numinit.compiler import cache


class _KernelCache(caching.NullCache):
    """The file of one kernel, named by what it runs on."""

    def __init__(self, name: str) -> None:
        self._impl = caching.CompileResultCacheImpl(cache.directory)
        self._name = name

    def _file(self, signature: Any, codegen: Any) -> Path | None:
        host = sys.version, numba.__version__, llvmlite.__version__, codegen.magic_tuple()
        return cache.file_of(self._name, ".nbc", host, str(signature))

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        target_context.refresh()
        file = self._file(sig, target_context.codegen())
        code = cache.load(file) if file else None
        return code and self._impl.rebuild(target_context, pickle.loads(code))

    def save_overload(self, sig: Any, data: Any) -> None:
        file = self._file(sig, data.codegen)
        if file and self._impl.check_cachable(data):
            cache.save(file, dumps(self._impl.reduce(data)))


def function(name: str) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: compile a helper of a kernel on its own, to be linked into it.

    `name` must say all that the code depends on, closures included. Numba numbers functions per
    process, so that two helpers of one name, cached by different processes, would become the
    same symbol, and one kernel would call the other's helper.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        function.__qualname__ = function.__name__ = name
        return njit(
            nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
        )(function)

    return decorate


def kernel(name: str, signature: Any, kept: bool = True) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: compile a kernel for one signature, without the GIL, cached as `name` if `kept`.

    Nothing is cached, silently, where no cache directory can be written.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        if config.DISABLE_JIT:
            raise RuntimeError("numinit needs Numba's compiler: unset NUMBA_DISABLE_JIT")
        function.__qualname__ = function.__name__ = name
        dispatcher = njit(nogil=True, error_model="numpy")(function)
        if kept and cache.directory():
            dispatcher._cache = _KernelCache(name)
        dispatcher.compile(signature)
        dispatcher.disable_compile()
        return dispatcher

    return decorate
