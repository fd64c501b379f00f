"""The mode of floating-point arithmetic: how a thread rounds and treats subnormal numbers.

Programs change it: ``torch.set_flush_denormal(True)`` turns subnormal numbers into zeros, and C's
``fesetround`` changes the rounding. All values here are made in the default mode. Afterwards the
thread's own mode is restored.
"""

from collections.abc import Callable
from typing import Any

#: The architecture in LLVM's triples -> the function that builds the code. Others keep their mode.
_EXCHANGES: dict[str, Callable[[Any, Any], Any]] = {}


def exchange(builder: Any, new: Any) -> Any:
    """Build LLVM code that sets the thread's mode, an i64, and returns the mode that it had.

    The compiler moves no memory access across it. So numbers that are stored before it are computed
    before it, and arithmetic on numbers that are loaded after it runs after it.
    """
    build = _EXCHANGES.get(builder.module.triple.partition("-")[0])
    return build(builder, new) if build else new


def default(triple: str) -> int:
    """The default mode: round to nearest, keep subnormal numbers, trap no exception."""
    return 0x1F80 if triple.startswith("x86_64") else 0


def _x86_64(builder: Any, new: Any) -> Any:
    """Through memory: the instructions for MXCSR have no register operands."""
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
