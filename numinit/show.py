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
_repr.maxlevel = 3

MOST = 600  # characters


def show(value: object) -> str:
    """A repr of bounded length, for messages."""
    return cut(_repr.repr(value))


def cut(text: object) -> str:
    """A text of bounded length, such as another error's message."""
    text = str(text)
    return text if len(text) <= MOST else f"{text[: MOST - 50]}...{text[-40:]}"
