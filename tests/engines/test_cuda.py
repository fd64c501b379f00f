"""The CUDA path, as far as it can be checked without a GPU.

* The kernels run under Numba's CUDA simulator and give the CPU's bits.
* They compile to PTX without a driver, and the PTX is read: nothing is contracted or approximate.
* The PTX itself is run, by a machine in Python, and gives the CPU's bits.
* The host's side runs with numba-cuda itself, on a stand-in for the driver.
* What is refused names what is accepted, and importing numinit asks for nothing of CUDA.
"""

import contextlib
import functools
import importlib.util
import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cuda_parts import Capsuled, Exported, quick_copies
from cuda_simulator import COMPLEX, REAL, laws_and_types
from helpers import spec_of, view_of
from ptx_machine import Program

import numinit as ni
from numinit.engines import cpu, cuda, zeros
from numinit.engines.cpu_kernel import element_of
from numinit.engines.cuda_driver import Properties, lacking
from numinit.stream.dtypes import DTYPES, as_dtype

HERE = Path(__file__).parent
PACKAGE = Path(ni.__file__).parents[1]
PLACES = os.pathsep.join(map(str, (HERE, HERE.parent, PACKAGE)))  # of what the scripts import
ARCHITECTURES = ("compute_80", "compute_90")
KEY = ni.Key(2**63 + 5, 2**64 - 3)


def run(*arguments, **environment):
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": PLACES, **environment},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@functools.cache
def missing():
    """What the compiler for CUDA lacks here; nothing if it works."""
    if what := lacking():
        return what
    from numinit.compiler.cuda import assembled, ptx

    try:
        assembled(ptx(lambda: None, (), (9, 0)))
    except Exception as error:
        needed = "pip install 'numinit[ptx]'"
        return f"numba-cuda lacks a part of CUDA's toolkit ({needed}): {type(error).__name__}"
    return ""


@pytest.fixture
def compiler():
    if reason := missing():
        pytest.skip(reason)


def test_importing_and_filling_ask_for_nothing_of_cuda():
    run(
        "-c",
        "import sys, numinit as ni; ni.Normal()(10, seed=0); "
        "assert not [m for m in sys.modules if m.split('.')[:2] == ['numba', 'cuda']]; "
        "assert 'cuda' not in sys.modules",
    )


def test_the_simulator_gives_the_bits_of_the_cpu(compiler):
    out = run(str(HERE / "cuda_simulator.py"), NUMBA_ENABLE_CUDASIM="1")
    assert out.splitlines()[-1] == "OK"
    assert len(out.splitlines()) > 500


def test_the_host_side_on_a_stand_in_for_the_driver(compiler, tmp_path):
    """What the simulator replaces: contexts, streams, linking, launches, on two GPUs."""
    if sys.platform != "linux" or (cc := shutil.which("cc")) is None:
        pytest.skip("no C compiler for Linux")
    source, library = HERE / "stand_in_driver.c", tmp_path / "libcuda.so.1"
    subprocess.run([cc, "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    paths = filter(None, [str(tmp_path), os.environ.get("LD_LIBRARY_PATH")])
    environment = {"LD_LIBRARY_PATH": ":".join(paths), "NUMBA_CACHE_DIR": str(tmp_path)}
    out = run(str(HERE / "cuda_stand_in.py"), **environment)
    assert out.splitlines()[-1] == "OK"
    assert len(out.splitlines()) >= 12


def variants():
    from_laws = [(law, dtype) for law, dtype, _ in laws_and_types()]
    masked = [("normal", d, "sparse") for d in ("float32", "complex64")]
    masked += [("normal", d, "range") for d in ("float16", "complex128")]
    layouts = [
        ("normal", "float32", "", 1),
        ("normal", "float32", "", 3),
        ("normal", "float8_e5m2", "", 0, True),
        ("normal", "float64", "", 2, True),
        ("normal", "float32", "", 1, False, True),
        ("uniform", "float8_e4m3fn", "sparse", 1, False, True),
    ]
    return [*from_laws, *masked, *layouts]


PATTERNS = {"": None, "sparse": zeros.SPARSE, "range": zeros.RANGE}


def named(law, dtype, pattern="", *layout):
    """The variant of those names."""
    from numinit.engines.cuda_kernel import Variant

    kind = DTYPES[dtype]
    transform, _ = (
        (COMPLEX if kind.complex else REAL)[law].plan((3, 5), kind).distribution.transform(kind)
    )
    return Variant(transform, kind, PATTERNS[pattern], *layout)


@pytest.fixture(scope="session")
def compiled(run_folder):
    """A function that compiles a kernel once in a run: a fixture, so that all processes share it."""
    if reason := missing():
        pytest.skip(reason)
    folder = run_folder / "ptx"
    folder.mkdir(exist_ok=True)

    @functools.cache
    def texts_of(variant):
        """The PTX by architecture and whether NVVM may contract products and sums."""
        file = folder / variant.name
        if not file.is_file():
            draft = file.with_name(f"{variant.name}-{os.getpid()}")
            with quick_copies():
                draft.write_bytes(pickle.dumps(ptx_of(variant)))
            draft.replace(file)
        return pickle.loads(file.read_bytes())

    return texts_of


def ptx_of(variant):
    from numba.cuda.cudadrv import nvvm

    from numinit.compiler.cuda import ptx
    from numinit.engines.cuda_kernel import fill_function

    made, original = {}, nvvm.compile_ir

    def compile_ir(code, **options):
        for arch in ARCHITECTURES:
            for contract in (True, False):
                made[arch, contract] = original(code, **{**options, "arch": arch, "fma": contract})
        return made["compute_90", True]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nvvm, "compile_ir", compile_ir)
        ptx(fill_function(variant, (9, 0)), variant.signature, (9, 0))
    return {how: text.decode().strip("\0").strip() for how, text in made.items()}


def test_quick_copies_change_no_code(compiled):
    variant = named("normal", "float32")
    quick, slow = compiled(variant), ptx_of(variant)
    assert {how: plain(text) for how, text in quick.items()} == {
        how: plain(text) for how, text in slow.items()
    }


def plain(text):
    """Without the rounding that NVVM states where it may not contract."""
    text = re.sub(r"\b(add|sub|mul)\.rn\.(f32|f64)", r"\1.\2", text)
    return re.sub(r"_Z\w+", "name", text)


def contractible(text):
    """Sums, not marked as rounded, of products that are not: ptxas may make one operation of them."""
    sources = {}
    for op, target, rest in re.findall(r"^\s*(?:@\S+ )?([a-z][\w.]*)\s+(%f\w+), (.*);", text, re.M):
        sources.setdefault(target, []).append((op, re.findall(r"%f\w+", rest)))

    def is_product(register, seen=()):
        return register not in seen and any(
            re.match(r"mul\.f", op)
            or (
                re.match("neg|mov|selp|abs", op)
                and any(is_product(a, (*seen, register)) for a in args)
            )
            for op, args in sources.get(register, [])
        )

    return [
        (op, target)
        for target, made in sources.items()
        for op, args in made
        if re.match(r"(add|sub)\.f", op) and any(is_product(a) for a in args)
    ]


# The two approximations are the starts of a root and a quotient that are exact.
INEXACT = re.compile(
    r"(?<!rsqrt\.)(?<!rcp\.)approx|(?<!approx)\.ftz|\.full|(?:div|rcp|sqrt)\.(?!rn)f|\bex2|\blg2|\bsin|\bcos"
)


@pytest.mark.parametrize("variant", variants(), ids=lambda v: " ".join(map(str, v)))
def test_ptx(compiled, variant):
    texts = compiled(named(*variant))
    for arch in ARCHITECTURES:
        text = texts[arch, True]
        assert f".target sm_{arch[-2:]}" in text
        # Every fused operation is one that the source asks for.
        assert plain(text) == plain(texts[arch, False])
        assert contractible(text) == []
        assert not INEXACT.findall(text)
        assert ".local" not in text
        assert text.count("st.global.v4") >= 1  # 16 bytes
        assert text.count(".entry") == 1
    if variant[0] == "normal":
        wide = DTYPES[variant[1]].wide
        assert text.count("sqrt.rn.f64") >= 1 if wide else text.count("rsqrt.approx") >= 2
    if variant[0] != "constant":
        # Philox multiplies words, not their zero upper halves: a quarter of a kernel's work.
        assert text.count("mul.wide.u32") >= 20
    for arch in ARCHITECTURES:
        check_nothing_is_spilled(texts[arch, True])


@pytest.mark.parametrize(("law", "most"), [("uniform", 222), ("normal", 323), ("truncated", 445)])
def test_instructions_of_the_loop(compiled, law, most):
    """How many a thread takes for four float32 values, and to store some of them alone."""
    lines = compiled(named(law, "float32"))["compute_90", True].splitlines()
    labels = {line[:-1]: i for i, line in enumerate(lines) if line.endswith(":")}
    lengths = []
    for end, line in enumerate(lines):
        jump = re.search(r"\bbra\S*\s+(\S+);", line)
        loop = lines[labels.get(jump[1], end) if jump else end : end]
        if sum("mul.wide.u32" in x for x in loop) >= 18:
            lengths.append(sum(re.match(r"\s+(@\S+ )?[a-z]", x) is not None for x in loop))
    assert lengths
    assert min(lengths) <= most


def check_nothing_is_spilled(text):
    from numinit.compiler.cuda import assembled

    code, said = assembled(text, "-Xptxas=-v")
    assert code[:4] == b"\x7fELF"
    found = re.findall(r"(\d+) bytes (stack frame|spill stores|spill loads)", said)
    assert found
    assert all(int(size) == 0 for size, _ in found), said
    assert int(re.search(r"Used (\d+) registers", said)[1]) <= 80  # three blocks of threads fit


def test_the_reading_of_ptx_finds_contraction(compiler):
    from numba.cuda.cudadrv import nvvm

    from numinit.compiler.cuda import ptx
    from numinit.compiler.cuda_intrinsics import store_element
    from numinit.compiler.intrinsics import product

    def fused(out, x, y, z):
        store_element(out, x * y + z)

    def apart(out, x, y, z):
        store_element(out, product(x, y) + z)

    kinds = "int64", "float32", "float32", "float32"
    text = ptx(fused, kinds, (9, 0))
    assert "fma.rn.f32" in text
    original = nvvm.compile_ir
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nvvm, "compile_ir", lambda code, **o: original(code, **o, fma=False))
        forbidden = ptx(fused, kinds, (9, 0))
    assert plain(text) != plain(forbidden)
    assert contractible(forbidden.replace(".rn.f32", ".f32"))
    text = ptx(apart, kinds, (9, 0))
    assert "fma" not in text
    assert "mul.rn.f32" in text
    assert contractible(text) == []


class Recorded(Exception):
    """A launch's arguments."""


def launched(monkeypatch, compiled, run, *arguments):
    """What a fill would launch: the kernel's PTX, its arguments, and the units."""

    def record(*what):
        raise Recorded(what)

    monkeypatch.setattr(cuda, "current", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(cuda, "_loaded", lambda variant, device: (variant, 1, 1))
    monkeypatch.setattr(cuda, "launch", record)
    with pytest.raises(Recorded) as caught:
        run(*arguments, 0, 0)
    variant, *_, words = caught.value.args[0]
    program = Program(compiled(variant)["compute_90", True])
    values = program.arguments(words)
    units = values[5]
    return program, values, units


def cases():
    """law, dtype, init, the view's base shape and how it is viewed, first, steps."""
    wrap = 4 * 2**32
    for law, dtype, init in laws_and_types():
        yield f"{law} {dtype}", init, dtype, (67,), (), wrap - 21, (1,)
    for dtype in ("float32", "float8_e5m2", "complex64"):
        yield f"transposed {dtype}", ni.Normal(), dtype, (5, 9), (1, 0), 0, (5, 1)
        yield f"window {dtype}", ni.Normal(), dtype, (4, 9), (0, 1), wrap - 40, (13, 1)
    yield "sparse", ni.Sparse(0.4), "float32", (11, 5), (), 0, None
    yield "sparse complex", ni.Sparse(0.4), "complex64", (11, 5), (), 0, None
    yield "range", ni.Padded(ni.Normal(), 1), "float16", (5, 9), (), 0, None


CASES = {name: case for name, *case in cases()}


@pytest.mark.parametrize("name", CASES)
def test_ptx_gives_the_bits_of_the_cpu(compiled, monkeypatch, name):
    init, dtype, shape, order, first, steps = CASES[name]
    size = as_dtype(dtype).itemsize
    whole = np.zeros(shape, f"V{size}")
    view = whole.transpose(order or range(whole.ndim))
    spec = spec_of(init, view.shape if view.ndim == 2 else (1, *view.shape), dtype)
    layout = view_of(view, steps), as_dtype(dtype), spec
    cpu.Fill(*layout)(whole.ctypes.data, first, 0, KEY.seed, KEY.stream)

    start = 1 << 20  # a made-up address
    memory = dict.fromkeys(range(start, start + whole.nbytes))
    program, arguments, units = launched(
        monkeypatch, compiled, cuda.Fill(*layout), start, first, 0, KEY.seed, KEY.stream
    )
    program.run(arguments, min(units, 5), memory)
    assert bytes(memory.values()) == whole.tobytes()


def test_ptx_of_rows_gives_the_bits_of_the_cpu(compiled, monkeypatch):
    whole = np.zeros((3, 7), np.float32)
    rows = np.array([2**33, 0, 5])
    memory = view_of(whole, (0, 1), by_rows=True)
    layout = memory, as_dtype("float32"), spec_of(ni.Normal(), whole.shape)
    cpu.Fill(*layout)(whole.ctypes.data, 0, rows.ctypes.data, KEY.seed, KEY.stream)
    start, ids = 1 << 20, 1 << 21
    memory = dict(enumerate(rows.tobytes(), ids))
    memory.update(dict.fromkeys(range(start, start + whole.nbytes)))
    program, arguments, units = launched(
        monkeypatch, compiled, cuda.Fill(*layout), start, 0, ids, KEY.seed, KEY.stream
    )
    program.run(arguments, units, memory)
    assert bytes(memory[start + i] for i in range(whole.nbytes)) == whole.tobytes()


IMAGE = """
import hashlib
from numba import cuda
from numinit.compiler import cuda as jit_cuda
from numinit.engines.cuda_kernel import Variant, fill_function
from numinit.stream.constant import CONSTANT
from numinit.stream.dtypes import DTYPES

compiled, compile = [], cuda.compile
cuda.compile = lambda *what, **how: compiled.append(what) or compile(*what, **how)
for capability in (8, 0), (9, 0), (9, 0):
    variant = Variant(CONSTANT, DTYPES["float16"])
    name, code = jit_cuda.image(fill_function(variant), variant.signature, capability)
    assert code[:4] == b"\\x7fELF" and name in code and b"fill_constant_float16" in name
    print(len(compiled), hashlib.sha256(name + code).hexdigest())
"""


CACHED_IMAGE = """
import sys
from numinit.compiler.cuda import _toolkit, image
from numinit.engines.cuda_kernel import Variant, fill_function
from numinit.stream.constant import CONSTANT
from numinit.stream.dtypes import DTYPES

assert any("libdevice" in str(part) for part in _toolkit())
variant = Variant(CONSTANT, DTYPES["float16"])
assert image(fill_function(variant), variant.signature, (9, 0)).code[:4] == b"\\x7fELF"
assert "numba" not in sys.modules
"""


WITHOUT_ROW_STACK = """
import numba.np.arrayobj
import numpy as np
if vars(np).pop("row_stack", None):
    np.__all__.remove("row_stack")
from numinit.compiler import cuda
assert ".entry" in cuda.ptx(lambda: None, (), (9, 0))
assert not hasattr(np, "row_stack")
"""


def test_kernels_compile_beside_a_numpy_that_numba_cuda_does_not_know(compiler):
    run("-c", WITHOUT_ROW_STACK)


def test_machine_code_is_cached(compiler, tmp_path):
    def images(folder="cache", **environment):
        out = run("-c", IMAGE, NUMBA_CACHE_DIR=str(tmp_path / folder), **environment)
        numbers, codes = zip(*map(str.split, out.splitlines()), strict=True)
        return [int(n) for n in numbers], codes

    made, codes = images()
    assert made == [1, 2, 2]
    assert codes[0] != codes[1] == codes[2]
    assert images() == ([0, 0, 0], codes)
    run("-c", CACHED_IMAGE, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    for file in tmp_path.rglob("*.cubin"):
        file.write_bytes(file.read_bytes()[:-1])
    assert [images()[0], images()[0]] == [made, [0, 0, 0]]
    # What Numba's environment asks of other code is not asked of this.
    assert images("other", NUMBA_OPT="0", NUMBA_CUDA_DEBUGINFO="1") == ([1, 2, 2], codes)


def test_what_cannot_be_assembled_is_named(compiler):
    from numinit.compiler.cuda import assembled

    with pytest.raises(RuntimeError, match=r"^CUDA's assembler has no code for sm_998: \S"):
        assembled(".version 8.0\n.target sm_998\n.address_size 64\n")
    with pytest.raises(
        RuntimeError, match=r"(?s)^CUDA's assembler has no code for sm_90: .*nonsense"
    ):
        assembled(".version 8.0\n.target sm_90\n.address_size 64\nnonsense")


@pytest.mark.parametrize("library", ["nvvm", "nvJitLink"])
def test_a_missing_part_of_the_toolkit_is_named(compiler, monkeypatch, library):
    from cuda import pathfinder

    from numinit.compiler import cuda as jit_cuda

    load = pathfinder.load_nvidia_dynamic_lib

    def without(name):
        if name == library:
            raise pathfinder.DynamicLibNotFoundError
        return load(name)

    monkeypatch.setattr(pathfinder, "load_nvidia_dynamic_lib", without)
    monkeypatch.setattr(jit_cuda, "_toolkit", jit_cuda._toolkit.__wrapped__)
    with pytest.raises(ImportError, match=rf"^array: .*CUDA's {library} .*numinit\[cuda12\]"):
        jit_cuda.image(lambda: None, (), (9, 0))


def test_units_of_every_type_fill_wide_stores(compiler):
    from numinit.engines.cuda_kernel import unit_blocks

    for kind in DTYPES.values():
        assert unit_blocks(kind) * 4 * kind.itemsize >= 16
        element, _ = element_of(kind)
        assert np.dtype(element).itemsize * kind.parts == kind.itemsize


@pytest.fixture
def on_a_gpu(monkeypatch):
    """Addresses of the host pass for a GPU's."""
    from numinit.arrays import gpu

    monkeypatch.setattr(gpu, "check_installed", lambda: None)
    monkeypatch.setattr(gpu, "device_of", lambda address, queue: 3)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"numba": "0.67.0"}, r"\(numba-cuda is not, numba 0.67.0 installed\)"),
        ({"numba": "0.68.1", "numba-cuda": "0.30.1"}, r"numba-cuda 0.30.1, numba 0.68.1 installed"),
        ({"numba": "0.66.0rc1", "numba-cuda": "1.2"}, r"numba-cuda 1.2, numba 0.66.0rc1 installed"),
    ],
)
def test_without_what_compiles_the_error_names_the_extras(monkeypatch, found, said):
    from numinit.engines import cuda_driver as driver

    monkeypatch.setattr(driver, "_installed", lambda package: found.get(package, ""))
    monkeypatch.setattr(driver, "lacking", driver.lacking.__wrapped__)
    for kind in (Exported, Capsuled):
        array = np.zeros(5, np.float32)
        with pytest.raises(ImportError, match=rf"^array: .*{said}.*numinit\[cuda12\].*\[cuda13\]"):
            ni.normal_(kind(array))
        assert not array.any()


def test_the_interface_as_memory(on_a_gpu):
    from numinit.arrays.gpu import memory

    array = np.zeros((4, 6), np.float32)[:, 1:]
    where = array.ctypes.data, DTYPES["float32"], (4, 5), (24, 4)
    assert memory(Exported(array)) == (*where, (3, 0))
    assert memory(Exported(array, stream=7)) == (*where, (3, 7))
    # The interface's type counts, whatever the array calls its own.
    foreign = Exported(array)
    foreign.dtype = "FLOAT32"
    assert memory(foreign) == (*where, (3, 0))
    for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
        narrow = np.zeros(3, getattr(pytest.importorskip("ml_dtypes"), name))
        assert memory(Exported(narrow))[1] is DTYPES[name]
    # PaddlePaddle, and what wraps torch's memory, say float16 of both types of 16 bits.
    half = Exported(np.zeros(3, np.float16))
    assert memory(half)[1] is DTYPES["float16"]
    for own in ("paddle.bfloat16", SimpleNamespace(name="BFLOAT16")):
        half.dtype = own
        assert memory(half)[1] is DTYPES["bfloat16"]
    empty = np.zeros((0, 3), np.float16)
    assert memory(Exported(empty, data=(0, False)))[2] == (0, 3)
    # NumPy's integers would be found in caches where Python's are expected.
    found = memory(
        Exported(
            array, shape=np.array((4, 5)), strides=np.array((24, 4)), stream=np.int64(7),
            data=(np.uint64(array.ctypes.data), False),
        )
    )  # fmt: skip
    assert found == (*where, (3, 7))
    assert {type(number) for number in (found[0], *found[2], *found[3], *found[4])} == {int}
    # The end of somebody's memory, or the beginning of another's.
    assert memory(Exported(empty, data=(4097, False)))[4] == (0, 0)


#: NumPy's arrays stand in for those of other packages.
has_dlpack = pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) < "2.1.0", reason="NumPy exports DLPack 1.0 since 2.1"
)


@has_dlpack
def test_what_is_no_writable_array_of_ours_is_refused(on_a_gpu):
    array = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match=r"^tensor: it is read-only"):
        ni.normal_(Exported(array, data=(array.ctypes.data, True)))
    with pytest.raises(TypeError, match=r"^tensor: it is masked"):
        ni.normal_(Exported(array, mask=array))
    with pytest.raises(TypeError, match=r"^tensor: .*float32"):
        ni.normal_(Exported(np.zeros(3, np.int32)))
    one_off = np.zeros(13, np.uint8)[1:].view(np.float32)
    for kind in (Exported, Capsuled):
        with pytest.raises(ValueError, match=r"^tensor: address .* multiples of 4 are accepted"):
            ni.normal_(kind(one_off))
    jax_array = type("ArrayImpl", (Exported,), {"__module__": "jaxlib._jax"})
    with pytest.raises(TypeError, match=r"^tensor: a JAX array .*from_dlpack"):
        ni.normal_(jax_array(array))


def test_dlpack_of_other_devices_is_refused(on_a_gpu):
    class Elsewhere(Capsuled):
        def __dlpack_device__(self):
            return 1, 0

    class Older(Capsuled):
        def __dlpack__(self, *, stream):
            raise AssertionError

    class Host:
        shape = (3,)

        @property
        def __cuda_array_interface__(self):
            raise AttributeError  # as a CPU's array of a class that GPUs share

    array = np.zeros(3, np.float32)
    for elsewhere in Elsewhere(array), Host():
        said = rf"^tensor: a {type(elsewhere).__name__} that is not in a CUDA GPU's memory"
        for fill in ni.normal_, ni.kaiming_normal_:
            with pytest.raises(TypeError, match=said):
                fill(elsewhere)
    with pytest.raises(TypeError, match=r"^tensor: Older does not say whether"):
        ni.normal_(Older(array))


@has_dlpack
def test_dlpack_as_memory(on_a_gpu):
    from numinit.arrays.gpu import memory

    for dtype in ("float16", "float32", "float64", "complex64", "complex128"):
        array = np.zeros((4, 6), dtype)[:, 1:]
        size = array.itemsize
        expected = array.ctypes.data, DTYPES[dtype], (4, 5), (6 * size, size), (0, 0)
        assert memory(Capsuled(array)) == expected
    array.flags.writeable = False
    with pytest.raises(ValueError, match=r"^array: it is read-only"):
        memory(Capsuled(array))

    class Copying(Capsuled):
        def __dlpack__(self, *, stream, max_version):
            return self.array.__dlpack__(max_version=max_version, copy=True)

    with pytest.raises(ValueError, match=r"^array: it exports a copy"):
        memory(Copying(np.zeros(3)))


def test_the_gaps_of_a_view_take_no_memory(on_a_gpu, monkeypatch):
    """Where values are made on the host: here 4 KB of a matrix of 400 MB."""
    copied, init = [], ni.FromIndex("i * 1.0")
    monkeypatch.setattr(cuda, "check_installed", lambda: None)
    monkeypatch.setattr(cuda, "copy", lambda *what: copied.append((what[2], list(what[3]))))
    column = Exported(np.zeros((1000, 100_000), np.float32)[:, 5])
    init((3,))
    tracemalloc.start()
    try:
        init.fill_(column)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert copied == [((4, 1000, 400_000), [0])]


def test_an_interface_of_the_object_itself(on_a_gpu):
    class Raw:
        pass

    array, raw = np.zeros(3, np.float32), Raw()
    with pytest.raises(TypeError, match=r"^tensor: Raw was given; an array on a GPU, a NumPy"):
        ni.normal_(raw)
    raw.__cuda_array_interface__ = Exported(array, data=(array.ctypes.data, True)).interface
    with pytest.raises(ValueError, match=r"^tensor: it is read-only"):
        ni.normal_(raw)


def test_rows_of_a_gpu():
    ids = np.array([4, 0])
    on_gpu = Exported(ids)
    on_gpu.copy_to_host = lambda: ids
    table = 9, 3
    expected = ni.Normal().rows(table, ids, seed=0)
    np.testing.assert_array_equal(ni.Normal().rows(table, on_gpu, seed=0), expected)

    def refused():
        raise TypeError("what the array's own package says")

    on_gpu.copy_to_host = refused
    with pytest.raises(TypeError, match="own package says"):
        ni.Normal().rows(table, on_gpu, seed=0)


IMPORTING = """
import importlib.abc, sys, threading
import numpy as np
import numinit as ni
from cuda_parts import Exported
from numinit.engines.preparing import preparing

seen = {}

class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("numinit.engines", "numinit.compiler", "numba.cuda.simulator")):
            def probe():
                seen[name] = preparing.acquire(blocking=False)
                if seen[name]:
                    preparing.release()
            thread = threading.Thread(target=probe)
            thread.start()
            thread.join()

sys.meta_path.insert(0, Watch())
ni.constant_(Exported(np.zeros(3, np.float32)), 1.0)
assert "numinit.engines.cuda_kernel" in seen and "numinit.compiler.cuda" in seen
assert not any(seen.values()), seen
"""


def test_a_child_forked_while_cuda_is_imported_has_its_locks(compiler):
    """The lock that is held over a fork is held over the imports."""
    run("-c", IMPORTING, NUMBA_ENABLE_CUDASIM="1")


def test_a_child_forked_while_a_kernel_is_compiled_has_its_locks(monkeypatch):
    """The lock that is held over a fork is held over the compilation."""

    def free():
        got = []

        def probe():
            from numinit.engines.preparing import preparing

            got.append(preparing.acquire(blocking=False))
            if got[0]:
                preparing.release()

        thread = threading.Thread(target=probe)
        thread.start()
        thread.join()
        return got[0]

    def compiling(variant, device):
        raise Recorded(free())

    monkeypatch.setattr(cuda, "_load", compiling)
    assert free()
    with pytest.raises(Recorded, match="False"):
        cuda._loaded("a kernel of its own", 0)


def test_a_kernel_that_is_wanted_amid_a_compilation_is_refused(monkeypatch):
    """Of a destructor, say, in the thread that compiles: LLVM would end the process."""
    monkeypatch.setattr(cuda, "_load", lambda name, device: cuda._loaded("another kernel", 0))
    with pytest.raises(RuntimeError, match=r"in the middle of a compilation"):
        cuda._loaded("a kernel of its own", 0)


def test_threads_that_want_one_kernel_load_it_once(compiler, monkeypatch):
    made, variant = [], named("normal", "float32", "range")  # no other test loads it

    def image(variant, capability):
        made.append((variant, capability))
        time.sleep(0.1)
        return b"name", b"code"

    monkeypatch.setattr(cuda, "_image", functools.cache(image))
    monkeypatch.setattr(cuda, "load", lambda *image: made.append(image) or 7)
    monkeypatch.setattr(cuda, "properties", lambda device: Properties((9, 0), 2))
    monkeypatch.setattr(cuda, "current", lambda device: contextlib.nullcontext())
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(cuda._loaded, [variant] * 8, [0, 1] * 4))
    assert found == [(7, cuda.NARROW.threads, 2 * cuda.NARROW.blocks)] * 8
    assert made == [(variant, (9, 0)), *[(b"name", b"code")] * 2]


def test_a_torch_tensor_on_a_gpu_is_filled_on_the_current_stream(monkeypatch):
    torch = pytest.importorskip("torch")
    from numinit.arrays import torch as own
    from numinit.arrays.torch import memory

    class Tensor(SimpleNamespace):
        __setitem__ = torch.Tensor.__setitem__

    tensor = Tensor(
        is_cpu=False, is_meta=False, is_cuda=True, device="cuda:2", layout=torch.strided,
        is_neg=lambda: False, is_conj=lambda: False, dtype=torch.bfloat16, shape=(4, 5),
        stride=lambda: (1, 4), data_ptr=lambda: 4096, numel=lambda: 20, get_device=lambda: 2,
    )  # fmt: skip
    streams = {2: SimpleNamespace(cuda_stream=77)}
    monkeypatch.setattr(torch.cuda, "current_stream", streams.__getitem__)
    monkeypatch.setattr(own, "_stream", own._object_stream)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert memory(tensor) == (4096, DTYPES["bfloat16"], (4, 5), (2, 8), (2, 77))
    tensor.data_ptr = lambda: 4097
    with pytest.raises(ValueError, match=r"^array: address 0x1001 .* multiples of 2 are accepted"):
        memory(tensor)
    monkeypatch.setattr(torch.version, "cuda", None)  # a build for ROCm says "cuda" too
    with pytest.raises(TypeError, match=r"^tensor: it is on cuda:2; CPU and CUDA tensors"):
        memory(tensor)


def test_a_fake_tensor_asks_for_no_stream(monkeypatch):
    """There may be no GPU where one is traced."""
    torch = pytest.importorskip("torch")
    from torch._subclasses.fake_tensor import FakeTensorMode

    from numinit.arrays import torch as own

    with FakeTensorMode():
        fake = torch.empty(3, device="cuda")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(own, "_stream", None)
    with pytest.raises(TypeError, match=r"^tensor: a FakeTensor has no memory of its own"):
        ni.normal_(fake, generator=0)


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "mps", 0])
def test_devices_that_are_refused(device):
    with pytest.raises(ValueError, match=r"^device: .*'cpu', 'cuda' and 'cuda:N' are accepted"):
        ni.Normal()((3, 4), device=device)


def test_the_host_is_a_device():
    shape = (5, 3)
    init = ni.Normal()
    np.testing.assert_array_equal(init(shape, seed=1, device="cpu"), init(shape, seed=1))


def test_a_device_without_a_maker_of_its_arrays(monkeypatch):
    find = importlib.util.find_spec
    hidden = ("torch", "cupy")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in hidden else find(name)
    )
    for name in hidden:
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ImportError, match=r"^device: 'cuda' needs CuPy or a torch"):
        ni.Normal()((3, 4), device="cuda")
    for name in hidden:
        monkeypatch.setitem(sys.modules, name, None)  # what keeps a package from being imported
    with pytest.raises(ImportError, match=r"^device: 'cuda' needs CuPy or a torch"):
        ni.Normal()((3, 4), device="cuda")


def test_new_arrays_of_a_device(compiler):
    """Under the simulator, with a stand-in for CuPy."""
    run("-c", NEW_ARRAYS, NUMBA_ENABLE_CUDASIM="1")


NEW_ARRAYS = """
import sys
from types import ModuleType
import numpy as np
import numinit as ni
from numinit.arrays import new
from numinit.arrays.frameworks import framework_of
from cuda_parts import Exported

def upload(array):
    copy = array.copy()
    return copy, copy.ctypes.data

class New(Exported):
    def reshape(self, shape):
        return self.array.reshape(shape)

def empty(shape, dtype):
    array = New(np.empty(shape, dtype.name))
    return array, framework_of(array).memory(array)

sys.modules["cupy"] = ModuleType("cupy")
new._cupy_maker = lambda index: new.Maker(empty, upload)
for dtype in ("float32",):
    for init in (ni.Sparse(0.5), ni.Eye()):
        shape = 9, 5
        whole = init(shape, dtype, seed=1)
        assert (init(shape, dtype, seed=1, device="cuda").array == whole).all()
        array = New(np.zeros(shape, dtype, order="F"))
        assert (init.fill_(array, seed=1).array == whole).all()
        got = init.block(shape, (slice(2, 7), slice(1, 4)), dtype, seed=1, device="cuda:1")
        assert (got.array == whole[2:7, 1:4]).all()
        got = init.rows(shape, [[-1, 0, 3]], dtype, seed=1, device="cuda")
        assert (got == whole[[[-1, 0, 3]]]).all()
"""


class Libraries:
    """torch or CuPy with two GPUs, as far as a maker of arrays asks them."""

    def __init__(self, monkeypatch, gpus):
        torch = pytest.importorskip("torch")
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)


def test_a_gpu_that_is_not_there(monkeypatch):
    Libraries(monkeypatch, 2)
    with pytest.raises(ValueError, match=r"^device: 'cuda:2' was given; 2 GPUs are there"):
        ni.Normal()((3, 4), device="cuda:2")


def test_torch_without_a_gpu(monkeypatch):
    Libraries(monkeypatch, 0)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "cupy" else find(n))
    with pytest.raises(ImportError, match=r"^device: 'cuda' needs CuPy or a torch .* a GPU"):
        ni.Normal()((3, 4), device="cuda")
