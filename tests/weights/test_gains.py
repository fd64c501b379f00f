"""The quadrature behind the gain of a callable, the ways to call one, and what is refused."""

import functools
import math
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from activations import ACTIVATIONS
from helpers import law_of

import numinit as ni
from numinit.weights.gains import PARAMETERS, VARIANCE_GAINS


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_functions_have_the_gains_of_their_names(name):
    assert abs(ni.variance_gain(ACTIVATIONS[name]) / ni.variance_gain(name) - 1) < 1e-11


# Jumps and kinks at any place: on, next to, and between the ends of panels.
PLACES = [
    0,
    1e-9,
    0.3,
    -1,
    0.5,
    0.499,
    0.4876543211,
    0.48765432,
    0.4876543209,
    -0.0123456789,
    2.7,
    math.pi,
]


@pytest.mark.parametrize("place", PLACES)
def test_jumps_and_kinks_anywhere(place):
    tail = math.erfc(place / math.sqrt(2)) / 2
    density = math.exp(-place * place / 2) / math.sqrt(2 * math.pi)
    step = ni.variance_gain(lambda z: z > place)
    assert abs(step * math.sqrt(tail) - 1) < 1e-11
    kink = ni.variance_gain(lambda z: np.maximum(z - place, 0))
    assert abs(kink * math.sqrt((1 + place * place) * tail - place * density) - 1) < 1e-11


@pytest.mark.parametrize(
    ("f", "moment"),
    [
        (np.sign, 1),
        (np.exp, math.exp(2)),
        (lambda z: np.exp(3 * z), math.exp(18)),
        (np.sin, (1 - math.exp(-2)) / 2),
        (lambda z: np.sin(20 * z), (1 - math.exp(-800)) / 2),
        (np.square, 3),
        (lambda z: z**5, 945),
        (lambda z: np.maximum(z, 0) ** 2, 1.5),
    ],
)
def test_moments_known_in_closed_form(f, moment):
    assert abs(ni.variance_gain(f) * math.sqrt(moment) - 1) < 1e-11


def test_a_quantizer_of_many_steps():
    levels = np.arange(1, 16 * 8)  # round(8 z) is n between (n - 1/2) / 8 and (n + 1/2) / 8
    sf = [math.erfc((n - 0.5) / 8 / math.sqrt(2)) / 2 for n in levels]
    moment = 2 * sum((2 * n - 1) / 64 * p for n, p in zip(levels.tolist(), sf, strict=True))
    assert abs(ni.variance_gain(lambda z: np.round(8 * z) / 8) * math.sqrt(moment) - 1) < 1e-11


def test_scales_neither_overflow_nor_underflow():
    for scale in (1e-300, 1e-160, 1e160, 1e300):
        assert math.isclose(ni.variance_gain(lambda z: scale * z) * scale, 1, rel_tol=1e-11)  # noqa: B023


def test_single_precision_limits_the_accuracy():
    got = ni.variance_gain(lambda z: np.tanh(z.astype(np.float32)))
    assert abs(got / ni.variance_gain("tanh") - 1) < 1e-6


# The ways to call.


def _in_place(z):
    z[z < 0] = 0
    return z


class Unhashable:
    __hash__ = None

    def __call__(self, z):
        return np.tanh(z)


CALLABLES = {
    "ufunc": (np.tanh, "tanh"),
    "scalar": (math.tanh, "tanh"),
    "branches": (lambda x: x if x > 0 else 0, "relu"),
    "vectorize": (np.vectorize(math.tanh), "tanh"),
    "frompyfunc": (np.frompyfunc(math.tanh, 1, 1), "tanh"),
    "partial": (functools.partial(np.clip, a_min=-1, a_max=1), "hardtanh"),
    "in place": (_in_place, "relu"),
    "list": (lambda z: [math.tanh(x) for x in z], "tanh"),
    "unhashable": (Unhashable(), "tanh"),
}


@pytest.mark.parametrize(("f", "name"), CALLABLES.values(), ids=CALLABLES)
def test_callables_of_every_kind(f, name):
    expected = ni.variance_gain(name)
    assert abs(ni.calculate_gain(f) / expected - 1) < 1e-11
    for kind in (ni.KaimingNormal, ni.KaimingUniform):
        init, same = kind(nonlinearity=f), kind(nonlinearity=f)
        assert init == same and hash(init) == hash(same) and init.nonlinearity is f
        np.testing.assert_array_equal(init((4, 5), seed=1), same((4, 5), seed=1))
    array = np.empty((4, 5), np.float32)
    ni.kaiming_normal_(array, nonlinearity=f, seed=1)
    np.testing.assert_array_equal(array, ni.KaimingNormal(nonlinearity=f)((4, 5), seed=1))


def test_a_callable_may_change():
    class Leaky:
        slope = 0.0

        def __call__(self, z):
            return np.where(z > 0, z, self.slope * z)

    f = Leaky()
    first = ni.kaiming_normal_(np.empty((4, 5)), nonlinearity=f, seed=1)
    relu, f.slope = ni.KaimingNormal(nonlinearity=f), 1.0
    second = ni.kaiming_normal_(np.empty((4, 5)), nonlinearity=f, seed=1)
    np.testing.assert_allclose(first, second * math.sqrt(2), rtol=1e-7)
    np.testing.assert_array_equal(relu((4, 5), "float64", seed=1), first)  # an object never does
    assert relu != ni.KaimingNormal(nonlinearity=f)


def test_torch_functions_and_modules():
    torch = pytest.importorskip("torch")
    nn, functional = torch.nn, torch.nn.functional
    modules = {
        "identity": nn.Identity(), "relu": nn.ReLU(inplace=True), "leaky_relu": nn.LeakyReLU(),
        "prelu": nn.PReLU(), "relu6": nn.ReLU6(), "tanh": nn.Tanh(), "sigmoid": nn.Sigmoid(),
        "hardtanh": nn.Hardtanh(), "hardsigmoid": nn.Hardsigmoid(), "softsign": nn.Softsign(),
        "elu": nn.ELU(), "celu": nn.CELU(), "selu": nn.SELU(), "softplus": nn.Softplus(),
        "logsigmoid": nn.LogSigmoid(), "gelu": nn.GELU(), "gelu_tanh": nn.GELU("tanh"),
        "silu": nn.SiLU(), "mish": nn.Mish(), "hardswish": nn.Hardswish(),
        "tanhshrink": nn.Tanhshrink(), "softshrink": nn.Softshrink(), "hardshrink": nn.Hardshrink(),
    }  # fmt: skip
    for name, module in modules.items():
        tolerance = 1e-8 if name in ("softplus", "prelu", "leaky_relu") else 1e-11
        for f in (module, getattr(functional, name, module)):
            if f is not functional.prelu:
                got = ni.variance_gain(f)
                assert abs(got / ni.variance_gain(name) - 1) < tolerance, name
    assert modules["prelu"].weight.dtype == torch.float32 and modules["prelu"].training


def test_torch_is_not_imported():
    code = """
        import sys, math, numinit as ni
        assert abs(ni.calculate_gain(math.tanh) / ni.variance_gain("tanh") - 1) < 1e-11
        assert "torch" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


REFUSED = {
    "nan": (np.sqrt, "gave nan at -16"),
    "inf": (lambda z: np.where(z > 3, np.inf, z), "gave inf at"),
    "complex": (lambda z: z * 1j, "gave complex128"),
    "complex objects": (np.frompyfunc(lambda x: complex(x, 1), 1, 1), "gave no real numbers"),
    "string": (lambda z: "a", "gave <U1 of shape"),
    "nothing": (lambda z: None, r"gave object of shape \(\)"),
    "a class": (Unhashable, "takes no arguments"),
    "a sum": (np.sum, r"gave float64 of shape \(\)"),
    "halves": (lambda z: z[::2], "of the same shape are accepted"),
    "zero": (lambda z: 0 * z, "is zero everywhere"),
    "softmax": (lambda z: np.exp(z - z.max()), "does not map each element by itself"),
    "random": (lambda z: z * np.random.default_rng().random(z.size), "or not always alike"),
    "exp(z**2)": (lambda z: np.exp(z * z / 2), "grows too fast"),
    "no arguments": (lambda: 3, "could not be evaluated"),
    "two arguments": (np.add, "could not be evaluated"),
    "a domain": (math.sqrt, "could not be evaluated .*ValueError"),
    "far out": (lambda x: math.exp(float(x) ** 3), "could not be evaluated.*math range error"),
}


@pytest.mark.parametrize(("f", "message"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_gain(f, message):
    array = np.full((3, 4), 7, np.float32)
    calls = [
        lambda: ni.variance_gain(f),
        lambda: ni.calculate_gain(f),
        lambda: ni.KaimingUniform(nonlinearity=f),
        lambda: ni.kaiming_normal_(array, nonlinearity=f),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=f"(?s)^nonlinearity: .*{message}"):
            call()
    assert (array == 7).all()


# The initializers.


@pytest.mark.parametrize("name", sorted({*VARIANCE_GAINS, *PARAMETERS} - {"leaky_relu"}))
def test_initializers_take_every_name(name):
    gain = ni.calculate_gain(name)
    for a in (0, 0.0, None):  # torch's default and ours: the activation's own parameter
        assert law_of(ni.KaimingNormal(a, nonlinearity=name), (8, 9)).std == gain / 3
    array = ni.kaiming_uniform_(np.empty((8, 9), np.float32), nonlinearity=name, seed=3)
    np.testing.assert_array_equal(array, ni.KaimingUniform(nonlinearity=name)((8, 9), seed=3))


@pytest.mark.parametrize("name", PARAMETERS)
def test_initializers_pass_the_parameter_on(name):
    law = law_of(ni.KaimingNormal(0.3, nonlinearity=name), (8, 9))
    assert law.std == ni.variance_gain(name, 0.3) / 3
    assert ni.KaimingNormal(nonlinearity="relu") != ni.KaimingNormal(nonlinearity="gelu")
