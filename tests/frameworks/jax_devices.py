"""numinit.jax on several devices of one process: run by test_jax.py with 8 of the CPU.

Prints a line for each check, and OK at the end.
"""

import hashlib
import itertools

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

import numinit as ni
import numinit.jax as nj
from numinit.jax import initializers

SHAPE = 16, 8, 12
KEY = jax.random.key(42)
WHOLE = ni.Normal(std=0.02)(SHAPE, seed=42)


def digest(array):
    return hashlib.sha256(np.asarray(array).tobytes()).hexdigest()


def mesh_of(*sizes, kind=AxisType.Auto):
    names = "xyz"[: len(sizes)]
    devices = np.array(jax.devices()[: np.prod(sizes)]).reshape(sizes)
    return jax.sharding.Mesh(devices, tuple(names), axis_types=(kind,) * len(sizes))


def same(array, sharding, expected=WHOLE):
    assert array.sharding.is_equivalent_to(sharding, array.ndim), (array.sharding, sharding)
    assert digest(array) == digest(expected)


def made_arrays():
    """One digest, whatever the devices, the cuts and the way to ask."""
    draw = initializers.normal(0.02)
    for count in (1, 2, 4, 8):
        sharding = NamedSharding(mesh_of(count), P("x"))
        same(nj.make_array(draw, SHAPE, sharding, seed=42), sharding)
        same(draw(KEY, SHAPE, out_sharding=sharding), sharding)
        print(count, "devices:", digest(nj.make_array(draw, SHAPE, sharding, seed=KEY)))
    device = jax.devices()[3]
    same(nj.make_array(ni.Normal(std=0.02), SHAPE, device, seed=42), SingleDeviceSharding(device))


def each_device_makes_its_own(monkeypatched):
    sharding = NamedSharding(mesh_of(4, 2), P("x", "y"))
    nj.make_array(initializers.normal(), SHAPE, sharding, seed=0)
    assert monkeypatched == [(4, 4, 12)] * 8
    print("shards only")


def cuts():
    """Every cut, eager and inside of jit, on automatic and explicit meshes."""
    draw = initializers.normal(0.02)
    specs = [P(), P("x"), P("x", "y"), P(None, ("y", "x")), P(("x", "y"), None, "z"), P(None, "z")]
    for kind, spec in itertools.product((AxisType.Auto, AxisType.Explicit), specs):
        mesh = mesh_of(2, 2, 2, kind=kind)
        sharding = NamedSharding(mesh, spec)
        same(draw(KEY, SHAPE, out_sharding=sharding), sharding)
        with jax.set_mesh(mesh):
            same(draw(KEY, SHAPE, out_sharding=spec), sharding)
            for given in (spec, sharding):
                compiled = jax.jit(lambda key, given=given: draw(key, SHAPE, out_sharding=given))
                same(compiled(KEY), sharding)
        print(kind, spec)


def others_cut_them():
    """``jit(..., out_shardings=...)``, for models that know nothing of shardings."""
    sharding = NamedSharding(mesh_of(4, 2), P("x", "y"))
    draw = initializers.normal(0.02)
    same(jax.jit(lambda key: draw(key, SHAPE), out_shardings=sharding)(KEY), sharding)
    print("out_shardings")


def matrices():
    """Those that are made whole, by make_array; with out_sharding they are refused, as in JAX."""
    sharding = NamedSharding(mesh_of(2, 2), P(None, "x", "y"))
    for draw in (initializers.orthogonal(), initializers.delta_orthogonal()):
        made = nj.make_array(draw, (3, 4, 8), sharding, seed=1)
        same(made, sharding, draw.initializer((3, 4, 8), seed=1))
        try:
            draw(KEY, (3, 4, 8), out_sharding=sharding)
        except NotImplementedError as error:
            assert "make_array" in str(error)
        else:
            raise AssertionError(draw)
    for draw in (initializers.zeros, initializers.constant(2.5), ni.Eye()):
        made = nj.make_array(draw, (8, 8), NamedSharding(mesh_of(2, 2), P("x", "y")), seed=1)
        assert digest(made) == digest(nj.arrays.as_initializer(draw)((8, 8)))
    print("matrices")


def replicas():
    """They may share the host's memory; a donated one is not written for that."""
    everywhere = NamedSharding(mesh_of(8), P())
    made = nj.make_array(initializers.normal(0.02), SHAPE, everywhere, seed=42)
    kept = nj.make_array(initializers.normal(0.02), SHAPE, everywhere, seed=42)
    added = jax.jit(lambda a: a + 1, donate_argnums=0)(made)
    for shard in added.addressable_shards:
        assert digest(shard.data) == digest(WHOLE + 1)
    same(kept, everywhere)
    print("replicas")


def where_the_key_is():
    draw = initializers.normal(0.02)
    device = jax.devices()[5]
    made = draw(jax.device_put(KEY, device), SHAPE)
    assert made.devices() == {device} and made.committed
    assert not draw(KEY, SHAPE).committed
    everywhere = NamedSharding(mesh_of(2, 2), P())
    same(draw(jax.device_put(KEY, everywhere), SHAPE), everywhere)
    with jax.set_mesh(mesh_of(2, 2)):
        same(draw(KEY, SHAPE), everywhere)
    print("keys")


def trees():
    mesh = mesh_of(4)
    rows, all_ = NamedSharding(mesh, P("x")), NamedSharding(mesh, P())
    abstract = {
        "a": {
            "w": jax.ShapeDtypeStruct((8, 4), "bfloat16"),
            "n": jax.ShapeDtypeStruct((), "int32"),
        },
        "b": jax.ShapeDtypeStruct((12,), "float32", sharding=rows),
    }
    recipe = {"a.n": initializers.zeros, "*": ni.Uniform()}
    made = nj.init_pytree(abstract, recipe, {"a": all_, "b": None}, seed=3)
    same(made["a"]["w"], all_, ni.Uniform()((8, 4), "bfloat16", seed=ni.Key(3).fold_in("a.w")))
    same(made["a"]["n"], all_, np.int32(0))
    same(made["b"], rows, ni.Uniform()((12,), seed=ni.Key(3).fold_in("b")))
    with jax.set_mesh(mesh):
        made = nj.init_pytree(abstract, recipe, P(), seed=3)
        same(made["b"], all_, ni.Uniform()((12,), seed=ni.Key(3).fold_in("b")))
        explicit = mesh_of(4, kind=AxisType.Explicit)
    with jax.set_mesh(explicit):
        of_jit = jax.eval_shape(lambda: jax.numpy.zeros((8, 4), out_sharding=P("x")))
        same(
            nj.init_pytree({"w": of_jit}, ni.Uniform(), seed=3)["w"],
            NamedSharding(explicit, P("x")),
            ni.Uniform()((8, 4), seed=ni.Key(3).fold_in("w")),
        )
    print("trees")


def main():
    assert jax.device_count() == 8
    made_arrays()
    fill, parts = ni.Initializer.fill_, []

    def counted(self, array, **options):
        parts.append(array.shape)
        return fill(self, array, **options)

    ni.Initializer.fill_ = counted
    each_device_makes_its_own(parts)
    ni.Initializer.fill_ = fill
    cuts()
    others_cut_them()
    matrices()
    replicas()
    where_the_key_is()
    trees()
    print("OK")


if __name__ == "__main__":
    main()
