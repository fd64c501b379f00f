"""The .npy format: one array behind a short header."""

import io

import numpy as np

from numinit.arrays.numpy import NUMPY_NAMES
from numinit.models.integers import Integer
from numinit.models.untrusted import InputError, check_size, show
from numinit.stream.dtypes import DType

__all__ = ["header"]


def header(name: str, shape: tuple[int, ...], dtype: DType | Integer) -> bytes:
    """All that comes before the data of a C-ordered array; a multiple of 64 bytes.

    Raises
    ------
    InputError
        For types that the format does not have, and sizes beyond it.
    """
    if not isinstance(dtype, Integer) and dtype.name not in NUMPY_NAMES:
        raise InputError(
            f"tensor {show(name)}: .npy has no {dtype.name}; "
            f"choose --dtype {', '.join(NUMPY_NAMES)}, or write .safetensors"
        )
    check_size(name, shape, dtype.itemsize)
    descr = np.dtype(dtype.name).newbyteorder("<").str
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return file.getvalue()
