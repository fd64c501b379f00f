"""A file verified from itself: every value is derived again and compared."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from numinit.engines import driver
from numinit.engines.by_index import CHUNK, decoded
from numinit.engines.spec import Whole
from numinit.models.formats import format_of
from numinit.models.integers import Integer
from numinit.models.provenance import Mismatch, check_header, given_of, provenance
from numinit.models.tensors import GIVEN, Piece, Summary, fill, nbytes_of, pieces, planned
from numinit.models.tolerance import outside, rounded
from numinit.models.untrusted import InputError, open_regular
from numinit.show import show
from numinit.stream.dtypes import DType

__all__ = ["Mismatch", "verify"]

BUFFER = 16 << 20  # bytes regenerated at a time

Progress = Callable[[int, int], None]  # (bytes done, bytes in all)


def verify(path: str | Path, progress: Progress | None = None) -> Summary:
    """Derive every value of a file that `write` made again, from its metadata, and compare.

    Parameters
    ----------
    path : str or Path
        A safetensors file, under any name but those of other formats.
    progress : callable, optional
        Called as ``progress(bytes_done, bytes_in_all)``.

    Raises
    ------
    Mismatch
        Naming the header, or the first tensor and element that differ, in the order of the file.
    InputError
        If the file is damaged, or says too little about itself.
    OSError
        If it cannot be read to its end.
    """
    path = Path(path)
    read = format_of(path, ".safetensors").read
    if read is None:
        raise InputError(
            f"{path}: {path.suffix} records no seed or recipe, so it cannot be verified"
        )
    metadata, held, data_offset = read(path)
    check_header(path, metadata, data_offset)
    recipe, key = provenance(metadata, path)
    tensors = {}
    for name, (shape, dtype) in held.items():
        if isinstance(dtype, str):
            raise InputError(f"{path}: tensor {show(name)}: numinit writes no {dtype}")
        tensors[name] = (shape, dtype)
    given = given_of(metadata, tensors, path)
    made = {name: kind for name, kind in tensors.items() if name not in given}
    try:
        shapes = {name: shape for name, (shape, _) in made.items()}
        plans = planned(recipe, shapes, made, BUFFER)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    starts, total = {}, 0
    for name, (shape, dtype) in tensors.items():
        starts[name] = total
        total += nbytes_of(shape, dtype)
    parts = pieces(tensors, starts, plans, BUFFER, cut=True)
    buffer = np.empty(min(BUFFER, total), np.uint8)
    matrix: np.ndarray | None = None
    hashed = {name: hashlib.sha256() for name in given}
    for piece, found in _read_ahead(path, data_offset, parts, buffer.size):
        if piece.tensor in given:
            hashed[piece.tensor].update(found.data)
            continue
        plan = plans[piece.tensor]
        if isinstance(plan, Whole) and isinstance(piece.dtype, DType):
            if piece.first == 0:
                matrix = None  # one at a time
                own = plans.key(piece.tensor, key)
                matrix = driver.matrix(plan, piece.dtype, own.seed, own.stream)
            assert matrix is not None
            _compare_to_rounding(found, matrix, plan, piece, path)
        else:
            matrix = None
            expected = buffer[: piece.nbytes]
            fill(expected, piece, plans, key)
            _compare(found, expected, piece, path)
        if progress:
            progress(piece.begin + piece.nbytes, total)
    for name, digest in given.items():
        if hashed[name].hexdigest() != digest:
            raise Mismatch(f"{path}: tensor {show(name)} differs from what was written", name)
    within: Counter[tuple[str, float]] = Counter()
    for name, (_, dtype) in made.items():
        plan = plans[name]
        if isinstance(plan, Whole) and isinstance(dtype, DType):
            within[plan.name, plan.tolerance(dtype)] += 1
    if given:
        within[GIVEN, 0.0] = len(given)
    return Summary(len(tensors), total, tuple((*what, n) for what, n in sorted(within.items())))


def _read_ahead(
    path: Path, data_offset: int, pieces: Iterable[Piece], size: int
) -> Iterator[tuple[Piece, np.ndarray]]:
    """Each piece and its bytes, which are read while the piece before is in use."""
    # Not mapped: a file that shrinks or a bad disk is then an error, never a signal.
    file, _ = open_regular(path)

    def read(piece: Piece, buffer: np.ndarray) -> tuple[Piece, np.ndarray]:
        found = buffer[: piece.nbytes]
        if file.readinto(found.data) != piece.nbytes:  # type: ignore[attr-defined]
            raise InputError(f"{path}: cut off while it was read, at tensor {show(piece.tensor)}")
        return piece, found

    ahead: Future[tuple[Piece, np.ndarray]] | None = None
    with file, ThreadPoolExecutor(1) as reader:
        file.seek(data_offset)
        submit: Callable[..., Future[Any]] = reader.submit
        try:
            submit(int)  # the thread starts with its first job
        except RuntimeError:  # no more threads here
            submit = _call
        for piece, buffer in zip(pieces, cycle(np.empty((2, size), np.uint8)), strict=False):
            ready, ahead = ahead, submit(read, piece, buffer)
            if ready:
                yield ready.result()
        if ahead:
            yield ahead.result()


def _call(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """The result of a function that is called here and now."""
    done: Future[Any] = Future()
    done.set_result(function(*arguments))
    return done


def _compare_to_rounding(
    found: np.ndarray, matrix: np.ndarray, plan: Whole, piece: Piece, path: Path
) -> None:
    """Compare a part of a tensor whose values are exact to rounding only."""
    dtype = piece.dtype
    assert isinstance(dtype, DType)
    step = CHUNK * dtype.itemsize
    for begin in range(0, piece.nbytes, step):
        part = found[begin : begin + step]
        first, count = piece.first + begin // dtype.itemsize, part.size // dtype.itemsize
        values = matrix.flat[first : first + count]
        expected = rounded(values, dtype)
        differs = (part != expected).reshape(count, -1).any(axis=1)
        if differs.any():
            near = ~outside(part, values, dtype, plan.tolerance(dtype))
            differs &= ~(near if plan.varies is None else near & plan.varies(first, count))
            here = piece._replace(first=first)
            _report(part, expected, differs, here, path)


def _compare(found: np.ndarray, expected: np.ndarray, piece: Piece, path: Path) -> None:
    """Compare a piece bit for bit."""
    word = f"<u{piece.dtype.itemsize}"
    _report(found, expected, found.view(word) != expected.view(word), piece, path)


def _report(
    found: np.ndarray, expected: np.ndarray, differs: np.ndarray, piece: Piece, path: Path
) -> None:
    """Name the first element that differs, if there is one."""
    word = f"<u{piece.dtype.itemsize}"
    if not differs.any():
        return
    position = int(differs.argmax())
    index = tuple(map(int, np.unravel_index(piece.first + position, piece.shape)))
    got, want = (
        _describe(words.view(word)[position : position + 1], piece.dtype)
        for words in (found, expected)
    )
    raise Mismatch(
        f"{path}: tensor {show(piece.tensor)} differs, first at element {list(index)}: "
        f"expected {want}, found {got}",
        piece.tensor,
        index,
    )


def _describe(bits: np.ndarray, dtype: DType | Integer) -> str:
    """A value and its bits: NaN, and zeros of both signs, look alike without them."""
    value = bits.view(dtype.name)[0] if isinstance(dtype, Integer) else decoded(bits, dtype)[0]
    return f"{value!s} (0x{int(bits[0]):0{2 * dtype.itemsize}x})"
