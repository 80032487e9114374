"""How the contents of files in scope differ on the two sides of a comparison."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping

from etsclone.commands.brd.sides import Side
from etsclone.errors import FormatError, UsageError
from etsclone.model.diff import Comparison, Meaning, TextDiff
from etsclone.model.tree import Entry, Kind, ancestors
from etsclone.overlay.inventory import listed
from etsclone.overlay.payload import Payload
from etsclone.plan import textdiff
from etsclone.plan.secrets import is_hidden, secret_paths
from etsclone.plan.textdiff import text_diff
from etsclone.profiles import load_profile


def texts_of(
    comparison: Comparison,
    sides: tuple[Side, Side],
    payloads: tuple[Payload, Payload],
    *,
    show_secrets: bool,
) -> Iterator[TextDiff]:
    """How the contents of files in scope differ."""
    (left, right), (before, after) = sides, payloads
    paths = [
        each.path
        for each in comparison.differences[Meaning.SCOPE]
        if each.kind is Kind.FILE and (not each.what or {"content", "kind"} & set(each.what))
    ]
    if not paths:
        return
    secrets = None if show_secrets else secret_paths(_secret_patterns(left.profile, right.profile))
    folders = _folders(left, before, paths), _folders(right, after, paths)
    for path in paths:
        contents = _content(before, path, folders[0]), _content(after, path, folders[1])
        if any(contents):
            yield text_diff(*contents, (left.label, right.label), secrets)


def _secret_patterns(*profiles: str) -> tuple[str, ...]:
    """What these profiles name as secret; of one that this system does not have, nothing is known."""
    patterns: list[str] = []
    for name in dict.fromkeys(profiles):
        with contextlib.suppress(UsageError, FormatError):
            patterns += load_profile(name).secrets
    return tuple(patterns)


def _folders(side: Side, payload: Payload, paths: Iterable[bytes]) -> Mapping[bytes, Entry]:
    """The folders on the way to these paths: of those that are not in scope, only the inventory tells."""
    wanted = {folder for path in paths if path in payload.tree for folder in ancestors(path)}
    return listed(side.inventory(), wanted - payload.tree.keys()) | {
        folder: payload.tree[folder] for folder in wanted & payload.tree.keys()
    }


def _content(payload: Payload, path: bytes, folders: Mapping[bytes, Entry]) -> textdiff.Side | None:
    """A file as the payload holds it; without its content when there is too much of it to be shown."""
    entry = payload.tree.get(path)
    if entry is None or entry.kind is not Kind.FILE:
        return None
    hidden = is_hidden(folders[folder] for folder in ancestors(path) if folder in folders)
    if entry.size > textdiff.MOST:
        return textdiff.Side(entry, b"", hidden)
    content = bytearray(entry.size)
    for offset, piece in payload.pieces(entry.link_to or path):
        content[offset : offset + len(piece)] = piece
    return textdiff.Side(entry, bytes(content), hidden)
