"""Values by index: formulas and functions of the indices, and tables of positions."""

import mpmath
import numpy as np
import pytest

import numinit as ni
from numinit.weights.formulas import Formula

mpmath.mp.prec = 120


@pytest.mark.parametrize(
    ("text", "shape", "expected"),
    [
        ("i", (5,), lambda i: i),
        ("log(j + 1)", (3, 16), lambda i, j: np.log(j + 1.0) + 0 * i),
        ("(i / (n - 1)) ** 0.7", (9,), lambda i: (i / 8) ** 0.7),
        ("2 ** (-8 * (i + 1) / n)", (8,), lambda i: 2.0 ** -(i + 1)),
        ("i * size(1) + j", (4, 6), lambda i, j: 6.0 * i + j),
        ("l + 10 * k", (1, 1, 3, 4), lambda i, j, k, m: m + 10.0 * k),
        ("(i // 3 - i % 3) * size(-1)", (7, 2), lambda i, j: (i // 3 - i % 3) * 2.0 + 0 * j),
        ("7", (), lambda: 7.0),
    ],
)
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_formulas(text, shape, expected, dtype):
    exact = np.broadcast_to(np.fromfunction(expected, shape), shape)
    made = ni.FromIndex(text)(shape, dtype)
    if dtype == "float64":
        np.testing.assert_allclose(made, exact, rtol=3e-16)
        return
    expected = exact.astype(np.float32) if dtype == "float32" else ni.Assign(exact)(shape, dtype)
    np.testing.assert_array_equal(made, expected)


def test_every_way_to_ask_gives_the_same():
    init, shape = ni.FromIndex("sin(i) + j * cos(k)"), (7, 5, 6)
    whole = init(shape, "float64")
    np.testing.assert_array_equal(
        init.block(shape, np.s_[2:5, 1, 3:], "float64"), whole[2:5, 1, 3:]
    )
    np.testing.assert_array_equal(init.rows(shape, [6, 0, 6], "float64"), whole[[6, 0, 6]])
    transposed = np.empty(shape[::-1]).T
    np.testing.assert_array_equal(init.fill_(transposed), whole)
    out = np.empty(800, np.uint8)
    init.fill_flat(out, 37, shape, "float64", ni.Key(0))
    np.testing.assert_array_equal(out.view("float64"), whole.reshape(-1)[37:137])


def test_functions():
    ramp = ni.FromIndex(lambda i, j: 10 * i + j)
    assert ramp((2, 3)).tolist() == [[0, 1, 2], [10, 11, 12]]
    assert ni.FromIndex(lambda i: 1j * i)(3, "complex64").tolist() == [0, 1j, 2j]
    assert ni.FromIndex(lambda i: i > 1)(3).tolist() == [0, 0, 1]
    assert ni.FromIndex(lambda *index: 4)(()).tolist() == 4
    big = ni.FromIndex(lambda i, j: i + j)
    np.testing.assert_array_equal(
        big((300, 400), "float64"), np.add.outer(np.arange(300.0), np.arange(400.0))
    )
    with pytest.raises(TypeError, match="complex values; float32 holds real"):
        ni.FromIndex(lambda i: 1j * i)(3)
    with pytest.raises(TypeError, match="returned <U21 elements; numbers are accepted"):
        ni.FromIndex(lambda i: i.astype(str))(3)


@pytest.mark.parametrize(
    ("values", "shape", "dtype", "message"),
    [
        ("k", (2, 2), "float32", r"k needs axis 2; shape \(2, 2\) has 2 axes"),
        ("n", (), "float32", r"n needs axis 0; shape \(\) has 0 axes"),
        ("1 / i", (2,), "float32", r"gives inf at \[0\]; finite numbers"),
        ("sqrt(0 - j)", (2, 3), "float32", r"gives nan at \[0, 1\]; finite numbers"),
        ("i * 1e4", (9,), "float16", r"gives 70000.0 at \[7\]; .* up to 65504"),
        ("layers", (2,), "float32", "'layers' has no value here"),
        ("i + size(1)", (2,), "float32", "axis 1 is out of range"),
        (lambda i: 1 / (i - 1), (2,), "float32", r"gives inf at \[1\]"),
    ],
)
def test_what_is_refused_leaves_the_array(values, shape, dtype, message):
    array = np.full(shape, 7, dtype)
    with pytest.raises(ValueError, match=message):
        ni.FromIndex(values).fill_(array)
    assert (array == 7).all()


def test_large_weights_are_checked_as_they_are_filled():
    with pytest.raises(ValueError, match=r"gives inf at \[199, 999\]"):
        ni.FromIndex("1 / (199 + 999 - i - j)")((200, 1000))
    with pytest.raises(TypeError, match="a formula or a function is accepted"):
        ni.FromIndex(3)
    assert ni.FromIndex("i") == ni.FromIndex(Formula("i"))
    assert hash(ni.FromIndex("i")) == hash(ni.FromIndex(Formula("i")))


def published(layout, rows, columns):
    """The formulas of the three sources, in 120 bits."""
    base, half = mpmath.mpf(10000), columns // 2
    table = np.zeros((rows, columns))
    for p in range(rows):
        for c in range(columns // 2):
            if layout == "transformer":
                angle, at = p * base ** (-mpmath.mpf(2 * c) / columns), (2 * c, 2 * c + 1)
            else:
                angle, at = p * base ** (-mpmath.mpf(c) / max(half - 1, 1)), (c, half + c)
            table[p, at[0]], table[p, at[1]] = mpmath.sin(angle), mpmath.cos(angle)
    return table


@pytest.mark.parametrize("layout", ["transformer", "tensor2tensor", "whisper"])
@pytest.mark.parametrize("shape", [(40, 12), (3, 2), (25, 64)])
def test_sinusoidal(layout, shape):
    init = ni.Sinusoidal(layout)
    made, expected = init(shape, "float64"), published(layout, *shape)
    assert (made != expected).mean() <= 0.01
    np.testing.assert_allclose(made, expected, rtol=3e-16)
    far = (1 << 20, shape[1])
    np.testing.assert_array_equal(
        init.rows(far, [shape[0] - 1], "float64"), made[-1:] if shape[0] else made
    )
    assert (init((2, *shape)) == made.astype(np.float32)).all()


def test_sinusoidal_far_rows():
    made = ni.Sinusoidal().rows((1 << 27, 4), [(1 << 27) - 1], "float64")[0]
    angles = [mpmath.mpf((1 << 27) - 1), ((1 << 27) - 1) / mpmath.mpf(100)]
    expected = [float(f(a)) for a in angles for f in (mpmath.sin, mpmath.cos)]
    np.testing.assert_allclose(made, expected, rtol=0, atol=3e-16)


def test_sinusoidal_of_odd_widths_and_what_it_refuses():
    assert not ni.Sinusoidal("tensor2tensor")((5, 7))[:, -1].any()
    odd = ni.Sinusoidal()((5, 7), "float64")
    np.testing.assert_allclose(odd[:, 6], np.sin(np.arange(5) * 10000.0 ** (-6 / 7)), rtol=1e-14)
    for arguments, shape, message in [
        (("whisper",), (5, 7), "7 columns were given; an even number"),
        ((), (5,), "at least two axes"),
        ((), ((1 << 27) + 1, 4), "positions were given; up to"),
        (("flax",), (2, 2), "layout: 'flax' was given; one of transformer"),
        (("whisper", 0.0), (2, 2), "base: 0.0 was given"),
    ]:
        with pytest.raises(ValueError, match=message):
            ni.Sinusoidal(*arguments)(shape)


def test_assign_broadcasts():
    value = np.array([[1.0], [2.0], [3.0]])
    init, shape = ni.Assign(value), (2, 3, 4)
    whole = init(shape)
    np.testing.assert_array_equal(whole, np.broadcast_to(value, shape))
    np.testing.assert_array_equal(init.block(shape, np.s_[1, 1:, 2]), [2, 3])
    np.testing.assert_array_equal(init.rows(shape, [1, 0]), whole)
    np.testing.assert_array_equal(ni.Assign(5)((2, 2)), [[5, 5], [5, 5]])
    np.testing.assert_array_equal(ni.Assign([1, 2])((3, 2)), [[1, 2]] * 3)
    np.testing.assert_array_equal(ni.Assign(np.ones((1, 2)))((0, 2)), np.ones((0, 2)))
    for value, shape in [([1, 2], (2, 3)), ([[1, 2]], (2,)), (np.ones((2, 0)), (2, 1))]:
        with pytest.raises(ValueError, match="is accepted, and one that it broadcasts to"):
            ni.Assign(value)(shape)
