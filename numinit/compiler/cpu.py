"""How kernels for the CPU are compiled by Numba, kept as object files and loaded."""

from collections.abc import Callable
from typing import Any

from numinit.compiler.cache import cached
from numinit.compiler.machine import host, known, linked, loaded, target

SYMBOL = "kernel"


def address(function: Callable[..., int], name: str) -> int:
    """The address of a kernel's machine code: loaded from the cache, or compiled.

    Parameters
    ----------
    function : callable
        The Python function. It takes int64 numbers and returns one.
    name : str
        A name for the kernel's file; see `numinit.compiler.cache`.

    Raises
    ------
    RuntimeError
        If it must be compiled and NUMBA_DISABLE_JIT is set.
    """

    def make() -> bytes:
        module, machine = compiled(function)
        outside = [x.name for x in module.functions if x.is_declaration]
        called = ",".join(name for name in outside if not name.startswith("llvm."))
        return called.encode() + b"\0" + bytes(machine.emit_object(module))

    sources = function, compiled, target, linked
    called, _, code = cached(name, ".o", make, sources, host()).partition(b"\0")
    if called and not all(map(known, called.decode().split(","))):
        from numba.core.registry import cpu_target

        _ = cpu_target.target_context  # LLVM learns the functions of Numba's own library
    return loaded(code, SYMBOL)[0]


def compiled(function: Callable[..., int]) -> tuple[Any, Any]:
    """Compile a kernel: LLVM's module, with the function `SYMBOL`, and LLVM's machine.

    Numba compiles it without a wrapper for Python, which would take as long again.
    """
    from llvmlite import ir  # late: only what compiles needs Numba, whose import takes 0.5 s
    from numba.core import config, types
    from numba.core.compiler import Flags, compile_extra
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.registry import cpu_target

    if config.DISABLE_JIT:
        raise RuntimeError("numinit needs Numba's compiler: unset NUMBA_DISABLE_JIT")
    flags = Flags()
    flags.error_model, flags.no_cpython_wrapper, flags.no_compile = "numpy", True, True
    flags.no_cfunc_wrapper = True
    typing, context = cpu_target.typing_context, cpu_target.target_context
    typing.refresh()
    context.refresh()
    int64s = (types.int64,) * function.__code__.co_argcount
    made = compile_extra(typing, context, function, int64s, types.int64, flags, {})

    library = made.library
    module = library.create_ir_module(SYMBOL)
    inner = context.declare_function(module, made.fndesc)
    word = ir.IntType(64)
    outer = ir.Function(module, ir.FunctionType(word, [word] * len(int64s)), SYMBOL)
    builder = ir.IRBuilder(outer.append_basic_block())
    _, result = context.call_conv.call_function(builder, inner, types.int64, int64s, outer.args)
    builder.ret(result)
    with global_compiler_lock:
        library.add_ir_module(module)
        library.finalize()
    _, processor, features = context.codegen().magic_tuple()
    return linked([library.get_llvm_str()]), target(processor, features)
