"""A cache of fills.

A model's layers are alike, and to plan a small fill takes longer than the fill.
"""

import dataclasses
import numbers
import sys
from collections.abc import Callable
from types import NoneType
from typing import Any

SMALL = 8192  # the most bytes of an initializer whose fills are kept


class Exactly:
    """A cache's key of an initializer, which compares types and values.

    The initializers' own equality is too weak, because -0.0 == 0.0 and True == 1 == 1 + 0j.

    Raises
    ------
    LookupError
        If the initializer is large or has fields other than numbers and names. A cache would keep
        its arrays alive, or the model that its activation belongs to.
    """

    __slots__ = ("_hash", "_key", "init")

    def __init__(self, init: Any) -> None:
        self.init, self._key = init, _exact(init)
        if _bytes(self._key) > SMALL:
            raise LookupError
        self._hash = hash(self._key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Exactly) and self._key == other._key


def _exact(value: Any) -> Any:
    """Return a key that tells apart equal values of different types or signs of zero."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        if not getattr(value, "__dict__", fields).keys() <= {*fields, "_ready"}:
            raise LookupError  # it has more, which `plan` may use
        return type(value), *map(_exact, fields.values())
    if isinstance(value, tuple):
        return type(value), *map(_exact, value)
    if type(value) in (NoneType, bool, int, str, bytes):
        return type(value), value
    if isinstance(value, numbers.Number) and not hasattr(value, "__dict__"):
        return type(value), repr(value)  # the sign of a zero, too
    raise LookupError


def _bytes(key: Any) -> int:
    if isinstance(key, tuple):
        return sum(map(_bytes, key))
    return 0 if isinstance(key, type) else sys.getsizeof(key)


class Kept:
    """A decorator for a property that is computed once for each small initializer.

    functools.cached_property has a lock in Python 3.11, and would keep large initializers alive.
    """

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make

    def __get__(self, init: Any, owner: Any = None) -> Any:
        if init is None:
            return self
        try:
            made = init.__dict__[self._make.__name__] = self._make(init)
        except LookupError:
            return init._prepare
        return made
