"""Make an inventory say of the scope what the payload holds.

Both are read from a running system, one after the other. Where something changed in between, the payload is what a
rebuild will write, and so the inventory says that: two statements about one path in one overlay must not differ.
"""

from collections.abc import Mapping

from etsclone.model.tree import Entry, Kind, Tree, name_of, parent_of
from etsclone.overlay.inventory import line_of, package_word, tags_of
from etsclone.overlay.remembered import NEVER, Record


class Agreement:
    """What a payload holds, by which the records of a listing are corrected; `owners` are the packages of paths."""

    def __init__(self, payload: Tree, owners: Mapping[bytes, str]) -> None:
        self._owners = owners
        self._held: dict[bytes, dict[bytes, Entry]] = {}
        for path, entry in payload.items():
            self._held.setdefault(parent_of(path), {})[name_of(path)] = entry

    def agreed(self, folder: bytes, packed: bytes) -> bytes:
        """The packed record of a folder with the lines of what the payload holds of it; the same one if all agree.

        Lines that had to be corrected are not to be remembered. A folder that was listed with what is in it stays one.
        """
        held = self._held.get(folder)
        if held is None:
            return packed
        record = Record.unpacked(packed)
        known, entered = record.lines(), set(record.folders)
        differing = {
            name: (NEVER, line)
            for name, entry in held.items()
            if entry.kind is Kind.FOLDER or name not in entered
            if (line := self._line(entry, known.get(name))) != known.get(name, (NEVER, b""))[1]
        }
        if not differing:
            return packed
        merged = dict(sorted({**known, **differing}.items()))
        lines = {name: line for name, (_, line) in merged.items()}
        marks = [mark for mark, _ in merged.values()]
        return Record.of(folder, lines, marks, record.folders).packed()

    def _line(self, entry: Entry, known: tuple[bytes, bytes] | None) -> bytes:
        package = tags_of(known[1]) if known else package_word(self._owners.get(entry.path, ""))
        return line_of(entry, package)
