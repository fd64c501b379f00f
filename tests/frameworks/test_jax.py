"""numinit.jax: JAX's names and errors, numinit's bits, in and out of JAX's transformations."""

import copy
import inspect
import itertools
import math
import os
import pickle
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
from jax.sharding import PartitionSpec as P  # noqa: E402

import numinit as ni  # noqa: E402
import numinit.jax as nj  # noqa: E402
from numinit.jax import arrays, initializers  # noqa: E402
from numinit.jax.keys import of_words  # noqa: E402

HERE = Path(__file__).parent
PACKAGE = Path(ni.__file__).parents[1]
PEER = jax.nn.initializers
NAMES = [name for name in dir(PEER) if not name.startswith("_")]
KEY = jax.random.key(42)
SHAPE = 4, 6, 8

DRAWN = {
    "uniform": (initializers.uniform(2.0), ni.Uniform(0.0, 2.0)),
    "normal": (initializers.normal(2.0), ni.Normal(0.0, 2.0)),
    "truncated_normal": (
        initializers.truncated_normal(2.0, lower=-1.0, upper=0.5),
        ni.TruncatedNormal(0.0, 2.0, -1.0, 0.5),
    ),
    "he_normal": (
        initializers.he_normal(),
        ni.VarianceScaling(2.0, "fan_in", "truncated_normal", in_axis=-2, out_axis=-1),
    ),
    "glorot_uniform": (
        initializers.glorot_uniform(in_axis=0, out_axis=(1, 2)),
        ni.VarianceScaling(1.0, "fan_avg", "uniform", in_axis=0, out_axis=(1, 2)),
    ),
    "orthogonal": (initializers.orthogonal(2.0), ni.Orthogonal(2.0, out_axis=-1)),
    "delta_orthogonal": (
        initializers.delta_orthogonal(),
        ni.DeltaOrthogonal(in_axis=-2, out_axis=-1),
    ),
}
REAL = {"uniform", "truncated_normal"}


def x64(on):
    return jax.enable_x64(on) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64(on)


def same(made, expected):
    assert isinstance(made, jax.Array)
    assert made.shape == expected.shape
    assert made.dtype == expected.dtype
    assert np.asarray(made).tobytes() == np.asarray(expected).tobytes()


def run(script, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, str(HERE / script), *arguments],
        env={**os.environ, "PYTHONPATH": str(PACKAGE), "JAX_PLATFORMS": "cpu", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process):
    try:
        out, errors = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 0, out[-2000:] + errors[-4000:]
    assert out.splitlines()[-1] == "OK"
    return out


def devices(count):
    return {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}


def test_importing_numinit_imports_no_jax():
    code = "import sys, numinit; assert not {'jax', 'jaxlib'} & set(sys.modules); print('OK')"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_without_jax_the_error_names_the_extra():
    code = "import sys; sys.modules['jax'] = None; import numinit.jax"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert b"pip install 'numinit[jax]'" in done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_every_name_has_the_peers_arguments_and_defaults(name):
    ours, theirs = getattr(initializers, name), getattr(PEER, name)
    assert name in initializers.__all__
    if name in ("zeros", "ones", "Initializer"):
        assert ours is theirs
        return
    assert ours.__name__ == theirs.__name__
    assert ours.__doc__
    assert pickle.loads(pickle.dumps(ours)) is ours
    mine, peers = inspect.signature(ours).parameters, inspect.signature(theirs).parameters
    assert [(p.name, p.kind, p.default) for p in mine.values()] == [
        (p.name, p.kind, p.default) for p in peers.values()
    ]
    needed = {"constant": (1.0,), "variance_scaling": (1.0, "fan_in", "normal")}.get(name, ())
    mine, peers = (inspect.signature(f(*needed)).parameters for f in (ours, theirs))
    assert [(p.name, p.kind) for p in mine.values()] == [(p.name, p.kind) for p in peers.values()]
    assert isinstance(ours(*needed), PEER.Initializer)


def test_no_name_is_missing_or_new():
    assert sorted(initializers.__all__) == sorted(NAMES)
    assert initializers.kaiming_normal is initializers.he_normal
    assert initializers.xavier_uniform is initializers.glorot_uniform


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "complex64"])
@pytest.mark.parametrize("name", DRAWN)
def test_values_are_numinits(name, dtype):
    if dtype == "complex64" and name in REAL:
        pytest.skip("it is real")
    draw, init = DRAWN[name]
    expected = init(SHAPE, dtype, seed=42)
    assert draw(KEY, SHAPE, dtype).dtype == dtype
    same(draw(KEY, SHAPE, jnp.dtype(dtype)), expected)
    same(nj.make_array(draw, SHAPE, jax.devices()[0], seed=KEY, dtype=dtype), expected)


@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (5, 1)])
def test_small_shapes(shape):
    expected = ni.Normal()(shape, seed=42)
    draw = initializers.normal(1.0)
    same(draw(KEY, shape), expected)
    same(jax.jit(lambda key: draw(key, shape))(KEY), expected)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (3, 3, 32, 64)),
        ({"in_axis": 0, "out_axis": (1, 2)}, (128, 4, 64)),
        ({"in_axis": -1, "out_axis": -2, "batch_axis": 0}, (4, 64, 128)),
    ],
)
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("he_normal", "float32"),
        ("he_normal", "complex64"),
        ("lecun_uniform", "float32"),
        ("lecun_uniform", "complex64"),
        ("glorot_normal", "float32"),
    ],
)
def test_variances_are_the_peers(name, options, shape, dtype):
    """The spread follows from the same fans; JAX's complex truncated normal is 1% too wide."""
    ours = getattr(initializers, name)(**options)(KEY, shape, dtype)
    theirs = getattr(PEER, name)(**options)(KEY, shape, dtype)
    wide = 0.96196182800821354 / 0.95311164380491208
    factor = wide if dtype == "complex64" and name.endswith("normal") else 1.0
    assert float(theirs.std() / ours.std() / factor) == pytest.approx(1.0, abs=0.02)
    assert float(jnp.abs(theirs).max() / jnp.abs(ours).max() / factor) < 1.05
    assert abs(complex(ours.mean())) < 0.02


def test_dtypes_are_the_peers():
    draw, own = initializers.normal(1.0), initializers.normal(1.0, jnp.bfloat16)
    assert draw(KEY, (2,)).dtype == jnp.float32
    assert own(KEY, (2,)).dtype == jnp.bfloat16
    assert own(KEY, (2,), None).dtype == jnp.float32  # as JAX does
    assert own(KEY, (2,), jnp.float16).dtype == jnp.float16
    with pytest.warns(UserWarning, match="float64"):
        same(draw(KEY, SHAPE, np.float64), ni.Normal()(SHAPE, "float32", seed=42))
    with x64(True):
        expected = ni.Normal()(SHAPE, "float64", seed=42)
        same(draw(KEY, SHAPE), expected)
        same(jax.jit(lambda key: draw(key, SHAPE))(KEY), expected)
        assert initializers.he_normal()(KEY, SHAPE, jnp.float32).dtype == jnp.float32
        assert nj.make_array(draw, (2,), jax.devices()[0], seed=0).dtype == jnp.float64


def keys():
    yield 42, jax.random.key(42), ni.Key(42)
    yield "old", jax.random.PRNGKey(42), ni.Key(42)
    yield "NumPy", np.array([1, 2], np.uint32), ni.Key((1 << 32) + 2)
    yield "large", jax.random.wrap_key_data(np.array([2**32 - 1, 7], np.uint32)), None
    yield "rbg", jax.random.key(7, impl="rbg"), ni.Key(7, 7)
    yield "split", jax.random.split(jax.random.key(0))[1], None


@pytest.mark.parametrize(("name", "key", "expected"), list(keys()), ids=lambda v: str(v)[:9])
def test_keys_are_their_words(name, key, expected):
    words = np.asarray(jax.random.key_data(key)).tolist()
    found = nj.as_key(key)
    if expected is not None:
        assert found == expected
    assert found.seed == (words[0] << 32) + words[1]
    same(initializers.normal(1.0)(key, SHAPE), ni.Normal()(SHAPE, seed=found))


def test_other_seeds_and_words():
    assert nj.as_key(5) == ni.Key(5)
    assert nj.as_key(ni.Key(5, 6)) == ni.Key(5, 6)
    assert of_words(np.array([9], np.uint32)) == ni.Key(9)
    assert of_words(np.arange(6)) == ni.Key(1, (2 << 32) + 3).fold_in(4).fold_in(5)


@pytest.mark.parametrize(
    "key",
    [None, 5, "x", np.zeros(3, np.uint32), np.zeros(2, np.int32), np.zeros((3, 2), np.uint32),
     jax.random.split(jax.random.key(0), 3)],
)  # fmt: skip
def test_what_is_no_key_is_refused_as_the_peer_does(key):
    with pytest.raises((TypeError, ValueError)) as theirs:
        PEER.normal()(key, (2,))
    with pytest.raises(theirs.type):
        initializers.normal()(key, (2,))
    assert initializers.zeros(None, (2,)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", DRAWN)
def test_transformations_change_nothing(name):
    draw, init = DRAWN[name]
    expected = init(SHAPE, seed=42)
    many = jax.random.split(KEY, 3)
    stacked = np.stack([np.asarray(draw(key, SHAPE)) for key in many])
    one = lambda key: draw(key, SHAPE)  # noqa: E731
    same(jax.jit(one)(KEY), expected)
    same(jax.jit(one)(jax.random.PRNGKey(42)), expected)
    same(jax.jit(lambda: draw(KEY, SHAPE))(), expected)  # staged, no constant of the program
    same(jax.vmap(one)(many), stacked)
    same(jax.jit(jax.vmap(one))(many), stacked)
    same(jax.vmap(jax.vmap(one))(many[None]), stacked[None])
    same(jax.lax.map(one, many), stacked)
    same(
        jax.jit(lambda keys: jax.lax.scan(lambda n, key: (n, one(key)), 0, keys)[1])(many), stacked
    )
    same(jax.jit(jax.checkpoint(one))(KEY), expected)
    with jax.disable_jit():
        same(jax.lax.map(one, many), stacked)
    abstract = jax.eval_shape(one, KEY)
    assert (abstract.shape, abstract.dtype) == (SHAPE, jnp.float32)


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "complex64"])
def test_types_inside_of_jit(dtype):
    draw = initializers.normal(1.0)
    expected = ni.Normal()(SHAPE, dtype, seed=42)
    same(draw(KEY, SHAPE, dtype), expected)
    same(jax.jit(lambda key: draw(key, SHAPE, dtype))(KEY), expected)


@pytest.mark.parametrize("name", DRAWN)
def test_callbacks_that_return_arrays_give_the_same(name, monkeypatch):
    """As on platforms where a callback cannot write into XLA's memory."""
    from numinit.jax import traced

    monkeypatch.setattr(traced, "buffer_callback", None)
    draw, init = DRAWN[name]
    same(jax.jit(lambda key: draw(key, SHAPE))(KEY), init(SHAPE, seed=42))
    many = jax.random.split(KEY, 2)
    stacked = np.stack([np.asarray(draw(key, SHAPE)) for key in many])
    same(jax.jit(jax.vmap(lambda key: draw(key, SHAPE)))(many), stacked)


def test_traced_parameters_and_gradients():
    def total(stddev):
        return initializers.normal(stddev)(KEY, SHAPE).sum()

    unit = float(initializers.normal(1.0)(KEY, SHAPE).sum())
    assert float(jax.grad(total)(2.0)) == pytest.approx(unit, rel=1e-5)
    assert float(jax.jit(total)(2.0)) == pytest.approx(2 * unit, rel=1e-5)
    scaled = jax.jit(
        lambda scale: initializers.variance_scaling(scale, "fan_in", "normal")(KEY, SHAPE)
    )
    expected = initializers.variance_scaling(2.0, "fan_in", "normal")(KEY, SHAPE)
    assert np.allclose(scaled(2.0), expected, rtol=1e-6)
    assert initializers.normal(jnp.float32(0.5)) == initializers.normal(0.5)


@pytest.mark.parametrize("row", [np.arange(8.0), jnp.arange(8.0), list(range(8))])
def test_arrays_as_parameters_broadcast_as_the_peers(row):
    for make in (initializers.uniform, initializers.normal, initializers.truncated_normal,
                 initializers.orthogonal):  # fmt: skip
        expected = make(1.0)(KEY, SHAPE) * jnp.arange(8.0)
        same(make(row)(KEY, SHAPE), expected)
        same(jax.jit(lambda key, make=make: make(row)(key, SHAPE))(KEY), expected)
    scaled = initializers.variance_scaling(row, "fan_in", "normal")(KEY, SHAPE)
    unit = initializers.variance_scaling(1.0, "fan_in", "normal")(KEY, SHAPE)
    same(scaled, unit * jnp.sqrt(jnp.arange(8.0)))
    same(
        initializers.constant(np.asarray(row))(KEY, SHAPE),
        np.zeros(SHAPE, "f") + np.arange(8, dtype="f"),
    )


@pytest.mark.parametrize("array", [np.arange(8.0), jnp.arange(8.0)])
def test_an_array_as_a_parameter_is_a_static_argument(array):
    """It is equal to itself alone: another array with the same parameters compiles again."""
    compiled = jax.jit(lambda draw, key: draw(key, SHAPE), static_argnums=0)
    for make in (initializers.normal, initializers.constant):
        draw, other = make(array), make(array * 2)
        assert draw == draw
        assert draw != other
        for held in (draw, other):
            same(compiled(held, KEY), held(KEY, SHAPE))
    assert initializers.constant(jnp.float32(0.5)) == initializers.constant(0.5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_arrays_as_parameters_of_a_lifted_module():
    nn = pytest.importorskip("flax.linen")
    draw = initializers.normal(jnp.ones(4))
    made = nn.jit(nn.Dense)(4, kernel_init=draw, bias_init=initializers.constant(jnp.arange(4.0)))
    params = made.init(KEY, np.ones((1, 3), np.float32))["params"]
    assert params["bias"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("bound", ["lower", "upper"])
def test_bounds_are_numbers(bound):
    def draw(value):
        return initializers.truncated_normal(1.0, **{bound: value})(KEY, SHAPE)

    for call in (lambda: jax.jit(draw)(0.5), lambda: draw(np.array([0.5, 1.0])), lambda: draw("x")):
        with pytest.raises(TypeError, match=f"^{bound}: .* a real number is accepted"):
            call()
    same(draw(jnp.float32(0.5)), draw(0.5))


@pytest.mark.parametrize("given", [np.nan, np.inf, -np.inf, jnp.inf])
def test_parameters_are_finite(given):
    made = {
        "stddev": [initializers.normal, initializers.truncated_normal],
        "scale": [
            initializers.uniform,
            initializers.orthogonal,
            initializers.delta_orthogonal,
            lambda scale: initializers.variance_scaling(scale, "fan_in", "normal"),
        ],
    }
    for name, makers in made.items():
        for make in makers:
            with pytest.raises(ValueError, match=f"^{name}: {given} was given"):
                make(given)


def test_bounds_are_infinite_but_not_nan():
    draw = initializers.truncated_normal(1.0, lower=-np.inf, upper=np.inf)
    assert np.abs(draw(KEY, (100_000,))).max() > 3
    for bounds in ({"lower": np.nan}, {"upper": np.nan}, {"lower": 3}, {"upper": -np.inf}):
        with pytest.raises(ValueError, match=r"^low"):
            initializers.truncated_normal(**bounds)(KEY, (2,))


def test_negative_scales():
    for draw in (initializers.uniform(-2.0), initializers.truncated_normal(-2.0, lower=0, upper=1)):
        values = np.asarray(draw(KEY, (1000,)))
        assert -2 <= values.min() < -1.9
        assert -0.1 < values.max() <= 0
    same(initializers.normal(-2.0)(KEY, SHAPE), ni.Normal(0, 2.0)(SHAPE, seed=42))


@pytest.mark.parametrize(
    ("name", "arguments", "shape", "dtype"),
    [
        ("uniform", (), (2,), "int32"),
        ("uniform", (), (2,), "complex64"),
        ("truncated_normal", (), (2,), "complex64"),
        ("normal", (), (2,), "bool"),
        ("normal", (), (2,), "nonsense"),
        ("he_normal", (), (5,), None),
        ("he_normal", (), (), None),
        ("he_normal", (5,), (2, 2), None),
        ("he_normal", (0, 5), (2, 2), None),
        ("orthogonal", (), (5,), None),
        ("orthogonal", (1.0, 5), (2, 2), None),
        ("delta_orthogonal", (), (2, 2), None),
        ("delta_orthogonal", (), (3, 4, 2), None),
        ("delta_orthogonal", (1.0, 5), (3, 2, 2), None),
        ("variance_scaling", (1.0, "fan", "normal"), (2, 2), None),
        ("variance_scaling", (1.0, "fan_in", "cauchy"), (2, 2), None),
    ],
)
@pytest.mark.parametrize("staged", [False, True])
def test_errors_are_the_peers(name, arguments, shape, dtype, staged):
    def make(module):
        def call(key):
            return getattr(module, name)(*arguments)(key, shape, dtype)

        return (jax.jit(call) if staged else call)(KEY)

    with pytest.raises((TypeError, ValueError, IndexError)) as theirs:
        make(PEER)
    with pytest.raises(theirs.type) as ours:
        make(initializers)
    for words in ("Can't compute", "must be a float", "at least a 2D"):
        assert (words in str(ours.value)) == (words in str(theirs.value))


def test_refusals_of_our_own():
    for given in ("x", None, 1j):
        with pytest.raises(TypeError, match=r"^stddev: .* a real number is accepted"):
            initializers.normal(given)
        with pytest.raises(TypeError, match=r"^scale: .* a real number is accepted"):
            initializers.variance_scaling(given, "fan_in", "normal")
    with pytest.raises(TypeError, match="float8_e3m4"):
        initializers.normal()(KEY, (2,), jnp.float8_e3m4)
    with pytest.raises(TypeError, match=r"^out_sharding: .* NamedSharding"):
        initializers.normal()(KEY, (2,), out_sharding=jax.devices()[0])
    for wrap in (lambda call: call, jax.jit):
        with pytest.raises(ValueError, match=r"sharding: .* without a mesh"):
            wrap(lambda key: initializers.normal()(key, (2,), out_sharding=P("x")))(KEY)
    for seed in (None, "x"):
        with pytest.raises(TypeError, match=r"^seed: "):
            nj.make_array(initializers.normal(), (2,), jax.devices()[0], seed=seed)
        with pytest.raises(TypeError, match=r"^seed: "):
            nj.init_pytree({}, initializers.normal(), seed=seed)
    device, leaf = jax.devices()[0], jax.ShapeDtypeStruct((2,), "float32")
    for call in (
        nj.as_key,
        lambda key: nj.make_array(initializers.normal(), (2,), device, seed=key),
        lambda key: nj.init_pytree(leaf, initializers.normal(), seed=key),
    ):
        for wrap in (jax.jit, lambda call: lambda key: jax.vmap(call)(key[None])):
            with pytest.raises(TypeError, match=r"^seed: a traced key .* numinit\.jax"):
                wrap(call)(KEY)
    with pytest.raises(TypeError, match=r"^sharding: "):
        nj.make_array(initializers.normal(), (2,), "x", seed=0)
    for given in (PEER.normal(), 3, "normal"):
        with pytest.raises(TypeError, match=r"^initializer: "):
            nj.make_array(given, (2,), jax.devices()[0], seed=0)
    for make, words in (
        (initializers.normal, "initializer: normal"),
        (initializers.constant, "value"),
    ):
        with pytest.raises(TypeError, match=rf"^{words}.* number"):
            nj.make_array(make(np.arange(2.0)), (2,), jax.devices()[0], seed=0)


def test_equal_functions_are_equal():
    """A module that holds one as a static field does not compile again."""
    makers = [lambda: initializers.normal(0.1), initializers.he_normal, initializers.orthogonal,
              lambda: initializers.variance_scaling(1.0, "fan_in", "uniform", in_axis=[0, 1])]  # fmt: skip
    traces = []

    def call(draw, key):
        traces.append(draw)
        return draw(key, (4, 3, 2))

    compiled = jax.jit(call, static_argnums=0)
    for make in makers:
        assert make() == make()
        assert hash(make()) == hash(make())
        same(compiled(make(), KEY), compiled(pickle.loads(pickle.dumps(make())), KEY))
        assert copy.deepcopy(make()) == make()
    assert len(traces) == len(makers)
    assert initializers.normal(0.1) != initializers.normal(0.2)


def test_a_call_outside_of_jit_compiles_once(caplog):
    many, compiled = jax.random.split(KEY, 2), []
    for _ in range(2):
        caplog.clear()
        with jax.log_compiles():
            jax.vmap(lambda key: initializers.normal(0.3)(key, (3, 5)))(many)
        compiled.append("Compiling" in caplog.text)
    assert compiled == [True, False]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64"])
def test_jax_adopts_what_was_filled(dtype, monkeypatch):
    made = []

    def kept(*what):
        made.append(arrays_aligned(*what))
        return made[-1]

    arrays_aligned = arrays.aligned
    monkeypatch.setattr(arrays, "aligned", kept)
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    for array in (
        initializers.normal()(KEY, (1000, 7), dtype),
        nj.make_array(initializers.normal(), (1000, 7), sharding, seed=0, dtype=dtype),
    ):
        array.block_until_ready()
        if jax.default_backend() == "cpu":
            assert array.unsafe_buffer_pointer() == made.pop(0).ctypes.data


def test_a_donated_array_is_given_up():
    array = initializers.normal(1.0)(KEY, SHAPE)
    expected = np.asarray(array) + 1
    added = jax.jit(lambda a: a + 1, donate_argnums=0)(array)
    assert np.array_equal(added, expected)


def test_constants():
    draw = initializers.constant(np.arange(3), jnp.int32)
    assert draw(KEY, (2, 3)).tolist() == [[0, 1, 2]] * 2
    assert draw(KEY, (2, 3)).dtype == jnp.int32
    assert draw(KEY, (2, 3), None).dtype == jnp.float32
    same(
        nj.make_array(initializers.constant(2.5), (3,), jax.devices()[0], seed=0),
        np.full(3, 2.5, "f"),
    )


def test_a_tree_without_arrays_is_refused():
    assert nj.init_pytree({}, ni.Uniform(), seed=5) == {}
    with pytest.raises(TypeError, match=r"^abstract: .*\(2, 3\).* shape and a dtype"):
        nj.init_pytree({"w": (2, 3)}, ni.Uniform(), seed=5)


def test_names_of_leaves():
    leaf = jax.ShapeDtypeStruct((2, 3), "float32")
    tree = {"mlp/~/linear_0": {"w": leaf}, "layers": [(leaf, {"x.y": leaf})], "f": abs, "n": None}
    made = nj.init_pytree(tree, ni.Uniform(), seed=5)
    paths = {
        "mlp.~.linear_0.w": made["mlp/~/linear_0"]["w"],
        "layers.0.0": made["layers"][0][0],
        "layers.0.1.x.y": made["layers"][0][1]["x.y"],
    }
    expected = ni.init_params(dict.fromkeys(paths, (2, 3)), {"*": ni.Uniform()}, seed=5)
    for name, array in paths.items():
        same(array, expected[name])
        assert not array.committed
    assert made["f"] is abs
    assert made["n"] is None


def test_recipes_of_a_model():
    leaf = jax.ShapeDtypeStruct((6, 4), "float32")
    abstract = {"h": [{"w": leaf, "n": jax.ShapeDtypeStruct((2,), "int32")}] * 2}
    recipe = {"h.0.*": initializers.normal(2.0), "*.n": initializers.ones, "*": ni.Zeros()}
    with pytest.raises(ValueError, match=r"'h\.0\.n' is int32"):
        nj.init_pytree(abstract, recipe, seed=0)
    recipe = {"*.n": initializers.ones, "h.0.*": initializers.normal(2.0), "*": ni.Zeros()}
    made = nj.init_pytree(abstract, recipe, seed=KEY)
    same(made["h"][0]["w"], ni.Normal(0, 2.0)((6, 4), seed=ni.Key(42).fold_in("h.0.w")))
    assert made["h"][1]["n"].tolist() == [1, 1]
    assert made["h"][1]["n"].dtype == jnp.int32
    assert not np.asarray(made["h"][1]["w"]).any()
    made = nj.init_pytree(abstract, ni.models.recipes.as_recipe({"*": ni.Zeros()}), seed=0)
    assert made["h"][0]["n"].tolist() == [0, 0]
    same(
        nj.init_pytree(
            {"w": jax.ShapeDtypeStruct((6, 4), "float32")}, initializers.orthogonal(), seed=1
        )["w"],
        initializers.orthogonal().initializer((6, 4), seed=ni.Key(1).fold_in("w")),
    )


def test_trees_that_are_refused():
    leaf = jax.ShapeDtypeStruct((2, 3), "float32")
    with pytest.raises(ValueError, match=r"two leaves have the name 'a\.b'"):
        nj.init_pytree({"a/b": leaf, "a": {"b": leaf}}, ni.Zeros(), seed=0)
    with pytest.raises(ni.models.recipe.RecipeError, match="'b'"):
        nj.init_pytree({"b": leaf}, {"a": ni.Zeros()}, seed=0)
    with pytest.raises(TypeError, match=r"leaf 'key': it is a key"):
        nj.init_pytree({"key": KEY}, ni.Zeros(), seed=0)
    with pytest.raises(ValueError, match="'n' is int32"):
        nj.init_pytree({"n": jax.ShapeDtypeStruct((), "int32")}, ni.Normal(), seed=0)
    with pytest.raises(ValueError, match=r"Mismatch|mismatch|structure"):
        nj.init_pytree({"a": leaf}, ni.Zeros(), {"b": None}, seed=0)
    rows = jax.sharding.NamedSharding(jax.make_mesh((1,), ("x",)), P("x"))
    with pytest.raises(ValueError, match="leaf 's'"):
        nj.init_pytree({"s": jax.ShapeDtypeStruct((), "float32")}, ni.Zeros(), rows, seed=0)


def test_several_devices():
    out = finished(run("jax_devices.py", **devices(8)))
    digests = re.findall(r"(\d) devices: (\w+)", out)
    assert [count for count, _ in digests] == ["1", "2", "4", "8"]
    assert len({digest for _, digest in digests}) == 1


def test_several_processes():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    started = [run("jax_processes.py", address, "2", str(n), **devices(2)) for n in range(2)]
    halves = [finished(process) for process in started]
    whole = b"".join(bytes.fromhex(re.search(r"half: (\w+)", half)[1]) for half in halves)
    assert whole == ni.Normal(std=0.02)((16, 8, 12), seed=42).tobytes()


def test_shards_on_gpus_by_the_simulator():
    from numinit.engines.cuda_driver import lacking

    if what := lacking():
        pytest.skip(what)
    finished(run("jax_simulator.py", **devices(4), NUMBA_ENABLE_CUDASIM="1"))


def test_shards_on_gpus():
    try:
        jax.devices("cuda")
    except RuntimeError as error:
        pytest.skip(f"JAX sees no NVIDIA GPU: {str(error)[:80]}")
    finished(run("jax_gpu.py", JAX_PLATFORMS="cuda,cpu"))


# Models: each trains a step, and is saved and loaded.


def data():
    x = np.linspace(-1, 1, 40, dtype=np.float32).reshape(10, 4)
    return x, np.sin(x[:, :1])


def step(loss, params):
    """One step of gradient descent, which lowers the loss."""
    before, slopes = jax.jit(jax.value_and_grad(loss))(params)
    params = jax.tree.map(lambda p, g: p - 0.01 * g, params, slopes)
    assert float(loss(params)) < float(before)
    return params


def equal_trees(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        same(a, b)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_of_flax_linen():
    nn = pytest.importorskip("flax.linen")
    from flax import serialization

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.Dense(4, kernel_init=initializers.lecun_normal())(x), None

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(4, kernel_init=initializers.he_normal())(x)
            split = {"params": True}
            x, _ = nn.scan(Block, {"params": 0}, split_rngs=split, length=3)()(x, None)
            kernel = nn.with_partitioning(initializers.orthogonal(), (None, "x"))
            return nn.Dense(1, kernel_init=kernel, bias_init=initializers.zeros)(nn.tanh(x))

    model, (x, y) = Model(), data()
    variables = model.init(KEY, x)
    equal_trees(variables, jax.jit(model.init)(KEY, x))
    scanned = variables["params"]["ScanBlock_0"]["Dense_0"]["kernel"]
    assert scanned.shape == (3, 4, 4)
    assert len(np.unique(np.asarray(scanned))) == 48
    abstract = jax.eval_shape(model.init, KEY, x)
    recipe = {"*.bias": initializers.zeros, "*": initializers.he_normal()}
    made = nj.init_pytree(abstract, recipe, seed=0)
    assert jax.tree.structure(made) == jax.tree.structure(variables)
    name = "params.Dense_1.kernel"  # without the box's "value"
    same(
        made["params"]["Dense_1"]["kernel"].value,
        recipe["*"].initializer((4, 1), seed=ni.Key(0).fold_in(name)),
    )

    def loss(variables):
        return ((model.apply(variables, x) - y) ** 2).mean()

    trained = step(loss, nn.meta.unbox(made))
    loaded = serialization.from_bytes(
        jax.tree.map(jnp.zeros_like, trained), serialization.to_bytes(trained)
    )
    equal_trees(jax.tree.map(jnp.asarray, loaded), trained)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_of_flax_nnx():
    nnx = pytest.importorskip("flax.nnx")

    class Model(nnx.Module):
        def __init__(self, rngs):
            init = initializers.he_normal()
            self.first = nnx.Linear(4, 8, kernel_init=init, rngs=rngs)
            self.norm = nnx.BatchNorm(8, rngs=rngs)
            self.last = nnx.Linear(8, 1, kernel_init=initializers.glorot_uniform(), rngs=rngs)

        def __call__(self, x):
            return self.last(nnx.relu(self.norm(self.first(x))))

    eager = nnx.state(Model(nnx.Rngs(0)), nnx.Param)
    jitted = nnx.state(nnx.jit(lambda: Model(nnx.Rngs(0)))(), nnx.Param)
    equal_trees(nnx.to_pure_dict(eager), nnx.to_pure_dict(jitted))

    @nnx.vmap(in_axes=0, out_axes=0)
    def layers(key):
        return nnx.Linear(4, 4, kernel_init=initializers.he_normal(), rngs=nnx.Rngs(key))

    stacked = np.asarray(layers(jax.random.split(KEY, 3)).kernel[...])
    assert len(np.unique(stacked)) == 48

    graph, state, rest = nnx.split(nnx.eval_shape(lambda: Model(nnx.Rngs(0))), nnx.Param, ...)
    recipe = {"*kernel": initializers.he_normal(), "*.scale": ni.Ones(), "*": initializers.zeros}
    made = nj.init_pytree(state, recipe, seed=0)
    key = ni.Key(0).fold_in("first.kernel")
    same(made["first"]["kernel"][...], recipe["*kernel"].initializer((4, 8), seed=key))
    rest = nj.init_pytree(rest, {"*.var": ni.Ones(), "*": ni.Zeros()}, seed=0)
    model, (x, y) = nnx.merge(graph, made, rest), data()

    def loss(model):
        return ((model(x) - y) ** 2).mean()

    before, slopes = nnx.jit(nnx.value_and_grad(loss))(model)
    state = nnx.state(model, nnx.Param)
    nnx.update(model, jax.tree.map(lambda p, g: p - 0.01 * g, state, slopes))
    assert float(loss(model)) < float(before)
    saved = pickle.dumps(jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model))))
    other = nnx.state(Model(nnx.Rngs(1)))
    nnx.replace_by_pure_dict(other, pickle.loads(saved))
    equal_trees(
        jax.tree.map(jnp.asarray, nnx.to_pure_dict(other)), nnx.to_pure_dict(nnx.state(model))
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_of_haiku(tmp_path):
    hk = pytest.importorskip("haiku")
    draw = initializers.he_normal()

    def forward(x):
        def init(shape, dtype):
            return draw(hk.next_rng_key(), shape, dtype)

        return hk.Linear(1, w_init=init)(jax.nn.relu(hk.Linear(8, w_init=init, name="in")(x)))

    model, (x, y) = hk.without_apply_rng(hk.transform(forward)), data()
    params = model.init(KEY, x)
    equal_trees(params, jax.jit(model.init)(KEY, x))
    abstract = jax.eval_shape(model.init, KEY, x)
    made = nj.init_pytree(abstract, {"*.b": ni.Zeros(), "*": draw}, seed=0)
    same(made["in"]["w"], draw.initializer((4, 8), seed=ni.Key(0).fold_in("in.w")))
    trained = step(lambda params: ((model.apply(params, x) - y) ** 2).mean(), made)
    flat = {f"{m}/{n}": np.asarray(v) for m, ps in trained.items() for n, v in ps.items()}
    np.savez(tmp_path / "params.npz", **flat)
    with np.load(tmp_path / "params.npz") as file:
        loaded = {m: {n: jnp.asarray(file[f"{m}/{n}"]) for n in ps} for m, ps in trained.items()}
    equal_trees(loaded, trained)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_of_equinox():
    eqx = pytest.importorskip("equinox")
    abstract = eqx.filter_eval_shape(lambda: eqx.nn.MLP(4, 1, 8, 1, key=KEY))
    # Equinox has torch's layout, and so numinit's own axes.
    recipe = {"*.bias": ni.Zeros(), "*": ni.KaimingNormal(nonlinearity="relu")}
    model, (x, y) = nj.init_pytree(abstract, recipe, seed=0), data()
    key = ni.Key(0).fold_in("layers.0.weight")
    same(model.layers[0].weight, recipe["*"]((8, 4), seed=key))
    params, static = eqx.partition(model, eqx.is_array)

    def loss(params):
        return ((jax.vmap(eqx.combine(params, static))(x) - y) ** 2).mean()

    step(loss, params)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torch_axes_are_no_initializer_of_flax():
    nn = pytest.importorskip("flax.linen")
    for init in (ni.KaimingNormal(), ni.Normal()):
        with pytest.raises(TypeError):
            nn.Dense(3, kernel_init=init).init(KEY, np.ones((1, 4), np.float32))
    assert initializers.he_normal().initializer.in_axis == -2
    assert math.isclose(
        float(initializers.he_normal()(KEY, (512, 4)).std()), math.sqrt(2 / 512), rel_tol=0.05
    )


def test_threads_draw_at_once():
    from concurrent.futures import ThreadPoolExecutor

    draw = initializers.normal(1.0)
    compiled = jax.jit(lambda key: draw(key, (1000, 100)))
    expected = [ni.Normal()((1000, 100), seed=n) for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        tasks = itertools.product((compiled, lambda key: draw(key, (1000, 100))), range(4))
        made = list(pool.map(lambda task: task[0](jax.random.key(task[1])), tasks))
    for array, value in zip(made, expected * 2, strict=True):
        same(array, value)


def test_the_benchmark_runs(monkeypatch, capsys):
    root = HERE.parents[1]
    if not (root / "benchmarks" / "jax_arrays.py").is_file():
        pytest.skip("the tests run without the benchmarks")
    monkeypatch.syspath_prepend(root)
    from benchmarks import jax_arrays

    code = jax_arrays.main(["--elements", "1000", "--repeat", "2"])
    out = capsys.readouterr().out
    assert code == ("BROKEN" in out)
    for name in (jax_arrays.NUMPY, jax_arrays.EAGER, jax_arrays.JIT, jax_arrays.PEER):
        assert re.search(rf"^{re.escape(name)} +[\d.]+ \[", out, re.M)
    assert out.count("promised") == len(jax_arrays.PROMISES)
