"""numinit.jax in one of several processes: run by test_jax.py.

Arguments: the coordinator's address, the number of processes, and this process's number. Prints the
digest of this process's half of a table, and OK at the end.
"""

import hashlib
import sys

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import numinit as ni
import numinit.jax as nj
from numinit.jax import initializers

SHAPE = 16, 8, 12


def main(address, count, number):
    jax.distributed.initialize(address, num_processes=int(count), process_id=int(number))
    assert jax.process_count() == int(count)
    mesh = jax.make_mesh((jax.device_count(),), ("x",))
    sharding = NamedSharding(mesh, P("x"))
    whole, draw = ni.Normal(std=0.02)(SHAPE, seed=42), initializers.normal(0.02)
    key = jax.random.key(42)

    fill, parts = ni.Initializer.fill_, []

    def counted(self, array, **options):
        parts.append(array.shape)
        return fill(self, array, **options)

    ni.Initializer.fill_ = counted
    made = nj.make_array(draw, SHAPE, sharding, seed=42)
    rows = SHAPE[0] // jax.device_count()
    assert parts == [(rows, *SHAPE[1:])] * jax.local_device_count()  # its own only
    ni.Initializer.fill_ = fill

    with jax.set_mesh(mesh):
        sharded = jax.jit(lambda key: draw(key, SHAPE, out_sharding=P("x")))(key)
    cut = jax.jit(lambda key: draw(key, SHAPE), out_shardings=sharding)(key)
    tree = nj.init_pytree({"w": jax.ShapeDtypeStruct(SHAPE, "float32")}, draw, sharding, seed=42)
    for array in (made, sharded, cut, draw(key, SHAPE, out_sharding=sharding)):
        assert not array.is_fully_addressable
        for shard in array.addressable_shards:
            assert (np.asarray(shard.data) == whole[shard.index]).all()
    named = ni.Normal(std=0.02)(SHAPE, seed=ni.Key(42).fold_in("w"))
    for shard in tree["w"].addressable_shards:
        assert (np.asarray(shard.data) == named[shard.index]).all()
    mean = float(jax.jit(lambda a: a.mean())(made))
    assert abs(mean - whole.mean()) < 1e-6  # the processes compute with it together
    parts = sorted(made.addressable_shards, key=lambda shard: shard.index[0].start)
    half = np.concatenate([np.asarray(shard.data) for shard in parts])
    print("half:", half.tobytes().hex())
    print("whole:", hashlib.sha256(whole.tobytes()).hexdigest())
    jax.distributed.shutdown()
    print("OK")


if __name__ == "__main__":
    main(*sys.argv[1:])
