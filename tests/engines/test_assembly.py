"""How many instructions the kernels' loops take, as compiled for other processors.

A regression shows here on a busy machine, too.
"""

import json
import os
import platform
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from llvmlite import binding, ir

from numinit.compiler.intrinsics import stream_line

COMPILE = """
import json
import numinit as ni
from numinit.compiler.cpu import compiled
from numinit.engines.cpu_kernel import run_function
from numinit.stream.dtypes import DTYPES

kind = DTYPES["float32"]
found = {}
for init in ni.Uniform(), ni.Normal(), ni.TruncNormal():
    transform, _ = init.plan((3, 5), kind).distribution.transform(kind)
    module, machine = compiled(run_function(transform, kind, None))
    found[transform.name] = machine.emit_assembly(module)
print(json.dumps(found))
"""

#: A processor's features, its widest registers, and the most instructions for 64 bytes, in the loop
#: that makes words and in the loop that makes values of them; LLVM 20 has about 5% less. Without
#: FMA a function of C's library does it, value by value.
PROCESSORS = {
    "skylake-avx512": (
        "+avx512f,+avx512cd,+avx512bw,+avx512dq,+avx512vl,+avx2,+fma,+bmi,+bmi2,+f16c",
        "zmm",
        {"words": 44, "uniform": 21, "normal": 48, "truncated": 82},
    ),
    "znver3": ("", "ymm", {"words": 90, "uniform": 30, "normal": 106, "truncated": 182}),
    "x86-64-v2": ("", "xmm", {"words": 210}),
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


WIDTHS = {"xmm": 16, "ymm": 32, "zmm": 64}


def stored(line):
    """The bytes that an instruction stores from a vector."""
    found = re.match(r"v?(mov|extract)\S*\s+(\$1, )?%([xyz])mm\d+, \S*\(", line)
    if not found:
        return 0
    return WIDTHS[f"{found[3]}mm"] // (2 if found[1] == "extract" else 1)


@pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="compiles for x86-64"
)
@pytest.mark.parametrize("processor", PROCESSORS)
def test_instructions_of_64_bytes(processor):
    features, register, most = PROCESSORS[processor]
    # Without the second variable, the features would be those of this machine.
    machine = {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": features}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env={**os.environ, **machine}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name, assembly in json.loads(done.stdout).items():
        counts = {"words": [], name: []}
        for loop in loops(assembly):
            kind = "words" if sum("pmuludq" in line for line in loop) >= 18 else name
            bytes_ = sum(map(stored, loop))
            if bytes_ >= 2 * WIDTHS[register] and (
                kind == "words" or any("cvt" in line for line in loop)
            ):
                counts[kind].append(64 * len(loop) / bytes_)
        for kind, bound in most.items():
            if kind in counts:
                assert counts[kind], (name, kind)
                assert max(counts[kind]) <= bound, (name, kind, counts)
        if register != "zmm":
            assert "zmm" not in assembly
        assert "gather" not in assembly
        assert "scatter" not in assembly


@pytest.mark.parametrize(
    ("triple", "instruction"),
    [("aarch64-unknown-linux-gnu", "stnp"), ("x86_64-unknown-linux-gnu", "movnt")],
)
def test_lines_are_stored_past_the_caches(triple, instruction):
    """Kernels for Arm are not run here; LLVM's code for it is read."""
    module, word = ir.Module(), ir.IntType(64)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [word, word]), "copy")
    builder = ir.IRBuilder(function.append_basic_block())
    stream_line.build(SimpleNamespace(get_dummy_value=lambda: None), builder, None, function.args)
    builder.ret_void()
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    machine = binding.Target.from_triple(triple).create_target_machine()
    assembly = machine.emit_assembly(binding.parse_assembly(str(module)))
    assert len(re.findall(rf"\t{instruction}", assembly)) >= 2
