"""Files verified from themselves: every value is derived again and compared."""

import contextlib
import hashlib
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from numinit.engines import driver
from numinit.engines.by_index import CHUNK, decoded
from numinit.engines.spec import Whole
from numinit.models.formats import format_of
from numinit.models.formats.format import Contents, Tensors
from numinit.models.integers import Integer
from numinit.models.provenance import (
    SET,
    SHARED,
    Mismatch,
    check_header,
    given_of,
    others_of,
    provenance,
    set_digest,
)
from numinit.models.recipe import Recipe
from numinit.models.shards import Members, contents, is_set, members
from numinit.models.tensors import GIVEN, Piece, Plans, Summary, fill, nbytes_of, pieces, planned
from numinit.models.tolerance import outside, rounded
from numinit.models.untrusted import InputError, open_regular
from numinit.show import show
from numinit.stream.dtypes import DType
from numinit.weights.keys import Key

__all__ = ["Held", "Mismatch", "compare_file", "each_of", "verify"]

BUFFER = 16 << 20  # bytes of a file regenerated at a time
AT_ONCE = 4  # files

T = TypeVar("T")

Progress = Callable[[int, int], None]  # (bytes done, bytes in all)


class Held(NamedTuple):
    """A file whose values are to be compared."""

    path: Path
    tensors: Tensors
    """In the order of their bytes, without holes."""
    given: Mapping[str, str]
    """The SHA-256, in hex, of each tensor that the recipe does not make."""
    data_offset: int

    @property
    def made(self) -> Tensors:
        """The tensors that the recipe makes."""
        return {name: kind for name, kind in self.tensors.items() if name not in self.given}

    @property
    def nbytes(self) -> int:
        """The bytes of its tensors."""
        return sum(nbytes_of(*kind) for kind in self.tensors.values())


def verify(path: str | Path, progress: Progress | None = None) -> Summary:
    """Derive every value of what `write` made again, from the files' metadata, and compare.

    Parameters
    ----------
    path : str or Path
        A safetensors file, under any name but those of other formats; the index of several, or
        their directory. One of several files can be verified without the others.
    progress : callable, optional
        Called as ``progress(bytes_done, bytes_in_all)``.

    Raises
    ------
    Mismatch
        Naming the header, or the first tensor and element that differ, in the order of the files; or
        what differs between the files, or between them and the index.
    InputError
        If a file is damaged or missing, or says too little about itself.
    OSError
        If one cannot be read to its end.
    """
    path = Path(path)
    if is_set(path):
        found = members(path)
        held = contents(found)
        if len(held) > 1 or found.placed is not None:
            return _verify_set(path, found, held, progress)
        ((path, file),) = held.items()
    else:
        read = format_of(path, ".safetensors").read
        if read is None:
            raise InputError(
                f"{path}: {path.suffix} records no seed or recipe, so it cannot be verified"
            )
        file = read(path)
    one = _held(path, file)
    recipe, key = provenance(file.metadata, path)
    if SET in file.metadata:  # rules may be for tensors of other files
        recipe = replace(recipe, optional=True)
    plans = _planned(path, recipe, one.made, others_of(file.metadata, path))
    return _compared([one], plans, key, progress)


def _verify_set(
    path: Path, found: Members, held: Mapping[Path, Contents], progress: Progress | None
) -> Summary:
    """Verify several files: each one, and that they are one set, and whole."""
    files = [_held(one, file) for one, file in held.items()]
    first = held[files[0].path].metadata
    for one, file in held.items():
        if SET not in file.metadata:
            raise InputError(f"{one}: was not written as one of several files; verify it alone")
        for said in (*SHARED, SET):
            if file.metadata.get(said) != first.get(said):
                raise Mismatch(
                    f"{one}: is of another set than {files[0].path.name}: their {said} differ"
                )
    tensors = {name: kind for one in files for name, kind in one.tensors.items()}
    if set_digest(tensors) != first[SET]:
        raise Mismatch(f"{path}: the {len(files)} files have not all tensors of their set, or more")
    if found.placed is not None:
        placed = {name: one.path.name for one in files for name in one.tensors}
        if wrong := placed.keys() ^ found.placed.keys():
            raise Mismatch(f"{path}: the index differs at tensor {show(min(wrong))}", min(wrong))
        if found.total_size != (total := sum(one.nbytes for one in files)):
            raise Mismatch(
                f"{path}: the index says total_size {show(found.total_size)}; the files have {total} "
                "bytes of tensors"
            )
    recipe, key = provenance(first, files[0].path)
    made = {name: kind for one in files for name, kind in one.made.items()}
    return _compared(files, _planned(path, recipe, made, {}), key, progress)


def _held(path: Path, file: Contents) -> Held:
    """A file whose header is as it was written."""
    check_header(path, file.metadata, file.data_offset)
    tensors = {}
    for name, (shape, dtype) in file.tensors.items():
        if isinstance(dtype, str):
            raise InputError(f"{path}: tensor {show(name)}: numinit writes no {dtype}")
        tensors[name] = (shape, dtype)
    return Held(path, tensors, given_of(file.metadata, tensors, path), file.data_offset)


def _planned(path: Path, recipe: Recipe, made: Tensors, others: Tensors) -> Plans:
    try:
        known = {**others, **made}
        shapes = {name: shape for name, (shape, _) in known.items()}
        return planned(recipe, shapes, made, BUFFER, known)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def _compared(
    files: Sequence[Held], plans: Plans, key: Key, progress: Progress | None = None
) -> Summary:
    """Compare files with what their recipe makes, several at a time.

    Parameters
    ----------
    files : sequence of Held
    plans : Plans
        Of all tensors that the recipe makes, in all of the files.
    key : Key
    progress : callable, optional
        Called as ``progress(bytes_done, bytes_in_all)``.

    Raises
    ------
    Mismatch
        Of the first file that differs.
    """
    total = sum(one.nbytes for one in files)
    each_of(
        files,
        lambda one, advance: compare_file(one, plans, key, advance),
        progress and (lambda done: progress(done, total)),
    )
    within: Counter[tuple[str, float]] = Counter()
    for one in files:
        for name, (_, dtype) in one.made.items():
            plan = plans[name]
            if isinstance(plan, Whole) and isinstance(dtype, DType):
                within[plan.name, plan.tolerance(dtype)] += 1
        if one.given:
            within[GIVEN, 0.0] += len(one.given)
    tensors = sum(len(one.tensors) for one in files)
    return Summary(tensors, total, tuple((*what, n) for what, n in sorted(within.items())))


def each_of(
    files: Sequence[T],
    job: Callable[[T, Callable[[int], None]], object],
    progress: Callable[[int], object] | None,
) -> None:
    """Call a job for each file, in this thread and a few others.

    Parameters
    ----------
    files : sequence
    job : callable
        Called as ``job(file, advance)``. It calls ``advance(nbytes)`` now and then, which raises an
        exception if another thread was interrupted.
    progress : callable or None
        Called as ``progress(bytes_done)``, by one thread at a time.

    Raises
    ------
    Exception
        That of the first file whose job raised one.
    """
    left = deque(enumerate(files))
    failed: dict[int, BaseException] = {}
    interrupted, done, lock = False, 0, threading.Lock()

    def advance(nbytes: int) -> None:
        nonlocal done
        with lock:
            if interrupted:
                raise InterruptedError
            done += nbytes
            if progress:
                progress(done)

    def work() -> None:
        nonlocal interrupted
        while left and not failed:
            try:
                number, file = left.popleft()
            except IndexError:  # another thread took it
                return
            try:
                job(file, advance)
            except BaseException as error:
                failed[number] = error
                interrupted |= not isinstance(error, Exception)

    threads = [threading.Thread(target=work) for _ in files[1:AT_ONCE]]
    started = []
    try:
        with contextlib.suppress(RuntimeError):  # no more threads here
            for thread in threads:
                thread.start()
                started.append(thread)
        work()
        for thread in started:
            thread.join()
    except BaseException:
        interrupted = True
        left.clear()
        for thread in started:
            thread.join()
        raise
    if failed:
        raise failed[min(failed, key=lambda n: (isinstance(failed[n], Exception), n))]


def compare_file(one: Held, plans: Plans, key: Key, advance: Callable[[int], object]) -> None:
    """Compare one file; call `advance` with the bytes of each piece."""
    starts, total = {}, 0
    for name, kind in one.tensors.items():
        starts[name] = total
        total += nbytes_of(*kind)
    parts = pieces(one.tensors, starts, plans, BUFFER, cut=True)
    buffer = np.empty(min(BUFFER, total), np.uint8)
    matrix: np.ndarray | None = None
    hashed = {name: hashlib.sha256() for name in one.given}
    for piece, found in _read_ahead(one.path, one.data_offset, parts, buffer.size):
        if piece.tensor in one.given:
            hashed[piece.tensor].update(found.data)
            advance(piece.nbytes)
            continue
        plan = plans[piece.tensor]
        if isinstance(plan, Whole) and isinstance(piece.dtype, DType):
            if piece.first == 0:
                matrix = None  # one at a time
                own = plans.key(piece.tensor, key)
                matrix = driver.matrix(plan, piece.dtype, own.seed, own.stream)
            assert matrix is not None
            _compare_to_rounding(found, matrix, plan, piece, one.path)
        else:
            matrix = None
            expected = buffer[: piece.nbytes]
            fill(expected, piece, plans, key)
            _compare(found, expected, piece, one.path)
        advance(piece.nbytes)
    for name, digest in one.given.items():
        if hashed[name].hexdigest() != digest:
            raise Mismatch(f"{one.path}: tensor {show(name)} differs from what was written", name)


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
