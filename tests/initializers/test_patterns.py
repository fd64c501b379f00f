"""Initializers whose values follow from an element's indices: what they hold, however asked."""

import copy
import math
import pickle
import sys
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numinit as ni
from numinit.engines import by_index
from numinit.engines.by_index import boxes
from numinit.models import recipes
from numinit.models import verify as verifying
from numinit.models import write as writing
from numinit.stream.dtypes import DTYPES

NAN, INF = math.nan, math.inf
REAL = [name for name, dtype in DTYPES.items() if not dtype.complex]
NUMPY = ["float32", "float64", "float16", "complex64", "complex128"]


def numpy_type(name):
    if name in NUMPY:
        return np.dtype(name)
    return np.dtype(getattr(pytest.importorskip("ml_dtypes"), name))


# What they hold, by loops.


def eye(shape, gain=1.0, batch=()):
    made = np.zeros(shape)
    matrix = [axis for axis in range(len(shape)) if axis not in batch]
    for index in np.ndindex(*shape):
        if index[matrix[0]] == index[matrix[1]]:
            made[index] = gain
    return made


@pytest.mark.parametrize(
    "shape", [(3, 3), (3, 5), (5, 3), (1, 1), (1, 7), (0, 3), (3, 0), (300, 301)]
)
def test_eye(shape):
    assert ni.Identity is ni.Eye
    np.testing.assert_array_equal(ni.Eye()(shape), np.eye(*shape, dtype=np.float32), strict=True)
    for gain in (2.5, -0.1, 0.0):
        np.testing.assert_array_equal(ni.Eye(gain)(shape, "float64"), eye(shape, gain))


def test_stacks_of_eyes():
    for shape, given_, batch in [
        ((4, 3, 5), 0, {0}),
        ((4, 3, 5), -1, {2}),
        ((4, 3, 5), [1], {1}),
        ((2, 4, 3, 5), (0, 1), {0, 1}),
        ((2, 4, 3, 5), (-1, 1), {3, 1}),
    ]:
        got = ni.Eye(3.0, batch_axis=given_)(shape)
        np.testing.assert_array_equal(got, eye(shape, 3.0, batch))


def dirac(shape, groups):
    """In torch's layout."""
    made = np.zeros(shape)
    part = shape[0] // groups
    for group in range(groups):
        for d in range(min(part, shape[1])):
            made[(group * part + d, d, *(k // 2 for k in shape[2:]))] = 1
    return made


KERNELS = [
    ((4, 4, 3), 1), ((4, 2, 3), 2), ((6, 4, 3, 2), 3), ((6, 1, 3, 4), 2), ((2, 5, 1, 1), 1),
    ((4, 3, 2, 3, 5), 2), ((8, 3, 1), 8), ((3, 3, 4), 1), ((0, 3, 3), 2), ((3, 0, 3), 1), ((3, 3, 0), 1),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "groups"), KERNELS)
def test_dirac(shape, groups):
    expected = dirac(shape, groups) if 0 not in shape else np.zeros(shape)
    np.testing.assert_array_equal(ni.Dirac(groups)(shape, "float64"), expected, strict=True)
    # Channels last: (*kernel, in, out).
    last = ni.Dirac(groups, in_axis=-2, out_axis=-1)
    turned = expected.transpose(*range(2, len(shape)), 1, 0)
    np.testing.assert_array_equal(last(turned.shape, "float64"), turned)


@pytest.mark.parametrize(("shape", "groups"), KERNELS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "complex64"])
def test_patterns_are_torchs(shape, groups, dtype):
    torch = pytest.importorskip("torch")
    kind = getattr(torch, dtype)

    def new(*shape):
        return torch.full(shape, 7.0, dtype=kind)

    assert torch.equal(ni.eye_(new(*shape[:2])), torch.nn.init.eye_(new(*shape[:2])))
    if shape[2]:  # torch fails where there is no centre
        expected = torch.nn.init.dirac_(new(*shape), groups)
        assert torch.equal(ni.dirac_(new(*shape), groups), expected)
        view = new(*(2 * n for n in shape[::-1])).permute(*range(len(shape))[::-1])
        view = view[tuple(slice(None, None, 2) for _ in shape)]
        assert torch.equal(ni.dirac_(view, groups), expected)
        assert (view._base == 7).sum() == view._base.numel() - view.numel()


def test_bilinear():
    for k in range(1, 8):
        f = -(-k // 2)
        c = Fraction(2 * f - 1 - f % 2, 2 * f)
        line = [1 - abs(Fraction(x, f) - c) for x in range(k)]
        expected = np.array([[float(a * b) for a in line] for b in line])
        made = ni.Bilinear()((2, 3, k, k), "float64")
        for kernel in made.reshape(6, k, k):
            np.testing.assert_allclose(kernel, expected, rtol=1e-15, atol=1e-17)
    assert ni.Bilinear()((0, 3, 0, 0)).shape == (0, 3, 0, 0)
    keras = ni.Bilinear(in_axis=-1, out_axis=-2)((5, 5, 3, 2))
    np.testing.assert_array_equal(keras.transpose(3, 2, 0, 1), ni.Bilinear()((2, 3, 5, 5)))


@pytest.mark.parametrize("factor", [2, 4, 6])
def test_bilinear_kernels_upsample(factor):
    """A ramp stays a ramp: the kernel's purpose, away from the borders."""
    torch = pytest.importorskip("torch")
    k = 2 * factor - factor % 2
    kernel = torch.from_numpy(ni.Bilinear()((1, 1, k, k)))
    ramp = torch.arange(8.0) + 3 * torch.arange(8.0)[:, None]
    made = torch.nn.functional.conv_transpose2d(
        ramp[None, None], kernel, stride=factor, padding=math.ceil((factor - 1) / 2)
    )[0, 0, 2 * factor : -2 * factor, 2 * factor : -2 * factor]
    steps = made.diff(dim=0), made.diff(dim=1)
    assert torch.allclose(steps[0], torch.tensor(3 / factor), atol=1e-5)
    assert torch.allclose(steps[1], torch.tensor(1 / factor), atol=1e-5)


# KERAS_BACKEND=numpy, Keras 3.15.1: keras.initializers.STFT(**arguments)((4, 1, 3)), to 7 digits.
KERAS = [
    ({}, [[0, 0, 0], [0.7071068, 0, -0.7071068], [0.7071068, -0.7071068, 0.7071068], [0, 0, 0]]),
    ({"side": "imag", "window": "hamming", "scaling": "spectrum", "periodic": True},
     [[0, 0, 0], [0, -0.25, 0], [0, 0, 0], [0, 0.25, 0]]),
    ({"side": "imag", "window": None}, [[0, 0, 0], [0, -1, 0], [0, 0, 0], [0, 1, 0]]),
    ({"window": [1.0, 2.0, -3.0, 0.5], "scaling": "spectrum"},
     [[0.1538462, 0.1538462, 0.1538462], [0.3076923, 0, -0.3076923],
      [-0.4615385, 0.4615385, -0.4615385], [0.0769231, 0, -0.0769231]]),
    ({"side": "imag", "window": "bartlett"},
     [[0, 0, 0], [0, -0.7071068, 0], [0, 0, 0], [0, 0, 0]]),
    ({"window": "blackman", "periodic": True},
     [[0, 0, 0], [0.3064183, 0, -0.3064183], [0.9012302, -0.9012302, 0.9012302],
      [0.3064183, 0, -0.3064183]]),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "expected"), KERAS)
def test_stft_is_keras(arguments, expected):
    made = ni.STFT(**arguments)((4, 1, 3), "float64")
    np.testing.assert_allclose(made[:, 0], expected, atol=1e-7)


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("scaling", ["density", "spectrum", None])
@pytest.mark.parametrize(
    "window", ["hann", "hamming", "blackman", "bartlett", "boxcar", "nuttall", None]
)
def test_stft_is_the_formula(window, scaling, periodic):
    signal = pytest.importorskip("scipy.signal")
    for length, bins in [(1, 2), (2, 2), (7, 5), (16, 9), (33, 30)]:
        w = np.ones(length) if window is None else signal.get_window(window, length, periodic)
        if scaling and window:
            norm = np.sqrt((w * w).sum()) if scaling == "density" else np.abs(w).sum()
            if not norm:
                continue
            w = w / norm
        angle = np.outer(np.arange(length), np.arange(bins)) * (math.pi / (bins - 1))
        for side, wave in (("real", np.cos(angle)), ("imag", -np.sin(angle))):
            made = ni.STFT(side, window, scaling, periodic)((length, 1, bins), "float64")
            np.testing.assert_allclose(made[:, 0], wave * w[:, None], rtol=0, atol=2e-13)


def test_cosines_are_exact_to_two_units():
    mpmath = pytest.importorskip("mpmath")
    from numinit.initializers.stft import _cos

    for period in (1, 2, 3, 4, 7, 8, 360, 1000, 2**20, 10**9 + 7):
        turns = np.unique(np.linspace(0, period - 1, 101).astype(np.int64))
        with mpmath.workdps(40):
            expected = [float(mpmath.cospi(mpmath.mpf(2 * int(t)) / period)) for t in turns]
        units = np.spacing(np.abs(expected))
        assert (np.abs(_cos(turns, period) - expected) <= 2 * units).all()
        np.testing.assert_array_equal(_cos(turns - 3 * period, period), _cos(turns, period))


def test_stft_without_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.signal", None)
    assert ni.STFT()((5, 1, 3)).shape == (5, 1, 3)
    with pytest.raises(ImportError, match=r"^window: 'triang' .*numinit\[scipy\].*hann"):
        ni.STFT(window="triang")


# Values that are given.


def test_assign():
    for value in ([[1, 2, 3], [4, 5, 6]], np.arange(6).reshape(2, 3), np.eye(2, 3, dtype=bool),
                  np.asfortranarray(np.arange(6.0).reshape(2, 3))):  # fmt: skip
        np.testing.assert_array_equal(
            ni.Assign(value)((2, 3)), np.asarray(value, "f4"), strict=True
        )
    assert ni.Assign(3)(()) == 3 and ni.Assign([])((0,)).shape == (0,)
    source = np.arange(3.0)
    init = ni.Assign(source)
    source[:] = 9
    np.testing.assert_array_equal(init(3), [0, 1, 2])
    for copied in (init, copy.copy(init), copy.deepcopy(init), pickle.loads(pickle.dumps(init))):
        assert copied == init and hash(copied) == hash(init)
        with pytest.raises(ValueError, match="read-only"):
            copied.value[0] = 1


def test_assign_takes_tensors():
    torch = pytest.importorskip("torch")
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e5m2,
                  torch.int64, torch.bool):  # fmt: skip
        tensor = torch.tensor([[0.0, 1.0], [-2.0, 3.0]]).to(dtype)
        expected = tensor.float().numpy()
        np.testing.assert_array_equal(ni.Assign(tensor)((2, 2)), expected)
        np.testing.assert_array_equal(ni.Assign(tensor.T)((2, 2)), expected.T)
    weight = torch.nn.Parameter(torch.ones(3))
    assert ni.Assign(weight) == ni.Assign([1, 1, 1])
    conjugate = torch.tensor([1 + 2j]).conj()
    assert ni.Assign(conjugate)(1, "complex64") == 1 - 2j


def test_assigned_values_are_compared():
    one = ni.Assign([[1.0, 2.0]])
    for other in ([[1, 2]], np.array([[1, 2]], np.float16)):
        assert ni.Assign(other) == one and hash(ni.Assign(other)) == hash(one)
    for other in ([[1, 3]], [1, 2], [[1], [2]], [[1 + 0j, 2]]):
        assert ni.Assign(other) != one
    assert ni.Assign([0.0]) != ni.Assign([-0.0])
    assert ni.Assign([NAN]) == ni.Assign([NAN])
    assert one != 3 and repr(one) == "Assign(value=[[1.0, 2.0]])"
    assert eval(repr(one), vars(ni)) == one
    assert repr(ni.Assign(np.zeros((9, 9)))) == "Assign(value=<float64 of shape (9, 9)>)"


def test_assigned_arrays_are_let_go():
    import gc
    import weakref

    init = ni.Assign(np.zeros(1000))
    init(1000)
    array = weakref.ref(init.value)
    del init
    gc.collect()
    assert array() is None


def nearest(value, dtype):
    """The number of a type nearest to a finite value, ties to even, in exact arithmetic."""
    exponent = max(math.frexp(value)[1] - 1, dtype.min_exponent)
    unit = Fraction(2) ** (exponent - dtype.precision + 1)
    return math.copysign(float(round(Fraction(value) / unit) * unit), value)


@pytest.mark.parametrize("name", REAL)
def test_values_are_rounded_once(name):
    """Among them those that a second rounding, by way of float32, would move."""
    dtype = DTYPES[name]
    rng = np.random.default_rng(0)
    values = [0.0, -0.0, 1.0, dtype.max, -dtype.max, 2.0**dtype.min_exponent]
    for _ in range(300):
        low = math.ldexp(rng.integers(1, 2 ** (dtype.precision + 1)), -dtype.precision)
        scale = int(rng.integers(max(dtype.min_exponent - dtype.precision - 2, -1020), 6))
        tie = math.ldexp(low, scale)
        values += [
            tie,
            -tie,
            math.nextafter(tie, 0),
            math.nextafter(tie, INF),
            tie * (1 + 2.0**-40),
        ]
    expected = np.array([nearest(v, dtype) for v in values])
    made = ni.Assign(np.array(values))(len(values), numpy_type(name))
    assert made.dtype == numpy_type(name)
    made = made.astype(np.float64)
    np.testing.assert_array_equal(made, expected)
    np.testing.assert_array_equal(np.signbit(made), np.signbit(expected))


@pytest.mark.parametrize("name", REAL)
def test_every_value_of_a_type_and_those_that_are_not_finite(name):
    kind = numpy_type(name)
    if kind.itemsize <= 2:
        every = np.arange(256**kind.itemsize, dtype=f"u{kind.itemsize}").view(kind)
        with np.errstate(invalid="ignore"):
            wide = every.astype(np.float64)
        for source in (every, wide):
            made = ni.Assign(source)(every.shape, kind)
            np.testing.assert_array_equal(made.astype(np.float64), wide)
    made = ni.Assign([INF, -INF, NAN])(3, kind).astype(np.float64)
    lacks = name == "float8_e4m3fn"
    np.testing.assert_array_equal(made, [NAN if lacks else INF, NAN if lacks else -INF, NAN])


# However they are asked for.

EVERY = {
    "Eye": (lambda shape: ni.Eye(0.3), (9, 7)),
    "stack": (lambda shape: ni.Eye(-1.5, batch_axis=1), (6, 5, 7)),
    "Dirac": (lambda shape: ni.Dirac(2), (8, 5, 3)),
    "Dirac last": (lambda shape: ni.Dirac(in_axis=-2, out_axis=-1), (3, 1, 4, 5)),
    # So long that the few values are put among zeros.
    "Eye, long": (lambda shape: ni.Eye(0.3), (9, 70)),
    "stack, long": (lambda shape: ni.Eye(-1.5, batch_axis=1), (6, 5, 70)),
    "Dirac, long": (lambda shape: ni.Dirac(2), (8, 30, 3)),
    "Dirac last, long": (lambda shape: ni.Dirac(in_axis=-2, out_axis=-1), (3, 1, 40, 5)),
    "Bilinear": (lambda shape: ni.Bilinear(), (3, 2, 5, 5)),
    "STFT": (lambda shape: ni.STFT("imag"), (9, 1, 6)),
    "Assign": (lambda shape: ni.Assign(np.arange(math.prod(shape)).reshape(shape) / 7), (4, 3, 5)),
    "Assign 1-d": (lambda shape: ni.Assign(np.arange(shape[0]) / 7), (11,)),
}  # fmt: skip
every = pytest.mark.parametrize("name", EVERY)


def made(name):
    make, shape = EVERY[name]
    return make(shape), shape


@every
@given(st.data())
def test_blocks_are_slices(name, data):
    init, shape = made(name)
    whole = init(shape)
    index = tuple(
        data.draw(
            st.integers(-size, size - 1)
            | st.builds(slice, st.integers(-size, size), st.none() | st.integers(-size, size))
        )
        for size in shape
    )
    got = init.block(shape, index, seed=3)
    np.testing.assert_array_equal(got, np.asarray(whole[index]), strict=True)


@every
@given(st.data())
def test_rows_are_rows(name, data):
    init, shape = made(name)
    ids = data.draw(st.lists(st.integers(-shape[0], shape[0] - 1), max_size=8))
    ids = np.array(ids, np.int64).reshape(
        data.draw(st.sampled_from([(-1,), (-1, 1)])) if ids else 0
    )
    np.testing.assert_array_equal(init.rows(shape, ids), init(shape)[ids], strict=True)


@every
@given(st.data())
def test_windows_of_any_layout(name, data):
    init, shape = made(name)
    offset = tuple(data.draw(st.integers(0, n)) for n in shape)
    part = tuple(data.draw(st.integers(0, n - o)) for n, o in zip(shape, offset, strict=True))
    order = data.draw(st.permutations(range(len(part))))
    steps = data.draw(st.tuples(*[st.sampled_from([1, 2, -1, -3])] * len(part)))
    base = np.full([part[axis] * abs(steps[axis]) for axis in order], 77, np.float32)
    view = base.transpose(np.argsort(order))[tuple(slice(None, None, s) for s in steps)]
    assert init.fill_(view, shape=shape, offset=offset) is view
    window = tuple(slice(o, o + p) for o, p in zip(offset, part, strict=True))
    np.testing.assert_array_equal(view, init(shape)[window])
    view[...] = 77
    assert (base == 77).all()  # nothing was written between the elements


LINES = {
    "Eye": (lambda gain: ni.Eye(gain), (9, 70)),
    "stack": (lambda gain: ni.Eye(gain, batch_axis=-1), (6, 5, 3)),
    "one": (lambda gain: ni.Eye(gain), (1, 5)),
    "Dirac": (lambda gain: ni.Dirac(), (8, 5, 3)),
    "Dirac last": (lambda gain: ni.Dirac(in_axis=-2, out_axis=-1), (3, 1, 4, 5)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LINES)
def test_a_line_of_values_is_put_by_a_kernel(name, dtype, monkeypatch):
    """NumPy makes the rows, and computes a value for each element; the bits are the same."""
    make, shape = LINES[name]
    kind = numpy_type(dtype)
    tiny = 1.3 * 2.0 ** (DTYPES[dtype].min_exponent - 1)
    for gain in (0.3, -(1 + 2.0**-8 + 2.0**-40), -0.0, tiny, NAN, INF):
        init = make(gain)
        with monkeypatch.context() as patch:
            if math.isfinite(gain):
                for road in ("_write", "_select"):
                    patch.setattr(by_index, road, None)
            whole = init(shape, kind)
            spread = np.zeros([2 * n for n in shape[::-1]], kind).T
            view = init.fill_(spread[tuple(slice(None, None, 2) for _ in shape)])
        rows = init.rows(shape, np.arange(shape[0]), kind)
        for got in (whole, view):
            np.testing.assert_array_equal(
                np.ascontiguousarray(got).view(np.uint8), rows.view(np.uint8)
            )
        spread[tuple(slice(None, None, 2) for _ in shape)] = 0
        assert not spread.any()


@every
@given(st.data())
def test_runs_of_elements(name, data):
    """As files are written."""
    init, shape = made(name)
    whole = init(shape, "float64")
    start = data.draw(st.integers(0, whole.size - 1))
    count = data.draw(st.integers(0, whole.size - start))
    out = np.full(count * 8, 7, np.uint8)
    init.fill_flat(out, start, shape, "float64", ni.Key(0))
    np.testing.assert_array_equal(out.view("f8"), whole.reshape(-1)[start : start + count])


@given(st.lists(st.integers(1, 5), min_size=0, max_size=4), st.data())
def test_runs_are_cut_intoboxes(shape, data):
    everything = np.arange(math.prod(shape)).reshape(shape)
    first = data.draw(st.integers(0, everything.size - 1))
    count = data.draw(st.integers(1, everything.size - first))
    found = []
    for begin, low, size in boxes(tuple(shape), first, count):
        assert begin == len(found)
        box = tuple(slice(a, a + n) for a, n in zip(low, size, strict=True))
        found += everything[box].reshape(-1).tolist()
    assert found == list(range(first, first + count))


@every
@pytest.mark.parametrize("dtype", DTYPES)
def test_types(name, dtype):
    init, shape = made(name)
    exact = init(shape, "float64")
    got = init(shape, numpy_type(dtype))
    assert got.dtype == numpy_type(dtype)
    if DTYPES[dtype].complex:
        assert (got.imag == 0).all()
        got = got.real
    expected = np.vectorize(lambda v: nearest(v, DTYPES[dtype]))(exact)
    np.testing.assert_array_equal(got.astype(np.float64), expected)


def test_complex_values():
    value = np.array([[1 + 2j, -3j], [0.1, 1e-3 + 1j]])
    for dtype in ("complex64", "complex128"):
        np.testing.assert_array_equal(
            ni.Assign(value)((2, 2), dtype), value.astype(dtype), strict=True
        )
        np.testing.assert_array_equal(
            ni.Assign(value).rows((2, 2), [1, 1, 0], dtype), value.astype(dtype)[[1, 1, 0]]
        )


LARGE = {
    "Eye": (ni.Eye(2.0), (1531, 1031), lambda i, j: 2.0 * (i == j)),
    "Bilinear": (ni.Bilinear(), (401, 101, 5, 5), None),
    "STFT": (ni.STFT(), (601, 1, 701), None),
    "Assign": (ni.Assign(np.arange(1531 * 1031).reshape(1531, 1031)), (1531, 1031),
               lambda i, j: i * 1031 + j),
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_many_chunks(name):
    init, shape, formula = LARGE[name]
    whole = init(shape)
    if formula:
        np.testing.assert_array_equal(whole, np.fromfunction(formula, shape))
    fortran = init.fill_(np.zeros(shape, np.float32, order="F"))
    np.testing.assert_array_equal(fortran, whole)
    ids = np.random.default_rng(0).integers(0, shape[0], 700)
    np.testing.assert_array_equal(init.rows(shape, ids), whole[ids])
    strided = init.fill_(np.zeros((*shape[:-1], shape[-1] * 2), np.float32)[..., ::-2])
    np.testing.assert_array_equal(strided, whole)


def test_windows_of_weights_beyond_any_memory():
    shape = (2**40, 2**20)
    np.testing.assert_array_equal(
        ni.Eye().block(shape, (slice(2**19, 2**19 + 3), slice(2**19 - 1, 2**19 + 5))),
        np.eye(3, 6, 1),
    )
    assert ni.Eye().block(shape, (-1, slice(0, 9))).max() == 0
    local = ni.Eye().fill_(np.zeros((4, 4), "f2"), shape=shape, offset=(2**20 - 4, 2**20 - 4))
    np.testing.assert_array_equal(local, np.eye(4))
    got = ni.Eye().rows((2**40, 7), [2**40 - 1, 3, -(2**40) + 5])
    np.testing.assert_array_equal(got, np.eye(7)[[0, 3, 5]] * [[0], [1], [1]])
    tall = ni.Dirac(2**19).block((2**40, 4, 3), (2**39 + 2**21 + 3, ..., 1))
    np.testing.assert_array_equal(tall, [0, 0, 0, 1])
    stft = ni.STFT(window=None).block((2**30, 1, 2**30 + 1), (2**30 - 1, 0, slice(2**30 - 1, None)))
    np.testing.assert_allclose(stft, [1, -1])


@pytest.mark.parametrize("name", [n for n in LARGE if n != "STFT"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_memory(name, order, dtype):
    init, shape, _ = LARGE[name]
    array = np.zeros(shape, numpy_type(dtype), order=order)
    tracemalloc.start()
    try:
        init.fill_(array)
        init.rows(shape, np.arange(9))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_seeds_are_of_no_concern():
    state = ni.Eye()((3, 4), seed=1)
    for seed in (None, 7, ni.Key(3), np.random.default_rng(0)):
        np.testing.assert_array_equal(ni.Eye()((3, 4), seed=seed), state)
    with pytest.raises(TypeError, match=r"^seed"):
        ni.Eye()((3, 4), seed="x")
    ni.manual_seed(5)
    ni.eye_(np.zeros((3, 3)))
    array = ni.normal_(np.zeros(4, np.float32))
    np.testing.assert_array_equal(array, ni.Normal()(4, seed=ni.Key(5).fold_in(0)))
    ni.manual_seed(0)


# torch.


def test_torch_tensors():
    torch = pytest.importorskip("torch")
    for dtype in DTYPES:
        tensor = torch.zeros(9, 14, dtype=getattr(torch, dtype))[:, ::2]
        assert ni.Eye(0.3).fill_(tensor) is tensor
        expected = ni.Eye(0.3)((9, 7), numpy_type(dtype))
        wide = tensor.to(torch.complex128).numpy()
        np.testing.assert_array_equal(wide, expected.astype(np.complex128))
    for name in EVERY:
        init, shape = made(name)
        parameter = torch.nn.Parameter(torch.zeros(shape))
        assert init.fill_(parameter) is parameter and parameter.is_leaf
        np.testing.assert_array_equal(parameter.detach().numpy(), init(shape))
        assert parameter._version == 1
        meta = torch.empty(shape, device="meta")
        assert init.fill_(meta) is meta
    with pytest.raises(ValueError, match="2 dimensions"):
        ni.eye_(torch.empty(3, device="meta"))


def test_bfloat16_needs_no_ml_dtypes(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    tensor = ni.Eye(0.3).fill_(torch.zeros(3, 4, dtype=torch.bfloat16))
    assert torch.equal(tensor, 0.3 * torch.eye(3, 4, dtype=torch.bfloat16))
    out = np.zeros(24, np.uint8)
    ni.Eye(0.3).fill_flat(out, 0, (3, 4), "bfloat16", ni.Key(0))
    assert out.tobytes() == tensor.view(torch.uint8).numpy().tobytes()


# What is refused.

SHAPES = [
    (ni.Eye(), [(), (3,), (2, 3, 4)], "2 dimensions"),
    (ni.Eye(batch_axis=0), [(3,), (3, 4), (2, 3, 4, 5)], "2 dimensions .*batch_axis 0"),
    (ni.Eye(batch_axis=(0, 3)), [(2, 3, 4)], "^batch_axis: axis 3 is out of range"),
    (ni.Dirac(), [(), (3,), (3, 4), (1,) * 6], "3, 4, or 5 dimensions"),
    (ni.Dirac(3), [(4, 3, 3)], "^dim 0 must be divisible by groups"),
    (ni.Dirac(2, in_axis=-2, out_axis=-1), [(3, 4, 5)], "^dim 2 must be divisible by groups"),
    (ni.Dirac(in_axis=-3), [(3, 4, 5)], "^in_axis, out_axis: both are axis 0"),
    (ni.Dirac(out_axis=4), [(3, 4, 5)], "^out_axis: axis 4 is out of range"),
    (ni.Bilinear(0, 0), [(3, 3, 3, 3)], "square kernels"),
    (ni.Bilinear(4), [(3, 3, 3, 3)], "in_axis"),
    (ni.Bilinear(), [(), (3, 3), (2, 3, 3), (2, 3, 4, 5), (2, 3, 4, 4, 4)], "square kernels"),
    (
        ni.STFT(),
        [(), (4, 3), (4, 2, 3), (4, 1, 1), (4, 1, 0), (4, 1, 3, 1)],
        "^shape: .*frequencies",
    ),
    (ni.STFT(), [(2, 1, 3)], "norm 0"),
    (ni.STFT(window=[1, 2, 3]), [(4, 1, 3)], "^window: 3 values were given for a frame of 4"),
    (ni.Assign([[1, 2]]), [(), (2,), (2, 1), (1, 2, 1)], r"^shape: .*\(1, 2\)"),
]


@pytest.mark.parametrize(("init", "shapes", "message"), SHAPES)
def test_shapes_that_have_no_such_values(init, shapes, message):
    for shape in shapes:
        array = np.full(shape, 7, np.float32)
        out = np.full(4 * min(1, array.size), 7, np.uint8)
        for method, arguments in (
            (init, (shape,)),
            (init.fill_, (array,)),
            (init.block, (shape, ...)),
            (init.fill_flat, (out, 0, shape, "float32", ni.Key(0))),
            (init.plan, (shape, DTYPES["float32"])),
        ):
            with pytest.raises(ValueError, match=message):
                method(*arguments)
        assert (array == 7).all() and (out == 7).all()


FIELDS = [
    (ni.Eye, {"gain": "2"}, TypeError, "gain"),
    (ni.Eye, {"gain": None}, TypeError, "gain"),
    (ni.Eye, {"batch_axis": 0.5}, TypeError, "batch_axis"),
    (ni.Dirac, {"groups": 0}, ValueError, "groups"),
    (ni.Dirac, {"groups": 1.0}, TypeError, "groups"),
    (ni.Dirac, {"in_axis": (0, 1)}, TypeError, "in_axis"),
    (ni.Dirac, {"out_axis": "0"}, TypeError, "out_axis"),
    (ni.STFT, {"side": "both"}, ValueError, "side"),
    (ni.STFT, {"scaling": "power"}, ValueError, "scaling"),
    (ni.STFT, {"periodic": 2}, TypeError, "periodic"),
    (ni.STFT, {"window": 3}, TypeError, "window"),
    (ni.STFT, {"window": ["a"]}, TypeError, "window"),
    (ni.STFT, {"window": [1, NAN]}, ValueError, "window"),
    (ni.Assign, {"value": "abc"}, TypeError, "value"),
    (ni.Assign, {"value": None}, TypeError, "value"),
    (ni.Assign, {"value": [[1, 2], [3]]}, ValueError, "value"),
    (ni.Assign, {"value": np.array(["2020"], "M8[D]")}, TypeError, "value"),
    (ni.Assign, {"value": [2**53 + 1]}, ValueError, "value"),
    (ni.Assign, {"value": np.array([-(2**63)])}, ValueError, "value"),
    (ni.Assign, {"value": [2**70]}, TypeError, "value"),
    (ni.Assign, {"value": np.ma.array([1.0, 2.0], mask=[0, 1])}, TypeError, "value"),
]


@pytest.mark.parametrize(("kind", "arguments", "error", "name"), FIELDS)
def test_bad_fields_are_named(kind, arguments, error, name):
    with pytest.raises(error, match=f"^{name}"):
        kind(**arguments)


def test_unknown_windows():
    pytest.importorskip("scipy.signal")
    for name in ("nope", "kaiser", ""):
        with pytest.raises(ValueError, match=r"^window: "):
            ni.STFT(window=name)


def test_what_a_type_cannot_hold():
    for init, shape, dtype in [
        (ni.Eye(7e4), (2, 2), "float16"),
        (ni.Eye(-500), (2, 2), "float8_e4m3fn"),
        (ni.Assign([1.0, -1e39]), (2,), "float32"),
        (ni.Assign([1.0, 1e39j]), (2,), "complex64"),
        (ni.STFT(window=[1e5, 1.0], scaling=None), (2, 1, 3), "float16"),
    ]:
        with pytest.raises(ValueError, match=f"^dtype: .*{dtype} holds numbers up to"):
            init.fill_flat(np.zeros(DTYPES[dtype].itemsize, np.uint8), 0, shape, dtype, ni.Key(0))
    for dtype in REAL:
        with pytest.raises(TypeError, match=f"^dtype: Assign has complex values; {dtype}"):
            ni.Assign([1j]).fill_flat(np.zeros(0, np.uint8), 0, (1,), dtype, ni.Key(0))
    assert np.isposinf(ni.Eye(INF)((2, 2), "float16")).sum() == 2


def test_arrays_that_are_refused():
    array = np.zeros((3, 3), np.float32)
    frozen = array.view()
    frozen.flags.writeable = False
    for bad in (frozen, np.lib.stride_tricks.as_strided(array, (3, 3), (0, 4))):
        with pytest.raises(ValueError, match=r"^array: "):
            ni.Eye().fill_(bad)
    with pytest.raises(TypeError, match=r"^dtype: "):
        ni.Eye().fill_(np.zeros((3, 3), int))
    assert (array == 0).all()


# Values as objects, in recipes and in files.

OBJECTS = [
    ("Eye(gain=1.0, batch_axis=())", lambda: ni.Eye()),
    ("Eye(gain=2.0, batch_axis=(0,))", lambda: ni.Eye(np.float32(2), [0])),
    ("Dirac(groups=2, in_axis=-2, out_axis=-1)", lambda: ni.Dirac(2, in_axis=-2, out_axis=-1)),
    ("Bilinear(in_axis=0, out_axis=1)", lambda: ni.Bilinear()),
    ("STFT(side='real', window='hann', scaling='density', periodic=False)", lambda: ni.STFT()),
    ("STFT(side='imag', window=(1.0, 2.0), scaling=None, periodic=True)",
     lambda: ni.STFT("imag", np.array([1, 2]), None, True)),
]  # fmt: skip


@pytest.mark.parametrize(("text", "make"), OBJECTS)
def test_objects_are_values(text, make):
    init = make()
    assert repr(init) == text
    for other in (
        make(),
        eval(text, vars(ni)),
        copy.deepcopy(init),
        pickle.loads(pickle.dumps(init)),
    ):
        assert type(other) is type(init) and other == init and hash(other) == hash(init)


RECIPE = """
[[rules]]
match = "eye"
init = "Eye"
gain = 0.5

[[rules]]
match = "stack"
init = "Identity"
batch_axis = [0]

[[rules]]
match = "conv"
init = "Dirac"
groups = 2

[[rules]]
match = "up"
init = "Bilinear"

[[rules]]
match = "stft"
init = "STFT"
side = "imag"
periodic = true

[[rules]]
match = "given"
init = "Assign"
value = [[1, 2.5], [-3, 4]]
"""
MODEL = {
    "eye": (700, 300), "stack": (3, 4, 5), "conv": (4, 2, 3, 3), "up": (3, 1, 4, 4),
    "stft": (64, 1, 33), "given": (2, 2),
}  # fmt: skip
INITS = {
    "eye": ni.Eye(0.5), "stack": ni.Eye(batch_axis=0), "conv": ni.Dirac(2), "up": ni.Bilinear(),
    "stft": ni.STFT("imag", periodic=True), "given": ni.Assign([[1, 2.5], [-3, 4]]),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e4m3fn", "complex64"])
def test_files(tmp_path, dtype, monkeypatch):
    path = tmp_path / "model.safetensors"
    recipe = recipes.parse(RECIPE)
    monkeypatch.setattr(writing, "WINDOW", 65536)  # tensors in pieces
    monkeypatch.setattr(verifying, "BUFFER", 40960)
    writing.write(path, MODEL, recipe, dtype=dtype)
    assert verifying.verify(path).tensors == len(MODEL)
    params = ni.init_params(MODEL, recipe, dtype=numpy_type(dtype))
    for name, array in params.items():
        expected = INITS[name](MODEL[name], numpy_type(dtype))
        np.testing.assert_array_equal(array.view(np.uint8), expected.view(np.uint8))
    data = path.read_bytes()
    at = data.rindex(np.ascontiguousarray(params["up"]).tobytes())
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(verifying.Mismatch, match=r"up.*\[0, 0, 0, 0\]"):
        verifying.verify(path)


def test_recipes_that_do_not_fit():
    def parse(body):
        return recipes.parse(f'layers = "h.*"\n[[rules]]\nmatch = "*"\n{body}')

    with pytest.raises(recipes.RecipeError, match=r"\(Eye\) does not fit tensor 'w'.*2 dimensions"):
        parse('init = "Eye"').plan({"w": (3,)})
    with pytest.raises(recipes.RecipeError, match="no spread to scale"):
        parse('init = "Eye"\ndepth_scaled = true')
    with pytest.raises(recipes.RecipeError, match="'groups': got True; accepted: a number"):
        parse('init = "Dirac"\ngroups = true')
    with pytest.raises(recipes.RecipeError, match=r"'periodic': got a table"):
        parse('init = "STFT"\nperiodic = {a = 1}')
    with pytest.raises(recipes.RecipeError, match=r"key 'init': .*accepted: .*Dirac"):
        parse('init = "Computed"')
    recipe = parse('init = "Eye"\ngain = 1e5')
    with pytest.raises(ValueError, match="tensor 'w': dtype: Eye has values up to 100000; float16"):
        writing.write("never.safetensors", {"w": (3, 3)}, recipe, dtype="float16")
