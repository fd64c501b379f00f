"""Keys name streams; generators hand out keys.

Calls without a seed draw from one generator of the process, and, for torch tensors, from torch's.
What the workers of a data loader get from it depends on how they start:

* by a fork, as ``torch.utils.data.DataLoader`` does on Linux up to Python 3.13: after
  ``ni.manual_seed`` each worker goes on with a copy of the same generator, so all draw the same
  values, as with NumPy's; without it each draws from entropy of its own;
* by ``spawn`` or ``forkserver``: each imports numinit anew and draws from entropy of its own,
  unless it runs ``ni.manual_seed`` itself.

For values that differ and can be made again, seed each worker::

    def seed_worker(number):  # DataLoader(..., worker_init_fn=seed_worker)
        ni.manual_seed(torch.initial_seed())

torch gives every worker a seed of its own, so its generator, and torch tensors, need nothing.
"""

import hashlib
import itertools
import operator
import os
import struct
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
    """The name of one stream of values; the same key gives the same values every time.

    Parameters
    ----------
    seed : int
        0 <= seed < 2**64.
    stream : int, optional
        0 <= stream < 2**64; keys that differ only here share the cipher's key, not its counter.

    Examples
    --------
    >>> import numinit as ni
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
        """A new key from this one and a name or number.

        Parameters
        ----------
        data : str or int
            A string, or an integer with 0 <= data < 2**64; ``1`` and ``"1"`` are different.

        Returns
        -------
        Key
            Its seed and stream are the two little-endian halves of the 16-byte BLAKE2b digest of
            (seed, stream, type tag, data).
        """
        if isinstance(data, str):
            tail = b"s" + data.encode("utf-8", "surrogatepass")
        else:
            tail = b"i" + _word("data", data).to_bytes(8, "little")
        digest = hashlib.blake2b(_PAIR.pack(self.seed, self.stream) + tail, digest_size=16)
        return Key(*_PAIR.unpack(digest.digest()))


def _word(name: str, value: Any) -> int:
    """`value` as an integer of 64 bits."""
    if type(value) is int and 0 <= value < LIMIT:
        return value
    is_int = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    try:
        number = -1 if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = -1
    if not 0 <= number < LIMIT:
        raise _refused(name, value, is_int)
    return number


def _refused(name: str, value: Any, is_int: bool) -> Exception:
    kind = ValueError if is_int else TypeError
    return kind(f"{name}: {show(value)} was given; an integer from 0 to 2**64 - 1 is accepted")


class Generator:
    """A stateful source of keys: its n-th use gives ``Key(seed).fold_in(n)``.

    Threads, signal handlers and destructors may draw at any moment: nothing is locked.

    A forked child has a copy of every generator. One with a seed goes on in the child where it was,
    as NumPy's do, so two children, or child and parent, draw the same keys. One without a seed
    takes new entropy in the child, so that they draw different ones. A copy, also a pickled one,
    goes on where the original was, as one with a seed.

    Parameters
    ----------
    seed : int, optional
        0 <= seed < 2**64; from the operating system's entropy if left out.

    Examples
    --------
    >>> import numinit as ni
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
        """Start again from `seed`; returns the generator."""
        self._seeded = Key(seed), itertools.count()
        return self

    def _source(self) -> "_Source":
        source = self._seeded or self._unseeded.get(process := forks())
        # Of threads that come here at once, all get what the first one made.
        return source or self._unseeded.setdefault(process, (_random_key(), itertools.count()))

    @property
    def seed(self) -> int:
        """The seed that this generator was started from; its own in each process if it had none."""
        return self._source()[0].seed

    def next_key(self) -> Key:
        """The next key; safe to call from many threads, and from a signal's handler."""
        key, uses = self._source()
        return key.fold_in(next(uses))  # one step, which nothing comes between

    def __repr__(self) -> str:
        seed, uses = self.__getstate__()
        return f"Generator(seed={seed}, uses={uses})"

    def __getstate__(self) -> tuple[int, int]:
        key, uses = self._source()
        return key.seed, int(repr(uses)[len("count(") : -1])  # to look without taking

    def __setstate__(self, state: tuple[int, int]) -> None:
        seed, uses = state
        self._seeded, self._unseeded = (Key(seed), itertools.count(uses)), {}


#: A key, and the number of its next use.
_Source = tuple[Key, "itertools.count[int]"]


def _random_key() -> Key:
    return Key(*struct.unpack("<Q", os.urandom(8)))


#: The process-wide generator, which calls without a seed advance.
default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Seed the process-wide generator, which calls without a seed draw from; returns it.

    Forked children go on with a copy of it: see `numinit.weights.keys` for what data loaders get.
    """
    return default_generator.manual_seed(seed)


def as_key(seed: Any) -> Key:
    """The key that a seed argument stands for.

    Parameters
    ----------
    seed : int, Key, Generator, numpy.random.Generator, torch.Generator or None
        Generators are advanced. None takes the next key of the process-wide generator.
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
