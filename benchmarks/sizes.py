"""From 100 bytes to a gigabyte, and from one thread to all, float32."""

import os

import numinit as ni

from .cases import FAMILIES, KERNELS, MIB, cell
from .measure import seconds

SIZES = [10**e for e in range(2, 10)]
THREADS = [1, 2, 4, 8, 16, 64]


class EverySize:
    """By initializer and bytes: single calls."""

    params = (list(FAMILIES), SIZES)
    param_names = ("initializer", "bytes")

    def setup(self, initializer, nbytes):
        self.cell = cell(initializer, "float32", nbytes)

    def time_fill(self, initializer, nbytes):
        self.cell.fill()


class Throughput:
    """By initializer and bytes: calls in a loop, so that times of small fills are precise.

    A share of 1 is the speed of ``ndarray.fill`` on the same buffer in the same process.
    """

    params = (KERNELS, SIZES)
    param_names = ("initializer", "bytes")

    def setup(self, initializer, nbytes):
        self.cell = cell(initializer, "float32", nbytes)

    def track_nanoseconds_per_element(self, initializer, nbytes):
        return 1e9 * seconds(self.cell.fill) / self.cell.buffer.size

    def track_share_of_ndarray_fill(self, initializer, nbytes):
        constant = seconds(lambda: self.cell.buffer.fill(1.0))
        return constant / seconds(self.cell.fill)

    track_nanoseconds_per_element.unit = "ns"
    track_share_of_ndarray_fill.unit = "of ndarray.fill's speed"


class EveryThreadCount:
    """By initializer and threads: 128 MiB."""

    params = (KERNELS, THREADS)
    param_names = ("initializer", "threads")

    def setup(self, initializer, threads):
        if threads > (os.cpu_count() or 1):
            raise NotImplementedError(f"this machine has fewer than {threads} threads")
        ni.set_num_threads(threads)
        self.cell = cell(initializer, "float32", 128 * MIB)

    def time_fill(self, initializer, threads):
        self.cell.fill()

    def track_elements_per_second(self, initializer, threads):
        return self.cell.buffer.size / seconds(self.cell.fill)

    track_elements_per_second.unit = "elements/s"
