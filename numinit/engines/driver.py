"""The one road from a plan to filled memory, whatever the kind of plan and the device."""

import functools
import math
from collections.abc import Callable

import numpy as np

from numinit.engines import by_index, cpu, cuda, joined
from numinit.engines.floats import default_mode
from numinit.engines.layout import View, refuse_overlap
from numinit.engines.spec import ByIndex, Joined, Plan, Sampled, Spec, Whole
from numinit.show import show
from numinit.stream.dtypes import DType, RangeError

#: A function that fills memory. It takes the address, the global index of the first element, the
#: address of the global rows or 0, and the key's seed and stream, as `numinit.engines.cpu.Fill`
#: does. For a GPU's memory, the GPU and the stream follow, as for `numinit.engines.cuda.Fill`.
Filler = Callable[..., None]

NOTHING = View((0,), (0,), (1,))


def prepared(
    plan: Plan, whole: tuple[int, ...], dtype: DType, view: View, on_gpu: bool = False
) -> tuple[Filler | None, bool]:
    """Prepare the fill of a view of a weight.

    Parameters
    ----------
    plan : Sampled, ByIndex, Whole or Joined
        The values.
    whole : tuple of int
        The shape of the whole weight.
    dtype : DType
        The element type.
    view : View
        The memory; its shape may have zeros.
    on_gpu : bool, optional
        Whether the memory is a GPU's.

    Returns
    -------
    Filler or None
        None if the view has no elements.
    bool
        Whether the values depend on the key.

    Raises
    ------
    TypeError, ValueError
        If the type cannot hold the values, elements of the view overlap, or a weight that is made
        whole is asked for by rows.
    ImportError
        For a GPU's memory, if the packages that compile for GPUs are missing.
    """
    if isinstance(plan, Sampled):
        spec = Spec(*plan.distribution.transform(dtype), plan.zeros)
    elif isinstance(plan, ByIndex):
        _check_values(plan, dtype)
    elif isinstance(plan, Whole):
        dtype.refuse_beyond("gain", plan.gain)
    elif isinstance(plan, Joined):
        for part in plan.parts:  # also those that the view has nothing of
            prepared(part.plan, part.shape, dtype, NOTHING)
    else:
        raise TypeError(f"plan: {show(plan)} was returned; a Sampled, ByIndex or Whole is accepted")
    if 0 in view.shape:
        return None, False
    refuse_overlap(view.shape, view.strides, dtype.itemsize)
    if isinstance(plan, Sampled):
        engine = cuda if on_gpu else cpu
        return engine.Fill(view, dtype, spec), spec.transform.draws
    if isinstance(plan, Joined) and on_gpu and not view.by_rows:  # a launch a row would take long
        prepare = functools.partial(prepared, on_gpu=True)
        return joined.fill_of(plan, whole, dtype, view, prepare), draws(plan, dtype)
    if isinstance(plan, ByIndex) and on_gpu:
        lined = by_index.lined_fill(plan, whole, dtype, view, cuda.Fill)
        if lined is not None:
            return lined, False
    host = view
    if on_gpu:  # values are made without the gaps of a view, which may be larger by far
        host = view._replace(strides=cuda.without_gaps(view.shape, view.strides, dtype.itemsize))
    if isinstance(plan, ByIndex):
        fill: Filler = by_index.fill_of(plan, whole, dtype, host)
    elif isinstance(plan, Joined):
        fill = joined.fill_of(plan, whole, dtype, host, prepared)
    else:
        fill = by_index.undisturbed(_whole_fill(plan, whole, dtype, host))
    if on_gpu:
        fill = cuda.Copied(fill, view.shape, view.strides, dtype.itemsize)
    return fill, draws(plan, dtype)


def draws(plan: Plan, dtype: DType) -> bool:
    """Whether a plan's values depend on the key."""
    if isinstance(plan, Joined):
        return any(draws(part.plan, dtype) for part in plan.parts)
    if isinstance(plan, Sampled):
        return plan.distribution.transform(dtype)[0].draws
    return isinstance(plan, Whole)


def _check_values(plan: ByIndex, dtype: DType) -> None:
    """Refuse a type that cannot hold a plan's values."""
    if plan.complex and not dtype.complex:
        raise TypeError(f"dtype: {plan.name} has complex values; {dtype.name} holds real ones")
    if plan.largest > dtype.max:
        raise RangeError(
            f"dtype: {plan.name} has values up to {plan.largest:.6g}; {dtype.name} holds numbers up "
            f"to {dtype.max:.6g}"
        )


def _whole_fill(plan: Whole, whole: tuple[int, ...], dtype: DType, view: View) -> Filler:
    """A function that fills a weight, or a window or a run of one, that is made whole."""
    if view.by_rows:
        raise ValueError(
            f"{plan.name} makes a weight of shape {whole} as a whole: every element depends on all "
            "others of its matrix, so rows cannot be made alone; make the whole and take its rows"
        )
    work = dtype.name if dtype.complex else dtype.real
    if plan.compile is not None:
        plan.compile(work)

    def values(seed: int, stream: int, place: np.ndarray | None = None) -> np.ndarray:
        made = plan.make(work, seed, stream, place, plan.gain)
        if np.shape(made) != whole:
            raise ValueError(
                f"{plan.name}: make returned an array of shape {np.shape(made)} for a weight of "
                f"shape {whole}"
            )
        return made

    if math.prod(view.shape) < math.prod(whole):
        return by_index.cut_of(values, whole, dtype, view)

    kind = np.dtype(work)

    def fill(address: int, first: int, rows: int, seed: int, stream: int) -> None:
        target = by_index.view(address, view.shape, view.strides, dtype).reshape(whole)
        place = target if target.dtype == kind and target.flags.c_contiguous else None
        made = values(seed, stream, place)
        if place is not None and made is place:
            return
        for block in by_index.blocks(whole):  # in parts: rounding needs several times their memory
            target[block] = by_index.stored(made[block], dtype)

    return fill


def matrix(plan: Whole, dtype: DType, seed: int, stream: int) -> np.ndarray:
    """All values of a weight that is made whole, before they are rounded to a narrower type."""
    work = dtype.name if dtype.complex else dtype.real
    make = default_mode()(plan.make)
    with np.errstate(all="ignore"):
        return make(work, seed, stream, None, plan.gain)
