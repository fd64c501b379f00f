"""numinit.jax on the NVIDIA GPUs of this machine: run by test_jax.py, or alone.

Prints what it checks and the speed of 1 GiB of float32 normals, and OK at the end.
"""

import time

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import numinit as ni
import numinit.jax as nj
from numinit.engines.cuda_driver import lacking
from numinit.jax import arrays, initializers

SHAPE = 64, 48, 32
KEY = jax.random.key(42)
LARGE = 1 << 28


def same(made, expected):
    assert all(device.platform == "gpu" for device in made.devices())
    assert np.asarray(made).tobytes() == expected.tobytes()


def seconds(call):
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        made = jax.block_until_ready(call())
        times.append(time.perf_counter() - begin)
        del made
    return min(times)


def main():
    gpus = jax.devices("gpu")
    on_gpu = arrays.ordinal_of(gpus[0]) is not None
    print(jax.__version__, gpus, "our kernels:", on_gpu, lacking())
    mesh = jax.sharding.Mesh(np.array(gpus), ("x",))
    sharding = NamedSharding(mesh, P("x"))
    draw, init = initializers.normal(0.02), ni.Normal(std=0.02)
    for dtype in ("float32", "bfloat16", "float16", "complex64", "float8_e4m3fn"):
        expected = init(SHAPE, dtype, seed=42)
        same(nj.make_array(draw, SHAPE, sharding, seed=42, dtype=dtype), expected)
        same(draw(KEY, SHAPE, dtype), expected)
        same(draw(jax.device_put(KEY, gpus[-1]), SHAPE, dtype), expected)
        same(jax.jit(lambda key, dtype=dtype: draw(key, SHAPE, dtype))(KEY), expected)
        print(dtype)
    with jax.set_mesh(mesh):
        same(jax.jit(lambda key: draw(key, SHAPE, out_sharding=P("x")))(KEY), init(SHAPE, seed=42))
    for other in (
        initializers.he_uniform(),
        initializers.orthogonal(),
        ni.Eye(),
        initializers.ones,
    ):
        shape = (64, 32)
        expected = arrays.as_initializer(other)(shape, seed=1)
        same(nj.make_array(other, shape, gpus[0], seed=1), expected)
    tree = {"w": jax.ShapeDtypeStruct((64, 8), "bfloat16"), "n": jax.ShapeDtypeStruct((), "int32")}
    made = nj.init_pytree(tree, {"n": initializers.zeros, "*": draw}, sharding=gpus[0], seed=3)
    same(made["w"], init((64, 8), "bfloat16", seed=ni.Key(3).fold_in("w")))
    array = draw(KEY, SHAPE)
    expected = np.asarray(array) + 1
    same(jax.jit(lambda a: a + 1, donate_argnums=0)(array), expected)
    assert array.is_deleted()
    busy = jax.jit(lambda a: a @ a)(jax.numpy.ones((4096, 4096)))  # XLA's stream is at work
    for n in range(20):
        same(draw(jax.random.key(n), SHAPE), init(SHAPE, seed=n))
        busy = busy @ busy / 4096
    print("transformations, matrices, trees, donation, streams")
    large, peer = initializers.normal(1.0), jax.nn.initializers.normal(1.0)
    compiled = jax.jit(lambda key: peer(key, (LARGE,)))
    for name, call in {
        "numinit.jax": lambda: large(KEY, (LARGE,)),
        "jax.nn.initializers, jit": lambda: compiled(KEY),
    }.items():
        print(f"{name}: {LARGE * 4 / 1e9 / seconds(call):.1f} GB/s")
    print("OK")


if __name__ == "__main__":
    main()
