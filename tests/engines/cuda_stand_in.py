"""The host's side of the CUDA path on a stand-in for the driver: run by test_cuda.py.

Kernels are compiled, loaded and launched as on two GPUs, beside Numba's own arrays and contexts.
A launch runs the kernel's PTX in Python. Prints a line a case, and OK at the end. Wants a cache
directory of its own: of a kernel that is cached there is no PTX.
"""

import ctypes
import itertools
import re
import threading

import numpy as np
from cuda.bindings import driver as bindings
from cuda_parts import Exported, quick_copies
from numba import cuda
from ptx_machine import Program

import numinit as ni
from numinit.compiler import cuda as jit_cuda
from numinit.engines import cuda as engine
from numinit.engines import cuda_driver as ours

SHAPE = 9, 5
MOST = 6  # threads that are run


CALLBACK = ctypes.CFUNCTYPE(
    None,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.c_uint,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_size_t,
)


class Memory:
    """A GPU's memory, byte by byte."""

    def __init__(self, stand_in, device):
        self.stand_in, self.device = stand_in, device

    def __contains__(self, address):
        return self.stand_in.device_of(address) == self.device

    def __getitem__(self, address):
        assert address in self
        return ctypes.c_uint8.from_address(address).value

    def __setitem__(self, address, byte):
        assert address in self
        ctypes.c_uint8.from_address(address).value = byte


class StandIn:
    """The library."""

    def __init__(self):
        self.library = ctypes.CDLL("libcuda.so.1")
        self.library.stand_in_record.restype = ctypes.c_char_p
        self.library.stand_in_foreign_context.restype = ctypes.c_void_p
        self.library.stand_in_device.argtypes = (ctypes.c_uint64,)
        self.library.stand_in_captures.argtypes = (ctypes.c_void_p,)
        self.device_of = self.library.stand_in_device
        self._launched = CALLBACK(self.launch)
        self.library.stand_in_launched(self._launched)
        self.runs = True
        self.launches, self.texts, self.failures = [], [], []
        ptx = jit_cuda.ptx

        def compiled(*what):
            self.texts.append(ptx(*what))
            return self.texts[-1]

        jit_cuda.ptx = compiled

    def launch(self, *what):
        try:
            self.run(*what)
        except BaseException as error:  # ctypes would print it and go on
            self.failures.append(error)

    def run(self, kernel, device, blocks, threads, stream, arguments, size):
        self.launches.append((device, stream or 0, blocks, threads))
        if not self.runs:
            return
        (text,) = (text for text in self.texts if f".entry {kernel.decode()}(" in text)
        assert f".target sm_{9 - device}0" in text
        program = Program(text)
        values = program.arguments(ctypes.string_at(arguments, size))
        units = values[5]
        program.run(values, min(units, MOST), Memory(self, device))

    def calls(self):
        """What the driver was asked for since the last time."""
        found = self.library.stand_in_record().decode().split()
        self.library.stand_in_forget()
        return found


def context():
    return int(ours.checked(bindings.cuCtxGetCurrent()))


def check(name, init, array, **options):
    """Fill an array of a GPU and one of the host."""
    expected = np.full(array.shape, 7, array.dtype)
    array.copy_to_device(expected)
    assert init.fill_(array, **options) is array
    init.fill_(expected, **options)
    assert array.copy_to_host().tobytes() == expected.tobytes(), name
    print(name, flush=True)


def main():
    stand_in = StandIn()
    first_met_below_other_contexts(stand_in)
    array = cuda.device_array(SHAPE, np.float32)
    laws(array)
    a_warm_fill_is_one_launch(stand_in, array)
    streams_and_devices(stand_in)
    grids(stand_in)
    copies(stand_in)
    captures(stand_in)
    refusals(stand_in, array)
    assert not stand_in.failures, stand_in.failures
    print("OK")


def first_met_below_other_contexts(stand_in):
    """Also when Numba first meets a GPU, the caller's contexts stay, whatever they are."""
    mine, other = (int(ours.checked(bindings.cuDevicePrimaryCtxRetain(gpu))) for gpu in (1, 0))
    foreign = stand_in.library.stand_in_foreign_context()
    ours.checked(bindings.cuCtxPushCurrent(mine))
    address = ours.checked(bindings.cuMemAlloc(4096))
    ours.checked(bindings.cuCtxPopCurrent())
    for handle in (other, foreign):
        ours.checked(bindings.cuCtxPushCurrent(handle))
    host = np.zeros(SHAPE, np.float32)
    array = Exported(host, data=(int(address), False))
    ni.normal_(array, generator=3)
    for handle in (foreign, other):
        assert context() == handle
        ours.checked(bindings.cuCtxPopCurrent())
    assert context() == 0
    ni.normal_(array, generator=3)
    assert context() == 0
    ni.normal_(host, generator=3)
    assert ctypes.string_at(int(address), host.nbytes) == host.tobytes()
    assert {launch[:2] for launch in stand_in.launches} == {(1, 0)}
    print("contexts")


def laws(array):
    parts = ni.Parts([(4, ni.Normal()), (1, ni.Orthogonal()), (None, ni.Normal())])
    for init in (ni.Normal(), ni.Padded(ni.Uniform(), 1), ni.Orthogonal(), ni.Eye(), parts):
        check(repr(init), init, array, seed=ni.Key(2**64 - 1, 2**63))
    check("complex", ni.Normal(), cuda.device_array(SHAPE, np.complex64), seed=1)
    check("window", ni.Normal(), array, seed=1, shape=(2**34, 5), offset=(2**32, 0))
    check("transposed", ni.Normal(), cuda.device_array(SHAPE, np.float32, order="F"), seed=1)


def a_warm_fill_is_one_launch(stand_in, array):
    """No allocation, no waiting: a graph that is captured can hold it."""
    stand_in.calls()
    ni.normal_(array, generator=1)
    assert stand_in.calls() == ["cuLaunchKernel"]
    stream = cuda.stream()
    mine = cuda.device_array(SHAPE, np.float32, stream=stream)
    ni.normal_(mine, generator=1)
    stand_in.calls()
    ni.normal_(mine, generator=1)
    assert stand_in.calls() == [f"cuLaunchKernel:{int(stream.handle)}"]
    parts = ni.Parts([(4, ni.Normal()), (None, ni.Normal())])
    parts.fill_(mine, seed=1)
    stand_in.calls()
    parts.fill_(mine, seed=1)
    assert stand_in.calls() == [f"cuLaunchKernel:{int(stream.handle)}"] * 2
    print("one launch")


def streams_and_devices(stand_in):
    for number in (1, 0):
        with cuda.gpus[number]:
            stream = cuda.stream()
            array = cuda.device_array(SHAPE, np.float32, stream=stream)
        outer = context()
        del stand_in.launches[:]
        ni.uniform_(array, generator=number)
        ni.eye_(array)
        assert context() == outer
        # Zeros and ones of the identity, too.
        assert [launch[:2] for launch in stand_in.launches] == [(number, int(stream.handle))] * 3
    arrays = []
    for number in (0, 1, 1, 0):
        with cuda.gpus[number]:
            arrays.append(cuda.device_array(SHAPE, np.float32))
    del stand_in.launches[:]
    threads = [threading.Thread(target=ni.normal_, args=(a,), kwargs={"seed": 1}) for a in arrays]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(launch[0] for launch in stand_in.launches) == [0, 0, 1, 1]
    assert len({a.copy_to_host().tobytes() for a in arrays}) == 1
    print("streams and devices")


def grids(stand_in):
    """A thread a unit, and no more blocks than keep the GPU busy."""
    stand_in.runs = False
    for dtype, shape in (np.float32, engine.NARROW), (np.float64, engine.WIDE):
        most = 3 * shape.blocks  # of three multiprocessors
        for size, blocks in (1, 1), (2**13, 2**11 // shape.threads), (2**28 + 3, most):
            array = cuda.device_array(size, dtype)
            del stand_in.launches[:]
            ni.normal_(array, generator=1)
            ((_, _, found, threads),) = stand_in.launches
            assert (found, threads) == (blocks, shape.threads)
    stand_in.runs = True
    print("grids")


def copies(stand_in):
    """What is made on the host leaves the gaps of a view alone."""
    with ours.current(1):
        stream = int(ours.checked(bindings.cuStreamCreate(0)))
        address = int(ours.checked(bindings.cuMemAllocAsync(4096, stream)))
    for view, order, most in itertools.product(
        [
            np.s_[...],
            np.s_[:, ::2],
            np.s_[::-1, 1:4],
            np.s_[1:3, ::-2, 1:],
            np.s_[2, :, 1],
            np.s_[..., 1],
        ],
        "CF",
        [ours.MOST_PITCH, 8],
    ):
        ours.MOST_PITCH, before = most, ours.MOST_PITCH
        whole, made = (np.full((4, 6, 3), 7, np.float32, order) for _ in range(2))
        ctypes.memmove(address, whole.ctypes.data, whole.nbytes)
        part = whole[view]
        place = address + part.ctypes.data - whole.ctypes.data
        array = Exported(part, data=(place, False), strides=part.strides, stream=stream)
        init = ni.Assign(np.arange(part.size).reshape(part.shape))
        stand_in.calls()
        init.fill_(array)
        *copied, waited = stand_in.calls()
        init.fill_(made[view])
        assert ctypes.string_at(address, whole.nbytes) == made.tobytes("A"), (view, order, most)
        one_by_one = most == 8 or part.flags.forc
        name = "cuMemcpyHtoDAsync_v2" if one_by_one else "cuMemcpy2DAsync_v2"
        assert set(copied) == {f"{name}:{stream}"}
        if view == np.s_[..., 1]:  # all of it is one row, or rows at one distance
            assert len(copied) == (part.size if most == 8 and not part.flags.forc else 1)
        assert waited == f"cuStreamSynchronize:{stream}"
        ours.MOST_PITCH = before
    stand_in.calls()

    def interrupted():
        yield 0
        raise KeyboardInterrupt

    try:
        ours.copy(address, whole.ctypes.data, ours.Rows(8, 1, 8), interrupted(), 1, stream)
    except KeyboardInterrupt:  # the host's memory is not freed before it is read
        assert stand_in.calls()[-1] == f"cuStreamSynchronize:{stream}"
    print("copies")


def captures(stand_in):
    """A graph holds launches, also the first one of a kernel, but no copies."""
    stream = cuda.stream()
    array = cuda.device_array(SHAPE, np.float16, stream=stream)
    stand_in.library.stand_in_captures(int(stream.handle))
    for _ in range(2):
        ni.constant_(array, 1.5)
    stand_in.calls()
    made = ni.FromIndex("i * 1.0").fill_
    refused(array, "^array: .* made on the host .* capture", RuntimeError, made)
    assert stand_in.calls() == []
    stand_in.library.stand_in_captures(0)
    assert (array.copy_to_host() == 1.5).all()
    print("captures")


def refusals(stand_in, array):
    host = np.zeros(3, np.float32)
    refused(Exported(host), "not in the memory of a GPU")
    data = array.__cuda_array_interface__["data"]
    with cuda.gpus[1]:
        stream = int(cuda.stream().handle)
        pinned = int(ours.checked(bindings.cuMemHostAlloc(4096, 0)))
        pool = int(ours.checked(bindings.cuMemAllocAsync(4096, stream)))
        managed = int(ours.checked(bindings.cuMemAllocManaged(4096, 1)))
    refused(Exported(host, data=data, stream=stream), "it is on GPU 0, and the stream")
    refused(Exported(host, data=(pinned, False)), "not in the memory of a GPU")
    for address, queue in itertools.product((pool, managed), (None, 1, 2, stream)):
        ni.normal_(Exported(host, data=(address, False), stream=queue))
    ours.checked(bindings.cuCtxPushCurrent(stand_in.library.stand_in_foreign_context()))
    address = int(ours.checked(bindings.cuMemAlloc(4096)))
    refused(Exported(host, data=(address, False)), "another context")
    ours.checked(bindings.cuCtxPopCurrent())
    # What the driver says of each call after a kernel failed, and in a forked child.
    for error, why in (700, "ILLEGAL_ADDRESS"), (3, "NOT_INITIALIZED.*forked child.*spawn"):
        stand_in.library.stand_in_fails(error)
        refused(array, f"^CUDA: CUDA_ERROR_{why}", RuntimeError)
    stand_in.library.stand_in_fails(0)
    before = context()
    try:
        with ours.current(1):
            raise KeyError
    except KeyError:
        assert context() == before
    checked, pushed = ours.checked, []

    def interrupts(result):  # after a context was pushed, as a signal's handler may
        found = checked(result)
        if len(result) == 1:
            pushed.append(context())
            raise KeyboardInterrupt
        return found

    ours.checked = interrupts
    for gpu in 0, 1:
        try:
            with ours.current(gpu):
                pass
        except KeyboardInterrupt:
            assert context() == before
    ours.checked = checked
    assert len(pushed) > 0
    assert before not in pushed
    invalid = (bindings.CUresult.CUDA_ERROR_INVALID_IMAGE,)
    try:
        checked(invalid)
    except RuntimeError as error:
        assert "nvidia-smi" in str(error)
    print("refusals")


def refused(array, why, kind=ValueError, fill=ni.normal_):
    before = context()
    try:
        fill(array)
    except kind as error:
        assert re.search(why, str(error)), error
    else:
        raise AssertionError(why)
    assert context() == before


if __name__ == "__main__":
    with quick_copies():
        main()
