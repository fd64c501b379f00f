"""Side by side with torch.nn.init: signatures, exceptions, warnings, autograd, distributions."""

import gc
import inspect
import math
import os
import subprocess
import sys
import threading
import warnings
import weakref

import numpy as np
import pytest

import numinit as ni

torch = pytest.importorskip("torch")
theirs = torch.nn.init

NAN, INF = math.nan, math.inf
RANDOM = [
    "uniform_", "normal_", "xavier_uniform_", "xavier_normal_", "kaiming_uniform_",
    "kaiming_normal_", "trunc_normal_", "sparse_",
    "orthogonal_",
]  # fmt: skip
CONSTANT = ["constant_", "ones_", "zeros_"]
FIXED = [*CONSTANT, "eye_"]  # no draws, and a matrix will do
PATTERNS = ["eye_", "dirac_"]
XAVIER, KAIMING = RANDOM[2:4], RANDOM[4:6]
SCALED = XAVIER + KAIMING
DTYPES = {
    "float32": torch.float32, "float64": torch.float64,
    "float16": torch.float16, "bfloat16": torch.bfloat16,
}  # fmt: skip


def arguments(name):
    return (0.3,) if name in ("constant_", "sparse_") else ()


def call(module, name, tensor, *args, **kwargs):
    return getattr(module, name)(tensor, *(args or arguments(name)), **kwargs)


def values(tensor):
    """A copy of a tensor's or an array's values."""
    return np.array(tensor.numpy() if isinstance(tensor, torch.Tensor) else tensor)


def bits(tensor):
    """A tensor's values as integers, to compare to the bit."""
    tensor = tensor.detach().contiguous()
    return tensor.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.itemsize])


@pytest.mark.parametrize("name", [*RANDOM, *CONSTANT, *PATTERNS, "calculate_gain"])
def test_signatures(name):
    ours = inspect.signature(getattr(ni, name)).parameters
    expected = inspect.signature(getattr(theirs, name)).parameters
    mine = {n: p for n, p in ours.items() if p.kind is not p.KEYWORD_ONLY}
    assert [(p.name, p.kind, p.default) for p in mine.values()] == [
        (p.name, p.kind, p.default) for p in expected.values()
    ]
    assert list(mine) == list(expected)
    assert ours.keys() - mine.keys() == ({"seed"} if name in RANDOM else set())


# What happens for the same arguments: the exception's type and the warnings, or the same object.


def outcome(module, name, make, args, kwargs):
    tensor = make()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = getattr(module, name)(tensor, *args, **kwargs)
        except Exception as error:
            found = type(error)
        else:
            found = "the same object" if result is tensor else "another object"
    return found, [(w.category, str(w.message), w.filename) for w in caught]


def of(*shape, **kwargs):
    return lambda: torch.zeros(*shape, **kwargs)


MATRIX, HALF = of(3, 4), of(3, 4, dtype=torch.float16)
SHAPES = {
    "0-d": of(()), "1-d": of(3), "2-d": MATRIX, "3-d": of(3, 4, 2), "6-d": of(2, 3, 1, 2, 2, 2),
    "(0,)": of(0), "(0, 3)": of(0, 3), "(3, 0)": of(3, 0), "(3, 0, 2)": of(3, 0, 2),
    "meta": of(3, 4, device="meta"), "1-d meta": of(3, device="meta"),
    "parameter": lambda: torch.nn.Parameter(torch.zeros(3, 4)),
    "requires grad": of(3, 4, requires_grad=True),
    "view of a leaf": lambda: torch.zeros(3, 4, requires_grad=True)[1:],
    "transposed": lambda: torch.zeros(4, 3).T,
    "strided": lambda: torch.zeros(6, 9)[::2, ::3],
    "float64": of(3, 4, dtype=torch.float64), "float16": HALF,
    "bfloat16": of(3, 4, dtype=torch.bfloat16),
    "expanded, no elements": lambda: torch.zeros(0, 1).expand(0, 5),
}  # fmt: skip
CALLS = [
    (name, make, arguments(name), {})
    for name in RANDOM + CONSTANT + PATTERNS
    for make in SHAPES.values()
]
CALLS += [
    ("uniform_", make, bounds, {})
    for make, all_bounds in {
        MATRIX: [(1, 0), (NAN, 1), (0, NAN), (0, INF), (-INF, 0), (INF, INF), (-INF, INF), (1, 1),
                 ("a", 1), (0, "1"), (None, 1), (1j, 2), (0, 1e39), (-3e38, 3e38), (True, 2), (-1e-60, 0),
                 (np.float32(0), np.float64(1)), (torch.tensor(0.0), torch.tensor(1.0))],
        HALF: [(0, 1e5), (1e5, 1e6), (-7e4, 0), (-3e4, 3e4)],
        of(3, dtype=torch.bfloat16): [(0, 1e39), (-2e38, 3e38), (0, 3e38)],
        of(3, dtype=torch.float64): [(-1.7e308, 1.7e308), (0, 1e39)],
    }.items()
    for bounds in all_bounds
]  # fmt: skip
CALLS += [
    ("normal_", MATRIX, given, {})
    for given in [(0, -1), (0, NAN), (NAN, 1), (0, INF), (INF, 1), (0, 0), (0, -0.0),
                  ("x", 1), ("1", 1), (0, "1"), (None, 1), (0, None), (0, 1j), (1j, 1),
                  (0, -INF), (torch.tensor(0.0), torch.tensor(1.0))]
]  # fmt: skip
CALLS += [
    (name, MATRIX, (gain,), {})
    for name in XAVIER
    for gain in [2, 0, -1, -0.0, NAN, "1", None, 1j, torch.tensor(2.0), np.float32(2)]
]
CALLS += [("xavier_uniform_", MATRIX, (gain,), {}) for gain in (INF, 1e39, 1e200)]
CALLS += [
    (name, MATRIX, (), given)
    for name in KAIMING
    for given in [
        {"a": -1}, {"a": NAN}, {"a": INF}, {"a": "1"}, {"a": True}, {"a": 1j}, {"a": 1e100},
        {"a": np.float64(0.1)}, {"a": torch.tensor(1.0)}, {"a": 7, "nonlinearity": "tanh"},
        {"mode": "fan_out"}, {"mode": "FAN_IN"}, {"mode": "Fan_Out"}, {"mode": "fan"}, {"mode": ""},
        {"nonlinearity": "gelu2"}, {"nonlinearity": None}, {"nonlinearity": "RELU"},
        {"nonlinearity": ["relu"]}, {"nonlinearity": "selu"}, {"mode": "bad", "nonlinearity": "bad"},
    ]
]  # fmt: skip
CALLS += [
    (name, make, (), given)
    for name in KAIMING
    for make in (of(3), of(0, 3), of(3, 4, device="meta"))
    for given in ({"mode": "bad"}, {"nonlinearity": "bad"})
]
CALLS += [
    ("constant_", MATRIX, (value,), {})
    for value in [1, True, NAN, INF, -INF, -0.0, 1e38, None, "1", "x", torch.tensor(2.0), np.float32(3)]
]  # fmt: skip
CALLS += [("constant_", HALF, (65504,), {})]
CALLS += [("constant_", of(3, dtype=torch.complex64), (value,), {}) for value in (1, 1j, 2 - 3j)]
KERNEL = of(4, 2, 3)
CALLS += [
    ("dirac_", make, (), {})
    for make in (of(2, 3, 4), of(2, 3, 4, 5), of(4, 2, 3, 3, 3), of(0, 3, 2), of(3, 0, 2), of(0, 0, 0),
                 of(3, 4, 1, device="meta"), of(3, 4, 2, requires_grad=True), of(3, 4, 2, dtype=torch.complex64),
                 lambda: torch.zeros(3, 4, 3, requires_grad=True)[1:])
]  # fmt: skip
CALLS += [
    ("dirac_", KERNEL, (groups,), {})
    for groups in (2, 4, 3, 5, True, 2.0, "2", None, 1j, np.int64(2))
]
CALLS += [("dirac_", make, (3,), {}) for make in (of(3), of(3, 3), of(4, 4, 4, device="meta"))]
CALLS += [("eye_", of(3, 4, dtype=torch.complex64), (), {})]
CALLS += [
    ("trunc_normal_", MATRIX, given, {})
    for given in [(0, 0.02, -0.04, 0.04), (0, 1, -INF, INF), (0, 1, 2, 1), (0, 1, 1, 1), (9, 1, -2, 2),
                  (-4.1, 1, -2, 2), (-3.9, 1, -2, 2), ("x", 1), (0, "1"), (0, 1, None, 2), (0, 1, 0, 1j),
                  (0, 1, np.float64(-1.0), np.float32(1))]
]  # fmt: skip
CALLS += [("trunc_normal_", make, (0, 1, 0.25, 0.5), {}) for make in SHAPES.values()]
NARROW = SHAPES["float16"], SHAPES["bfloat16"]  # torch has no QR for them
CALLS = [call for call in CALLS if not (call[0] == "orthogonal_" and call[1] in NARROW)]
CALLS += [
    ("orthogonal_", MATRIX, (gain,), {})
    for gain in [2, 0, -1, NAN, INF, "1", None, torch.tensor(2.0), np.float32(2)]
]
CALLS += [
    ("sparse_", MATRIX, given, {})
    for given in [(0,), (1,), (0.1, 0), (0.5, -1), (NAN,), ("0.5",), (None,), (0.5, "1"), (1j,)]
]


def describe(entry):
    name, make, args, kwargs = entry
    tensor = make()
    on = f"{tuple(tensor.shape)} {tensor.dtype} {tensor.device}".replace("torch.", "")
    return f"{name} {on} {args or ''} {kwargs or ''}".strip()


@pytest.mark.parametrize("entry", CALLS, ids=describe)
def test_outcomes_are_torchs(entry):
    got, expected = outcome(ni, *entry), outcome(theirs, *entry)
    if (
        entry[0] == "trunc_normal_"
    ):  # torch's message says that the values may be wrong, from within
        got, expected = ((kind, [w[0] for w in caught]) for kind, caught in (got, expected))
    assert got == expected


# The one list of deliberate differences: what torch does, what numinit does.

SAME = "the same object"


def expanded():
    return torch.zeros(1, 4).expand(3, 4)


def overlapping():
    return torch.zeros(10).as_strided((3, 4), (1, 1))


def inference():
    with torch.inference_mode():
        return torch.zeros(3, 4)


DIFFERENCES = [
    # NotImplementedError is torch's "no kernel"; numinit's arguments are refused by TypeError.
    ("normal_", of(3, dtype=torch.int32), (), {}, NotImplementedError, TypeError),
    ("uniform_", of(3, dtype=torch.bool), (), {}, NotImplementedError, TypeError),
    ("normal_", lambda: torch.eye(3).to_sparse(), (), {}, NotImplementedError, TypeError),
    ("normal_", lambda: torch.zeros(2, 2).to_mkldnn(), (), {}, NotImplementedError, TypeError),
    # Floating-point types only, and no views that compute.
    ("zeros_", of(3, dtype=torch.int32), (), {}, SAME, TypeError),
    ("normal_", lambda: torch.zeros(3, dtype=torch.complex64).conj(), (), {}, SAME, TypeError),
    ("uniform_", lambda: torch.zeros(3, dtype=torch.complex64).conj().imag, (), {}, SAME, TypeError),
    # Truncation: what torch's rejection cannot do, and what has no meaning.
    ("trunc_normal_", MATRIX, (0, 1, 5, INF), {}, RuntimeError, SAME),
    ("trunc_normal_", MATRIX, (0, 0), {}, ZeroDivisionError, SAME),
    ("trunc_normal_", MATRIX, (0, -1), {}, SAME, RuntimeError),
    ("trunc_normal_", MATRIX, (0, NAN), {}, SAME, RuntimeError),
    ("trunc_normal_", MATRIX, (NAN, 1), {}, SAME, RuntimeError),
    ("sparse_", MATRIX, (1.5,), {}, SAME, ValueError),
    ("sparse_", MATRIX, (-0.5,), {}, SAME, ValueError),
    # Rounded from float32.
    ("orthogonal_", HALF, (), {}, NotImplementedError, SAME),
    ("orthogonal_", of(3, 4, dtype=torch.bfloat16), (), {}, NotImplementedError, SAME),
    # Elements that overlap: every element owns a value, so no fill could be right.
    ("normal_", expanded, (), {}, RuntimeError, ValueError),
    ("zeros_", expanded, (), {}, SAME, ValueError),
    ("normal_", overlapping, (), {}, SAME, ValueError),
    # Objects of no array type.
    ("normal_", lambda: [1.0], (), {}, AttributeError, TypeError),
    ("kaiming_normal_", lambda: None, (), {}, AttributeError, TypeError),
    # The same of patterns.
    ("eye_", lambda: [1.0], (), {}, AttributeError, TypeError),
    ("eye_", lambda: torch.eye(3).to_sparse(), (), {}, NotImplementedError, TypeError),
    ("eye_", of(3, 4, dtype=torch.int32), (), {}, SAME, TypeError),
    ("dirac_", of(3, 4, 1, dtype=torch.bool), (), {}, SAME, TypeError),
    ("eye_", expanded, (), {}, SAME, ValueError),
    ("dirac_", lambda: torch.zeros(1, 4, 1).expand(3, 4, 1), (), {}, SAME, ValueError),
    # Wider than torch.
    ("eye_", inference, (), {}, RuntimeError, SAME),
    ("dirac_", of(3, 3, 0), (), {}, IndexError, SAME),
    ("normal_", inference, (), {}, RuntimeError, SAME),
    ("normal_", MATRIX, (), {"generator": 3}, TypeError, SAME),
    ("kaiming_normal_", MATRIX, (), {"mode": "fan_avg"}, ValueError, SAME),
    ("kaiming_uniform_", MATRIX, (), {"mode": "fan_geo_avg"}, ValueError, SAME),
    ("kaiming_normal_", MATRIX, (np.float32(0.1),), {}, ValueError, SAME),
    ("xavier_normal_", of(0, 0), (), {}, ZeroDivisionError, SAME),
    ("xavier_uniform_", of(0, 0, 2), (), {}, ZeroDivisionError, SAME),
    ("uniform_", HALF, (-4e4, 4e4), {}, RuntimeError, SAME),  # its width is beyond 65504
    ("kaiming_normal_", MATRIX, (1e200,), {}, OverflowError, SAME),
    # Better errors. (torch fills with zeros for -1 groups, and never looks at a slope without use.)
    ("dirac_", KERNEL, (0,), {}, ZeroDivisionError, ValueError),
    ("dirac_", KERNEL, (-1,), {}, SAME, ValueError),
    ("dirac_", of(3), ("2",), {}, ValueError, TypeError),
    ("kaiming_normal_", MATRIX, ("x", "fan_in", "tanh"), {}, SAME, TypeError),
    ("kaiming_normal_", MATRIX, (), {"mode": None}, AttributeError, ValueError),
    ("constant_", MATRIX, (1j,), {}, RuntimeError, TypeError),
    ("constant_", MATRIX, (torch.ones(2),), {}, RuntimeError, TypeError),
]  # fmt: skip


@pytest.mark.parametrize(
    "entry", DIFFERENCES, ids=lambda entry: f"{entry[0]} {entry[2] or entry[3]}"
)
@pytest.mark.filterwarnings("ignore:Sparse")
def test_deliberate_differences(entry):
    *given, torchs, ours = entry
    assert outcome(theirs, *given)[0] == torchs, "torch has changed: look at the table again"
    assert outcome(ni, *given)[0] == ours


@pytest.mark.parametrize("name", RANDOM + FIXED)
def test_a_refused_tensor_is_untouched(name):
    base = torch.full((4,), 7.0)
    for tensor in (base.expand(3, 4), base.as_strided((3, 2), (1, 1))):
        version = tensor._version
        with pytest.raises(ValueError, match=r"^tensor: .*overlap"):
            call(ni, name, tensor)
        assert tensor._version == version
    integers = torch.full((3, 4), 7)
    with pytest.raises(TypeError, match=r"^tensor: dtype torch.int64 .*float32"):
        call(ni, name, integers)
    assert (base == 7).all() and (integers == 7).all()


def test_numpy_arrays_have_the_same_outcomes():
    """Shapes and arguments are judged alike, whatever holds the values."""
    for name, make, args, kwargs in CALLS:
        tensor = make()
        if tensor.dtype is torch.bfloat16 or tensor.is_meta or tensor.requires_grad:
            continue
        array = tensor.numpy()
        got = outcome(ni, name, lambda array=array: array, args, kwargs)
        if name == "trunc_normal_" and got[1]:
            continue
        assert got == outcome(ni, name, make, args, kwargs), describe((name, make, args, kwargs))


@pytest.mark.parametrize("name", KAIMING)
@pytest.mark.parametrize("make", [torch.zeros, np.zeros])
def test_the_warning_points_at_the_caller(name, make):
    with pytest.warns(
        UserWarning, match="^Initializing zero-element tensors is a no-op$"
    ) as caught:
        getattr(ni, name)(make((0, 3)))
    assert [w.filename for w in caught] == [__file__]


# Values.

TENSOR_SHAPES = [(), (1,), (7,), (3, 5), (0, 5), (4, 0), (3, 4, 5), (2, 3, 4, 5), (2, 1, 3, 2, 4), (2, 1, 3, 2, 2, 3), (700, 301)]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", RANDOM + CONSTANT)
@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_tensors_hold_the_values_of_arrays(name, dtype):
    kind = pytest.importorskip("ml_dtypes").bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    seeded = {"seed": ni.Key(3, 4)} if name in RANDOM else {}
    for shape in TENSOR_SHAPES:
        if (len(shape) < 2 and name in [*SCALED, "orthogonal_"]) or (
            len(shape) != 2 and name == "sparse_"
        ):
            continue
        tensor = torch.full(shape, 7, dtype=DTYPES[dtype])
        array = np.full(shape, 7, kind)
        assert call(ni, name, tensor, **seeded) is tensor
        assert call(ni, name, array, **seeded) is array
        expected = torch.from_numpy(array.view(f"i{array.itemsize}")) if shape else None
        if shape:
            assert torch.equal(bits(tensor), expected)
        else:
            assert tensor.item() == float(array)


VIEWS = {
    "transposed": lambda d: torch.zeros(30, 20, dtype=d).T,
    "strided": lambda d: torch.zeros(60, 90, dtype=d)[::3, ::3],
    "permuted": lambda d: torch.zeros(5, 30, 4, dtype=d).permute(2, 0, 1).reshape(20, 30),
    "offset": lambda d: torch.zeros(25, 33, dtype=d)[5:, 3:],
    "channels last": lambda d: torch.zeros(20, 3, 2, 5, dtype=d).to(
        memory_format=torch.channels_last),
    "column": lambda d: torch.zeros(600, 3, dtype=d)[:, 1].view(20, 30),
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("view", VIEWS)
def test_views_are_filled_by_logical_index(view, dtype):
    tensor = VIEWS[view](DTYPES[dtype])
    whole = tensor._base if tensor._base is not None else tensor
    plain = torch.empty(tensor.shape, dtype=DTYPES[dtype])
    assert ni.normal_(tensor, seed=5) is tensor
    assert torch.equal(bits(tensor), bits(ni.normal_(plain, seed=5)))
    assert (plain != 0).all()
    assert torch.count_nonzero(whole) == tensor.numel()  # nothing between the elements


def test_windows_of_tensors():
    whole = ni.Normal()((40, 50), seed=5)
    part = ni.Normal().fill_(torch.zeros(7, 9), shape=(40, 50), offset=(3, 20), seed=5)
    np.testing.assert_array_equal(part.numpy(), whole[3:10, 20:29])
    part = ni.Normal().fill_(
        torch.zeros(9, 7).T, shape=torch.Size([40, 50]), offset=(3, 20), seed=5
    )
    np.testing.assert_array_equal(part.numpy(), whole[3:10, 20:29])


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_dtypes_are_dtypes(dtype):
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    assert ni.Normal()((3,), DTYPES[dtype], seed=0).dtype.name == dtype
    with pytest.raises(TypeError, match=r"^dtype: torch.int8"):
        ni.Normal()((3,), torch.int8, seed=0)


def test_a_parameter_tensor_is_read_at_every_call():
    """Nothing may be remembered of a mutable argument."""
    std, out = torch.tensor(1.0), torch.zeros(1000)
    first = ni.normal_(out, std=std, seed=0).clone()
    std.fill_(4.0)
    assert torch.equal(ni.normal_(out, std=std, seed=0), first * 4)
    assert torch.equal(ni.constant_(out, std), torch.full((1000,), 4.0))
    std.fill_(5.0)
    assert torch.equal(ni.constant_(out, std), torch.full((1000,), 5.0))
    reference = weakref.ref(std)
    del std
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("val", [1j, 2 - 3j, np.complex64(1j)])
def test_complex_constants(val):
    found, expected = (torch.zeros(3, dtype=torch.complex64) for _ in range(2))
    assert torch.equal(ni.constant_(found, val), theirs.constant_(expected, complex(val)))
    with pytest.raises(TypeError, match=r"^val: .* for float32; a real number is accepted"):
        ni.constant_(torch.zeros(3), val)


def test_a_tensor_that_is_no_number_is_named():
    for std in (torch.empty((), device="meta"), torch.tensor(1j), torch.ones(2)):
        with pytest.raises(TypeError, match=r"^std: tensor\("):
            ni.normal_(torch.zeros(3), std=std)


# The same distributions as torch's.

LAYERS = {
    "uniform_": [{}, {"a": -3.0, "b": 0.5}],
    "normal_": [{}, {"mean": 2.0, "std": 0.02}],
    "xavier_uniform_": [{}, {"gain": 5 / 3}],
    "xavier_normal_": [{}, {"gain": 5 / 3}],
    "kaiming_uniform_": [{}, {"a": math.sqrt(5)}, {"mode": "fan_out", "nonlinearity": "relu"}],
    "kaiming_normal_": [{}, {"a": 0.2}, {"mode": "fan_out", "nonlinearity": "tanh"}],
}
MATRICES = {
    "trunc_normal_": [{}, {"std": 0.02, "a": -0.03, "b": 0.05}, {"a": 1.0, "b": 2.5}],
    "sparse_": [{"sparsity": 0.1}, {"sparsity": 0.9, "std": 2.0}],
    "orthogonal_": [{}, {"gain": 1.5}],
}
DRAWS = [(name, kwargs) for name, several in LAYERS.items() for kwargs in several]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("name", "kwargs"), [(name, kwargs) for name, several in MATRICES.items() for kwargs in several]
)
def test_distributions_of_matrices_are_torchs(name, kwargs, dtype):
    """The same test on what is no zero, of which there are as many: false alarm 1.4e-8 in all."""
    stats = pytest.importorskip("scipy.stats")
    torch.manual_seed(11)  # torch's zeros come from the global generator
    expected, got = torch.empty(900, 300, dtype=DTYPES[dtype]), torch.empty(900, 300, dtype=DTYPES[dtype])  # fmt: skip
    getattr(theirs, name)(expected, **kwargs)
    getattr(ni, name)(got, seed=11, **kwargs)
    assert torch.equal((got == 0).sum(0), (expected == 0).sum(0))
    expected, got = (t[t != 0].numpy().astype(np.float64) for t in (expected, got))
    assert stats.ks_2samp(got, expected, method="asymp").pvalue > 1e-9


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "kwargs"), DRAWS)
def test_distributions_are_torchs(name, kwargs, dtype):
    """Two-sample Kolmogorov-Smirnov: 28 tests, each with a false alarm of 1e-9."""
    stats = pytest.importorskip("scipy.stats")
    shape = (180, 50, 3, 3)
    generator = torch.Generator().manual_seed(11)
    expected = getattr(theirs, name)(
        torch.empty(shape, dtype=DTYPES[dtype]), generator=generator, **kwargs
    )
    got = getattr(ni, name)(torch.empty(shape, dtype=DTYPES[dtype]), seed=11, **kwargs)
    expected, got = (t.numpy().ravel().astype(np.float64) for t in (expected, got))
    assert stats.ks_2samp(got, expected, method="asymp").pvalue > 1e-9
    n = got.size
    # The ratio of the standard deviations: its own is below 1 / sqrt(n) for both laws; 6.2 of them.
    assert abs(math.log(got.std() / expected.std())) < 6.2 / math.sqrt(n)
    if "uniform" in name:
        # 30 / n from each end: a value is nearer than that with probability 1 - e**-30.
        low, high = -math.inf, math.inf
        if name == "uniform_":
            low, high = kwargs.get("a", 0.0), kwargs.get("b", 1.0)
        else:
            high = max(got.max(), expected.max(), -got.min(), -expected.min())
            low = -high
        near = (high - low) * 30 / n
        assert low <= got.min() < low + near and high - near < got.max() <= high


# Seeds.


@pytest.fixture
def global_generator():
    """torch's global generator, put back as it was; and numinit's, which must not matter."""
    with torch.random.fork_rng(devices=[]):
        yield torch.default_generator
    ni.manual_seed(0)


def test_torch_manual_seed_governs_tensors_without_a_seed(global_generator):
    def draw():
        return [call(ni, name, torch.empty(4, 5)).clone() for name in RANDOM]

    torch.manual_seed(3)
    first, again = draw(), draw()
    for a, b in zip(first, again, strict=True):
        assert (a != b).any()  # it advances
    ni.manual_seed(99)  # of no concern
    torch.manual_seed(3)
    for a, b in zip(first, draw(), strict=True):
        assert torch.equal(a, b)
    torch.manual_seed(4)
    assert not torch.equal(first[1], draw()[1])
    torch.manual_seed(3)
    torch.rand(1)  # others use it too
    assert not torch.equal(first[0], call(ni, "uniform_", torch.empty(4, 5)))


def test_numpy_arrays_without_a_seed_leave_torch_alone(global_generator):
    state = global_generator.get_state()
    ni.manual_seed(5)
    array = ni.normal_(np.zeros(4, np.float32))
    np.testing.assert_array_equal(array, ni.Normal()((4,), seed=ni.Key(5).fold_in(0)))
    assert torch.equal(global_generator.get_state(), state)


def test_what_needs_no_draw_does_not_advance_torch(global_generator):
    state = global_generator.get_state()
    tensor = torch.zeros(3, 4)
    for name in FIXED:
        call(ni, name, tensor)
    ni.normal_(tensor, seed=1)
    ni.normal_(tensor, generator=torch.Generator().manual_seed(1))
    ni.normal_(tensor, generator=ni.Generator(1))
    ni.normal_(torch.zeros(3, device="meta"))
    ni.normal_(torch.zeros(0, 3))
    for bad in (lambda: ni.normal_(expanded()), lambda: ni.xavier_normal_(torch.zeros(3))):
        with pytest.raises(ValueError):  # noqa: PT011
            bad()
    assert torch.equal(global_generator.get_state(), state)


@pytest.mark.parametrize("word", ["generator", "seed"])
@pytest.mark.parametrize("make", [lambda: torch.empty(6, 5), lambda: np.empty((6, 5), np.float32)])
def test_a_torch_generator(word, make):
    one, two = (torch.Generator().manual_seed(3) for _ in range(2))
    for name in RANDOM:
        a, b = (values(call(ni, name, make(), **{word: g})) for g in (one, two))
        np.testing.assert_array_equal(a, b)
        assert (a != values(call(ni, name, make(), **{word: one}))).any()  # it advances
        call(ni, name, make(), **{word: two})
    assert torch.equal(one.get_state(), two.get_state())
    if word == "generator":  # torch's place of the argument
        first, second = (values(ni.normal_(make(), 0.0, 1.0, g)) for g in (one, two))
        np.testing.assert_array_equal(first, second)


def test_one_seed_only():
    for name in RANDOM:
        tensor = torch.full((3, 4), 7.0)
        with pytest.raises(TypeError, match=r"^generator, seed: both"):
            call(ni, name, tensor, generator=torch.Generator(), seed=1)
        assert (tensor == 7).all()


def test_threads_draw_different_keys(global_generator):
    torch.manual_seed(1)
    tensors = [torch.zeros(200, 4) for _ in range(6)]
    threads = [threading.Thread(target=lambda t=t: [ni.normal_(row) for row in t]) for t in tensors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = torch.cat(tensors)
    assert len(torch.unique(rows, dim=0)) == len(rows)


# Autograd.


@pytest.mark.parametrize("name", RANDOM + FIXED)
def test_autograd_sees_the_write(name):
    """The version counters move as torch's do, and a backward pass over old values is refused."""
    for module in (theirs, ni):
        weight = torch.ones(3, 4, requires_grad=True)
        other = torch.ones(3, 4, requires_grad=True)
        product = (weight * other).sum()
        version = weight._version
        assert call(module, name, weight) is weight
        assert weight._version > version
        assert weight.requires_grad and weight.is_leaf and weight.grad_fn is None
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            product.backward()
        fresh = (weight * other).sum()
        fresh.backward()
        assert torch.equal(other.grad, weight.detach())


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is:DeprecationWarning")  # by make_dual
@pytest.mark.parametrize("name", RANDOM + FIXED)
def test_a_tangent_becomes_zero(name):
    forward_ad = torch.autograd.forward_ad
    with forward_ad.dual_level():
        for module in (ni,) if name == "eye_" else (theirs, ni):  # torch cannot
            dual = forward_ad.make_dual(torch.ones(3, 4), torch.ones(3, 4))
            call(module, name, dual)
            tangent = forward_ad.unpack_dual(dual).tangent
            assert tangent is None or not tangent.any()


COMPILED = """
import sys, warnings
import torch
import numinit as ni

def function(x):
    return ni.normal_(x * 1, generator=3) + 1

def method(x):
    return ni.KaimingNormal().fill_(x * 1, seed=4) + 1

if sys.argv[1] == "used before":
    ni.normal_(torch.zeros(3), generator=0)
for call in function, method:
    for shape in (4, 4), (4, 5):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Dynamo, about caches that it looks into
            made = torch.compile(call, backend="eager")(torch.zeros(shape))
        assert torch.equal(made, call(torch.zeros(shape)))
"""


@pytest.mark.parametrize("how", ["used before", "new"])
def test_a_compiled_function_may_fill(how, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", COMPILED, how],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},  # the kernel is compiled meanwhile
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", RANDOM + FIXED)
def test_versions_are_shared_with_views(name):
    for module in (theirs, ni):
        base = torch.ones(4, 4)
        view = base[1:]
        call(module, name, view)
        first = base._version
        assert first == view._version and (first == 1 or module is theirs)  # torch writes in parts
        call(module, name, base)
        assert base._version == view._version > first


def test_gradients_pass_a_view_of_a_leaf():
    weight = torch.ones(3, 4, requires_grad=True)
    view = weight[1:]
    assert ni.normal_(view, seed=1) is view
    assert torch.equal(weight.detach()[1:], ni.normal_(torch.empty(2, 4), seed=1))
    assert (weight[0] == 1).all()


def test_modules():
    layer = torch.nn.Linear(5, 7)
    weight, bias = layer.weight, layer.bias
    assert ni.kaiming_uniform_(layer.weight, a=math.sqrt(5), seed=1) is weight
    assert ni.zeros_(layer.bias) is bias
    assert isinstance(layer.weight, torch.nn.Parameter) and layer.weight.requires_grad
    layer(torch.ones(2, 5)).sum().backward()
    assert weight.grad is not None and bias.grad is not None


# Tensors that are not plain.


def test_meta_tensors_are_left_alone():
    for name in RANDOM + FIXED:
        for dtype in DTYPES.values():
            tensor = torch.empty(3, 4, device="meta", dtype=dtype)
            assert call(ni, name, tensor) is tensor
    with torch.device("meta"):  # of new tensors, of no concern to this one
        tensor = ni.normal_(torch.zeros(100, device="cpu"))
    assert tensor.device.type == "cpu" and (tensor != 0).all()


def test_inference_mode():
    with torch.inference_mode():
        made = torch.zeros(3, 4)
        for name in RANDOM + FIXED:
            assert call(ni, name, made) is made
        ni.normal_(made, seed=3)
    assert made.is_inference()
    plain = torch.zeros(3, 4)
    assert torch.equal(made, ni.normal_(plain, seed=3))
    ni.uniform_(made, seed=4)  # outside of the mode
    assert torch.equal(made, ni.uniform_(plain, seed=4))
    assert plain._version == 2
    with torch.inference_mode():
        ni.normal_(plain[1:], seed=3)  # a plain tensor keeps its counter in the mode
    assert plain._version == 3


def test_fake_tensors_are_refused():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        fake = torch.empty(3, 4)
        for name in RANDOM + FIXED:
            with pytest.raises(TypeError, match=r"^tensor: a FakeTensor has no memory"):
                call(ni, name, fake)


def test_subclasses_without_a_dispatch_of_their_own_are_filled():
    class Weight(torch.Tensor):
        pass

    weight = torch.zeros(3, 4).as_subclass(Weight)
    assert ni.normal_(weight, seed=3) is weight and type(weight) is Weight
    assert (weight.as_subclass(torch.Tensor) == ni.normal_(torch.zeros(3, 4), seed=3)).all()


def test_copies_on_write_are_copied():
    source = torch.zeros(3, 4)
    lazy = torch._lazy_clone(source)
    ni.ones_(lazy)
    assert (source == 0).all() and (lazy == 1).all()


WITHOUT_MEMORY = {
    "a lazy zero": "ni.normal_(torch._efficientzerotensor((3, 4)))",
    "freed storage": "t = torch.zeros(3, 4); t.untyped_storage().resize_(0); ni.normal_(t)",
    "functionalized": "torch.func.functionalize(ni.normal_)(torch.zeros(3, 4))",
    "vmapped": "torch.func.vmap(ni.normal_, randomness='different')(torch.zeros(3, 4))",
    "nested": "ni.normal_(torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]))",
}


def test_tensors_without_memory_are_refused():
    """In a process of its own: a write to nowhere would end this one."""
    script = ["import torch, warnings", "import numinit as ni", "warnings.simplefilter('ignore')"]
    for name, code in WITHOUT_MEMORY.items():
        body = [f"    {line}" for line in code.split("; ")]
        script += ["try:", *body, "except (TypeError, RuntimeError):",
                   f"    print({name!r}, flush=True)"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(script)], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == list(WITHOUT_MEMORY), done.stderr
    assert done.returncode == 0


def test_tensors_of_transforms_are_named():
    for transform in (torch.func.vmap, torch.func.functionalize):
        with pytest.raises(TypeError, match=r"^tensor: .*torch\.func"):
            transform(lambda tensor: ni.ones_(tensor))(torch.zeros(2, 3))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_refused():
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    with pytest.raises(TypeError, match=r"^tensor: it is nested"):
        ni.normal_(nested)


def test_bfloat16_tensors_need_no_ml_dtypes(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    tensor = ni.normal_(torch.zeros(5, dtype=torch.bfloat16), seed=3)
    expected = ni.normal_(torch.zeros(5), seed=3).to(torch.bfloat16)
    assert torch.equal(bits(tensor), bits(expected))


@pytest.mark.parametrize(
    "mode",
    [
        "torch.inference_mode()",
        "torch._subclasses.FakeTensorMode()",
        "torch.device('meta')",
    ],
)
def test_a_first_draw_in_some_mode_does_no_harm_later(mode):
    """In a thread of its own, which has drawn nothing before."""
    failures = []

    def work():
        try:
            tensor = torch.zeros(4)
            with eval(mode):
                try:
                    ni.normal_(tensor)
                except Exception as error:
                    assert "Fake" in mode, error
            ni.normal_(tensor)
            assert tensor.all()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures


def test_what_is_no_tensor_is_named():
    for thing in (torch.nn.Linear(2, 3), torch.Size([2, 3]), torch.float32):
        with pytest.raises(TypeError, match="a NumPy array or a torch tensor is accepted"):
            ni.normal_(thing)
        with pytest.raises(TypeError, match="a NumPy array or a torch tensor is accepted"):
            ni.kaiming_normal_(thing)


@pytest.mark.parametrize("name", KAIMING)
def test_what_equals_a_slope_is_none(name):
    """True == 1 and False == 0, which were given before."""
    for slope in (1, 0, True, False):
        tensor = torch.zeros(3, 4)
        if isinstance(slope, bool):
            with pytest.raises(ValueError, match=r"^a: .* not a valid number"):
                getattr(ni, name)(tensor, a=slope)
        else:
            getattr(ni, name)(tensor, a=slope)


# Programs written for torch.nn.init.


def test_every_name_of_torchs_module():
    functions = {
        name
        for name, thing in vars(theirs).items()
        if inspect.isfunction(thing) and thing.__module__ == theirs.__name__
    }
    private = {name for name in functions if name.startswith(("_make", "_no_grad"))}
    deprecated = {name for name in functions if f"{name}_" in functions}
    missing = [
        name for name in functions - private - deprecated if not callable(getattr(ni, name, None))
    ]
    assert not missing


def test_unknown_names():
    with pytest.raises(AttributeError, match=r"numinit.*'gaussian'"):
        _ = ni.gaussian


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5), (2, 3, 4, 5, 6), (3,), ()])
def test_the_private_fans_that_programs_use(shape):
    tensor = torch.zeros(shape)
    for name, arguments in [
        ("_calculate_fan_in_and_fan_out", ()), ("_calculate_correct_fan", ("fan_in",)),
        ("_calculate_correct_fan", ("FAN_OUT",)), ("_calculate_correct_fan", ("fan_avg",)),
    ]:  # fmt: skip
        results = []
        for module in (theirs, ni):
            try:
                results.append(getattr(module, name)(tensor, *arguments))
            except ValueError as error:
                results.append(type(error))
        assert results[0] == results[1]


def test_a_program_for_torch():
    """The reset_parameters of torch's own layers, with the module's name changed."""
    import numinit as init

    layer = torch.nn.Linear(50, 20)
    init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
    fan_in, _ = init._calculate_fan_in_and_fan_out(layer.weight)
    bound = 1 / math.sqrt(fan_in) if fan_in > 0 else 0
    init.uniform_(layer.bias, -bound, bound)
    assert abs(layer.weight).max() <= bound and abs(layer.bias).max() <= bound
    attention = torch.nn.MultiheadAttention(16, 4)
    init.xavier_uniform_(attention.in_proj_weight)
    init.constant_(attention.out_proj.bias, 0.0)
    init.trunc_normal_(layer.weight, std=0.02)
    init.orthogonal_(layer.weight, gain=init.calculate_gain("relu"))
    layer(torch.ones(3, 50)).sum().backward()
    assert layer.weight.grad is not None
