"""Arrays of any package in a GPU's memory.

They export it by ``__cuda_array_interface__``, as those of CuPy and Numba, or by DLPack 1.0.
"""

import contextlib
import ctypes
import functools
from typing import Any

import numpy as np

from numinit.arrays.memory import Framework, Memory, refuse_misaligned
from numinit.engines.cuda_driver import check_installed, device_of, wait
from numinit.engines.layout import c_steps
from numinit.stream.dtypes import DTYPES, DType, as_dtype

CUDA, MANAGED = 2, 13  # DLPack's device types: a GPU's memory, and CUDA's managed memory
VERSIONED = b"dltensor_versioned"  # the name of a capsule of DLPack 1.0
READ_ONLY, IS_COPIED = 1, 2  # DLPack's flags


def memory(array: Any) -> Memory:
    """The memory of a GPU's array, and the stream that it exports, on which it will be filled.

    Raises
    ------
    TypeError, ValueError
        If the array is not in a GPU's memory, is read-only or has another element type.
    ImportError
        If the packages that compile for GPUs are missing.
    """
    if type(array).__module__.partition(".")[0] in ("jax", "jaxlib"):
        raise TypeError(
            "array: a JAX array was given, which nothing may write; initialize a CuPy array, a torch "
            "tensor or a NumPy array, of which jax.dlpack.from_dlpack or jax.device_put makes one"
        )
    interface = getattr(array, "__cuda_array_interface__", None)
    return _exported(array) if interface is None else _interfaced(array, interface)


def _interfaced(array: Any, interface: dict[str, Any]) -> Memory:
    """The memory of an array with ``__cuda_array_interface__``."""
    address, read_only = interface["data"]
    if read_only:
        raise ValueError("array: it is read-only; a writable array is accepted")
    if interface.get("mask") is not None:
        raise TypeError("array: it is masked; a plain array is accepted")
    dtype = _named(interface["typestr"], array)
    shape = tuple(map(int, interface["shape"]))
    strides = interface.get("strides")
    if strides is None:
        strides = (step * dtype.itemsize for step in c_steps(shape))
    strides = tuple(map(int, strides))
    check_installed()
    address, queue = int(address or 0), int(interface.get("stream") or 0)
    where = _device(address, dtype, shape, strides, queue), queue
    return address, dtype, shape, strides, where


def _named(typestr: str, array: Any) -> DType:
    """The type that a typestr says. It cannot say bfloat16 and float8: then the array's dtype."""
    named = _of_typestr(typestr)
    if named is not None and named.name != "float16":
        return named
    own = getattr(array, "dtype", typestr)
    if named is not None and "bfloat16" in str(own).lower():
        return DTYPES["bfloat16"]  # PaddlePaddle says float16 of both
    return named or as_dtype(own)


@functools.lru_cache(64)
def _of_typestr(typestr: str) -> DType | None:
    try:
        named = np.dtype(typestr)
    except TypeError:  # '<f1'
        return None
    return None if named.kind == "V" else as_dtype(named)


def _device(
    address: int, dtype: DType, shape: tuple[int, ...], strides: tuple[int, ...], queue: int
) -> int:
    """The GPU of an array's memory. An array without elements may point anywhere: then GPU 0."""
    refuse_misaligned(address, dtype, shape, strides)
    return 0 if 0 in shape else device_of(address, queue)


class _Tensor(ctypes.Structure):
    """DLPack's DLTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    """DLPack's DLManagedTensorVersioned."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


_pointer_in = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_in.restype, _pointer_in.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
_name_of = ctypes.pythonapi.PyCapsule_GetName
_name_of.restype, _name_of.argtypes = ctypes.c_char_p, (ctypes.py_object,)

#: DLPack's code and bits -> type. The codes of 8-bit types are those of DLPack 1.1.
_DLPACK = {
    (2, 16): "float16",
    (2, 32): "float32",
    (2, 64): "float64",
    (4, 16): "bfloat16",
    (5, 64): "complex64",
    (5, 128): "complex128",
    (10, 8): "float8_e4m3fn",
    (12, 8): "float8_e5m2",
}


def _exported(array: Any) -> Memory:
    """The memory of an array with DLPack."""
    name = type(array).__name__
    where = getattr(array, "__dlpack_device__", None)
    kind, device = map(int, where()) if where else (0, 0)
    if kind not in (CUDA, MANAGED):
        raise TypeError(
            f"array: a {name} that is not in a CUDA GPU's memory was given; a NumPy array, a torch "
            "tensor or an array on a GPU is accepted"
        )
    check_installed()
    capsule = None
    with contextlib.suppress(TypeError):  # an older DLPack has no max_version
        capsule = array.__dlpack__(stream=1, max_version=(1, 0))  # the default stream
    if capsule is None or _name_of(capsule) != VERSIONED:
        raise TypeError(
            f"array: {name} does not say whether it may be written; an array on a GPU with "
            "__cuda_array_interface__ or DLPack 1.0 is accepted"
        )
    # The capsule keeps its name, so that it frees itself. The array owns the memory.
    managed = _Managed.from_address(_pointer_in(capsule, VERSIONED))
    tensor = managed.tensor
    if managed.major != 1:
        raise TypeError(f"array: DLPack {managed.major} was given; 1 is accepted")
    if managed.flags & READ_ONLY:
        raise ValueError("array: it is read-only; a writable array is accepted")
    if managed.flags & IS_COPIED:
        raise ValueError("array: it exports a copy; an array that exports itself is accepted")
    type_name = _DLPACK.get((tensor.code, tensor.bits)) if tensor.lanes == 1 else None
    if type_name is None:
        raise TypeError(f"array: a {name} of another type than {', '.join(DTYPES)} was given")
    dtype = DTYPES[type_name]
    shape = tuple(tensor.shape[: tensor.ndim])
    steps = tensor.strides[: tensor.ndim] if tensor.strides else c_steps(shape)
    strides = tuple(step * dtype.itemsize for step in steps)
    address = (tensor.data or 0) + tensor.byte_offset
    _device(address, dtype, shape, strides, 0)  # refuses another context
    return address, dtype, shape, strides, (device, 0)


def written(array: Any) -> None:
    """Wait for a fill through DLPack, which cannot tell the array's owner about it."""
    if getattr(array, "__cuda_array_interface__", None) is None:
        wait(int(array.__dlpack_device__()[1]))


def values(array: Any) -> np.ndarray:
    """An array's values, copied to the host."""
    if hasattr(array, "copy_to_host"):  # Numba's
        array = array.copy_to_host()
    elif type(array).__module__.partition(".")[0] == "cupy":
        array = array.get()
    return np.asarray(array)


FRAMEWORK = Framework(object, memory, values, written)
