"""Rules for given tensors: names that are alike become globs, and rules become TOML."""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from numinit import initializers
from numinit.initializers import Initializer, Padded
from numinit.initializers.kept import Exactly
from numinit.models.recipe import Rule
from numinit.models.recipes import parse


def rules_of(said: Mapping[str, Initializer]) -> tuple[Rule, ...]:
    """Rules that give every name its initializer.

    Parameters
    ----------
    said : mapping of str to Initializer

    Returns
    -------
    tuple of Rule
        Those of alike initializers are one. No glob matches a name of another rule.
    """
    groups: dict[Any, tuple[Initializer, list[str]]] = {}
    for name, init in said.items():
        groups.setdefault(_exactly(init), (init, []))[1].append(name)
    return tuple(
        Rule(tuple(_globs(names, said)), init.init, padding_idx=_rows(init.padding_idx))
        if isinstance(init, Padded)
        else Rule(tuple(_globs(names, said)), init)
        for init, names in groups.values()
    )


def _exactly(init: Initializer) -> object:
    try:
        return Exactly(init)
    except LookupError:
        return id(init)


def _globs(names: list[str], everything: Mapping[str, Initializer]) -> Iterator[str]:
    """Globs that match these names, and no others of `everything`."""
    wanted, left = set(names), dict.fromkeys(names)
    others = [name for name in everything if name not in wanted]
    for name in names:
        if name not in left:
            continue
        glob, pattern = next(
            (glob, pattern)
            for glob, pattern in _candidates(name)
            if not any(pattern.fullmatch(other) for other in others)
        )
        yield glob
        for one in [one for one in left if pattern.fullmatch(one)]:
            del left[one]


def _candidates(name: str) -> Iterator[tuple[str, re.Pattern[str]]]:
    """A name's globs: its last parts, then all of it with any numbers, then the name itself."""
    parts = name.split(".")
    for count in range(1, len(parts)):
        if parts[-count].isdecimal():
            break
        tail = ".".join(parts[-count:])
        yield f"*.{_escaped(tail)}", re.compile(rf"(?s:.*)\.{re.escape(tail)}")
    numbers = [part.isdecimal() for part in parts]
    if any(numbers):
        glob = ".".join("*" if n else _escaped(p) for n, p in zip(numbers, parts, strict=True))
        regex = r"\.".join(
            "(?s:.*)" if n else re.escape(p) for n, p in zip(numbers, parts, strict=True)
        )
        yield glob, re.compile(regex)
    yield _escaped(name), re.compile(re.escape(name))


def _rows(padding_idx: Any) -> int | tuple[int, ...]:
    return padding_idx if isinstance(padding_idx, int) else tuple(padding_idx)


def _escaped(text: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", text)


def toml_of(source: str, said: Mapping[str, Initializer]) -> str:
    """The TOML text of a recipe that gives every name its initializer.

    Parameters
    ----------
    source : str
        Where the numbers come from.
    said : mapping of str to Initializer

    Raises
    ------
    ValueError
        Listing the names that TOML cannot describe; or if the recipe is larger than one may be.
    """
    lines = ['name = "traced"', f"source = {json.dumps(source)}"]
    lacking = [name for name, init in said.items() if _fields(init) is None]
    if lacking:
        raise ValueError(
            f"recipe: no rule of TOML describes {len(lacking)} tensors: {', '.join(lacking)}"
        )
    for rule in rules_of(said):
        globs = [json.dumps(glob) for glob in rule.match]
        one = len(globs) == 1
        match = globs[0] if one else "[\n" + "".join(f"    {glob},\n" for glob in globs) + "]"
        lines += ["", "[[rules]]", f"match = {match}", f'init = "{type(rule.init).__name__}"']
        lines += [f"{key} = {_value(value)}" for key, value in _said(rule.init).items()]
        if rule.padding_idx is not None:
            lines.append(f"padding_idx = {_value(rule.padding_idx)}")
    text = "\n".join(lines) + "\n"
    parse(text, "the traced recipe")  # refuses one that is too large
    return text


def describable(init: Initializer) -> bool:
    """Whether a rule of TOML can describe an initializer."""
    return _fields(init) is not None


def _said(init: Initializer | None) -> dict[str, Any]:
    return {} if init is None else _fields(init) or {}


def _fields(init: Initializer) -> dict[str, Any] | None:
    """The fields of an initializer that a rule must give; None if TOML cannot describe it."""
    if isinstance(init, Padded):
        return None if isinstance(init.init, Padded) else _fields(init.init)
    kind: Any = type(init)
    if getattr(initializers, kind.__name__, None) is not kind or not dataclasses.is_dataclass(init):
        return None
    fields = {}
    for field in dataclasses.fields(init):
        value = getattr(init, field.name)
        if not field.init or (value == field.default and type(value) is type(field.default)):
            continue
        if not isinstance(value, bool | int | float | str | tuple):
            return None
        fields[field.name] = value
    return fields


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value) if isinstance(value, bool | str) else repr(value)
