"""Fans, their modes, and gains."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numinit as ni
from numinit.fans import MODES, fan
from numinit.gains import GAINS

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
        ((3,), {}, "fewer than 2 dimensions.*in_axis and out_axis"),
        ((3, 4), {"in_axis": 2}, "^in_axis: axis 2 is out of range"),
        ((3, 4), {"out_axis": -3}, "^out_axis: axis -3 is out of range"),
        ((3, 4), {"batch_axis": 5}, "^batch_axis: axis 5 is out of range"),
        ((3, 4), {"in_axis": 0}, "^out_axis: axis 0 .* also in in_axis"),
        ((3, 4), {"out_axis": -1}, "^out_axis: axis -1 .* also in in_axis"),
        ((3, 4, 5), {"batch_axis": (2, 0)}, "^batch_axis: axis 0 .* also in out_axis"),
        ((3, 4, 5), {"in_axis": (1, 1)}, "^in_axis: axis 1 .* also in in_axis"),
        ((3, 4), {"groups": 2}, "^groups: 2 does not divide the fan_out 3"),
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
