"""Operations of kernels for CUDA alone: which thread it is, and device memory.

Under the simulator, device memory is the process's own.
"""

from collections.abc import Iterator
from typing import Any

from numinit.compiler.intrinsics import Build, Primitive, for_cuda, primitive

GLOBAL = 1  # LLVM's number for the address space of device memory
WIDEST = 16  # bytes that a thread stores at once


class Register(Primitive):
    """A primitive that is numba.cuda's function of that name under the simulator."""

    def __call__(self, *arguments: Any) -> Any:
        from numba.cuda.simulator.kernel import _get_kernel_context

        return getattr(_get_kernel_context(), self.__name__)(1)


def _register(build: Build) -> Register:
    return Register(lambda types: types.int64(), build)


def _read(builder: Any, *names: str) -> list[Any]:
    """Special registers of a thread, as i64."""
    from llvmlite import ir

    i32, i64 = ir.IntType(32), ir.IntType(64)
    found = []
    for name in names:
        full = f"llvm.nvvm.read.ptx.sreg.{name}.x"
        declared = builder.module.globals.get(full)
        if declared is None:
            declared = ir.Function(builder.module, ir.FunctionType(i32, ()), full)
        found.append(builder.sext(builder.call(declared, ()), i64))
    return found


@_register
def grid(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """The number of this thread in its launch, int64."""
    thread, block, size = _read(builder, "tid", "ctaid", "ntid")
    return builder.add(builder.mul(block, size), thread)


@_register
def gridsize(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """The number of threads of this launch, int64."""
    return builder.mul(*_read(builder, "ntid", "nctaid"))


def _leaves(kind: Any) -> Iterator[Any]:
    """The types of the numbers in a nested tuple."""
    if getattr(kind, "types", None) is not None:
        for item in kind:
            yield from _leaves(item)
    else:
        yield kind


def _flattened(builder: Any, kind: Any, value: Any) -> list[Any]:
    """LLVM's values of the numbers in a nested tuple."""
    if getattr(kind, "types", None) is None:
        return [value]
    parts = (builder.extract_value(value, i) for i in range(len(kind)))
    return [
        x for item, part in zip(kind, parts, strict=True) for x in _flattened(builder, item, part)
    ]


def _words(builder: Any, scalars: list[Any], size: int) -> list[Any]:
    """Numbers of `size` bytes each, packed into 32-bit words."""
    from llvmlite import ir

    i32, i64 = ir.IntType(32), ir.IntType(64)
    whole = [builder.bitcast(x, ir.IntType(8 * size)) for x in scalars]
    if size == 8:
        halves = ((x, builder.lshr(x, i64(32))) for x in whole)
        return [builder.trunc(half, i32) for pair in halves for half in pair]
    words = []
    for begin in range(0, len(whole), 4 // size):
        word = builder.zext(whole[begin], i32)
        for i in range(1, 4 // size):
            part = builder.zext(whole[begin + i], i32)
            word = builder.or_(word, builder.shl(part, i32(8 * size * i)))
        words.append(word)
    return words


def _place(builder: Any, address: Any, offset: int, kind: Any) -> Any:
    """A pointer to device memory, `offset` bytes after an address."""
    return builder.inttoptr(builder.add(address, address.type(offset)), kind.as_pointer(GLOBAL))


@primitive(lambda types, address, values: types.void(types.int64, values))
def store_element(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Store a number, or the two parts of a complex one, at an int64 address."""
    for i, scalar in enumerate(_flattened(builder, signature.args[1], args[1])):
        size = context.get_abi_sizeof(scalar.type)
        builder.store(scalar, _place(builder, args[0], i * size, scalar.type), align=size)
    return context.get_dummy_value()


def _packed_type(types: Any, values: Any) -> Any:
    bits = sum(number.bitwidth for number in _leaves(values))
    return types.UniTuple(types.uint32, bits // 32)(values)


@primitive(_packed_type)
def packed(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Pack a nested tuple of numbers of one type into a tuple of uint32, in memory order.

    Packed here, because NVVM would store a vector of narrow numbers in parts.
    """
    size = next(_leaves(signature.args[0])).bitwidth // 8
    words = _words(builder, _flattened(builder, signature.args[0], args[0]), size)
    return context.make_tuple(builder, signature.return_type, words)


def pairs_of(kind: str) -> Primitive:
    """As `packed`, of float32 that are rounded to a narrower type by a GPU's instruction."""

    @primitive(
        lambda types, values: types.UniTuple(types.uint32, len(list(_leaves(values))) // 2)(values)
    )
    def pairs(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        from llvmlite import ir

        i32, f32 = ir.IntType(32), ir.FloatType()
        pair = ir.FunctionType(i32, (f32, f32))  # the upper half comes first
        rounded = ir.InlineAsm(pair, f"cvt.rn.{kind}.f32 $0, $1, $2;", "=r,f,f")
        scalars = _flattened(builder, signature.args[0], args[0])
        made = [
            builder.call(rounded, [high, low])
            for low, high in zip(scalars[::2], scalars[1::2], strict=True)
        ]
        return context.make_tuple(builder, signature.return_type, made)

    return pairs


@primitive(lambda types, x: x(x))
def kept(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """An int32 that is computed once, here; CUDA's compiler might compute it again in a loop."""
    from llvmlite import ir

    if not for_cuda(builder):
        return args[0]
    kind = ir.FunctionType(args[0].type, (args[0].type,))
    return builder.call(ir.InlineAsm(kind, "mov.u32 $0, $1;", "=r,r", True), args)


@primitive(lambda types, word: types.uint32(types.uint64))
def low_word(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """The lower half of a uint64, as uint32."""
    from llvmlite import ir

    i32, i64 = ir.IntType(32), ir.IntType(64)
    if not for_cuda(builder):
        return builder.trunc(args[0], i32)
    # NVVM would make shifts of the word, which follow, ones of 64 bits.
    low = ir.InlineAsm(ir.FunctionType(i32, (i64,)), "cvt.u32.u64 $0, $1;", "=r,l")
    return builder.call(low, [args[0]])


@primitive(lambda types, address, words: types.void(types.int64, words))
def store_words(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Store a tuple of uint32, a multiple of four, at an int64 address, a multiple of `WIDEST`."""
    from llvmlite import ir

    i32 = ir.IntType(32)
    scalars = _flattened(builder, signature.args[1], args[1])
    kind = ir.VectorType(i32, WIDEST // 4)
    for begin in range(0, len(scalars), WIDEST // 4):
        vector = kind(ir.Undefined)
        for i in range(WIDEST // 4):
            vector = builder.insert_element(vector, scalars[begin + i], i32(i))
        builder.store(vector, _place(builder, args[0], 4 * begin, kind), align=WIDEST)
    return context.get_dummy_value()


@primitive(lambda types, address: types.int64(types.int64))
def load_int64(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Load the int64 at an int64 address."""
    return builder.load(builder.inttoptr(args[0], args[0].type.as_pointer(GLOBAL)), align=8)
