"""NumPy arrays: their memory and their dtypes."""

import ctypes

import numpy as np

from numinit.arrays.memory import Framework, Memory, refuse_own_items
from numinit.stream.dtypes import DTYPES, DType, as_dtype

#: The element types that NumPy has without ml_dtypes.
NUMPY_NAMES = ("float32", "float64", "float16", "complex64", "complex128")
_NUMPY_DTYPES = {np.dtype(name): DTYPES[name] for name in NUMPY_NAMES}


def memory(array: np.ndarray) -> Memory:
    """The memory of an array.

    Raises
    ------
    TypeError, ValueError
        If the element type is not accepted, or the array is read-only or of a class of its own.
    """
    if type(array) is not np.ndarray:
        refuse_own_items(array, np.ndarray)
    if not array.flags.writeable:
        raise ValueError("array: it is read-only; a writable array is accepted")
    dtype = _NUMPY_DTYPES.get(array.dtype)
    if dtype is not None and array.flags.c_contiguous and array.size:
        address = ctypes.addressof(ctypes.c_char.from_buffer(array))  # faster than array.ctypes
    else:
        dtype, address = dtype or as_dtype(array.dtype), array.ctypes.data
    return address, dtype, array.shape, array.strides, ()


def memory_of_bytes(array: np.ndarray, dtype: DType) -> Memory:
    """The memory of elements of a type in an array of their raw bytes.

    Raises
    ------
    TypeError, ValueError
        If it is no such array, is read-only, or ends within an element.
    """
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
        kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(
            f"array: {kind} was given with a dtype; a numpy.ndarray of uint8 is accepted then"
        )
    if array.ndim != 1 or not array.flags.c_contiguous:
        raise ValueError(
            f"array: shape {array.shape} and strides {array.strides} were given with a dtype; a "
            "contiguous array of one axis is accepted then"
        )
    if not array.flags.writeable:
        raise ValueError("array: it is read-only; a writable array is accepted")
    if array.size % dtype.itemsize:
        raise ValueError(
            f"array: {array.size} bytes were given; a multiple of {dtype.itemsize} is accepted for "
            f"{dtype.name}"
        )
    part = (array.size // dtype.itemsize,)
    return array.ctypes.data, dtype, part, (dtype.itemsize,), ()


def numpy_dtype(dtype: DType) -> np.dtype:
    """The NumPy dtype of an element type.

    Raises
    ------
    ImportError
        For bfloat16 and float8, if ml_dtypes is not installed. It names the extra.
    """
    if dtype.name in NUMPY_NAMES:
        return np.dtype(dtype.name)
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError(
            f"dtype: NumPy arrays of {dtype.name} need ml_dtypes: pip install 'numinit[ml-dtypes]'"
        ) from None
    found: np.dtype = np.dtype(getattr(ml_dtypes, dtype.name))
    return found


def values(array: np.ndarray) -> np.ndarray:
    """The array itself, as an np.ndarray."""
    refuse_own_items(array, np.ndarray)
    return np.asarray(array)


FRAMEWORK = Framework(np.ndarray, memory, values)
