"""The command line: ``numinit init``, ``plan``, ``verify``, ``compile`` and ``info``."""

import argparse
import contextlib
import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

import numpy as np

from numinit._version import STREAM_VERSION, __version__
from numinit.models import recipes, sources
from numinit.models.overview import lines, overview
from numinit.models.tables import known
from numinit.models.tensors import GIVEN
from numinit.models.untrusted import InputError, show
from numinit.models.verify import Mismatch, verify
from numinit.models.write import Summary, write
from numinit.stream.dtypes import DTYPES

__all__ = ["main"]

OK, DIFFERS, USAGE, IO_FAILURE, FAULT = 0, 1, 2, 3, 70
INTERRUPTED, BROKEN_PIPE, TERMINATED = 130, 141, 143
PATIENCE = 10  # seconds that a clean-up may take

EPILOG = """\
exit codes:
  0    done; for verify: every value is as it should be
  1    verify: the header or a value differs from what was written
  2    bad usage, or an input that cannot be used; nothing was written
  3    the disk is full, or reading or writing failed
  70   a fault in numinit or in what it is installed with
  130  interrupted (Ctrl-C)
  141  whoever read the output has gone
  143  terminated
Whatever the code, OUT, or each of its files, is either whole or as it was before."""

FACTORY = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")
FILES = (".json", ".safetensors")

OPTIONAL = ("torch", "numba_cuda", "cupy", "ml_dtypes", "scipy")
#: What `compile` takes by default: models are made of these.
USUAL = ("Constant", "Normal", "TruncNormal", "Uniform")
USUAL_DTYPES = ("float32", "bfloat16", "float16")


class Terminated(KeyboardInterrupt):
    """A signal that ends the process, cleaned up after as Ctrl-C is."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; ``--help`` and bad usage raise SystemExit.

    With `argv` left out the process is taken to end with this call.
    """
    for stream in (sys.stdout, sys.stderr):  # a name of a tensor must not be able to end a run
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        with _signals_as_exceptions(last=argv is None):
            try:
                arguments = _parser().parse_args(argv)
                code: int = arguments.run(arguments)
            finally:
                print(end="", flush=True)  # so that a failure to write is seen here
            return code
    except Terminated:
        return _fail("terminated", TERMINATED)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        _drop_output()
        return BROKEN_PIPE
    except (ValueError, TypeError) as error:
        return _fail(f"error: {error}", USAGE)
    except (OSError, MemoryError) as error:
        try:
            print(end="", flush=True)
        except OSError:  # it is the output that failed
            _drop_output()
        return _fail(f"error: {str(error) or 'out of memory'}", IO_FAILURE)
    except Exception as error:
        return _fail(f"fault: {type(error).__name__}: {error}", FAULT)


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="numinit",
        description="Initialize model weights, reproducibly, and verify them.",
        epilog=EPILOG,
        formatter_class=formatter,
    )
    version = f"numinit {__version__} (stream version {STREAM_VERSION})"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    source = argparse.ArgumentParser(add_help=False)
    source.add_argument(
        "source",
        metavar="SOURCE",
        help="names and shapes: a .json or .safetensors file, the .index.json or the directory of "
        "several of those, a shipped model (numinit info), the config.json of a model of transformers, "
        "or package.module:factory, a function without arguments that makes a torch.nn.Module",
    )
    source.add_argument("--recipe", help="shipped recipe or .toml file; default: the source's own")
    source.add_argument(
        "--dtype",
        choices=DTYPES,
        help="default: the source's dtypes, else float32; integer and complex tensors and those whose "
        "rule has a dtype keep theirs",
    )

    init = commands.add_parser(
        "init",
        parents=[source],
        help="write a model's initial weights to a file",
        description="Write a model's initial weights to .safetensors, or one tensor's to .npy. With "
        "--max-shard-size, write several files and their index, as Hugging Face's libraries do; the "
        "same command goes on if it was killed: files that are whole are verified and kept.",
        epilog=EPILOG,
        formatter_class=formatter,
    )
    init.set_defaults(run=_init)
    init.add_argument("--seed", type=_seed, default=0, help="0 to 2**64 - 1, decimal or 0x hex")
    init.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="default: the model's name and .safetensors; with --max-shard-size a directory, and the "
        "model's name",
    )
    init.add_argument(
        "--max-shard-size",
        metavar="SIZE",
        help="write several files, with at most so many bytes of tensors in each, such as 5GB",
    )
    init.add_argument(
        "--shard",
        type=_shard,
        metavar="K/N",
        help="with --max-shard-size: make the K-th of N parts of the files alone, such as 3/16. The "
        "processes of all parts make the files that one would; 1/N writes the index",
    )
    init.add_argument("--tensor", metavar="NAME", help="which tensor an .npy file gets")
    init.add_argument(
        "--force", action="store_true", help="replace OUT, or its files, if they exist"
    )

    plan = commands.add_parser(
        "plan",
        parents=[source],
        help="print which rule and distribution each tensor gets",
        description="Print which rule of a recipe each tensor gets, and its distribution. Tensors "
        "that are alike but for numbers in their names are one line. Nothing is written.",
        epilog=EPILOG,
        formatter_class=formatter,
    )
    plan.set_defaults(run=_plan, seed=0)

    verify = commands.add_parser(
        "verify",
        help="derive a file's values again and compare",
        description="Derive every value of a file that numinit wrote from the file's own metadata, "
        "and compare. The first tensor that differs is named. Of a checkpoint in several files also "
        "verify that they are one set, and all there.",
        epilog=EPILOG,
        formatter_class=formatter,
    )
    verify.set_defaults(run=_verify)
    verify.add_argument(
        "file",
        metavar="FILE",
        help="a .safetensors file written by numinit; or the .index.json of several, or their directory",
    )

    compiling = commands.add_parser(
        "compile",
        help="compile kernels into the cache",
        description="Compile kernels into the cache ahead of time, as for an image of a container. "
        "They serve processors of this kind, with these versions of numinit and Numba.",
        epilog=EPILOG,
        formatter_class=formatter,
    )
    compiling.set_defaults(run=_compile)
    compiling.add_argument(
        "--dtype", action="append", choices=DTYPES, help=f"default: {', '.join(USUAL_DTYPES)}"
    )
    compiling.add_argument(
        "--initializer",
        action="append",
        choices=[name for name, kind in known().items() if _has_defaults(kind)],
        metavar="NAME",
        help=f"by its default fields, for a matrix; default: {', '.join(USUAL)}",
    )

    info = commands.add_parser("info", help="versions, threads, CPU, optional parts, what ships")
    info.set_defaults(run=_info)
    for command in (init, verify):
        command.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    return parser


def _has_defaults(kind: Any) -> bool:
    """Whether an initializer's class can be called without arguments."""
    return all(
        field.default is not MISSING or field.default_factory is not MISSING
        for field in fields(kind)
        if field.init
    )


def _model(
    arguments: argparse.Namespace,
) -> tuple[sources.Model, recipes.Recipe | str, Mapping[str, Any]]:
    """The model, its recipe, or the name or path of that, and the tensors that the recipe lacks."""
    given: Mapping[str, Any] = {}
    factory = FACTORY.fullmatch(arguments.source) and not arguments.source.endswith(FILES)
    if factory:
        sys.path.insert(0, os.getcwd())  # as for `python -m`
    if factory or sources.config_of(arguments.source) is not None:
        model, given = _module(arguments)
        recipe = model.recipe
    else:
        model = sources.load_model(arguments.source)
        recipe = arguments.recipe or model.recipe
    if recipe is None:
        raise InputError(f"{arguments.source} names no recipe of its own: --recipe is needed")
    return model, recipe, given


def _module(arguments: argparse.Namespace) -> tuple[sources.Model, Mapping[str, Any]]:
    """A model whose module is made on the meta device, and the tensors that its recipe lacks."""
    try:
        from numinit.torch.saving import model_of  # here, for importing torch takes seconds

        model, given = model_of(arguments.source, arguments.recipe, arguments.seed)
    except ImportError as error:
        if error.name == "torch":
            error = ImportError(f"{arguments.source} needs torch: pip install 'numinit[torch]'")
        raise InputError(str(error)) from error
    return model, given


def _plan(arguments: argparse.Namespace) -> int:
    model, recipe, given = _model(arguments)
    for line in lines(overview(model.tensors, recipes.as_recipe(recipe), arguments.dtype, given)):
        print(line)
    return OK


def _init(arguments: argparse.Namespace) -> int:
    model, recipe, given = _model(arguments)
    output = arguments.output
    if output is None:
        # The name may come from a file that somebody else wrote: it must not choose a directory.
        if not re.fullmatch(r"\w[\w.+ -]*", model.name):
            raise InputError(f"model name {model.name!r} makes no file name: -o is needed")
        output = model.name if arguments.max_shard_size else f"{model.name}.safetensors"

    begin = time.perf_counter()
    with _progress(arguments.quiet) as progress:
        summary = write(
            output,
            model.tensors,
            recipe,
            arguments.seed,
            arguments.dtype,
            progress,
            arguments.force,
            tensor=arguments.tensor,
            given=given,
            max_shard_size=arguments.max_shard_size,
            shard=arguments.shard,
        )
    if not arguments.quiet:
        print(f"{output}: {_summary(summary, begin)}")
    return OK


def _verify(arguments: argparse.Namespace) -> int:
    begin = time.perf_counter()
    try:
        with _progress(arguments.quiet) as progress:
            summary = verify(arguments.file, progress)
    except Mismatch as mismatch:
        return _fail(f"verify: {mismatch}", DIFFERS)
    if not arguments.quiet:
        print(f"{arguments.file}: OK, {_summary(summary, begin)}, {_compared(summary)}")
    return OK


def _compile(arguments: argparse.Namespace) -> int:
    # Here, for it takes long to import.
    from numinit.compiler import cache

    if cache.directory() is None:
        raise InputError("no directory of a cache is writable and private: see NUMBA_CACHE_DIR")
    classes = known()
    for dtype in arguments.dtype or USUAL_DTYPES:
        for name in arguments.initializer or USUAL:
            begin = time.perf_counter()
            out = np.empty(16 * DTYPES[dtype].itemsize, np.uint8)
            try:
                classes[name]().fill_flat(out, 0, (4, 4), dtype, 0)
            except (TypeError, ValueError) as error:
                raise InputError(f"{name} of {dtype}: {error}") from error
            print(f"{name}, {dtype}: {time.perf_counter() - begin:.2f} s", flush=True)
    print(f"kernels are in {cache.directory()}")
    return OK


def _info(arguments: argparse.Namespace) -> int:
    # Here, for it takes long to import.
    from importlib import metadata, util
    from platform import python_version

    import llvmlite.binding as llvm

    from numinit.compiler import cache
    from numinit.engines import threads

    features = llvm.get_host_cpu_features()
    widths = (("avx512f", 512), ("avx2", 256), ("sse2", 128), ("neon", 128))
    width = next((bits for name, bits in widths if features.get(name)), None)
    notable = ("avx512f", "avx512dq", "avx2", "fma", "neon")
    present = [name for name in notable if features.get(name)]
    versions = [f"{name} {metadata.version(name)}" for name in ("numba", "llvmlite", "numpy")]
    found, missing = [], []
    for name in OPTIONAL:
        if util.find_spec(name) is None:
            missing.append(name)
            continue
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:  # cupy's wheels have other names
            found.append(name)
    lines = {
        "numinit": f"{__version__}, stream version {STREAM_VERSION}",
        "python": ", ".join([python_version(), *versions]),
        "threads": f"{threads.get_num_threads()} of {os.cpu_count()} CPUs ({threads.source()})",
        "threading": "numinit's own threads without the GIL; none of Numba's threading layers",
        "cpu": f"{llvm.get_host_cpu_name()}: {' '.join(present) or 'no wide vectors'}",
        "vectors": f"{width} bits" if width else "unknown",
        "cache": cache.directory()
        or "none: no directory is writable and private, so every process compiles",
        "found": ", ".join(found) or "no optional package",
        "not found": ", ".join(missing) or "-",
        "models": ", ".join(sources.available()),
        "recipes": ", ".join(recipes.available()),
    }
    for key, value in lines.items():
        print(f"{key + ':':11}{value}")
    return OK


def _seed(text: str) -> int:
    digits, base = (text[2:], 16) if text.lower().startswith("0x") else (text, 10)
    if not re.fullmatch("[0-9a-fA-F]+", digits) or (base == 10 and not digits.isdigit()):
        raise argparse.ArgumentTypeError(f"{show(text)} is not an integer, decimal or 0x hex")
    digits = digits.lstrip("0") or "0"
    if len(digits) > 20 or (seed := int(digits, base)) >= 1 << 64:
        raise argparse.ArgumentTypeError(f"{show(text)} is not below 2**64")
    return seed


def _shard(text: str) -> tuple[int, int]:
    if not re.fullmatch("[0-9]{1,9}/[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"{show(text)} is not K/N, such as 3/16")
    part, of = map(int, text.split("/"))
    return part, of


def _fail(message: str, code: int) -> int:
    with contextlib.suppress(OSError):
        print(f"numinit: {message}", file=sys.stderr, flush=True)
    return code


def _drop_output() -> None:
    """Python flushes at exit: let that go nowhere instead of failing once more."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _summary(summary: Summary, begin: float) -> str:
    seconds = max(time.perf_counter() - begin, 1e-9)
    many = "" if summary.tensors == 1 else "s"
    return (
        f"{summary.tensors} tensor{many}, {_bytes(summary.nbytes)} "
        f"in {seconds:.2f} s ({summary.nbytes / seconds / 1e9:.2f} GB/s)"
    )


def _compared(summary: Summary) -> str:
    """How the tensors of a file were compared."""
    if not summary.within:
        return "bit for bit"
    exact = summary.tensors - sum(count for _, _, count in summary.within)
    parts = [f"{exact} bit for bit"] if exact else []
    for law, tolerance, count in summary.within:
        by = "by their digests" if law == GIVEN else f"({law}) within {tolerance:.2g}"
        parts.append(f"{count} {by}")
    return ", ".join(parts)


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Any]:
    """A progress function that draws a bar on stderr, or None where no person would see it."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    begin = time.perf_counter()
    drawn = 0.0
    try:
        width = (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1
    except (OSError, ValueError):
        width = 79

    def draw(done: int, total: int) -> None:
        nonlocal drawn
        now = time.perf_counter()
        if now - drawn < 0.1 and done < total:
            return
        drawn, share, speed = now, done / total, done / max(now - begin, 1e-9)
        bar = "#" * round(24 * share)
        text = (
            f"[{bar:24}] {share:4.0%}  {_bytes(done)} of {_bytes(total)}  "
            f"{speed / 1e9:.2f} GB/s  {(total - done) / speed:.0f} s left"
        )
        with contextlib.suppress(OSError):
            print(f"\r{text[:width]:{width}}", end="", file=sys.stderr, flush=True)

    try:
        yield draw
    finally:
        if drawn:
            with contextlib.suppress(OSError):
                print(f"\r{'':{width}}\r", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _signals_as_exceptions(last: bool) -> Iterator[None]:
    """Let the first signal that is to end the process raise, so that what is half-written is removed.

    Those that follow must not disturb that: they are ignored, until the process ends if it is the
    `last` thing that the process does. Signals that were ignored before still are, as under nohup.
    """
    came = -math.inf

    def stop(signum: int, frame: object) -> None:
        nonlocal came
        now = time.monotonic()
        # Later it is no clean-up that goes on: Python had to drop the exception, as in a __del__.
        if now - came > PATIENCE:
            came = now
            raise KeyboardInterrupt if signum == signal.SIGINT else Terminated

    replaced: dict[int, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
                number = getattr(signal, name, None)
                default = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
                if number is not None and signal.getsignal(number) == default:
                    replaced[number] = default
                    signal.signal(number, stop)
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, signal.SIG_IGN if last and came > -math.inf else handler)
