"""The only place with compiler settings: how scalar functions and kernels are compiled and cached.

Numba's own cache looks at the file of the cached function only, so an edited helper in another
file would keep serving old code, and so would an upgrade that keeps a file's time and size. Here
every kernel's cache entry is stamped with a digest of all the sources that can reach it.
"""

import contextlib
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.ir as ir
from numba import njit, types
from numba.core import caching
from numba.extending import intrinsic

#: A pure scalar function, inlined before type inference so that CPU and CUDA kernels can share it.
inline = njit(inline="always", error_model="numpy")
_PACKAGE = Path(__file__).parent


@functools.cache
def source_digest() -> str:
    """SHA-256 of every source file that compiled code is made from."""
    digest = hashlib.sha256()
    for name in ("jit.py", "bits.py", "transforms", "engines"):
        path = _PACKAGE / name
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            digest.update(f"{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()


class _StampedBySources:
    """Makes one of Numba's cache locators judge freshness by `source_digest`."""

    def get_source_stamp(self) -> str:
        return source_digest()


class _CacheImpl(caching.CompileResultCacheImpl):
    # In order: $NUMBA_CACHE_DIR, __pycache__ where it is writable, the user's cache directory.
    _locator_classes = [
        type(f"_Stamped{base.__name__}", (_StampedBySources, base), {})
        for base in (
            getattr(caching, name, None) or getattr(caching, f"_{name}")  # public since Numba 0.61
            for name in ("UserProvidedCacheLocator", "InTreeCacheLocator", "UserWideCacheLocator")
        )
    ]


class _KernelCache(caching.FunctionCache):
    """One index file per kernel name; the stamp stands for the code."""

    _impl_class = _CacheImpl

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        # Numba would add a hash of the closure, which differs in every process.
        return sig, codegen.magic_tuple()


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


def kernel(name: str, signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: compile a kernel for one signature, without the GIL, cached as `name`.

    Nothing is cached, silently, where no cache directory can be written.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        function.__qualname__ = function.__name__ = name
        dispatcher = njit(nogil=True, error_model="numpy")(function)
        with contextlib.suppress(RuntimeError, OSError):  # read-only install and home directory
            dispatcher._cache = _KernelCache(function)
        dispatcher.compile(signature)
        dispatcher.disable_compile()
        return dispatcher

    return decorate


def cache_dir() -> str | None:
    """Directory of the compiled kernels, or None where none can be written."""

    def probe() -> None: ...

    try:
        return str(_CacheImpl(probe).locator.get_cache_path())
    except (RuntimeError, OSError):
        return None


@intrinsic  # type: ignore[untyped-decorator]
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c`` rounded once, in the type of `a`."""
    return a(a, a, a), lambda context, builder, signature, args: builder.fma(*args)


def _bitcast(source: Any, target: Any, llvm_target: Any) -> Any:
    def typing(typingctx: Any, x: Any) -> Any:
        return target(source), lambda context, builder, signature, args: builder.bitcast(
            args[0], llvm_target
        )

    return intrinsic(typing)


#: Reinterpret the bits of a float32 as uint32, and back; the same for 64 bits.
float32_bits = _bitcast(types.float32, types.uint32, ir.IntType(32))
bits_float32 = _bitcast(types.uint32, types.float32, ir.FloatType())
float64_bits = _bitcast(types.float64, types.uint64, ir.IntType(64))
bits_float64 = _bitcast(types.uint64, types.float64, ir.DoubleType())


def pointer_to(element: Any) -> Any:
    """A function that takes an integer address and returns a pointer to Numba type `element`."""

    @intrinsic
    def pointer(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(element)(types.int64), codegen

    return pointer


def scratch(element: Any, count: int) -> Any:
    """A function that returns a pointer to `count` elements on the stack of its caller."""

    @intrinsic
    def allocate(typingctx: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            space = ir.ArrayType(context.get_data_type(element), count)
            with builder.goto_entry_block():  # and not zero-filled, as cgutils would
                place = builder.alloca(space)
            place.align = 64
            return builder.bitcast(place, context.get_value_type(signature.return_type))

        return types.CPointer(element)(), codegen

    return allocate


@intrinsic  # type: ignore[untyped-decorator]
def as_uint32(typingctx: Any, words: Any) -> Any:
    """A pointer to uint64 as a pointer to the uint32 halves, in memory order."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.uint32)(words), codegen


@intrinsic  # type: ignore[untyped-decorator]
def address_of(typingctx: Any, place: Any) -> Any:
    """The address in a pointer, as an integer."""
    return types.int64(place), lambda context, builder, signature, args: builder.ptrtoint(
        args[0], ir.IntType(64)
    )


@intrinsic  # type: ignore[untyped-decorator]
def fetch_add(typingctx: Any, address: Any, amount: Any) -> Any:
    """Atomically add to the int64 at `address`; returns what it held before."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", place, args[1], "monotonic")

    return types.int64(types.int64, types.int64), codegen
