"""What ships with the package beside its code: the names and shapes of models, and recipes."""

from importlib import resources
from importlib.resources.abc import Traversable
from typing import Literal

SUFFIXES = {"models": ".json", "recipes": ".toml"}

Kind = Literal["models", "recipes"]


def available(kind: Kind) -> list[str]:
    """The names of what ships, sorted."""
    names, suffix = (file.name for file in _folder(kind).iterdir()), SUFFIXES[kind]
    return sorted(name.removesuffix(suffix) for name in names if name.endswith(suffix))


def file_of(kind: Kind, name: str) -> Traversable:
    """The file of one that is `available`."""
    return _folder(kind) / f"{name}{SUFFIXES[kind]}"


def _folder(kind: Kind) -> Traversable:
    return resources.files("numinit.models") / "data" / kind
