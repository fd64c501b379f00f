"""Keys, which name streams of values, and generators, which return keys.

One integer, or one key, is one stream of words. Weights that are made from it share their words
element by element, whatever their shapes and distributions: equal layers are equal, and others are
correlated. Give each layer a name, and so a stream of its own, that no other layer changes::

    key = ni.Key(0)
    for n in range(12):
        ni.normal_(layers[n].weight, std=0.02, generator=key.fold_in(f"layers.{n}.weight"))

`numinit.init_params` does so for the names of a model. Where a framework takes integers only, take
``key.fold_in(name).seed``.

A call without a seed draws from the process-wide generator, or for a torch tensor from torch's.
The workers of a data loader draw from different generators, depending on how they start:

* By a fork, as ``torch.utils.data.DataLoader`` does on Linux up to Python 3.13. If the parent has
  called ``ni.manual_seed``, every worker continues a copy of the same generator, and all workers
  draw the same values, as with NumPy. Otherwise each worker draws from its own entropy.
* By ``spawn`` or ``forkserver``. Each worker imports numinit again, and draws from its own entropy
  unless it calls ``ni.manual_seed``.

For values that differ and are reproducible, seed each worker::

    def seed_worker(number):  # DataLoader(..., worker_init_fn=seed_worker)
        ni.manual_seed(torch.initial_seed())

Torch tensors need no such function, because torch gives every worker a seed of its own.
"""

import hashlib
import itertools
import operator
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from numinit.arrays.frameworks import of_ancestry
from numinit.engines.forks import forks
from numinit.show import show

LIMIT = 1 << 64
_PAIR = struct.Struct("<QQ")


@dataclass(frozen=True, slots=True)
class Key:
    """The name of a stream of values; the same key always gives the same values.

    Parameters
    ----------
    seed : int
        From 0 to 2**64 - 1. It is the key of the cipher Philox.
    stream : int, optional
        From 0 to 2**64 - 1. It is a part of the cipher's counter.

    Raises
    ------
    TypeError, ValueError
        If `seed` or `stream` is no such integer.

    Examples
    --------
    >>> ni.Key(0).fold_in("layers.3.wq") == ni.Key(0).fold_in("layers.3.wk")
    False
    """

    seed: int
    stream: int = 0

    def __post_init__(self) -> None:
        if type(self.seed) is not int or not 0 <= self.seed < LIMIT:
            object.__setattr__(self, "seed", _word("seed", self.seed))  # a NumPy integer, say
        if type(self.stream) is not int or not 0 <= self.stream < LIMIT:
            object.__setattr__(self, "stream", _word("stream", self.stream))

    def fold_in(self, data: str | int) -> "Key":
        """Derive a new key from this one and a name or number.

        Parameters
        ----------
        data : str or int
            A string, or an integer from 0 to 2**64 - 1. ``1`` and ``"1"`` give different keys.

        Returns
        -------
        Key
            Its seed and stream are the two little-endian halves of the 16-byte BLAKE2b digest of
            (seed, stream, type tag, data).

        Raises
        ------
        TypeError, ValueError
            If `data` is neither a string nor such an integer.

        Examples
        --------
        >>> ni.Key(0).fold_in(1) == ni.Key(0).fold_in("1")
        False
        """
        if isinstance(data, str):
            tail = b"s" + data.encode("utf-8", "surrogatepass")
        else:
            tail = b"i" + _word("data", data, "a string or ").to_bytes(8, "little")
        digest = hashlib.blake2b(_PAIR.pack(self.seed, self.stream) + tail, digest_size=16)
        return Key(*_PAIR.unpack(digest.digest()))


def _word(name: str, value: Any, also: str = "") -> int:
    """Return `value` as an int of 64 bits; an error says what is `also` accepted."""
    if type(value) is int and 0 <= value < LIMIT:
        return value
    is_int = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    try:
        number = -1 if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = -1
    if not 0 <= number < LIMIT:
        kind = ValueError if is_int else TypeError
        raise kind(
            f"{name}: {show(value)} was given; {also}an integer from 0 to 2**64 - 1 is accepted"
        )
    return number


class Generator:
    """A stateful source of keys: use n, from 0 on, returns ``Key(seed).fold_in(n)``.

    Threads, signal handlers and destructors may use it at any moment, because it has no lock.

    A forked child has a copy of every generator. A generator with a seed continues in the child as
    in the parent, as NumPy's do, so that both return the same keys. A generator without a seed
    takes new entropy in the child, so that the keys differ. A copied or unpickled generator
    continues from the original's state, and counts as one with a seed.

    Parameters
    ----------
    seed : int, optional
        From 0 to 2**64 - 1. If left out, it is drawn from the operating system's entropy.

    Raises
    ------
    TypeError, ValueError
        If `seed` is no such integer.

    Examples
    --------
    >>> generator = ni.Generator(42)
    >>> generator.next_key() == ni.Key(42).fold_in(0)
    True
    >>> generator
    Generator(seed=42, uses=1)
    """

    def __init__(self, seed: int | None = None) -> None:
        self._seeded: _Source | None = None
        self._unseeded: dict[int, _Source] = {}  # by process
        if seed is not None:
            self.manual_seed(seed)

    def manual_seed(self, seed: int) -> "Generator":
        """Start again from `seed`.

        Parameters
        ----------
        seed : int
            From 0 to 2**64 - 1.

        Returns
        -------
        Generator
            The generator itself.

        Raises
        ------
        TypeError, ValueError
            If `seed` is no such integer.

        Examples
        --------
        >>> ni.Generator(42).manual_seed(7).seed
        7
        """
        self._seeded = Key(seed), itertools.count()
        return self

    def _source(self) -> "_Source":
        source = self._seeded or self._unseeded.get(process := forks())
        # If several threads come here at once, all get the source that the first one made.
        return source or self._unseeded.setdefault(process, (_random_key(), itertools.count()))

    @property
    def seed(self) -> int:
        """The seed that the generator started from; if not given, each process has its own."""
        return self._source()[0].seed

    def next_key(self) -> Key:
        """Return the next key.

        Returns
        -------
        Key

        Examples
        --------
        >>> generator = ni.Generator(42)
        >>> generator.next_key() == generator.next_key()
        False
        """
        key, uses = self._source()
        return key.fold_in(next(uses))  # `next` is atomic

    def __repr__(self) -> str:
        seed, uses = self.__getstate__()
        return f"Generator(seed={seed}, uses={uses})"

    def __getstate__(self) -> tuple[int, int]:
        key, uses = self._source()
        return key.seed, int(repr(uses)[len("count(") : -1])  # the count, without advancing it

    def __setstate__(self, state: tuple[int, int]) -> None:
        seed, uses = state
        self._seeded, self._unseeded = (Key(seed), itertools.count(uses)), {}


#: A key, and the number of its next use.
_Source = tuple[Key, Iterator[int]]


def _random_key() -> Key:
    return Key(*struct.unpack("<Q", os.urandom(8)))


#: The process-wide generator, which calls without a seed draw from.
default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Seed the process-wide generator, which calls without a seed draw from.

    A forked child continues a copy of it; `numinit.weights.keys` says how to seed the workers of a
    data loader.

    Parameters
    ----------
    seed : int
        From 0 to 2**64 - 1.

    Returns
    -------
    Generator
        The process-wide generator.

    Raises
    ------
    TypeError, ValueError
        If `seed` is no such integer.

    Examples
    --------
    >>> generator = ni.manual_seed(0)
    >>> first = ni.Normal()((2, 3))
    >>> generator = ni.manual_seed(0)
    >>> bool((ni.Normal()((2, 3)) == first).all())
    True
    """
    return default_generator.manual_seed(seed)


def as_key(seed: Any) -> Key:
    """Return the key of a seed argument.

    Parameters
    ----------
    seed : int, Key, Generator, numpy.random.Generator, torch.Generator or None
        A generator is advanced. None returns the next key of the process-wide generator.

    Returns
    -------
    Key

    Raises
    ------
    TypeError, ValueError
        If `seed` is none of these, or an integer outside of 0 to 2**64 - 1.

    Examples
    --------
    >>> ni.weights.keys.as_key(7)
    Key(seed=7, stream=0)
    """
    if isinstance(seed, Key):
        return seed
    if seed is None:
        return default_generator.next_key()
    if isinstance(seed, Generator):
        return seed.next_key()
    if isinstance(seed, np.random.Generator):
        return Key(int(seed.integers(0, LIMIT - 1, dtype=np.uint64, endpoint=True)))
    if isinstance(seed, (int, np.integer)) and not isinstance(seed, bool):
        return Key(seed)  # type: ignore[arg-type]
    for framework in of_ancestry(type(seed)):
        if (drawn := framework.seed_from(seed)) is not None:
            return Key(drawn)
    raise TypeError(
        f"seed: {type(seed).__name__} {show(seed)} was given; an integer, a Key, a numinit, NumPy or "
        "torch Generator, or None is accepted"
    )
