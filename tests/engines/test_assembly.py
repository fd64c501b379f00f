"""How many instructions the kernels' loops take, as compiled for other processors.

A regression shows here on a busy machine, too.
"""

import json
import os
import platform
import re
import subprocess
import sys

import pytest

COMPILE = """
import json
import numinit as ni
from numinit.compiler import cache
from numinit.engines.cpu_kernel import fill_kernel
from numinit.stream.dtypes import DTYPES

cache.directory = lambda: None
kind = DTYPES["float32"]
found = {}
for init in ni.Uniform(), ni.Normal(), ni.TruncNormal():
    transform, _ = init.plan((3, 5), kind).distribution.transform(kind)
    (found[transform.name],) = fill_kernel(transform, kind, None).inspect_asm().values()
print(json.dumps(found))
"""

# What a block of instructions makes is as wide as its registers. Bounds are those of 64 bytes, of
# the loop that makes words and the loop that makes values of them; LLVM 20 has about 5% less.
PROCESSORS = {
    "skylake-avx512": ("zmm", {"words": 40, "uniform": 14, "normal": 48, "truncated": 82}),
    "znver3": ("ymm", {"words": 90, "uniform": 25, "normal": 82, "truncated": 170}),
}


def loops(assembly):
    """The innermost loops, a list of instructions each."""
    lines = assembly.splitlines()
    labels = {line[:-1]: i for i, line in enumerate(lines) if re.match(r"\.?\w+:$", line)}
    found = []
    for i, line in enumerate(lines):
        jump = re.match(r"\tj\w+\s+(\.\w+)", line)
        begin = labels.get(jump[1], i) if jump else i
        if begin < i and not any(begin <= b and e <= i for b, e in found):
            found.append((begin, i))
    return [
        [x.strip() for x in lines[b : e + 1] if re.match(r"\t[^.]", x)] for b, e in sorted(found)
    ]


@pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="compiles for x86-64"
)
@pytest.mark.parametrize("processor", PROCESSORS)
def test_instructions_of_64_bytes(processor):
    register, most = PROCESSORS[processor]
    # Without the second name, the features would be those of this machine.
    machine = {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": ""}
    if processor == "skylake-avx512":
        names = [
            "avx512f",
            "avx512cd",
            "avx512bw",
            "avx512dq",
            "avx512vl",
            "avx2",
            "fma",
            "bmi",
            "bmi2",
            "f16c",
        ]
        machine["NUMBA_CPU_FEATURES"] = ",".join(f"+{name}" for name in names)
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env={**os.environ, **machine}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    each = {"zmm": 64, "ymm": 32}[register]
    for name, assembly in json.loads(done.stdout).items():
        inner = [loop for loop in loops(assembly) if sum(register in x for x in loop) > 8]
        words = [x for x in inner if sum("vpmuludq" in line for line in x) >= 18]
        values = [x for x in inner if any("vcvt" in line for line in x)]
        assert len(words) == 1, name
        assert values, name
        # Both make two registers' worth of float32 a turn.
        counts = len(words[0]) * 32 / each, max(map(len, values)) * 32 / each
        assert counts[0] <= most["words"], (name, counts)
        assert counts[1] <= most[name], (name, counts)
        if register == "ymm":
            assert "zmm" not in assembly
        assert "gather" not in assembly
        assert "scatter" not in assembly
