"""One set of values, however it is asked for: any layout, window, block or rows."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numinit as ni

KEY = ni.Key(11, 13)
INITIALIZERS = [
    ni.Normal(), ni.Uniform(-1, 1), ni.Constant(3), ni.TruncNormal(), ni.TruncNormal(0, 1, 8, 9),
]  # fmt: skip

shapes = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)
initializers = st.sampled_from(INITIALIZERS)
dtypes = st.sampled_from(["float32", "float64", "float16"])


def whole(init, shape, dtype="float32"):
    return init(shape, dtype, seed=KEY)


@given(initializers, shapes, dtypes, st.data())
def test_block_equals_the_slice(init, shape, dtype, data):
    index = tuple(
        data.draw(
            st.one_of(
                st.integers(-size, size - 1),
                st.builds(slice, st.integers(-size, size), st.none() | st.integers(-size, size)),
            )
        )
        for size in shape[: data.draw(st.integers(0, len(shape)))]
    )
    if data.draw(st.booleans()):
        index = (..., *index) if len(index) == len(shape) else (*index, ...)
    expected = whole(init, shape, dtype)[index]
    got = init.block(shape, index, dtype, seed=KEY)
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


@given(initializers, shapes, dtypes, st.data())
def test_rows_equal_the_whole(init, shape, dtype, data):
    ids = data.draw(st.lists(st.integers(-shape[0], shape[0] - 1), max_size=8))
    ids = np.array(ids, data.draw(st.sampled_from([np.int64, np.int8]))).reshape(
        data.draw(st.sampled_from([(-1,), (-1, 1), (1, -1)])) if ids else (0,)
    )
    expected = whole(init, shape, dtype)[ids]
    got = init.rows(shape, ids, dtype, seed=KEY)
    assert got.shape == expected.shape
    np.testing.assert_array_equal(got, expected)


@given(initializers, shapes, dtypes, st.data())
def test_layouts_are_filled_by_logical_index(init, shape, dtype, data):
    order = data.draw(st.permutations(range(len(shape))))
    steps = data.draw(st.tuples(*[st.sampled_from([1, 2, -1, -3])] * len(shape)))
    base = np.full([shape[axis] * abs(steps[axis]) for axis in order], 77, dtype)
    view = base.transpose(np.argsort(order))[tuple(slice(None, None, step) for step in steps)]
    assert view.shape == shape
    assert init.fill_(view, seed=KEY) is view
    np.testing.assert_array_equal(view, whole(init, shape, dtype))
    view[...] = 77
    assert (base == 77).all()  # nothing was written between the elements


@given(initializers, shapes, dtypes, st.data())
def test_windows_are_parts_of_the_whole(init, part, dtype, data):
    offset = tuple(data.draw(st.integers(0, 5)) for _ in part)
    shape = tuple(o + p + data.draw(st.integers(0, 3)) for o, p in zip(offset, part, strict=True))
    local = np.zeros(part, dtype, order=data.draw(st.sampled_from("CF")))
    init.fill_(local, shape=shape, offset=offset, seed=KEY)
    window = tuple(slice(o, o + p) for o, p in zip(offset, part, strict=True))
    np.testing.assert_array_equal(local, whole(init, shape, dtype)[window])


LARGE = (1531, 1031)  # several chunks, segments and tiles; odd in both directions


LAYOUTS = {
    "C": lambda d: np.zeros(LARGE, d),
    "Fortran": lambda d: np.zeros(LARGE, d, order="F"),
    "strided": lambda d: np.zeros((LARGE[0] * 2, LARGE[1] * 3), d)[::2, ::-3],
    "transposed slice": lambda d: np.zeros((LARGE[1], LARGE[0] + 5), d).T[5:],
    "middle axis": lambda d: np.zeros((LARGE[0], 2, LARGE[1]), d).transpose(1, 0, 2)[1],
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_large_layouts(layout, dtype):
    view = LAYOUTS[layout](dtype)
    ni.Normal().fill_(view, seed=KEY)
    np.testing.assert_array_equal(view, whole(ni.Normal(), LARGE, dtype))


def test_large_transpositions_of_three_axes():
    expected = whole(ni.Normal(), (30, 130, 513))
    for order in [(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]:
        view = np.zeros([expected.shape[axis] for axis in order], np.float32)
        view = view.transpose(np.argsort(order))
        ni.Normal().fill_(view, seed=KEY)
        np.testing.assert_array_equal(view, expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_memory_mapped(tmp_path, dtype):
    kind = np.dtype(dtype) if dtype == "float32" else pytest.importorskip("ml_dtypes").bfloat16
    mapped = np.memmap(tmp_path / "table", kind, "w+", shape=(1000, 129))
    ni.Normal().fill_(mapped, seed=KEY)
    np.testing.assert_array_equal(np.asarray(mapped), whole(ni.Normal(), (1000, 129), dtype))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (0, 5)])
def test_scalars_and_empty_arrays(shape):
    made = whole(ni.Normal(), shape)
    assert made.shape == shape
    array = np.zeros(shape, np.float32)
    assert ni.Normal().fill_(array, seed=KEY) is array
    np.testing.assert_array_equal(array, made)


def test_a_row_shard_of_a_table_of_dlrm_size():
    table, shards = (40_000_000, 128), 16
    height, shard = table[0] // shards, 11
    local = np.zeros((50_000, table[1]), np.float32)
    start = (shard + 1) * height - len(local)  # the end of the shard: indices beyond 2**31
    ni.Normal().fill_(local, shape=table, offset=(start, 0), seed=KEY)
    assert start * table[1] > 2**31
    ids = np.arange(start, start + len(local))
    np.testing.assert_array_equal(local, ni.Normal().rows(table, ids, seed=KEY))


def free_memory():
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


@pytest.mark.skipif(
    free_memory() < 8 << 30, reason="needs 8 GiB of free memory, as Linux reports it"
)
def test_more_than_2_to_the_31_elements():
    array = np.empty(2**31 + 1001, np.float16)
    ni.Uniform().fill_(array, seed=KEY)
    for start in (0, 2**31 - 500, array.size - 500):
        expected = ni.Uniform().block(array.shape, slice(start, start + 500), "float16", seed=KEY)
        np.testing.assert_array_equal(array[start : start + 500], expected)


ELEMENTWISE = [
    ni.Sparse(0.4), ni.Padded(ni.Normal(), 3), ni.VarianceScaling(distribution="truncated_normal"),
    ni.TruncatedNormal(1.0, 2.0), ni.XavierUniform(), ni.EmbeddingUniform(), ni.VarianceScaling(),
    ni.DepthScaled(ni.KaimingUniform(), 12), ni.MuP(ni.Normal(), "hidden", (8, 8), in_axis=1), ni.Eye(),
]  # fmt: skip


@given(
    st.sampled_from(ELEMENTWISE), st.integers(4, 90), st.integers(1, 90), st.data(),
    st.sampled_from(["float32", "float64", "float16", "complex64"]),
)  # fmt: skip
def test_parts_of_matrices_equal_the_whole(init, rows, columns, data, dtype):
    if dtype == "complex64" and isinstance(init, ni.TruncatedNormal):
        dtype = "float32"
    shape = (rows, columns)
    whole = init(shape, dtype, seed=KEY)
    low = [data.draw(st.integers(0, n)) for n in shape]
    high = [data.draw(st.integers(k, n)) for k, n in zip(low, shape, strict=True)]
    window = tuple(map(slice, low, high))
    np.testing.assert_array_equal(init.block(shape, window, dtype, seed=KEY), whole[window])
    ids = data.draw(st.lists(st.integers(-rows, rows - 1), max_size=9))
    np.testing.assert_array_equal(
        init.rows(shape, np.array(ids, int), dtype, seed=KEY), whole[np.array(ids, int)]
    )
    shard = np.ones(whole[window].shape, dtype).T.copy().T  # in Fortran order
    np.testing.assert_array_equal(
        init.fill_(shard, shape=shape, offset=low, seed=KEY), whole[window]
    )
