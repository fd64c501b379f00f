"""A whole checkpoint, written straight into the mapped file, or into several."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from numinit.initializers import Initializer
from numinit.models import shards
from numinit.models.files import check_target, map_window, new_file, start_writing
from numinit.models.formats import FORMATS, format_of
from numinit.models.formats.format import Tensors
from numinit.models.integers import Integer
from numinit.models.provenance import Mismatch, Part, metadata_of, sealed, set_digest
from numinit.models.recipe import Recipe
from numinit.models.recipes import as_recipe
from numinit.models.sources import load_shapes
from numinit.models.tensors import (
    GIVEN,
    Plans,
    Specs,
    Summary,
    checked,
    fill,
    nbytes_of,
    pieces,
    planned,
    resolved,
)
from numinit.models.untrusted import InputError, open_regular
from numinit.models.verify import Held, compare_file, each_of
from numinit.show import show
from numinit.stream.dtypes import DType
from numinit.weights.keys import Key, as_key

__all__ = ["Summary", "write"]

WINDOW = 64 << 20  # bytes of the file mapped at a time
OTHER = (
    "exists and is not what would be written, but of another model, recipe, seed, type or version; "
    "pass --force (overwrite=True) to replace it"
)

#: ``given(dtype)`` returns the bytes of a tensor in an element type, the same ones each time.
Given = Callable[[DType | Integer], np.ndarray]
Progress = Callable[[int, int], None]  # (bytes done, bytes in all)


class New(NamedTuple):
    """A file that is to be there."""

    path: Path
    tensors: Tensors
    starts: Mapping[str, int]
    """Where each tensor begins in the data, in the order of the bytes."""
    header: bytes
    """All that comes before the data."""
    digests: Mapping[str, str]
    """Of the tensors that the recipe does not make."""

    @property
    def nbytes(self) -> int:
        """The bytes of its tensors."""
        return sum(nbytes_of(*kind) for kind in self.tensors.values())

    def held(self) -> Held:
        """The file as `compare` takes it, once it is there."""
        ordered = {name: self.tensors[name] for name in self.starts}
        return Held(self.path, ordered, self.digests, len(self.header))


def write(
    path: str | Path,
    specs: Specs | str | Path,
    recipe: Recipe | str | Path | Mapping[str, Initializer],
    seed: Any = 0,
    dtype: Any = None,
    progress: Progress | None = None,
    overwrite: bool = False,
    *,
    tensor: str | None = None,
    given: Mapping[str, Given] | None = None,
    max_shard_size: int | str | None = None,
    shard: tuple[int, int] | None = None,
) -> Summary:
    """Initialize a model into a file, or into several, in bounded memory.

    A file appears under its name when it is whole and on disk, or not at all. Several files are a
    checkpoint as Hugging Face's libraries write it: ``model-00001-of-00004.safetensors`` and so on,
    and ``model.safetensors.index.json``; or ``model.safetensors`` alone, if all fits into one.

    A call that was killed goes on where it was when it is made again: files that are there are
    kept if they are what would be written, which is verified. Others are only replaced by `overwrite`.

    Parameters
    ----------
    path : str or Path
        Ends in ``.safetensors``, or in ``.npy`` for one tensor. With `max_shard_size` the directory
        of the files, which is made if it is not there.
    specs : mapping of str to TensorSpec or sequence of int, str or Path
        Every tensor's name and shape; or a source as `numinit.models.sources.load_shapes` reads.
    recipe : Recipe, str, Path or mapping of str to Initializer
        A recipe, the name of a shipped one, the path of a TOML file; or globs and their
        initializers, of which the first glob that matches a name wins. A file records it as TOML.
    seed : int or Key, default 0
        The tensor `name` is drawn from ``as_key(seed).fold_in(name)``.
    dtype : dtype, optional
        For all tensors whose rule has no `dtype`; by default each tensor's own, and float32 for
        those that have none. Complex tensors keep their own, unless a complex one is given. Integer
        and boolean tensors always do; the recipe must make them constants, or integers by their
        indices.
    progress : callable, optional
        Called as ``progress(bytes_done, bytes_in_all)``.
    overwrite : bool, default False
        Replace a file that exists; in a directory also remove the files of another checkpoint.
    tensor : str, optional
        Which tensor an ``.npy`` file gets; needed where there are several.
    given : mapping of str to callable, optional
        Tensors that the recipe does not make: functions of the element type that return their
        bytes, contiguous, uint8. They are called twice. The file has the tensors' digests.
    max_shard_size : int or str, optional
        Write several files: the most bytes of tensors in each, such as "5GB". Larger tensors have
        files of their own.
    shard : (int, int), optional
        Write a part of the files alone: (3, 16) is the third of 16 parts. Processes that write all
        parts make the files that one process would; they need nothing from each other. The first
        one writes the index.

    Returns
    -------
    Summary
        Of the files that this call is for, including those that were there.

    Raises
    ------
    ValueError
        `InputError` or `RecipeError`, before anything is created.
    OSError
        If the disk is full or fails. Of the file that was being written nothing is left.

    Examples
    --------
    >>> import os, tempfile
    >>> from numinit.models.write import write
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     done = write(folder, "resnet-50", "resnet", seed=0, max_shard_size="60MB")
    ...     print(*sorted(os.listdir(folder)), sep=", ")
    model-00001-of-00002.safetensors, model-00002-of-00002.safetensors, model.safetensors.index.json
    """
    path = Path(path)
    several = max_shard_size is not None
    if several and path.suffix in FORMATS:
        raise InputError(f"{path}: max_shard_size (--max-shard-size) makes a directory of files")
    if shard is not None and not several:
        raise InputError(
            "shard (--shard): a part of several files; max_shard_size (--max-shard-size) makes those"
        )
    form = format_of(path, shards.SUFFIX if several else "")
    size = None if max_shard_size is None else shards.parse_size(max_shard_size)
    if isinstance(specs, str | Path):
        specs = load_shapes(specs)
    recipe, key = as_recipe(recipe), as_key(seed)
    model = wanted = checked(specs)
    given = given or {}
    shapes = {name: spec.shape for name, spec in model.items() if name not in given}
    if form.read is None:
        name = _only_tensor(wanted, tensor)
        wanted = {name: wanted[name]}
    elif tensor is not None:
        raise InputError(f"{path}: a single tensor can be chosen for .npy only")
    known = resolved(model, dtype, recipe, wanted)
    tensors = {name: known[name] for name in wanted}
    files = {path.name: [*tensors]} if size is None else shards.split(tensors, size)
    own = shards.part_of([*files], shard)
    # Compiled before the file is there: if the compiler dies for want of memory, nothing is left behind.
    made = {name: tensors[name] for file in own for name in files[file] if name not in given}
    plans = planned(recipe, shapes, made, WINDOW, known)
    digest = set_digest(tensors) if len(files) > 1 else ""
    of_each_layer = recipe.of_each_layer(shapes) if digest else []
    new = []
    for file in own:
        held = {name: tensors[name] for name in files[file]}
        digests = {
            name: hashlib.sha256(given[name](dtype).data).hexdigest()
            for name, (_, dtype) in held.items()
            if name in given
        }
        part = None
        if digest:
            needed = plans.needs(held.keys() - digests.keys(), of_each_layer)
            part = Part(digest, {name: known[name] for name in sorted(needed)})
        about = metadata_of(recipe, key, digests, part) if form.read else {}
        header, starts = form.layout(held, about)
        place = path / file if several else path
        new.append(New(place, held, starts, sealed(header), digests))
    total = sum(one.nbytes for one in new)
    shown: Callable[[int], object] | None = progress and (lambda done: progress(done, total))
    kept: set[Path] = set()
    index, others = None, []
    if several:
        index = shards.index_of(files, tensors) if digest else None
        others = _others_in(path, files, index, overwrite)
        kept = _kept(new, plans, key, overwrite, shown)
        path.mkdir(exist_ok=True)
    done = sum(one.nbytes for one in new if one.path in kept)
    for one in new:
        if one.path not in kept:
            _make(one, given, plans, key, overwrite, done, shown)
            done += one.nbytes
    if several and (shard is None or shard[0] == 1):
        _finish(path, index, others, overwrite)
    counts = [len(one.digests) for one in new]
    return Summary(
        sum(len(one.tensors) for one in new),
        total,
        ((GIVEN, 0.0, sum(counts)),) if any(counts) else (),
    )


def _make(
    one: New,
    given: Mapping[str, Given],
    plans: Plans,
    key: Key,
    overwrite: bool,
    before: int,
    progress: Callable[[int], object] | None,
) -> None:
    """Make one file, after others that have `before` bytes."""
    target = check_target(one.path, overwrite)
    lead = len(one.header)
    with new_file(target, lead + one.nbytes, overwrite) as fd:
        map_window(fd, 0, lead)[:] = np.frombuffer(one.header, np.uint8)
        started = 0
        for name in one.digests:
            dtype = one.tensors[name][1]
            if size := nbytes_of(*one.tensors[name]):
                map_window(fd, lead + one.starts[name], size)[:] = given[name](dtype)
        starts = {name: start for name, start in one.starts.items() if name not in one.digests}
        for piece in pieces(one.tensors, starts, plans, WINDOW):
            window = map_window(fd, lead + piece.begin, piece.nbytes)
            fill(window, piece, plans, key)
            del window  # one at a time
            done = piece.begin + piece.nbytes
            if done - started >= WINDOW:
                start_writing(fd, started, done)
                started = done
            if progress:
                progress(before + done)


def _others_in(
    directory: Path, files: Mapping[str, Sequence[str]], index: bytes | None, overwrite: bool
) -> list[Path]:
    """The files of other checkpoints in a directory; refused unless they may be removed."""
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory}: exists and is not a directory")
    if not directory.resolve().parent.is_dir():
        raise InputError(f"{directory}: the directory {directory.resolve().parent} does not exist")
    others = shards.strays(directory, files)
    if others and not overwrite:
        raise InputError(
            f"{directory}: has files of another checkpoint, {show([one.name for one in others])}; "
            "pass --force (overwrite=True) to remove them"
        )
    place = directory / shards.INDEX
    if index and not overwrite and place.exists() and not _has(place, len(index), index):
        raise InputError(f"{place}: {OTHER}")
    return others


def _has(path: Path, size: int, begin: bytes) -> bool:
    """Whether a file that is there has a size, and begins with some bytes."""
    file, found = open_regular(path)
    with file:
        return found == size and file.read(len(begin)) == begin


def _finish(directory: Path, index: bytes | None, others: Sequence[Path], overwrite: bool) -> None:
    """Write the index, if there is to be one; then remove other checkpoints' files."""
    place = directory / shards.INDEX
    if index and not (place.exists() and _has(place, len(index), index)):
        with new_file(check_target(place, overwrite), len(index), overwrite) as fd:
            map_window(fd, 0, len(index))[:] = np.frombuffer(index, np.uint8)
    for other in others:
        other.unlink(missing_ok=True)


def _kept(
    new: Sequence[New],
    plans: Plans,
    key: Key,
    overwrite: bool,
    progress: Callable[[int], object] | None,
) -> set[Path]:
    """The files that are there already, as they are to be; others are refused or left out."""
    same = []
    for one in new:
        if one.path.exists():
            if _has(one.path, len(one.header) + one.nbytes, one.header):
                same.append(one)
            elif not overwrite:
                raise InputError(f"{one.path}: {OTHER}")
    kept: set[Path] = set()

    def check(one: New, advance: Callable[[int], None]) -> None:
        try:
            compare_file(one.held(), plans, key, advance)
        except Mismatch as mismatch:
            if not overwrite:
                raise InputError(
                    f"{mismatch}; pass --force (overwrite=True) to replace the file"
                ) from mismatch
        else:
            kept.add(one.path)

    each_of(same, check, progress)
    return kept


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
