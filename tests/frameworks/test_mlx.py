"""`numinit.mlx`: the names of mlx.nn.init, MLX's arrays and numinit's values."""

import functools
import inspect

import numpy as np
import pytest

import numinit as ni

mx = pytest.importorskip("mlx.core", reason="needs MLX")
from mlx import nn  # noqa: E402
from mlx.utils import tree_flatten, tree_map_with_path  # noqa: E402

from numinit import mlx as init  # noqa: E402

AXES = {"in_axis": -1, "out_axis": 0}
SHAPE = (6, 3, 8)
NAMES = [
    name for name, value in vars(nn.init).items() if inspect.isfunction(value) and name[0] != "_"
]
CASES = [
    (init.normal(0.5, 2.0, seed=3), ni.Normal(0.5, 2.0), SHAPE),
    (init.uniform(-1, 3, seed=3), ni.Uniform(-1, 3), SHAPE),
    (init.he_normal(seed=3), ni.VarianceScaling(1.0, "fan_in", "normal", **AXES), SHAPE),
    (
        functools.partial(init.he_uniform(seed=3), mode="fan_out", gain=2.0),
        ni.VarianceScaling(4.0, "fan_out", "uniform", **AXES),
        SHAPE,
    ),
    (init.glorot_normal(seed=3), ni.XavierNormal(**AXES), SHAPE),
    (
        functools.partial(init.glorot_uniform(seed=3), gain=0.1),
        ni.XavierUniform(0.1, **AXES),
        SHAPE,
    ),
    (init.orthogonal(2.0, seed=3), ni.Orthogonal(2.0), (6, 8)),
]


def test_every_name_of_mlx():
    for name in NAMES:
        theirs, ours = (inspect.signature(getattr(module, name)) for module in (nn.init, init))
        shared = [p for p in ours.parameters.values() if p.name != "seed"]
        assert [(p.name, p.default) for p in shared] == [
            (p.name, p.default) for p in theirs.parameters.values()
        ]


@pytest.mark.parametrize(("made", "twin", "shape"), CASES)
def test_values_are_numinits(made, twin, shape):
    array = made(mx.zeros(shape))
    assert isinstance(array, mx.array) and array.dtype == mx.float32
    np.testing.assert_array_equal(np.array(array), twin(shape, seed=3))


def test_types():
    for name in ("float16", "bfloat16", "float64", "complex64"):
        array = init.normal(dtype=getattr(mx, name), seed=3)(mx.zeros(5))
        assert array.dtype == getattr(mx, name)
        expected = ni.Normal()(5, name, seed=3)
        kept = "complex64" if name == "complex64" else "float32"
        np.testing.assert_array_equal(
            np.array(array.astype(getattr(mx, kept))), expected.astype(kept)
        )


def test_constants():
    assert (np.array(init.constant(2.5)(mx.zeros((2, 3)))) == 2.5).all()
    assert (np.array(init.identity()(mx.zeros((3, 3)))) == np.eye(3)).all()


@pytest.mark.parametrize("shape", [(40, 11), (11, 40)])
def test_sparse_has_its_zeros_where_mlx_has_them(shape):
    for sparsity in (0.0, 0.3, 1.0):
        theirs, ours = (
            (np.array(module.sparse(sparsity)(mx.zeros(shape))) == 0).sum(axis=1)
            for module in (nn.init, init)
        )
        np.testing.assert_array_equal(ours, theirs)


def test_sparse_has_its_zeros_in_rows():
    made = np.array(init.sparse(0.3, mean=5.0, std=0.5, seed=3)(mx.zeros((50, 11))))
    assert ((made == 0).sum(axis=1) == 4).all()
    assert abs(made[made != 0].mean() - 5) < 0.2 and abs(made[made != 0].std() - 0.5) < 0.1


@pytest.mark.parametrize(
    ("name", "call"),
    [
        (n, {"mode": m, "gain": 0.7})
        for n in ("he_normal", "he_uniform")
        for m in ("fan_in", "fan_out")
    ]
    + [("glorot_normal", {"gain": 3.0}), ("glorot_uniform", {})],
)
def test_spread_is_that_of_mlx(name, call):
    theirs, ours = (
        np.array(getattr(module, name)()(mx.zeros((200, 3, 100)), **call)).std()
        for module in (nn.init, init)
    )
    assert abs(theirs / ours - 1) < 6 * 1.4 * 0.71 / np.sqrt(60_000)


def test_seeds():
    z = mx.zeros((4, 4))
    made = []
    for _ in range(2):
        mx.random.seed(5)
        made.append([np.array(init.normal()(z)), np.array(init.he_uniform()(z))])
    assert all((a == b).all() for a, b in zip(*made, strict=True))
    assert (made[0][0] != np.array(init.normal()(z))).all()
    generator = ni.Generator(2)
    again = init.normal(seed=generator)
    for use in range(2):
        expected = ni.Normal()((4, 4), seed=ni.Key(2).fold_in(use))
        np.testing.assert_array_equal(np.array(again(z)), expected)


def test_a_model_by_the_names_of_its_weights():
    net = nn.Sequential(nn.Linear(4, 8), nn.relu, nn.Linear(8, 8), nn.relu, nn.Linear(8, 8))
    key = ni.Key(0)
    net.update(
        tree_map_with_path(
            lambda name, w: init.he_normal(seed=key.fold_in(name))(w) if w.ndim > 1 else w,
            net.parameters(),
        )
    )
    weights = dict(tree_flatten(net.parameters()))
    assert (np.array(weights["layers.2.weight"]) != np.array(weights["layers.4.weight"])).all()
    assert net(mx.ones((2, 4))).shape == (2, 8)


def test_torchs_axes_in_mlx_are_refused():
    for made in (ni.KaimingNormal(), ni.Normal()):
        with pytest.raises(TypeError, match=r"^shape: an MLX array .* numinit\.mlx"):
            nn.Linear(3, 4).apply(made)


def test_refusals():
    for bad in (init.he_normal(), init.glorot_uniform()):
        with pytest.raises(ValueError, match=r"^a: a 1D array was given; 2D or more is accepted"):
            bad(mx.zeros(3))
    for bad in (init.orthogonal(), init.sparse(0.5)):
        with pytest.raises(ValueError, match=r"^a: a 3D array was given; 2D is accepted"):
            bad(mx.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match=r"^mode: 'x' was given"):
        init.he_normal()(mx.zeros((2, 2)), mode="x")
    with pytest.raises(TypeError, match="dtype: 'int32'"):
        init.normal(dtype=mx.int32)(mx.zeros(3))
