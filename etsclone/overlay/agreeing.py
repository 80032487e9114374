"""Make an inventory say of the scope what the payload holds.

Both are read from a running system, one after the other. Where something changed in between, the payload is what a
rebuild will write, and so the inventory says that: two statements about one path in one overlay must not differ.
"""

from collections.abc import Mapping

from etsclone.model.tree import Entry, Kind, Tree, name_of, parent_of
from etsclone.overlay.inventory import line_of, package_word, tags_of
from etsclone.overlay.remembered import NEVER, Record

_UNKNOWN = (NEVER, b"")
_IS_FOLDER = b" type=dir "
"""A word of the lines of folders alone: names have no spaces there."""


class Agreement:
    """What a payload holds, by which the records of a listing are corrected; `owners` are the packages of paths."""

    def __init__(self, payload: Tree, owners: Mapping[bytes, str]) -> None:
        self._owners = owners
        self._held: dict[bytes, dict[bytes, Entry]] = {}
        for path, entry in payload.items():
            self._held.setdefault(parent_of(path), {})[name_of(path)] = entry

    def agreed(self, packed: bytes) -> bytes:
        """The packed record of a folder with the lines of what the payload holds of it; the same one if all agree.

        A folder's parts must come in their order. Lines that had to be corrected are not to be remembered. What was
        listed as a folder stays one: what is in it was listed too.
        """
        held = self._held.get(Record.path_of(packed))
        if not held:
            return packed
        record = Record.unpacked(packed)
        known = record.lines()
        differing = {
            name: (NEVER, line)
            for name, entry in _taken(held, record.until).items()
            if entry.kind is Kind.FOLDER or _IS_FOLDER not in known.get(name, _UNKNOWN)[1]
            if (line := self._line(entry, known.get(name))) != known.get(name, _UNKNOWN)[1]
        }
        if not differing:
            return packed
        merged = dict(sorted({**known, **differing}.items()))
        lines = {name: line for name, (_, line) in merged.items()}
        marks = [mark for mark, _ in merged.values()]
        return Record.of(record.path, lines, marks, record.folders, until=record.until).packed()

    def _line(self, entry: Entry, known: tuple[bytes, bytes] | None) -> bytes:
        package = tags_of(known[1]) if known else package_word(self._owners.get(entry.path, ""))
        return line_of(entry, package)


def _taken(held: dict[bytes, Entry], until: bytes) -> dict[bytes, Entry]:
    """What sorts before `until`, or is left when that is empty; it is held no longer."""
    names = [name for name in held if name < until] if until else list(held)
    return {name: held.pop(name) for name in names}
