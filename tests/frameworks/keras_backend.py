"""What `test_keras` runs in a process of each backend of Keras."""

import functools
import inspect
import json
import os

import keras
import ml_dtypes
import numpy as np
import pytest
from keras.src.utils.naming import to_snake_case

import numinit as ni
import numinit.keras as nk

BACKEND = keras.backend.backend()
SEED = 7


def values(tensor):
    """A tensor's values as NumPy's, with the bits of bfloat16."""
    if BACKEND == "torch" and "bfloat16" in str(tensor.dtype):
        import torch

        return tensor.detach().view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    if BACKEND == "tensorflow":
        return np.asarray(tensor.numpy())
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def same(tensor, expected):
    made = values(tensor)
    assert made.dtype == expected.dtype and made.shape == expected.shape
    assert made.tobytes() == expected.tobytes()


KERNEL = (3, 3, 4, 6)
#: Every class: an instance and a shape.
CASES = [
    (nk.RandomNormal(0.5, 2.0, seed=SEED), (6, 8)),
    (nk.RandomUniform(-1, 3, seed=SEED), (6, 8)),
    (nk.TruncatedNormal(0.5, 2.0, seed=SEED), (6, 8)),
    (nk.VarianceScaling(3.0, "fan_out", "untruncated_normal", seed=SEED), KERNEL),
    (nk.GlorotNormal(seed=SEED), KERNEL),
    (nk.GlorotUniform(seed=SEED), (6, 8)),
    (nk.HeNormal(seed=SEED), KERNEL),
    (nk.HeUniform(seed=SEED), (5,)),
    (nk.LecunNormal(seed=SEED), ()),
    (nk.LecunUniform(seed=SEED), KERNEL),
    (nk.Orthogonal(2.0, seed=SEED), KERNEL),
    (nk.STFT("imag"), (8, 1, 5)),
    (nk.KaimingNormal(nonlinearity="gelu", seed=SEED), KERNEL),
    (nk.KaimingUniform(0.1, in_axis=0, out_axis=(1, 2), seed=SEED), (8, 2, 3)),
    (nk.XavierNormal(gain=2.0, seed=SEED), KERNEL),
    (nk.XavierUniform(seed=SEED), (6, 8)),
    (nk.EmbeddingUniform(seed=SEED), (6, 8)),
    (nk.TruncNormal(0.0, 1.0, 8.0, 9.0, seed=SEED), (6, 8)),
    (nk.Sparse(0.5, seed=SEED), (6, 8)),
    (nk.Eye(2.0, batch_axis=0), (2, 3, 3)),
    (nk.Dirac(), KERNEL),
    (nk.Bilinear(), KERNEL),
    (nk.DeltaOrthogonal(seed=SEED), KERNEL),
    (nk.DepthScaled(nk.HeNormal(seed=SEED), 12), (6, 8)),
    (nk.MuP(nk.RandomNormal(seed=SEED), "hidden", (4, 4), in_axis=-2), (6, 8)),
    (nk.Padded("he_normal", 0), (6, 8)),
]
IDS = [type(init).__name__ for init, _ in CASES]


def test_every_class_is_a_case():
    assert {kind.__name__ for kind in nk.NAMES.values()} == set(IDS)


@pytest.mark.parametrize(("init", "shape"), CASES, ids=IDS)
def test_values_are_numinits_and_survive_serialization(init, shape):
    key = init.seed or 0
    text = json.dumps(keras.saving.serialize_keras_object(init))
    loaded = keras.saving.deserialize_keras_object(json.loads(text))
    assert type(loaded) is type(init) and isinstance(init, keras.initializers.Initializer)
    assert loaded.get_config() == json.loads(json.dumps(init.get_config()))
    narrow = isinstance(init, nk.RandomNormal | nk.VarianceScaling)
    for dtype in ("float32", "bfloat16") if narrow else ("float32",):
        made = init(shape, dtype)
        assert keras.backend.standardize_dtype(made.dtype) == dtype
        same(made, init.numinit(shape, dtype, seed=key))
        if not isinstance(init, nk.Padded):  # without a seed, and so with another
            same(loaded(shape, dtype), init.numinit(shape, dtype, seed=key))
    assert keras.backend.standardize_dtype(init(shape).dtype) == keras.config.floatx()


#: The initializers of `numinit` that have the same values, with Keras' axes.
AXES = {"in_axis": -2, "out_axis": -1}
TWINS = [
    (nk.RandomNormal(seed=SEED), ni.Normal(0.0, 0.05)),
    (nk.RandomUniform(seed=SEED), ni.Uniform(-0.05, 0.05)),
    (nk.TruncatedNormal(seed=SEED), ni.TruncatedNormal(0.0, 0.05)),
    (nk.HeNormal(seed=SEED), ni.VarianceScaling(2.0, "fan_in", "truncated_normal", **AXES)),
    (nk.GlorotUniform(seed=SEED), ni.VarianceScaling(1.0, "fan_avg", "uniform", **AXES)),
    (nk.LecunNormal(seed=SEED), ni.VarianceScaling(1.0, "fan_in", "truncated_normal", **AXES)),
    (nk.KaimingNormal(seed=SEED), ni.KaimingNormal(**AXES)),
    (nk.Orthogonal(seed=SEED), ni.Orthogonal(out_axis=-1)),
]


@pytest.mark.parametrize(("init", "twin"), TWINS, ids=lambda init: type(init).__name__)
def test_one_table_in_every_framework(init, twin):
    """NumPy, torch (by its file) and each backend of Keras have the same bits."""
    same(init((3, 3, 16, 32)), twin((3, 3, 16, 32), seed=SEED))
    whole = init.numinit((1000, 64), seed=SEED)
    same(init((1000, 64)), twin((1000, 64), seed=SEED))
    if not isinstance(init, nk.Orthogonal):
        assert (init.numinit.block((1000, 64), np.s_[7:99], seed=SEED) == whole[7:99]).all()


NAMES = [name for name in dir(keras.initializers) if not name.startswith("_")]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_keras(name):
    theirs, ours = getattr(keras.initializers, name), getattr(nk, name)
    if inspect.isclass(theirs):
        assert issubclass(ours, theirs)
        assert inspect.signature(ours) == inspect.signature(theirs)


@pytest.mark.parametrize("distribution", ["truncated_normal", "untruncated_normal", "uniform"])
@pytest.mark.parametrize("mode", ["fan_in", "fan_out", "fan_avg"])
def test_spread_is_that_of_keras(mode, distribution):
    """Ratio of the standard deviations; each has a relative error of about 0.7 / sqrt(n)."""
    for shape in ((300, 200), (3, 3, 50, 100), (40_000,)):
        theirs, ours = (
            np.std(
                keras.ops.convert_to_numpy(
                    m.VarianceScaling(0.7, mode, distribution, seed=1)(shape)
                )
            )
            for m in (keras.initializers, nk)
        )
        assert abs(theirs / ours - 1) < 6 * 1.4 * 0.71 / np.sqrt(np.prod(shape))


def test_seeds():
    generator = keras.random.SeedGenerator(5)
    init = nk.RandomNormal(seed=generator)
    for use in range(3):
        same(init((4,)), init.numinit((4,), seed=ni.Key(5).fold_in(use)))
    same(nk.RandomNormal(seed=-1)((4,)), ni.Normal(0.0, 0.05)((4,), seed=2**64 - 1))
    made = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        first, second = nk.HeNormal(), nk.Sparse(0.5)
        made.append([values(init((40, 50))) for init in (first, second, first, nk.HeNormal())])
    for a, b in zip(*made, strict=True):
        assert (a == b).all()
    one, _, again, other = made[0]
    assert (one == again).all() and (one != other).mean() > 0.9
    with pytest.raises(ValueError, match="seed"):
        nk.HeNormal(seed="x")
    with pytest.raises(ValueError, match="seed"):
        nk.KaimingNormal(seed="x")


def test_strings_after_registration():
    assert type(keras.initializers.get("he_normal")) is keras.initializers.HeNormal
    with keras.saving.custom_object_scope(nk.NAMES):
        for name, kind in {"he_normal": nk.HeNormal, "normal": nk.RandomNormal}.items():
            assert type(keras.initializers.get(name)) is kind is type(nk.get(name))
        for name in ("KaimingNormal", "kaiming_normal"):
            assert type(keras.initializers.get(name)) is nk.KaimingNormal is type(nk.get(name))
        layer = keras.layers.Dense(3)
        assert type(layer.kernel_initializer) is nk.GlorotUniform
        config = keras.initializers.serialize(keras.initializers.HeNormal())
        assert type(keras.initializers.get(config)) is keras.initializers.HeNormal
    assert type(keras.initializers.get("he_normal")) is keras.initializers.HeNormal
    assert nk.get(None) is None
    for kind in nk.NAMES.values():  # the strings that Keras makes of the names of its classes
        assert nk.NAMES[to_snake_case(kind.__name__)] is nk.NAMES[kind.__name__] is kind
    config = {"class_name": "HeNormal", "config": {"seed": 1}}
    for given in (config, nk.serialize(nk.HeNormal(seed=1)), "he_normal"):
        assert type(nk.Padded(given, 0).init) is nk.HeNormal


@pytest.mark.skipif(
    "input_axes" not in inspect.signature(nk.HeNormal).parameters, reason="of newer Keras"
)
def test_attention_turns_the_axes():
    layer = keras.layers.MultiHeadAttention(8, 16, kernel_initializer=nk.LecunNormal(seed=1))
    layer.build((None, 10, 32), (None, 10, 32))
    kernel = layer.query_dense.kernel
    expected = ni.VarianceScaling(
        1.0, "fan_in", "truncated_normal", in_axis=0, out_axis=(1, 2)
    )((32, 8, 16), seed=1)  # fmt: skip
    same(kernel.value, expected)


def model():
    with keras.saving.custom_object_scope(nk.NAMES):
        return keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                keras.layers.Conv2D(4, 3, kernel_initializer=nk.HeNormal(seed=1)),
                keras.layers.Flatten(),
                keras.layers.Dense(
                    16, "relu", kernel_initializer=nk.Padded(nk.KaimingNormal(seed=2), 0)
                ),
                keras.layers.Dense(2, bias_initializer=nk.RandomNormal(seed=3)),
            ]
        )


@pytest.mark.skipif(BACKEND == "numpy", reason="it does not train")
def test_a_model_trains_a_step_is_saved_and_loads(tmp_path):
    net = model()
    same(net.layers[0].kernel.value, nk.HeNormal().numinit((3, 3, 3, 4), seed=1))
    assert not values(net.layers[2].kernel.value)[0].any()
    net.compile("sgd", "mse")
    x = ni.Normal()((16, 8, 8, 3), seed=1)
    before = [values(w.value).copy() for w in net.trainable_weights]
    net.fit(x, np.ones((16, 2)), epochs=1, verbose=0)
    assert all(
        (values(w.value) != b).any() for w, b in zip(net.trainable_weights, before, strict=True)
    )
    net.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    assert type(loaded.layers[3].kernel_initializer) is nk.GlorotUniform
    assert type(loaded.layers[2].kernel_initializer.init) is nk.KaimingNormal
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), net.predict(x, verbose=0))


def test_shapes_are_inferred_without_values(monkeypatch):
    """A layer is built while shapes are traced; only its variables are filled, each once."""
    filled = []
    for way in ("_new", "fill_"):  # of a new array, of memory that JAX adopts
        real = getattr(ni.Initializer, way)

        def spy(self, what, *args, real=real, **kwargs):
            filled.append(getattr(what, "shape", what))
            return real(self, what, *args, **kwargs)

        monkeypatch.setattr(ni.Initializer, way, spy)
    net = keras.Sequential([keras.layers.Dense(5, kernel_initializer=nk.HeNormal(seed=1))])
    net(np.ones((2, 3), np.float32))
    assert filled == [(3, 5)]


@pytest.mark.parametrize("init", [ni.KaimingNormal(), ni.XavierUniform(), ni.Orthogonal()])
def test_torchs_axes_in_keras_are_refused(init):
    layer = keras.layers.Dense(4, kernel_initializer=init)
    with pytest.raises(TypeError, match=rf"{type(init).__name__}: keras called .*numinit\.keras"):
        layer.build((None, 3))
    with pytest.raises(TypeError, match=r"numinit\.keras"):
        keras.Variable(init, (3, 4), "float32")
    assert init((3, 4), "float32").shape == init((3, 4), dtype="float32").shape


def test_other_objects_of_numinit_work_in_keras():
    layer = keras.layers.Dense(4, kernel_initializer=ni.KaimingNormal(in_axis=0, out_axis=1))
    layer.build((None, 3))
    assert tuple(layer.kernel.shape) == (3, 4)


def test_refusals():
    with pytest.raises(TypeError, match=r"^init: 'zeros' was given"):
        nk.Padded("zeros", 0)
    with pytest.raises(TypeError, match=r"^Sparse: .*sparsity"):
        nk.Sparse()
    with pytest.raises(TypeError, match=r"^KaimingNormal: .*'x'"):
        nk.KaimingNormal(x=1)
    for init in (nk.RandomNormal(), nk.KaimingNormal()):
        with pytest.raises(TypeError, match=r"^dtype: 'int32'"):
            init((3, 4), "int32")
    with pytest.raises(ValueError, match="std"):
        nk.RandomNormal(stddev=-1.0)((3,))
    assert tuple(nk.HeNormal()((0, 3)).shape) == (0, 3)  # the fan is 1
    with pytest.raises(ValueError, match="2 or more dimensions"):
        nk.Orthogonal()((3,))


@pytest.mark.skipif(BACKEND != "torch", reason="of torch")
def test_torch_devices():
    with keras.device("meta"):
        made = nk.HeNormal(seed=1)((1 << 20, 1 << 20))
    assert made.is_meta and made.shape == (1 << 20, 1 << 20)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow")
def test_inside_of_a_tensorflow_function():
    import tensorflow as tf

    generator = keras.random.SeedGenerator(5)
    init = nk.HeNormal(seed=1)
    drawn = nk.RandomNormal(seed=generator)
    traced = tf.function(lambda: (init((3, 4)), drawn((5,), "bfloat16")))
    for use in range(2):
        one, two = traced()
        same(one, init.numinit((3, 4), seed=1))
        same(two, drawn.numinit((5,), "bfloat16", seed=ni.Key(5).fold_in(use)))


@pytest.mark.skipif(BACKEND != "jax", reason="of JAX")
def test_inside_of_a_function_of_jax():
    import jax

    init = nk.HeNormal(seed=1)
    same(jax.jit(lambda: init((3, 4)))(), init.numinit((3, 4), seed=1))
    assert jax.eval_shape(lambda: init((1 << 20, 1 << 20))).shape == (1 << 20, 1 << 20)
    generator = keras.random.SeedGenerator(5)
    drawn = nk.RandomNormal(seed=generator)

    @jax.jit
    def traced(state):
        with keras.StatelessScope([(generator.state, state)]) as scope:
            return drawn((5,)), scope.get_current_value(generator.state)

    state = generator.state.value
    for use in range(2):
        made, state = traced(state)
        same(made, drawn.numinit((5,), seed=ni.Key(5).fold_in(use)))
    same(init((3, 4), "float64"), init.numinit((3, 4), seed=1))  # x64 is off


def layout_map():
    mesh = keras.distribution.DeviceMesh((4, 2), axis_names=("batch", "model"))
    layouts = keras.distribution.LayoutMap(mesh)
    layouts["kernel"] = keras.distribution.TensorLayout([None, "model"])
    layouts["bias"] = keras.distribution.TensorLayout(["model"])
    return mesh, layouts


@pytest.mark.skipif(BACKEND != "jax", reason="of JAX")
@pytest.mark.parametrize(
    ("init", "parts"),
    [
        (nk.HeNormal(seed=3), 2),
        (nk.KaimingNormal(seed=3), 2),
        (nk.Padded(nk.RandomNormal(seed=3), 1), 2),
        (nk.Orthogonal(seed=3), 1),  # the whole
    ],
    ids=lambda value: type(value).__name__,
)
def test_layouts(init, parts, monkeypatch):
    import jax

    assert jax.device_count() == 8, os.environ["XLA_FLAGS"]
    asked = []
    real = ni.Initializer.fill_

    def spy(self, array, **kwargs):
        if self == init.numinit:
            asked.append(array.shape)
        return real(self, array, **kwargs)

    monkeypatch.setattr(ni.Initializer, "fill_", spy)
    mesh, layouts = layout_map()
    expected = init.numinit((6, 8), seed=3)
    with keras.distribution.ModelParallel(layout_map=layouts).scope():
        kernel = keras.Variable(init, (6, 8), "float32", name="kernel").value
    assert kernel.sharding.is_equivalent_to(
        jax.sharding.NamedSharding(mesh.backend_mesh, jax.sharding.PartitionSpec(None, "model")), 2
    )
    same(kernel, expected)
    same(
        kernel.addressable_shards[1].data,
        np.ascontiguousarray(expected[kernel.addressable_shards[1].index]),
    )
    assert asked == [(6, 8 // parts)] * parts  # each part is made once
    layout = keras.distribution.TensorLayout(["model", "batch"], mesh)
    for given in (layout, layout.backend_layout):
        same(init((6, 8), layout=given), expected)
        same(jax.jit(functools.partial(init, (6, 8), layout=given))(), expected)
        assert init((6, 8), layout=given).addressable_shards[0].data.shape == (3, 2)
    with keras.distribution.DataParallel().scope():
        same(keras.Variable(init, (6, 8), "float32").value, expected)


@pytest.mark.skipif(BACKEND != "jax", reason="of JAX")
def test_a_sharded_model_trains_a_step():
    _, layouts = layout_map()
    with keras.distribution.ModelParallel(layout_map=layouts).scope():
        net = keras.Sequential(
            [keras.Input((6,)), keras.layers.Dense(8, kernel_initializer=nk.HeNormal(seed=1))]
        )
        net.compile("sgd", "mse")
        net.fit(np.ones((16, 6)), np.ones((16, 8)), verbose=0)
