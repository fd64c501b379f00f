"""Complex and 8-bit types: the total variance, the disk, and one rounding from float32."""

import math

import mpmath
import numpy as np
import oracle
import pytest

import numinit as ni
from numinit.initializers.variance_scaling import EXP_MINUS_4, TRUNCATED_DISK_STD, Spread
from numinit.weights.keys import Key

KEY = Key(0x0123456789ABCDEF, 0xFEDCBA9876543210)
COMPLEX = ["complex64", "complex128"]
N = 1 << 20


def words(index, bits):
    """The radius and angle words of a complex element: planes 0 and 1, and 2 and 3 below them."""
    x, y = (oracle.word(index, plane, KEY.seed, KEY.stream) for plane in (0, 1))
    if bits == 32:
        return x, y
    low_x, low_y = (oracle.word(index, plane, KEY.seed, KEY.stream) for plane in (2, 3))
    return x << 32 | low_x, y << 32 | low_y


def polar(radius, w, bits):
    turns = 2 * (mpmath.mpf(w) + mpmath.mpf(1) / 2) / mpmath.mpf(2) ** bits
    return mpmath.mpc(radius * mpmath.cospi(turns), radius * mpmath.sinpi(turns))


def unit(w, bits):
    return (mpmath.mpf(w) + mpmath.mpf(1) / 2) / mpmath.mpf(2) ** bits


def exact_normal(index, bits):
    x, y = words(index, bits)
    return polar(mpmath.sqrt(-mpmath.log(unit(x, bits))), y, bits)


def exact_disk(index, bits):
    x, y = words(index, bits)
    return polar(mpmath.sqrt(2 * unit(x, bits)), y, bits)


def exact_truncated(index, bits):
    x, y = words(index, bits)
    edge = mpmath.exp(-4)
    square = -mpmath.log(edge + unit(x, bits) * (1 - edge))
    return polar(mpmath.sqrt(square) / TRUNCATED_DISK_STD, y, bits)


LAWS = {
    "normal": (ni.Normal(), exact_normal),
    "uniform": (Spread(1.0, "uniform"), exact_disk),
    "truncated_normal": (Spread(1.0, "truncated_normal"), exact_truncated),
}


@pytest.mark.parametrize("dtype", COMPLEX)
@pytest.mark.parametrize("name", LAWS)
def test_elements_are_their_words(name, dtype):
    law, exact = LAWS[name]
    bits, bound = (32, 1e-6) if dtype == "complex64" else (64, 1e-14)
    values = law((700,), dtype, seed=KEY)
    with mpmath.workdps(40):
        for index in range(0, 700, 3):
            assert abs(exact(index, bits) - complex(values[index])) <= bound


@pytest.mark.parametrize("dtype", COMPLEX)
@pytest.mark.parametrize("name", LAWS)
def test_near_the_centre_and_the_edge_of_the_disk(name, dtype):
    """Radii of all but 2**-18 of the words; errors there would be of the square root's kind."""
    law, exact = LAWS[name]
    bits, bound = (32, 1e-6) if dtype == "complex64" else (64, 1e-14)
    values = law((1 << 18,), dtype, seed=KEY)
    order = np.argsort(abs(values))
    with mpmath.workdps(40):
        for index in [*order[:20], *order[-20:]]:
            assert abs(exact(int(index), bits) - complex(values[index])) <= bound


@pytest.mark.parametrize("dtype", COMPLEX)
@pytest.mark.parametrize("distribution", ["normal", "uniform", "truncated_normal"])
def test_the_total_variance_is_that_of_the_formula(distribution, dtype):
    """E |z|**2 = scale / fan, of which half is real; 6 standard errors: false alarm 2e-8 in all."""
    init = ni.VarianceScaling(3.0, "fan_in", distribution)
    z = init((N // 64, 64), dtype, seed=KEY) / math.sqrt(3 / 64)
    # var |z|**2 is 1 for the normal, and less for the others.
    assert (abs(z) ** 2).mean(dtype=np.float64) == pytest.approx(1, abs=6 / math.sqrt(N))
    for part in (z.real, z.imag):
        assert part.mean(dtype=np.float64) == pytest.approx(0, abs=6 * math.sqrt(0.5 / N))
        assert (part**2).mean(dtype=np.float64) == pytest.approx(0.5, abs=6 * math.sqrt(0.5 / N))
    assert (z.real * z.imag).mean(dtype=np.float64) == pytest.approx(0, abs=6 * 0.5 / math.sqrt(N))


@pytest.mark.parametrize("dtype", COMPLEX)
def test_the_distribution_of_radius_and_angle(dtype):
    """Kolmogorov-Smirnov, 12 tests of 1e-9 in all: false alarm 1.2e-8."""
    stats = pytest.importorskip("scipy.stats")
    cdf = {
        "normal": lambda r: -np.expm1(-(r**2)),
        "uniform": lambda r: r**2 / 2,
        "truncated_normal": lambda r: (
            -np.expm1(-((r * TRUNCATED_DISK_STD) ** 2)) / (1 - EXP_MINUS_4)
        ),
    }
    for name, (law, _) in LAWS.items():
        z = law((N,), dtype, seed=KEY).astype(np.complex128)
        assert stats.kstest(abs(z), cdf[name]).pvalue > 1e-9
        assert stats.kstest(np.angle(z) / (2 * np.pi) % 1, "uniform").pvalue > 1e-9
    assert abs(LAWS["truncated_normal"][0]((N,), dtype, seed=0)).max() <= 2 / TRUNCATED_DISK_STD


@pytest.mark.parametrize("name", LAWS)
def test_precision_does_not_change_the_draw(name):
    law, _ = LAWS[name]
    wide, narrow = law((N,), "complex128", seed=KEY), law((N,), "complex64", seed=KEY)
    assert np.quantile(abs(wide - narrow), 0.999) <= 1e-6


@pytest.mark.parametrize("dtype", COMPLEX)
@pytest.mark.parametrize("init", [ni.Normal(1.0, 2.0), ni.Uniform(2, 3), ni.Constant(1 - 2j), ni.XavierUniform()])  # fmt: skip
def test_parts_and_layouts(init, dtype):
    shape = (37, 129)
    whole = init(shape, dtype, seed=KEY)
    np.testing.assert_array_equal(
        init.block(shape, (slice(5, 30), slice(7, 100)), dtype, seed=KEY), whole[5:30, 7:100]
    )
    np.testing.assert_array_equal(
        init.rows(shape, [3, 36, -1], dtype, seed=KEY), whole[[3, 36, -1]]
    )
    for view in (np.zeros((129, 37), dtype).T, np.zeros((74, 258), dtype)[::2, ::2], np.zeros(shape, dtype)[::-1, ::-1]):  # fmt: skip
        np.testing.assert_array_equal(init.fill_(view, seed=KEY), whole)
    if isinstance(init, ni.Uniform):
        assert (whole.real >= 2).all() and (whole.imag < 3).all()
        assert abs(np.corrcoef(whole.real.ravel(), whole.imag.ravel())[0, 1]) < 0.1
    if isinstance(init, ni.Normal):
        assert abs(whole.mean() - 1) < 0.2  # the mean is real
    if isinstance(init, ni.Constant):
        assert (whole == 1 - 2j).all()


def test_torch_tensors():
    torch = pytest.importorskip("torch")
    for dtype in COMPLEX:
        tensor = torch.zeros(30, 7, dtype=getattr(torch, dtype))
        ni.kaiming_normal_(tensor, seed=3)
        expected = ni.KaimingNormal()((30, 7), dtype, seed=3)
        np.testing.assert_array_equal(tensor.numpy(), expected)
    for dtype in ("float8_e4m3fn", "float8_e5m2"):
        tensor = torch.zeros(30, 7, dtype=getattr(torch, dtype))
        ni.normal_(tensor, std=3, seed=3)
        expected = torch.from_numpy(ni.Normal(0, 3)((30, 7), seed=3)).to(tensor.dtype)
        assert torch.equal(tensor.view(torch.uint8), expected.view(torch.uint8))


def test_a_complex_constant_needs_a_complex_array():
    array = np.full(3, 7, np.float32)
    with pytest.raises(TypeError, match="value"):
        ni.Constant(1j).fill_(array)
    assert (array == 7).all()
    assert (ni.Constant(2.0)((3,), "complex64") == 2).all()
    for value in (complex(0, 0.0), complex(0, -0.0), complex(-0.0, 0.0)):
        made = ni.Constant(value)((2,), "complex128")
        assert made.tobytes() == np.full(2, value).tobytes()


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("init", [ni.Normal(0.1, 2), ni.Uniform(-3, 5), ni.Normal(0, 200), ni.Normal(0, 1e-3)])  # fmt: skip
def test_8_bits_are_float32_rounded_once(init, dtype):
    kind = getattr(pytest.importorskip("ml_dtypes"), dtype)
    narrow, wide = init((N,), dtype, seed=KEY), init((N,), seed=KEY)
    assert narrow.dtype == kind
    expected = wide.astype(kind)
    if isinstance(init, ni.Uniform):  # the clamp that keeps the interval half-open
        assert (narrow.astype(np.float32) < init.high).all()
        inside = expected.astype(np.float32) < init.high
        narrow, expected = narrow[inside], expected[inside]
    np.testing.assert_array_equal(narrow.view(np.uint8), expected.view(np.uint8))


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_every_float8_neighbour_and_tie(dtype):
    from numba import njit

    from numinit.stream.dtypes import DTYPES

    kind = getattr(pytest.importorskip("ml_dtypes"), dtype)
    convert = DTYPES[dtype].rounding
    exact = np.arange(256, dtype=np.uint8).view(kind).astype(np.float32)
    finite = np.sort(exact[np.isfinite(exact)])
    ties = (finite[1:] + finite[:-1]) / 2
    top = finite[-1] + (finite[-1] - finite[-2]) / 2  # half way beyond the largest
    values = np.concatenate([finite, ties, [top, -top, np.inf, -np.inf, 1e9, 1e-30, -0.0]])
    values = values.astype(np.float32)
    values = np.concatenate(
        [values, *(np.nextafter(values, np.float32(end)) for end in (9e9, -9e9))]
    )
    random = np.random.default_rng(0).integers(0, 2**32, 10**6, dtype=np.uint32).view(np.float32)
    values = np.concatenate([values, random[~np.isnan(random)]])

    @njit
    def loop(values, out):
        for i in range(values.size):
            out[i] = convert(values[i])

    out = np.zeros(values.size, np.uint8)
    loop(values, out)
    with np.errstate(over="ignore"):
        expected = values.astype(kind)
    nan = np.isnan(expected.astype(np.float32))
    assert np.isnan(out.view(kind).astype(np.float32))[nan].all()
    np.testing.assert_array_equal(out[~nan], expected.view(np.uint8)[~nan])
    loop(np.array([np.nan], np.float32), out)
    assert np.isnan(out.view(kind).astype(np.float32)[0])
