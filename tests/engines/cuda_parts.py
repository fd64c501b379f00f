"""Stand-ins for arrays in a GPU's memory, and a quicker compiler."""

import contextlib


@contextlib.contextmanager
def quick_copies():
    """Let numba-cuda copy no scopes where it inlines: for the same code in half the time.

    With each block of an inlined function it copies all names of that function.
    """
    from numba.cuda.core.ir import Scope

    Scope.__deepcopy__ = lambda self, memo: self
    try:
        yield
    finally:
        del Scope.__deepcopy__


class Exported:
    """An array in a GPU's memory, as far as its interface tells."""

    def __init__(self, array, **changes):
        self.array = array
        self.__dict__.update(dtype=array.dtype, shape=array.shape)
        strides = None if array.flags.c_contiguous else array.strides
        self.interface = {
            "version": 3, "shape": array.shape, "typestr": array.dtype.str, "strides": strides,
            "data": (array.ctypes.data, False), "stream": None, **changes,
        }  # fmt: skip

    @property
    def __cuda_array_interface__(self):
        return self.interface


class Capsuled:
    """The same by DLPack."""

    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, *, stream, max_version):
        assert stream == 1
        return self.array.__dlpack__(max_version=max_version)
