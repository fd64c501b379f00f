"""``numinit init`` and ``numinit verify`` on a small model, including the start of the process."""

import atexit
import functools
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

WIDTH = 512
#: Two layers of a GPT-2 of this width, and its embeddings: 29 million parameters.
MODEL = {"wte.weight": (WIDTH * 88, WIDTH), "wpe.weight": (1024, WIDTH)} | {
    f"h.{n}.{name}": shape
    for n in range(2)
    for name, shape in {
        "ln_1.weight": (WIDTH,),
        "attn.c_attn.weight": (WIDTH, 3 * WIDTH),
        "attn.c_proj.weight": (WIDTH, WIDTH),
        "mlp.c_fc.weight": (WIDTH, 4 * WIDTH),
        "mlp.c_proj.weight": (4 * WIDTH, WIDTH),
    }.items()
}


def numinit(*arguments: str | Path) -> str:
    """Run the command; returns its output."""
    command = [sys.executable, "-m", "numinit", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@functools.cache
def files(dtype: str) -> tuple[Path, Path]:
    """The model's names and shapes in a JSON file, and its weights as the command wrote them."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    model, weights = folder / "small.json", folder / "small.safetensors"
    model.write_text(json.dumps({"model": "small", "recipe": "gpt2", "tensors": MODEL}))
    numinit("init", model, "--dtype", dtype, "-q", "-o", weights)
    return model, weights


class SmallModel:
    """The commands on a model of 29 million parameters, including the process and the file."""

    params = ["float32", "bfloat16"]
    param_names = ("dtype",)

    def setup(self, dtype):
        self.model, self.weights = files(dtype)

    def time_numinit_init(self, dtype):
        numinit("init", self.model, "--dtype", dtype, "-q", "--force", "-o", self.weights)

    def time_numinit_verify(self, dtype):
        numinit("verify", self.weights, "-q")

    def time_numinit_info(self, dtype):
        numinit("info")
