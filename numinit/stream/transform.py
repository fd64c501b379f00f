"""What a transform is to the engines: the border between words and distributions."""

from collections.abc import Callable
from typing import NamedTuple

from numinit.compiler.inline import Inline


class Transform(NamedTuple):
    """How words become values of one distribution.

    Both forms take a pair of words and an instance of `Parameters`, and return a pair of values: those
    of two neighbouring elements (2j and 2j + 1), or the two parts of a complex one.

    Examples
    --------
    >>> from numinit.stream.uniform import UNIFORM
    >>> UNIFORM.Parameters._fields
    ('width', 'low', 'least', 'most')
    """

    name: str
    """Of the compiled kernels, for good: letters, digits and underscores."""
    Parameters: Callable[..., tuple[float, ...]]
    """A NamedTuple of float: an initializer fills in its names, the two forms read them."""
    float32: Inline
    """Of words in uint32; makes float32."""
    float64: Inline
    """Of words in uint64; makes float64."""
    draws: bool = True
    """Whether the values depend on the words."""
