"""The costs of a new process: the import, and the first call of a kernel, compiled or cached."""

import functools
import subprocess
import sys

IMPORTED = "import numpy, numinit; w = numpy.zeros((64, 8), 'f4')"
EMPTY_CACHE = """
import os, tempfile
folder = tempfile.TemporaryDirectory()
os.environ["NUMBA_CACHE_DIR"] = folder.name
"""
CALLS = {
    "constant": "numinit.constant_(w, 1.0)",
    "uniform": "numinit.uniform_(w, seed=0)",
    "normal": "numinit.normal_(w, seed=0)",
    "truncated normal": "numinit.trunc_normal_(w, seed=0)",
    "sparse": "numinit.sparse_(w, 0.9, seed=0)",
}


@functools.cache
def fill_cache(function: str) -> None:
    subprocess.run([sys.executable, "-c", f"{IMPORTED}; {CALLS[function]}"], check=True)


def timeraw_import_numinit():
    return "import numinit"


def timeraw_import_numba_and_numpy_alone():
    return "import numba, numpy"


def timeraw_import_command_line():
    return "import numinit.cli"


class FirstCall:
    """The first fill of a process, of 64 x 8 elements, after the import."""

    params = list(CALLS)
    param_names = ("function",)
    repeat = (1, 3, 20.0)

    def setup(self, function):
        fill_cache(function)

    def timeraw_compiled_before(self, function):
        return CALLS[function], IMPORTED

    def timeraw_with_an_empty_cache(self, function):
        return CALLS[function], EMPTY_CACHE + IMPORTED

    def timeraw_second_call(self, function):
        return CALLS[function], f"{IMPORTED}; {CALLS[function]}"


def peakmem_import_numinit():
    import numinit

    return numinit
