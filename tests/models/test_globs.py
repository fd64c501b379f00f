"""Many globs at once: as `fnmatch` matches each, in time that no name and no glob can stretch."""

import time
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numinit.models import globs as module
from numinit.models.globs import Globs

GLOBS = st.lists(st.text("ab.*?[]!-\\\n^", max_size=8), max_size=4)
NAMES = st.lists(st.text("ab.-]!\n^[\\é", max_size=7), max_size=5)


def expected(globs, name):
    return next((n for n, glob in enumerate(globs) if fnmatchcase(name, glob)), None)


@given(globs=GLOBS, names=NAMES)
def test_as_fnmatch(globs, names):
    matching = Globs(globs)
    for name in names:
        assert matching.first(name) == expected(globs, name), name


@pytest.mark.parametrize(
    ("glob", "name", "matches"),
    [
        ("[", "[", True), ("[]", "[]", True), ("[]]", "]", True), ("[!]]", "]", False),
        ("[!]", "[!]", True), ("[a-c]", "b", True), ("[c-a]", "b", False), ("[!c-a]", "b", True),
        ("[a-]", "-", True), ("[\\]", "\\", True), ("a*", "a\nb", True), ("", "", True),
        ("*", "", True), ("?", "", False), ("[A-Z]", "é", False), ("[!A-Z]", "é", True),
    ],
)  # fmt: skip
def test_sets_and_ends(glob, name, matches):
    assert fnmatchcase(name, glob) == matches
    assert (Globs([glob]).first(name) is not None) == matches


def test_a_table_that_is_full_changes_nothing(monkeypatch):
    monkeypatch.setattr(module, "KEPT", 3)
    globs = ["a*b*c", "*.bias", "h.[0-9].*"]
    matching = Globs(globs)
    for name in ["abc", "x.bias", "h.5.w", "h.x.w", "acb", "abcabc"] * 2:
        assert matching.first(name) == expected(globs, name)


def test_hostile_globs_take_linear_time():
    begin = time.process_time()
    for globs in (["*a" * 240 + "c"] * 17, ["*" + "[ab]" * 2000 + "c"], ["*a?" * 2700 + "c"]):
        for name in ("a" * 50_000, "ab" * 25_000):
            assert Globs(globs).first(name) is None
            assert Globs(globs).first(name + "aac") == 0
    assert time.process_time() - begin < 10
