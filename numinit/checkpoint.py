"""Whole checkpoints: written straight into the mapped file, and verified from the file alone."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from numinit._version import STREAM_VERSION, __version__
from numinit.adapters import npy, safetensors
from numinit.adapters.inputs import InputError, check_shape, open_regular, show
from numinit.adapters.mapped import check_target, map_window, new_file
from numinit.adapters.safetensors import Entry
from numinit.adapters.shapes import TensorSpec, load_shapes
from numinit.dtypes import DTYPES, DType, as_dtype
from numinit.initializers import Initializer
from numinit.keys import Key, as_key
from numinit.recipes import Recipe, as_recipe, parse

__all__ = ["Mismatch", "Summary", "verify", "write"]

WINDOW = 64 << 20  # bytes of the file mapped at a time
BUFFER = 16 << 20  # bytes regenerated at a time by verify

Progress = Callable[[int, int], None]  # (bytes done, bytes in all)
Specs = Mapping[str, TensorSpec | Sequence[int]]
Tensors = dict[str, tuple[tuple[int, ...], DType]]

_BY_CODE = {dtype.safetensors: dtype for dtype in DTYPES.values()}


class Summary(NamedTuple):
    """How much was written or verified."""

    tensors: int
    nbytes: int


class Mismatch(Exception):
    """A file that differs from what its own metadata describes.

    Attributes
    ----------
    tensor : str or None
        The first tensor that differs; None where the set of tensors does.
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
        Every tensor's name and shape; or a source as `numinit.adapters.shapes.load_shapes` reads.
    recipe : Recipe, str or Path
        A parsed recipe, the name of a shipped one, or the path of a TOML file.
    seed : int or Key, default 0
        The tensor `name` is drawn from ``as_key(seed).fold_in(name)``.
    dtype : dtype, optional
        For all tensors; by default each tensor's own, and float32 for those that have none.
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
    tensors = _resolve(specs, dtype)
    laws = _laws(recipe, tensors)
    if path.suffix == ".npy":
        name = _only_tensor(tensors, tensor)
        header = npy.header(name, *tensors[name])
        shape, found = tensors[name]
        entries = {name: Entry(found.safetensors, shape, 0, math.prod(shape) * found.itemsize)}
    else:
        if tensor is not None:
            raise InputError(f"{path}: a single tensor can be chosen for .npy only")
        header, entries = safetensors.layout(tensors, _metadata(tensors, recipe, key))
    total = max((entry.stop for entry in entries.values()), default=0)
    target = check_target(path, overwrite)
    with new_file(target, len(header) + total) as fd:
        map_window(fd, 0, len(header))[:] = np.frombuffer(header, np.uint8)
        for name, entry in entries.items():
            tensor_key, stored = key.fold_in(name), tensors[name][1]
            for begin, first, nbytes in _pieces(entry, stored.itemsize, WINDOW):
                window = map_window(fd, len(header) + begin, nbytes)
                laws[name].fill_flat(window, first, entry.shape, stored, tensor_key)
                del window  # one at a time
                if progress:
                    progress(begin + nbytes, total)
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
        Naming the first tensor and element that differ, in the order of the file.
    InputError
        If the file is damaged, or says too little about itself.
    OSError
        If it cannot be read to its end.
    """
    path = Path(path)
    if path.suffix == ".npy":
        raise InputError(f"{path}: .npy records no seed or recipe, so it cannot be verified")
    metadata, entries, data_offset = safetensors.read_header(path)
    recipe, key = _provenance(metadata, path)
    if (
        _digest({name: (entry.dtype, entry.shape) for name, entry in entries.items()})
        != (metadata["numinit.tensors"])
    ):
        raise Mismatch(f"{path}: the names, shapes or dtypes of its tensors are not those written")
    for name, entry in entries.items():
        if entry.dtype not in _BY_CODE:
            raise InputError(f"{path}: tensor {show(name)}: numinit writes no {entry.dtype}")
    try:
        laws = _laws(recipe, {name: (e.shape, _BY_CODE[e.dtype]) for name, e in entries.items()})
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    total = max((entry.stop for entry in entries.values()), default=0)
    # Read, not mapped: a file that shrinks or a bad disk is then an error, never a signal.
    found, expected = np.empty((2, min(BUFFER, max(total, 1))), np.uint8)
    file, _ = open_regular(path)
    with file:
        file.seek(data_offset)
        for name, entry in entries.items():
            tensor_key, stored = key.fold_in(name), _BY_CODE[entry.dtype]
            for begin, first, nbytes in _pieces(entry, stored.itemsize, BUFFER):
                if file.readinto(memoryview(found)[:nbytes]) != nbytes:  # type: ignore[attr-defined]
                    raise InputError(f"{path}: truncated while it was read, in tensor {show(name)}")
                laws[name].fill_flat(expected[:nbytes], first, entry.shape, stored, tensor_key)
                _compare(found[:nbytes], expected[:nbytes], path, name, entry, stored, first)
                if progress:
                    progress(begin + nbytes, total)
    return Summary(len(entries), total)


def _resolve(specs: Specs, dtype: Any) -> Tensors:
    """Return every tensor's checked shape and the dtype to write."""
    override = None if dtype is None else as_dtype(dtype)
    if not specs:
        raise InputError("no tensors: at least one name and shape is needed")
    tensors = {}
    for name, given in specs.items():
        if not isinstance(name, str):
            raise InputError(f"tensor names must be strings, got {show(name)}")
        spec = given if isinstance(given, TensorSpec) else TensorSpec(tuple(given))
        shape = check_shape(spec.shape, f"tensor {show(name)}")
        try:
            # Even where `dtype` is given: an integer tensor has a meaning that no recipe knows.
            own = as_dtype(spec.dtype or "float32")
        except TypeError as error:
            raise InputError(
                f"tensor {show(name)} is {spec.dtype}; only {', '.join(DTYPES)} can be initialized"
            ) from error
        tensors[name] = (shape, override or own)
    return tensors


def _laws(recipe: Recipe, tensors: Tensors) -> dict[str, Initializer]:
    """Return every tensor's distribution, after checking that its dtype can hold it."""
    laws = recipe.plan({name: shape for name, (shape, _) in tensors.items()})
    for name, (shape, dtype) in tensors.items():
        try:
            laws[name].law(shape).parameters(dtype)
        except (ValueError, ArithmeticError) as error:
            raise InputError(f"tensor {show(name)}: {error}") from error
    return laws


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


def _pieces(entry: Entry, itemsize: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Cut a tensor into (first byte in the data, first element, bytes) of at most `size` bytes."""
    step = max(size // itemsize, 1) * itemsize
    for begin in range(entry.start, entry.stop, step):
        yield begin, (begin - entry.start) // itemsize, min(step, entry.stop - begin)


def _metadata(tensors: Tensors, recipe: Recipe, key: Key) -> dict[str, str]:
    if not recipe.text:
        raise InputError(
            f"recipe {recipe.name!r} has no TOML text, so the file could never be verified; "
            "write it in TOML and use its path, or numinit.recipes.parse"
        )
    codes = {name: (dtype.safetensors, shape) for name, (shape, dtype) in tensors.items()}
    return {
        "format": "pt",  # what transformers asks for
        "numinit.version": __version__,
        "numinit.stream_version": str(STREAM_VERSION),
        "numinit.seed": str(key.seed),
        "numinit.seed_stream": str(key.stream),
        "numinit.recipe": recipe.name,
        "numinit.recipe_text": recipe.text,
        "numinit.tensors": _digest(codes),
    }


def _digest(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    """Return a digest of the set of tensors, so that a missing one is noticed."""
    return hashlib.sha256(json.dumps(sorted(tensors.items())).encode()).hexdigest()


def _provenance(metadata: Mapping[str, str], path: Path) -> tuple[Recipe, Key]:
    """Return the recipe and key that a file's metadata describes."""
    version = metadata.get("numinit.stream_version")
    if version is None:
        raise InputError(f"{path}: not written by numinit: its metadata has no numinit.* keys")
    if version != str(STREAM_VERSION):
        raise InputError(
            f"{path}: written with stream version {show(version)}; this numinit "
            f"({__version__}) has {STREAM_VERSION}, whose values differ"
        )
    try:
        metadata["numinit.tensors"]
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
    found: np.ndarray,
    expected: np.ndarray,
    path: Path,
    name: str,
    entry: Entry,
    dtype: DType,
    first: int,
) -> None:
    word = f"<u{dtype.itemsize}"
    differs = found.view(word) != expected.view(word)
    if not differs.any():
        return
    position = int(differs.argmax())
    index = tuple(map(int, np.unravel_index(first + position, entry.shape)))
    got, want = (_describe(a.view(word)[position : position + 1], dtype) for a in (found, expected))
    raise Mismatch(
        f"{path}: tensor {show(name)} differs, first at element {list(index)}: "
        f"expected {want}, found {got}",
        name,
        index,
    )


def _describe(bits: np.ndarray, dtype: DType) -> str:
    """Return a value and its bits: NaN, and zeros of both signs, look alike without them."""
    if dtype.name == "bfloat16":
        value = (bits.astype(np.uint32) << 16).view(np.float32)[0]
    else:
        value = bits.view(dtype.name)[0]
    return f"{value!s} (0x{int(bits[0]):0{2 * dtype.itemsize}x})"
