"""Arithmetic of Python and NumPy in the default floating-point mode, not the caller's."""

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from typing import Any

from numinit.compiler.floats import default, module
from numinit.engines.preparing import prepared


def _compiled() -> tuple[Callable[[int], int], int, Any]:
    """A function that exchanges modes, the default mode, and the owner of the function's code.

    LLVM alone compiles it, in a few milliseconds.
    """
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    binding.initialize_native_asmparser()  # for assembly in the code
    triple = binding.get_process_triple()
    machine = binding.Target.from_triple(triple).create_target_machine()
    code = binding.create_mcjit_compiler(binding.parse_assembly(str(module(triple))), machine)
    code.finalize_object()
    call = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(code.get_function_address("exchange"))
    return call, default(triple), code


_made: list[tuple[Callable[[int], int], int, Any]] = []


def _ready() -> tuple[Callable[[int], int], int, Any]:
    """The result of `_compiled`, made once in a process."""
    if not _made:
        _made.append(prepared(_compiled))
    return _made[0]


@contextlib.contextmanager
def default_mode() -> Iterator[None]:
    """Run the arithmetic of Python and NumPy in the default mode. Also a decorator."""
    call, mode, _ = _ready()
    before = mode
    try:
        before = call(mode)
        yield
    finally:
        call(before)
