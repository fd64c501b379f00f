"""Calls of machine code from Python, and of the floating-point mode: built with LLVM alone.

A call by ctypes takes longer than a small fill.
"""

import ctypes
from collections.abc import Callable
from typing import Any

from numinit.compiler.cache import cached
from numinit.compiler.floats import exchange
from numinit.compiler.machine import host, keep, linked, loaded, store, target, triple

#: What the code calls of Python's C API.
PYTHON = (
    "PyLong_AsUnsignedLongLongMask",
    "PyErr_Occurred",
    "PyEval_SaveThread",
    "PyEval_RestoreThread",
    "PyLong_FromLongLong",
)
ARGUMENTS = 9  # of a function that Python calls


def _module() -> str:
    """The text of LLVM's module.

    call : a function of Python by METH_FASTCALL, whose `self` is the address of a kernel
    exchange : see `numinit.compiler.floats`
    python : the addresses of `PYTHON`, which differ in every process
    """
    from llvmlite import ir

    module = ir.Module("calls")
    module.triple = triple()
    i64, pointer = ir.IntType(64), ir.IntType(8).as_pointer()
    mode = ir.Function(module, ir.FunctionType(i64, [i64]), "exchange")
    builder = ir.IRBuilder(mode.append_basic_block())
    builder.ret(exchange(builder, mode.args[0]))

    table = ir.ArrayType(i64, len(PYTHON))
    python = ir.GlobalVariable(module, table, "python")
    python.initializer = table(None)
    kind = ir.FunctionType(pointer, [pointer, pointer.as_pointer(), i64])
    call = ir.Function(module, kind, "call")
    builder = ir.IRBuilder(call.append_basic_block())

    def api(name: str, result: Any, *arguments: Any) -> Any:
        place = builder.gep(python, [i64(0), i64(PYTHON.index(name))])
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        found = builder.inttoptr(builder.load(place), kind.as_pointer())
        return builder.call(found, arguments)

    owner, given, _ = call.args
    address = api("PyLong_AsUnsignedLongLongMask", i64, owner)
    values = [
        api("PyLong_AsUnsignedLongLongMask", i64, builder.load(builder.gep(given, [i64(i)])))
        for i in range(ARGUMENTS)
    ]
    error = api("PyErr_Occurred", pointer)
    with builder.if_then(builder.icmp_unsigned("!=", error, pointer(None)), likely=False):
        builder.ret(pointer(None))
    state = api("PyEval_SaveThread", pointer)
    kernel = ir.FunctionType(i64, [i64] * ARGUMENTS).as_pointer()
    made = builder.call(builder.inttoptr(address, kernel), values)
    api("PyEval_RestoreThread", ir.VoidType(), state)
    builder.ret(api("PyLong_FromLongLong", pointer, made))
    return str(module)


class _Method(ctypes.Structure):
    """Python's PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


METH_FASTCALL = 0x80


class _Calls:
    """The loaded code."""

    def __init__(self) -> None:
        def make() -> bytes:
            code: bytes = target().emit_object(linked([_module()]))
            return code

        code = cached("calls", ".o", make, (_module, linked, target), host())
        call, mode, table = loaded(code, "call", "exchange", "python")
        api = [ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p) for name in PYTHON]
        store(table, [function.value or 0 for function in api])
        self.method = _Method(b"kernel", call, METH_FASTCALL, None)
        keep(self.method)  # functions of Python refer to it by its address
        self.exchange = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(mode)
        self.new = ctypes.PYFUNCTYPE(
            ctypes.py_object, ctypes.POINTER(_Method), ctypes.py_object, ctypes.c_void_p
        )(("PyCFunction_NewEx", ctypes.pythonapi))


_made: list[_Calls] = []


def _calls() -> _Calls:
    if not _made:
        _made.append(_Calls())
    return _made[0]


def function(address: int) -> Callable[..., int]:
    """Python's function of the kernel at an address, which runs without the GIL.

    It takes `ARGUMENTS` integers; those of 2**63 and more are taken for negative ones.
    """
    calls = _calls()
    made: Callable[..., int] = calls.new(calls.method, address, None)
    return made


def exchange_mode() -> Callable[[int], int]:
    """A function that sets the thread's floating-point mode and returns the former one."""
    return _calls().exchange
