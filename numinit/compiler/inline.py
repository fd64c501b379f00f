"""Scalar functions that kernels share: marked here, compiled where a kernel calls them.

Nothing here imports Numba before a function is compiled or called.
"""

import functools
from collections.abc import Callable
from typing import Any, ClassVar


class Inline:
    """A pure scalar function that is inlined into every kernel that calls it.

    It is inlined before type inference, so that kernels for the CPU and for CUDA share one source.
    Inlining also lets LLVM vectorize the kernels' loops. Numba inlines any object that has the
    attributes `targetoptions` and `py_func` of its dispatchers.

    Parameters
    ----------
    function : callable
        A function of numbers and tuples of numbers.

    Examples
    --------
    >>> from numinit.compiler.inline import inline
    >>> @inline
    ... def twice(x):
    ...     return x + x
    >>> twice(2.0)
    4.0
    """

    targetoptions: ClassVar[dict[str, Any]] = {"inline": "always", "error_model": "numpy"}

    py_func: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        self.py_func = function
        self.__name__, self.__doc__ = function.__name__, function.__doc__
        self.__module__, self.__qualname__ = function.__module__, function.__qualname__

    @functools.cached_property
    def compiled(self) -> Any:
        """Numba's dispatcher of the function."""
        from numba import njit  # late: importing Numba takes 0.5 s

        return njit(**self.targetoptions)(self.py_func)

    @property
    def _numba_type_(self) -> Any:
        return self.compiled._numba_type_

    def __call__(self, *arguments: Any) -> Any:
        """Call the function as compiled for the CPU; its results are those of the kernels."""
        return self.compiled(*arguments)

    def __reduce__(self) -> str:
        return self.__qualname__  # pickled as a function is, by its name

    def __repr__(self) -> str:
        return f"<inline {self.__module__}.{self.__qualname__}>"


inline = Inline


class Primitive(Inline):
    """An operation of `numinit.compiler.intrinsics`, imported when it is first compiled.

    Parameters
    ----------
    name : str
        A key of `numinit.compiler.intrinsics.PRIMITIVES`.
    doc : str
        Its docstring.
    """

    def __init__(self, name: str, doc: str) -> None:
        self.__name__ = self.__qualname__ = name
        self.__doc__, self.__module__ = doc, __name__

    @functools.cached_property
    def py_func(self) -> Callable[..., Any]:  # type: ignore[override]
        from numba.core.registry import cpu_target

        from numinit.compiler import intrinsics

        # Numba may be in the middle of another function, before it knows these intrinsics.
        cpu_target.typing_context.refresh()
        return intrinsics.PRIMITIVES[self.__name__]


fma = Primitive("fma", "``a * b + c`` rounded once, in the type of `a`.")
product = Primitive(
    "product",
    """``a * b`` rounded, in the type of `a`, also where it feeds a sum.

    CUDA's compilers would fuse a plain product with the sum that it feeds.
    """,
)
root = Primitive("root", "The square root of a positive normal float32, rounded.")
quotient = Primitive(
    "quotient",
    "``a / b`` of float32, rounded; `b` and the quotient are far from the ends of the normal ones.",
)
smaller = Primitive(
    "smaller",
    """The smaller of two float32, b if a is no number.

    Which of two zeros with different signs it is depends on the machine.
    """,
)
larger = Primitive("larger", "The larger of two float32, likewise.")
product_of_words = Primitive("product_of_words", "The product of the lower 32 bits of two uint64.")
float32_bits = Primitive("float32_bits", "The bits of a float32 as uint32.")
bits_float32 = Primitive("bits_float32", "The float32 of the bits in a uint32.")
float64_bits = Primitive("float64_bits", "The bits of a float64 as uint64.")
bits_float64 = Primitive("bits_float64", "The float64 of the bits in a uint64.")

scratch_words = Primitive(
    "scratch_words", "A pointer to `count` uint64, a constant, on the stack of the caller."
)
