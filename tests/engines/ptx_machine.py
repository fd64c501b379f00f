"""A machine that runs PTX, thread by thread, as its manual defines the instructions.

For checking compiled kernels without a GPU: the subset of instructions that they use, with exact
arithmetic (a fused multiply-add rounds a fraction once). Anything else is an error.
"""

import math
import re
import struct
from fractions import Fraction

import numpy as np

WIDTH = re.compile(r"(pred|[busf])(\d+)?$")
ORDERED = {
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
}


def rounded(exact, bits):
    """A fraction as a float32 or float64, to nearest even."""
    x = exact.numerator / exact.denominator  # rounds correctly
    if bits == 64:
        return x
    difference = exact - Fraction(x) if math.isfinite(x) else 0
    if difference and not struct.unpack("<q", struct.pack("<d", x))[0] & 1:
        # To odd first, so that the second rounding sees that the first was not exact.
        x = math.nextafter(x, math.inf if difference > 0 else -math.inf)
    with np.errstate(over="ignore"):
        return float(np.float32(x))


def fma(a, b, c, bits):
    if not (math.isfinite(a) and math.isfinite(b) and math.isfinite(c)):
        return a * b + c
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact:
        return rounded(exact, bits)
    return a * b + c if a == 0 or b == 0 else 0.0  # the sign of zeros


def bfloat16(x):
    """The bits of a float32 as bfloat16, to nearest even."""
    bits = to_bits(x, 32)
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def float16(x):
    """The bits of a float32 as float16, to nearest even."""
    with np.errstate(over="ignore"):
        return int(np.float32(x).astype(np.float16).view(np.uint16))


PAIRS = {"bf16x2": bfloat16, "f16x2": float16}


def signed(x, bits):
    x &= (1 << bits) - 1
    return x - (1 << bits) if x >> (bits - 1) else x


def to_bits(x, bits):
    return struct.unpack(
        "<I" if bits == 32 else "<Q", struct.pack("<f" if bits == 32 else "<d", x)
    )[0]


def from_bits(x, bits):
    return struct.unpack(
        "<f" if bits == 32 else "<d", struct.pack("<I" if bits == 32 else "<Q", x)
    )[0]


class Program:
    """The one kernel of a PTX text."""

    def __init__(self, text):
        body = text[text.index(".entry") :]
        head, body = body[: body.index("{")], body[body.index("{") + 1 : body.rindex("}")]
        self.parameters = re.findall(r"\.param \.(\w+) (\w+)", head)
        self.code, self.labels = [], {}
        for line in body.splitlines():
            line = line.partition("//")[0].strip()
            if label := re.match(r"(\$?\w+):$", line):
                self.labels[label[1]] = len(self.code)
            elif line and not line.startswith("."):
                guard, op, operands = re.match(
                    r"(?:@(\S+)\s+)?(\S+?);?(?:\s+(.*);)?$", line
                ).groups("")
                operands = re.sub(r"\s+", "", operands)
                operands = re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,]+", operands)
                self.code.append((guard, op.split("."), operands))

    def arguments(self, words):
        """The arguments in a buffer of 64-bit words."""
        kinds = {"u64": "q", "b64": "q", "f64": "d"}
        return struct.unpack("=" + "".join(kinds[kind] for kind, _ in self.parameters), words)

    def run(self, arguments, threads, memory):
        """Run a block of threads; `memory` maps addresses to bytes."""
        assert len(arguments) == len(self.parameters)
        values = {name: x for (_, name), x in zip(self.parameters, arguments, strict=True)}
        for thread in range(threads):
            self.thread(
                values,
                {"%tid.x": thread, "%ntid.x": threads, "%ctaid.x": 0, "%nctaid.x": 1},
                memory,
            )

    def thread(self, parameters, registers, memory):
        at = 0
        while at < len(self.code):
            guard, op, operands = self.code[at]
            at += 1
            if guard and registers[guard.lstrip("!")] == guard.startswith("!"):
                continue
            if op[0] == "bra":
                at = self.labels[operands[0]]
            elif op[0] == "ret":
                return
            else:
                self.step(op, operands, parameters, registers, memory)

    def step(self, op, operands, parameters, registers, memory):
        name, *flags = op
        kind, bits = WIDTH.match(flags[-1]).groups()
        bits = int(bits or 1)
        mask = (1 << bits) - 1

        def value(text, kind=kind, bits=bits):
            """An operand's value: registers hold unsigned integers, floats and truth values."""
            if text.startswith(("0f", "0d")):
                return from_bits(int(text[2:], 16), 32 if text[1] == "f" else 64)
            x = registers[text] if text.startswith("%") else int(text.rstrip("U"), 0)
            if kind == "f" or isinstance(x, (float, bool)):
                return x
            return signed(x, bits) if kind == "s" else x & ((1 << bits) - 1)

        def address(text):
            base, _, offset = text.strip("[]").partition("+")
            return registers[base] + int(offset or 0)

        if name == "ld" and flags[0] == "param":
            x = parameters[operands[1].strip("[]")]
            registers[operands[0]] = x if kind == "f" else x & mask
            return
        if name == "ld":
            assert flags[0] == "global"
            place = address(operands[1])
            registers[operands[0]] = int.from_bytes(
                bytes(memory[place + i] for i in range(bits // 8)), "little"
            )
            return
        if name == "st":
            assert flags[0] == "global"
            place = address(operands[0])
            sources = operands[1].strip("{}").split(",")
            assert place % (bits // 8 * len(sources)) == 0, "a misaligned store"
            for source in sources:
                x = value(source.strip())
                x = to_bits(x, bits) if isinstance(x, float) else x & mask
                for byte in x.to_bytes(bits // 8, "little"):
                    assert place in memory, "a store outside of the array"
                    memory[place] = byte
                    place += 1
            return
        target, *sources = operands
        if name == "mov" and kind == "b":  # also between integers and floats
            self.moved(target, sources[0], bits, registers, value)
            return
        registers[target] = self.result(name, flags, kind, bits, mask, sources, value)

    def moved(self, target, source, bits, registers, value):
        parts = [p.strip() for p in target.strip("{}").split(",")]
        x = value(source) if source[0] != "{" else None
        if x is None:  # joined from parts, the lowest first
            halves = [value(p.strip()) for p in source.strip("{}").split(",")]
            x = sum(half << bits // len(halves) * i for i, half in enumerate(halves))
        if isinstance(x, float):
            x = to_bits(x, bits)
        each = bits // len(parts)
        for i, part in enumerate(parts):
            word = x >> each * i & ((1 << each) - 1)
            registers[part] = from_bits(word, each) if part.startswith("%f") else word

    def result(self, name, flags, kind, bits, mask, sources, value):
        if name == "cvt" and flags[-2] in PAIRS:
            assert flags[0] == "rn"
            high, low = (PAIRS[flags[-2]](value(source)) for source in sources)
            return high << 16 | low
        if name == "cvt":
            (source_kind, source_bits), x = WIDTH.match(flags[-1]).groups(), value(sources[0])
            target_kind, target_bits = WIDTH.match(flags[-2]).groups()
            if target_kind == "f":
                if source_kind == "f" and int(source_bits) < int(target_bits):
                    return x
                assert flags[0] == "rn"
                if not x or not math.isfinite(x):
                    return x * 1.0
                return rounded(Fraction(x), int(target_bits))
            assert source_kind != "f"
            return x & ((1 << int(target_bits)) - 1)
        if name == "selp":
            return value(sources[0]) if value(sources[2], "pred") else value(sources[1])
        if name == "setp":
            a, b = value(sources[0]), value(sources[1])
            if kind != "f":
                return ORDERED[flags[0].replace("lo", "lt").replace("hs", "ge")](a, b)
            if math.isnan(a) or math.isnan(b):
                return flags[0].endswith("u")
            return ORDERED[flags[0][:2]](a, b)
        args = [value(s) for s in sources[:4]]
        if (name, flags[0]) == ("mad", "wide"):
            args[2] = value(sources[2], kind, 2 * bits)
        if kind == "pred":
            return {
                "and": all,
                "or": any,
                "not": lambda a: not a[0],
                "xor": lambda a: a[0] != a[1],
                "mov": all,
            }[name](args)
        if kind == "f":
            return self.real(name, flags, bits, args)
        return self.integer(name, flags, kind, bits, mask, args)

    def real(self, name, flags, bits, args):
        a, b, c = (*args, 0.0, 0.0)[:3]
        if name == "fma":
            assert flags[0] == "rn"
            return fma(a, b, c, bits)
        if flags[0] == "approx":  # within an ulp, or so its manual says: this one rounds
            x = float(a)
            return float(np.float32({"rcp": 1 / x, "rsqrt": 1 / math.sqrt(x)}[name]))
        if name in ("div", "sqrt", "rcp"):
            assert flags[0] == "rn"
        if name in ("mov", "neg", "abs"):
            return {"mov": a, "neg": -a, "abs": abs(a)}[name]
        if name in ("min", "max"):
            return (min if name == "min" else max)(a, b)
        number = np.float32 if bits == 32 else np.float64
        a, b = number(a), number(b)
        with np.errstate(all="ignore"):
            exact = {
                "add": lambda: a + b,
                "sub": lambda: a - b,
                "mul": lambda: a * b,
                "div": lambda: a / b,
                "rcp": lambda: number(1) / a,
                "sqrt": lambda: np.sqrt(a),
            }[name]()
        return float(exact)

    def integer(self, name, flags, kind, bits, mask, args):
        a, b, c = (*args, 0, 0)[:3]
        if name in ("mul", "mad"):
            x = a * b
            if flags[0] == "wide":
                return (x + c) & ((1 << 2 * bits) - 1)
            return ((x >> bits if flags[0] == "hi" else x) + c) & mask
        if name in ("shl", "shr"):
            b = min(b & 0xFFFFFFFF, bits)
            return (a << b if name == "shl" else a >> b) & mask
        if name == "prmt":  # bytes of both, picked by the hexadecimal digits of the third
            picked = (a & mask) | (b & mask) << 32
            digits = [c >> 4 * i & 15 for i in range(4)]
            assert all(digit < 8 for digit in digits)
            return sum((picked >> 8 * digit & 0xFF) << 8 * i for i, digit in enumerate(digits))
        if name == "bfi":  # the lowest bits of the first, put into the second at a place
            ones = ((1 << args[3]) - 1) << c & mask
            return b & ~ones & mask | a << c & ones
        if name in ("div", "rem"):
            quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
            return (quotient if name == "div" else a - quotient * b) & mask
        return {
            "mov": lambda: a,
            "cvta": lambda: a,
            "add": lambda: a + b,
            "sub": lambda: a - b,
            "neg": lambda: -a,
            "and": lambda: a & b,
            "or": lambda: a | b,
            "xor": lambda: a ^ b,
            "not": lambda: ~a,
            "min": lambda: min(a, b),
            "max": lambda: max(a, b),
        }[name]() & mask
