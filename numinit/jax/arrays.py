"""Arrays of JAX that are filled before JAX sees them: whole, or each shard on its own device."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from numinit.engines import cuda_driver
from numinit.engines.spec import Whole
from numinit.initializers import Initializer, Ones, Zeros
from numinit.jax.keys import as_key
from numinit.show import show
from numinit.stream.dtypes import as_dtype
from numinit.weights.keys import Key
from numinit.weights.shapes import as_shape

ALIGNMENT = 64  # bytes; XLA for CPUs adopts memory at a multiple of it, and copies other memory


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return a new array, not initialized, in memory that JAX adopts."""
    size = math.prod(shape) * dtype.itemsize
    room = np.empty(size + ALIGNMENT, np.uint8)
    first = -room.ctypes.data % ALIGNMENT
    return room[first : first + size].view(dtype).reshape(shape)


def as_initializer(given: Any) -> Initializer:
    """Return the numinit initializer of an argument: itself, or that of a function of this package.

    Raises
    ------
    TypeError
        If it has none.
    """
    found = {jax.nn.initializers.zeros: Zeros(), jax.nn.initializers.ones: Ones()}
    made = given if isinstance(given, Initializer) else getattr(given, "initializer", None)
    if made is None and callable(given):
        made = found.get(given)
    if not isinstance(made, Initializer):
        raise TypeError(
            f"initializer: {show(given)} was given; one of numinit.jax.initializers or an "
            "initializer of numinit is accepted"
        )
    return made


def resolved(dtype: Any) -> np.dtype:
    """Return the element type that JAX uses for a dtype argument: without x64, float32 for float64.

    It warns as JAX does where the two differ. None is JAX's default.
    """
    if dtype is None:
        dtype = jnp.result_type(float)
    found: np.dtype = np.dtype(jax.dtypes.canonicalize_dtype(dtype))
    if found != jnp.dtype(dtype):
        found = np.dtype(jnp.zeros((), dtype).dtype)
    return found


def mesh_in_use() -> Any:
    """Return the mesh that ``jax.set_mesh`` set, None if there is none."""
    if jax.sharding.get_abstract_mesh().empty:
        return None
    return getattr(jnp.zeros(()).sharding, "mesh", None)  # get_mesh is not in every JAX accepted


def as_sharding(sharding: Any) -> Any:
    """Return a sharding argument as a Sharding; a PartitionSpec is one of the mesh in use.

    Raises
    ------
    TypeError, ValueError
        If it is no sharding, or a PartitionSpec without a mesh.
    """
    if isinstance(sharding, jax.Device):
        return jax.sharding.SingleDeviceSharding(sharding)
    named = isinstance(sharding, jax.sharding.NamedSharding)
    if named and isinstance(sharding.mesh, jax.sharding.AbstractMesh):
        sharding = sharding.spec  # as jax.eval_shape gives it
    if isinstance(sharding, jax.sharding.PartitionSpec):
        mesh = mesh_in_use()
        if mesh is None:
            raise ValueError(
                f"sharding: {sharding} was given without a mesh; a NamedSharding, or a mesh by "
                "jax.set_mesh, is accepted"
            )
        return jax.sharding.NamedSharding(mesh, sharding)
    if not isinstance(sharding, jax.sharding.Sharding):
        raise TypeError(
            f"sharding: {show(sharding)} was given; a Sharding, a PartitionSpec or a Device is "
            "accepted"
        )
    return sharding


def make_array(
    initializer: Any, shape: Any, sharding: Any, *, seed: Any, dtype: Any = None
) -> jax.Array:
    """Make a sharded array, of which each process and each device makes its own shards only.

    It has the values of ``initializer(shape, dtype, seed=seed)``, whatever the sharding. An
    initializer that makes matrices as a whole, such as `Orthogonal`, makes all of it in each process,
    which keeps its shards.

    Parameters
    ----------
    initializer : function of `numinit.jax.initializers`, or Initializer
        An object of `numinit` itself has torch's axes unless they are given.
    shape : int or sequence of int
        The shape of the whole.
    sharding : jax.sharding.Sharding, PartitionSpec or jax.Device
        A PartitionSpec needs a mesh by ``jax.set_mesh``.
    seed : int, Key, or key of JAX
        The same in every process.
    dtype : dtype, optional
        The default is the initializer's, else JAX's.

    Returns
    -------
    jax.Array

    Raises
    ------
    TypeError, ValueError
        If an argument is none of these, or they do not fit each other.

    Examples
    --------
    >>> import jax, numinit.jax
    >>> mesh = jax.make_mesh((1,), ("rows",))
    >>> sharding = jax.NamedSharding(mesh, jax.P("rows"))
    >>> table = numinit.jax.make_array(ni.Normal(), (8, 4), sharding, seed=0)
    >>> bool((np.asarray(table) == ni.Normal()((8, 4), seed=0)).all())
    True
    """
    if seed is None:
        raise TypeError(
            "seed: None was given; an integer or a key, the same in every process, is accepted"
        )
    kind = resolved(getattr(initializer, "dtype", None) if dtype is None else dtype)
    whole = as_shape(shape)
    return placed(as_initializer(initializer), as_key(seed), whole, kind, as_sharding(sharding))


def placed(
    initializer: Initializer, key: Key, shape: tuple[int, ...], dtype: np.dtype, sharding: Any
) -> jax.Array:
    """Make an array whose shards are made on, or for, their own devices."""
    if len(getattr(sharding, "spec", ())) > len(shape):
        raise ValueError(
            f"sharding: {sharding.spec} was given for shape {shape}; a spec of at most as many axes is "
            "accepted"
        )
    plan = initializer.plan(shape, as_dtype(dtype))
    matrix: np.ndarray | None = None
    shards: list[jax.Array] = []
    made: dict[tuple[tuple[int, int], ...], np.ndarray] = {}  # replicas share the host's memory
    waiting: set[int] = set()
    try:
        for device, index in sharding.addressable_devices_indices_map(shape).items():
            offset = tuple(cut.start or 0 for cut in index)
            size = tuple(
                (whole if cut.stop is None else cut.stop) - begin
                for cut, begin, whole in zip(index, offset, shape, strict=True)
            )
            if ordinal_of(device) is not None and not isinstance(plan, Whole):
                waiting.add(ordinal_of(device))  # type: ignore[arg-type]
                shards.append(on_gpu(initializer, key, shape, offset, size, dtype, device))
                continue
            window = tuple(zip(offset, size, strict=True))
            if window not in made:
                if device.platform != "cpu":  # the host keeps one shard at a time
                    jax.block_until_ready(shards)
                    made.clear()
                host = made[window] = aligned(size, dtype)
                if not isinstance(plan, Whole) or size == shape:
                    initializer.fill_(host, shape=shape, offset=offset, seed=key)
                else:
                    if matrix is None:
                        matrix = initializer.fill_(aligned(shape, dtype), seed=key)
                    host[...] = matrix[tuple(slice(o, o + s) for o, s in window)]
            shards.append(jax.device_put(made[window], device, may_alias=True))
    finally:  # also after an error, because JAX would give memory that is being filled to others
        for ordinal in waiting:
            cuda_driver.wait(ordinal)
    return jax.make_array_from_single_device_arrays(shape, sharding, shards)


def alone(
    initializer: Initializer, key: Key, shape: tuple[int, ...], dtype: np.dtype, like: jax.Array
) -> jax.Array:
    """Make an array on the device or the mesh of another, as JAX would compute it from that."""
    sharding = like.sharding
    mesh = mesh_in_use() or getattr(sharding, "mesh", None)
    if mesh is not None:
        everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        return placed(initializer, key, shape, dtype, everywhere)
    (device, *others) = sharding.device_set
    if not others and like.committed:
        return placed(initializer, key, shape, dtype, jax.sharding.SingleDeviceSharding(device))
    if not others and (ordinal := ordinal_of(device)) is not None:
        try:
            return on_gpu(initializer, key, shape, (0,) * len(shape), shape, dtype, device, False)
        finally:  # as in `placed`
            cuda_driver.wait(ordinal)
    host = initializer.fill_(aligned(shape, dtype), seed=key)
    return jax.device_put(host, may_alias=True)


@functools.cache
def ordinal_of(device: Any) -> int | None:
    """Return the number of an NVIDIA GPU that kernels are compiled for; None for other devices."""
    if device.platform != "gpu" or "cuda" not in device.client.platform_version.lower():
        return None
    return None if cuda_driver.lacking() else int(device.local_hardware_id)


class _Unseen:
    """The memory of a new array of JAX on a GPU, which nothing else has seen yet."""

    def __init__(self, array: jax.Array) -> None:
        self.array, self.dtype, self.shape = array, array.dtype, array.shape

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.array.unsafe_buffer_pointer(), False),
            "strides": None,
            "stream": None,  # the array is computed, and `placed` waits before others see it
        }


def on_gpu(
    initializer: Initializer,
    key: Key,
    shape: tuple[int, ...],
    offset: tuple[int, ...],
    part: tuple[int, ...],
    dtype: np.dtype,
    device: Any,
    committed: bool = True,
) -> jax.Array:
    """Start filling a new array on a GPU, a part of a weight.

    JAX allocates it, since most of a GPU's memory is JAX's. Memory that DLPack hands over could not
    be donated either.
    """
    with jax.default_device(device):
        array = jnp.empty(part, dtype, device=device if committed else None)
    array.block_until_ready()
    if array.size:
        initializer.fill_(_Unseen(array), shape=shape, offset=offset, seed=key)
    return array
