"""Initializers as objects: their laws, their values as objects, and what they refuse."""

import copy
import dataclasses
import inspect
import math
import pickle

import numpy as np
import pytest
from helpers import law_of
from hypothesis import given
from hypothesis import strategies as st

import numinit as ni
from numinit.initializers.variance_scaling import FORMER
from numinit.stream.dtypes import as_dtype
from numinit.stream.uniform import UNIFORM
from numinit.weights.fans import MODES

KEY = ni.Key(17, 19)
NAN, INF = math.nan, math.inf


def whole(init, shape, dtype="float32"):
    return init(shape, dtype, seed=KEY)


# The formulas, written out here once more: (fans, gain) -> std, for each named form.
STD = {
    "XavierNormal": lambda i, o, gain: gain * math.sqrt(2 / (i + o)),
    "KaimingNormal": lambda i, o, gain: math.sqrt(2) / math.sqrt(i),
}
LAYERS = [  # shape, axes, fan in, fan out
    ((48, 100), {}, 100, 48),
    ((100, 48), {"in_axis": 0, "out_axis": 1}, 100, 48),
    ((24, 10, 3, 5), {}, 150, 360),
    ((3, 5, 10, 24), {"in_axis": -2, "out_axis": -1}, 150, 360),
    ((6, 10, 24), {"in_axis": [0, 1], "out_axis": 2}, 60, 24),
    ((7, 10, 24), {"in_axis": 1, "out_axis": 2, "batch_axis": 0}, 10, 24),
    ((24, 5, 3), {"groups": 4}, 15, 18),
]


def laws_agree(law, std, distribution):
    """Whether a law has this std: to two roundings, for the formula may be arranged otherwise."""
    if distribution == "normal":
        assert type(law) is ni.Normal and law.mean == 0
        return math.isclose(law.std, std, rel_tol=4e-16)
    transform, parameters = law.transform(as_dtype("float64"))
    low = parameters.low
    assert transform is UNIFORM and parameters.width == -2 * low
    return math.isclose(-low, math.sqrt(3) * std, rel_tol=6e-16)


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@pytest.mark.parametrize(("shape", "axes", "fan_in", "fan_out"), LAYERS)
def test_laws_follow_the_formulas(shape, axes, fan_in, fan_out, distribution):
    for name, std in STD.items():
        kind = getattr(ni, name.replace("Normal", distribution.title()))
        for gain in (1.0, 2.5) if "Xavier" in name else (1.0,):
            init = kind(gain=gain, **axes) if "Xavier" in name else kind(**axes)
            law = law_of(init, shape)
            assert laws_agree(law, std(fan_in, fan_out, gain), distribution), init
            np.testing.assert_array_equal(whole(init, shape), whole(law, shape))


FAN = {
    "fan_in": lambda i, o: i,
    "fan_out": lambda i, o: o,
    "fan_avg": lambda i, o: (i + o) / 2,
    "fan_geo_avg": lambda i, o: math.sqrt(i * o),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@pytest.mark.parametrize(("shape", "axes", "fan_in", "fan_out"), LAYERS)
def test_modes(shape, axes, fan_in, fan_out, distribution, mode):
    n = FAN[mode](fan_in, fan_out)
    law = law_of(ni.VarianceScaling(0.7, mode, distribution, **axes), shape)
    assert laws_agree(law, math.sqrt(0.7 / n), distribution)
    kaiming = ni.KaimingNormal if distribution == "normal" else ni.KaimingUniform
    law = law_of(kaiming(a=0.2, mode=mode, **axes), shape)
    assert laws_agree(law, math.sqrt(2 / (1 + 0.04)) / math.sqrt(n), distribution)


@pytest.mark.parametrize(
    ("nonlinearity", "gain"),
    [("linear", 1), ("tanh", 5 / 3), ("relu", math.sqrt(2)), ("selu", 0.75), ("conv2d", 1)],
)
def test_gains_of_nonlinearities(nonlinearity, gain):
    law = law_of(ni.KaimingNormal(a=3, nonlinearity=nonlinearity), (8, 9))  # a: leaky_relu's only
    assert math.isclose(law.std, gain / 3, rel_tol=4e-16)


def test_gains_are_not_squared():
    """Their squares would be beyond the range of float64."""
    for gain in (1e-200, 1e200):
        assert laws_agree(law_of(ni.XavierNormal(gain), (3, 4)), gain * math.sqrt(2 / 7), "normal")
        assert laws_agree(
            law_of(ni.XavierUniform(gain), (3, 4)), gain * math.sqrt(2 / 7), "uniform"
        )


NAMED = [
    "XavierNormal", "XavierUniform", "KaimingNormal", "KaimingUniform", "VarianceScaling",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_the_spread_of_the_values(name):
    """n s**2 / variance is chi-squared for normals; for uniforms z is normal. False alarm: 1e-9."""
    stats = pytest.importorskip("scipy.stats")
    init = getattr(ni, name)()
    values = init((300, 700), "float64", seed=KEY)
    law = law_of(init, values.shape)
    if isinstance(law, ni.Normal):
        chi2 = np.square(values / law.std).sum()
        p = 2 * min(stats.chi2.cdf(chi2, values.size), stats.chi2.sf(chi2, values.size))
    else:
        # u**2 / bound**2 has mean 1/3 and variance 1/5 - 1/9; and values come near both bounds.
        high = math.sqrt(3) * law.std
        z = (np.square(values / high).mean() - 1 / 3) / math.sqrt(4 / 45 / values.size)
        p = 2 * stats.norm.sf(abs(z))
        near = 2 * 22 / values.size  # nobody in (1 - near, 1): e**-22 for each end
        assert -high <= values.min() < -high * (1 - near)
        assert high * (1 - near) < values.max() < high
    assert p > 1e-9


@pytest.mark.parametrize("module", [ni, ni.initializers], ids=["numinit", "numinit.initializers"])
@pytest.mark.parametrize("name", FORMER)
def test_names_of_jax_and_keras_are_absent_and_say_what_to_use(module, name):
    with pytest.raises(AttributeError) as error:
        getattr(module, name)
    message = str(error.value)
    assert message.startswith(f"{module.__name__}.{name}: ")
    assert "numinit.jax" in message and "numinit.keras" in message
    assert eval(message.rpartition("it is ")[2], {"numinit": ni}) == FORMER[name]()
    with pytest.raises(AttributeError, match=f"^module '{module.__name__}' has no attribute 'he'$"):
        _ = module.he


def test_zeros_and_ones_are_constants():
    for init, value in ((ni.Zeros(), 0), (ni.Ones(), 1), (ni.Constant(), 0), (ni.Constant(-7), -7)):
        for dtype in ("float32", "float64", "float16"):
            assert (init((3, 5), dtype) == value).all() and init((), dtype) == value
    with pytest.raises(TypeError):
        ni.Zeros(3)
    assert ni.Zeros() == ni.Zeros() != ni.Ones()


# Objects are values.

OBJECTS = [
    ("Constant(value=0.5)", lambda: ni.Constant(0.5)),
    ("Zeros()", ni.Zeros),
    ("Ones()", ni.Ones),
    ("Uniform(low=-1.0, high=2.0)", lambda: ni.Uniform(-1.0, 2.0)),
    ("Normal(mean=0.0, std=1.0)", ni.Normal),
    ("XavierNormal(in_axis=(0, 1), out_axis=2, batch_axis=(), groups=1, packed=1, transposed=False, gain=2.0)",
     lambda: ni.XavierNormal(2.0, in_axis=[0, 1], out_axis=2)),
    ("XavierUniform(in_axis=1, out_axis=0, batch_axis=(), groups=1, packed=1, transposed=False, gain=1.0)", ni.XavierUniform),
    ("KaimingNormal(in_axis=1, out_axis=0, batch_axis=(2,), groups=2, packed=1, transposed=False, a=0.1, mode='fan_out', "
     "nonlinearity='leaky_relu', gain=1.0)",
     lambda: ni.KaimingNormal(0.1, "fan_out", batch_axis=[2], groups=2, packed=1, transposed=False)),
    ("KaimingUniform(in_axis=1, out_axis=0, batch_axis=(), groups=1, packed=1, transposed=False, a=0.0, mode='fan_in', "
     "nonlinearity='relu', gain=1.0)", lambda: ni.KaimingUniform(nonlinearity="relu")),
    ("VarianceScaling(in_axis=1, out_axis=0, batch_axis=(), groups=1, packed=1, transposed=False, scale=2.0, mode='fan_avg', "
     "distribution='uniform')", lambda: ni.VarianceScaling(2.0, "fan_avg", "uniform")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "make"), OBJECTS, ids=[text.partition("(")[0] for text, _ in OBJECTS]
)
def test_objects_are_values(text, make):
    init = make()
    assert isinstance(init, ni.Initializer)
    assert repr(init) == text
    assert eval(text, vars(ni)) == init
    shape = (4, 6, 2)
    for other in (make(), pickle.loads(pickle.dumps(init)), copy.deepcopy(init), copy.copy(init)):
        assert type(other) is type(init) and other == init and hash(other) == hash(init)
        np.testing.assert_array_equal(whole(other, shape), whole(init, shape))
    for _, another in OBJECTS:
        assert (another() == init) == (another().__class__ is init.__class__)
    fields = dataclasses.fields(init)
    if fields:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(init, fields[0].name, 3)
    assert init != 3 and init != text


def test_numbers_of_any_kind_are_the_same_parameter():
    exact = whole(ni.Normal(1.0, 0.5), (9,))
    for half in (np.float32(0.5), np.float16(0.5), np.array(0.5), np.float64(0.5)):
        np.testing.assert_array_equal(whole(ni.Normal(True, half), (9,)), exact)
        np.testing.assert_array_equal(whole(ni.Normal(np.int8(1), half), (9,)), exact)


def test_lists_of_axes_are_tuples():
    init = ni.KaimingNormal(in_axis=[0, 1], out_axis=[2], batch_axis=[])
    assert init == ni.KaimingNormal(in_axis=(0, 1), out_axis=(2,), batch_axis=())
    assert hash(init) == hash(ni.KaimingNormal(in_axis=(0, 1), out_axis=(2,)))
    array = ni.KaimingNormal(in_axis=np.array([0, 1]), out_axis=np.int64(2))
    np.testing.assert_array_equal(whole(array, (3, 4, 5)), whole(init, (3, 4, 5)))


FIELDS = [  # class, arguments, exception, the name it must give
    ("Constant", {"value": "x"}, TypeError, "value"),
    ("Constant", {"value": "1"}, TypeError, "value"),
    ("Constant", {"value": None}, TypeError, "value"),
    ("Constant", {"value": [1.0, 2.0]}, TypeError, "value"),
    ("Constant", {"value": 10**400}, (TypeError, ValueError), "value"),
    ("Normal", {"mean": np.complex64(1 + 1j)}, TypeError, "mean"),
    ("Normal", {"std": np.complex128(1)}, TypeError, "std"),
    ("Uniform", {"low": 1, "high": 0}, ValueError, "low, high"),
    ("Uniform", {"low": NAN}, ValueError, "low, high"),
    ("Uniform", {"high": NAN}, ValueError, "low, high"),
    ("Uniform", {"high": INF}, ValueError, "low, high"),
    ("Uniform", {"low": -INF}, ValueError, "low, high"),
    ("Uniform", {"low": "a"}, TypeError, "low"),
    ("Uniform", {"high": None}, TypeError, "high"),
    ("Normal", {"std": -1e-9}, ValueError, "std"),
    ("Normal", {"std": NAN}, ValueError, "std"),
    ("Normal", {"std": "1"}, TypeError, "std"),
    ("Normal", {"mean": [0]}, TypeError, "mean"),
    ("XavierNormal", {"gain": "2"}, TypeError, "gain"),
    ("XavierUniform", {"gain": None}, TypeError, "gain"),
    ("XavierUniform", {"gain": -1.0}, ValueError, "gain"),
    ("XavierNormal", {"gain": NAN}, ValueError, "gain"),
    ("KaimingNormal", {"a": "0.1"}, ValueError, "^a: "),
    ("KaimingNormal", {"mode": "fan"}, ValueError, "mode"),
    ("KaimingUniform", {"mode": None}, ValueError, "mode"),
    ("KaimingUniform", {"nonlinearity": "nope"}, ValueError, "Unsupported nonlinearity"),
    ("VarianceScaling", {"scale": -1}, ValueError, "scale"),
    ("VarianceScaling", {"scale": NAN}, ValueError, "scale"),
    ("VarianceScaling", {"scale": "big"}, TypeError, "scale"),
    ("VarianceScaling", {"mode": "FAN"}, ValueError, "mode"),
    ("VarianceScaling", {"distribution": "cauchy"}, ValueError, "distribution"),
    ("XavierNormal", {"in_axis": 0.5}, TypeError, "in_axis"),
    ("XavierNormal", {"out_axis": "0"}, TypeError, "out_axis"),
    ("KaimingUniform", {"batch_axis": [None]}, TypeError, "batch_axis"),
    ("KaimingUniform", {"groups": "a"}, TypeError, "groups"),
    ("KaimingUniform", {"groups": 1.5}, TypeError, "groups"),
]


@pytest.mark.parametrize(("kind", "arguments", "error", "name"), FIELDS)
def test_bad_fields_are_named(kind, arguments, error, name):
    with pytest.raises(error, match=f"^{name}"):
        getattr(ni, kind)(**arguments)


@pytest.mark.parametrize(
    ("init", "shape", "name"),
    [
        (ni.XavierNormal(), (3,), "fewer than 2 dimensions"),
        (ni.KaimingUniform(), (), "fewer than 2 dimensions"),
        (ni.VarianceScaling(in_axis=5), (3, 4), "^in_axis"),
        (ni.VarianceScaling(batch_axis=0), (3, 4), "^batch_axis"),
        (ni.VarianceScaling(groups=2, packed=1, transposed=False), (3, 4), "^groups"),
        (ni.Uniform(0, 1e39), (3, 4), "^low, high"),
        (ni.Uniform(-3e38, 3e38), (3, 4), "^low, high"),
    ],
)
def test_what_the_shape_or_dtype_cannot_have(init, shape, name):
    array = np.full(shape, 7, np.float32)
    calls = [
        lambda: init(shape, seed=0),
        lambda: init.fill_(array, seed=0),
        lambda: init.block(shape, ..., seed=0),
    ]
    for call in calls + ([lambda: init.rows(shape, [0], seed=0)] if shape else []):
        with pytest.raises(ValueError, match=name):
            call()
    assert (array == 7).all()


@pytest.mark.parametrize(("low", "high"), [(0, 1e5), (-7e4, 0), (1e5, 2e5)])
def test_intervals_too_wide_for_float16(low, high):
    """Values beyond 65504 would pile up at the end, or lie outside of the interval."""
    with pytest.raises(ValueError, match=r"^low, high: .* too wide for float16"):
        ni.Uniform(low, high)((3,), "float16", seed=0)
    assert ni.Uniform(low, high)((3,), "float32", seed=0).min() >= low


def test_weights_without_elements_have_no_variance():
    for shape in [(0, 4), (4, 0), (0, 0), (2, 3, 0)]:
        for name in NAMED:
            init = getattr(ni, name)()
            assert whole(init, shape).shape == shape
            assert init.fill_(np.zeros(shape, np.float32), seed=KEY).shape == shape
            assert init.block(shape, ..., seed=KEY).shape == shape


# Uniform intervals are half-open in every type.

INTERVALS = [
    (0.0, 1.0), (-1.0, 1.0), (-1.0, 0.0), (0.1, 0.7), (1.0, 1.0 + 2**-6), (1e-5, 2e-5),
    (-3e-8, 3e-8), (60000.0, 65504.0), (0.99, 1.0), (-0.37, -0.25),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize(("low", "high"), INTERVALS)
def test_uniform_is_within_its_interval(low, high, dtype):
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    values = ni.Uniform(low, high)((1 << 17,), dtype, seed=KEY).astype(np.float64)
    assert low <= values.min() and values.max() < high


def test_an_interval_of_one_point_or_none():
    for dtype in ("float16", "float32", "float64"):
        assert (whole(ni.Uniform(0.25, 0.25), (50,), dtype) == 0.25).all()
    assert (whole(ni.Uniform(1.0001, 1.0002), (50,), "float16") == 1).all()  # no float16 inside
    assert (whole(ni.Normal(0.25, 0), (50,)) == 0.25).all()


def test_the_sign_of_a_zero_is_kept():
    """Whatever was made before: -0.0 == 0.0, but their bits differ."""
    for value in (0.0, -0.0, 0.0):
        made = whole(ni.Constant(value), (3,))
        np.testing.assert_array_equal(np.signbit(made), math.copysign(1, value) < 0)


# Blocks and rows: tests/test_layouts.py compares them with the whole, here are their edges.


def same(got, expected):
    assert isinstance(got, np.ndarray) and got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected, strict=True)


@pytest.mark.parametrize("init", [ni.Normal(), ni.XavierUniform(), ni.Constant(2)])
def test_block_takes_what_numpy_takes(init):
    array = whole(init, (5, 6, 4))
    for index in [
        (), ..., 0, -5, np.int8(-1), slice(None), slice(2, 4), slice(-3, None), slice(4, 2),
        slice(90, 99), slice(-99, 99), (1, 2), (1, 2, 3), (..., 2), (1, ..., 2), (1, 2, 3, ...),
        (slice(1, 3), ..., slice(0, 1)), (slice(None), -1), (slice(3, 3), 1), slice(1, 4, 1),
        (slice(np.int64(1), np.int64(3)), np.uint8(2)), (slice(0), slice(0), slice(0)),
    ]:  # fmt: skip
        same(init.block((5, 6, 4), index, seed=KEY), np.asarray(array[index]))
    same(ni.Normal().block((), (), seed=KEY), whole(ni.Normal(), ()))
    same(ni.Normal().block((), ..., "float64", seed=KEY), whole(ni.Normal(), (), "float64"))
    same(ni.Normal().block(5, 2, seed=KEY), np.asarray(whole(ni.Normal(), 5)[2]))


@pytest.mark.parametrize(
    "index",
    [5, -6, (0, 6), (0, 0, -5), (0, 0, 0, 0), (..., ...), None, (0, None), 1.0, "a", [1], ([0, 1],),
     slice(None, None, 2), slice(None, None, -1), (0, slice(0, 3, 3)), True, slice(1.5, 2)],
    ids=repr,
)  # fmt: skip
def test_bad_blocks(index):
    with pytest.raises((IndexError, TypeError), match=r"^index: "):
        ni.Normal().block((5, 6, 4), index, seed=KEY)


def test_rows_take_what_numpy_takes():
    array = whole(ni.Normal(), (5, 6, 2))
    for ids in [
        0, -1, np.uint8(4), [], [0], [4, 4, 0, -5], (1, 2), range(3), [[0, 1], [2, 3]], [[]],
        np.array([3, -1], np.int8), np.array([[4]], np.uint64), np.arange(5)[::-2], [[[1]], [[2]]],
    ]:  # fmt: skip
        at = np.asarray(ids)
        at = at if at.size else at.astype(int)
        same(ni.Normal().rows((5, 6, 2), ids, seed=KEY), np.asarray(array[at]))
    same(ni.Normal().rows(5, [3, 1], seed=KEY), whole(ni.Normal(), 5)[[3, 1]])
    assert ni.Normal().rows((0, 6), [], seed=KEY).shape == (0, 6)
    assert ni.Normal().rows((5, 0), [1, 2], seed=KEY).shape == (2, 0)


@pytest.mark.parametrize(
    ("ids", "error"),
    [([5], IndexError), ([-6], IndexError), ([0, 99, 1], IndexError), (7, IndexError),
     (np.array([2**64 - 1], np.uint64), IndexError), (np.array([-(2**63)]), IndexError),
     ([2**70], (TypeError, IndexError)), ([1.0], TypeError), ([True], TypeError), ("a", TypeError),
     (None, TypeError), ([None], TypeError), ([1j], TypeError), (["1"], TypeError),
     ([[1], [1, 2]], ValueError), (np.ma.array([1, 2], mask=[0, 1]), TypeError)],
)  # fmt: skip
def test_bad_rows(ids, error):
    with pytest.raises(error, match=r"^ids: "):
        ni.Normal().rows((5, 6), ids, seed=KEY)


def test_a_scalar_has_no_rows():
    with pytest.raises(ValueError, match=r"^shape: "):
        ni.Normal().rows((), [0], seed=KEY)


# Arrays, windows, shapes and dtypes that are refused: nothing is written then.


def test_windows_follow_the_whole_shape_not_the_parts():
    """Fans are those of the logical shape, never of the shard."""
    for init in (ni.XavierNormal(), ni.KaimingUniform(mode="fan_out"), ni.VarianceScaling()):
        part = init.fill_(np.zeros((2, 3), np.float32), shape=(40, 50), offset=(7, 9), seed=KEY)
        same(part, whole(init, (40, 50))[7:9, 9:12])


shapes = st.lists(st.integers(1, 6), min_size=0, max_size=4).map(tuple)


@given(shapes, st.sampled_from(["float32", "float64", "float16"]), st.data())
def test_windows_in_views_with_gaps(part, dtype, data):
    """A window's own layout does not matter, and what lies between its elements is left alone."""
    offset = tuple(data.draw(st.integers(0, 4)) for _ in part)
    shape = tuple(o + p + data.draw(st.integers(0, 3)) for o, p in zip(offset, part, strict=True))
    order = data.draw(st.permutations(range(len(part))))
    steps = tuple(data.draw(st.sampled_from([1, -1, 2, -3])) for _ in part)
    base = np.full([part[axis] * abs(steps[axis]) for axis in order], 77, dtype)
    view = base.transpose(np.argsort(order).astype(int) if order else ())
    view = view[(*(slice(None, None, step) for step in steps), ...)]
    assert ni.Normal().fill_(view, shape=shape, offset=offset, seed=KEY) is view
    window = tuple(slice(o, o + p) for o, p in zip(offset, part, strict=True))
    np.testing.assert_array_equal(view, whole(ni.Normal(), shape, dtype)[window])
    view[...] = 77
    assert (base == 77).all()


def test_shape_without_offset_and_offset_as_list():
    expected = whole(ni.Normal(), (5, 6))
    local = np.zeros((2, 6), np.float32)
    same(ni.Normal().fill_(local, shape=[5, 6], seed=KEY), expected[:2])
    same(ni.Normal().fill_(local, shape=(5, 6), offset=[3, 0], seed=KEY), expected[3:])
    same(ni.Normal().fill_(local, offset=(0, 0), seed=KEY), whole(ni.Normal(), (2, 6)))
    empty = np.zeros((0, 6), np.float32)
    assert ni.Normal().fill_(empty, shape=(5, 6), offset=(5, 0), seed=KEY) is empty


@pytest.mark.parametrize(
    ("window", "error", "name"),
    [
        ({"shape": (2,)}, ValueError, "shape"),
        ({"shape": (1, 2, 3)}, ValueError, "shape"),
        ({"shape": ()}, ValueError, "shape"),
        ({"shape": (1, 3)}, ValueError, "offset"),
        ({"shape": (5, 5), "offset": (4, 0)}, ValueError, "offset"),
        ({"shape": (5, 5), "offset": (0, 3)}, ValueError, "offset"),
        ({"shape": (5, 5), "offset": (2**62, 0)}, ValueError, "offset"),
        ({"shape": (5, 5), "offset": (-1, 0)}, ValueError, "offset"),
        ({"shape": (5, 5), "offset": (0,)}, ValueError, "shape, offset"),
        ({"offset": (1, 0)}, ValueError, "offset"),
        ({"shape": (5, 5), "offset": (0.0, 0)}, TypeError, "offset"),
        ({"shape": (5, 5), "offset": "ab"}, TypeError, "offset"),
        ({"shape": (5.0, 5)}, TypeError, "shape"),
        ({"shape": (-5, 5)}, ValueError, "shape"),
        ({"shape": (2**40, 2**40)}, ValueError, "shape"),
        ({"shape": "ab"}, TypeError, "shape"),
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": 1.0}, TypeError, "seed"),
    ],
    ids=repr,
)
def test_bad_windows_leave_the_array_alone(window, error, name):
    array = np.full((2, 3), 7, np.float32)
    for init in (ni.Normal(), ni.Uniform(), ni.VarianceScaling()):
        with pytest.raises(error, match=f"^{name}"):
            init.fill_(array, **{"seed": 0, **window})
    assert (array == 7).all()


@pytest.mark.parametrize(
    ("raw", "arguments", "error", "name"),
    [
        (lambda base: base.view(np.float32), {}, TypeError, "array: float32"),
        (memoryview, {}, TypeError, "array: memoryview"),
        (lambda base: base[::4], {}, ValueError, "array: .*contiguous"),
        (lambda base: base[::-1], {}, ValueError, "array: .*contiguous"),
        (lambda base: base.reshape(4, 16), {}, ValueError, "array: .*one axis"),
        (
            lambda base: np.frombuffer(base.tobytes(), np.uint8),
            {},
            ValueError,
            "array: .*read-only",
        ),
        (lambda base: base[:63], {}, ValueError, "array: 63 bytes"),
        (lambda base: base, {"start": 5, "shape": (4, 5)}, ValueError, "start: 16 elements from 5"),
        (lambda base: base, {"shape": (15,)}, ValueError, "start: 16 elements from 0"),
        (lambda base: base, {"start": -1}, ValueError, "start: "),
        (lambda base: base, {"start": 0.5}, TypeError, "start: "),
        (lambda base: base, {"start": (0, 1)}, TypeError, "start: "),
        (lambda base: base, {"start": ()}, TypeError, "start: "),
    ],
)
def test_what_is_no_memory_for_raw_bytes_is_left_alone(raw, arguments, error, name):
    base = np.full(64, 7, np.uint8)
    given = raw(base)
    with pytest.raises(error, match=f"^{name}"):
        ni.Normal().fill_flat(given, **{"dtype": "float32", "seed": 0, **arguments})
    assert (base == 7).all() and (np.asarray(given).view(np.uint8) == 7).all()


def test_raw_bytes_have_the_fans_of_their_elements():
    raw = np.empty(48, np.uint8)
    same(ni.EmbeddingUniform().fill_flat(raw, dtype="float32", seed=KEY).view(np.float32),
         whole(ni.EmbeddingUniform(), (12,)))  # fmt: skip


def read_only():
    array = np.full((3, 4), 7, np.float32)
    array.flags.writeable = False
    return array


REFUSED = {
    "read-only": (read_only, ValueError),
    "byte-swapped": (lambda: np.full((3, 4), 7, np.dtype("f4").newbyteorder("S")), TypeError),
    "byte-swapped f16": (lambda: np.full(3, 7, np.dtype("f2").newbyteorder("S")), TypeError),
    "int32": (lambda: np.full((3, 4), 7, np.int32), TypeError),
    "uint16": (lambda: np.full((3, 4), 7, np.uint16), TypeError),
    "bool": (lambda: np.full((3, 4), True), TypeError),
    "clongdouble": (lambda: np.full((3, 4), 7, np.clongdouble), TypeError),
    "long double": (lambda: np.full((3, 4), 7, np.longdouble), (TypeError, ValueError)),
    "object": (lambda: np.full((3, 4), 7, object), TypeError),
    "string": (lambda: np.full((3, 4), "7"), TypeError),
    "structured": (lambda: np.full(3, 7, [("x", "f4")]), TypeError),
    "void": (lambda: np.zeros(3, "V4"), TypeError),
    "datetime": (lambda: np.full(3, 7, "M8[s]"), TypeError),
    "stride 0": (lambda: np.lib.stride_tricks.as_strided(np.full(4, 7, "f4"), (3, 4), (0, 4)),
                 ValueError),
    "sliding windows": (lambda: np.lib.stride_tricks.sliding_window_view(
        np.full(9, 7, "f4"), 4, writeable=True), ValueError),
    "half an element": (lambda: np.lib.stride_tricks.as_strided(np.full(9, 7, "f4"), (4,), (2,)),
                        ValueError),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_arrays_are_named_and_untouched(name):
    make, error = REFUSED[name]
    if name == "long double" and np.dtype(np.longdouble) == np.float64:
        pytest.skip("long double is float64 on this platform")
    array = make()
    before = array.copy()
    for init in (ni.Normal(), ni.Uniform(), ni.Constant(1)):
        with pytest.raises(error, match=r"^(array|dtype): "):
            init.fill_(array, seed=0)
    assert array.tobytes() == before.tobytes()


@pytest.mark.parametrize(
    "thing",
    [[1.0, 2.0], (1.0,), 3.0, None, "w", bytearray(8), memoryview(bytearray(8)), np.float32(1),
     object(), {"w": 1}],
    ids=lambda thing: type(thing).__name__,
)  # fmt: skip
def test_what_is_no_array_is_refused(thing):
    for call in (ni.Normal().fill_, ni.zeros_, ni.kaiming_normal_, ni.uniform_):
        name = next(iter(inspect.signature(call).parameters))
        with pytest.raises(TypeError, match=rf"^{name}: "):
            call(thing)


def test_arrays_whose_elements_only_look_as_if_they_overlap():
    base = np.zeros((4, 6), np.float32)
    one = np.lib.stride_tricks.as_strided(base, (1, 4), (0, 4))  # one row: its stride is unused
    same(np.array(ni.Normal().fill_(one, seed=KEY)), whole(ni.Normal(), (1, 4)))
    empty = np.lib.stride_tricks.as_strided(base, (0, 4), (0, 0))
    assert ni.Normal().fill_(empty, seed=KEY) is empty
    field = np.zeros(5, [("x", "f4"), ("y", "f8")])  # unaligned float64 behind a float32
    same(np.array(ni.Normal().fill_(field["y"], seed=KEY)), whole(ni.Normal(), 5, "float64"))
    assert (field["x"] == 0).all()


def test_subclasses_of_arrays_are_filled_and_returned():
    class Weight(np.ndarray):
        pass

    for array in (
        np.zeros((3, 4), np.float32).view(Weight),
        np.zeros((3, 4), np.float32).view(np.matrix),
    ):
        assert ni.Normal().fill_(array, seed=KEY) is array
        np.testing.assert_array_equal(np.asarray(array), whole(ni.Normal(), (3, 4)))


@pytest.mark.parametrize(
    "shape", [5, (5,), [5], np.array([5]), (np.int32(5),), np.int64(5)], ids=repr
)
def test_shapes_in_any_spelling(shape):
    same(ni.Normal()(shape, seed=KEY), whole(ni.Normal(), (5,)))


@pytest.mark.parametrize(
    ("shape", "error"),
    [(5.0, TypeError), ((5.0,), TypeError), ("5", TypeError), (None, TypeError), ((None,), TypeError),
     (b"57", TypeError), ({5, 7}, TypeError), ({5: 7}, TypeError),
     (-1, ValueError), ((3, -1), ValueError), ((2**62, 2), ValueError), (2**63, ValueError)],
)  # fmt: skip
def test_bad_shapes(shape, error):
    for call in (ni.Normal(), lambda s, seed: ni.Normal().block(s, 0, seed=seed)):
        with pytest.raises(error, match=r"^shape: "):
            call(shape, seed=0)


def test_shapes_beyond_numpy():
    for shape in (2**62,), (1,) * 65:
        with pytest.raises(ValueError, match=r"^shape: "):
            ni.Normal()(shape, seed=0)


DTYPES = {
    "float32": [
        "float32",
        "f4",
        "=f4",
        "single",
        np.float32,
        np.dtype("f4"),
        np.dtype(np.float32),
    ],
    "float64": ["float64", "double", "float", float, np.float64, np.dtype("f8"), np.double],
    "float16": ["float16", "half", np.float16, np.half],
}


@pytest.mark.parametrize(
    ("name", "dtype"), [(n, d) for n, ds in DTYPES.items() for d in ds], ids=repr
)
def test_dtypes_in_any_spelling(name, dtype):
    made = ni.Normal()((3,), dtype, seed=KEY)
    assert made.dtype == name and as_dtype(dtype).name == name
    same(made, whole(ni.Normal(), (3,), name))


def test_bfloat16_in_any_spelling():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    for dtype in ("bfloat16", bfloat16, np.dtype(bfloat16)):
        assert ni.Normal()((3,), dtype, seed=KEY).dtype == np.dtype(bfloat16)


@pytest.mark.parametrize(
    "dtype",
    ["int32", "float8", "complex32", "", ">f4", int, bool, None, np.int8, np.longdouble, 32, object,
     np.dtype("f4").newbyteorder("S"), "float128", "f32"],
    ids=repr,
)  # fmt: skip
def test_bad_dtypes(dtype):
    for call in (ni.Normal(), lambda s, d, seed: ni.Normal().rows(s, [0], d, seed=seed)):
        with pytest.raises(TypeError, match=r"^dtype: .*accepted"):
            call((3,), dtype, seed=0)
