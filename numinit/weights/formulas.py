"""Formulas: numbers that follow from a weight's shape and from its place in a model.

A formula is data. It is parsed by the grammar below and evaluated by this module alone, within
bounds on its size and depth, so that one from a stranger can do no more than give a number::

    sum     = product {("+" | "-") product}
    product = sign {("*" | "/" | "//" | "%") sign}
    sign    = ("+" | "-") sign | power
    power   = atom ["**" sign]
    atom    = number | name | "size" "(" axis ")" | function "(" sum {"," sum} ")" | "(" sum ")"

The functions are `sqrt`, `log`, `exp`, `sin`, `cos` (of radians), `floor`, and `min` and `max` of
two or more. ``x // y`` is the floor of the quotient and ``x % y`` what it leaves. ``size(axis)`` is
the size of an axis of the weight, -1 its last one. All arithmetic is that of float64, by
`numinit.weights.functions`: every machine gets the same numbers.
"""

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np

from numinit.engines.floats import default_mode
from numinit.show import show
from numinit.weights import functions

MAX_CHARACTERS = 500
MAX_TOKENS = 100
MAX_DEPTH = 32

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sqrt": np.sqrt,
    "log": functions.log,
    "exp": functions.exp,
    "sin": functions.sin,
    "cos": functions.cos,
    "floor": np.floor,
    "min": np.minimum,
    "max": np.maximum,
}
OPERATORS: dict[str, Callable[..., Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "//": np.floor_divide,
    "%": np.mod,
    "**": functions.power,
}
SLOW = {"log", "exp", "sin", "cos", "**"}
#: Names that no constant may have.
WORDS = {*FUNCTIONS, "size"}

TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<sign>\*\*|//|[-+*/%(),]))"
)

#: ("number", x), ("name", text), ("size", axis), or an operator or a function and its arguments.
Node = tuple[Any, ...]


class FormulaError(ValueError):
    """A formula that is none, or that gives no number."""


@dataclass(frozen=True)
class Formula:
    """A formula, and the names in it whose values are known.

    Parameters
    ----------
    text : str
        See the grammar in `numinit.weights.formulas`.
    known : tuple of (str, float)
        Names and their values.

    Raises
    ------
    FormulaError
        If the text is no formula; the message says at which character.

    Examples
    --------
    >>> from numinit.weights.formulas import Formula
    >>> Formula("0.02 / sqrt(2 * layers)").bind(layers=8).number()
    0.005
    """

    text: str
    known: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise TypeError(f"formula: {show(self.text)} was given; a string is accepted")
        _parsed(self.text)

    @property
    def names(self) -> frozenset[str]:
        """The names that have no value yet."""
        return _parsed(self.text)[1] - {name for name, _ in self.known}

    @property
    def axes(self) -> frozenset[int]:
        """The axes whose sizes it uses."""
        return _parsed(self.text)[2]

    @property
    def slow(self) -> int:
        """How many of its operations take some hundred microseconds each."""
        return _parsed(self.text)[3]

    def bind(self, **values: float) -> "Formula":
        """Return the formula with the values of those names that it has and that had none."""
        new = tuple((name, float(values[name])) for name in sorted(self.names & values.keys()))
        return replace(self, known=tuple(sorted(self.known + new))) if new else self

    def number(self, shape: tuple[int, ...] | None = None) -> float:
        """Return the number that the formula gives.

        Parameters
        ----------
        shape : tuple of int, optional
            The weight's, for its sizes.

        Raises
        ------
        FormulaError
            If a name has no value, the weight lacks an axis, or the result is not finite.
        """
        return _number(self, shape)

    def values(self, names: Mapping[str, Any], shape: tuple[int, ...] | None = None) -> Any:
        """Evaluate the formula where some of its names are arrays of float64."""
        if missing := sorted(self.names - names.keys()):
            raise FormulaError(f"formula {show(self.text)}: {missing[0]!r} has no value here")
        for axis in self.axes:
            if shape is None or not -len(shape) <= axis < len(shape):
                of = "is unknown here" if shape is None else f"is out of range for shape {shape}"
                raise FormulaError(f"formula {show(self.text)}: size({axis}): axis {axis} {of}")
        known = {name: np.float64(value) for name, value in self.known}
        return _evaluated(_parsed(self.text)[0], {**names, **known}, shape or ())


@functools.lru_cache(4096)  # a model's layers are alike
@default_mode()
def _number(formula: Formula, shape: tuple[int, ...] | None) -> float:
    with np.errstate(all="ignore"):
        number = float(formula.values({}, shape))
    if not math.isfinite(number):
        raise FormulaError(f"formula {show(formula.text)}: gives {number}, no finite number")
    return number


def _evaluated(node: Node, names: Mapping[str, Any], shape: tuple[int, ...]) -> Any:
    kind, *arguments = node
    if kind == "number":
        return np.float64(arguments[0])
    if kind == "name":
        return names[arguments[0]]
    if kind == "size":
        return np.float64(shape[arguments[0]])
    made = [_evaluated(argument, names, shape) for argument in arguments]
    if kind == "negative":
        return -made[0]
    function = FUNCTIONS.get(kind) or OPERATORS[kind]
    return functools.reduce(function, made) if len(made) > 1 else function(made[0])


@functools.lru_cache(1024)
def _parsed(text: str) -> tuple[Node, frozenset[str], frozenset[int], int]:
    """The tree of a formula, its names, the axes in it, and how many operations are slow."""
    return _Parser(text).parsed()


class _Parser:
    """A parser that goes down through the rules of the grammar."""

    def __init__(self, text: str) -> None:
        self._text = text
        if len(text) > MAX_CHARACTERS:
            self._refuse(f"{len(text)} characters; at most {MAX_CHARACTERS} are accepted")
        self._tokens = list(self._split())
        if len(self._tokens) > MAX_TOKENS:
            self._refuse(
                f"{len(self._tokens)} numbers, names and signs; at most {MAX_TOKENS} are accepted"
            )
        self._at = self._depth = self._slow = 0
        self._names: set[str] = set()
        self._axes: set[int] = set()

    def parsed(self) -> tuple[Node, frozenset[str], frozenset[int], int]:
        tree = self._sum()
        if self._at < len(self._tokens):
            self._unexpected("an operator")
        return tree, frozenset(self._names), frozenset(self._axes), self._slow

    def _split(self) -> Iterator[tuple[str, str, int]]:
        """The kind, the text and the place of each token."""
        at, end = 0, len(self._text.rstrip())
        while at < end:
            match = TOKEN.match(self._text, at)
            if match is None:
                at += len(self._text[at:]) - len(self._text[at:].lstrip())
                self._refuse(f"character {at + 1}: unexpected {show(self._text[at])}")
            assert match.lastgroup is not None
            yield match.lastgroup, match[match.lastgroup], match.start(match.lastgroup) + 1
            at = match.end()

    def _refuse(self, why: str) -> NoReturn:
        raise FormulaError(f"formula {show(self._text)}: {why}")

    def _unexpected(self, wanted: str) -> NoReturn:
        if self._at == len(self._tokens):
            self._refuse(f"ends where {wanted} is expected")
        _, text, place = self._tokens[self._at]
        self._refuse(f"character {place}: got {show(text)} where {wanted} is expected")

    def _take(self, *signs: str) -> str:
        """The next token if it is one of these signs, else ""."""
        if self._at < len(self._tokens) and self._tokens[self._at][1] in signs:
            self._at += 1
            return self._tokens[self._at - 1][1]
        return ""

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            self._unexpected(repr(sign))

    def _deeper(self, rule: Callable[[], Node]) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._refuse(f"nested more than {MAX_DEPTH} deep")
        made = rule()
        self._depth -= 1
        return made

    def _sum(self) -> Node:
        left = self._product()
        while sign := self._take("+", "-"):
            left = sign, left, self._product()
        return left

    def _product(self) -> Node:
        left = self._sign()
        while sign := self._take("*", "/", "//", "%"):
            left = sign, left, self._sign()
        return left

    def _sign(self) -> Node:
        if sign := self._take("+", "-"):
            inner = self._deeper(self._sign)
            return inner if sign == "+" else ("negative", inner)
        return self._power()

    def _power(self) -> Node:
        base = self._atom()
        if not self._take("**"):
            return base
        self._slow += 1
        return "**", base, self._deeper(self._sign)

    def _atom(self) -> Node:
        kind, text, place = (*self._tokens, ("end", "", 0))[self._at]
        if kind == "number":
            self._at += 1
            if not math.isfinite(number := float(text)):
                self._refuse(f"character {place}: {show(text)} is beyond the largest float64")
            return "number", number
        if kind == "name":
            self._at += 1
            if not self._take("("):
                if text in WORDS:
                    self._refuse(f"character {place}: {text} needs an argument in parentheses")
                self._names.add(text)
                return "name", text
            if text == "size":
                return self._size()
            if text not in FUNCTIONS:
                accepted = ", ".join([*FUNCTIONS, "size"])
                self._refuse(f"character {place}: no function {show(text)}; accepted: {accepted}")
            return self._call(text, place)
        if self._take("("):
            inner = self._deeper(self._sum)
            self._expect(")")
            return inner
        return self._unexpected("a number, a name or '('")

    def _size(self) -> Node:
        sign = -1 if self._take("-") else 1
        kind, text, _ = (*self._tokens, ("end", "", 0))[self._at]
        if kind != "number" or not text.isdigit() or len(text) > 2:
            self._unexpected("the number of an axis")
        self._at += 1
        self._expect(")")
        axis = sign * int(text)
        self._axes.add(axis)
        return "size", axis

    def _call(self, name: str, place: int) -> Node:
        arguments = [self._deeper(self._sum)]
        while self._take(","):
            arguments.append(self._deeper(self._sum))
        self._expect(")")
        several = name in ("min", "max")
        if several != (len(arguments) > 1):
            wanted = "two or more arguments" if several else "one argument"
            self._refuse(f"character {place}: {name} takes {wanted}, got {len(arguments)}")
        self._slow += name in SLOW
        return name, *arguments
