"""A whole checkpoint, written straight into the mapped file."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from numinit.initializers import Initializer
from numinit.models.files import check_target, map_window, new_file, start_writing
from numinit.models.formats import format_of
from numinit.models.integers import Integer
from numinit.models.provenance import metadata_of, sealed
from numinit.models.recipe import Recipe
from numinit.models.recipes import as_recipe
from numinit.models.sources import load_shapes
from numinit.models.tensors import (
    GIVEN,
    Specs,
    Summary,
    checked,
    fill,
    nbytes_of,
    pieces,
    planned,
    resolved,
)
from numinit.models.untrusted import InputError
from numinit.show import show
from numinit.stream.dtypes import DType
from numinit.weights.keys import as_key

__all__ = ["Summary", "write"]

WINDOW = 64 << 20  # bytes of the file mapped at a time

#: ``given(dtype)`` returns the bytes of a tensor in an element type, the same ones each time.
Given = Callable[[DType | Integer], np.ndarray]
Progress = Callable[[int, int], None]  # (bytes done, bytes in all)


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
) -> Summary:
    """Initialize a model into a file, in bounded memory.

    The file appears under its name when it is whole and on disk, or not at all.

    Parameters
    ----------
    path : str or Path
        Ends in ``.safetensors``, or in ``.npy`` for one tensor.
    specs : mapping of str to TensorSpec or sequence of int, str or Path
        Every tensor's name and shape; or a source as `numinit.models.sources.load_shapes` reads.
    recipe : Recipe, str, Path or mapping of str to Initializer
        A recipe, the name of a shipped one, the path of a TOML file; or globs and their
        initializers, of which the first glob that matches a name wins. A file records it as TOML.
    seed : int or Key, default 0
        The tensor `name` is drawn from ``as_key(seed).fold_in(name)``.
    dtype : dtype, optional
        For all tensors whose rule has no `dtype`; by default each tensor's own, and float32 for
        those that have none. Integer and boolean tensors always keep their own; the recipe must make
        them constants, or integers by their indices.
    progress : callable, optional
        Called as ``progress(bytes_done, bytes_in_all)``.
    overwrite : bool, default False
        Replace a file that exists.
    tensor : str, optional
        Which tensor an ``.npy`` file gets; needed where there are several.
    given : mapping of str to callable, optional
        Tensors that the recipe does not make: functions of the element type that return their
        bytes, contiguous, uint8. They are called twice. The file has the tensors' digests.

    Raises
    ------
    ValueError
        `InputError` or `RecipeError`, before anything is created.
    OSError
        If the disk is full or fails; nothing is left behind.
    """
    path = Path(path)
    form = format_of(path)
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
    # Compiled before the file is there: if the compiler dies for want of memory, nothing is left behind.
    made = {name: kind for name, kind in tensors.items() if name not in given}
    plans = planned(recipe, shapes, made, WINDOW, known)
    own = {name: given[name] for name in tensors if name in given}
    digests = {
        name: hashlib.sha256(values(tensors[name][1]).data).hexdigest()
        for name, values in own.items()
    }
    header, starts = form.layout(tensors, metadata_of(recipe, key, digests) if form.read else {})
    header = sealed(header)
    total = max(start + nbytes_of(*tensors[name]) for name, start in starts.items())
    target = check_target(path, overwrite)
    with new_file(target, len(header) + total, overwrite) as fd:
        map_window(fd, 0, len(header))[:] = np.frombuffer(header, np.uint8)
        started = 0
        for name, values in own.items():
            size = nbytes_of(*tensors[name])
            if size:
                map_window(fd, len(header) + starts[name], size)[:] = values(tensors[name][1])
        for piece in pieces(
            made, {name: start for name, start in starts.items() if name in made}, plans, WINDOW
        ):
            window = map_window(fd, len(header) + piece.begin, piece.nbytes)
            fill(window, piece, plans, key)
            del window  # one at a time
            done = piece.begin + piece.nbytes
            if done - started >= WINDOW:
                start_writing(fd, started, done)
                started = done
            if progress:
                progress(done, total)
    return Summary(len(tensors), total, ((GIVEN, 0.0, len(own)),) if own else ())


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
