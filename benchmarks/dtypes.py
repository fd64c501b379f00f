"""Every initializer in every dtype: 32 MiB of memory already in use, all threads."""

from .cases import DTYPES, FAMILIES, MIB, cell
from .measure import extra_memory, seconds


class EveryInitializer:
    """By initializer and dtype.

    asv takes a smaller number to be better, also for elements per second. So compare commits with
    ``--bench time_``.
    """

    params = (list(FAMILIES), DTYPES)
    param_names = ("initializer", "dtype")

    def setup(self, initializer, dtype):
        self.cell = cell(initializer, dtype, min(32 * MIB, FAMILIES[initializer].largest))

    def time_fill(self, initializer, dtype):
        self.cell.fill()

    def track_elements_per_second(self, initializer, dtype):
        return self.cell.buffer.size / seconds(self.cell.fill)

    track_elements_per_second.unit = "elements/s"


class PeakMemory:
    """The memory that a fill takes beyond the buffer, from the process's peak, float32."""

    params = list(FAMILIES)
    param_names = ("initializer",)

    def setup(self, initializer):
        self.cell = cell(initializer, "float32", min(256 * MIB, FAMILIES[initializer].largest))

    def track_bytes_beyond_the_buffer(self, initializer):
        return extra_memory(self.cell.fill)

    track_bytes_beyond_the_buffer.unit = "bytes"
