"""The syntax of LVM2's metadata: nested sections of keys and values, as text.

Source: lvm.conf(5), "SYNTAX", and the tokens of libdm/libdm-config.c: `key = value` and `key { ... }`; values are
integers, floats, strings in double quotes with backslashes, and arrays of these; `#` begins a comment, NUL ends all.
"""

import re

from etsclone.errors import FormatError

Scalar = int | float | str
Value = Scalar | list[Scalar]
Section = dict[str, "Value | Section"]

_DEEPEST = 16
"""Sections inside sections; what LVM writes has five at most."""

_TOKEN = re.compile(
    r"""
    (?P<space> \s+ | \#[^\n]* )
    | (?P<string> "(?:[^"\\]|\\.)*" )
    | (?P<mark> [{}\[\]=,] )
    | (?P<word> [^\s{}\[\]=,"\#]+ )
    """,
    re.VERBOSE | re.DOTALL,
)
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_FLOAT = re.compile(r"[+-]?[0-9]{1,19}\.[0-9]{0,19}")
_MARKS = frozenset("{}[]=,")


def parse_config(text: str) -> Section:
    """Read a whole configuration text.

    Raises:
        FormatError: for anything that is none.
    """
    return _Parser(_tokens(text.split("\0", 1)[0])).section("", 0)


def _tokens(text: str) -> list[str]:
    found: list[str] = []
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            raise FormatError(f"metadata with something unreadable at character {position}")
        if token.lastgroup != "space":
            found.append(token.group())
        position = token.end()
    return found


class _Parser:
    """Takes words one by one; the empty word stands for the end."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.position = 0

    def section(self, end: str, depth: int) -> Section:
        """What stands up to the word `end`."""
        if depth > _DEEPEST:
            raise FormatError("metadata with too many sections inside each other")
        entries: Section = {}
        while (word := self._next()) != end:
            key = _key(word)
            follows = self._next()
            if follows == "{":
                entries[key] = self.section("}", depth + 1)
            elif follows == "=":
                entries[key] = self._value()
            else:
                raise _misplaced(follows)
        return entries

    def _value(self) -> Value:
        word = self._next()
        return self._array() if word == "[" else _scalar(word)

    def _array(self) -> list[Scalar]:
        values: list[Scalar] = []
        while (word := self._next()) != "]":
            values.append(_scalar(word))
            if self._peek() == ",":
                self._next()
        return values

    def _peek(self) -> str:
        return self.words[self.position] if self.position < len(self.words) else ""

    def _next(self) -> str:
        word = self._peek()
        self.position += 1
        return word


def _key(word: str) -> str:
    if word == "" or word in _MARKS:
        raise _misplaced(word)
    return _unquoted(word)


def _scalar(word: str) -> Scalar:
    if word.startswith('"'):
        return _unquoted(word)
    if _INTEGER.fullmatch(word):
        return int(word)
    if _FLOAT.fullmatch(word):
        return float(word)
    raise _misplaced(word)


def _unquoted(word: str) -> str:
    return re.sub(r"\\(.)", r"\1", word[1:-1], flags=re.DOTALL) if word[0] == '"' else word


def _misplaced(word: str) -> FormatError:
    return FormatError(f"metadata with {word[:40]!r} in the wrong place")
