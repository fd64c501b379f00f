"""Many globs at once, in time linear in a name's length, whatever the globs and the name.

The semantics are those of `fnmatch.fnmatchcase`. All globs are one automaton: a bit for each place
in each glob says whether what was read leads there (Baeza-Yates and Gonnet, "A new approach to text
searching", CACM 35, 1992). A step is a few operations on one integer, and is kept, since the names
of a model are alike: the next name finds most steps in a table.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from fnmatch import translate
from typing import Any

from numinit.show import show

KEPT = 4096  # steps, each with an integer of as many bits as the globs have characters

Node = dict[Any, Any]  # the next node by character, and what follows
STATE, FOUND, ENDS = (
    0,
    1,
    2,
)  # the bits, the first glob that they match or None, all that they match


class Globs:
    """The first of several globs that matches a name.

    Parameters
    ----------
    globs : iterable of str
        ``*`` matches any characters, ``?`` one, ``[seq]`` one of `seq`, ``[!seq]`` one that is not;
        letters match in their own case only.

    Examples
    --------
    >>> from numinit.models.globs import Globs
    >>> globs = Globs(["*.bias", "h.?.*"])
    >>> [globs.first(name) for name in ("h.0.bias", "h.0.weight", "wte")]
    [0, 1, None]
    """

    def __init__(self, globs: Iterable[str]) -> None:
        self._literal: dict[str, int] = {}  # the places that a character leads on from
        self._any = self._stay = self._start = self._ends = 0
        self._index: dict[int, int] = {}  # of a glob, by the number of its last bit
        self._end_of: list[int] = []  # the last bit of each glob
        self._matched_ends = 0
        self.steps = 0
        """How many steps were computed, the rest having been found in the table."""
        sets: dict[str, int] = {}
        place = 0
        for index, glob in enumerate(globs):
            self._start |= 1 << place
            for element in _elements(glob):
                bit = 1 << place
                if element == "*":
                    self._stay |= bit
                    continue
                if element == "?":
                    self._any |= bit
                elif len(element) > 1:
                    sets[element] = sets.get(element, 0) | bit
                else:
                    self._literal[element] = self._literal.get(element, 0) | bit
                place += 1
            self._ends |= 1 << place
            self._index[place] = index
            self._end_of.append(1 << place)
            place += 1
        # The same of those that a pattern matches. Between two characters that occur in the
        # patterns, all are matched alike.
        self._sets = [(re.compile(translate(text)), bits) for text, bits in sets.items()]
        points = {ord(char) for text in sets for char in text}
        self._limits = sorted(points | {point + 1 for point in points})
        self._between: dict[int, int] = {}
        self._forget()

    def first(self, name: str) -> int | None:
        """The index of the first glob that matches the whole of `name`, None if none does."""
        node = self._root
        for char in name:
            node = node.get(char) or self._step(node, char)
        self._matched_ends |= node[ENDS]
        found: int | None = node[FOUND]
        return found

    def matched(self, index: int) -> bool:
        """Whether a glob matches any of the names that were looked up, be it the first or not."""
        return bool(self._matched_ends & self._end_of[index])

    def _forget(self) -> None:
        self._kept = 0
        self._nodes: dict[int, Node] = {}
        self._root = self._node(self._start)

    def _node(self, state: int) -> Node:
        node = self._nodes.get(state)
        if node is None:
            ends = state & self._ends
            found = self._index[(ends & -ends).bit_length() - 1] if ends else None
            node = self._nodes[state] = {STATE: state, FOUND: found, ENDS: ends}
        return node

    def _step(self, node: Node, char: str) -> Node:
        """The node after another, from now on in the table."""
        if self._kept >= KEPT:
            self._forget()
        self._kept += 1
        self.steps += 1
        state = node[STATE]
        leads = self._any | self._literal.get(char, 0) | self._matched(char)
        after = self._node(state & self._stay | (state & leads) << 1)
        node[char] = after
        return after

    def _matched(self, char: str) -> int:
        """The places that a character leads on from because of a set."""
        limit = bisect_right(self._limits, ord(char))
        if limit not in self._between:
            self._between[limit] = sum(bits for pattern, bits in self._sets if pattern.match(char))
        return self._between[limit]


def captured(glob: str, name: str) -> list[str]:
    """What each wildcard of a glob stands for in a name that it matches.

    A ``*`` stands for as little as can be, from the left, so that this takes linear time for each
    part between two of them. The last one stands for all that is left.

    Parameters
    ----------
    glob, name : str

    Returns
    -------
    list of str

    Examples
    --------
    >>> from numinit.models.globs import captured
    >>> captured("h.*.lora_?.*.weight", "h.7.lora_A.q.weight")
    ['7', 'A', 'q']
    """
    runs: list[list[str]] = [[]]  # the elements between two stars
    for element in _elements(glob):
        if element == "*":
            runs.append([])
        else:
            runs[-1].append(element)
    patterns = [
        [re.compile(translate(e)) if len(e) > 1 or e == "?" else e for e in run] for run in runs
    ]
    found: list[str] = []
    at = 0
    for number, run in enumerate(patterns):
        last = number == len(patterns) - 1
        begin = len(name) - len(run) if last and number else at
        while not _fits(run, name, begin):
            begin += 1
            if begin > len(name):
                raise ValueError(f"the glob {show(glob)} does not match {show(name)}")
        if number:
            found.append(name[at:begin])
        found += [name[begin + n] for n, element in enumerate(run) if not isinstance(element, str)]
        at = begin + len(run)
    return found


def filled(pattern: str, parts: list[str]) -> str:
    """A pattern with the n-th ``*`` replaced by the n-th part.

    Parameters
    ----------
    pattern : str
    parts : list of str

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If there are too few parts.

    Examples
    --------
    >>> from numinit.models.globs import filled
    >>> filled("h.*.weight", ["7"])
    'h.7.weight'
    """
    texts = pattern.split("*")
    if len(texts) - 1 > len(parts):
        raise ValueError(
            f"{show(pattern)} has {len(texts) - 1} stars; the glob has {len(parts)} wildcards"
        )
    return "".join(a + b for a, b in zip(texts, [*parts[: len(texts) - 1], ""], strict=True))


def _fits(run: list[Any], name: str, begin: int) -> bool:
    """Whether elements other than stars match a name at a place."""
    if begin < 0 or begin + len(run) > len(name):
        return False
    return all(
        element == char if isinstance(element, str) else element.match(char)
        for element, char in zip(run, name[begin : begin + len(run)], strict=True)
    )


def _elements(glob: str) -> Iterator[str]:
    """What a glob consists of: ``*``, ``?``, sets and single characters."""
    at = 0
    while at < len(glob):
        end = at + 1
        if glob[at] == "[":
            # A "]" that comes first is one of the set; a "[" that nothing closes is itself.
            first = at + 2 if glob[at + 1 : at + 2] == "!" else at + 1
            close = glob.find("]", first + 1)
            if close < 0:
                yield "["
                at = end
                continue
            end = close + 1
        yield glob[at:end]
        at = end
