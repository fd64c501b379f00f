"""Operations that Numba lacks, built as LLVM code: fma, casts of bits, pointers, atomics."""

from collections.abc import Callable
from typing import Any

import llvmlite.binding
import llvmlite.ir as ir
from numba import types
from numba.extending import intrinsic

from numinit.compiler.floats import default, exchange

llvmlite.binding.initialize_native_asmparser()  # for the assembly of `exchange`


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c`` rounded once, in the type of `a`."""
    return a(a, a, a), lambda context, builder, signature, args: builder.fma(*args)


@intrinsic
def widest_vectors(typingctx: Any) -> Any:
    """Let the function that calls it use vectors of 512 bits, where the processor has them.

    LLVM prefers 256 bits on Intel's, because the first ones with AVX-512 ran slower with more.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # By `set`: llvmlite knows no attributes that are strings.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def default_mode(typingctx: Any) -> Any:
    """Set the thread's floating-point mode to the default; returns the mode that it had, int64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        mode = default(builder.module.triple)
        return exchange(builder, ir.Constant(ir.IntType(64), mode))

    return types.int64(), codegen


@intrinsic
def restore_mode(typingctx: Any, mode: Any) -> Any:
    """Set the thread's floating-point mode to an int64 that `default_mode` returned."""
    return types.int64(types.int64), lambda context, builder, signature, args: exchange(
        builder, args[0]
    )


def for_cuda(builder: Any) -> bool:
    """Whether the code is for a GPU."""
    return bool(builder.module.triple.startswith("nvptx"))


@intrinsic
def product_of_words(typingctx: Any, a: Any, b: Any) -> Any:
    """The product of the lower 32 bits of two uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        i32, i64 = ir.IntType(32), ir.IntType(64)
        if not for_cuda(builder):
            low = ir.Constant(i64, 0xFFFFFFFF)
            return builder.mul(builder.and_(args[0], low), builder.and_(args[1], low))
        # NVVM does not see that the upper halves are zeros, and would multiply them, too.
        kind = ir.FunctionType(i64, (i32, i32))
        wide = ir.InlineAsm(kind, "mul.wide.u32 $0, $1, $2;", "=l,r,r")
        return builder.call(wide, [builder.trunc(x, i32) for x in args])

    return types.uint64(types.uint64, types.uint64), codegen


@intrinsic
def product(typingctx: Any, a: Any, b: Any) -> Any:
    """``a * b`` rounded, in the type of `a`, also where it feeds a sum.

    CUDA's compilers would fuse a plain product with the sum that it feeds.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _rounded_product(builder, *args) if for_cuda(builder) else builder.fmul(*args)

    return a(a, a), codegen


def _rounded_product(builder: Any, a: Any, b: Any) -> Any:
    """CUDA's product that no compiler fuses with a sum."""
    name = "llvm.nvvm.mul.rn." + ("d" if a.type == ir.DoubleType() else "f")
    declared = builder.module.globals.get(name)
    if declared is None:
        kind = ir.FunctionType(a.type, (a.type, a.type))
        declared = ir.Function(builder.module, kind, name)
    return builder.call(declared, (a, b))


def _negative(builder: Any, x: Any) -> Any:
    """``-x``; NVVM does not know the instruction `fneg`."""
    return builder.fsub(ir.Constant(x.type, -0.0), x)


def _approximate(builder: Any, operation: str, x: Any) -> Any:
    """CUDA's approximation of a function of a float32, which has an error of about an ulp."""
    kind = ir.FunctionType(x.type, (x.type,))
    return builder.call(ir.InlineAsm(kind, f"{operation}.approx.ftz.f32 $0, $1;", "=f,f"), [x])


@intrinsic
def root(typingctx: Any, x: Any) -> Any:
    """The square root of a normal float32, rounded."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (x,) = args
        if not for_cuda(builder):
            return builder.call(builder.module.declare_intrinsic("llvm.sqrt", [x.type]), args)
        # As CUDA's compiler does, without its branch for numbers that are not normal: that would
        # keep the assembler from mixing the work of several elements.
        inverse = _approximate(builder, "rsqrt", x)
        near = _rounded_product(builder, x, inverse)
        half = _rounded_product(builder, inverse, ir.Constant(x.type, 0.5))
        return builder.fma(builder.fma(_negative(builder, near), near, x), half, near)

    return x(x), codegen


@intrinsic
def quotient(typingctx: Any, a: Any, b: Any) -> Any:
    """``a / b`` of float32, rounded; b and the quotient are far from the ends of the normal ones."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, b = args
        if not for_cuda(builder):
            return builder.fdiv(a, b)
        # As CUDA's compiler does, without its branch, as above.
        inverse, minus = _approximate(builder, "rcp", b), _negative(builder, b)
        inverse = builder.fma(
            inverse, builder.fma(minus, inverse, ir.Constant(a.type, 1.0)), inverse
        )
        near = _rounded_product(builder, a, inverse)
        near = builder.fma(inverse, builder.fma(minus, near, a), near)
        return builder.fma(inverse, builder.fma(minus, near, a), near)

    return a(a, b), codegen


def _extreme(predicate: str, name: str) -> Any:
    """The smaller or the larger of two float32: a comparison, or CUDA's instruction."""

    def typing(typingctx: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            if not for_cuda(builder):
                return builder.select(builder.fcmp_ordered(predicate, *args), *args)
            kind = ir.FunctionType(args[0].type, (args[0].type,) * 2)
            return builder.call(ir.InlineAsm(kind, f"{name}.f32 $0, $1, $2;", "=f,f,f"), args)

        return a(a, b), codegen

    return intrinsic(typing)


smaller = _extreme("<", "min")
larger = _extreme(">", "max")


def _bitcast(source: Any, target: Any, llvm_target: Any) -> Any:
    """A function that reinterprets the bits of a number as another type."""

    def typing(typingctx: Any, x: Any) -> Any:
        return target(source), lambda context, builder, signature, args: builder.bitcast(
            args[0], llvm_target
        )

    return intrinsic(typing)


float32_bits = _bitcast(types.float32, types.uint32, ir.IntType(32))
bits_float32 = _bitcast(types.uint32, types.float32, ir.FloatType())
float64_bits = _bitcast(types.float64, types.uint64, ir.IntType(64))
bits_float64 = _bitcast(types.uint64, types.float64, ir.DoubleType())


def pointer_to(element: Any) -> Any:
    """A function that takes an int64 address and returns a pointer to a type of Numba's."""

    @intrinsic
    def pointer(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(element)(types.int64), codegen

    return pointer


def scratch(element: Any, count: int) -> Any:
    """A function that returns a pointer to `count` numbers of a type on the stack of its caller."""

    @intrinsic
    def allocate(typingctx: Any) -> Any:
        return types.CPointer(element)(), _allocation(element, count)

    return allocate


@intrinsic(prefer_literal=True)
def scratch_words(typingctx: Any, count: Any) -> Any:
    """A pointer to `count` uint64, a constant, on the stack of the caller."""
    if not isinstance(count, types.IntegerLiteral):
        return None
    return types.CPointer(types.uint64)(count), _allocation(types.uint64, count.literal_value)


def _allocation(element: Any, count: int) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        space = ir.ArrayType(context.get_data_type(element), count)
        with builder.goto_entry_block():  # not by cgutils, which would fill it with zeros
            place = builder.alloca(space)
        place.align = 64
        return builder.bitcast(place, context.get_value_type(signature.return_type))

    return codegen


@intrinsic
def as_uint32(typingctx: Any, words: Any) -> Any:
    """A pointer to uint64 numbers as a pointer to their uint32 halves, in memory order."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.uint32)(words), codegen


@intrinsic
def address_of(typingctx: Any, place: Any) -> Any:
    """The int64 address of a pointer."""
    return types.int64(place), lambda context, builder, signature, args: builder.ptrtoint(
        args[0], ir.IntType(64)
    )


LINE = 64  # bytes


@intrinsic
def stream_line(typingctx: Any, target: Any, source: Any) -> Any:
    """Copy `LINE` bytes between int64 addresses, past the caches; the target's is a multiple of it.

    Such stores are not ordered with others before `fence`.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        line = ir.VectorType(ir.IntType(32), LINE // 4).as_pointer()
        target, source = (builder.inttoptr(address, line) for address in args)
        store = builder.store(builder.load(source, align=1), target, align=LINE)
        one = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        store.set_metadata("nontemporal", one)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def fence(typingctx: Any) -> Any:
    """Let every store before it be seen before any after it, by all threads."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def fetch_add(typingctx: Any, address: Any, amount: Any) -> Any:
    """Add to the int64 at an address in one atomic step; returns its former value."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", place, args[1], "monotonic")

    return types.int64(types.int64, types.int64), codegen


def record(kind: type[tuple[Any, ...]], element: Any) -> Any:
    """A function that loads an instance of a NamedTuple, all of one type, from an int64 address."""
    loaded = types.NamedUniTuple(element, len(kind._fields), kind)  # type: ignore[attr-defined]

    @intrinsic
    def load(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            place = builder.inttoptr(args[0], context.get_value_type(element).as_pointer())
            indices = (ir.Constant(ir.IntType(32), i) for i in range(loaded.count))
            items = [builder.load(builder.gep(place, [index])) for index in indices]
            return context.make_tuple(builder, loaded, items)

        return loaded(types.int64), codegen

    return load


#: The operations by their names in `numinit.compiler.inline`, as functions that Numba can inline.
PRIMITIVES: dict[str, Callable[..., Any]] = {
    "fma": lambda a, b, c: fma(a, b, c),
    "product": lambda a, b: product(a, b),
    "root": lambda x: root(x),
    "quotient": lambda a, b: quotient(a, b),
    "smaller": lambda a, b: smaller(a, b),
    "larger": lambda a, b: larger(a, b),
    "product_of_words": lambda a, b: product_of_words(a, b),
    "float32_bits": lambda x: float32_bits(x),
    "bits_float32": lambda x: bits_float32(x),
    "float64_bits": lambda x: float64_bits(x),
    "bits_float64": lambda x: bits_float64(x),
    "scratch_words": lambda count: scratch_words(count),
}
