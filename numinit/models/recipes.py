"""Recipes: which initializer each tensor of a model gets, by the tensor's name.

A recipe is a small TOML file. Its rules are tried from the top; the first one that matches wins::

    name = "gpt2"
    source = "where each number comes from"
    layers = "transformer.h.*"              # the residual layers; L is how many a model has

    [[rules]]
    match = ["*.c_proj.weight"]             # one glob or several; `*` also crosses dots
    init = "Normal"                         # an initializer's class; other keys are its fields
    std = 0.02
    depth_scaled = true                     # the standard deviation divided by sqrt(2 L)

    [[rules]]
    match = "*.bias"
    init = "KaimingUniform"
    a = 2.23606797749979
    fans_of = "weight"                      # fans of the sibling tensor, here `<prefix>.weight`

    [[rules]]
    match = "word_embeddings.weight"
    init = "Normal"
    std = 0.02
    padding_idx = 0                         # this row is zero; -1 is the last one

`layers` is a glob, or several, for the first parts of a name: "transformer.h.*" has three parts, so
the layer of "transformer.h.7.ln_1.bias" is "transformer.h.7". L counts the layers in the names that
are given: for one file of a checkpoint in several, only that file's.

A recipe in the maximal update parametrization has the shapes of the base model, whose widths its
numbers were tuned for, and rules that say what their weights connect (see `numinit.MuP`)::

    [base]                                  # glob = shape in the base model; the first match wins
    "head.weight" = [1000, 256]
    "*.fc1.weight" = [1024, 256]
    "*.fc2.weight" = [256, 1024]

    [[rules]]
    match = "*.fc?.weight"
    init = "Normal"
    std = 0.02                              # in the base model; here 0.02 / sqrt(m)
    mup = "hidden"                          # or "input", "bias", "output", "plain_output"
    in_axis = 1                             # of the inputs, where the initializer has no such field

    [[rules]]
    match = "head.weight"
    init = "KaimingNormal"                  # its fans are those of the base shape
    mup = "output"

With `fans_of`, the base shape is the sibling's as well. The keys of a rule act in the order of
`mup`, `depth_scaled`, `padding_idx`.
"""

import stat
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any

from numinit import initializers
from numinit.initializers import Initializer
from numinit.initializers.variance_scaling import FORMER, absent
from numinit.initializers.wrappers import ROLES, Role, Wrapper
from numinit.models import shipped
from numinit.models.recipe import Recipe, RecipeError, Rule
from numinit.show import cut, show

__all__ = ["Recipe", "RecipeError", "Rule", "as_recipe", "available", "load", "parse"]

# A recipe may come from a file that a stranger made, so all that reading it and matching it with a
# model's names can cost is bounded here. tomllib keeps all beginnings of a dotted key, those of the
# table that it is in before them, so that time and memory grow with the square of a key's parts.
MAX_SIZE = 1 << 16  # characters
MAX_LINE = 500
MAX_DOTS = 64  # in a line, and so in a key
MAX_GLOBS = 256
MAX_GLOB_CHARACTERS = 1 << 13  # in all globs: one integer of so many bits is what a step takes
MAX_LAYERS = 16

#: Initializers whose values are all given.
WITHOUT_SPREAD = (
    initializers.Assign,
    initializers.Bilinear,
    initializers.Constant,
    initializers.Dirac,
    initializers.Eye,
    initializers.STFT,
)


def available() -> list[str]:
    """Return the names of the shipped recipes, sorted."""
    return shipped.available("recipes")


def load(name_or_path: str | Path) -> Recipe:
    """Read a recipe.

    Parameters
    ----------
    name_or_path : str or Path
        The name of a shipped recipe (see `available`), or a path that ends in ``.toml``.

    Raises
    ------
    RecipeError
        If there is no such recipe, or it cannot be read or parsed.
    """
    where = str(name_or_path)
    is_path = where.endswith(".toml")
    if not is_path and where not in available():
        near = get_close_matches(where[:100], available(), 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise RecipeError(
            f"no recipe {show(where)}{hint}; "
            f"accepted: {', '.join(available())}, or a path that ends in .toml"
        )
    try:
        if is_path and not stat.S_ISREG(Path(where).stat().st_mode):
            raise ValueError("not a regular file")  # a pipe would block
        with (Path(where) if is_path else shipped.file_of("recipes", where)).open("rb") as file:
            text = file.read(MAX_SIZE + 1).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise RecipeError(f"recipe {cut(where)}: cannot be read: {cut(error)}") from error
    return parse(text, where)


def parse(text: str, where: str = "recipe", former: bool = False) -> Recipe:
    """Parse a recipe's TOML text; `where` names it in errors, and stands in for a missing name.

    `former` also accepts the names that initializers had before; see `FORMER`.

    Raises
    ------
    RecipeError
        Naming `where`, the rule and the key, what was given and what is accepted.
    """
    if len(text) > MAX_SIZE:
        raise RecipeError(
            f"{where}: more than {MAX_SIZE} characters; a recipe has at most that many"
        )
    for number, line in enumerate(text.split("\n"), 1):  # as TOML counts lines, unlike splitlines
        for count, what, most in (
            (len(line), "characters", MAX_LINE),
            (line.count("."), "dots", MAX_DOTS),
        ):
            if count > most:
                raise RecipeError(
                    f"{where}, line {number}: {count} {what}; at most {most} are accepted"
                )
    import tomllib  # here, for a process that needs no recipe

    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{where}: not a TOML document: {cut(error)}") from error
    _only(table, ["name", "source", "layers", "base", "rules"], where)
    rules = table.get("rules")
    if (
        not isinstance(rules, list)
        or not rules
        or not all(isinstance(rule, dict) for rule in rules)
    ):
        raise RecipeError(f"{where}: needs at least one [[rules]] table, got rules = {show(rules)}")
    layers = _globs(table, "layers", where) if "layers" in table else ()
    base = _base(table["base"], where) if "base" in table else ()
    numbered = [(rule, f"{where}, rule {n}") for n, rule in enumerate(rules, 1)]
    known = _initializers() | (FORMER if former else {})
    built = tuple(_rule(rule, place, known, layers, bool(base)) for rule, place in numbered)
    if len(layers) > MAX_LAYERS:
        raise RecipeError(
            f"{where}, key 'layers': {len(layers)} globs; at most {MAX_LAYERS} are accepted"
        )
    globs = [*layers, *(glob for glob, _ in base), *(g for rule in built for g in rule.match)]
    if len(globs) > MAX_GLOBS:
        raise RecipeError(f"{where}: {len(globs)} globs; at most {MAX_GLOBS} in all are accepted")
    if (characters := sum(map(len, globs))) > MAX_GLOB_CHARACTERS:
        raise RecipeError(
            f"{where}: {characters} characters in globs; at most {MAX_GLOB_CHARACTERS} in all are "
            "accepted"
        )
    return Recipe(
        name=_string(table, "name", where, where),
        source=_string(table, "source", where).strip(),
        text=text,
        rules=built,
        layers=layers,
        base=base,
    )


def as_recipe(recipe: Recipe | str | Path | Mapping[str, Initializer]) -> Recipe:
    """Return a `Recipe`: the one given, or of that name or path, or of globs to initializers."""
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, str | Path):
        return load(recipe)
    if not isinstance(recipe, Mapping):
        raise TypeError(
            "recipe must be a Recipe, a name, a path or a mapping of globs to initializers, "
            f"got {show(recipe)}"
        )
    for glob, init in recipe.items():
        if not isinstance(glob, str) or not isinstance(init, Initializer):
            raise TypeError(
                "recipe must map globs to initializers such as Normal(std=0.02), "
                f"got {show(glob)}: {show(init)}"
            )
    return Recipe("mapping", "", "", tuple(Rule((glob,), init) for glob, init in recipe.items()))


def _rule(
    table: dict[str, Any],
    where: str,
    known: dict[str, Callable[..., Initializer]],
    layers: tuple[str, ...],
    base: bool,
) -> Rule:
    match = _globs(table, "match", where)
    init = table.get("init")
    if not isinstance(init, str) or init not in known:
        former = f" ({absent('numinit', init)})" if isinstance(init, str) and init in FORMER else ""
        raise RecipeError(
            f"{where}, key 'init': got {show(init)}{former}; accepted: {', '.join(known)}"
        )
    fields = signature(known[init]).parameters
    options = ["match", "init", "depth_scaled", "fans_of", "mup", "padding_idx"]
    mup: Role | None = table.get("mup")
    if mup is not None and (not isinstance(mup, str) or mup not in ROLES):
        raise RecipeError(f"{where}, key 'mup': got {show(mup)}; accepted: {', '.join(ROLES)}")
    if mup is not None and "in_axis" not in fields:
        options.append("in_axis")
    _only(table, [*options, *fields], f"{where} ({init})")
    depth_scaled = table.get("depth_scaled", False)
    if not isinstance(depth_scaled, bool):
        raise RecipeError(
            f"{where}, key 'depth_scaled': got {show(depth_scaled)}; accepted: true or false"
        )
    if depth_scaled and not layers:
        raise RecipeError(
            f"{where}, key 'depth_scaled': needs the recipe's key 'layers', a glob for its layers"
        )
    if mup is not None and not base:
        raise RecipeError(
            f"{where}, key 'mup': needs the recipe's table [base], of globs and the shapes of "
            "their tensors in the base model"
        )
    fans_of = _string(table, "fans_of", where) if "fans_of" in table else None
    padding_idx = table.get("padding_idx")
    if padding_idx is not None and not _is_integer(padding_idx):
        raise RecipeError(
            f"{where}, key 'padding_idx': got {show(padding_idx)}; accepted: an integer"
        )
    in_axis = table.get("in_axis") if "in_axis" in options else None
    if isinstance(in_axis, list):
        in_axis = tuple(in_axis)
    if in_axis is not None and not all(
        _is_integer(axis) for axis in (in_axis if isinstance(in_axis, tuple) else (in_axis,))
    ):
        raise RecipeError(
            f"{where}, key 'in_axis': got {show(in_axis)}; accepted: an integer or an array of them"
        )
    given = {
        key: tuple(v) if isinstance(v, list) else v
        for key, v in table.items()
        if key not in options
    }
    for key, value in given.items():
        flag = isinstance(fields[key].default, bool)
        if isinstance(value, dict if flag else dict | bool):
            got = "a table" if isinstance(value, dict) else value
            raise RecipeError(
                f"{where}, key {show(key)}: got {got}; accepted: a number, a string or an array"
            )
    try:
        built = known[init](**given)
    except (TypeError, ValueError, ArithmeticError, ImportError) as error:
        keys = ", ".join(f"{key} = {show(table[key])}" for key in list(given)[:8]) or "no fields"
        raise RecipeError(f"{where} ({init} with {cut(keys)}): {cut(error)}") from error
    scaling = {"depth_scaled": depth_scaled, "mup": mup is not None and ROLES[mup]}
    for key, scales in scaling.items():
        if scales and isinstance(built, WITHOUT_SPREAD):
            raise RecipeError(f"{where}, key {key!r}: {init} has no spread to scale")
    return Rule(match, built, depth_scaled, fans_of, mup, in_axis, padding_idx)


def _initializers() -> dict[str, Callable[..., Initializer]]:
    """Return every initializer by name, aliases included; what modifies them has keys."""
    return {
        name: value
        for name, value in vars(initializers).items()
        if isinstance(value, type)
        and issubclass(value, Initializer)
        and is_dataclass(value)
        and not issubclass(value, Wrapper)
    }


def _base(table: Any, where: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    if not isinstance(table, dict) or not table:
        raise RecipeError(
            f"{where}, key 'base': got {show(table)}; accepted: a table of globs and shapes"
        )
    for glob, shape in table.items():
        if not isinstance(shape, list) or not all(_is_integer(n) and n > 0 for n in shape):
            raise RecipeError(
                f"{where}, table [base], key {show(glob)}: got {show(shape)}; accepted: "
                "a shape, an array of positive integers"
            )
    return tuple((glob, tuple(shape)) for glob, shape in table.items())


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _only(table: dict[str, Any], accepted: list[str], where: str) -> None:
    for key in table:
        if key not in accepted:
            raise RecipeError(f"{where}: unknown key {show(key)}; accepted: {', '.join(accepted)}")


def _string(table: dict[str, Any], key: str, where: str, default: str = "") -> str:
    value = table.get(key, default)
    if not isinstance(value, str):
        raise RecipeError(f"{where}, key {key!r}: got {show(value)}; accepted: a string")
    return value


def _globs(table: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = table.get(key)
    globs = [value] if isinstance(value, str) else value
    if (
        not isinstance(globs, list)
        or not globs
        or not all(isinstance(glob, str) and glob for glob in globs)
    ):
        got = "nothing" if value is None else show(value)
        raise RecipeError(f"{where}, key {key!r}: got {got}; accepted: a glob or an array of globs")
    return tuple(globs)
