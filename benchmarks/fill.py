"""Times of fills; a buffer holds 256 MiB, so that 0.1 s are 2.7 GB/s."""

import numpy as np

import numinit as ni

from .peers import FILLS, SIZE, buffer

DTYPES = ["float32", "float64", "float16", "bfloat16"]


class Fill:
    """The in-place functions beside their peers."""

    params = (["numinit", "torch", "numpy"], ["uniform", "normal"], DTYPES)
    param_names = ("peer", "law", "dtype")

    def setup(self, peer, law, dtype):
        self.buffer = buffer(peer, dtype)
        self.fill = FILLS[peer, law]
        self.fill(self.buffer[:8])  # compiled, or loaded from the cache

    def time_fill(self, peer, law, dtype):
        self.fill(self.buffer)


class Layout:
    """Views that are not contiguous, and rows in random order."""

    params = ["transposed", "every second column", "reversed", "rows"]
    param_names = ("layout",)

    def setup(self, layout):
        self.table = np.zeros((8192, SIZE // 4 // 8192), np.float32)
        self.ids = np.random.default_rng(0).integers(0, 40_000_000, 1 << 18)
        self.view = {
            "transposed": self.table.T,
            "every second column": self.table[:, ::2],
            "reversed": self.table[::-1, ::-1],
        }.get(layout)
        self.init = ni.Normal()
        self.init((8,))

    def time_layout(self, layout):
        if self.view is None:
            self.init.rows((40_000_000, 128), self.ids, seed=0)
        else:
            self.init.fill_(self.view, seed=0)


class Small:
    """The fixed cost of a call: a weight of 64 x 8."""

    params = ["numinit, NumPy array", "numinit, torch tensor", "torch"]
    param_names = ("peer",)

    def setup(self, peer):
        if "torch" in peer:
            self.weight = buffer("torch", "float32", 2048).reshape(64, 8)
            import torch

            self.fill = torch.nn.init.kaiming_uniform_
        else:
            self.weight = np.zeros((64, 8), np.float32)
        if "numinit" in peer:
            self.fill = ni.kaiming_uniform_
        self.fill(self.weight)

    def time_kaiming_uniform(self, peer):
        self.fill(self.weight)


class Fresh:
    """A new array of 256 MiB, pages and all."""

    def setup(self):
        self.init = ni.KaimingNormal()
        self.init((8, 8))

    def time_kaiming_normal(self):
        self.init((8192, SIZE // 4 // 8192), seed=0)


def timeraw_import():
    return "import numinit"


def timeraw_first_fill():
    return "import numpy, numinit; numinit.normal_(numpy.zeros(8, 'f4'))"
