"""JAX, Flax, Haiku and Equinox: numinit's values by the names of ``jax.nn.initializers``.

**A drop-in has the peer's distribution, not its numbers.** Change one import, and a model draws
other values of the same distributions::

    from numinit.jax import initializers  # was: from jax.nn import initializers

    nn.Dense(64, kernel_init=initializers.he_normal())               # Flax, linen
    nnx.Linear(32, 64, kernel_init=initializers.he_normal(), rngs=rngs)         # Flax, nnx
    w = initializers.he_normal()(jax.random.key(0), (32, 64), jnp.bfloat16)     # JAX
    hk.Linear(64, w_init=lambda shape, dtype: init(hk.next_rng_key(), shape, dtype))  # Haiku
    layer = eqx.tree_at(lambda l: l.weight, layer, init(key, layer.weight.shape))     # Equinox

(Equinox has torch's layout, (out, in): there `init` needs ``in_axis=-1, out_axis=-2``.)

The values are numinit's. They are the same bits as those of the initializer in NumPy and in every
other framework, for the same key and the same logical shape. (A channels-last weight has another
logical shape than a channels-first one.) `as_key` says which `numinit.Key` a JAX key is; the key of
``jax.random.key(42)`` is ``Key(42)``. They do not depend on ``jit``, ``vmap``, ``scan``, on the
number of devices or on the sharding.

Outside of transformations an initializer fills new memory, which JAX adopts without a copy. Under
``jit`` and others it is a callback, which on CPUs writes into XLA's memory, and elsewhere is
`jax.pure_callback`: the host makes the values, and XLA copies them to the device. ``out_sharding``
lets every device make its own shard, also under ``jit``; without it, ``jit(..., out_shardings=...)``
makes the whole on every device and then cuts it.

Whole models and large tables
-----------------------------
`make_array` makes one sharded array, and `init_pytree` a whole model. Each process makes only the
shards of its own devices. On NVIDIA GPUs, with ``numinit[cuda12]`` or ``numinit[cuda13]``
installed, a shard is made on its own GPU in memory of JAX, without the host.

>>> import jax, numinit.jax
>>> from numinit.jax import initializers
>>> sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
>>> table = numinit.jax.make_array(initializers.normal(0.02), (1000, 64), sharding, seed=0)
>>> table.shape
(1000, 64)

One seed for many layers
------------------------
An initializer is a function of its key, as JAX's are: one key for two layers of the same shape gives
two equal layers. In Flax and Haiku the framework hands out the keys. Elsewhere give each weight a
name, and fold it into one seed. `init_pytree` does that with the path of each leaf::

    key = ni.Key(0)                       # one integer for the whole model
    w1 = ni.Normal()((64, 64), seed=key.fold_in("layers.0.kernel"))
    w2 = ni.Normal()((64, 64), seed=key.fold_in("layers.1.kernel"))

Differences from ``jax.nn.initializers``
----------------------------------------
JAX's own tests of initializers pass with `initializers` in the place of JAX's. The differences:

====================================== ==========================================================
what is asked for                      here
====================================== ==========================================================
an unknown `mode`, `distribution`      refused when it is named, not at the first weight
``scale`` < 0 of variance_scaling      a ValueError; JAX's values are NaN
``lower`` > ``upper``, NaN, infinity   a ValueError; JAX's values are NaN or infinite
an axis that two arguments name        a ValueError; JAX's fans are meaningless
a weight without elements              an empty array; JAX's variance_scaling divides by zero
truncated complex values               the right variance; JAX's is 2% too large
bounds of `uniform`, `scale` < 0       [scale, 0); JAX's are (scale, 0]
16- and 8-bit orthogonal weights       rounded once from float32; JAX raises NotImplementedError
16- and 8-bit values                   float32 values rounded once; JAX draws in the narrow type
float8 types other than e4m3fn, e5m2   a TypeError
``out_sharding``                       axes of every type; JAX accepts explicit axes only
``jax.export``, persistent caches      refuse a callback, and so these initializers under ``jit``
====================================== ==========================================================

Integers of `numinit`'s own objects are torch's: ``ni.KaimingNormal()`` takes axis 1 for the inputs,
where a Flax kernel has the outputs. `initializers` has JAX's axes, -2 and -1.
"""

try:
    import jax as _jax  # noqa: F401
except ModuleNotFoundError as _error:
    if _error.name != "jax":
        raise
    raise ModuleNotFoundError(
        "numinit.jax needs JAX: pip install 'numinit[jax]'", name="jax"
    ) from None

from numinit.jax import initializers
from numinit.jax.arrays import make_array
from numinit.jax.keys import as_key
from numinit.jax.trees import init_pytree

__all__ = ["as_key", "init_pytree", "initializers", "make_array"]
