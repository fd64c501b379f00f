"""How kernels are compiled for CUDA, and the memory operations that only they need.

The functions that `numinit.compiler.inline` marks are used as they are. Nothing here needs a driver
or a GPU.

Under Numba's CUDA simulator (NUMBA_ENABLE_CUDASIM=1) a kernel is a Python function. It calls the
inline functions as compiled for the CPU, and device memory is the process's own.
"""

import functools
import importlib
import re
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.ir as ir
import numpy as np
from numba import cuda, types
from numba.core import config
from numba.extending import intrinsic

from numinit.compiler import cache
from numinit.compiler.intrinsics import for_cuda

SIMULATED = bool(config.ENABLE_CUDASIM)
if not (SIMULATED or hasattr(np, "row_stack")):
    # NumPy 2.5 has removed this function. numba-cuda, which is no longer developed, looks it up
    # when it is imported.
    vars(np)["row_stack"] = lambda arrays: np.vstack(arrays)
    importlib.import_module("numba.cuda.np.arrayobj")
    del vars(np)["row_stack"]
GLOBAL = 1  # LLVM's number for the address space of device memory
WIDEST = 16  # bytes that a thread stores at once


class Image(NamedTuple):
    """The machine code of one kernel, for the driver to load."""

    name: bytes
    """Of the kernel in the code."""
    code: bytes


def ptx(function: Callable[..., Any], signature: tuple[Any, ...], capability: Any) -> str:
    """The PTX of a kernel's function for a compute capability.

    It is compiled without fastmath, so that division and sqrt round correctly. The compiler may
    still fuse a product that feeds a sum, which is why the transforms have none.
    """
    function.__qualname__ = function.__name__
    code, _ = cuda.compile(
        function, signature, cc=capability, output="ptx", abi="numba", device=False,
        debug=False, opt=True,
    )  # fmt: skip
    return str(code)


def assembled(text: str, *options: str) -> tuple[bytes, str]:
    """Assemble PTX with CUDA's own assembler; returns the machine code and the messages.

    Raises
    ------
    RuntimeError
        If it fails, with the assembler's message.
    """
    from cuda.bindings import nvjitlink

    (arch,) = re.findall(r"\.target (sm_\w+)", text)
    options = (f"-arch={arch}", "-Xptxas=--fmad=false", *options)
    link, said = 0, bytearray()
    try:
        link = nvjitlink.create(len(options), options)
        data = text.encode()
        nvjitlink.add_data(link, nvjitlink.InputType.PTX, data, len(data), "kernel")
        nvjitlink.complete(link)
    except nvjitlink.nvJitLinkError as error:
        if link:
            said = bytearray(nvjitlink.get_error_log_size(link))
            nvjitlink.get_error_log(link, said)
            nvjitlink.destroy(link)
        why = f"{error} {_text(said)}"
        raise RuntimeError(f"CUDA's assembler has no code for {arch}: {why}") from None
    try:
        code = bytearray(nvjitlink.get_linked_cubin_size(link))
        nvjitlink.get_linked_cubin(link, code)
        said = bytearray(nvjitlink.get_info_log_size(link))
        nvjitlink.get_info_log(link, said)
    finally:
        nvjitlink.destroy(link)
    return bytes(code), _text(said)


def _text(log: bytearray) -> str:
    return log.decode(errors="replace").strip("\0\n ")


def image(
    function: Callable[..., Any], signature: tuple[Any, ...], capability: tuple[int, int]
) -> Image:
    """Compile a kernel's function for a compute capability, or load it from the cache.

    Raises
    ------
    ImportError
        If a part of CUDA's toolkit is missing.
    RuntimeError
        If the assembler fails.
    """
    source = cache.made_from(function.__name__, function, ptx, assembled)
    made_by = capability, str(signature), _toolkit()
    file = cache.file_of(function.__name__, ".cubin", *made_by) if source else None
    saved = cache.load(file, source) if file and source else None
    if saved is None:
        text = ptx(function, signature, capability)
        (name,) = re.findall(r"\.entry (\w+)", text)
        saved = name.encode() + b"\0" + assembled(text)[0]
        if file and source:
            cache.save(file, source, saved)
    name, _, code = saved.partition(b"\0")
    return Image(name, code)


@functools.cache
def _toolkit() -> list[Any]:
    """The versions of all that compiles for CUDA, for the name of a cached file.

    Raises
    ------
    ImportError
        If a part is missing.
    """
    from cuda import pathfinder
    from numba.cuda.cudadrv.libs import get_libdevice

    found: list[Any] = [metadata.version(name) for name in ("numba", "numba-cuda", "llvmlite")]
    found.append(config.FORCE_CUDA_CC)
    for library in ("nvvm", "nvJitLink"):
        try:
            path = Path(pathfinder.load_nvidia_dynamic_lib(library).abs_path or "")
        except pathfinder.DynamicLibNotFoundError:
            raise ImportError(
                f"array: it is in the memory of a GPU, for which CUDA's {library} is not installed: "
                "pip install 'numinit[cuda12]' or 'numinit[cuda13]', by the version of CUDA"
            ) from None
        found += _file(path)
    return found + _file(Path(get_libdevice() or ""))


def _file(path: Path) -> list[Any]:
    if not path.is_file():
        return [path.name]
    return [path.name, path.stat().st_size, path.stat().st_mtime_ns]


def simulated(function: Callable[..., Any], signature: tuple[Any, ...]) -> Any:
    """Numba's kernel of a function under the simulator."""
    return cuda.jit(types.void(*signature))(function)


def _leaves(kind: Any) -> Iterator[Any]:
    """The types of the numbers in a nested tuple."""
    if isinstance(kind, types.BaseTuple):
        for item in kind:
            yield from _leaves(item)
    else:
        yield kind


def _flattened(builder: Any, kind: Any, value: Any) -> list[Any]:
    """LLVM's values of the numbers in a nested tuple."""
    if not isinstance(kind, types.BaseTuple):
        return [value]
    parts = (builder.extract_value(value, i) for i in range(len(kind)))
    return [
        x for item, part in zip(kind, parts, strict=True) for x in _flattened(builder, item, part)
    ]


def _words(builder: Any, scalars: list[Any], size: int) -> list[Any]:
    """Numbers of `size` bytes each, packed into 32-bit words."""
    i32, i64 = ir.IntType(32), ir.IntType(64)
    whole = [builder.bitcast(x, ir.IntType(8 * size)) for x in scalars]
    if size == 8:
        halves = ((x, builder.lshr(x, ir.Constant(i64, 32))) for x in whole)
        return [builder.trunc(half, i32) for pair in halves for half in pair]
    words = []
    for begin in range(0, len(whole), 4 // size):
        word = builder.zext(whole[begin], i32)
        for i in range(1, 4 // size):
            part = builder.zext(whole[begin + i], i32)
            word = builder.or_(word, builder.shl(part, ir.Constant(i32, 8 * size * i)))
        words.append(word)
    return words


def _place(builder: Any, address: Any, offset: int, kind: Any) -> Any:
    """A pointer to device memory, `offset` bytes after an address."""
    where = builder.add(address, ir.Constant(ir.IntType(64), offset))
    return builder.inttoptr(where, kind.as_pointer(GLOBAL))


@intrinsic
def store_element(typingctx: Any, address: Any, values: Any) -> Any:
    """Store a number, or the two parts of a complex one, at an int64 address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        for i, scalar in enumerate(_flattened(builder, values, args[1])):
            size = context.get_abi_sizeof(scalar.type)
            builder.store(scalar, _place(builder, args[0], i * size, scalar.type), align=size)
        return context.get_dummy_value()

    return types.void(types.int64, values), codegen


@intrinsic
def packed(typingctx: Any, values: Any) -> Any:
    """Pack a nested tuple of numbers of one type into a tuple of uint32, in memory order.

    Packed here, because NVVM would store a vector of narrow numbers in parts.
    """
    numbers = list(_leaves(values))
    count = len(numbers) * numbers[0].bitwidth // 32
    words = types.UniTuple(types.uint32, count)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scalars = _flattened(builder, values, args[0])
        return context.make_tuple(
            builder, words, _words(builder, scalars, numbers[0].bitwidth // 8)
        )

    return words(values), codegen


def pairs_of(kind: str) -> Any:
    """As `packed`, of float32 that are rounded to a narrower type by a GPU's instruction."""

    @intrinsic
    def pairs(typingctx: Any, values: Any) -> Any:
        words = types.UniTuple(types.uint32, len(list(_leaves(values))) // 2)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            i32, f32 = ir.IntType(32), ir.FloatType()
            pair = ir.FunctionType(i32, (f32, f32))  # the upper half comes first
            rounded = ir.InlineAsm(pair, f"cvt.rn.{kind}.f32 $0, $1, $2;", "=r,f,f")
            scalars = _flattened(builder, values, args[0])
            made = [
                builder.call(rounded, [high, low])
                for low, high in zip(scalars[::2], scalars[1::2], strict=True)
            ]
            return context.make_tuple(builder, words, made)

        return words(values), codegen

    return pairs


@intrinsic
def kept(typingctx: Any, x: Any) -> Any:
    """An int32 that is computed once, here; CUDA's compiler might compute it again in a loop."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if not for_cuda(builder):
            return args[0]
        kind = ir.FunctionType(args[0].type, (args[0].type,))
        return builder.call(ir.InlineAsm(kind, "mov.u32 $0, $1;", "=r,r", True), args)

    return x(x), codegen


@intrinsic
def low_word(typingctx: Any, word: Any) -> Any:
    """The lower half of a uint64, as uint32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        i32, i64 = ir.IntType(32), ir.IntType(64)
        if not for_cuda(builder):
            return builder.trunc(args[0], i32)
        # NVVM would make shifts of the word, which follow, ones of 64 bits.
        low = ir.InlineAsm(ir.FunctionType(i32, (i64,)), "cvt.u32.u64 $0, $1;", "=r,l")
        return builder.call(low, [args[0]])

    return types.uint32(types.uint64), codegen


@intrinsic
def store_words(typingctx: Any, address: Any, words: Any) -> Any:
    """Store a tuple of uint32, a multiple of four, at an int64 address, a multiple of `WIDEST`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scalars = _flattened(builder, words, args[1])
        kind = ir.VectorType(ir.IntType(32), WIDEST // 4)
        for begin in range(0, len(scalars), WIDEST // 4):
            vector = ir.Constant(kind, ir.Undefined)
            for i in range(WIDEST // 4):
                place = ir.Constant(ir.IntType(32), i)
                vector = builder.insert_element(vector, scalars[begin + i], place)
            builder.store(vector, _place(builder, args[0], 4 * begin, kind), align=WIDEST)
        return context.get_dummy_value()

    return types.void(types.int64, words), codegen


@intrinsic
def load_int64(typingctx: Any, address: Any) -> Any:
    """Load the int64 at an int64 address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer(GLOBAL))
        return builder.load(pointer, align=8)

    return types.int64(types.int64), codegen
