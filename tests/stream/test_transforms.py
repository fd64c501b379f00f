"""Accuracy of the transforms on random and edge words, and exact 16-bit rounding."""

import mpmath
import numpy as np
import oracle
import pytest
from numba import njit

from numinit.stream.normal import NORMAL
from numinit.stream.rounding import bfloat16_bits, float16_bits
from numinit.stream.uniform import UNIFORM

PRECISIONS = {
    "float32": (32, np.uint32, np.float32, 1e-6),
    "float64": (64, np.uint64, np.float64, 1e-14),
}


def run(transform, words0, words1, real, *parameters):
    made = getattr(transform, real.__name__)

    @njit
    def loop(words0, words1, out, p):
        for i in range(words0.size):
            out[0, i], out[1, i] = made(words0[i], words1[i], p)

    out = np.full((2, words0.size), np.nan, real)
    loop(words0, words1, out, transform.Parameters(*map(float, parameters)))
    assert not np.isnan(out).any()
    return out


def edge_words(bits):
    """The edge words, and for 64 bits every pair of them."""
    if bits == 32:
        return list(oracle.EDGE_WORDS)
    return [high << 32 | low for high in oracle.EDGE_WORDS for low in oracle.EDGE_WORDS]


def word_pairs(bits, word, count):
    random = np.random.default_rng(bits)
    edges = np.array(edge_words(bits), word)
    first = random.integers(0, 2**bits, count, dtype=word)
    small = random.integers(0, 2 ** (bits // 2), count // 4, dtype=word)  # the far tail of u
    first = np.concatenate([first, small, ~small, edges, edges[::-1]])
    second = random.integers(0, 2**bits, first.size, dtype=word)
    second[-2 * edges.size :] = np.concatenate([edges, edges])
    return first, second


@pytest.mark.parametrize("precision", PRECISIONS)
def test_normal_is_within_the_contract_of_the_exact_transform(precision):
    bits, word, real, bound = PRECISIONS[precision]
    first, second = word_pairs(bits, word, 4000)
    got = run(NORMAL, first, second, real, 0, 1, 0)
    with mpmath.workdps(40):
        for w0, w1, z0, z1 in zip(first, second, *got, strict=True):
            exact = oracle.normal_pair(int(w0), int(w1), bits)
            assert abs(exact[0] - float(z0)) <= bound, (w0, w1)
            assert abs(exact[1] - float(z1)) <= bound, (w0, w1)


@pytest.mark.parametrize(("precision", "reach"), [("float32", 6.76), ("float64", 9.49)])
def test_the_tails_of_the_normal(precision, reach):
    _, word, real, _ = PRECISIONS[precision]
    words = np.array([0, ~word(0)], word)  # the smallest and the largest u
    got = run(NORMAL, words, np.zeros(2, word), real, 0, 1, 0)
    assert got[0, 0] == pytest.approx(reach, abs=0.01)
    assert 0 < got[0, 1] < 1e-4


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (-3.0, 5.0), (0.5, 0.75), (1e-3, 1e3), (0.0, 1e-36), (0.0, 1e-38)]
)
def test_uniform_is_one_rounding_from_exact(precision, low, high):
    bits, word, real, _ = PRECISIONS[precision]
    first, second = word_pairs(bits, word, 2000)
    low, high = real(low), real(high)
    width = real(float(high) - float(low))
    most = np.nextafter(high, real(-np.inf))
    got = run(UNIFORM, first, second, real, width, low, low, most)
    assert (got >= low).all()
    assert (got < high).all()
    half = np.spacing(np.abs(got)).astype(np.float64) / 2
    with mpmath.workdps(40):
        for w, value, bound in zip(first, got[0], half[0], strict=True):
            exact = oracle.uniform(int(w), bits) * float(width) + float(low)
            assert abs(exact - float(value)) <= bound or value == most


def all_float32_near_half_precision():
    """Every float16 value, its neighbours in float32 and the ties between two of them."""
    exact = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = np.sort(exact[np.isfinite(exact)].astype(np.float32))
    ties = (finite[1:] + finite[:-1]) / 2
    values = np.concatenate([finite, ties])
    return np.concatenate([values, np.nextafter(values, np.inf), np.nextafter(values, -np.inf)])


def rounded(convert, values):
    @njit
    def loop(values, out):
        for i in range(values.size):
            out[i] = convert(values[i])

    out = np.zeros(values.size, np.uint16)
    loop(values, out)
    return out


SPECIAL = np.array(
    [0, -0.0, np.inf, -np.inf, 65519.996, 65520, -65520, 1e5, 1e30, 3.4e38, 1e-8, -1e-45],
    np.float32,
)


def test_float16_rounds_to_nearest_even():
    random = np.random.default_rng(1).integers(0, 2**32, 10**6, dtype=np.uint32).view(np.float32)
    values = np.concatenate([all_float32_near_half_precision(), SPECIAL, random[~np.isnan(random)]])
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    np.testing.assert_array_equal(rounded(float16_bits, values), expected.view(np.uint16))


def test_bfloat16_rounds_to_nearest_even():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    bits = np.arange(2**16, dtype=np.uint32) << 16
    near = np.concatenate([bits, bits + 0x7FFF, bits + 0x8000, bits + 0x8001]).view(np.float32)
    values = np.concatenate([near[~np.isnan(near)], SPECIAL])
    expected = values.astype(bfloat16).view(np.uint16)
    np.testing.assert_array_equal(rounded(bfloat16_bits, values), expected)


def test_nan_stays_nan():
    nan = np.array([np.nan, -np.nan], np.float32)
    assert np.isnan(rounded(float16_bits, nan).view(np.float16)).all()
    assert np.isnan((rounded(bfloat16_bits, nan).astype(np.uint32) << 16).view(np.float32)).all()
