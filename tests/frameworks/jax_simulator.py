"""JAX's devices in the place of GPUs, under Numba's CUDA simulator: run by test_jax.py.

Each shard is filled by the kernel for GPUs, in memory that JAX allocated. Prints OK at the end.
"""

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import numinit as ni
import numinit.jax as nj
from numinit.engines import cuda_driver
from numinit.jax import arrays, initializers

SHAPE = 4, 4


def main():
    mesh = jax.make_mesh((2, 2), ("x", "y"))
    filled, waited = [], []
    arrays.ordinal_of = lambda device: device.id
    memory = arrays._Unseen.__cuda_array_interface__.fget

    def seen(self):
        filled.append((next(iter(self.array.devices())).id, self.shape))
        return memory(self)

    arrays._Unseen.__cuda_array_interface__ = property(seen)
    cuda_driver.wait = waited.append
    cases = [
        (ni.Normal(), "float32", P("x", "y")),
        (ni.Padded(ni.Uniform(), 1), "bfloat16", P(None, "x")),
        (ni.Eye(), "float32", P("y")),
    ]
    for draw, dtype, spec in cases:
        filled.clear()
        sharding = NamedSharding(mesh, spec)
        made = nj.make_array(draw, SHAPE, sharding, seed=7, dtype=dtype)
        expected = draw(SHAPE, dtype, seed=7)
        assert np.asarray(made).tobytes() == expected.tobytes(), (draw, dtype, spec)
        assert {device for device, _ in filled} == {0, 1, 2, 3}
        assert {shape for _, shape in filled} == {sharding.shard_shape(SHAPE)}
        assert sorted(waited[-4:]) == [0, 1, 2, 3]
    whole = NamedSharding(mesh, P("x"))  # made on the host, and cut
    made = nj.make_array(initializers.orthogonal(), SHAPE, whole, seed=7)
    assert (np.asarray(made) == initializers.orthogonal().initializer(SHAPE, seed=7)).all()
    filled.clear()
    made = nj.make_array(initializers.orthogonal(), SHAPE, NamedSharding(mesh, P()), seed=7)
    assert (np.asarray(made) == initializers.orthogonal().initializer(SHAPE, seed=7)).all()
    assert not filled  # made once for all replicas
    key = jax.random.key(7)
    made = initializers.normal(1.0)(key, SHAPE)
    assert (np.asarray(made) == ni.Normal()(SHAPE, seed=7)).all()
    assert not made.committed and set(filled) == {(0, SHAPE)}
    made = initializers.normal(1.0)(jax.device_put(key, jax.devices()[2]), SHAPE)
    assert made.committed and made.devices() == {jax.devices()[2]}
    assert filled[-1] == (2, SHAPE)
    assert initializers.normal(1.0)(key, (0, 3)).shape == (0, 3)
    interrupted(seen, filled, waited)
    print("OK")


def interrupted(seen, filled, waited):
    """Kernels that were started end before JAX gives their memory to other arrays."""
    sharding = NamedSharding(jax.make_mesh((4,), ("x",)), P("x"))
    for count, call in {
        3: lambda: nj.make_array(ni.Normal(), SHAPE, sharding, seed=7),
        1: lambda: initializers.normal(1.0)(jax.random.key(7), SHAPE),
    }.items():
        filled.clear()
        waited.clear()

        def fails(self, count=count):
            interface = seen(self)
            if len(filled) == count:
                raise KeyboardInterrupt
            return interface

        arrays._Unseen.__cuda_array_interface__ = property(fails)
        try:
            call()
        except KeyboardInterrupt:
            assert {device for device, _ in filled} == set(waited)
        else:
            raise AssertionError


if __name__ == "__main__":
    main()
