"""How the contents of files in scope differ on the two sides of a comparison."""

from collections.abc import Iterator

from etsclone.commands.brd.sides import Side, secret_patterns
from etsclone.model.diff import Comparison, Meaning, TextDiff
from etsclone.model.tree import Kind
from etsclone.overlay.payload import Payload, read_payload
from etsclone.plan import textdiff
from etsclone.plan.secrets import secret_paths
from etsclone.plan.textdiff import text_diff


def texts_of(
    comparison: Comparison, left: Side, right: Side, *, show_secrets: bool
) -> Iterator[TextDiff]:
    """How the contents of files in scope differ."""
    paths = [
        each.path
        for each in comparison.differences[Meaning.SCOPE]
        if each.kind is Kind.FILE and (not each.what or {"content", "kind"} & set(each.what))
    ]
    if not (paths and left.payload and right.payload):
        return
    secrets = None if show_secrets else secret_paths(secret_patterns(left.profile, right.profile))
    with (
        read_payload(left.payload(), left.scope) as before,
        read_payload(right.payload(), right.scope) as after,
    ):
        for path in paths:
            sides = _content(before, path), _content(after, path)
            if any(sides):
                yield text_diff(*sides, (left.label, right.label), secrets)


def _content(payload: Payload, path: bytes) -> textdiff.Side | None:
    """A file as the payload holds it; without its content when there is too much of it to be shown."""
    entry = payload.tree.get(path)
    if entry is None or entry.kind is not Kind.FILE:
        return None
    if entry.size > textdiff.MOST:
        return textdiff.Side(entry, b"")
    content = bytearray(entry.size)
    for offset, piece in payload.pieces(entry.link_to or path):
        content[offset : offset + len(piece)] = piece
    return textdiff.Side(entry, bytes(content))
