"""Keys name streams; generators hand out keys."""

import hashlib
import operator
import os
import struct
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from numinit.arrays.frameworks import of_ancestry
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


#: Held for a moment by whoever draws from any generator.
_drawing = threading.Lock()


def _after_fork() -> None:
    """Another thread of the parent may have held the lock."""
    global _drawing
    _drawing = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Generator:
    """A stateful source of keys: its n-th use gives ``Key(seed).fold_in(n)``.

    Parameters
    ----------
    seed : int, optional
        0 <= seed < 2**64; from the operating system's entropy if left out.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.manual_seed(struct.unpack("<Q", os.urandom(8))[0] if seed is None else seed)

    def manual_seed(self, seed: int) -> "Generator":
        """Start again from `seed`; returns the generator."""
        key = Key(seed)
        with _drawing:
            self._key, self._uses = key, 0
        return self

    @property
    def seed(self) -> int:
        """The seed that this generator was started from."""
        return self._key.seed

    def next_key(self) -> Key:
        """The next key; safe to call from many threads."""
        with _drawing:
            key = self._key.fold_in(self._uses)
            self._uses += 1
        return key

    def __repr__(self) -> str:
        return f"Generator(seed={self.seed}, uses={self._uses})"


#: The process-wide generator, which calls without a seed advance.
default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Seed the process-wide generator, which calls without a seed draw from; returns it."""
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
