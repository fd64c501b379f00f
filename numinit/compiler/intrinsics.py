"""Operations that Numba lacks, each built as LLVM code: fma, casts of bits, pointers, atomics.

Nothing here imports Numba or LLVM before a kernel is compiled.
"""

import inspect
from collections.abc import Callable
from typing import Any

from numinit.compiler.floats import default, exchange

Build = Callable[[Any, Any, Any, Any], Any]


class Primitive:
    """An operation that kernels call.

    Parameters
    ----------
    typed : callable
        ``typed(types, *arguments)`` returns Numba's signature for arguments of some types; `types`
        is ``numba.types``.
    build : callable
        ``build(context, builder, signature, args)`` builds the code and returns the result, as for
        ``numba.extending.intrinsic``. It has the operation's name and docstring.
    """

    def __init__(self, typed: Callable[..., Any], build: Build) -> None:
        self.typed, self.build = typed, build
        self.__name__, self.__doc__ = build.__name__, build.__doc__
        self.__module__, self.__qualname__ = build.__module__, build.__qualname__
        # Lists, which threads may fill at once. A lock could stay locked in a forked child.
        self._types: list[Any] = []
        self._compiled: list[Any] = []

    @property
    def _numba_type_(self) -> Any:
        """What Numba takes the object for."""
        if not self._types:
            from numba import types
            from numba.core.typing.templates import make_intrinsic_template

            def definition(context: Any, *arguments: Any) -> Any:
                return self.typed(types, *arguments), self.build

            vars(definition)["__signature__"] = inspect.signature(self.typed)
            template = make_intrinsic_template(self, definition, self.__name__)
            self._types.append(types.Function(template))
        return self._types[0]

    def __call__(self, *arguments: Any) -> Any:
        """Do the operation, as compiled for the CPU."""
        if not self._compiled:
            from numba import njit  # late: importing Numba takes 0.5 s

            self._compiled.append(njit(lambda *arguments: self(*arguments)))
        return self._compiled[0](*arguments)

    def __reduce__(self) -> str:
        return self.__qualname__  # Numba copies what it compiles; this is never copied

    def __repr__(self) -> str:
        return f"<primitive {self.__module__}.{self.__qualname__}>"


def primitive(typed: Callable[..., Any]) -> Callable[[Build], Primitive]:
    """Decorator: make an operation of a function that builds its code; see `Primitive`."""
    return lambda build: Primitive(typed, build)


@primitive(lambda types, a, b, c: a(a, a, a))
def fma(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """``a * b + c`` rounded once, in the type of `a`."""
    return builder.fma(*args)


@primitive(lambda types: types.void())
def widest_vectors(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Let the function that calls it use vectors of 512 bits, where the processor has them.

    LLVM prefers 256 bits on Intel's, because the first ones with AVX-512 ran slower with more.
    """
    # By `set`: llvmlite knows no attributes that are strings.
    set.add(builder.function.attributes, '"prefer-vector-width"="512"')
    return context.get_dummy_value()


@primitive(lambda types: types.int64())
def default_mode(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Set the thread's floating-point mode to the default; returns the mode that it had, int64."""
    kind = context.get_value_type(signature.return_type)
    return exchange(builder, kind(default(builder.module.triple)))


@primitive(lambda types, mode: types.int64(types.int64))
def restore_mode(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Set the thread's floating-point mode to an int64 that `default_mode` returned."""
    return exchange(builder, args[0])


def for_cuda(builder: Any) -> bool:
    """Whether the code is for a GPU."""
    return bool(builder.module.triple.startswith("nvptx"))


@primitive(lambda types, a, b: types.uint64(types.uint64, types.uint64))
def product_of_words(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """The product of the lower 32 bits of two uint64."""
    from llvmlite import ir

    i32, i64 = ir.IntType(32), ir.IntType(64)
    if not for_cuda(builder):
        low = i64(0xFFFFFFFF)
        return builder.mul(builder.and_(args[0], low), builder.and_(args[1], low))
    # NVVM does not see that the upper halves are zeros, and would multiply them, too.
    wide = ir.InlineAsm(ir.FunctionType(i64, (i32, i32)), "mul.wide.u32 $0, $1, $2;", "=l,r,r")
    return builder.call(wide, [builder.trunc(x, i32) for x in args])


@primitive(lambda types, a, b: a(a, a))
def product(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """``a * b`` rounded, in the type of `a`, also where it feeds a sum.

    CUDA's compilers would fuse a plain product with the sum that it feeds.
    """
    return _rounded_product(builder, *args) if for_cuda(builder) else builder.fmul(*args)


def _rounded_product(builder: Any, a: Any, b: Any) -> Any:
    """CUDA's product that no compiler fuses with a sum."""
    from llvmlite import ir

    name = "llvm.nvvm.mul.rn." + ("d" if a.type == ir.DoubleType() else "f")
    declared = builder.module.globals.get(name)
    if declared is None:
        kind = ir.FunctionType(a.type, (a.type, a.type))
        declared = ir.Function(builder.module, kind, name)
    return builder.call(declared, (a, b))


def _negative(builder: Any, x: Any) -> Any:
    """``-x``; NVVM does not know the instruction `fneg`."""
    return builder.fsub(x.type(-0.0), x)


def _approximate(builder: Any, operation: str, x: Any) -> Any:
    """CUDA's approximation of a function of a float32, which has an error of about an ulp."""
    from llvmlite import ir

    kind = ir.FunctionType(x.type, (x.type,))
    return builder.call(ir.InlineAsm(kind, f"{operation}.approx.ftz.f32 $0, $1;", "=f,f"), [x])


@primitive(lambda types, x: x(x))
def root(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """The square root of a positive normal float32, rounded."""
    (x,) = args
    if not for_cuda(builder):
        return builder.call(builder.module.declare_intrinsic("llvm.sqrt", [x.type]), args)
    # As CUDA's compiler does, without its branch for numbers that are not normal: that would keep
    # the assembler from mixing the work of several elements.
    inverse = _approximate(builder, "rsqrt", x)
    near = _rounded_product(builder, x, inverse)
    half = _rounded_product(builder, inverse, x.type(0.5))
    return builder.fma(builder.fma(_negative(builder, near), near, x), half, near)


@primitive(lambda types, a, b: a(a, b))
def quotient(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """``a / b`` of float32, rounded; `b` and the quotient are far from the ends of the normal ones."""
    a, b = args
    if not for_cuda(builder):
        return builder.fdiv(a, b)
    # As CUDA's compiler does, without its branch, as above.
    inverse, minus = _approximate(builder, "rcp", b), _negative(builder, b)
    inverse = builder.fma(inverse, builder.fma(minus, inverse, a.type(1.0)), inverse)
    near = _rounded_product(builder, a, inverse)
    near = builder.fma(inverse, builder.fma(minus, near, a), near)
    return builder.fma(inverse, builder.fma(minus, near, a), near)


def _extreme(builder: Any, args: Any, predicate: str, name: str) -> Any:
    """The smaller or the larger of two float32: a comparison, or CUDA's instruction."""
    from llvmlite import ir

    if not for_cuda(builder):
        return builder.select(builder.fcmp_ordered(predicate, *args), *args)
    kind = ir.FunctionType(args[0].type, (args[0].type,) * 2)
    return builder.call(ir.InlineAsm(kind, f"{name}.f32 $0, $1, $2;", "=f,f,f"), args)


@primitive(lambda types, a, b: a(a, b))
def smaller(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """The smaller of two float32, b if a is no number.

    Which of two zeros with different signs it is depends on the machine.
    """
    return _extreme(builder, args, "<", "min")


@primitive(lambda types, a, b: a(a, b))
def larger(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """The larger of two float32, as `smaller`."""
    return _extreme(builder, args, ">", "max")


@primitive(lambda types, word, mask: types.boolean(types.uint32, types.uint32))
def overlap(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Whether two uint32 have a bit in common."""
    from llvmlite import ir

    i1, i32 = ir.IntType(1), ir.IntType(32)
    if not for_cuda(builder):
        return builder.icmp_unsigned("!=", builder.and_(*args), i32(0))
    # One instruction of the GPU, of which NVVM would make three.
    text = "and.b32 $1, $2, $3;\nsetp.ne.u32 $0, $1, 0;"
    kind = ir.FunctionType(ir.LiteralStructType((i1, i32)), (i32, i32))
    return builder.extract_value(builder.call(ir.InlineAsm(kind, text, "=b,=r,r,r"), args), 0)


def cast(source: str, target: str) -> Primitive:
    """An operation that takes the bits of a number of one type of Numba's for another's."""

    @primitive(lambda types, x: getattr(types, target)(getattr(types, source)))
    def bits(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(signature.return_type))

    return bits


float32_bits, bits_float32 = cast("float32", "uint32"), cast("uint32", "float32")
float64_bits, bits_float64 = cast("float64", "uint64"), cast("uint64", "float64")


def pointer_to(element: str) -> Primitive:
    """An operation that makes an int64 address a pointer to numbers of a type of Numba's."""

    @primitive(lambda types, address: types.CPointer(getattr(types, element))(types.int64))
    def pointer(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return pointer


def scratch(element: str, count: int) -> Primitive:
    """An operation that returns a pointer to `count` numbers of a type on its caller's stack."""

    @primitive(lambda types: types.CPointer(getattr(types, element))())
    def allocate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        from llvmlite import ir

        number = context.get_data_type(signature.return_type.dtype)
        with builder.goto_entry_block():  # not by cgutils, which would fill it with zeros
            place = builder.alloca(ir.ArrayType(number, count))
        place.align = 64
        return builder.bitcast(place, context.get_value_type(signature.return_type))

    return allocate


@primitive(lambda types, words: types.CPointer(types.uint32)(words))
def as_uint32(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """A pointer to uint64 numbers as a pointer to their uint32 halves, in memory order."""
    return builder.bitcast(args[0], context.get_value_type(signature.return_type))


@primitive(lambda types, place: types.int64(place))
def address_of(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """The int64 address of a pointer."""
    return builder.ptrtoint(args[0], context.get_value_type(signature.return_type))


LINE = 64  # bytes


@primitive(lambda types, target, source: types.void(types.int64, types.int64))
def stream_line(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Copy `LINE` bytes between int64 addresses, past the caches; the target's is a multiple of it.

    Such stores are not ordered with others before `fence`.
    """
    from llvmlite import ir

    line = ir.VectorType(ir.IntType(32), LINE // 4).as_pointer()
    target, source = (builder.inttoptr(address, line) for address in args)
    store = builder.store(builder.load(source, align=1), target, align=LINE)
    store.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
    return context.get_dummy_value()


@primitive(lambda types: types.void())
def fence(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Let every store before it be seen before any after it, by all threads."""
    builder.fence("seq_cst")
    return context.get_dummy_value()


@primitive(lambda types, address, amount: types.int64(types.int64, types.int64))
def fetch_add(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Add to the int64 at an address in one atomic step; returns its former value."""
    place = builder.inttoptr(args[0], args[1].type.as_pointer())
    return builder.atomic_rmw("add", place, args[1], "monotonic")


def record(kind: type[tuple[Any, ...]], element: str) -> Primitive:
    """An operation that loads a NamedTuple, all of one type of Numba's, from an int64 address."""
    count = len(kind._fields)  # type: ignore[attr-defined]

    @primitive(
        lambda types, address: types.NamedUniTuple(getattr(types, element), count, kind)(
            types.int64
        )
    )
    def load(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        from llvmlite import ir

        loaded = signature.return_type
        place = builder.inttoptr(args[0], context.get_value_type(loaded.dtype).as_pointer())
        items = [builder.load(builder.gep(place, [ir.IntType(32)(i)])) for i in range(count)]
        return context.make_tuple(builder, loaded, items)

    return load
