"""Names and shapes of a model: from JSON, from safetensors files, or shipped with the package.

A name in JSON may stand for many that differ in numbers only. A range in braces is one of them::

    "model.layers.{0-31}.norm.weight": [4096]

Ranges nest, as in ``"layers.{0-60}.experts.{0-255}.weight"``. Entries that follow one another and are
alike up to their first range are one loop: all tensors of layer 0 come first, then those of layer 1.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from numinit.models import shards, shipped
from numinit.models.formats import FORMATS, format_of
from numinit.models.formats.format import Contents
from numinit.models.integers import INTEGERS
from numinit.models.recipe import Recipe
from numinit.models.untrusted import (
    MAX_NAME,
    InputError,
    check_name,
    check_shape,
    open_regular,
    parse_json,
    show,
)
from numinit.stream.dtypes import DTYPES

__all__ = [
    "InputError", "Model", "TensorSpec", "available", "config_of", "load_model", "load_shapes",
    "specs_of",
]  # fmt: skip

MAX_JSON = 100_000_000
# What ranges may stand for; a name may cost some hundred bytes. The largest models have 150,000.
MAX_TENSORS = 1 << 18
MAX_CHARACTERS = 1 << 25  # in all names
MAX_RANGES = 8  # in one name
MAX_DIGITS = 9  # of a number in a range

RANGE = re.compile(r"\{([0-9]+)-([0-9]+)\}")
MAX_CONFIG = 1_000_000


class TensorSpec(NamedTuple):
    """A tensor's logical shape and, where its source says so, its dtype."""

    shape: tuple[int, ...]
    dtype: str | None = None


class Model(NamedTuple):
    """What a source says about a model."""

    name: str
    recipe: Recipe | str | None
    tensors: dict[str, TensorSpec]


def load_shapes(source: str | Path) -> dict[str, TensorSpec]:
    """The names, shapes and dtypes of a model's tensors; see `load_model`."""
    return load_model(source).tensors


def load_model(source: str | Path) -> Model:
    """A model's names and shapes.

    Parameters
    ----------
    source : str or Path
        A ``.json`` file ``{"model": name, "recipe": name, "tensors": {name: [size, ...]}}``, of
        which only ``tensors`` is needed, and in which a shape may also be
        ``{"shape": [size, ...], "dtype": "float32"}``, and a name may have ranges, such as
        ``"layers.{0-31}.weight"``; a ``.safetensors`` file, of which only the header is read; the
        ``.index.json`` of several such files, or the directory that they are in; or the name of a
        shipped model (see `available`). The recipe of a JSON file can also be a path; like any
        other, it starts from the current directory, not from the file's.

    Raises
    ------
    InputError
        Naming the source and the tensor.
    """
    path = Path(source)
    name = str(source)
    if config_of(path) is not None:
        raise InputError(
            f"{path}: a configuration of transformers: numinit.torch.trace makes its names and shapes, "
            "and a recipe"
        )
    read = format_of(path).read if path.suffix in FORMATS else None
    if read is not None:
        return Model(path.stem, None, _specs(path, [read(path)]))
    if path.suffix == ".json" and not name.endswith(".index.json"):
        file, size = open_regular(path)
        with file:
            if size > MAX_JSON:
                raise InputError(f"{path}: {size} bytes; at most {MAX_JSON} are accepted")
            return _parse(file.read(size), str(path), path.stem)
    if shards.is_set(path):
        return _in_files(path)
    if name not in available():
        near = get_close_matches(name[:100], available(), 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise InputError(
            f"no model {show(name)}{hint}; accepted: {', '.join(available())}, "
            "or a directory, or a path that ends in .json or .safetensors"
        )
    return _parse(shipped.file_of("models", name).read_bytes(), name, name)


def config_of(source: str | Path) -> Path | None:
    """The configuration of a model of transformers, if that is what a source is."""
    path = Path(source)
    if path.suffix != ".json" or not path.is_file() or path.stat().st_size > MAX_CONFIG:
        return None
    try:
        table = parse_json(path.read_bytes(), str(path))
    except InputError:
        return None
    told = isinstance(table.get("model_type"), str)
    return path if told and not table.keys() & {"tensors", "weight_map"} else None


def available() -> list[str]:
    """The names of the shipped models, sorted."""
    return shipped.available("models")


def _in_files(path: Path) -> Model:
    """A model in several files."""
    found = shards.members(path)
    name = path.resolve().name.removesuffix(shards.INDEX_SUFFIX)
    specs = _specs(path, shards.contents(found).values())
    return Model(name, None, {name: specs[name] for name in found.placed or specs})


def _specs(path: Path, contents: Iterable[Contents]) -> dict[str, TensorSpec]:
    specs = {
        name: TensorSpec(shape, dtype if isinstance(dtype, str) else dtype.name)
        for held in contents
        for name, (shape, dtype) in held.tensors.items()
    }
    if not specs:
        raise InputError(f"{path}: holds no tensors")
    return specs


def _parse(data: bytes, where: str, default_name: str) -> Model:
    table = parse_json(data, where)
    for key in ("model", "recipe"):
        text = table.get(key, "")
        if not isinstance(text, str) or len(text) > MAX_NAME:
            raise InputError(
                f"{where}: key {key!r} must be a string of at most {MAX_NAME} characters, got "
                f"{show(text)}"
            )
    shapes = table.get("tensors")
    if not isinstance(shapes, Mapping) or not shapes:
        raise InputError(f"{where}: key 'tensors' must map names to shapes, got {show(shapes)}")
    entries = specs_of(shapes, where).items()
    _check_ranges(shapes, where)
    tensors: dict[str, TensorSpec] = {}
    for name, given in unfolded(entries):
        if name in tensors:
            raise InputError(f"{where}: tensor name {show(name)} occurs twice, by its ranges")
        tensors[name] = given
    return Model(table.get("model") or default_name, table.get("recipe"), tensors)


def unfolded(entries: Iterable[tuple[str, TensorSpec]]) -> Iterator[tuple[str, TensorSpec]]:
    """All names that names with ranges stand for, each with what is beside it."""
    for head, group in itertools.groupby(
        entries, lambda entry: RANGE.split(entry[0], maxsplit=1)[:-1]
    ):
        if not head:
            yield from group
            continue
        before, low, high = head
        tails = list(unfolded((RANGE.split(name, maxsplit=1)[-1], given) for name, given in group))
        for number in range(int(low), int(high) + 1):
            for tail, given in tails:
                yield f"{before}{number}{tail}", given


def _check_ranges(names: Iterable[str], where: str) -> None:
    """Refuse ranges that are none, and those that stand for more than any model has."""
    tensors = characters = 0
    for name in names:
        ranges = RANGE.findall(name)
        if len(ranges) > MAX_RANGES:
            raise InputError(
                f"{where}: tensor name {show(name)} has {len(ranges)} ranges; at most {MAX_RANGES} "
                "are accepted"
            )
        count = 1
        for low, high in ranges:
            first, last = int(low[:MAX_DIGITS]), int(high[:MAX_DIGITS])
            if (str(first), str(last)) != (low, high) or first > last:
                raise InputError(
                    f"{where}: tensor name {show(name)}: got the range {show(f'{low}-{high}')}; "
                    f"accepted: two numbers of at most {MAX_DIGITS} digits without leading zeros, "
                    "the second not below the first"
                )
            count *= last - first + 1
        if ranges:
            tensors += count
            characters += count * len(name)
        if tensors > MAX_TENSORS or characters > MAX_CHARACTERS:
            raise InputError(
                f"{where}: up to tensor name {show(name)}, ranges stand for more than {MAX_TENSORS} "
                f"names or {MAX_CHARACTERS} characters; at most that many are accepted"
            )


def specs_of(table: Mapping[str, object], where: str) -> dict[str, TensorSpec]:
    """The tensors that a JSON object of names and shapes describes.

    Raises
    ------
    InputError
        Naming the tensor.
    """
    return {
        check_name(name, where): _spec(given, f"{where}: tensor {show(name)}")
        for name, given in table.items()
    }


def _spec(given: object, where: str) -> TensorSpec:
    """A tensor's shape, or an object with its shape and dtype."""
    if not isinstance(given, dict):
        return TensorSpec(check_shape(given, where))
    if unknown := given.keys() - {"shape", "dtype"}:
        raise InputError(f"{where}: got the key {show(min(unknown))}; accepted: shape and dtype")
    dtype = given.get("dtype")
    if dtype is not None and dtype not in (accepted := [*DTYPES, *INTEGERS]):
        raise InputError(f"{where}: got dtype {show(dtype)}; accepted: {', '.join(accepted)}")
    return TensorSpec(check_shape(given.get("shape"), where), dtype)
