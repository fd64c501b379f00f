"""The recorder: torch code runs on tensors without memory, and what it does to them is written down."""

import contextlib
import functools
import inspect
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from numinit.initializers import Initializer, Normal, Uniform
from numinit.show import cut
from numinit.torch import hooks
from numinit.torch.configs import model_of_config
from numinit.torch.named import Named, alike, is_dense, named_tensors
from numinit.torch.steps import (
    FILLED,
    Memory,
    Read,
    Replay,
    Step,
    Target,
    View,
    constant_step,
    leaves,
    mapped,
    view_of,
    walk,
)
from numinit.torch.traced import Trace, Traced

__all__ = ["Trace", "Traced", "trace"]

META = torch.device("meta")

#: What gives a tensor's values to Python.
_VALUES = {
    *(Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__bool__, Tensor.__int__),
    *(Tensor.__float__, Tensor.__complex__, Tensor.__index__, Tensor.__format__),
    *(Tensor.__contains__, Tensor.is_nonzero, torch.is_nonzero),
}
#: Those whose values Python may change in place: arrays share memory with the tensor.
_ARRAYS = {Tensor.numpy, Tensor.__array__}
#: What makes a tensor of numbers in lists, among which may be tensors.
_LISTS = {torch.tensor, torch.as_tensor, torch.asarray}

#: What tells Python where a tensor is. A recorded one says that it is on the CPU: code that sees the
#: meta device may think that there is nothing to initialize.
_PLACES: dict[Any, Any] = {
    Tensor.device.__get__: torch.device("cpu"),
    Tensor.is_meta.__get__: False,
    Tensor.is_cpu.__get__: True,
}

_FILLS: dict[str, Callable[..., Initializer]] = {
    "uniform_": lambda low=0.0, high=1.0: Uniform(low, high),
    "normal_": lambda mean=0.0, std=1.0: Normal(mean, std),
    "rand": lambda *_: Uniform(),
    "rand_like": lambda *_: Uniform(),
    "randn": lambda *_: Normal(),
    "randn_like": lambda *_: Normal(),
}
_CONSTANTS: dict[str, Callable[..., Any]] = {
    "zero_": lambda *_: 0,
    "fill_": lambda value: value,
    **dict.fromkeys(("zeros", "zeros_like", "new_zeros"), lambda *_: 0),
    **dict.fromkeys(("ones", "ones_like", "new_ones"), lambda *_: 1),
    **dict.fromkeys(("full", "full_like", "new_full"), lambda _, value: value),
}
_EMPTY = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


def trace(make: Callable[[], torch.nn.Module] | torch.nn.Module | str | Path) -> Trace:
    """Record how a module initializes its tensors, without their memory.

    Parameters
    ----------
    make : callable, torch.nn.Module, str or Path
        A function without arguments that makes the module. It runs once, with all tensors on the
        meta device; the module that it returns is the trace's `module`. Or a module, on any device,
        whose tensors stay as they are: its own functions are called, ``initialize_weights`` of
        transformers or each part's ``reset_parameters``. They say nothing of buffers that only
        the constructor fills. Or the path of the config.json of a model of transformers.
        A generator or seed that the code gives to torch's or numinit's functions is not used: each
        tensor is drawn from the stream of its name.

    Returns
    -------
    Trace
        For each tensor what fills it, and the recipe of the whole module.

    Raises
    ------
    TypeError
        If `make` is neither, or returns no module.

    Warns
    -----
    UserWarning
        Naming the module and the operation, if the code reads a random value, or draws by an
        operation that numinit does not have. torch's own then makes that tensor.

    Examples
    --------
    >>> import torch
    >>> from numinit.torch import trace
    >>> traced = trace(lambda: torch.nn.Linear(3, 2))
    >>> type(traced.tensors["weight"].initializer), traced.tensors["bias"].shape
    (<class 'numinit.initializers.variance_scaling.KaimingUniform'>, (2,))
    """
    recorder = Recorder()
    if isinstance(make, str | Path):
        make = functools.partial(model_of_config, make)
    if isinstance(make, torch.nn.Module):
        named = named_tensors(make)
        recorder.own = {_storage_of(t): name for name, t, *_ in named if is_dense(t)}
        with on_meta(make):
            with recorder.recording(), torch.no_grad():
                initialize(make)
            twins = named_tensors(make)
        return Trace(make, _tied(named, twins, recorder.memories), recorder.memories)
    if not callable(make):
        raise TypeError(
            f"make: {cut(make)} was given; a module, or a function that makes one, is accepted"
        )
    with recorder.recording():
        module = make()
    if not isinstance(module, torch.nn.Module):
        raise TypeError(
            f"make: it returned a {type(module).__name__}; a torch.nn.Module is accepted"
        )
    named = named_tensors(module)
    with recorder.paused():  # a real one, such as of a NumPy array, is a constant
        named = [one._replace(tensor=recorder.without_memory(one.tensor)) for one in named]
    return Trace(module, named, recorder.memories)


@contextlib.contextmanager
def on_meta(module: torch.nn.Module) -> Iterator[None]:
    """Put tensors without memory in the place of a module's, for a while.

    Those that are tied become several, because each part of the module initializes its own.
    """
    places = [
        (table, name, tensor)
        for part in module.modules()
        for table in (part._parameters, part._buffers)
        for name, tensor in table.items()
        if tensor is not None and is_dense(tensor)
    ]
    try:
        for table, name, tensor in places:
            table[name] = _twin(tensor)
        yield
    finally:
        for table, name, tensor in places:
            table[name] = tensor


def _storage_of(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata if is_dense(tensor) else 0


def _tied(named: list[Named], twins: list[Named], memories: dict[int, Memory]) -> list[Named]:
    """The twins; for tensors that are tied, the first one that was initialized."""
    chosen: dict[int, Tensor] = {}
    for one, twin in zip(named, twins, strict=True):
        before = chosen.setdefault(id(one.tensor), twin.tensor)
        if not _has_steps(before, memories) and _has_steps(twin.tensor, memories):
            chosen[id(one.tensor)] = twin.tensor
    return [one._replace(tensor=chosen[id(one.tensor)]) for one in named]


def _has_steps(tensor: Tensor, memories: dict[int, Memory]) -> bool:
    memory = memories.get(_storage_of(tensor))
    return memory is not None and bool(memory.steps)


def _twin(tensor: Tensor) -> Tensor:
    strides = tensor.stride() if type(tensor) in (Tensor, torch.nn.Parameter) else None
    twin = torch.empty(tensor.shape, dtype=tensor.dtype, device=META)
    if strides is not None and not tensor.is_contiguous():
        twin = torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=META)
    if isinstance(tensor, torch.nn.Parameter):
        twin = torch.nn.Parameter(twin, tensor.requires_grad)
    alike(twin, tensor)
    twin.__dict__.pop("_is_hf_initialized", None)  # with it, transformers' functions do nothing
    return twin


def initialize(module: torch.nn.Module) -> None:
    """Call a module's own functions of initialization, children first."""
    if hasattr(module, "_init_weights") and callable(getattr(module, "initialize_weights", None)):
        flagged = [part for part in module.modules() if part.__dict__.pop("_is_hf_initialized", 0)]
        try:
            module.initialize_weights()
        finally:
            for part in module.modules():
                part.__dict__.pop("_is_hf_initialized", None)
            for part in flagged:
                part._is_hf_initialized = True
        return
    for child in module.children():
        initialize(child)
    for name in ("reset_parameters", "_reset_parameters", "init_weights"):
        function = getattr(module, name, None)
        if callable(function) and _takes_nothing(function):
            function()
            return


def _takes_nothing(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError):
        return False
    return True


class Recorder:
    """Writes down what is done to tensors while `recording`."""

    def __init__(self) -> None:
        self.memories: dict[int, Memory] = {}
        self.own: dict[int, str] = {}  # the names, by storages, of tensors that stay as they are
        self._paused = 0
        self._warned: set[tuple[str, str]] = set()
        self._lent: list[tuple[Tensor, Tensor, bytes]] = []

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Record this thread's operations."""
        with hooks.handled(self._init_function), _Functions(self), _Operations(self):
            yield
            with self.paused():
                self._follow()

    # What tensors are.

    def memory(self, tensor: Tensor) -> Memory:
        """The memory of a recorded tensor."""
        self._follow()
        storage = tensor.untyped_storage()
        known = self.memories.get(storage._cdata)
        if known is None:
            known = self.memories[storage._cdata] = Memory(storage, storage.nbytes())
        return known

    def read(self, tensor: Tensor) -> Read:
        """A tensor's elements, as a step's argument."""
        return self.memory(tensor).read(view_of(tensor))

    def real(self, tensor: Tensor, why: str = "") -> Tensor:
        """A tensor's values now. If they are random, they are drawn now, and stay."""
        if not tensor.is_meta:
            return tensor
        memory = self.memory(tensor)
        if any(step.draws for step in walk(memory.steps, len(memory.steps))):
            self._warn(
                why or "its values",
                "needs random values while the module is made; those of that tensor are drawn now, "
                "by torch's generator, and no seed changes them",
            )
            self._settle(memory)
        value = Replay(None).value(Read(memory, memory.steps, len(memory.steps), view_of(tensor)))
        return value.clone()

    def _follow(self) -> None:
        """Write down what Python has written into arrays that share a tensor's memory."""
        if not self._lent:
            return
        lent, self._lent = self._lent, []
        alive = []
        for tensor, values, before in lent:
            now = values.numpy().tobytes()
            if now != before:
                self._write_copy(tensor, values)
            alive.append((tensor, weakref.ref(values), now))
        del lent, values  # then only arrays hold them
        self._lent = [(tensor, v, now) for tensor, ref, now in alive if (v := ref()) is not None]

    def _settle(self, memory: Memory) -> None:
        storage = torch.UntypedStorage(memory.nbytes, device="cpu")
        Replay(None).run(memory.steps, len(memory.steps), storage)
        view = View(torch.uint8, (memory.nbytes,), (1,), 0)
        memory.steps = [
            Step(view, op=torch.ops.aten.clone.default, args=(view.of(storage),), output=0)
        ]

    def _warn(self, what: str, problem: str) -> None:
        where = _where()
        if (what, where) not in self._warned:
            self._warned.add((what, where))
            warnings.warn(f"{what} in {where} {problem}", stacklevel=2)

    # What is done to them.

    def _init_function(
        self, name: str, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        try:
            with self.paused():
                tensor, init = hooks.MEANINGS[name](*args, **kwargs)
                known = isinstance(tensor, Tensor) and tensor.is_meta and tensor.dtype in FILLED
                if known and tensor.numel():
                    init.plan(tuple(tensor.shape), FILLED[tensor.dtype])
                    self.memory(tensor).write(Step(view_of(tensor), init), anew=True)
        except (TypeError, ValueError):
            known = False
        return tensor if known else original(*args, **kwargs)  # which has its own errors

    def function(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """A function of torch that Python code calls."""
        if self._paused:
            return func(*args, **kwargs)
        if func is Tensor.new_tensor and args[0].is_meta:
            kwargs.setdefault("dtype", args[0].dtype)
            func, args = torch.tensor, args[1:]
        listed = func in _LISTS and bool(args) and isinstance(args[0], list | tuple)
        if listed and any(isinstance(leaf, Tensor) for leaf in leaves(args[0])):
            with self.paused():
                real = functools.partial(self.real, why=func.__name__)
                args = (mapped(Tensor, real, args[0]), *args[1:])
        tensor = args[0] if args and isinstance(args[0], Tensor) else None
        if tensor is None:
            return func(*args, **kwargs)
        if func in _PLACES and tensor.is_meta:
            return _PLACES[func]
        if func in _VALUES and tensor.is_meta:
            with self.paused():
                values = self.real(tensor, getattr(func, "__name__", ""))
                found = func(values, *args[1:], **kwargs)
                if func in _ARRAYS:
                    self._lent.append((tensor, values, values.numpy().tobytes()))
                return found
        if func is Tensor.share_memory_ and tensor.is_meta:
            return tensor  # where its memory will be is of no matter here
        if func is Tensor.__deepcopy__ and not tensor.is_meta:
            with self.paused():
                return func(*args, **kwargs)
        return func(*args, **kwargs)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Let operations of this thread be carried out."""
        self._paused += 1
        try:
            yield
        finally:
            self._paused -= 1

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operation: carried out without memory, and recorded."""
        if self._paused:
            return func(*args, **kwargs)
        with self.paused():
            return self._operation(func, args, kwargs)

    def _operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tensors = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        name = func._overloadpacket.__name__
        written = _written(func, args, kwargs)
        for tensor in written:
            if self.own and (own := self.own.get(_storage_of(tensor))) is not None:
                raise ValueError(
                    f"module: its code writes {own!r} by a reference that it keeps; give the trace of "
                    "the function that makes the module"
                )
        if name == "lift_fresh" and not tensors[0].is_meta:
            return self.without_memory(tensors[0])
        if tensors and not any(tensor.is_meta for tensor in tensors):
            returned = func._schema.returns
            if written or (returned and returned[0].alias_info is not None):
                return func(*args, **kwargs)
        if any(not tensor.is_meta for tensor in written) or not all(map(is_dense, tensors)):
            return self._carried_out(func, args, kwargs)
        if any(argument.name == "device" for argument in func._schema.arguments):
            kwargs = {**kwargs, "device": META}
            kwargs.pop("pin_memory", None)
        try:
            on_meta = mapped(Tensor, self.without_memory, (args, kwargs))
            out = func(*on_meta[0], **on_meta[1])
        except (NotImplementedError, RuntimeError):
            # It has no form without values, or its form depends on them; or it is an error.
            return self._carried_out(func, args, kwargs)
        if not all(is_dense(leaf) for leaf in leaves(out) if isinstance(leaf, Tensor)):
            return self._carried_out(func, args, kwargs)
        self._record(func, name, args, kwargs, written, out)
        return out

    def without_memory(self, tensor: Tensor) -> Tensor:
        """The same tensor without memory; a sparse one as it is."""
        if tensor.is_meta or not is_dense(tensor):
            return tensor
        size, stride = tuple(tensor.shape), tuple(tensor.stride())
        twin = torch.empty_strided(size, stride, dtype=tensor.dtype, device=META)
        step = Step(
            view_of(twin),
            op=torch.ops.aten.clone.default,
            args=(tensor.detach().clone(),),
            output=0,
        )
        self.memory(twin).write(step, anew=True)
        return twin

    def _carried_out(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Carry out an operation on values, and keep what it makes or changes."""
        real = {}
        for leaf in leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                real[id(leaf)] = self.real(leaf, func._overloadpacket.__name__)
        new = mapped(Tensor, lambda tensor: real[id(tensor)], (args, kwargs))
        if new[1].get("device") == META:
            new[1]["device"] = torch.device("cpu")
        out = func(*new[0], **new[1])
        for tensor in _written(func, args, kwargs):
            if tensor.is_meta:
                self._write_copy(tensor, real[id(tensor)])
        back = {id(value): key for key, value in real.items()}
        given = {id(leaf): leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        return mapped(
            Tensor,
            lambda tensor: (
                given[back[id(tensor)]] if id(tensor) in back else self.without_memory(tensor)
            ),
            out,
        )

    def _write_copy(self, tensor: Tensor, value: Tensor) -> None:
        view = view_of(tensor)
        copy = torch.ops.aten.copy_.default
        self.memory(tensor).write(
            Step(view, op=copy, args=(Target(view), value.clone())), anew=True
        )

    def _record(
        self,
        func: Any,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        written: list[Tensor],
        out: Any,
    ) -> None:
        steps = []  # all of them read what there was before the first is done
        for number, tensor in enumerate(written):
            view, rest = view_of(tensor), args if "out" in kwargs else args[1:]
            if len(written) > 1:
                step, anew = self._step(view, _Apart(func, number), args, kwargs, output=0), False
            else:
                step = self._fill_step(name, view, rest, kwargs) or self._step(
                    view, func, args, kwargs, target=tensor
                )
                own = [leaf for leaf in leaves((args, kwargs)) if leaf is tensor]
                anew = step.anew and len(own) == 1
            if tensor.numel() or len(written) > 1:
                steps.append((self.memory(tensor), step, anew))
        inputs = {
            leaf.untyped_storage()._cdata
            for leaf in leaves((args, kwargs))
            if isinstance(leaf, Tensor)
        }
        op = _Apart(func) if written else func
        for number, tensor in enumerate(leaves(out)):
            if not isinstance(tensor, Tensor) or tensor.untyped_storage()._cdata in inputs:
                continue  # a view
            self.memories.pop(tensor.untyped_storage()._cdata, None)
            memory = self.memory(tensor)
            if name in _EMPTY or not tensor.numel():
                continue
            view = view_of(tensor)
            step = self._fill_step(name, view, args, kwargs) or self._step(
                view, op, args, kwargs, output=number
            )
            steps.append((memory, step, True))
        for memory, step, anew in steps:
            memory.write(step, anew)

    def _fill_step(
        self, name: str, view: View, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Step | None:
        """The step of an operation that is a fill."""
        given = {
            key: kwargs[key] for key in ("from", "to", "mean", "std", "value") if key in kwargs
        }
        values = (*args, *given.values())
        if any(isinstance(value, Tensor) for value in values if name not in _LIKE):
            return None
        try:
            if name in _FILLS and view.dtype in FILLED:
                init = _FILLS[name](*values)
                init.plan(view.size, FILLED[view.dtype])
                return Step(view, init)
            if name == "normal" and view.dtype in FILLED and len(values) >= 2:
                return Step(view, Normal(*values[:2]))
            if name in _CONSTANTS:
                return constant_step(view, _CONSTANTS[name](*values))
        except (TypeError, ValueError):
            return None
        return None

    def _step(
        self,
        view: View,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        target: Tensor | None = None,
        output: int | None = None,
    ) -> Step:
        """The step of another operation, which writes `target` or has the value as an output."""

        def place(tensor: Tensor) -> Read | Target | Tensor:
            if tensor is target:
                return Target(view)
            return self.read(tensor) if tensor.is_meta else tensor.detach().clone()

        random = torch.Tag.nondeterministic_seeded in func.tags
        if random:
            self._warn(
                func._overloadpacket.__name__,
                "is no fill that numinit has; torch's own draws that tensor, from a seed that "
                "follows from the tensor's name",
            )
        kept = {key: value for key, value in kwargs.items() if key != "generator"}
        if "device" in kept:
            kept["device"] = torch.device("cpu")
        templates = mapped(Tensor, place, (args, kept))
        return Step(view, None, func, templates[0], templates[1], output, random)


_LIKE = {
    "zeros_like",
    "ones_like",
    "full_like",
    "rand_like",
    "randn_like",
    "new_zeros",
    "new_ones",
    "new_full",
}


class _Apart:
    """An operation that writes tensors, as one that returns what becomes of one of them, or its outputs."""

    def __init__(self, func: Any, number: int | None = None) -> None:
        self._func, self._number = func, number
        self.__name__ = func._overloadpacket.__name__
        self._overloadpacket, self._schema, self.tags = (
            func._overloadpacket,
            func._schema,
            func.tags,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = mapped(Tensor, torch.clone, (args, kwargs))
        out = self._func(*args, **kwargs)
        return out if self._number is None else _written(self._func, args, kwargs)[self._number]


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors that an operation writes in place."""
    schema = func._schema
    if func is torch.ops.aten.native_batch_norm.default and args[5]:  # whose schema does not say so
        return [mean_or_variance for mean_or_variance in args[3:5] if mean_or_variance is not None]
    if not schema.is_mutable:
        return []
    found = []
    for number, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[number] if number < len(args) else kwargs.get(argument.name)
            found += [leaf for leaf in leaves(given) if isinstance(leaf, Tensor)]
    return found


def _where() -> str:
    """The module whose code runs, for a message."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        for name in ("module", "self"):
            found = frame.f_locals.get(name)
            if isinstance(found, torch.nn.Module):
                code = frame.f_code
                return f"{type(found).__name__} ({code.co_name}, line {frame.f_lineno} of {code.co_filename})"
        frame = frame.f_back
    return "the traced code"


class _Functions(TorchFunctionMode):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return self._recorder.function(func, args, kwargs or {})


class _Operations(TorchDispatchMode):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return self._recorder.operation(func, args, kwargs or {})
