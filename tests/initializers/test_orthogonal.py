"""Orthogonal weights: an explicit oracle, the error reached, the Haar distribution, axes, files."""

import math

import numpy as np
import pytest

import numinit as ni
from numinit.initializers import haar
from numinit.models.recipes import parse
from numinit.models.verify import Mismatch, verify
from numinit.models.write import write

SIZES = [(1, 1), (2, 1), (2, 2), (7, 7), (40, 33), (129, 129), (300, 150), (260, 257)]
ERROR = {"float32": 3e-6, "float64": 2e-14, "complex64": 3e-6, "complex128": 2e-14}


def by_reflections(g):
    """Stewart's algorithm as it is written: one reflection after another, in double precision."""
    m, n = g.shape
    q, phases = np.eye(m, n, dtype=complex), []
    for k in reversed(range(n)):
        x = g[:, k].astype(complex)
        x[:k] = 0
        phase = x[k] / abs(x[k])
        v = x.copy()
        v[k] += phase * np.linalg.norm(x)
        v /= np.linalg.norm(v)
        q -= 2 * np.outer(v, v.conj() @ q)
        phases.insert(0, phase)
    return -q * phases


@pytest.mark.parametrize("dtype", ERROR)
@pytest.mark.parametrize(("m", "n"), SIZES)
def test_against_explicit_reflections(m, n, dtype, monkeypatch):
    g = ni.Normal()((m, n), dtype, seed=1)
    q = haar.haar(g.copy())
    assert abs(q - by_reflections(g)).max() <= ERROR[dtype]
    assert abs(q.conj().T @ q - np.eye(n)).max() <= ERROR[dtype]
    # Neither the blocks nor the chunks of rows are seen in the result.
    for name, size in (("BLOCK", 5), ("LARGE", 20), ("CHUNK", 50), ("SUM", 11)):
        monkeypatch.setattr(haar, name, size)
    assert abs(haar.haar(g.copy()) - q).max() <= ERROR[dtype]


@pytest.mark.parametrize("dtype", ERROR)
def test_only_the_vectors_are_read(dtype):
    """What lies above the diagonal is overwritten, not used, and part of an array is enough."""
    g = ni.Normal()((150, 140), dtype, seed=1)
    other = np.full((160, 150), np.nan, dtype)
    other[:150, :140] = np.tril(g)
    np.testing.assert_array_equal(haar.haar(other[:150, :140]), haar.haar(g))
    assert np.isnan(other[150:]).all() and np.isnan(other[:, 140:]).all()


@pytest.mark.parametrize("width", [1, 2, 3, 8, 13, 64, 100])
def test_inverses_of_triangles(width):
    s = np.random.default_rng(0).normal(size=(width, width)) / 8
    diagonal = 2 + np.abs(s[0])
    expected = np.linalg.inv(np.tril(-s, -1) + np.diag(diagonal))
    np.testing.assert_allclose(haar._inverse(s, diagonal), expected, rtol=0, atol=1e-13)


def test_it_is_the_q_of_a_decomposition():
    """Q^H A is upper triangular with a positive diagonal for the A that these reflections solve."""
    g = ni.Normal()((6, 6), "float64", seed=4)
    q = haar.haar(g.copy())
    norms = [np.linalg.norm(g[k:, k]) for k in range(6)]
    r = np.triu(np.random.default_rng(0).normal(size=(6, 6)), 1) + np.diag(norms)
    theirs, triangle = np.linalg.qr(q @ r)
    np.testing.assert_allclose(theirs * np.sign(np.diagonal(triangle)), q, atol=1e-13)


def test_degenerate_vectors_make_no_nan():
    for value in (0.0, 1e-30):
        assert np.isfinite(haar.haar(np.full((4, 3), value, np.float32))).all()
    assert haar.haar(np.zeros((3, 0))).shape == (3, 0)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize(("m", "n"), [(3, 3), (4, 2), (2, 2), (5, 1)])
def test_moments_are_haars(m, n, dtype):
    """E|q|**2 = 1/m, E|q|**4 = 3/(m(m+2)) or 2/(m(m+1)), E q = 0; 6 sigma: false alarm 1e-7."""
    count = 20_000
    init = ni.Orthogonal(out_axis=1, batch_axis=0)
    q = init((count, m, n), dtype, seed=2)
    real = dtype == "float64"
    fourth = 3 / (m * (m + 2)) if real else 2 / (m * (m + 1))
    eighth = math.prod((2 * k + 1) / (m + 2 * k) for k in range(4)) if real else math.factorial(4) * math.factorial(m - 1) / math.factorial(m + 3)  # fmt: skip
    square = abs(q) ** 2
    assert abs(square.mean(0) - 1 / m).max() < 6 * math.sqrt((fourth - 1 / m**2) / count)
    assert abs((square**2).mean(0) - fourth).max() < 6 * math.sqrt((eighth - fourth**2) / count) + 1e-12  # fmt: skip
    assert abs(q.mean(0)).max() < 6 / math.sqrt(m * count)
    # A Haar matrix times a fixed one is Haar: so are these sums of two rows.
    turned = (q[:, 0] + q[:, -1]) / math.sqrt(2) if m > 1 else q[:, 0]
    assert abs((abs(turned) ** 2).mean(0) - 1 / m).max() < 6 * math.sqrt(fourth / count)


def test_determinants_and_eigenvalues():
    """det of O(n) is +-1 evenly; eigenvalue angles of U(n) are uniform: false alarms 1e-9."""
    stats = pytest.importorskip("scipy.stats")
    q = ni.Orthogonal(out_axis=1, batch_axis=0)((10_000, 3, 3), "float64", seed=3)
    positive = int((np.linalg.det(q) > 0).sum())
    assert stats.binomtest(positive, 10_000).pvalue > 1e-9
    u = ni.Orthogonal(out_axis=1, batch_axis=0)((10_000, 3, 3), "complex128", seed=3)
    angles = np.angle(np.linalg.eigvals(u))[:, 0]
    assert stats.kstest(angles / (2 * np.pi) % 1, "uniform").pvalue > 1e-9
    # The trace of O(3): 1 + 2 cos t or its negative, t with density (1 - cos t) / pi.
    trace = np.trace(q, axis1=1, axis2=2) * np.sign(np.linalg.det(q))
    angle = np.arccos(np.clip((trace - 1) / 2, -1, 1))
    assert stats.kstest(angle, lambda t: (t - np.sin(t)) / np.pi).pvalue > 1e-9


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "complex64"])  # fmt: skip
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (6, 2, 3, 3), (4, 4)])
def test_weights(shape, dtype):
    if dtype in ("bfloat16", "float8_e4m3fn"):
        pytest.importorskip("ml_dtypes")
    init = ni.Orthogonal(gain=1.5)
    w = init(shape, dtype, seed=5)
    if dtype in ("float16", "bfloat16", "float8_e4m3fn"):
        rounded = init(shape, "float32", seed=5).astype(w.dtype)
        np.testing.assert_array_equal(w.view(f"u{w.itemsize}"), rounded.view(f"u{w.itemsize}"))
        return
    flat = w.reshape(shape[0], -1)
    square = flat @ flat.conj().T if flat.shape[0] <= flat.shape[1] else flat.conj().T @ flat
    assert abs(square / 2.25 - np.eye(len(square))).max() <= ERROR[dtype]
    for view in (np.zeros(shape[::-1], dtype).T, np.zeros([2 * n for n in shape], dtype)[tuple(slice(None, None, 2) for _ in shape)]):  # fmt: skip
        np.testing.assert_array_equal(init.fill_(view, seed=5), w)
    np.testing.assert_array_equal(init.fill_(np.zeros_like(w), shape=shape, offset=(0,) * len(shape), seed=5), w)  # fmt: skip


def test_axes():
    torchs = ni.Orthogonal()((8, 5), seed=1)
    np.testing.assert_array_equal(ni.Orthogonal(out_axis=-1)((5, 8), seed=1), torchs.T)
    jaxs = ni.Orthogonal(out_axis=-1)((3, 3, 4, 6), seed=1)  # HWIO
    np.testing.assert_allclose(jaxs.reshape(36, 6).T @ jaxs.reshape(36, 6), np.eye(6), atol=1e-6)
    experts = ni.Orthogonal(out_axis=2, batch_axis=0)((7, 5, 8), seed=3)
    for e in range(7):
        np.testing.assert_array_equal(experts[e].T, ni.Orthogonal()((8, 5), seed=ni.Key(3).fold_in(e)))  # fmt: skip
    heads = ni.Orthogonal(out_axis=(0, 1))((2, 3, 9), seed=3).reshape(6, 9)
    np.testing.assert_allclose(heads @ heads.T, np.eye(6), atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 4, 3), (6, 4, 2, 3), (4, 4, 3, 4, 1)])
def test_delta_orthogonal(shape):
    w = ni.DeltaOrthogonal(2.0)(shape, "float64", seed=1)
    centre = tuple((k - 1) // 2 for k in shape[2:])
    matrix = w[(..., *centre)]
    np.testing.assert_allclose(matrix.T @ matrix, 4 * np.eye(shape[1]), atol=1e-13)
    assert np.count_nonzero(w) == matrix.size
    # JAX's layout: (*kernel, in, out)
    jaxs = ni.DeltaOrthogonal(2.0, in_axis=-2, out_axis=-1)((*shape[2:], shape[1], shape[0]), "float64", seed=1)  # fmt: skip
    np.testing.assert_array_equal(jaxs[centre].T, matrix)


REFUSED = [
    (ni.Orthogonal(), (), "2 or more"),
    (ni.Orthogonal(), (3,), "2 or more"),
    (ni.Orthogonal(batch_axis=0), (3, 4), "2 or more"),
    (ni.Orthogonal(out_axis=2), (3, 4), "out_axis"),
    (ni.Orthogonal(out_axis=0, batch_axis=0), (3, 4, 5), "twice"),
    (ni.DeltaOrthogonal(), (3, 4), "3 to 5"),
    (ni.DeltaOrthogonal(), (3, 4, 5), "outputs"),
    (ni.DeltaOrthogonal(in_axis=0), (3, 4, 5), "in_axis"),
    (ni.DeltaOrthogonal(), (3, 2, 1, 1, 1, 1), "3 to 5"),
]


@pytest.mark.parametrize(("init", "shape", "message"), REFUSED)
def test_refused_shapes(init, shape, message):
    array = np.full(shape, 7, np.float32)
    with pytest.raises(ValueError, match=message):
        init.fill_(array, seed=0)
    assert (array == 7).all()


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "complex64"])
@pytest.mark.parametrize("init", [ni.Orthogonal(2.0), ni.Orthogonal(batch_axis=0, out_axis=-1)])
def test_a_part_is_cut_out_of_the_whole(init, dtype):
    shape = (3, 5, 4)
    whole = init(shape, dtype, seed=1)
    window = np.s_[1:3, 2:4, 1:4]
    part = init.fill_(np.empty_like(whole[window]), shape=shape, offset=(1, 2, 1), seed=1)
    np.testing.assert_array_equal(part.view(np.uint8), np.array(whole[window]).view(np.uint8))
    for index in (window, 1, np.s_[1, 2:], np.s_[:, 3:4]):
        np.testing.assert_array_equal(init.block(shape, index, dtype, seed=1), whole[index])
    spread = np.zeros((17, 2), whole.dtype)[:, 0]
    run = init.fill_flat(spread, start=41, shape=shape, seed=1)
    np.testing.assert_array_equal(run, whole.reshape(-1)[41:58])


def test_rows_are_refused_with_the_reason():
    for ids in ([1], [3, 2, 1, 0]):
        with pytest.raises(ValueError, match="every element depends on all others"):
            ni.Orthogonal().rows((4, 4), ids)


@pytest.mark.parametrize("field", ["gain", "out_axis", "batch_axis"])
def test_bad_fields(field):
    with pytest.raises(TypeError, match=field):
        ni.Orthogonal(**{field: "x"})


RECIPE = """
[[rules]]
match = "*.o"
init = "Orthogonal"
gain = 2.0
[[rules]]
match = "*"
init = "Normal"
"""


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float8_e5m2"])
def test_files(tmp_path, dtype):
    path = tmp_path / "m.safetensors"
    write(path, {"a.o": (50, 40), "b": (3, 4), "c.o": (7, 7)}, parse(RECIPE), 3, dtype)
    assert verify(path).tensors == 3
    data = bytearray(path.read_bytes())
    data[-1] ^= 0x80  # the sign of the last element
    path.write_bytes(data)
    with pytest.raises(Mismatch):
        verify(path)


def test_a_file_of_another_blas_is_accepted(tmp_path, monkeypatch):
    """Sums in another order, of values of another rounding; the tolerance is for that."""
    path = tmp_path / "m.safetensors"
    recipe = parse('rules = [{match = "*", init = "Orthogonal"}]')
    write(path, {"a.o": (300, 200)}, recipe, 3, "bfloat16")
    monkeypatch.setattr(haar, "BLOCK", 17)
    assert verify(path).tensors == 1
    monkeypatch.setattr(haar, "BLOCK", 16)
    write(path, {"a.o": (300, 200)}, recipe, 3, "float32", overwrite=True)
    monkeypatch.setattr(haar, "BLOCK", 31)
    assert verify(path).tensors == 1
