"""Whole checkpoints: written straight into the mapped file, and verified from the file alone."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from numinit._version import STREAM_VERSION, __version__
from numinit.engines import driver
from numinit.engines.by_index import decoded
from numinit.engines.layout import View
from numinit.engines.spec import Plan, Whole
from numinit.initializers.base import Planned
from numinit.models.files import check_target, map_window, new_file, start_writing
from numinit.models.formats import npy, safetensors
from numinit.models.formats.safetensors import Entry
from numinit.models.integers import INTEGERS, Integer, constant
from numinit.models.recipes import Recipe, as_recipe, parse
from numinit.models.sources import TensorSpec, load_shapes
from numinit.models.untrusted import InputError, check_shape, open_regular, show
from numinit.stream.dtypes import DTYPES, DType, as_dtype
from numinit.weights.keys import Key, as_key

__all__ = ["Mismatch", "Summary", "verify", "write"]

WINDOW = 64 << 20  # bytes of the file mapped at a time
BUFFER = 16 << 20  # bytes regenerated at a time by verify

Progress = Callable[[int, int], None]  # (bytes done, bytes in all)
Specs = Mapping[str, TensorSpec | Sequence[int]]
Tensors = dict[str, tuple[tuple[int, ...], DType | Integer]]

_BY_CODE: dict[str, DType | Integer] = {
    dtype.safetensors or dtype.name: dtype for dtype in (DTYPES | INTEGERS).values()
}
UNSEALED = "0" * 64  # in the place of the header's own digest, while that is taken


class Summary(NamedTuple):
    """How much was written or verified."""

    tensors: int
    nbytes: int


class Piece(NamedTuple):
    """A run of one tensor's elements."""

    tensor: str
    dtype: DType | Integer
    shape: tuple[int, ...]  # of the whole tensor
    first: int  # element
    begin: int  # byte in the data
    nbytes: int


class Mismatch(Exception):
    """A file that differs from what its own metadata describes.

    Attributes
    ----------
    tensor : str or None
        The first tensor that differs; None where the header does.
    index : tuple of int or None
        Its first element that differs.
    """

    def __init__(
        self, message: str, tensor: str | None = None, index: tuple[int, ...] | None = None
    ) -> None:
        super().__init__(message)
        self.tensor = tensor
        self.index = index


def write(
    path: str | Path,
    specs: Specs | str | Path,
    recipe: Recipe | str | Path,
    seed: Any = 0,
    dtype: Any = None,
    progress: Progress | None = None,
    overwrite: bool = False,
    *,
    tensor: str | None = None,
) -> Summary:
    """Initialize a model into a file, in bounded memory.

    The file appears under its name when it is whole and on disk, or not at all.

    Parameters
    ----------
    path : str or Path
        Ends in ``.safetensors``, or in ``.npy`` for one tensor.
    specs : mapping of str to TensorSpec or sequence of int, str or Path
        Every tensor's name and shape; or a source as `numinit.models.sources.load_shapes` reads.
    recipe : Recipe, str or Path
        A parsed recipe, the name of a shipped one, or the path of a TOML file.
    seed : int or Key, default 0
        The tensor `name` is drawn from ``as_key(seed).fold_in(name)``.
    dtype : dtype, optional
        For all tensors; by default each tensor's own, and float32 for those that have none.
        Integer and boolean tensors always keep their own; the recipe must make them constants.
    progress : callable, optional
        Called as ``progress(bytes_done, bytes_in_all)``.
    overwrite : bool, default False
        Replace a file that exists.
    tensor : str, optional
        Which tensor an ``.npy`` file gets; needed where there are several.

    Raises
    ------
    ValueError
        `InputError` or `RecipeError`, before anything is created.
    OSError
        If the disk is full or fails; nothing is left behind.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".npy"):
        raise InputError(f"{path}: the name must end in .safetensors or .npy")
    if isinstance(specs, str | Path):
        specs = load_shapes(specs)
    recipe, key = as_recipe(recipe), as_key(seed)
    if not specs:
        raise InputError("no tensors: at least one name and shape is needed")
    checked = {name: _checked(name, spec) for name, spec in specs.items()}
    shapes = {name: spec.shape for name, spec in checked.items()}
    if path.suffix == ".npy":
        name = _only_tensor(checked, tensor)
        checked = {name: checked[name]}
    tensors = _resolve(checked, dtype)
    plans = _plans(recipe, shapes, tensors)
    if path.suffix == ".npy":
        header = npy.header(name, *tensors[name])
        shape, found = tensors[name]
        code = found.safetensors or found.name
        entries = {name: Entry(code, shape, 0, math.prod(shape) * found.itemsize)}
    else:
        if tensor is not None:
            raise InputError(f"{path}: a single tensor can be chosen for .npy only")
        header, entries = safetensors.layout(tensors, _metadata(recipe, key))
        header = _sealed(header)
    total = max((entry.stop for entry in entries.values()), default=0)
    target = check_target(path, overwrite)
    with new_file(target, len(header) + total, overwrite) as fd:
        map_window(fd, 0, len(header))[:] = np.frombuffer(header, np.uint8)
        started = 0
        for piece in _pieces(entries, plans, WINDOW):
            window = map_window(fd, len(header) + piece.begin, piece.nbytes)
            _fill(window, piece, plans, key)
            del window  # one at a time
            done = piece.begin + piece.nbytes
            if done - started >= WINDOW:
                start_writing(fd, started, done)
                started = done
            if progress:
                progress(done, total)
    return Summary(len(entries), total)


def verify(path: str | Path, progress: Progress | None = None) -> Summary:
    """Derive every value of a file that `write` made again, from its metadata, and compare.

    Parameters
    ----------
    path : str or Path
        A ``.safetensors`` file.
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
    if path.suffix == ".npy":
        raise InputError(f"{path}: .npy records no seed or recipe, so it cannot be verified")
    metadata, entries, data_offset = safetensors.read_header(path)
    _check_header(path, metadata, data_offset)
    recipe, key = _provenance(metadata, path)
    for name, entry in entries.items():
        if entry.dtype not in _BY_CODE:
            raise InputError(f"{path}: tensor {show(name)}: numinit writes no {entry.dtype}")
    try:
        tensors = {name: (e.shape, _BY_CODE[e.dtype]) for name, e in entries.items()}
        plans = _plans(recipe, {name: e.shape for name, e in entries.items()}, tensors)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    total = max((entry.stop for entry in entries.values()), default=0)
    pieces = list(_pieces(entries, plans, BUFFER))
    buffer = np.empty(max((piece.nbytes for piece in pieces), default=0), np.uint8)
    for piece, found in _read_ahead(path, data_offset, pieces, buffer.size):
        expected = buffer[: piece.nbytes]
        _fill(expected, piece, plans, key)
        _compare(found, expected, piece, path, _tolerance(plans[piece.tensor]))
        if progress:
            progress(piece.begin + piece.nbytes, total)
    return Summary(len(entries), total)


def _checked(name: str, given: TensorSpec | Sequence[int]) -> TensorSpec:
    """A tensor's name, shape and dtype, the first two checked."""
    if not isinstance(name, str):
        raise InputError(f"tensor names must be strings, got {show(name)}")
    shape, dtype = given if isinstance(given, TensorSpec) else (given, None)
    return TensorSpec(check_shape(shape, f"tensor {show(name)}"), dtype)


def _resolve(specs: Mapping[str, TensorSpec], dtype: Any) -> Tensors:
    """Every tensor's shape and the dtype to write."""
    override = None if dtype is None else as_dtype(dtype)
    tensors: Tensors = {}
    for name, (shape, own) in specs.items():
        if own in INTEGERS:  # whatever `dtype`: it counts or selects, and has no other meaning
            tensors[name] = (shape, INTEGERS[own])
            continue
        try:
            known = as_dtype(own or "float32")  # even where `dtype` is given: it may be packed
        except TypeError as error:
            accepted = ", ".join([*DTYPES, *INTEGERS])
            raise InputError(
                f"tensor {show(name)} is {own}; only {accepted} can be initialized"
            ) from error
        tensors[name] = (shape, override or known)
    return tensors


def _plans(
    recipe: Recipe, shapes: Mapping[str, Sequence[int]], tensors: Tensors
) -> dict[str, Plan]:
    """Every tensor's plan, after checking that the dtypes of `tensors` can hold it."""
    kinds = {name: kind for name, (_, kind) in tensors.items() if isinstance(kind, DType)}
    plans = recipe.plan(shapes, kinds)
    for name, (shape, dtype) in tensors.items():
        if isinstance(dtype, Integer):
            constant(name, plans[name], dtype)
            continue
        try:
            view = View((0,), (dtype.itemsize,), (1,))
            driver.prepared(plans[name], tuple(shape), dtype, view)
        except (TypeError, ValueError, ArithmeticError) as error:
            raise InputError(f"tensor {show(name)}: {error}") from error
    return plans


def _tolerance(plan: Plan) -> float:
    """How far values may be from those that another machine makes."""
    return abs(plan.gain) * 1e-5 if isinstance(plan, Whole) else 0.0


def _only_tensor(tensors: Mapping[str, object], chosen: str | None) -> str:
    if chosen is None and len(tensors) == 1:
        return next(iter(tensors))
    if chosen is None:
        raise InputError(
            f".npy holds one tensor and the source has {len(tensors)}; choose one with --tensor"
        )
    if chosen not in tensors:
        raise InputError(f"no tensor {show(chosen)}; the source has {show(list(tensors))}")
    return chosen


def _pieces(entries: Mapping[str, Entry], plans: Mapping[str, Plan], size: int) -> Iterator[Piece]:
    """All tensors in the order of their bytes, in pieces of at most `size` bytes if they can."""
    for name, entry in entries.items():
        dtype = _BY_CODE[entry.dtype]
        step = size // dtype.itemsize * dtype.itemsize
        if isinstance(plans[name], Whole):
            step = max(step, entry.stop - entry.start)
        for begin in range(entry.start, entry.stop, step):
            first, nbytes = (begin - entry.start) // dtype.itemsize, min(step, entry.stop - begin)
            yield Piece(name, dtype, entry.shape, first, begin, nbytes)


def _fill(out: np.ndarray, piece: Piece, plans: Mapping[str, Plan], key: Key) -> None:
    """Write a piece's elements."""
    name, dtype = piece.tensor, piece.dtype
    if isinstance(dtype, Integer):
        value = constant(name, plans[name], dtype)
        out.view(value.dtype)[:] = value
    else:
        init = Planned(plans[name])
        init.fill_flat(out, piece.first, piece.shape, dtype, key.fold_in(name))


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


def _metadata(recipe: Recipe, key: Key) -> dict[str, str]:
    if not recipe.text:
        raise InputError(
            f"recipe {recipe.name!r} has no TOML text, so the file could never be verified; "
            "write it in TOML and use its path, or numinit.recipes.parse"
        )
    return {
        "format": "pt",  # what transformers asks for
        "numinit.version": __version__,
        "numinit.stream_version": str(STREAM_VERSION),
        "numinit.seed": str(key.seed),
        "numinit.seed_stream": str(key.stream),
        "numinit.recipe": recipe.name,
        "numinit.recipe_text": recipe.text,
        "numinit.header": UNSEALED,
    }


def _sealed(header: bytes) -> bytes:
    """A header with its own digest, taken while the digest was `UNSEALED`."""
    digest = hashlib.sha256(header).hexdigest()
    return header.replace(_digest_field(UNSEALED), _digest_field(digest), 1)


def _digest_field(digest: str) -> bytes:
    # In a JSON string these quotes would be escaped, so the text occurs in no other place.
    return f'"numinit.header":"{digest}"'.encode(errors="replace")


def _check_header(path: Path, metadata: Mapping[str, str], size: int) -> None:
    """Refuse a header that this version did not write, or not byte for byte."""
    version = metadata.get("numinit.stream_version")
    if version is None:
        raise InputError(f"{path}: not written by numinit: its metadata has no numinit.* keys")
    if version != str(STREAM_VERSION):
        raise InputError(
            f"{path}: written with stream version {show(version)}; this numinit "
            f"({__version__}) has {STREAM_VERSION}, whose values differ"
        )
    if "numinit.header" not in metadata:
        raise InputError(f"{path}: damaged numinit metadata: no numinit.header")
    digest = metadata["numinit.header"]
    file, _ = open_regular(path)
    with file:
        header = file.read(size).replace(_digest_field(digest), _digest_field(UNSEALED), 1)
    if hashlib.sha256(header).hexdigest() != digest:
        raise Mismatch(
            f"{path}: the header differs: its metadata, or the names, shapes or dtypes of its "
            "tensors, are not those written"
        )


def _provenance(metadata: Mapping[str, str], path: Path) -> tuple[Recipe, Key]:
    """The recipe and key that a file's metadata describes."""
    try:
        key = Key(_word(metadata["numinit.seed"]), _word(metadata["numinit.seed_stream"]))
        recipe = parse(metadata["numinit.recipe_text"], f"{path}: recipe")
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: damaged numinit metadata: {error}") from error
    return recipe, key


def _word(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise ValueError(f"{show(text)} is not a seed")
    return int(text)


def _compare(
    found: np.ndarray, expected: np.ndarray, piece: Piece, path: Path, tolerance: float
) -> None:
    word = f"<u{piece.dtype.itemsize}"
    differs = found.view(word) != expected.view(word)
    if tolerance and isinstance(piece.dtype, DType) and differs.any():
        there, here = (decoded(words, piece.dtype) for words in (found, expected))
        ulp = np.abs(here) * 2.0 ** (1 - piece.dtype.precision)  # one more rounding
        least = 2.0 ** (piece.dtype.min_exponent + 1 - piece.dtype.precision)
        differs &= ~(np.abs(there - here) <= tolerance + np.maximum(ulp, least))
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
