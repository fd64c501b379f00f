"""The safetensors format: an 8-byte length, a JSON header, then the tensors without holes."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from numinit.models.formats.format import Contents, Format, Tensors
from numinit.models.integers import INTEGERS, Integer
from numinit.models.untrusted import (
    MAX_BYTES,
    InputError,
    check_name,
    check_shape,
    check_size,
    open_regular,
    parse_json,
    show,
)
from numinit.stream.dtypes import DTYPES, DType

__all__ = ["BITS", "FORMAT", "Entry", "layout", "read_header"]

MAX_HEADER = 100_000_000  # the format's own limit
METADATA = "__metadata__"

#: Every dtype of the format, and its size in bits.
BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64,
    "F32": 32, "I32": 32, "U32": 32,
    "F16": 16, "BF16": 16, "I16": 16, "U16": 16,
    "F8_E4M3": 8, "F8_E4M3FNUZ": 8, "F8_E5M2": 8, "F8_E5M2FNUZ": 8, "F8_E8M0": 8,
    "I8": 8, "U8": 8, "BOOL": 8,
    "F6_E2M3": 6, "F6_E3M2": 6,
    "F4": 4,
}  # fmt: skip


class Entry(NamedTuple):
    """One tensor of a header; its bytes are ``data[start:stop]``."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_header(path: str | Path) -> tuple[dict[str, str], dict[str, Entry], int]:
    """A file's header, checked.

    Parameters
    ----------
    path : str or Path
        A safetensors file.

    Returns
    -------
    metadata : dict of str to str
        Empty where the file has none.
    entries : dict of str to Entry
        In the order of their bytes.
    data_offset : int
        Where the data starts in the file.

    Raises
    ------
    InputError
        Naming the file and the tensor, whatever the bytes: nothing in a file is trusted.
    """
    path = Path(path)
    file, file_size = open_regular(path)
    with file:
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length > file_size - 8:
            raise InputError(f"{path}: truncated, or not safetensors: the header is cut off")
        if length > MAX_HEADER:
            raise InputError(f"{path}: a header of {length} bytes; the format allows {MAX_HEADER}")
        text = file.read(length)
    header = parse_json(text, f"{path}: header")
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise InputError(f"{path}: {METADATA} must map strings to strings, got {show(metadata)}")
    found = {name: _entry(name, fields, path) for name, fields in header.items()}
    # Zero-size tensors share their start with the next one, so `stop` decides.
    entries = dict(sorted(found.items(), key=lambda item: (item[1].start, item[1].stop)))
    end = 0
    for name, entry in entries.items():
        if entry.start != end:
            what = "overlaps the one before it" if entry.start < end else "leaves a hole before it"
            raise InputError(f"{path}: tensor {show(name)} at {entry.start}:{entry.stop} {what}")
        end = entry.stop
    data_offset = 8 + length
    if data_offset + end != file_size:
        what = "truncated" if data_offset + end > file_size else "bytes after the last tensor"
        raise InputError(
            f"{path}: {what}: the header needs {data_offset + end} bytes, the file has {file_size}"
        )
    return metadata, entries, data_offset


def _entry(name: str, fields: object, path: Path) -> Entry:
    where = f"{path}: tensor {show(name)}"
    check_name(name, str(path))
    if not isinstance(fields, dict) or fields.keys() != {"dtype", "shape", "data_offsets"}:
        raise InputError(f"{where}: needs dtype, shape and data_offsets, got {show(fields)}")
    dtype, offsets = fields["dtype"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise InputError(f"{where}: unknown dtype {show(dtype)}; accepted: {', '.join(BITS)}")
    shape = check_shape(fields["shape"], where)
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(type(offset) is int for offset in offsets)
        or not 0 <= offsets[0] <= offsets[1] <= MAX_BYTES
    ):
        raise InputError(f"{where}: data_offsets must be [start, stop], got {show(offsets)}")
    size, rest = divmod(math.prod(shape) * BITS[dtype], 8)
    if rest or size != offsets[1] - offsets[0]:
        raise InputError(
            f"{where}: {dtype} of shape {show(shape)} does not fill data_offsets {show(offsets)}"
        )
    return Entry(dtype, shape, *offsets)


def layout(tensors: Tensors, metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """The layout of a new file.

    Parameters
    ----------
    tensors : mapping of str to (shape, DType or Integer)
        What the file holds.
    metadata : mapping of str to str
        Written as ``__metadata__``.

    Returns
    -------
    header : bytes
        All that comes before the data, padded so that the data starts at a multiple of 8.
    starts : dict of str to int
        Where each tensor begins in the data, in the order of the bytes. The wider dtypes come
        first, so that every tensor is aligned; else it is the order of `tensors`.

    Raises
    ------
    InputError
        If a name is not legal, or the sizes are beyond the format.
    """
    starts: dict[str, int] = {}
    table: dict[str, Any] = {METADATA: dict(metadata)}
    end = 0
    for name, (shape, dtype) in sorted(tensors.items(), key=lambda item: -item[1][1].itemsize):
        if name == METADATA:
            raise InputError(f"{METADATA!r} is not a legal tensor name in a safetensors file")
        start, end = end, end + check_size(name, shape, dtype.itemsize)
        if end > MAX_BYTES:
            raise InputError(f"tensor {show(name)} of shape {show(shape)}: ends beyond 2**63 bytes")
        if dtype.safetensors is None:
            raise InputError(f"tensor {show(name)}: safetensors has no {dtype.name}")
        starts[name] = start
        offsets = [start, end]
        table[name] = {"dtype": dtype.safetensors, "shape": list(shape), "data_offsets": offsets}
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise InputError(f"a header of {len(text)} bytes; the format allows {MAX_HEADER}")
    return len(text).to_bytes(8, "little") + text, starts


def read(path: Path) -> Contents:
    """What a file says that it holds; see `read_header`."""
    metadata, entries, data_offset = read_header(path)
    tensors = {n: (e.shape, _BY_CODE.get(e.dtype, e.dtype)) for n, e in entries.items()}
    return Contents(metadata, tensors, data_offset)


_BY_CODE: dict[str | None, DType | Integer] = {
    dtype.safetensors: dtype for dtype in (DTYPES | INTEGERS).values()
}

FORMAT = Format(layout, read)
