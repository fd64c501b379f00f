"""Initializers as tables of a recipe, in both directions.

A table has the key `init`, an initializer's class, and its fields; where the initializer is around
another, that one's table is the key `of`. Or it has the key `parts`, an array of tables that have a
`size` as well, and perhaps `axis`. Numbers may be formulas, which are strings. Fields that accept
None have "none" for it.
"""

import dataclasses
from inspect import signature
from types import NoneType
from typing import Any, NamedTuple, get_args

import numpy as np

from numinit import initializers
from numinit.initializers import DepthScaled, Formulated, FromIndex, Initializer, Padded, Parts
from numinit.initializers.formulated import FAN_NAMES, FANS, is_number
from numinit.initializers.from_index import NAMES
from numinit.initializers.wrappers import Wrapper
from numinit.models.recipe import RecipeError
from numinit.show import cut, show
from numinit.weights.formulas import Formula

__all__ = ["RULE_KEYS", "Names", "initializer", "is_integer", "known", "only", "table_of"]

MAX_DEPTH = 4  # of tables in tables
MAX_PARTS = 256  # of one table
#: The keys of a rule beside those of its initializer.
RULE_KEYS = [
    "match", "same_as", "norm_of", "depth_scaled", "fans_of", "mup", "padding_idx", "dtype",
    "optional",
]  # fmt: skip
NESTED_KEYS = ["depth_scaled", "padding_idx"]  # of a table in a table

#: Initializers whose values are all given.
WITHOUT_SPREAD = (
    initializers.Assign,
    initializers.Bilinear,
    initializers.Constant,
    initializers.Dirac,
    initializers.Eye,
    initializers.FromIndex,
    initializers.LogUniform,
    initializers.Sinusoidal,
    initializers.STFT,
)


class Names(NamedTuple):
    """What formulas may use."""

    constants: dict[str, float]
    layers: bool
    """Whether the recipe says what its layers are."""


def known() -> dict[str, type[Initializer]]:
    """Return every initializer by name, aliases included, but those that have keys of their own."""
    return {
        name: value
        for name, value in vars(initializers).items()
        if isinstance(value, type)
        and issubclass(value, Initializer)
        and dataclasses.is_dataclass(value)
        and value is not Parts
    }


def initializer(table: dict[str, Any], where: str, names: Names, depth: int = 0) -> Initializer:
    """Return the initializer that a table describes.

    Parameters
    ----------
    table : dict
        As tomllib parses it.
    where : str
        Names the place in errors.
    names : Names
    depth : int, optional
        How many tables this one is in.

    Raises
    ------
    RecipeError
        Naming `where` and the key, what was given and what is accepted.
    """
    if depth > MAX_DEPTH:
        raise RecipeError(f"{where}: tables in tables, more than {MAX_DEPTH} deep")
    if "parts" in table:
        return _parts(table, where, names, depth)
    classes = known()
    init = table.get("init")
    if not isinstance(init, str) or init not in classes:
        raise RecipeError(f"{where}, key 'init': got {show(init)}; accepted: {', '.join(classes)}")
    kind = classes[init]
    fields = signature(kind).parameters
    own = {key: value for key, value in table.items() if key != "init"}
    place = f"{where} ({init})"
    given: dict[str, Any] = {}
    if issubclass(kind, Wrapper):
        inner = own.pop("of", None)
        if not isinstance(inner, dict):
            raise RecipeError(
                f"{place}, key 'of': got {show(inner)}; accepted: a table with the key init"
            )
        given["init"] = nested(inner, f"{where}, key 'of'", names, depth + 1)
    fans = [name for name in FANS if name not in fields]
    accepted = [("of" if name == "init" else name) for name in fields]
    more = ["init", *(NESTED_KEYS if depth else RULE_KEYS)]
    only(own, [*accepted, *(fans if any(map(_is_formula, own.values())) else ())], place, more)
    for key, value in own.items():
        given[key] = _field(kind, key, value, place, names)
    formulas = [value for value in given.values() if isinstance(value, Formula)]
    if any(key in fans for key in given) and not any(f.names & FAN_NAMES for f in formulas):
        only(own, accepted, place, more)
    try:
        free = kind is not FromIndex and bool(formulas)
        return Formulated(kind, **given) if free else kind(**given)
    except (TypeError, ValueError, ArithmeticError, ImportError) as error:
        keys = ", ".join(f"{key} = {show(own[key])}" for key in list(own)[:8]) or "no fields"
        raise RecipeError(f"{where} ({init} with {cut(keys)}): {cut(error)}") from error


def nested(table: dict[str, Any], where: str, names: Names, depth: int) -> Initializer:
    """Return the initializer of a table in a table, which may have `depth_scaled` and `padding_idx`."""
    own = dict(table)
    scaled, padding = own.pop("depth_scaled", False), own.pop("padding_idx", None)
    if own.get("init") == "Padded":  # the field of the wrapper itself
        own["padding_idx"], padding = padding, None
    made = initializer(own, where, names, depth)
    check_scaled(scaled, made, where, names)
    if scaled:
        made = Formulated(DepthScaled, init=made, layers="layers")
    if padding is not None:
        made = Padded(made, rows(padding, where))
    return made


def check_scaled(scaled: Any, init: Initializer, where: str, names: Names) -> None:
    """Refuse a key `depth_scaled` that is none, or that does not fit."""
    if not isinstance(scaled, bool):
        raise RecipeError(
            f"{where}, key 'depth_scaled': got {show(scaled)}; accepted: true or false"
        )
    if scaled and not names.layers:
        raise RecipeError(
            f"{where}, key 'depth_scaled': needs the recipe's key 'layers', a glob for its layers"
        )
    if scaled:
        check_spread("depth_scaled", init, where)


def check_spread(key: str, init: Initializer, where: str) -> None:
    """Refuse a key that scales what has no spread."""
    kind = init.kind if isinstance(init, Formulated) else type(init)
    if issubclass(kind, WITHOUT_SPREAD):
        raise RecipeError(f"{where}, key {key!r}: {kind.__name__} has no spread to scale")


def rows(padding: Any, where: str) -> int | tuple[int, ...]:
    """Return the rows of a key `padding_idx`."""
    several = isinstance(padding, list) and bool(padding)
    if not all(map(is_integer, padding if several else [padding])):
        raise RecipeError(
            f"{where}, key 'padding_idx': got {show(padding)}; accepted: an integer or an array of "
            "them"
        )
    return tuple(padding) if several else padding


def _parts(table: dict[str, Any], where: str, names: Names, depth: int) -> Initializer:
    only(table, ["parts", "axis"], where)
    parts, axis = table["parts"], table.get("axis", 0)
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise RecipeError(f"{where}, key 'parts': got {show(parts)}; accepted: an array of tables")
    if not 0 < len(parts) <= MAX_PARTS:
        raise RecipeError(
            f"{where}, key 'parts': {len(parts)} were given; 1 to {MAX_PARTS} are accepted"
        )
    if not is_integer(axis):
        raise RecipeError(f"{where}, key 'axis': got {show(axis)}; accepted: an integer")
    made = []
    for number, part in enumerate(parts, 1):
        place = f"{where}, part {number}"
        own = dict(part)
        size = own.pop("size", None)
        if isinstance(size, str):
            size = _number(_formula(size, "size", place, names, frozenset()), int, "size", place)
        if size is not None and not is_integer(size):
            raise RecipeError(
                f"{place}, key 'size': got {show(size)}; accepted: an integer, or a formula of "
                "constants"
            )
        made.append((size, nested(own, place, names, depth + 1)))
    try:
        return Parts(made, axis)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{where}, key 'parts': {cut(error)}") from error


def _field(kind: type[Initializer], key: str, value: Any, where: str, names: Names) -> Any:
    """The value of a field."""
    parameter = signature(kind).parameters.get(key)
    if isinstance(value, list):
        return _array(value, key, where)
    flag = parameter is not None and isinstance(parameter.default, bool)
    if not isinstance(value, int | float | str) or (isinstance(value, bool) and not flag):
        got = "a table" if isinstance(value, dict) else show(value)
        raise RecipeError(
            f"{where}, key {show(key)}: got {got}; accepted: a number, a string or an array"
        )
    if parameter is None or not isinstance(value, str):
        return value
    if value == "none" and NoneType in get_args(parameter.annotation):
        return None
    if kind is FromIndex:
        return _formula(value, key, where, names, NAMES)
    if not is_number(kind, key):
        return value
    formula = _formula(value, key, where, names, FAN_NAMES)
    if formula.names or formula.axes:
        return Formula(value)
    whole = parameter.annotation is int or parameter.annotation == "int"
    return _number(formula, int if whole else float, key, where)


def _array(value: Any, key: str, where: str) -> Any:
    """An array of numbers, strings and arrays, as tuples."""
    if isinstance(value, list):
        return tuple(_array(item, key, where) for item in value)
    if not isinstance(value, bool | int | float | str):
        got = "a table" if isinstance(value, dict) else show(value)
        raise RecipeError(
            f"{where}, key {show(key)}: got {got} in an array; accepted: numbers, strings and arrays"
        )
    return value


def _is_formula(value: Any) -> bool:
    return isinstance(value, str)


def _formula(text: str, key: str, where: str, names: Names, own: frozenset[str]) -> Formula:
    """A formula, checked, its constants bound."""
    try:
        formula = Formula(text)
    except ValueError as error:
        raise RecipeError(f"{where}, key {key!r}: {cut(error)}") from error
    layers = {"layers", "layer"} if names.layers else set()
    accepted = {*own, *names.constants, *layers}
    if unknown := sorted(formula.names - accepted):
        hint = ""
        if unknown[0] in ("layers", "layer"):
            hint = "; it needs the recipe's key 'layers'"
        raise RecipeError(
            f"{where}, key {key!r}: formula {show(text)} has no name {show(unknown[0])}; accepted: "
            f"{', '.join([*sorted(accepted), 'size(axis)'])}{hint}"
        )
    return formula if own == NAMES else formula.bind(**names.constants)


def _number(formula: Formula, kind: type, key: str, where: str) -> Any:
    try:
        number = formula.number()
    except ValueError as error:
        raise RecipeError(f"{where}, key {key!r}: {cut(error)}") from error
    if kind is int:
        if number != int(number):
            raise RecipeError(
                f"{where}, key {key!r}: {show(formula.text)} gives {number}; an integer is accepted"
            )
        return int(number)
    return number


def table_of(init: Any) -> dict[str, Any]:
    """Return the table of an initializer, of which `initializer` makes an equal one.

    Raises
    ------
    RecipeError
        If it has none; the message says which initializer.
    """
    if isinstance(init, Parts):
        made: dict[str, Any] = {"parts": []}
        for size, part in init.parts:
            made["parts"].append({**({} if size is None else {"size": size}), **table_of(part)})
        return {**made, "axis": init.axis} if init.axis else made
    kind, fields = type(init), {}
    if isinstance(init, Formulated):
        kind, fields = init.kind, dict(init.fields)
    elif kind in known().values():
        for field in dataclasses.fields(init):
            value = getattr(init, field.name)
            if field.init and repr(value) != repr(field.default):  # the sign of a zero, too
                fields[field.name] = value
    if kind not in known().values():
        raise RecipeError(
            f"{show(init)} has no form in TOML: {kind.__name__} is none of numinit's initializers"
        )
    made = {"init": kind.__name__}
    for name, value in fields.items():
        made["of" if name == "init" else name] = _toml(value, init)
    return made


def _toml(value: Any, init: Initializer) -> Any:
    """A field's value as TOML has it."""
    if isinstance(value, Initializer):
        return table_of(value)
    if isinstance(value, Formula) and not value.known:
        return value.text
    if value is None:
        return "none"
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return value.tolist()
    if isinstance(value, tuple | list):
        return [_toml(item, init) for item in value]
    if isinstance(value, bool | int | float | str):
        return value
    raise RecipeError(f"{show(init)} has no form in TOML: {show(value)} has none")


def is_integer(value: Any) -> bool:
    """Whether a value of TOML is an integer."""
    return isinstance(value, int) and not isinstance(value, bool)


def only(
    table: dict[str, Any], accepted: list[str], where: str, more: list[str] | None = None
) -> None:
    """Refuse unknown keys of a table."""
    for key in table:
        if key not in accepted:
            names = ", ".join([*(more or []), *accepted])
            raise RecipeError(f"{where}: unknown key {show(key)}; accepted: {names}")
