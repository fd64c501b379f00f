"""What a file format is to those who write and verify."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from numinit.models.integers import Integer
from numinit.stream.dtypes import DType

#: Every tensor's shape and element type.
Tensors = Mapping[str, tuple[tuple[int, ...], DType | Integer]]


class Contents(NamedTuple):
    """What a file says that it holds."""

    metadata: dict[str, str]
    tensors: dict[str, tuple[tuple[int, ...], DType | Integer | str]]
    """In the order of their bytes, without holes. The type is a name where numinit does not have it."""
    data_offset: int
    """Where the data starts in the file."""


class Format(NamedTuple):
    """What is asked of a file format: one of these in its file, as ``FORMAT``."""

    layout: Callable[[Tensors, Mapping[str, str]], tuple[bytes, dict[str, int]]]
    """What comes before the data of a new file, given its tensors and metadata; and where each tensor
    begins in the data, in the order of the bytes. Raises an InputError for what the format lacks."""
    read: Callable[[Path], Contents] | None = None
    """What a file holds, trusting nothing in it; None for a format without names and metadata, which
    holds one tensor and cannot be verified."""
