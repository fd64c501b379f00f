"""Values inside of JAX's transformations: a callback that fills the memory of the result."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from numinit.engines.layout import c_steps
from numinit.engines.pages import use_huge_pages
from numinit.initializers import Initializer
from numinit.jax.keys import of_words
from numinit.stream.dtypes import as_dtype

try:
    from jax.experimental.buffer_callback import buffer_callback
except ImportError:  # then the results of callbacks are copied
    buffer_callback = None

BATCHED = "broadcast_all"  # one call for all keys of a vmap


@dataclass(frozen=True)
class Write:
    """Writes a weight, or its part that has the number `block` on each axis, for each key.

    It is compared by its fields, so that a call outside of ``jit`` compiles once.
    """

    initializer: Initializer
    shape: tuple[int, ...]
    part: tuple[int, ...]

    def __call__(self, context: Any, out: Any, words: Any, block: Any) -> None:
        self.write(np.asarray(out), np.asarray(words), np.asarray(block))

    def write(self, out: np.ndarray, words: np.ndarray, block: np.ndarray) -> None:
        use_huge_pages(out.ctypes.data, out.nbytes)  # XLA has just allocated it
        for batch in np.ndindex(words.shape[:-1]):
            offset = [int(n) * size for n, size in zip(block[batch], self.part, strict=True)]
            key = of_words(words[batch])
            self.initializer.fill_(out[(*batch, ...)], shape=self.shape, offset=offset, seed=key)


@dataclass(frozen=True)
class Make:
    """Returns what a `Write` writes."""

    write: Write
    dtype: np.dtype

    def __call__(self, words: Any, block: Any) -> np.ndarray:
        words, block = np.asarray(words), np.asarray(block)
        out = np.empty(words.shape[:-1] + self.write.part, self.dtype)
        self.write.write(out, words, block)
        return out


def drawn(
    initializer: Initializer,
    words: jax.Array,
    shape: tuple[int, ...],
    dtype: np.dtype,
    sharding: Any = None,
) -> jax.Array:
    """Stage the making of an array whose key's words are traced, each shard on its device."""
    part = shape if sharding is None else sharding.shard_shape(shape)
    kind = as_dtype(dtype)
    strides = tuple(step * kind.itemsize for step in c_steps(part))
    # What is refused is refused here: an exception in a callback is undefined behaviour.
    initializer._ready(shape, kind, part, strides)
    write = Write(initializer, shape, part)
    make = Make(write, dtype)
    result = jax.ShapeDtypeStruct(part, dtype)

    def anywhere(words: jax.Array, block: jax.Array) -> Any:
        return jax.pure_callback(make, result, words, block, vmap_method=BATCHED)

    def on_cpu(words: jax.Array, block: jax.Array) -> Any:
        return buffer_callback(write, result, vmap_method=BATCHED)(words, block)

    def local(words: jax.Array, block: jax.Array) -> Any:
        if buffer_callback is None:
            return anywhere(words, block)
        return jax.lax.platform_dependent(words, block, cpu=on_cpu, default=anywhere)

    if sharding is None or not shape:
        return local(words, np.zeros(len(shape), np.int32))

    def shard(words: jax.Array) -> Any:
        spec = (*sharding.spec, *[None] * (len(shape) - len(sharding.spec)))
        return local(words, jnp.stack([_number(axes, sharding.mesh) for axes in spec]))

    replicated = PartitionSpec()
    return jax.shard_map(
        shard, mesh=sharding.mesh, in_specs=replicated, out_specs=sharding.spec, check_vma=False
    )(words)


def _number(axes: Any, mesh: Any) -> jax.Array:
    """Return the number of this device's block along an axis that is cut by axes of a mesh."""
    number = jnp.int32(0)
    for axis in () if axes is None else (axes,) if isinstance(axes, str) else axes:
        number = number * mesh.shape[axis] + jax.lax.axis_index(axis)
    return number
