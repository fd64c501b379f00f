"""Low-rank adapters: their names and shapes, from those of a base model."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from numinit.models.sources import load_shapes
from numinit.models.untrusted import InputError, show
from numinit.weights.shapes import check_count

__all__ = ["lora_shapes"]


def lora_shapes(
    base: Mapping[str, Sequence[int]] | str | Path,
    rank: int = 8,
    targets: Sequence[str] = ("q_proj", "v_proj"),
    transposed: bool = False,
) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of a LoRA adapter, as PEFT saves it.

    The shipped recipe "lora" initializes them as PEFT does.

    Parameters
    ----------
    base : mapping of str to sequence of int, str or Path
        Every tensor's name and shape of the base model; or a shipped model or a file, as
        `numinit.init_params` takes it.
    rank : int, default 8
        PEFT's `r`.
    targets : sequence of str, default ("q_proj", "v_proj")
        PEFT's `target_modules`: the last parts of the names of linear and convolutional layers.
    transposed : bool, default False
        Whether linear weights have the shape (in, out), as those of GPT-2: PEFT's `fan_in_fan_out`.

    Returns
    -------
    dict of str to tuple of int
        As `numinit.init_params` and `numinit.models.write.write` take it.

    Raises
    ------
    InputError
        If a target matches no layer, or one whose weight has fewer than two axes.

    Examples
    --------
    >>> import numinit as ni
    >>> from numinit.models.adapters import lora_shapes
    >>> shapes = lora_shapes({"h.0.q_proj.weight": (64, 32)}, rank=4, targets=["q_proj"])
    >>> params = ni.init_params(shapes, "lora", seed=0)
    >>> params["base_model.model.h.0.q_proj.lora_A.weight"].shape
    (4, 32)
    """
    check_count("rank", rank)
    if isinstance(targets, str) or not all(isinstance(target, str) for target in targets):
        raise TypeError(f"targets: {show(targets)} was given; a sequence of strings is accepted")
    if isinstance(base, str | Path):
        base = {name: spec.shape for name, spec in load_shapes(base).items()}
    made: dict[str, tuple[int, ...]] = {}
    unused = set(targets)
    for name, shape in base.items():
        layer, _, kind = name.rpartition(".")
        fitting = [t for t in targets if layer == t or layer.endswith(f".{t}")]
        if kind != "weight" or not fitting:
            continue
        unused -= {*fitting}
        if len(shape) < 2:
            raise InputError(
                f"targets: {show(fitting[0])} matches the tensor {show(name)} of shape "
                f"{show(tuple(shape))}; weights of linear and convolutional layers are accepted"
            )
        first, second, *kernel = shape
        if transposed and not kernel:
            first, second = second, first
        prefix = f"base_model.model.{layer}"
        made[f"{prefix}.lora_A.weight"] = (rank, second, *kernel)
        made[f"{prefix}.lora_B.weight"] = (first, rank, *(1 for _ in kernel))
    if unused or not made:
        which = show(min(unused)) if unused else "no target"
        raise InputError(f"targets: {which} matches no layer of the base model")
    return made
