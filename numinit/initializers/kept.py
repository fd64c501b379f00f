"""A cache of fills.

A model's layers are alike, and to plan a small fill takes longer than the fill.
"""

import dataclasses
import functools
import numbers
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

MOST = 256  # values that make up an initializer whose fills are kept, or characters of one
HUGE = 1 << 128  # integers that are larger are not kept
OWN = 4  # fills that an initializer keeps for itself

#: Attributes of an initializer that this module adds.
ADDED = frozenset({"_ready", "_fills"})


class Unshared(LookupError):
    """An initializer never changes, but no cache may keep what it holds alive."""


class Exactly(tuple[Any, ...]):
    """A cache's key of an initializer, which compares types and values.

    The initializers' own equality is too weak, because -0.0 == 0.0 and True == 1 == 1 + 0j.

    Raises
    ------
    LookupError
        If the initializer is large, may change, or has fields other than numbers and names. It is
        `Unshared` if those others are functions and read-only arrays.
    """

    init: Any

    def __new__(cls, init: Any) -> "Exactly":
        leaves: list[Any] = []
        if _collect((init,), leaves):
            raise Unshared
        made = super().__new__(cls, leaves)
        made.init = init
        return made


def _collect(values: Iterable[Any], leaves: list[Any]) -> bool:
    """Append the types and values that make up values; whether some cannot be compared."""
    unshared = False
    for value in values:
        kind: Any = type(value)
        if kind is float:
            leaves += kind, value or repr(value)  # the sign of a zero, too
        elif kind is int or kind is bool or value is None:
            if value and not -HUGE < value < HUGE:
                raise LookupError
            leaves += kind, value
        elif kind is str or kind is bytes or kind is tuple:
            if len(value) > MOST:
                raise LookupError
            leaves += kind, value if kind is not tuple else len(value)
            if kind is tuple:
                unshared |= _collect(value, leaves)
        elif (known := _fields(kind)) is not None:
            names, allowed = known
            if not getattr(value, "__dict__", {}).keys() <= allowed:
                raise LookupError  # it has more, which `plan` may use
            leaves.append(kind)
            unshared |= _collect([getattr(value, name) for name in names], leaves)
        elif isinstance(value, tuple) and not hasattr(value, "__dict__"):
            leaves += kind, len(value)
            unshared |= _collect(tuple(value), leaves)
        elif isinstance(value, numbers.Number) and not hasattr(value, "__dict__"):
            leaves += kind, repr(value)
        elif isinstance(value, np.ndarray):
            if value.flags.writeable or not value.flags.owndata:
                raise LookupError
            unshared = True
        elif callable(value) and not hasattr(value, "plan"):
            unshared = True
        else:
            raise LookupError
    if len(leaves) > MOST:
        raise LookupError
    return unshared


@functools.lru_cache(256)
def _fields(kind: type) -> tuple[tuple[str, ...], frozenset[str]] | None:
    """The fields of a frozen dataclass, and all attributes that its objects may have."""
    if not dataclasses.is_dataclass(kind):
        return None
    if not kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise LookupError
    names = tuple(field.name for field in dataclasses.fields(kind))
    return names, ADDED.union(names)


class Kept:
    """A decorator for a property that is computed once for each small initializer.

    functools.cached_property has a lock in Python 3.11, and would keep large initializers alive.
    """

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make

    def __get__(self, init: Any, owner: Any = None) -> Any:
        if init is None:
            return self
        if "_fills" in init.__dict__:
            return functools.partial(_own, init)
        try:
            made = init.__dict__[self._make.__name__] = self._make(init)
        except Unshared:
            init.__dict__["_fills"] = {}
            return functools.partial(_own, init)  # not kept, because it would keep `init` alive
        except LookupError:
            return init._prepare
        return made


def _own(init: Any, *layout: Any, **more: Any) -> Any:
    """`_prepare` of an initializer that keeps the last few fills itself."""
    fills, what = init.__dict__["_fills"], (layout, *more.items())
    made = fills.get(what)
    if made is None:
        made = init._prepare(*layout, **more)
        if len(fills) >= OWN:
            fills.clear()
        fills[what] = made
    return made
