"""Weights made of others: parts, groups of equal channels, norms; padding of several rows."""

import math
import sys

import numpy as np
import pytest
from helpers import law_of

import numinit as ni
from numinit.engines import joined as engine
from numinit.initializers.parts import NormOf
from numinit.stream.dtypes import as_dtype

KEY = ni.Key(3)


def joined(parts, shape, axis, dtype):
    """Each part by itself, side by side."""
    made = []
    for number, (size, init) in enumerate(parts):
        own = (*shape[:axis], size, *shape[axis + 1 :])
        made.append(init(own, dtype, seed=KEY.fold_in(number)))
    return np.concatenate(made, axis)


def ask_every_way(init, shape, dtype, whole):
    index = tuple(slice(n // 4, n - n // 4) for n in shape)
    np.testing.assert_array_equal(init.block(shape, index, dtype, seed=KEY), whole[index])
    index = (shape[0] - 1, *index[1:])
    np.testing.assert_array_equal(init.block(shape, index, dtype, seed=KEY), whole[index])
    ids = [shape[0] - 1, 0, 1, 1]
    np.testing.assert_array_equal(init.rows(shape, ids, dtype, seed=KEY), whole[ids])
    size = whole.dtype.itemsize
    out, flat = np.empty(23 * size, np.uint8), whole.reshape(-1)
    for begin in (0, 11, flat.size - 23):
        init.fill_flat(out, begin, shape, dtype, KEY)
        np.testing.assert_array_equal(out.view(whole.dtype), flat[begin : begin + 23])
    if hasattr(np, dtype):
        turned = np.empty(shape[::-1], whole.dtype).T
        np.testing.assert_array_equal(init.fill_(turned, seed=KEY), whole)
        every = np.empty((*shape, 2), whole.dtype)[..., 0]
        np.testing.assert_array_equal(init.fill_(every, seed=KEY), whole)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_parts(axis, dtype):
    parts = [
        (4, ni.XavierUniform()), (2, ni.Normal(1, 2)), (3, ni.FromIndex("i + j / 4 + n")),
        (1, ni.Zeros()), (2, ni.Padded(ni.Uniform(), 0)), (2, ni.Parts([(None, ni.Ones())], 1)),
    ]  # fmt: skip
    shape = tuple(14 if a == axis else 5 for a in range(3))
    init = ni.Parts(parts, axis - 3 if axis == 2 else axis)
    if dtype != "float32":
        pytest.importorskip("ml_dtypes")
    whole = init(shape, dtype, seed=KEY)
    np.testing.assert_array_equal(whole, joined(parts, shape, axis, dtype))
    ask_every_way(init, shape, dtype, whole)


def test_a_fill_amid_another_of_the_same_weight(monkeypatch):
    """A thread or a handler may drop the prepared fills at any line, with one about to be called."""
    monkeypatch.setattr(engine, "KEPT", 1)
    init, shape = ni.Parts([(2, ni.Normal()), (3, ni.Uniform())], 1), (8, 5)
    whole = init(shape, seed=KEY).reshape(-1)

    def fill(begin):
        out = np.empty(4 * 13, np.uint8)
        init.fill_flat(out, begin, shape, "float32", KEY)
        np.testing.assert_array_equal(out.view(np.float32), whole[begin : begin + 13])

    def at_every_line(frame, event, argument):
        if frame.f_code.co_name == "ready":
            fill(7)
            return at_every_line
        return None

    before = sys.gettrace()
    for _ in range(2):
        sys.settrace(at_every_line)
        try:
            fill(3)
        finally:
            sys.settrace(before)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_parts_that_are_made_whole(dtype):
    pytest.importorskip("ml_dtypes")
    parts = [(4, ni.Orthogonal()), (4, ni.Orthogonal(gain=2.0)), (2, ni.Uniform(-1, 1))]
    init = ni.Parts(parts)
    np.testing.assert_array_equal(init((10, 6), dtype, seed=KEY), joined(parts, (10, 6), 0, dtype))
    plan = init.plan((10, 6), as_dtype(dtype))
    assert plan.varies(0, 60).tolist() == [True] * 48 + [False] * 12
    assert plan.tolerance(as_dtype("float32")) == 2e-6
    block = init.block((10, 6), np.s_[3:9], dtype, seed=KEY)  # cut out of the whole
    np.testing.assert_array_equal(block, init((10, 6), dtype, seed=KEY)[3:9])


def test_sizes_that_are_left_out():
    init = ni.Parts([(None, ni.Ones()), (2, ni.Zeros()), (None, ni.Constant(2))])
    assert init(8).tolist() == [1, 1, 1, 0, 0, 2, 2, 2]
    gates = ni.Parts([(None, ni.XavierUniform())] * 4)
    shape, bound = (16, 4), math.sqrt(6 / 8)
    made = gates(shape, seed=0)
    assert (abs(made) <= bound).all()
    assert abs(made).max() > 0.9 * bound


def test_a_scaled_part():
    scaled = ni.DepthScaled(ni.Parts([(3, ni.Normal()), (1, ni.Zeros())]), 8)
    plain = ni.Parts([(3, ni.Normal(std=0.25)), (1, ni.Zeros())])
    np.testing.assert_array_equal(scaled((4, 5), seed=KEY), plain((4, 5), seed=KEY))
    whole = ni.DepthScaled(ni.Parts([(3, ni.Orthogonal()), (1, ni.Normal())]), 8)
    parts = [(3, ni.Orthogonal(gain=0.25)), (1, ni.Normal(std=0.25))]
    np.testing.assert_array_equal(whole((4, 5), seed=KEY), joined(parts, (4, 5), 0, "float32"))
    with pytest.raises(ValueError, match="Ones has no spread"):
        ni.DepthScaled(ni.Parts([(None, ni.Normal()), (1, ni.Ones())]), 8)((4, 5))


def test_sizes_may_be_numpys_integers():
    init = ni.Parts([(np.int64(1), ni.Ones()), (None, ni.Zeros())])
    assert init == ni.Parts([(1, ni.Ones()), (None, ni.Zeros())])
    assert init((3,)).tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("parts", "axis", "shape", "error", "message"),
    [
        ([], 0, (3,), ValueError, "parts: 0 were given; 1 to 1024"),
        ([(1, ni.Ones())] * 10_000, 0, (3,), ValueError, "parts: 10000 were given"),
        ([ni.Ones()], 0, (3,), TypeError, "pairs of a size and an initializer"),
        (3, 0, (3,), TypeError, "pairs of a size and an initializer"),
        ([(1, "Ones")], 0, (3,), TypeError, "part 0: 'Ones' is no initializer"),
        ([(1.0, ni.Ones())], 0, (3,), TypeError, "part 0: 1.0 is no size"),
        ([(True, ni.Ones())], 0, (3,), TypeError, "part 0: True is no size"),
        ([(0, ni.Ones())], 0, (3,), ValueError, "part 0 has size 0; at least 1"),
        ([(2, ni.Ones())], 1.5, (2,), TypeError, "axis: 1.5"),
        ([(2, ni.Ones())], 1, (2,), ValueError, "axis: 1 was given"),
        ([(2, ni.Ones())], 0, (), ValueError, "axis: 0 was given"),
        ([(2, ni.Ones())], 0, (3,), ValueError, "the sizes are 2 together; axis 0 .* has size 3"),
        ([(2, ni.Ones()), (None, ni.Ones())], 0, (2,), ValueError, "leave 0 for 1 others"),
        ([(None, ni.Ones())] * 2, 0, (3,), ValueError, "leave 3 for 2 others"),
        ([(2, ni.KaimingNormal())], 0, (2,), ValueError, r"part 0 of shape \(2,\): Fan in"),
        ([(2, ni.Normal(std=1e300))], 0, (2,), ValueError, "std: 1e"),
    ],
)
def test_what_parts_refuse(parts, axis, shape, error, message):
    with pytest.raises(error, match=message):
        ni.Parts(parts, axis)(shape, seed=0)


@pytest.mark.parametrize("axis", [0, 1])
def test_icnr(axis):
    shape, small = [5, 5, 3], [5, 5, 3]
    shape[axis], small[axis] = 18, 2
    init = ni.ICNR(ni.KaimingNormal(), scale=3, axis=axis)
    whole = init(shape, seed=KEY)
    np.testing.assert_array_equal(whole, ni.KaimingNormal()(small, seed=KEY).repeat(9, axis))
    ask_every_way(init, tuple(shape), "float32", whole)
    square = ni.ICNR(ni.Orthogonal())((16, 5), seed=KEY)
    np.testing.assert_array_equal(square, ni.Orthogonal()((4, 5), seed=KEY).repeat(4, 0))
    for given, shape, message in [
        ((0,), (4,), "scale: 0 was given"),
        ((33,), (4,), "scale: 33 was given; 1 to 32"),
        ((2,), (6, 2), r"scale: 4 = 2\*\*2 does not divide axis 0"),
        ((2, 2), (4, 4), "axis: 2 was given"),
    ]:
        with pytest.raises(ValueError, match=message):
            ni.ICNR(ni.Normal(), *given)(shape)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_several_rows_of_padding(dtype):
    pytest.importorskip("ml_dtypes")
    shape = (9, 4)
    init = ni.Padded(ni.Normal(), (0, 3, 4, -1))
    expected = ni.Normal()(shape, dtype, seed=KEY)
    expected[[0, 3, 4, 8]] = 0
    whole = init(shape, dtype, seed=KEY)
    np.testing.assert_array_equal(whole, expected)
    ask_every_way(init, shape, dtype, whole)
    scaled = ni.DepthScaled(init, 2)(shape, dtype, seed=KEY)
    np.testing.assert_array_equal(scaled.astype("f4"), expected.astype("f4") / 2)
    tables = ni.Padded(ni.Normal(), [1], axis=1)
    expected = ni.Normal()((3, *shape), dtype, seed=KEY)
    expected[:, 1] = 0
    whole = tables((3, *shape), dtype, seed=KEY)
    np.testing.assert_array_equal(whole, expected)
    ask_every_way(tables, (3, *shape), dtype, whole)
    assert law_of(ni.Normal(), shape) == ni.Padded(ni.Normal(), (1,)).plan(shape, None).distribution


@pytest.mark.parametrize(
    ("padding", "axis", "message"),
    [
        ((), 0, "padding_idx: 0 rows were given"),
        (range(2000), 0, "padding_idx: 2000 rows were given"),
        ((0, 9), 0, "padding_idx: 9 was given"),
        (0, 2, r"axis: 2 was given; shape \(9, 4\) has 2 axes"),
    ],
)
def test_what_padding_refuses(padding, axis, message):
    with pytest.raises(ValueError, match=message):
        ni.Padded(ni.Normal(), padding, axis)((9, 4))


@pytest.mark.parametrize(
    ("init", "v", "g", "axes"),
    [
        (ni.KaimingUniform(), (6, 4, 5), (6, 1, 1), (1, 2)),
        (ni.KaimingUniform(), (6, 4, 5), (1, 1, 5), (0, 1)),
        (ni.Normal(), (3000, 700), (1, 1), (0, 1)),
        (ni.Normal(), (3000, 700), (3000, 1), (1,)),
        (ni.Orthogonal(), (6, 5), (6, 1), (1,)),
        (ni.Normal(), (7,), (1,), (0,)),
        (ni.Normal(), (), (), ()),
    ],
)
def test_norms(init, v, g, axes):
    made = NormOf(init, v)(g, seed=KEY)
    values = init(v, seed=KEY).astype(np.float64)
    expected = np.sqrt((values**2).sum(axes, keepdims=True)).astype(np.float32)
    np.testing.assert_allclose(made, expected, rtol=1e-7)
    assert made.shape == g


def test_norms_of_another_type():
    pytest.importorskip("ml_dtypes")
    made = NormOf(ni.Normal(), (5, 8), "bfloat16")((5, 1), "float64", seed=KEY)
    v = ni.Normal()((5, 8), "bfloat16", seed=KEY).astype(np.float64)
    np.testing.assert_allclose(made, np.linalg.norm(v, axis=1, keepdims=True), rtol=1e-15)
    complex_ = NormOf(ni.Normal(), (5, 8), "complex64")((5, 1), seed=KEY)
    v = ni.Normal()((5, 8), "complex64", seed=KEY)
    np.testing.assert_allclose(complex_, np.linalg.norm(v, axis=1, keepdims=True), rtol=1e-6)
    for shape, message in [((5,), "as many axes"), ((4, 1), "for the norms of a weight")]:
        with pytest.raises(ValueError, match=message):
            NormOf(ni.Normal(), (5, 8))(shape)
    with pytest.raises(TypeError, match="norms are real"):
        NormOf(ni.Normal(), (5, 8))((5, 1), "complex64")
