"""How kernels for the CPU, and the functions linked into them, are compiled and cached."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import caching, config
from numba.core.serialize import dumps

from numinit.compiler import cache


class _KernelCache(caching.NullCache):
    """The cache of one kernel: a file for each processor and signature."""

    def __init__(self, name: str, source: bytes) -> None:
        self._impl = caching.CompileResultCacheImpl(cache.directory)
        self._name, self._source = name, source

    def _file(self, signature: Any, codegen: Any) -> Path | None:
        return cache.file_of(self._name, ".nbc", codegen.magic_tuple(), str(signature))

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        target_context.refresh()
        file = self._file(sig, target_context.codegen())
        code = cache.load(file, self._source) if file else None
        return code and self._impl.rebuild(target_context, pickle.loads(code))

    def save_overload(self, sig: Any, data: Any) -> None:
        file = self._file(sig, data.codegen)
        if file and self._impl.check_cachable(data):
            cache.save(file, self._source, dumps(self._impl.reduce(data)))


def function(name: str) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: compile a helper of a kernel on its own, to be linked into it.

    Parameters
    ----------
    name : str
        A name for the symbol. It must differ for functions with other closures: Numba numbers
        functions per process, so that two helpers of one name, cached by different processes, would
        become one symbol, and one kernel would call the other's helper.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        function.__qualname__ = function.__name__ = name
        return njit(
            nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
        )(function)

    return decorate


def kernel(name: str, signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: compile a kernel for one signature, to run without the GIL.

    Parameters
    ----------
    name : str
        A name for the kernel and its file; see `numinit.compiler.cache`.
    signature : numba signature
        The types of its arguments and its result.

    Raises
    ------
    RuntimeError
        If NUMBA_DISABLE_JIT is set.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        if config.DISABLE_JIT:
            raise RuntimeError("numinit needs Numba's compiler: unset NUMBA_DISABLE_JIT")
        function.__qualname__ = function.__name__ = name
        dispatcher = njit(nogil=True, error_model="numpy")(function)
        if cache.directory() and (source := cache.made_from(name, dispatcher)):
            dispatcher._cache = _KernelCache(name, source)
        dispatcher.compile(signature)
        dispatcher.disable_compile()
        return dispatcher

    return decorate
