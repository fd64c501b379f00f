"""JAX's keys as numinit's keys."""

from typing import Any

import jax
import numpy as np

from numinit.weights import keys
from numinit.weights.keys import Key


def key_words(key: Any) -> jax.Array:
    """Return the 32-bit words of one key of JAX, typed or an array of uint32; perhaps a tracer.

    Raises
    ------
    TypeError, ValueError
        JAX's, if it is no key; a ValueError if it is an array of keys.
    """
    words = jax.random.key_data(key)
    if words.ndim != 1:
        raise ValueError(
            f"key: an array of keys of shape {words.shape[:-1]} was given; one key is accepted. Use "
            "jax.vmap for batching"
        )
    return words


def of_words(words: np.ndarray) -> Key:
    """Return the key that has a JAX key's words; see `as_key`."""
    numbers = [int(word) for word in words]
    pairs = [numbers[0:2], numbers[2:4]]
    key = Key(*(int.from_bytes(b"".join(w.to_bytes(4, "big") for w in pair)) for pair in pairs))
    for word in numbers[4:]:
        key = key.fold_in(word)
    return key


def as_key(seed: Any) -> Key:
    """Return the `numinit.Key` of a key of JAX, or of any other seed of numinit.

    The first two words of a JAX key's data are the seed, the more significant one first. The next
    two, of keys that have them, are the stream. All further words are folded in. The algorithm of a
    JAX key does not matter, only its words do.

    Parameters
    ----------
    seed : jax.Array of one key, or of uint32, int, Key or any other seed
        See `numinit.weights.keys.as_key` for the others.

    Returns
    -------
    Key

    Raises
    ------
    TypeError, ValueError
        If it is none of these.

    Examples
    --------
    >>> import jax, numinit.jax
    >>> numinit.jax.as_key(jax.random.key(42))
    Key(seed=42, stream=0)
    """
    if isinstance(seed, jax.Array) or (isinstance(seed, np.ndarray) and seed.dtype == np.uint32):
        words = key_words(seed)
        if isinstance(words, jax.core.Tracer):
            raise TypeError(
                "seed: a traced key was given; a key outside of jax.jit and the like is accepted. "
                "Inside of them call an initializer of numinit.jax, with out_sharding for shards"
            )
        return of_words(np.asarray(words))
    return keys.as_key(seed)
