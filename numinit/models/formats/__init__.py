"""The table of file formats: one row each, imported when a file of the format is met."""

import importlib
from pathlib import Path

from numinit.models.formats.format import Format
from numinit.models.untrusted import InputError

#: How a file's name ends -> the module that has its `Format`, as ``FORMAT``.
FORMATS = {
    ".safetensors": "numinit.models.formats.safetensors",
    ".npy": "numinit.models.formats.npy",
}


def format_of(path: Path, otherwise: str = "") -> Format:
    """The format that a file's name asks for, or `otherwise` where that is no row of the table.

    Raises
    ------
    InputError
        If neither is.
    """
    module = FORMATS.get(path.suffix, FORMATS.get(otherwise))
    if module is None:
        raise InputError(f"{path}: the name must end in {' or '.join(FORMATS)}")
    found: Format = importlib.import_module(module).FORMAT
    return found
