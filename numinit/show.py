"""Whatever a caller gave, as text for a message: bounded in length, and never an error itself."""

import reprlib


class _Repr(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        # Python spells no integer of more than some thousand digits.
        return f"<an integer of {x.bit_length()} bits>" if x.bit_length() > 256 else repr(x)


_repr = _Repr()
_repr.maxstring = _repr.maxother = 200
_repr.maxlist = 8
_repr.maxtuple = 16


def show(value: object) -> str:
    """A repr of bounded length, for messages."""
    return _repr.repr(value)
