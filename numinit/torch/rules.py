"""Rules for given tensors: names that are alike become globs."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from numinit.initializers import Initializer, Padded
from numinit.initializers.kept import Exactly
from numinit.models.recipe import Recipe, RecipeError, Rule
from numinit.models.tables import table_of


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
    return tuple(_rule(tuple(_globs(names, said)), init) for init, names in groups.values())


def _rule(match: tuple[str, ...], init: Initializer) -> Rule:
    if isinstance(init, Padded) and not init.axis:
        rows = init.padding_idx
        return Rule(match, init.init, padding_idx=rows if isinstance(rows, int) else tuple(rows))
    return Rule(match, init)


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


def _escaped(text: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", text)


def recipe_of(source: str, said: Mapping[str, Initializer]) -> Recipe:
    """The recipe that gives every name its initializer; `source` says where the numbers come from."""
    return Recipe("traced", source, "", rules_of(said))


def describable(init: Initializer) -> bool:
    """Whether a rule of TOML can describe an initializer."""
    try:
        table_of(init)
    except RecipeError:
        return False
    return True
