"""Models of transformers by their configuration, a file called config.json."""

from pathlib import Path
from typing import Any

import torch

from numinit.models.sources import config_of
from numinit.models.untrusted import InputError, parse_json
from numinit.show import cut, show

__all__ = ["model_of_config"]


def model_of_config(source: str | Path) -> torch.nn.Module:
    """Make the model that a configuration describes, on the current device.

    No code is run but that of transformers as it is installed.

    Parameters
    ----------
    source : str or Path
        The configuration's file.

    Raises
    ------
    InputError
        If it is none, or transformers does not have its model.
    ImportError
        If transformers is not installed.
    """
    path = config_of(source)
    if path is None:
        raise InputError(
            f"{source}: accepted: the config.json of a model of transformers, with a 'model_type'"
        )
    try:
        import transformers
    except ModuleNotFoundError:
        raise ImportError(f"{path} needs transformers: pip install transformers") from None
    table = parse_json(path.read_bytes(), str(path))
    table.pop("auto_map", None)  # code that comes with a checkpoint
    kind, named = table["model_type"], table.get("architectures") or [None]
    known = transformers.CONFIG_MAPPING
    if kind not in known:
        raise InputError(
            f"{path}: transformers {transformers.__version__} has no model_type {show(kind)}"
        )
    name = named[0] if isinstance(named, list) else named
    made: Any = transformers.AutoModel
    if name is not None:
        made = getattr(transformers, name, None) if isinstance(name, str) else None
        if not isinstance(made, type) or not issubclass(made, transformers.PreTrainedModel):
            raise InputError(
                f"{path}: transformers {transformers.__version__} has no model {show(name)}"
            )
    try:
        config = known[kind].from_dict(table)
        make = made.from_config if name is None else made._from_config
        module: torch.nn.Module = make(config)
    except Exception as error:  # whatever its fields make of them
        raise InputError(f"{path}: transformers refuses it: {cut(error)}") from error
    return module
