"""Scalar functions that kernels share: marked here, compiled where a kernel calls them.

Nothing here imports Numba before a function is compiled or called.
"""

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

    def __init__(self, function: Callable[..., Any]) -> None:
        self.py_func = function
        self.__name__, self.__doc__ = function.__name__, function.__doc__
        self.__module__, self.__qualname__ = function.__module__, function.__qualname__
        # A list, which threads may fill at once. A lock could stay locked in a forked child.
        self._compiled: list[Any] = []

    @property
    def compiled(self) -> Any:
        """Numba's dispatcher of the function."""
        if not self._compiled:
            from numba import njit  # late: importing Numba takes 0.5 s

            self._compiled.append(njit(**self.targetoptions)(self.py_func))
        return self._compiled[0]

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
