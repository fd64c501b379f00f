"""Arithmetic of Python and NumPy in the default floating-point mode, not the caller's."""

import contextlib
from collections.abc import Callable, Iterator

from numinit.compiler.floats import default
from numinit.engines.preparing import prepared


def _loaded() -> tuple[Callable[[int], int], int]:
    """A function that exchanges modes, and the default mode."""
    from numinit.compiler.calls import exchange_mode
    from numinit.compiler.machine import triple

    return exchange_mode(), default(triple())


_made: list[tuple[Callable[[int], int], int]] = []


def _ready() -> tuple[Callable[[int], int], int]:
    """The result of `_loaded`, made once in a process."""
    if not _made:
        _made.append(prepared(_loaded))
    return _made[0]


@contextlib.contextmanager
def default_mode() -> Iterator[None]:
    """Run the arithmetic of Python and NumPy in the default mode. Also a decorator."""
    call, mode = _ready()
    before = mode
    try:
        before = call(mode)
        yield
    finally:
        call(before)
