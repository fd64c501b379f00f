"""Formulas: their grammar and its bounds, and the arithmetic that is the same on every machine."""

import contextlib
import math
import random
import time
import tracemalloc

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numinit.weights import functions
from numinit.weights.formulas import FUNCTIONS, MAX_DEPTH, Formula, FormulaError

mpmath.mp.prec = 200


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", 2.0),
        (" .5e1 ", 5.0),
        ("1 - 2 - 3", -4.0),
        ("8 / 4 / 2", 1.0),
        ("7 // 2 + -7 // 2", -1.0),
        ("7 % 4 + -1 % 4", 6.0),
        ("2 + 3 * 4", 14.0),
        ("(2 + 3) * 4", 20.0),
        ("-2 ** 2", -4.0),
        ("2 ** -1", 0.5),
        ("2 ** 3 ** 2", 512.0),
        ("--+-2", -2.0),
        ("sqrt(5)", math.sqrt(5)),
        ("log(exp(1))", 1.0),
        ("max(1, min(5, 3), 2)", 3.0),
        ("floor(2.5) + cos(0) + sin(0)", 3.0),
        ("256 ** -0.5", 0.0625),
        ("d * size(0) + size(-1)", 61.0),
        ("min(exp(1000), 7)", 7.0),
    ],
)
def test_values(text, value):
    assert Formula(text).bind(d=10, unused=3).number((5, 7, 11)) == value


def test_names_and_binding():
    formula = Formula("a * b + size(1)")
    assert formula.names == {"a", "b"}
    assert formula.axes == {1}
    half = formula.bind(a=2)
    assert half.names == {"b"}
    assert half.bind(a=9) is half
    assert half == formula.bind(a=2.0)
    assert half.bind(b=3).number((1, 4)) == 10
    with pytest.raises(FormulaError, match="'b' has no value here"):
        half.number((1, 4))
    with pytest.raises(FormulaError, match=r"size\(1\): axis 1 is out of range for shape \(4,\)"):
        half.bind(b=1).number((4,))
    with pytest.raises(FormulaError, match=r"size\(1\): axis 1 is unknown here"):
        half.bind(b=1).number()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "ends where a number, a name or '[(]' is expected"),
        ("1 +", "ends where a number"),
        ("1 2", "character 3: got '2' where an operator is expected"),
        ("(1", r"ends where '\)' is expected"),
        ("1)", r"character 2: got '\)' where an operator"),
        ("a.b", "character 2: unexpected '[.]'"),
        ("__import__('os')", r"character 12: unexpected \"'\""),
        ("abs(1)", "character 1: no function 'abs'; accepted: sqrt, log"),
        ("1 + sqrt", "character 5: sqrt needs an argument"),
        ("sqrt(1, 2)", "character 1: sqrt takes one argument, got 2"),
        ("min(1)", "character 1: min takes two or more arguments, got 1"),
        ("size(a)", "character 6: got 'a' where the number of an axis"),
        ("size(1.5)", "the number of an axis"),
        ("1e999", "character 1: '1e999' is beyond the largest float64"),
        ("1 ; 2", "character 3: unexpected ';'"),
        ("٣", "character 1: unexpected '٣'"),
        ("\n=", "character 2: unexpected '='"),
        ("1" * 501, "501 characters; at most 500"),
        ("+".join("1" * 100), "199 numbers, names and signs; at most 100"),
        ("(" * 40 + "1" + ")" * 40, "nested more than 32 deep"),
        ("-" * 60 + "1", "nested more than 32 deep"),
        ("2" + "**2" * 40, "nested more than 32 deep"),
    ],
)
def test_what_is_no_formula(text, message):
    with pytest.raises(FormulaError, match=message) as caught:
        Formula(text)
    assert len(str(caught.value)) < 900
    with pytest.raises(TypeError, match="a string is accepted"):
        Formula(3)


@pytest.mark.parametrize("text", ["9 ** 9 ** 9", "1 / 0", "log(0)", "log(-1)", "sqrt(-1)", "1 % 0"])
def test_no_number(text):
    with pytest.raises(FormulaError, match="no finite number"):
        Formula(text).number()


def test_hostile_formulas_end_soon():
    draw = random.Random(0)
    pieces = ["9", "**", "(", ")", "-", "exp(", "log(", "size(0)", "x", ",", "min(", "1e308", " "]
    texts = ["".join(draw.choices(pieces, k=draw.randrange(150))) for _ in range(300)]
    texts += ["9**" * 200 + "9", "(" * 100_000, "exp(" * MAX_DEPTH + "1" + ")" * MAX_DEPTH]
    Formula("exp(1) + log(2) + sin(3)").number()  # the tables are made
    begin = time.process_time()
    tracemalloc.start()
    for text in texts:
        with contextlib.suppress(FormulaError):
            Formula(text).bind(x=1e9).number((3,))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.process_time() - begin < 5
    assert peak < 20e6


@given(st.floats(-50, 50), st.floats(0.001, 50))
def test_as_python(x, y):
    text = "(a + 3) * b / (b - a / 7) - a % b + min(a, b) * max(a, 2) - a // b + sqrt(b)"
    expected = (
        (x + 3) * y / (y - x / 7) - x % y + min(x, y) * max(x, 2) - x // y + math.sqrt(y)
        if y != x / 7
        else math.inf
    )
    formula = Formula(text).bind(a=x, b=y)
    if math.isfinite(expected):
        assert formula.number() == expected


def reference(name, x):
    """The correctly rounded value."""
    return float(getattr(mpmath, name)(mpmath.mpf(float(x))))


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("log", lambda rng: np.exp(rng.uniform(-700, 700, 500))),
        ("log", lambda rng: 1 + rng.normal(0, 1e-5, 500)),
        ("log", lambda rng: np.arange(1.0, 500.0)),
        ("exp", lambda rng: rng.uniform(-700, 700, 500)),
        ("exp", lambda rng: rng.normal(0, 1e-3, 500)),
        ("sin", lambda rng: rng.uniform(-1e8, 1e8, 500)),
        ("sin", lambda rng: rng.normal(0, 1e-4, 500)),
        ("sin", lambda rng: np.arange(500.0)),
        ("cos", lambda rng: rng.uniform(-1e3, 1e3, 500)),
        ("cos", lambda rng: np.arange(500.0)),
    ],
)
@np.errstate(all="ignore")
def test_functions_are_rounded_correctly(name, numbers):
    x = numbers(np.random.default_rng(0))
    made, expected = FUNCTIONS[name](x), np.array([reference(name, v) for v in x])
    assert (made != expected).mean() <= 0.02
    assert (abs(made - expected) <= np.spacing(abs(expected))).all()
    for value, number in zip(made[:20], x, strict=False):
        assert FUNCTIONS[name](number) == value  # alone, too


@np.errstate(all="ignore")
def test_powers():
    n = np.arange(1.0, 4097.0)
    assert (functions.power(n, 2.0) == n * n).all()
    assert (functions.power(n * n, 0.5) == n).all()
    assert (functions.power(n, -1.0) == 1 / n).all()
    rng = np.random.default_rng(0)
    x, y = np.exp(rng.uniform(-10, 10, 500)), rng.uniform(-30, 30, 500)
    exact = [float(mpmath.power(mpmath.mpf(a), mpmath.mpf(b))) for a, b in zip(x, y, strict=True)]
    assert (functions.power(x, y) != exact).mean() <= 0.02
    cases = [
        (-2.0, 3.0, -8.0), (-2.0, 4.0, 16.0), (-2.0, 0.5, math.nan), (0.0, 0.0, 1.0),
        (0.0, 2.0, 0.0), (0.0, -1.0, math.inf), (9.0, 9.0**9, math.inf), (2.0, -1e300, 0.0),
        (1.0, 1e300, 1.0), (math.inf, 2.0, math.nan), (-1.0, 1e300, 1.0), (5e-324, 1.0, 5e-324),
    ]  # fmt: skip
    for x, y, expected in cases:
        np.testing.assert_array_equal(functions.power(x, y), expected)


@np.errstate(all="ignore")
def test_ends_of_the_domains():
    np.testing.assert_array_equal(
        functions.log(np.array([0.0, -1.0, math.inf, math.nan, 5e-324])),
        [-math.inf, math.nan, math.nan, math.nan, math.log(5e-324)],
    )
    np.testing.assert_array_equal(
        functions.exp(np.array([1e9, -1e9, math.inf, math.nan, 0.0])),
        [math.inf, 0.0, math.nan, math.nan, 1.0],
    )
    assert np.isnan(functions.sin(np.array([1e300, math.inf, math.nan]))).all()
