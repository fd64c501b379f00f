"""What several tests share."""

from typing import Any

from numinit.stream.dtypes import as_dtype


def law_of(initializer: Any, shape: Any, dtype: Any = "float32") -> Any:
    """The distribution that an initializer gives a sampled weight."""
    return initializer.plan(tuple(shape), as_dtype(dtype)).distribution
