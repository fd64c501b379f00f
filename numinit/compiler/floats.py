"""The mode of floating-point arithmetic, which each thread has its own of.

Programs change it: ``torch.set_flush_denormal(True)`` turns subnormal numbers into zeros, C's
``fesetround`` rounds otherwise than to nearest. All values here are made in the default mode, and
the caller's is put back.
"""

import contextlib
import ctypes
import functools
from collections.abc import Callable, Iterator
from typing import Any

#: architecture in LLVM's triples -> what exchanges modes; nothing is done on others.
_EXCHANGES: dict[str, Callable[[Any, Any], Any]] = {}


def exchange(builder: Any, new: Any) -> Any:
    """Build LLVM code that sets the thread's mode, an i64, and returns the one that it had.

    No access to memory moves across it, in either direction. So a result that is stored before it
    was computed before it, and what is computed from numbers that are loaded after it comes after.
    """
    build = _EXCHANGES.get(builder.module.triple.partition("-")[0])
    return build(builder, new) if build else new


def default(triple: str) -> int:
    """The default mode: to nearest, with subnormal numbers, no exception trapped."""
    return 0x1F80 if triple.startswith("x86_64") else 0


def _x86_64(builder: Any, new: Any) -> Any:
    """By way of memory, in which MXCSR is loaded and stored."""
    from llvmlite import ir

    i32, i64 = ir.IntType(32), ir.IntType(64)
    with builder.goto_entry_block():
        before, after = builder.alloca(i32), builder.alloca(i32)
    builder.store(builder.trunc(new, i32), after)
    kind = ir.FunctionType(ir.VoidType(), (i32.as_pointer(), i32.as_pointer()))
    code = ir.InlineAsm(kind, "stmxcsr ($0); ldmxcsr ($1)", "r,r,~{memory}", side_effect=True)
    builder.call(code, (before, after))
    return builder.zext(builder.load(before), i64)


def _aarch64(builder: Any, new: Any) -> Any:
    from llvmlite import ir

    i64 = ir.IntType(64)
    code = ir.InlineAsm(
        ir.FunctionType(i64, (i64,)),
        "mrs $0, fpcr; msr fpcr, $1",
        "=&r,r,~{memory}",
        side_effect=True,
    )
    return builder.call(code, (new,))


_EXCHANGES.update(x86_64=_x86_64, aarch64=_aarch64, arm64=_aarch64)


def module(triple: str) -> Any:
    """LLVM code of a function, ``exchange``, for a machine."""
    from llvmlite import ir

    made, i64 = ir.Module(), ir.IntType(64)
    made.triple = triple
    function = ir.Function(made, ir.FunctionType(i64, (i64,)), "exchange")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.ret(exchange(builder, function.args[0]))
    return made


@functools.cache
def _compiled() -> tuple[Callable[[int], int], int, Any]:
    """The function of `module` for this process, the default mode, and what keeps its code.

    Compiled when first needed, in a few milliseconds, by LLVM alone.
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


@contextlib.contextmanager
def default_mode() -> Iterator[None]:
    """Run Python's and NumPy's arithmetic in the default mode; also a decorator."""
    call, mode, _ = _compiled()
    before = mode
    try:
        before = call(mode)
        yield
    finally:
        call(before)
