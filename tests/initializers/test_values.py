"""What values may never be: -0.0, beyond their bounds, another's from a cache, written in part."""

import math
import pickle

import numpy as np
import pytest

import numinit as ni
from numinit.initializers.kept import Exactly
from numinit.stream.dtypes import DTYPES

TINY = 1e-20


def nobody(init, shape, dtype="float32", seed=1):
    made = init(shape, dtype, seed=seed)
    return made.astype(np.complex128 if DTYPES[dtype].complex else np.float64)


def minus_zeros(values):
    parts = (values.real, values.imag) if np.iscomplexobj(values) else (values,)
    return sum(int(((part == 0) & np.signbit(part)).sum()) for part in parts)


def test_the_zero_of_a_uniform_is_positive():
    window = ni.Uniform().block((1 << 28,), slice(16285073, 16285074), seed=20240608)
    assert window.tobytes() == bytes(4)


@pytest.mark.parametrize(
    ("init", "dtype"),
    [
        (ni.TruncNormal(-1.0, 0.0, 0.0, 1.0), "float32"),
        (ni.TruncNormal(0, TINY, 0, 2 * TINY), "float16"),
        (ni.TruncNormal(0, TINY, -TINY, TINY), "float16"),
        (ni.TruncNormal(0, 1, -TINY, TINY), "float16"),
        (ni.Uniform(-TINY, 1e-9), "float16"),
        (ni.Uniform(-0.0, 0.0), "float64"),
        (ni.Normal(-0.0, 0), "float32"),
        (ni.Normal(-0.0, 0), "complex64"),
        (ni.Sparse(0.5, std=0), "float32"),
        (ni.VarianceScaling(0, distribution="uniform"), "complex64"),
        (ni.VarianceScaling(0, distribution="uniform"), "complex128"),
        (ni.VarianceScaling(0, distribution="truncated_normal"), "complex64"),
        (ni.VarianceScaling(0, distribution="truncated_normal"), "complex128"),
        (ni.VarianceScaling(0, distribution="truncated_normal"), "float32"),
        (ni.Orthogonal(gain=0.0), "float32"),
        (ni.Orthogonal(gain=-0.0), "complex64"),
        (ni.Orthogonal(gain=1e-50), "float32"),
        (ni.Eye(-1.0), "float32"),
        (ni.Padded(ni.Ones(), 0), "float16"),
    ],
)
def test_a_zero_is_positive(init, dtype):
    values = nobody(init, (12, 12), dtype)
    assert (values == 0).any() and minus_zeros(values) == 0


@pytest.mark.parametrize("side", ["real", "imag"])
@pytest.mark.parametrize("window", ["hann", None, (-0.0,) * 16])
def test_a_zero_of_a_transform_is_positive(side, window):
    values = nobody(ni.STFT(side, window, None), (16, 1, 9), "float64")
    assert (values == 0).any() and minus_zeros(values) == 0


def test_zeros_beside_negative_gains_are_positive():
    assert minus_zeros(nobody(ni.DeltaOrthogonal(gain=-2.0), (4, 4, 3))) == 0


def test_a_constant_may_ask_for_the_other_zero():
    assert np.signbit(ni.Constant(-0.0)((2,))).all()
    assert np.signbit(ni.Assign([-0.0])((1,), "float16")).all()


@pytest.mark.parametrize(
    ("init", "dtype"),
    [
        (ni.TruncNormal(500, 1, 490, 510), "float8_e4m3fn"),
        (ni.TruncNormal(-500, 1, -510, -490), "float8_e4m3fn"),
        (ni.TruncNormal(500, 1, 490, math.inf), "float8_e4m3fn"),
        (ni.TruncNormal(0, 1, 70000, math.inf), "float16"),
        (ni.TruncNormal(0, 1, -math.inf, -70000), "float16"),
        (ni.TruncNormal(0, 0, 70000, 80000), "float16"),
    ],
)
def test_bounds_beyond_the_largest_number_are_refused(init, dtype):
    with pytest.raises(ValueError, match=rf"^a, b: no {dtype} lies between"):
        init.transform(DTYPES[dtype])


def test_numbers_beside_a_bound_beyond_the_type():
    for dtype in DTYPES.values():
        if dtype.complex:
            continue
        assert dtype.floor(-math.nextafter(dtype.max, math.inf)) == -math.inf
        assert dtype.ceil(math.nextafter(dtype.max, math.inf)) == math.inf
        assert dtype.floor(dtype.max) == dtype.ceil(dtype.max) == dtype.max
        assert dtype.below(-dtype.max) == -math.inf
        assert dtype.below(0.0) == -math.ldexp(1.0, dtype.min_exponent - dtype.precision + 1)
        assert math.copysign(1, dtype.ceil(-0.0)) == 1


def test_infinite_bounds_of_a_type_without_infinity():
    pytest.importorskip("ml_dtypes")
    values = nobody(ni.TruncNormal(0, 1e3, -math.inf, math.inf), (999,), "float8_e4m3fn")
    assert np.abs(values).max() == 448 and np.isfinite(values).all()


@pytest.mark.parametrize(
    ("make", "dtype", "name"),
    [
        (lambda: ni.Orthogonal(gain=1e39), "float32", "gain"),
        (lambda: ni.Orthogonal(gain=-7e4), "float16", "gain"),
        (lambda: ni.DeltaOrthogonal(gain=1e39), "complex64", "gain"),
        (lambda: ni.Normal(std=1e39), "float32", "std"),
        (lambda: ni.Normal(mean=-1e39), "float32", "mean"),
        (lambda: ni.Normal(std=7e4), "float16", "std"),
        (lambda: ni.Sparse(0.5, std=1e39), "float32", "std"),
        (lambda: ni.Padded(ni.Normal(std=1e39), 0), "float32", "std"),
        (lambda: ni.XavierNormal(gain=1e40), "float32", "std: .*gain=1e.40"),
        (lambda: ni.XavierUniform(gain=1e40), "complex64", "std: .*gain=1e.40"),
        (lambda: ni.VarianceScaling(1e80, "fan_in", "truncated_normal"), "float32", "std: .*1e.80"),
        (lambda: ni.VarianceScaling(1e80, "fan_in", "truncated_normal"), "complex64", "std"),
        (lambda: ni.KaimingNormal(a=10**400), "float32", "a: "),
        (lambda: ni.KaimingUniform(a=-(10**400), nonlinearity="prelu"), "float32", "a: "),
        (lambda: ni.DepthScaled(ni.Normal(), 10**400), "float32", "layers"),
        (lambda: ni.MuP(ni.Normal(std=1e308), "hidden", (4096, 4096)), "float64", "std"),
        (lambda: ni.MuP(ni.Orthogonal(1e308), "hidden", (4096, 4096)), "float64", "gain"),
        (lambda: ni.TruncatedNormal(0, 1e308), "float64", "lower"),
    ],
)
def test_finite_parameters_that_a_type_cannot_hold_are_named(make, dtype, name):
    target = np.full((16, 16, 1) if "Delta" in str(make.__code__.co_names) else (16, 16), 7, dtype)
    with pytest.raises(ValueError, match=rf"^{name}"):
        make().fill_(target, seed=1)
    assert (target == 7).all()


def test_gains_of_huge_parameters():
    for name in ("leaky_relu", "prelu"):
        with pytest.raises(ValueError, match=r"^negative_slope: "):
            ni.calculate_gain(name, 10**400)
    with pytest.raises(ValueError, match=r"^alpha: "):
        ni.calculate_gain("elu", 10**400)


@pytest.mark.parametrize("scaling", ["density", "spectrum"])
def test_windows_whose_norm_is_beyond_float64(scaling):
    with pytest.raises(ValueError, match="norm inf"):
        ni.STFT(window=(1e308,) * 8, scaling=scaling)((8, 1, 5))


def test_a_truncated_normal_wider_than_float32():
    wide = ni.TruncNormal(0, 1e39, -2, 2)((9999,), seed=1)  # uniform, in effect
    assert abs(float(wide.mean())) < 0.1 and np.abs(wide).max() > 1.9
    wide = ni.TruncNormal(0, 1e39, -3e38, 3e38)((9999,), seed=1)
    assert (np.abs(wide) < 2.9e38).mean() > 0.9


def test_equal_values_of_other_types_share_no_cache_entry():
    assert (ni.Constant(1.0)((2,)) == 1).all()
    with pytest.raises(TypeError, match=r"^value"):
        ni.Constant(1 + 0j)((2,))
    for wrap in (lambda init: init, lambda init: ni.Padded(init, 0)):
        for sign in (0.0, -0.0, 0.0):
            made = wrap(ni.Constant(sign))((3, 2))[1:]
            np.testing.assert_array_equal(np.signbit(made), np.signbit(np.full((2, 2), sign)))


def test_initializers_that_are_equal_are_not_the_same():
    zero = ni.STFT(window=(0.0, 1.0))
    other = ni.STFT(window=(-0.0, 1.0))
    assert zero == other and Exactly(zero) != Exactly(other)
    assert Exactly(zero) == Exactly(ni.STFT(window=[0, 1]))


def test_equal_initializers_share_a_cache_entry():
    shared = ni.Normal(0.0, 3)._ready((5,), DTYPES["float32"], (5,), (4,))
    assert ni.Normal(-0.0, 3.0)._ready((5,), DTYPES["float32"], (5,), (4,)) is shared


def test_what_is_kept_is_not_pickled():
    init = ni.Padded(ni.Normal(), 0)
    made = init((3, 2), seed=1)
    again = pickle.loads(pickle.dumps(init))
    assert again == init and set(vars(again)) == {"init", "padding_idx", "axis"}
    np.testing.assert_array_equal(again((3, 2), seed=1), made)


QUIET = {
    "Assign": (lambda: ni.Assign(np.geomspace(1e-300, 1e-30, 16).reshape(4, 4)), (4, 4)),
    "Assign NaN": (lambda: ni.Assign([[math.nan, math.inf, 0.1, 1e-46]]), (1, 4)),
    "Eye": (lambda: ni.Eye(0.3 * 2**-140), (9, 5)),
    "STFT": (lambda: ni.STFT(window=[0.0, 1e-170, 0.3, 1]), (4, 1, 5)),
    "Orthogonal": (lambda: ni.Orthogonal(gain=1e-40), (9, 7)),
    "DeltaOrthogonal": (lambda: ni.DeltaOrthogonal(gain=1e-7), (9, 7, 3)),
    "gain": (lambda: ni.KaimingNormal(nonlinearity=np.tanh), (9, 7)),
}


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "complex64"])
@pytest.mark.parametrize("name", QUIET)
def test_the_callers_error_state_ends_no_fill(name, dtype):
    make, shape = QUIET[name]
    with np.errstate(all="ignore"):
        expected = make()(shape, dtype, seed=1)
    with np.errstate(all="raise"):
        init = make()
        made = init(shape, dtype, seed=1)
        init.plan(shape, DTYPES[dtype])
        assert np.geterr()["under"] == "raise"
    assert made.tobytes() == expected.tobytes()
