"""Fans, their modes, and gains."""

import math

import mpmath
import numpy as np
import pytest
from helpers import law_of
from hypothesis import given
from hypothesis import strategies as st

import numinit as ni
from numinit.weights.fans import MODES, fan
from numinit.weights.gains import GAINS, VARIANCE_GAINS

SHAPES = [(3, 4), (1, 1), (5, 7, 2), (5, 7, 2, 3), (2, 3, 4, 5, 6), (2, 3, 1, 5, 2, 3), (0, 4), (4, 0, 3)]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_default_fans_are_torchs(shape):
    torch = pytest.importorskip("torch")
    expected = torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape, device="meta"))
    assert ni.fans(shape) == expected
    assert ni.fans(torch.Size(shape)) == expected
    assert ni.fans(list(shape)) == expected


@given(st.lists(st.integers(1, 7), min_size=2, max_size=6), st.data())
def test_fans_are_those_of_jax(shape, data):
    """jax.nn.initializers._compute_fans: sizes divided out of the whole, by role."""
    roles = data.draw(st.lists(st.sampled_from("iobk"), min_size=len(shape), max_size=len(shape)))
    axes = {role: [n for n, r in enumerate(roles) if r == role] for role in "iob"}
    size = {role: math.prod(shape[n] for n in axes[role]) for role in "iob"}
    field = math.prod(shape) // (size["i"] * size["o"] * size["b"])
    negative = data.draw(st.booleans())
    if negative:
        axes = {role: [n - len(shape) for n in found] for role, found in axes.items()}
    got = ni.fans(shape, in_axis=axes["i"], out_axis=tuple(axes["o"]), batch_axis=axes["b"])
    assert got == (size["i"] * field, size["o"] * field)


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((3, 4), {"in_axis": -2, "out_axis": -1}, (3, 4)),  # a Dense kernel of Flax or Keras
        ((5, 5, 3, 8), {"in_axis": -2, "out_axis": -1}, (75, 200)),  # HWIO
        ((12, 3, 8), {"in_axis": 1, "out_axis": 2, "batch_axis": 0}, (3, 8)),  # stacked layers
        ((6, 12, 64), {"in_axis": 0, "out_axis": (1, 2)}, (6, 768)),  # heads
        ((10,), {"in_axis": 0, "out_axis": ()}, (10, 1)),
        ((10,), {"in_axis": (), "out_axis": 0}, (1, 10)),
        ((), {"in_axis": (), "out_axis": ()}, (1, 1)),
        ((2**40, 2**20), {}, (2**20, 2**40)),
    ],
)
def test_layouts(shape, axes, expected):
    assert ni.fans(shape, **axes) == expected


@pytest.mark.parametrize(("cin", "cout", "groups"), [(8, 12, 1), (8, 12, 4), (6, 6, 6), (4, 8, 2)])
def test_groups_have_the_fans_of_one_group(cin, cout, groups):
    one = (cout // groups, cin // groups, 3, 5)  # the weight of one of the parallel convolutions
    assert ni.fans((cout, cin // groups, 3, 5), groups=groups) == ni.fans(one)


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((), {}, "fewer than 2 dimensions"),
        ((3,), {}, r"fewer than 2 dimensions: shape \(3,\)\D*in_axis and out_axis"),
        ((3, 4), {"in_axis": 2}, "^in_axis: axis 2 is out of range"),
        ((3, 4), {"out_axis": -3}, "^out_axis: axis -3 is out of range"),
        ((3, 4), {"batch_axis": 5}, "^batch_axis: axis 5 is out of range"),
        ((3, 4), {"in_axis": 0}, "^out_axis: axis 0 .* also in in_axis"),
        ((3, 4), {"out_axis": -1}, "^out_axis: axis -1 .* also in in_axis"),
        ((3, 4, 5), {"batch_axis": (2, 0)}, "^batch_axis: axis 0 .* also in out_axis"),
        ((3, 4, 5), {"in_axis": (1, 1)}, "^in_axis: axis 1 .* also in in_axis"),
        ((3, 4), {"groups": 2}, "^groups: 2 does not divide the 3 outputs"),
        ((3, 4), {"groups": 0}, "^groups: 0"),
        ((3, 4), {"groups": -1}, "^groups: -1"),
    ],
)
def test_errors(shape, arguments, message):
    with pytest.raises(ValueError, match=message):
        ni.fans(shape, **arguments)


@pytest.mark.parametrize("name", ["in_axis", "out_axis", "batch_axis"])
@pytest.mark.parametrize("axes", [1.5, "1", None, (0, "a"), [0.0]])
def test_axes_are_integers(name, axes):
    with pytest.raises(TypeError, match=f"^{name}: "):
        ni.fans((3, 4), **{name: axes})


@pytest.mark.parametrize("groups", ["a", 1.5, None])
def test_groups_are_an_integer(groups):
    with pytest.raises(TypeError, match=r"^groups: "):
        ni.fans((3, 4), groups=groups)


@pytest.mark.parametrize(
    ("shape", "error"), [(5.0, TypeError), ("ab", TypeError), ((2.5, 3), TypeError), ((-2, 3), ValueError)]
)  # fmt: skip
def test_shapes_are_checked(shape, error):
    with pytest.raises(error, match=r"^shape: "):
        ni.fans(shape)


def test_sizes_do_not_wrap_around():
    assert ni.fans(np.array([2**20, 2**22, 2**10, 2**10], np.int32)) == (2**42, 2**40)


def test_modes():
    assert {m: fan(m, 4.0, 9.0) for m in MODES} == {
        "fan_in": 4, "fan_out": 9, "fan_avg": 6.5, "fan_geo_avg": 6,
    }  # fmt: skip
    assert set(MODES) == {"fan_in", "fan_out", "fan_avg", "fan_geo_avg"}
    with pytest.raises(ValueError, match=r"^mode: 'fan' .*fan_in.*fan_out.*fan_avg.*fan_geo_avg"):
        fan("fan", 4, 9)


# torch's documentation, to the digit.
TABLE = {
    "linear": 1, "conv1d": 1, "conv2d": 1, "conv3d": 1, "conv_transpose1d": 1,
    "conv_transpose2d": 1, "conv_transpose3d": 1, "sigmoid": 1, "tanh": 1.6666666666666667,
    "relu": 1.4142135623730951, "leaky_relu": 1.4141428569978354, "selu": 0.75,
}  # fmt: skip
SLOPES = [None, 0, 0.0, 1, -1, 0.01, 0.2, -0.3, 1e10, math.sqrt(5), math.inf]


@pytest.mark.parametrize("name", TABLE)
def test_gains(name):
    assert ni.calculate_gain(name) == TABLE[name]
    assert {*GAINS, "leaky_relu"} == {*TABLE}


@pytest.mark.parametrize("param", SLOPES)
@pytest.mark.parametrize("name", TABLE)
def test_gains_are_torchs(name, param):
    torch = pytest.importorskip("torch")
    assert ni.calculate_gain(name, param) == torch.nn.init.calculate_gain(name, param)


@pytest.mark.parametrize("slope", [np.float32(0.25), np.float64(0.25), np.float16(0.25)])
def test_a_slope_may_be_any_real_number(slope):
    assert ni.calculate_gain("leaky_relu", slope) == ni.calculate_gain("leaky_relu", 0.25)
    assert ni.calculate_gain("leaky_relu", np.int8(100)) == ni.calculate_gain("leaky_relu", 100)


@pytest.mark.parametrize("slope", [True, "0.1", 1j, [0.1], np.array([0.1, 0.2])])
def test_bad_slopes(slope):
    with pytest.raises(ValueError, match=r"^negative_slope .* not a valid number"):
        ni.calculate_gain("leaky_relu", slope)
    assert ni.calculate_gain("relu", slope) == math.sqrt(2)  # others ignore it, as torch does


@pytest.mark.parametrize("name", ["Relu", "", "gelu2", None, 3, ["relu"], ("relu",)])
def test_bad_nonlinearities(name):
    with pytest.raises(ValueError, match=r"^Unsupported nonlinearity"):
        ni.calculate_gain(name)


@pytest.mark.parametrize("name", [n for n in VARIANCE_GAINS if not n.startswith("conv")])
def test_variance_gains_against_mpmath(name):
    with mpmath.workdps(25):
        function, kinks = EXACT[name]
        points = sorted({-14, -6, -3, -1, 0, 1, 3, 6, 14, *kinks})
        moment = mpmath.quad(lambda z: function(z) ** 2 * mpmath.npdf(z), points)
        assert abs(VARIANCE_GAINS[name] * mpmath.sqrt(moment) - 1) < 1e-15


def _sigmoid(z):
    return 1 / (1 + mpmath.exp(-z))


def _softplus(z):
    return max(z, 0) + mpmath.log1p(mpmath.exp(-abs(z)))


def _elu(z):
    return z if z > 0 else mpmath.expm1(z)


HALF = mpmath.mpf(1) / 2
#: name: the activation as torch defines it, and its kinks
EXACT = {
    "linear": (lambda z: z, []),
    "identity": (lambda z: z, []),
    "relu": (lambda z: max(z, 0), []),
    "relu6": (lambda z: min(max(z, 0), 6), []),
    "elu": (_elu, []),
    "celu": (_elu, []),
    "selu": (lambda z: mpmath.mpf("1.0507009873554804934193349852946") * (z if z > 0 else mpmath.mpf("1.6732632423543772848170429916717") * mpmath.expm1(z)), []),
    "gelu": (lambda z: z * mpmath.ncdf(z), []),
    "gelu_tanh": (lambda z: z / 2 * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (z + mpmath.mpf("0.044715") * z**3))), []),
    "glu": (_sigmoid, []),
    "sigmoid": (_sigmoid, []),
    "silu": (lambda z: z * _sigmoid(z), []),
    "swish": (lambda z: z * _sigmoid(z), []),
    "mish": (lambda z: z * mpmath.tanh(_softplus(z)), []),
    "softplus": (_softplus, []),
    "logsigmoid": (lambda z: -_softplus(-z), []),
    "softsign": (lambda z: z / (1 + abs(z)), []),
    "softshrink": (lambda z: z - HALF if z > HALF else z + HALF if z < -HALF else 0, [-HALF, HALF]),
    "hardshrink": (lambda z: z if abs(z) > HALF else 0, [-HALF, HALF]),
    "hardsigmoid": (lambda z: min(max(z / 6 + HALF, 0), 1), []),
    "hardswish": (lambda z: z * min(max(z + 3, 0), 6) / 6, []),
    "hardtanh": (lambda z: min(max(z, -1), 1), []),
    "tanh": (mpmath.tanh, []),
    "tanhshrink": (lambda z: z - mpmath.tanh(z), []),
}  # fmt: skip


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, 2.5, -1.0])
def test_gains_with_a_parameter(alpha):
    slope = ni.variance_gain(lambda z: np.where(z > 0, z, alpha * z))
    for name in ("leaky_relu", "prelu"):
        assert ni.calculate_gain(name, alpha) == pytest.approx(slope, rel=1e-11)
    elu = ni.variance_gain(lambda z: np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0))))
    assert ni.calculate_gain("elu", alpha) == pytest.approx(elu, rel=1e-11)
    if alpha > 0:
        celu = ni.variance_gain(
            lambda z: np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0) / alpha))
        )
        assert ni.calculate_gain("celu", alpha) == pytest.approx(celu, rel=1e-11)
    assert ni.calculate_gain("prelu") == ni.calculate_gain("leaky_relu", 0.25)
    assert ni.calculate_gain("celu") == pytest.approx(VARIANCE_GAINS["celu"], rel=1e-15)
    with pytest.raises(ValueError, match="alpha"):
        ni.calculate_gain("celu", 0.0)
    with pytest.raises(ValueError, match="alpha '1' not a valid number"):
        ni.calculate_gain("elu", "1")


def test_where_torchs_table_differs():
    assert ni.calculate_gain("tanh") == 5 / 3 != ni.variance_gain("tanh") == 1.5925374197228314
    assert ni.calculate_gain("selu") == 0.75 != ni.variance_gain("selu") == 1.0
    assert ni.calculate_gain("sigmoid") == 1.0 != ni.variance_gain("sigmoid")
    assert ni.calculate_gain(np.tanh) == pytest.approx(ni.variance_gain("tanh"), rel=1e-11)


def test_callables_of_every_kind():
    expected = ni.variance_gain("tanh")
    assert ni.variance_gain(np.tanh) == pytest.approx(expected, rel=1e-11)
    assert ni.variance_gain(math.tanh) == pytest.approx(expected, rel=1e-11)  # floats only

    class Unhashable:
        __hash__ = None

        def __call__(self, z):
            return np.tanh(z)

    assert ni.variance_gain(Unhashable()) == pytest.approx(expected, rel=1e-11)
    step = ni.variance_gain(lambda z: z > 0.3)  # a jump, at no end of an interval
    assert step == pytest.approx((math.erfc(0.3 / math.sqrt(2)) / 2) ** -0.5, rel=1e-11)
    kink = ni.variance_gain(lambda z: np.maximum(z - 0.3, 0))
    tail, density = math.erfc(0.3 / math.sqrt(2)) / 2, math.exp(-0.045) / math.sqrt(2 * math.pi)
    assert kink == pytest.approx((1.09 * tail - 0.3 * density) ** -0.5, rel=1e-11)


def test_torchs_functions_and_modules():
    torch = pytest.importorskip("torch")
    for function in (
        torch.nn.functional.gelu,
        torch.nn.GELU(),
        torch.nn.Sequential(torch.nn.GELU()),
    ):
        assert ni.variance_gain(function) == pytest.approx(VARIANCE_GAINS["gelu"], rel=1e-10)
    weight = torch.zeros(30, 20)
    ni.kaiming_normal_(weight, nonlinearity=torch.nn.functional.silu, seed=0)
    expected = ni.Normal(0, ni.variance_gain("silu") / math.sqrt(20))((30, 20), seed=0)
    np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda z: z * math.nan, "gave nan"),
        (lambda z: 1j * z, "real numbers"),
        (lambda z: 0 * z, "zero everywhere"),
        (lambda a, b: a, "evaluated"),
        (lambda z: z[:3], "same shape"),
        (lambda z: "x", "real numbers"),
    ],
)
def test_callables_without_a_gain(function, message):
    with pytest.raises(ValueError, match=f"nonlinearity: .*{message}"):
        ni.calculate_gain(function)
    array = np.full((3, 4), 7.0)
    with pytest.raises(ValueError, match="nonlinearity"):
        ni.kaiming_uniform_(array, nonlinearity=function)
    assert (array == 7).all()


def dense(kind, cin, cout, groups=1, kernel=3, length=12):
    """Which inputs reach which outputs of a 1-D convolution, far from the borders: a 0-1 matrix."""
    matrix = np.zeros((cout * length, cin * length), int)
    for o in range(cout):
        for i in range(cin):
            if o // (cout // groups) != i // (cin // groups):
                continue
            for at in range(length):
                for k in range(kernel):
                    other = at + k - kernel // 2
                    if 0 <= other < length:
                        matrix[o * length + at, i * length + other] = 1
    return matrix


@pytest.mark.parametrize(("cin", "cout", "groups"), [(4, 6, 1), (4, 6, 2), (6, 6, 6), (6, 12, 6), (8, 4, 4)])  # fmt: skip
def test_fans_count_what_is_connected(cin, cout, groups):
    matrix = dense("conv", cin, cout, groups)
    true = matrix.sum(1).max(), matrix.sum(0).max()
    assert ni.fans((cout, cin // groups, 3), groups=groups) == true
    assert ni.fans((3, cin // groups, cout), in_axis=-2, out_axis=-1, groups=groups) == true  # JAX
    assert ni.fans((cin, cout // groups, 3), transposed=True, groups=groups) == true
    if groups == cin:  # depthwise, as Keras has it
        keras = ni.fans((3, cin, cout // cin), in_axis=(), out_axis=-1, batch_axis=-2)
        assert keras == true
    if groups == 1:
        assert ni.fans((3, cout, cin), in_axis=-1, out_axis=-2) == true  # Keras, transposed


def test_packed_stacked_and_embedded():
    assert ni.fans((3 * 64, 64), packed=3) == ni.fans((64, 64))
    assert ni.fans((3, 64, 64), batch_axis=0, in_axis=2, out_axis=1) == (64, 64)  # an axis split
    assert ni.fans((64, 3 * 64), in_axis=0, out_axis=1, packed=3) == (64, 64)
    assert ni.fans((8, 4 * 64, 64), batch_axis=0, in_axis=2, out_axis=1) == (64, 256)
    assert ni.fans((50_000, 64), in_axis=(), out_axis=1, batch_axis=0) == (1, 64)
    assert law_of(ni.XavierNormal(packed=3), (192, 64)) == law_of(ni.XavierNormal(), (64, 64))
    transposed = law_of(ni.KaimingNormal(transposed=True, groups=2), (6, 4, 3, 3))
    assert transposed == law_of(ni.KaimingNormal(groups=2), (8, 3, 3, 3))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"packed": 5}, ValueError, "packed: 5 does not divide the 12 outputs"),
        ({"packed": 0}, ValueError, "packed: 0 was given"),
        ({"packed": 1.5}, TypeError, "packed: 1.5 was given"),
        ({"transposed": True, "groups": 5}, ValueError, "groups: 5 does not divide the 12 inputs"),
    ],
)
def test_bad_counts(given, error, message):
    with pytest.raises(error, match=message):
        ni.fans((12, 8), **given)
    with pytest.raises(error, match=message):
        law_of(ni.KaimingNormal(**given), (12, 8))


def test_transposed_is_a_flag():
    with pytest.raises(TypeError, match="transposed"):
        ni.KaimingNormal(transposed=1)
