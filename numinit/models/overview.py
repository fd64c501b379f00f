"""What a recipe makes of a model: its rules and distributions by tensor, folded over layers."""

import math
import re
from collections.abc import Container, Iterator, Mapping
from typing import NamedTuple

from numinit.engines.spec import Joined, Plan, Sampled, Whole
from numinit.models.integers import Integer, check_integers
from numinit.models.recipe import Recipe
from numinit.models.sources import TensorSpec
from numinit.models.tensors import nbytes_of, resolved
from numinit.show import cut
from numinit.stream.dtypes import DType

__all__ = ["Line", "lines", "overview"]


class Line(NamedTuple):
    """Tensors that are alike but for the numbers in their names."""

    names: str
    """With the numbers that differ as {0-31}, or {1,3-5}."""
    tensors: int
    shape: tuple[int, ...]
    dtype: str
    rule: int
    """From 1 on; 0 for those that no rule makes."""
    made: str
    """What they are made of."""
    nbytes: int
    """Of all of them."""


def overview(
    tensors: Mapping[str, TensorSpec],
    recipe: Recipe,
    dtype: str | None = None,
    given: Container[str] = (),
) -> list[Line]:
    """Return what a recipe makes of a model's tensors, alike ones on one line.

    Parameters
    ----------
    tensors : mapping of str to TensorSpec
    recipe : Recipe
    dtype : str, optional
        As for `numinit.models.write.write`.
    given : container of str, optional
        The tensors that the recipe does not make.

    Returns
    -------
    list of Line
        In the order of the first tensor of each.

    Raises
    ------
    ValueError
        If the recipe does not fit.

    Examples
    --------
    >>> from numinit.models.overview import overview
    >>> from numinit.models.recipes import as_recipe
    >>> from numinit.models.sources import TensorSpec
    >>> tensors = {f"h.{n}.w": TensorSpec((2, 3)) for n in range(4)}
    >>> line, = overview(tensors, as_recipe({"*": ni.Normal(std=0.5)}))
    >>> line.names, line.tensors, line.made
    ('h.{0-3}.w', 4, 'Normal(mean=0.0, std=0.5)')
    """
    kinds = resolved(tensors, dtype, recipe)
    shapes = {name: spec.shape for name, spec in tensors.items() if name not in given}
    floats = {name: kind for name, (_, kind) in kinds.items() if isinstance(kind, DType)}
    plans = recipe.made(shapes, floats)
    groups: dict[tuple[str, tuple[int, ...], str, int, str], list[str]] = {}
    texts: dict[int, str] = {}
    for name, (shape, kind) in kinds.items():
        alike = re.sub("[0-9]+", "*", name), shape, kind.name
        if name in given:
            groups.setdefault((*alike, -1, "operations of torch"), []).append(name)
            continue
        made = plans[name]
        if isinstance(kind, Integer):
            check_integers(name, made.plan, shape, kind)
        if id(made.plan) not in texts:
            texts[id(made.plan)] = described(made.plan)
        text = texts[id(made.plan)]
        if made.source != name:
            text = f"{text} of {re.sub('[0-9]+', '*', made.source)}"
        groups.setdefault((*alike, made.rule, text), []).append(name)
    listed = []
    for (_, shape, dtype_name, rule, text), names in groups.items():
        nbytes = nbytes_of(*kinds[names[0]]) * len(names)
        listed.append(Line(_folded(names), len(names), shape, dtype_name, rule + 1, text, nbytes))
    return listed


def described(plan: Plan) -> str:
    """Return a plan in words: its distribution, or the initializer that makes it."""
    if isinstance(plan, Sampled):
        text = repr(plan.distribution)
        return text if plan.zeros is None else f"{text} with zeros ({plan.zeros.pattern.name})"
    if isinstance(plan, Joined):
        most = 4
        parts = [f"{part.size} {described(part.plan)}" for part in plan.parts[:most]]
        more = f", and {len(plan.parts) - most} more" if len(plan.parts) > most else ""
        return f"{plan.name}({', '.join(parts)}{more}) along axis {plan.axis}"
    return f"{plan.name}(gain={plan.gain:g})" if isinstance(plan, Whole) else plan.name


def lines(listed: list[Line]) -> Iterator[str]:
    r"""Yield an overview as aligned text, with totals.

    Parameters
    ----------
    listed : list of Line

    Yields
    ------
    str

    Examples
    --------
    >>> from numinit.models.overview import Line, lines
    >>> print(*lines([Line("h.{0-3}.w", 4, (2, 3), "float32", 1, "Ones()", 96)]), sep="\n")
    h.{0-3}.w  x4  [2, 3]  float32  rule 1  Ones()
    4 tensors, 24 elements, 96 bytes
    """
    rows = [
        (
            _shown(line.names),
            f"x{line.tensors}" if line.tensors > 1 else "",
            str(list(line.shape)),
            line.dtype,
            f"rule {line.rule}" if line.rule else "no rule",
        )
        for line in listed
    ]
    widths = [max(map(len, column), default=0) for column in zip(*rows, strict=True)]
    for row, line in zip(rows, listed, strict=True):
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True) if width)
        yield "  ".join([*cells, _shown(line.made)])
    count, nbytes = sum(line.tensors for line in listed), sum(line.nbytes for line in listed)
    elements = sum(line.tensors * math.prod(line.shape) for line in listed)
    many = "" if count == 1 else "s"
    yield f"{count:,} tensor{many}, {elements:,} elements, {nbytes:,} bytes"


def _shown(text: str) -> str:
    """A text from a stranger, on one line of a terminal."""
    return cut("".join(char if char.isprintable() else "?" for char in text))


def _folded(names: list[str]) -> str:
    """Names that differ in numbers only, as one."""
    if len(names) == 1:
        return names[0]
    numbers = [re.findall("[0-9]+", name) for name in names]
    texts = iter(re.split("[0-9]+", names[0]))
    folded = next(texts)
    for column, text in zip(zip(*numbers, strict=True), texts, strict=True):
        values = sorted({*column}, key=lambda digits: (len(digits), digits))
        folded += (values[0] if len(values) == 1 else f"{{{_runs(values)}}}") + text
    return folded


def _runs(values: list[str]) -> str:
    """Sorted numbers, with those that follow one another as a range."""
    runs: list[list[str]] = []
    for value in values:
        if runs and len(value) < 10 and int(value) == int(runs[-1][-1]) + 1:
            runs[-1] = [runs[-1][0], value]
        else:
            runs.append([value])
    return ",".join("-".join(run) for run in runs)
