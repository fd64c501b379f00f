"""A table of 256 MiB as one framework makes it: run by test_one_table.py.

Arguments: how it is made, and for jax.distributed this process's number and the address. Prints the
digests of the table.
"""

import hashlib
import sys

import numpy as np

import numinit as ni

SHAPE, SEED, STD = (8192, 8192), 42, 0.02


def digest(table):
    assert table.shape == SHAPE and table.dtype == np.float32
    return hashlib.sha256(memoryview(np.ascontiguousarray(table)).cast("B")).hexdigest()


def of_numpy():
    yield ni.Normal(std=STD)(SHAPE, seed=SEED)


def of_torch():
    import torch

    yield ni.Normal(std=STD).fill_(torch.empty(SHAPE), seed=SEED).numpy()


def of_jax(number=None, address=None):
    import jax
    from jax.experimental import multihost_utils
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    import numinit.jax as nj

    if number is not None:
        jax.distributed.initialize(address, num_processes=2, process_id=int(number))
    draw, whole = nj.initializers.normal(STD), jax.device_count()
    assert whole == 8
    counts = (1, 2, 4, 8) if number is None else (8,)
    for count in counts:
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:count]), ("rows",))
        table = nj.make_array(draw, SHAPE, NamedSharding(mesh, P("rows")), seed=SEED)
        assert len(table.sharding.device_set) == count
        if number is None:
            yield np.asarray(table)
        else:
            yield multihost_utils.process_allgather(table, tiled=True)
    if number is None:
        yield np.asarray(jax.jit(lambda key: draw(key, SHAPE))(jax.random.key(SEED)))


def of_keras():
    import keras

    import numinit.keras as nk

    yield keras.ops.convert_to_numpy(nk.RandomNormal(0.0, STD, seed=SEED)(SHAPE))


WAYS = {"numpy": of_numpy, "torch": of_torch, "jax": of_jax, "keras": of_keras}


if __name__ == "__main__":
    for made in WAYS[sys.argv[1]](*sys.argv[2:]):
        print("digest:", digest(made))
