"""Recipes: which initializer each tensor of a model gets, by the tensor's name.

A recipe is a small TOML file. Its rules are tried from the top; the first one that matches wins::

    name = "gpt2"
    source = "where each number comes from"
    layers = "transformer.h.*"              # the layers; L is how many a stack of them has

    [constants]                             # names for formulas
    range = 0.02

    [[rules]]
    match = ["*.c_proj.weight"]             # one glob or several; `*` also crosses dots
    init = "Normal"                         # an initializer's class; other keys are its fields
    std = "range"
    depth_scaled = true                     # the standard deviation divided by sqrt(2 L)

    [[rules]]
    match = "*.bias"
    init = "KaimingUniform"
    a = "sqrt(5)"                           # a number may be a formula
    fans_of = "weight"                      # fans of another tensor, here `<prefix>.weight`

    [[rules]]
    match = "word_embeddings.weight"
    init = "Normal"
    std = 0.02
    padding_idx = 0                         # this row is zero; -1 is the last one; or an array

    [[rules]]
    match = "lm_head.weight"
    same_as = "word_embeddings.weight"      # the very values of another tensor
    optional = true                         # or there may be none

Formulas have the grammar of `numinit.weights.formulas` and these names: `layers` and `layer`, the
number of layers in the tensor's stack and that of its own layer; `fan_in` and `fan_out`, of
`numinit.fans`; ``size(axis)``; and the recipe's constants. `FromIndex` has those of its own.

`layers` is a glob, or several, for the first parts of a name: "transformer.h.*" has three parts, so
the layer of "transformer.h.7.ln_1.bias" is "transformer.h.7". Parts end at dots or slashes. Layers
whose names differ in a number at the end are one stack; an encoder and a decoder are two. They are
counted in the names that are given; for one file of a checkpoint in several, `layers` says how many
there are: ``{"model.layers.*" = 32}``, or ``32`` for all tensors.

Every rule and glob must match a tensor, unless the rule or the recipe says ``optional = true``.
Other keys of a rule:

`same_as`, `norm_of`
    instead of `init`: another tensor whose values the tensor has, or the norms of whose rows (see
    `numinit.NormOf`). That is a sibling's name or a whole name, as for `fans_of`; the n-th ``*`` in
    it stands for what the n-th wildcard of the glob matched.
`parts`
    instead of `init`: an array of tables, each an initializer and a `size`, for weights that lie
    side by side along the key `axis`; see `numinit.Parts`. A size may be left out.
`of`
    the table of another initializer, which `init` is around: ``init = "ICNR"``,
    ``of = {init = "KaimingNormal"}``.
`dtype`
    the element type, whichever is asked for the model; "keep" for that of the model's own file.

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

With `fans_of`, the base shape is the other tensor's as well. The keys of a rule act in the order of
`mup`, `depth_scaled`, `padding_idx`.
"""

import dataclasses
import json
import re
import stat
from collections.abc import Mapping
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any

from numinit.initializers import Assign, Formulated, Initializer
from numinit.initializers.from_index import NAMES
from numinit.initializers.wrappers import ROLES, Role
from numinit.models import shipped
from numinit.models.integers import INTEGERS
from numinit.models.recipe import Recipe, RecipeError, Rule
from numinit.models.tables import (
    RULE_KEYS,
    Names,
    check_scaled,
    check_spread,
    initializer,
    is_integer,
    known,
    only,
    rows,
    table_of,
)
from numinit.show import cut, show
from numinit.stream.dtypes import DTYPES
from numinit.weights.formulas import WORDS, Formula

__all__ = ["Recipe", "RecipeError", "Rule", "as_recipe", "available", "dump", "load", "parse"]

# A recipe may come from a file that a stranger made, so all that reading it and matching it with a
# model's names can cost is bounded here. tomllib keeps all beginnings of a dotted key, those of the
# table that it is in before them, so that time and memory grow with the square of a key's parts.
MAX_SIZE = 1 << 16  # characters
MAX_LINE = 500
MAX_DOTS = 64  # in a line, and so in a key
MAX_GLOBS = 256
MAX_GLOB_CHARACTERS = 1 << 13  # in all globs: one integer of so many bits is what a step takes
MAX_LAYERS = 16
MAX_CONSTANTS = 64
MOST_LAYERS = 1 << 20  # that a stack may be said to have

#: Names that no constant may have.
RESERVED = {*WORDS, *NAMES, "layers", "layer", "fan_in", "fan_out"}


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
    accepted = ["name", "source", "optional", "layers", "constants", "base", "rules"]
    only(table, accepted, where)
    rules = table.get("rules")
    if (
        not isinstance(rules, list)
        or not rules
        or not all(isinstance(rule, dict) for rule in rules)
    ):
        raise RecipeError(f"{where}: needs at least one [[rules]] table, got rules = {show(rules)}")
    layers, depths = _layers(table, where) if "layers" in table else ((), ())
    base = _base(table["base"], where) if "base" in table else ()
    constants = _constants(table["constants"], where) if "constants" in table else {}
    names = Names(constants, bool(layers or depths))
    numbered = [(rule, f"{where}, rule {n}") for n, rule in enumerate(rules, 1)]
    names = names._replace(former=former)
    built = tuple(_rule(rule, place, names, bool(base)) for rule, place in numbered)
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
        constants=tuple(constants.items()),
        depths=depths,
        optional=_flag(table, "optional", where),
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


def dump(recipe: Recipe) -> str:
    """Return a recipe's TOML text, of which `parse` makes an equal recipe.

    Parameters
    ----------
    recipe : Recipe

    Returns
    -------
    str

    Raises
    ------
    RecipeError
        If it has no such text; the message says which rule and initializer.

    Examples
    --------
    >>> import numinit as ni
    >>> from numinit.models.recipes import Recipe, Rule, dump, parse
    >>> recipe = Recipe("mine", "", "", (Rule(("*.bias",), ni.Zeros()), Rule(("*",), ni.Normal())))
    >>> parse(dump(recipe)) == recipe
    True
    """
    lines = [f"name = {_toml(recipe.name)}", f"source = {_toml(recipe.source)}"]
    if recipe.optional:
        lines.append("optional = true")
    if recipe.depths and not recipe.layers:
        lines.append(f"layers = {recipe.depths[0]}")
    elif recipe.depths:
        lines.append(f"layers = {_toml(dict(zip(recipe.layers, recipe.depths, strict=True)))}")
    elif recipe.layers:
        lines.append(f"layers = {_toml(list(recipe.layers))}")
    for title, table in (("constants", recipe.constants), ("base", recipe.base)):
        if table:
            lines += ["", f"[{title}]"]
            lines += [f"{_toml(key)} = {_toml(value)}" for key, value in table]
    for number, rule in enumerate(recipe.rules, 1):
        try:
            fields = _table_of(rule)
        except RecipeError as error:
            raise RecipeError(f"recipe {show(recipe.name)}, rule {number}: {error}") from None
        lines += ["", "[[rules]]"]
        lines += [f"{_toml_key(key)} = {_toml(value)}" for key, value in fields.items()]
    text = "\n".join([*lines, ""])
    try:
        again = parse(text, recipe.name)
    except RecipeError as error:
        raise RecipeError(
            f"recipe {show(recipe.name)} has no form in TOML: {cut(error)}"
        ) from error
    if not _same(again, recipe):
        pairs = zip(recipe.rules, again.rules, strict=False)
        wrong = next((n for n, (a, b) in enumerate(pairs, 1) if not _same(a, b)), None)
        what = "its own keys" if wrong is None else f"rule {wrong}: {show(recipe.rules[wrong - 1])}"
        raise RecipeError(f"recipe {show(recipe.name)} has no form in TOML: {what}")
    return text


def text_of(recipe: Recipe) -> str:
    """Return the text that a recipe was parsed from, if it still is its text, or else one of its own."""
    # Its text may have a name that initializers had before.
    if recipe.text and _same(parse(recipe.text, recipe.name, former=True), recipe):
        return recipe.text
    return dump(recipe)


def _same(a: Any, b: Any) -> bool:
    """Whether two values are equal, a NaN and the signs of zeros included."""
    if type(a) is not type(b):
        return False
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, Formulated):
        return a.kind is b.kind and _same(a.fields, b.fields)
    if dataclasses.is_dataclass(a) and not isinstance(a, Assign):
        names = [field.name for field in dataclasses.fields(a) if field.compare]
        return all(_same(getattr(a, name), getattr(b, name)) for name in names)
    if isinstance(a, float):
        return repr(a) == repr(b)
    return bool(a == b)


def _table_of(rule: Rule) -> dict[str, Any]:
    """The table of a rule."""
    one = len(rule.match) == 1
    table: dict[str, Any] = {"match": rule.match[0] if one else list(rule.match)}
    if rule.init is not None:
        table |= table_of(rule.init)
    keys = ("same_as", "norm_of", "depth_scaled", "fans_of", "mup", "in_axis", "padding_idx")
    for key in (*keys, "dtype", "optional"):
        value = getattr(rule, key)
        if value is None or value is False:
            continue
        table[key] = list(value) if isinstance(value, tuple) else value
    return table


def _toml(value: Any) -> str:
    """A value as TOML spells it: arrays that are long in lines of their own."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        items = [_toml(item) for item in value]
        text = f"[{', '.join(items)}]"
        return text if len(text) <= 80 else "[\n" + ",\n".join(items) + ",\n]"
    if isinstance(value, dict):
        items = [f"{_toml_key(key)} = {_toml(item)}" for key, item in value.items()]
        return f"{{{', '.join(items)}}}"
    return repr(value)


def _toml_key(key: str) -> str:
    return key if re.fullmatch("[A-Za-z0-9_-]+", key) else _toml(key)


def _rule(table: dict[str, Any], where: str, names: Names, base: bool) -> Rule:
    match = _globs(table, "match", where)
    sources = [key for key in ("init", "parts", "same_as", "norm_of") if key in table]
    if len(sources) > 1 and sources != ["init", "parts"]:
        raise RecipeError(
            f"{where}: got {' and '.join(sources)}; one of init, parts, same_as and norm_of is "
            "accepted"
        )
    dtype = _dtype(table, where)
    optional = _flag(table, "optional", where)
    if sources and sources[0] in ("same_as", "norm_of"):
        only(table, ["match", sources[0], "dtype", "optional"], where)
        other = _string(table, sources[0], where)
        return Rule(match, **{sources[0]: other}, dtype=dtype, optional=optional)  # type: ignore[arg-type]
    init = table.get("init")
    fields = (
        signature(known()[init]).parameters if isinstance(init, str) and init in known() else {}
    )
    mup: Role | None = table.get("mup")
    if mup is not None and (not isinstance(mup, str) or mup not in ROLES):
        raise RecipeError(f"{where}, key 'mup': got {show(mup)}; accepted: {', '.join(ROLES)}")
    own = {key: value for key, value in table.items() if key not in RULE_KEYS or key in fields}
    in_axis = table.get("in_axis") if mup is not None and "in_axis" not in fields else None
    if isinstance(in_axis, list):
        in_axis = tuple(in_axis)
    if in_axis is not None and not all(
        is_integer(axis) for axis in (in_axis if isinstance(in_axis, tuple) else (in_axis,))
    ):
        raise RecipeError(
            f"{where}, key 'in_axis': got {show(in_axis)}; accepted: an integer or an array of them"
        )
    if in_axis is not None and not any(
        isinstance(value, str) and re.search(r"\bfan_(in|out)\b", value) for value in own.values()
    ):
        del own["in_axis"]
    built = initializer(own, where, names)
    depth_scaled = table.get("depth_scaled", False)
    check_scaled(depth_scaled, built, where, names)
    if mup is not None and not base:
        raise RecipeError(
            f"{where}, key 'mup': needs the recipe's table [base], of globs and the shapes of "
            "their tensors in the base model"
        )
    if mup is not None and ROLES[mup]:
        check_spread("mup", built, where)
    padding = table.get("padding_idx") if "padding_idx" not in fields else None
    return Rule(
        match,
        built,
        depth_scaled,
        _string(table, "fans_of", where) if "fans_of" in table else None,
        mup,
        in_axis,
        None if padding is None else rows(padding, where),
        dtype=dtype,
        optional=optional,
    )


def _dtype(table: dict[str, Any], where: str) -> str | None:
    dtype = table.get("dtype")
    accepted = ["keep", *DTYPES, *INTEGERS]
    if dtype is not None and (not isinstance(dtype, str) or dtype not in accepted):
        raise RecipeError(
            f"{where}, key 'dtype': got {show(dtype)}; accepted: {', '.join(accepted)}"
        )
    return dtype


def _flag(table: dict[str, Any], key: str, where: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise RecipeError(f"{where}, key {key!r}: got {show(value)}; accepted: true or false")
    return value


def _layers(table: dict[str, Any], where: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The globs of layers, and how many layers each of them has if that is said."""
    value = table["layers"]
    numbers = [value] if is_integer(value) else []
    globs: tuple[str, ...] = ()
    if isinstance(value, dict):
        globs, numbers = _globs({"layers": list(value)}, "layers", where), list(value.values())
    elif not numbers:
        return _globs(table, "layers", where), ()
    for number in numbers:
        if not is_integer(number) or not 0 < number <= MOST_LAYERS:
            raise RecipeError(
                f"{where}, key 'layers': got {show(number)}; accepted: a number of layers, 1 to "
                f"{MOST_LAYERS}"
            )
    return globs, tuple(numbers)


def _constants(table: Any, where: str) -> dict[str, float]:
    if not isinstance(table, dict) or len(table) > MAX_CONSTANTS:
        got = f"{len(table)} of them" if isinstance(table, dict) else show(table)
        raise RecipeError(
            f"{where}, key 'constants': got {got}; accepted: a table of at most {MAX_CONSTANTS} "
            "names and numbers"
        )
    made: dict[str, float] = {}
    for name, value in table.items():
        place = f"{where}, table [constants], key {show(name)}"
        if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) or name in RESERVED:
            raise RecipeError(
                f"{place}: accepted: a name of letters, digits and underscores, but none of "
                f"{', '.join(sorted(RESERVED))}"
            )
        if isinstance(value, str):
            try:
                formula = Formula(value)
                if unknown := sorted(formula.names - made.keys()):
                    raise ValueError(f"{unknown[0]!r} is no constant above it")
                made[name] = formula.bind(**made).number()
            except ValueError as error:
                raise RecipeError(f"{place}: {cut(error)}") from error
        elif isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
            raise RecipeError(f"{place}: got {show(value)}; accepted: a number or a formula")
        else:
            made[name] = float(value)
        if made[name] != made[name]:
            raise RecipeError(f"{place}: got nan; accepted: a number or a formula")
    return made


def _base(table: Any, where: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    if not isinstance(table, dict) or not table:
        raise RecipeError(
            f"{where}, key 'base': got {show(table)}; accepted: a table of globs and shapes"
        )
    for glob, shape in table.items():
        if not isinstance(shape, list) or not all(is_integer(n) and n > 0 for n in shape):
            raise RecipeError(
                f"{where}, table [base], key {show(glob)}: got {show(shape)}; accepted: "
                "a shape, an array of positive integers"
            )
    return tuple((glob, tuple(shape)) for glob, shape in table.items())


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
