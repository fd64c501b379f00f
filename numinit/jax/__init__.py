"""A drop-in for ``jax.nn.initializers`` has JAX's distributions, not JAX's numbers.

Change one import, and models of Flax, Haiku, Equinox or plain JAX draw numinit's values::

    from numinit.jax import initializers  # was: from jax.nn import initializers

    nn.Dense(64, kernel_init=initializers.he_normal())                          # Flax, linen
    nnx.Linear(32, 64, kernel_init=initializers.he_normal(), rngs=rngs)         # Flax, nnx
    w = initializers.he_normal()(jax.random.key(0), (32, 64), jnp.bfloat16)     # JAX

Haiku calls an initializer without a key. Equinox takes none, and has torch's axes::

    hk.Linear(64, w_init=lambda shape, dtype: init(hk.next_rng_key(), shape, dtype))

    init = initializers.he_normal(in_axis=-1, out_axis=-2)
    layer = eqx.tree_at(lambda layer: layer.weight, layer, init(key, layer.weight.shape))

The same initializer, key and logical shape give the same bits in NumPy and in every framework. (A
channels-last weight has another logical shape than a channels-first one.) `as_key` says which
`numinit.Key` a JAX key is: ``jax.random.key(42)`` is ``Key(42)``. ``jit``, ``vmap``, ``scan``, the
number of devices and the sharding change no value.

Outside of transformations an initializer fills new memory, which JAX adopts without a copy. Inside
it is a callback. On CPUs the callback writes into XLA's memory. On other platforms it is
`jax.pure_callback`: the host makes the values, and XLA copies them to the device. With
``out_sharding`` every device makes its own shard, also under ``jit``. With
``jit(..., out_shardings=...)`` alone, the whole is made before it is cut.

The objects of `numinit` itself have torch's axes: ``ni.KaimingNormal()`` takes axis 1 for the
inputs, where a kernel of Flax has its outputs. `initializers` has JAX's axes, -2 and -1.

Whole models and large tables
-----------------------------
`make_array` makes one sharded array, and `init_pytree` a whole model. Each process makes only the
shards of its own devices. On NVIDIA GPUs a shard is made on its own GPU, in memory that JAX
allocated, if ``numinit[cuda12]`` or ``numinit[cuda13]`` is installed.

>>> import jax, numinit.jax
>>> from numinit.jax import initializers
>>> sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
>>> table = numinit.jax.make_array(initializers.normal(0.02), (1000, 64), sharding, seed=0)
>>> table.shape
(1000, 64)

One seed for many layers
------------------------
An initializer is a function of its key, as JAX's are. One integer or key for two layers of the
same shape gives two equal layers, in every framework. Flax and Haiku hand out a key for each layer.
Elsewhere name each weight, and fold the name into one key. `init_pytree` does that with the path of
each leaf.

>>> key = ni.Key(0)  # one integer for the whole model
>>> first = ni.Normal()((64, 64), seed=key.fold_in("layers.0.kernel"))
>>> second = ni.Normal()((64, 64), seed=key.fold_in("layers.1.kernel"))
>>> leaf = jax.ShapeDtypeStruct((64, 64), "float32")
>>> tree = {"layers": [{"kernel": leaf}, {"kernel": leaf}]}
>>> made = numinit.jax.init_pytree(tree, initializers.normal(1.0), seed=0)
>>> bool((made["layers"][1]["kernel"] == second).all()), bool((first == second).any())
(True, False)

Differences from ``jax.nn.initializers``
----------------------------------------
JAX's own tests of initializers pass with `initializers` in the place of JAX's, with x64 and without.
What differs:

====================================== ==========================================================
what is asked for                      here
====================================== ==========================================================
an unknown `mode` or `distribution`    refused when it is named, not when the first weight is made
`scale` < 0 of variance_scaling        a ValueError; JAX's values are NaN
`lower` > `upper`, or one is NaN       a ValueError; JAX's values are NaN or the bounds
`scale`, `stddev` NaN or infinite      a ValueError; JAX's values are NaN or infinite
`lower`, `upper` traced, or arrays     a TypeError; JAX takes them
an axis that two arguments name        a ValueError; JAX's fans are meaningless
a weight without elements              an empty array; JAX's variance_scaling divides by zero
truncated complex values               have their variance; JAX's is 2% too large
uniform values, `scale` < 0            in [scale, 0); JAX's are in (scale, 0]
16- and 8-bit values                   float32 values rounded once; JAX draws in the narrow type
16- and 8-bit orthogonal weights       the same; JAX raises NotImplementedError
float8 types but e4m3fn and e5m2       a TypeError
`out_sharding`                         on meshes of any axis type; JAX's must be explicit
a jitted program                       is in no persistent cache of XLA, and jax.export refuses it
====================================== ==========================================================
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
