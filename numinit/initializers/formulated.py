"""Initializers whose numbers are formulas of the weight's shape and of its place in a model."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from inspect import signature
from typing import Any

from numinit.engines.spec import Plan
from numinit.initializers.base import Initializer
from numinit.show import show
from numinit.stream.dtypes import DType
from numinit.weights.fans import fans
from numinit.weights.formulas import Formula, FormulaError

#: The arguments of `numinit.fans` beside the shape.
FANS = tuple(signature(fans).parameters)[1:]
FAN_NAMES = frozenset({"fan_in", "fan_out"})


class Formulated(Initializer):
    """An initializer some of whose numbers are formulas.

    A formula is a string such as ``"0.02 / sqrt(2 * layers)"``; see `numinit.weights.formulas`. It
    may use `fan_in` and `fan_out`, which `numinit.fans` gives, and ``size(axis)``. Other names need
    a value from `bind`; a recipe binds the names `layers` and `layer` and its constants.

    Parameters
    ----------
    kind : type
        The class of the initializer.
    **fields
        Its fields. A string where a number is accepted is a formula. If `kind` has no field of
        that name, `in_axis`, `out_axis`, `batch_axis`, `groups`, `packed` and `transposed` are
        those of the fans.

    Raises
    ------
    TypeError
        If `kind` is no class of initializers, or has no such field.
    ValueError
        If a string is no formula. A formula without a value, or whose value is refused by `kind`,
        is an error when a weight is made.

    Examples
    --------
    >>> small = ni.Formulated(ni.Normal, std="1 / fan_in")
    >>> round(float(small((100, 1000), seed=0).std()), 4)
    0.001
    """

    kind: type[Initializer]
    fields: tuple[tuple[str, Any], ...]

    def __init__(self, kind: type[Initializer], /, **fields: Any) -> None:
        if not (isinstance(kind, type) and issubclass(kind, Initializer)):
            raise TypeError(f"kind: {show(kind)} was given; a class of initializers is accepted")
        known = signature(kind).parameters
        made = {}
        for name, value in fields.items():
            if name not in known and name not in FANS:
                raise TypeError(
                    f"{kind.__name__} has no field {show(name)}; accepted: {', '.join(known)}"
                )
            if isinstance(value, str) and is_number(kind, name):
                value = Formula(value)
            made[name] = _hashable(value)
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "fields", tuple(sorted(made.items())))

    def __setattr__(self, name: str, value: object) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Formulated):
            return NotImplemented
        return (self.kind, self.fields) == (other.kind, other.fields)

    def __hash__(self) -> int:
        return hash((self.kind, self.fields))

    def __repr__(self) -> str:
        fields = (
            f", {name}={value.text if isinstance(value, Formula) else value!r}"
            for name, value in self.fields
        )
        return f"Formulated({self.kind.__name__}{''.join(fields)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.kind, self.fields)

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        return self.made(tuple(shape)).plan(shape, dtype)

    def made(self, shape: tuple[int, ...]) -> Initializer:
        """Return the initializer of a weight of this shape, its formulas replaced by numbers."""
        return _made(self, shape)


@functools.lru_cache(1024)  # a model's layers are alike
def _made(self: Formulated, shape: tuple[int, ...]) -> Initializer:
    known = signature(self.kind).parameters
    values: dict[str, float] = {}
    if any(FAN_NAMES & formula.names for _, formula in self.fields if isinstance(formula, Formula)):
        given = {name: value for name, value in self.fields if name in FANS}
        values = dict(zip(("fan_in", "fan_out"), fans(shape, **given), strict=True))
    fields = {}
    for name, value in self.fields:
        if name not in known:
            continue
        if isinstance(value, Formula):
            number: float = value.bind(**values).number(shape)
            if not _takes(self.kind, name, float):
                if number != int(number):
                    raise FormulaError(
                        f"{name}: formula {show(value.text)} gives {number}; an integer is accepted"
                    )
                number = int(number)
            value = number
        fields[name] = value
    return self.kind(**fields)


def _again(kind: type[Initializer], fields: tuple[tuple[str, Any], ...]) -> Formulated:
    return Formulated(kind, **dict(fields))


def is_number(kind: type[Initializer], name: str) -> bool:
    """Whether a field of a class of initializers is a number."""
    return any(_takes(kind, name, number) for number in (int, float, complex))


def _takes(kind: type[Initializer], name: str, number: type) -> bool:
    parameter = signature(kind).parameters.get(name)
    if parameter is None:
        return False
    annotation = parameter.annotation
    if number is float and annotation is complex:
        return True
    return annotation in (number, number | None) or annotation == number.__name__


def formulas_of(value: Any) -> Iterator[Formula]:
    """The formulas in an initializer, also in those that it is around."""
    if isinstance(value, Formula):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from formulas_of(item)
    elif isinstance(value, Formulated):
        yield from formulas_of(value.fields)
    elif isinstance(value, Initializer) and dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from formulas_of(getattr(value, field.name))


def bound(value: Any, names: Mapping[str, float]) -> Any:
    """An initializer in whose formulas some names have values; the same one if it has none of them.

    Parameters
    ----------
    value : Initializer
    names : mapping of str to float

    Returns
    -------
    Initializer

    Examples
    --------
    >>> from numinit.initializers.formulated import bound
    >>> bound(ni.Formulated(ni.Normal, std="0.1 / layers"), {"layers": 5}).made((3,))
    Normal(mean=0.0, std=0.02)
    """
    if isinstance(value, Formula):
        return value.bind(**names)
    if not any(formula.names & names.keys() for formula in formulas_of(value)):
        return value
    if isinstance(value, tuple):
        return tuple(bound(item, names) for item in value)
    if isinstance(value, Formulated):
        return Formulated(value.kind, **dict(bound(value.fields, names)))
    changed = {
        field.name: bound(getattr(value, field.name), names)
        for field in dataclasses.fields(value)
        if field.init
    }
    return type(value)(**changed)


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value
