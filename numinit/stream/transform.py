"""The border between words and distributions: a transform, as initializers and engines see it."""

from collections.abc import Callable
from typing import NamedTuple

from numinit.compiler.inline import Inline


class Transform(NamedTuple):
    """How words become values of one distribution.

    Both forms take two words and an instance of `Parameters`, and return two values. These are
    elements 2j and 2j + 1 of a real array, or the two parts of one complex element.

    Examples
    --------
    >>> from numinit.stream.uniform import UNIFORM
    >>> UNIFORM.Parameters._fields
    ('width', 'low', 'least', 'most')
    """

    name: str
    """Part of the names of compiled kernels, unique: letters, digits and underscores."""
    Parameters: Callable[..., tuple[float, ...]]
    """A NamedTuple of float64. An initializer fills in the fields; the forms read them by name."""
    float32: Inline
    """Takes uint32 words and returns float32 values."""
    float64: Inline
    """Takes uint64 words and returns float64 values."""
    draws: bool = True
    """Whether the values depend on the words. If not, kernels make none."""
