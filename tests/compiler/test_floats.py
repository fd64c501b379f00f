"""The caller's floating-point mode changes no value, and is left as it was."""

import contextlib
import ctypes
import ctypes.util
import platform
from concurrent.futures import ThreadPoolExecutor

import llvmlite.binding
import numpy as np
import pytest
from llvmlite import ir

import numinit as ni
from numinit.compiler import floats as compiler_floats
from numinit.engines import floats
from numinit.engines.floats import _ready
from numinit.initializers import base

#: C's FE_DOWNWARD, FE_UPWARD and FE_TOWARDZERO, and bits of MXCSR or FPCR that flush to zero.
MODES = {
    "x86_64": ((0x400, 0x800, 0xC00), 0x8040),
    "aarch64": ((0x800000, 0x400000, 0xC00000), 1 << 24),
}
MACHINE = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())

pytestmark = pytest.mark.skipif(MACHINE not in MODES, reason="no modes are known of this processor")

INITIALIZERS = {
    "constant": ni.Constant(1e-40),
    "uniform": ni.Uniform(-1e-3, 0.7),
    "small": ni.Uniform(0.0, 1e-39),
    "normal": ni.Normal(0.1, 0.3),
    "kaiming": ni.KaimingNormal(a=0.3),
    "xavier": ni.XavierUniform(0.7),
    "elu": ni.KaimingUniform(a=0.7, nonlinearity="elu"),
    "truncated": ni.TruncNormal(0.1, 0.3),
    "wide": ni.TruncNormal(0.0, 1.0, 2.5, 2.6),
    "far": ni.TruncNormal(0.0, 1.0, 7.0, 9.0),
    "in deviations": ni.TruncatedNormal(0.1, 0.3, -1.7, 2.1),
    "scaled": ni.VarianceScaling(0.7, "fan_avg", "truncated_normal"),
    "depth": ni.DepthScaled(ni.Normal(std=0.02), layers=7),
    "sparse": ni.Sparse(0.3, 0.7),
    "padded": ni.Padded(ni.Normal(0.0, 1e-38), padding_idx=1),
    "eye": ni.Eye(1e-39),
    "assign": ni.Assign(np.linspace(-1e-38, 1e-38, 24 * 40).reshape(24, 40)),
    "orthogonal": ni.Orthogonal(gain=0.3),
}
SHAPES = {"stft": (24, 1, 9), "bilinear": (24, 2, 3, 3)}
INITIALIZERS |= {"stft": ni.STFT(), "bilinear": ni.Bilinear()}


def exchange(mode):
    return _ready()[0](mode)


@contextlib.contextmanager
def mode_of_c(bits):
    """The rounding of C's fesetround, whose mode must be there at the end."""
    libm = ctypes.CDLL(ctypes.util.find_library("m") or None)
    before = libm.fegetround()
    assert libm.fesetround(bits) == 0
    try:
        yield
        assert libm.fegetround() == bits
    finally:
        libm.fesetround(before)


@contextlib.contextmanager
def flushed():
    default = _ready()[1]
    flush = default | MODES[MACHINE][1]
    before = exchange(flush)
    try:
        assert np.float32(1e-39) * np.float32(0.5) == 0
        yield
        assert exchange(before) & MODES[MACHINE][1] == MODES[MACHINE][1]
    finally:
        exchange(before)


ROUNDING = [] if platform.system() == "Windows" else list(MODES.get(MACHINE, ((), 0))[0])


def modes():
    return [flushed(), *map(mode_of_c, ROUNDING)]


def in_a_new_thread(function):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "complex64"])
@pytest.mark.parametrize("name", INITIALIZERS)
def test_values_do_not_depend_on_the_mode(name, dtype):
    init, shape = INITIALIZERS[name], SHAPES.get(name, (24, 40))
    ways = {
        "new": lambda: init(shape, dtype, seed=3),
        "block": lambda: init.block(shape, (slice(5, 9),), dtype, seed=3),
        "rows": lambda: init.rows(shape, [5, 1], dtype, seed=3),
    }
    if name == "orthogonal":
        ways = {"new": ways["new"]}
    for way, ask in ways.items():
        try:
            expected = ask()
        except TypeError:
            assert dtype == "complex64"
            return
        for mode in modes():

            def under(mode=mode, ask=ask):
                # Nothing that was prepared in the default mode.
                base._prepared.cache_clear()
                with mode:
                    return ask()

            made = in_a_new_thread(under)
            assert made.tobytes() == expected.tobytes(), way


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["constant", "uniform", "normal", "truncated", "eye"])
def test_all_threads_of_a_large_fill(name, threads, monkeypatch):
    monkeypatch.setattr("numinit.engines.cpu.get_num_threads", lambda: threads)
    init, shape = INITIALIZERS[name], (1 << 11, (1 << 11) + 1)
    expected = init(shape, seed=5)
    for mode in modes():

        def under(mode=mode):
            with mode:
                return init(shape, seed=5)

        assert np.array_equal(in_a_new_thread(under), expected)


def test_torchs_flush_denormal():
    torch = pytest.importorskip("torch")

    def under():
        if not torch.set_flush_denormal(True):
            pytest.skip("torch cannot flush subnormal numbers here")
        tensor = torch.empty(1 << 23)
        ni.constant_(tensor, 1e-40)
        return tensor.numpy().view(np.uint32)

    assert (in_a_new_thread(under) == np.float32(1e-40).view(np.uint32)).all()


def test_gains():
    expected = ni.variance_gain("prelu", 0.3), ni.variance_gain(np.tanh)
    for mode in modes():

        def under(mode=mode):
            with mode:
                return ni.variance_gain("prelu", 0.3), ni.variance_gain(np.tanh)

        assert in_a_new_thread(under) == expected


def test_the_mode_after_an_error():
    @floats.default_mode()
    def fails():
        assert np.float32(1e-39) * np.float32(0.5) != 0
        raise ZeroDivisionError

    def under():
        before = exchange(_ready()[1] | MODES[MACHINE][1])
        try:
            with pytest.raises(ZeroDivisionError):
                fails()
            assert np.float32(1e-39) * np.float32(0.5) == 0
        finally:
            exchange(before)

    in_a_new_thread(under)


def exchange_of(triple):
    """LLVM's module of a function that exchanges modes."""
    module, word = ir.Module(), ir.IntType(64)
    module.triple = triple
    function = ir.Function(module, ir.FunctionType(word, [word]), "exchange")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.ret(compiler_floats.exchange(builder, function.args[0]))
    return str(module)


@pytest.mark.parametrize(
    ("triple", "instruction"),
    [
        ("x86_64-unknown-linux-gnu", "ldmxcsr"),
        ("x86_64-pc-windows-msvc", "ldmxcsr"),
        ("aarch64-unknown-linux-gnu", "msr fpcr"),
        ("arm64-apple-darwin", "msr fpcr"),
        ("riscv64-unknown-linux-gnu", None),
    ],
)
def test_code_for_each_processor(triple, instruction):
    code = exchange_of(triple)
    llvmlite.binding.parse_assembly(code).verify()
    assert instruction in code if instruction else "asm" not in code
