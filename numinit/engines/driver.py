"""The one road from what is wanted of a weight to its memory."""

import math
from collections.abc import Callable

import numpy as np

from numinit.compiler.floats import default_mode
from numinit.engines import by_index, cpu, cuda
from numinit.engines.layout import View, refuse_overlap
from numinit.engines.spec import ByIndex, Plan, Sampled, Spec, Whole
from numinit.stream.dtypes import DType, RangeError

#: What fills memory: called with the address, the first element's global index, the address of the
#: global rows or 0, and the key's seed and stream, as `numinit.engines.cpu.Fill` is; for a GPU's
#: memory then with where it is, as `numinit.engines.cuda.Fill` is.
Filler = Callable[..., None]


def prepared(
    plan: Plan, whole: tuple[int, ...], dtype: DType, view: View, on_gpu: bool = False
) -> tuple[Filler | None, bool]:
    """What fills a view of a weight, None if it has no elements; and whether it draws.

    Parameters
    ----------
    plan : Sampled, ByIndex or Whole
        What is wanted.
    whole : tuple of int
        The shape of the whole weight.
    dtype : DType
        The element type.
    view : View
        The memory; its shape may have zeros.
    on_gpu : bool, optional
        Whether it is a GPU's.

    Raises
    ------
    TypeError, ValueError
        If the type cannot hold the values, or the view cannot be made alone.
    """
    empty = 0 in view.shape
    if isinstance(plan, Sampled):
        spec = Spec(*plan.distribution.transform(dtype), plan.zeros)
        if empty:
            return None, False
        refuse_overlap(view.shape, view.strides, dtype.itemsize)
        engine = cuda if on_gpu else cpu
        return engine.Fill(view, dtype, spec), spec.transform.draws
    if isinstance(plan, ByIndex):
        _check_values(plan, dtype)
    else:
        dtype.refuse_beyond("gain", plan.gain)
    if empty:
        return None, False
    refuse_overlap(view.shape, view.strides, dtype.itemsize)
    if isinstance(plan, ByIndex):
        fill: Filler = by_index.fill_of(plan, whole, dtype, view)
    else:
        fill = _whole_fill(plan, whole, dtype, view)
    fill = _undisturbed(fill)
    if on_gpu:
        fill = cuda.Copied(fill, view.shape, view.strides, dtype.itemsize)
    return fill, isinstance(plan, Whole)


def _undisturbed(fill: Filler) -> Filler:
    """A fill by NumPy that neither the caller's floating-point mode nor its error state changes.

    Which operations set which of the processor's flags depends on the instructions that NumPy chooses.
    """

    @default_mode()
    def undisturbed(*where: int) -> None:
        with np.errstate(all="ignore"):
            fill(*where)

    return undisturbed


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
    """What fills all of a weight that is made at once."""
    flat = view.shape == (math.prod(whole),)  # as in a file: all elements in C order
    if view.by_rows or not (view.shape == whole or flat):
        raise ValueError(
            f"{plan.name} makes a weight of shape {whole} as a whole: every element depends on all "
            "others of its matrix, so a block, a row or a shard cannot be made alone; make the whole "
            "and slice it"
        )
    work = dtype.name if dtype.complex else dtype.real
    if plan.compile is not None:
        plan.compile(work)

    def fill(address: int, first: int, rows: int, seed: int, stream: int) -> None:
        target = by_index.view(address, view.shape, view.strides, dtype).reshape(whole)
        place = target if target.dtype == work and target.flags.c_contiguous else None
        values = plan.make(work, seed, stream, place, plan.gain)
        if values is place:
            return
        for block in by_index.blocks(whole):  # what rounds needs some times its memory
            target[block] = by_index.stored(values[block], dtype)

    return fill


def matrix(plan: Whole, dtype: DType, seed: int, stream: int) -> np.ndarray:
    """All values of a whole weight, in the type that they are made in."""
    work = dtype.name if dtype.complex else dtype.real
    make = default_mode()(plan.make)
    with np.errstate(all="ignore"):
        return make(work, seed, stream, None, plan.gain)
