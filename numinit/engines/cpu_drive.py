"""The CPU driver: cuts a strided view into runs, which a kernel fills.

A view is a set of *rows*: `inner` elements at consecutive global indices, `inner_stride` bytes
apart. The outer dimensions say where each row starts, in memory and in the global order. Rows are
cut into *segments*. A *unit* is one segment of one row. In a transposed view, the last outer
dimension is the one with neighbours in memory. There a unit is a *tile*: the same segment of `tile`
rows, so that whole cache lines are written. The values of a unit depend on global indices alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from numinit.compiler.intrinsics import (
    address_of,
    default_mode,
    fence,
    fetch_add,
    pointer_to,
    primitive,
    record,
    restore_mode,
    scratch,
)
from numinit.engines.layout import TILE, TILE_SEGMENT


class Work(NamedTuple):
    """What calls of a fill share, in memory as int64."""

    run: int
    """Address of the kernel; see `numinit.engines.cpu_kernel.run_function`."""
    chunks: int
    """Number of chunks in all."""
    grain: int
    """Units in a chunk."""
    units: int
    """Units in all."""
    inner: int
    """Elements in a row."""
    inner_stride: int
    """Their distance in bytes."""
    segment: int
    """Elements of a row in a unit."""
    tile: int
    """Rows in a unit."""
    dims: int
    """Number of outer dimensions."""
    outer: int
    """Address of int64 (dims, 3): size, stride in bytes, step in the global order."""
    parameters: int
    """Address of the transform's parameters, float64."""
    zeros: int
    """Address of the pattern's parameters, int64."""


load_work = record(Work, "int64")
int64_pointer = pointer_to("int64")


@primitive(
    lambda types, run, address, stride, count, index, seed, stream, parameters, zeros, streamed: (
        types.int64(*[types.int64] * 10)
    )
)
def call(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Call the kernel at an address."""
    from llvmlite import ir

    address, *arguments = args
    kind = ir.FunctionType(address.type, [argument.type for argument in arguments])
    return builder.call(builder.inttoptr(address, kind.as_pointer()), arguments)


def drive_function(part: int, parts: int) -> Callable[..., int]:
    """The driver for elements of so many parts, of so many bytes each, for Numba to compile.

    Its arguments are int64:

    work : IN address of a `Work`
    counter : IN OUT address of one int64, the next chunk, which all threads share; 0 for one thread
    limit : return after this many chunks even if there are more
    address : OUT address of the first element
    first : global index of the first element
    ids : IN address of the global rows, int64 (rows,), or 0 where they follow from `outer`
    seed, stream : the key, in two's complement
    streamed : whether rows, which are contiguous then, are stored past the caches

    It returns 1 if chunks may be left, else 0.
    """
    itemsize = part * parts
    part_pointer = pointer_to(f"uint{8 * part}")
    tile_scratch = scratch(f"uint{8 * part}", TILE * TILE_SEGMENT * parts)

    def drive(work, counter, limit, address, first, ids, seed, stream, streamed):
        mode = default_mode()  # before the kernel loads its parameters
        w = load_work(work)
        tiles = tile_scratch()
        triples, rows_of = int64_pointer(w.outer), int64_pointer(ids)
        segments = (w.inner + w.segment - 1) // w.segment
        rows, row_stride, row_step = 1, 0, 0
        if w.dims:
            last = 3 * (w.dims - 1)
            rows, row_stride, row_step = triples[last], triples[last + 1], triples[last + 2]
        groups = (rows + w.tile - 1) // w.tile
        left = 1
        for turn in range(limit):
            chunk = fetch_add(counter, 1) if counter else turn
            if chunk >= w.chunks:
                left = 0
                break
            stop = (chunk + 1) * w.grain
            if stop > w.units:
                stop = w.units
            for unit in range(chunk * w.grain, stop):
                rest = unit // segments
                column = (unit - rest * segments) * w.segment
                count = w.segment if w.segment < w.inner - column else w.inner - column
                row = (rest % groups) * w.tile
                rest //= groups
                place = address + column * w.inner_stride + row * row_stride
                index = first + column + row * row_step
                for d in range(3 * (w.dims - 2), -1, -3):
                    position = rest % triples[d]
                    rest //= triples[d]
                    place += position * triples[d + 1]
                    index += position * triples[d + 2]
                if ids:
                    index += rows_of[row] * w.inner
                height = w.tile if w.tile < rows - row else rows - row
                # A tile is made row by row, and then copied column by column.
                for t in range(height):
                    where, stride = place, w.inner_stride
                    if w.tile > 1:
                        where, stride = address_of(tiles) + t * w.segment * itemsize, itemsize
                    call(
                        w.run, where, stride, count, index + t * row_step, seed, stream,
                        w.parameters, w.zeros, streamed,
                    )  # fmt: skip
                if w.tile > 1:
                    for j in range(count):
                        for t in range(height):
                            there = part_pointer(place + j * w.inner_stride + t * row_stride)
                            for i in range(parts):
                                there[i] = tiles[(t * w.segment + j) * parts + i]
        if streamed:
            fence()
        restore_mode(mode)
        return left

    return drive
