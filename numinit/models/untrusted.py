"""Reading what others wrote: JSON and shapes, checked in bounded time and memory."""

import json
import math
import stat
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from numinit.show import show

__all__ = [
    "InputError", "check_name", "check_shape", "check_size", "open_regular", "parse_json", "show",
]  # fmt: skip

# A value of JSON costs up to 80 bytes in Python and two in the text: limit them before parsing.
MAX_VALUES = 4_000_000
MAX_NAME = 4096  # characters; those of known models have at most some hundred
MAX_DIMENSIONS = 64  # NumPy's own limit
MAX_ELEMENTS = MAX_BYTES = 2**63 - 1


class InputError(ValueError):
    """A file or an argument that cannot be used; the message names it and the tensor."""


def open_regular(path: Path) -> tuple[BinaryIO, int]:
    """A file, open to be read, and its size; a pipe or a device would block or never end."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path}: not a regular file")
        return path.open("rb"), status.st_size
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read: {reason}") from error


def parse_json(data: bytes, where: str, most: int = MAX_VALUES) -> dict[str, Any]:
    """A JSON object; refuse duplicate keys, NaN, absurd nesting and more than `most` values."""
    if sum(map(data.count, (b"[", b"{", b",", b":"))) > most:
        raise InputError(f"{where}: more than {most} values; at most that many are accepted")
    try:
        parsed = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
    except RecursionError:
        raise InputError(f"{where}: not usable JSON: nested too deep") from None
    except ValueError as error:
        raise InputError(f"{where}: not usable JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise InputError(f"{where}: needs a JSON object, got {show(parsed)}")
    return parsed


def check_name(name: str, where: str) -> str:
    """A tensor's name, if UTF-8 can spell it, and in bounded length."""
    if len(name) > MAX_NAME:
        raise InputError(
            f"{where}: tensor name {show(name)} has {len(name)} characters; at most {MAX_NAME} are "
            "accepted"
        )
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: tensor name {show(name)} is not valid Unicode") from error
    return name


def check_shape(shape: object, where: str) -> tuple[int, ...]:
    """A shape as a tuple, if its elements can be counted by an int64."""
    if not isinstance(shape, list | tuple):
        raise InputError(f"{where}: the shape must be a list of integers, got {show(shape)}")
    if len(shape) > MAX_DIMENSIONS:
        raise InputError(f"{where}: {len(shape)} dimensions; at most {MAX_DIMENSIONS} are accepted")
    for size in shape:
        if type(size) is not int or not 0 <= size <= MAX_ELEMENTS:
            raise InputError(
                f"{where}: got a dimension {show(size)} in {show(shape)}; "
                "accepted: an integer from 0 to 2**63 - 1"
            )
    if math.prod(size for size in shape if size) > MAX_ELEMENTS:
        raise InputError(f"{where}: the shape {show(shape)} has more than 2**63 - 1 elements")
    return tuple(shape)


def check_size(name: str, shape: tuple[int, ...], itemsize: int) -> int:
    """A tensor's size in bytes, if NumPy can have it: it counts the sizes beside a zero as well."""
    if math.prod(size for size in shape if size) * itemsize > MAX_BYTES:
        raise InputError(f"tensor {show(name)} of shape {show(shape)}: ends beyond 2**63 bytes")
    return math.prod(shape) * itemsize


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {show(twice)} occurs twice")
    return table


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
