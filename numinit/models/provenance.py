"""What a file says of how it was made, under a seal: enough to derive every value again."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from numinit._version import STREAM_VERSION, __version__
from numinit.models.formats.format import Tensors
from numinit.models.integers import INTEGERS, Integer
from numinit.models.recipe import VERSION, Recipe
from numinit.models.recipes import parse, text_of
from numinit.models.sources import specs_of
from numinit.models.untrusted import InputError, open_regular, parse_json
from numinit.show import show
from numinit.stream.dtypes import DTYPES, DType
from numinit.weights.keys import Key

__all__ = [
    "SET", "SHARED", "Mismatch", "Part", "check_header", "given_of", "metadata_of", "others_of", "provenance",
    "sealed", "set_digest",
]  # fmt: skip

GIVEN = "numinit.given"  # the key of the digests of tensors that the recipe does not make
SET = "numinit.set"  # the key of the digest of a set of files, which each of them has
OTHERS = "numinit.others"  # the key of the tensors of other files that a file's own depend on
#: What all files of a set say alike.
SHARED = ("numinit.seed", "numinit.seed_stream", "numinit.recipe_text", "numinit.recipe_version")
UNSEALED = "0" * 64  # in the place of the header's own digest, while that is taken


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


class Part(NamedTuple):
    """What one of several files says of the whole set."""

    digest: str
    """See `set_digest`."""
    others: Tensors
    """The tensors of other files that the values of its own depend on: those that they are tied to,
    and one of each layer."""


def set_digest(tensors: Tensors) -> str:
    """The SHA-256, in hex, of the names, shapes and element types of all tensors of a set of files."""
    listed = sorted([name, list(shape), dtype.name] for name, (shape, dtype) in tensors.items())
    return hashlib.sha256(json.dumps(listed, separators=(",", ":")).encode()).hexdigest()


def metadata_of(
    recipe: Recipe, key: Key, given: Mapping[str, str] | None = None, part: Part | None = None
) -> dict[str, str]:
    """The metadata of a file that is made by a recipe from a key; `sealed` seals the header.

    `given` has the SHA-256, in hex, of each tensor that the recipe does not make.
    """
    others = {
        name: {"shape": shape, "dtype": dtype.name}
        for name, (shape, dtype) in (part.others if part else {}).items()
    }
    return {
        "format": "pt",  # what transformers asks for
        "numinit.version": __version__,
        "numinit.stream_version": str(STREAM_VERSION),
        "numinit.seed": str(key.seed),
        "numinit.seed_stream": str(key.stream),
        "numinit.recipe": recipe.name,
        "numinit.recipe_text": text_of(recipe),
        "numinit.recipe_version": str(VERSION),
        **({GIVEN: json.dumps(given)} if given else {}),
        **({SET: part.digest} if part else {}),
        **({OTHERS: json.dumps(others, separators=(",", ":"))} if others else {}),
        "numinit.header": UNSEALED,
    }


def sealed(header: bytes) -> bytes:
    """A header with its own digest, taken while the digest was `UNSEALED`."""
    digest = hashlib.sha256(header).hexdigest()
    return header.replace(_digest_field(UNSEALED), _digest_field(digest), 1)


def _digest_field(digest: str) -> bytes:
    # In a JSON string these quotes would be escaped, so the text occurs in no other place.
    return f'"numinit.header":"{digest}"'.encode(errors="replace")


def check_header(path: Path, metadata: Mapping[str, str], size: int) -> None:
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


def provenance(metadata: Mapping[str, str], path: Path) -> tuple[Recipe, Key]:
    """The recipe and key that a file's metadata describes."""
    try:
        key = Key(_word(metadata["numinit.seed"]), _word(metadata["numinit.seed_stream"]))
        recipe = parse(metadata["numinit.recipe_text"], f"{path}: recipe", former=True)
        version = metadata.get("numinit.recipe_version", "1")  # the first had no key
        if version not in ("1", str(VERSION)):
            raise ValueError(f"the version {show(version)} of recipes is unknown")
        recipe = replace(recipe, version=int(version))
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: damaged numinit metadata: {error}") from error
    return recipe, key


def given_of(metadata: Mapping[str, str], names: Iterable[str], path: Path) -> dict[str, str]:
    """The SHA-256 of each tensor of a file that its recipe does not make."""
    table = parse_json(metadata.get(GIVEN, "{}").encode(errors="replace"), f"{path}: {GIVEN}")
    known = set(names)
    for name, digest in table.items():
        if name not in known or not isinstance(digest, str) or len(digest) != 64:
            raise InputError(
                f"{path}: damaged numinit metadata: {GIVEN} has {show({name: digest})}"
            )
    return table


def others_of(metadata: Mapping[str, str], path: Path) -> Tensors:
    """The tensors of other files that a file's own depend on."""
    where = f"{path}: {OTHERS}"
    table = parse_json(metadata.get(OTHERS, "{}").encode(errors="replace"), where)
    kinds: dict[str, DType | Integer] = {**DTYPES, **INTEGERS}
    return {
        name: (shape, kinds[dtype or "float32"])
        for name, (shape, dtype) in specs_of(table, where).items()
    }


def _word(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise ValueError(f"{show(text)} is not a seed")
    return int(text)
