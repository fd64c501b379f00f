"""A checkpoint in several files: names, sizes and index are those of Hugging Face's libraries."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from heapq import nsmallest
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from numinit.models.formats import format_of
from numinit.models.formats.format import Contents, Tensors
from numinit.models.untrusted import InputError, check_size, open_regular, parse_json
from numinit.show import show

__all__ = [
    "INDEX", "INDEX_SUFFIX", "SUFFIX", "Members", "contents", "index_of", "is_set", "members",
    "parse_size", "part_of", "split", "strays",
]  # fmt: skip

SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"
INDEX = f"model{INDEX_SUFFIX}"
MAX_INDEX = 1 << 25  # bytes: a tensor takes some hundred
MAX_VALUES = 400_000  # of an index: two a tensor, of which a trillion parameters have 140,000
MAX_HEADERS = 100_000_000  # bytes, of all files: as many as the format allows for one
UNITS = {
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40,
}  # fmt: skip

_NUMBERED = re.compile(r"(.*)-([0-9]{5,9})-of-([0-9]{5,9})\.safetensors")
_OURS = re.compile(r"model(-[0-9]{5,9}-of-[0-9]{5,9})?\.safetensors(\.index\.json)?")


def parse_size(size: int | str) -> int:
    """A size of files in bytes.

    Parameters
    ----------
    size : int or str
        A number of bytes, or a text such as "5GB" or "512MiB".

    Raises
    ------
    InputError
        Naming `max_shard_size`.
    """
    number = size if type(size) is int else 0
    if isinstance(size, str):
        found = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) *([KMGT]i?B)", size.strip(), re.I)
        number = int(float(found[1]) * UNITS[found[2].upper()]) if found else 0
    if number < 1:
        raise InputError(
            f"max_shard_size: got {show(size)}; accepted: an int, of bytes, or a text with a unit, such "
            "as 5GB or 512MiB (KB, MB, GB and TB are powers of 1000, KiB to TiB of 1024)"
        )
    return number


def split(tensors: Tensors, size: int) -> dict[str, list[str]]:
    """The names of the files of a checkpoint, and of the tensors in each.

    Parameters
    ----------
    tensors : mapping of str to (shape, DType or Integer)
        Of the whole checkpoint, in its order.
    size : int
        The most bytes of tensors in a file of several. A larger tensor has a file of its own, which
        comes before the one that its predecessors began.
    """
    done: list[list[str]] = []
    begun: list[str] = []
    filled = 0
    for name, (shape, dtype) in tensors.items():
        nbytes = check_size(name, shape, dtype.itemsize)
        if nbytes > size:
            done.append([name])
            continue
        if filled + nbytes > size:
            done.append(begun)
            begun, filled = [], 0
        begun.append(name)
        filled += nbytes
    if begun:
        done.append(begun)
    if len(done) == 1:
        return {f"model{SUFFIX}": done[0]}
    return {f"model-{n:05}-of-{len(done):05}{SUFFIX}": names for n, names in enumerate(done, 1)}


def part_of(files: Sequence[str], shard: tuple[int, int] | None) -> Sequence[str]:
    """The files that one of several processes makes: every n-th one.

    Raises
    ------
    InputError
        Naming `shard`.
    """
    if shard is None:
        return files
    if (
        not isinstance(shard, tuple)
        or [type(number) for number in shard] != [int, int]
        or not 1 <= shard[0] <= shard[1]
    ):
        raise InputError(
            f"shard: got {show(shard)}; accepted: a part and how many there are, such as (3, 16), or "
            "3/16 on the command line; the first is 1"
        )
    return files[shard[0] - 1 :: shard[1]]


def index_of(files: Mapping[str, Sequence[str]], tensors: Tensors) -> bytes:
    """The text of the index of several files, as huggingface_hub writes it."""
    total = sum(check_size(name, shape, dtype.itemsize) for name, (shape, dtype) in tensors.items())
    placed = {name: file for file, names in files.items() for name in names}
    table = {"metadata": {"total_size": total}, "weight_map": placed}
    return json.dumps(table, indent=2).encode()


def strays(directory: Path, files: Mapping[str, Sequence[str]]) -> list[Path]:
    """The files of other checkpoints in a directory, which would be taken for parts of this one."""
    own = {*files, *([INDEX] if len(files) > 1 else [])}
    if not directory.exists():
        return []
    return sorted(directory / n for n in _names(directory) if _OURS.fullmatch(n) and n not in own)


def is_set(path: Path) -> bool:
    """Whether a path stands for a checkpoint in several files: an index, or a directory."""
    return path.name.endswith(".index.json") or path.is_dir()


class Members(NamedTuple):
    """The files of a checkpoint."""

    paths: tuple[Path, ...]
    placed: dict[str, str] | None
    """The file of each tensor, as the index says; None without an index."""
    total_size: object
    """The size that the index says, if it does."""


def members(path: Path) -> Members:
    """The files of a checkpoint, all of which are there.

    Parameters
    ----------
    path : Path
        An index, or a directory that has one or files without one.

    Raises
    ------
    InputError
        Naming the files that are missing, or what else is wrong. Nothing in an index is trusted:
        it names files beside itself only.
    """
    if not path.is_dir():
        return _indexed(path, _names(path.parent))
    held = _names(path)
    indices = [name for name in held if name.endswith(INDEX_SUFFIX)]
    if len(indices) == 1:
        return _indexed(path / indices[0], held)
    files = [name for name in held if name.endswith(SUFFIX)]
    numbered = [match for name in files if (match := _NUMBERED.fullmatch(name))]
    sets = {(match[1], match[3]) for match in numbered}
    if len(indices) > 1 or len(sets) > 1:
        several = indices or [f"{stem}-*-of-{count}{SUFFIX}" for stem, count in sorted(sets)]
        raise InputError(f"{path}: several checkpoints: {show(several)}; an index is needed")
    if not files:
        hint = "; a config.json has to be named" if "config.json" in held else ""
        raise InputError(f"{path}: a directory without {SUFFIX} files{hint}")
    if sets:
        ((stem, count),) = sets
        files = [match.string for match in numbered]
        every, width = range(1, int(count) + 1), len(count)
        there = {number for match in numbered if (number := int(match[2])) in every}
        missing = (number for number in every if number not in there)
        _refuse_missing(
            path,
            len(every) - len(there),
            (f"{stem}-{n:0{width}}-of-{count}{SUFFIX}" for n in missing),
        )
    return Members(tuple(path / name for name in files), None, None)


def _names(directory: Path) -> list[str]:
    """The names of what is in a directory, sorted, without hidden ones."""
    try:
        return sorted(name for name in os.listdir(directory) if not name.startswith("."))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{directory}: cannot be read: {reason}") from error


def _refuse_missing(path: Path, count: int, missing: Iterator[str]) -> None:
    if count > 0:
        more = ", ..." if count > 8 else ""
        raise InputError(
            f"{path}: {count} of its files {'is' if count == 1 else 'are'} missing: "
            f"{', '.join(map(show, islice(missing, 8)))}{more}"
        )


def _indexed(path: Path, beside: Sequence[str]) -> Members:
    opened, size = open_regular(path)
    with opened:
        if size > MAX_INDEX:
            raise InputError(f"{path}: {size} bytes; at most {MAX_INDEX} are accepted of an index")
        table = parse_json(opened.read(size), str(path), MAX_VALUES)
    placed = table.get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise InputError(f"{path}: key 'weight_map' must map names to files, got {show(placed)}")
    # Names of tensors need no check: they are looked for among those of the files.
    try:
        files = {*placed.values()}
    except TypeError:  # lists
        files = {None}
    legal = re.compile(r"[^/\\:\0]{1,255}\.safetensors").fullmatch
    if not all(isinstance(file, str) and legal(file) for file in files):
        name, file = next(
            (name, file)
            for name, file in placed.items()
            if not isinstance(file, str) or not legal(file)
        )
        raise InputError(
            f"{path}: tensor {show(name)} is in {show(file)}; accepted: the name of a {SUFFIX} file "
            "beside the index"
        )
    missing = files - {*beside}
    _refuse_missing(path, len(missing), iter(nsmallest(8, missing)))
    about = table.get("metadata")
    total = about.get("total_size") if isinstance(about, dict) else None
    return Members(tuple(path.parent / name for name in sorted(files)), placed, total)


def contents(found: Members) -> dict[Path, Contents]:
    """What the files of a checkpoint hold.

    Raises
    ------
    InputError
        If a file cannot be used, lacks a tensor that the index puts there, or has one of another's.
    """
    held: dict[Path, Contents] = {}
    where: dict[str, Path] = {}
    size = 0
    for path in found.paths:
        read = format_of(path, SUFFIX).read
        assert read is not None
        held[path] = read(path)
        size += held[path].data_offset
        if size > MAX_HEADERS:
            raise InputError(
                f"{path}: the headers of {len(held)} files have more than {MAX_HEADERS} bytes; at most "
                "that many are accepted"
            )
        for name in held[path].tensors:
            if (other := where.setdefault(name, path)) != path:
                raise InputError(f"{path}: tensor {show(name)} is in {other.name}, too")
    for name, file in (found.placed or {}).items():
        if name not in where or where[name].name != file:
            raise InputError(
                f"{found.paths[0].with_name(file)}: has no tensor {show(name)}, which the index puts "
                "there"
            )
    return held
