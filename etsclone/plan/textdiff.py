"""How the content of a file in scope may be shown: as a unified diff, or not at all."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from etsclone.model.diff import Shown, TextDiff
from etsclone.model.tree import Entry, printable
from etsclone.plan.secrets import is_secret, masked, masked_from_above
from etsclone.units import KIB, counted

MOST = 256 * KIB
"""Bytes of a file that are compared line by line: the time for it grows with the square of its lines."""


@dataclass(frozen=True, slots=True)
class Side:
    """A file on one side and its content; `hidden` when a folder on its way keeps others out."""

    entry: Entry
    content: bytes
    hidden: bool = False


def text_diff(
    before: Side | None,
    after: Side | None,
    labels: tuple[str, str],
    secrets: re.Pattern[bytes] | None,
) -> TextDiff:
    """Compare the content of one file on two sides, None where there is none.

    Args:
        before: the file on the first side.
        after: the file on the second side; one of the two is there.
        labels: what the sides are called in front of the path.
        secrets: `secret_paths`; None to show secrets too.
    """
    sides = [side for side in (before, after) if side]
    path = sides[0].entry.path
    contents = [side.content for side in sides]
    if secrets and (
        any(side.hidden for side in sides)
        or is_secret((side.entry for side in sides), contents, secrets)
    ):
        return TextDiff(path, Shown.SECRET)
    if any(side.entry.size > MOST for side in sides):
        return TextDiff(path, Shown.LARGE, _digests(before, after))
    texts = [_lines(side.content if side else b"") for side in (before, after)]
    if texts[0] is None or texts[1] is None:
        return TextDiff(path, Shown.BINARY, _digests(before, after))
    lines = _unified(texts[0], texts[1], path, (before, after), labels)
    if secrets:
        known = masked_from_above(texts[0], texts[1])
        lines = (_masked(line, known) for line in lines)
    return TextDiff(path, Shown.TEXT, tuple(lines))


def _masked(line: str, known: Mapping[str, str]) -> str:
    # The line above, that tells of a value, may be in another hunk or in none: what counts is the text.
    text = line[1:].strip()
    return line[0] + line[1:].replace(text, known[text]) if text in known else masked(line)


def _unified(
    before: Sequence[str],
    after: Sequence[str],
    path: bytes,
    sides: tuple[Side | None, Side | None],
    labels: tuple[str, str],
) -> Iterator[str]:
    names = [
        f"{label}{printable(path)}" if side else "/dev/null"
        for label, side in zip(labels, sides, strict=True)
    ]
    lines = difflib.unified_diff(before, after, names[0], names[1], lineterm="")
    for number, line in enumerate(lines):
        yield line.removesuffix("\n")
        # The first two lines name the files; those of hunks have no end either.
        if number > 1 and not line.endswith(("\n", "@@")):
            yield "\\ No newline at end of file"


def _digests(before: Side | None, after: Side | None) -> tuple[str, ...]:
    return tuple(
        f"{sign} sha256 {side.entry.sha256}, {counted(side.entry.size, 'byte')}"
        for sign, side in (("-", before), ("+", after))
        if side
    )


def _lines(content: bytes) -> list[str] | None:
    """The lines with their ends; None when they are no text that a terminal could be given."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    lines = text.split("\n")
    if not all(line.replace("\t", "").rstrip("\r").isprintable() for line in lines):
        return None
    kept = [f"{line}\n" for line in lines[:-1]]
    return [*kept, lines[-1]] if lines[-1] else kept
