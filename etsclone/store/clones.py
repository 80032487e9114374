"""What this machine remembers of each clone that it made or began: enough to resume it, and to refresh it later.

    STATE/clones/KEY/map        a GNU ddrescue mapfile: which bytes are done
    STATE/clones/KEY/digests    a digest for every piece of the disk
    STATE/clones/KEY/clone.json which disks these are, and whether the clone was finished

KEY is made from what stays true of the target across a reboot.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from etsclone.errors import EtscloneError, FormatError, UsageError
from etsclone.model.disk import DiskIdentity
from etsclone.store.files import replace_text
from etsclone.store.receipts import state_folder

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class CloneFacts:
    """Which disks a record is about.

    `fingerprint` (sha256, hex) changes when the source is written to; `finished` says that source and target were
    equal when the record was last written.
    """

    source: DiskIdentity
    target: DiskIdentity
    fingerprint: str
    finished: bool


@dataclass(frozen=True, slots=True)
class CloneRecord:
    """The files that remember one clone."""

    map_path: Path
    digests_path: Path
    facts_path: Path

    def make_folder(self) -> None:
        """Make the folder that the files are kept in, unless it is there.

        Raises:
            EtscloneError: when it cannot be made.
        """
        folder = self.map_path.absolute().parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise EtscloneError(
                f"cannot make {folder}: {error.strerror}",
                hint="set ETSCLONE_STATE to a folder that can be written, or give --map",
            ) from error

    def load(self) -> CloneFacts | None:
        """What the record says; None when there is none.

        Raises:
            FormatError: when it cannot be understood.
        """
        try:
            values = json.loads(self.facts_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise FormatError(
                f"{self.facts_path} is damaged", hint="remove it and clone anew"
            ) from error
        try:
            return _facts(values)
        except (KeyError, TypeError) as error:
            raise FormatError(
                f"{self.facts_path} is not of format {FORMAT_VERSION}",
                hint="remove it and clone anew",
            ) from error

    def save(self, facts: CloneFacts) -> None:
        """Replace what the record says, durably."""
        text = json.dumps({"format": FORMAT_VERSION, **asdict(facts)}, indent=2)
        replace_text(self.facts_path, text + "\n")

    def load_map(self) -> str | None:
        """The text of the mapfile; None when there is none."""
        try:
            return self.map_path.read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            return None

    def save_map(self, text: str) -> None:
        """Replace the mapfile, durably."""
        replace_text(self.map_path, text)


def record_of(target: DiskIdentity, map_path: Path | None = None) -> CloneRecord:
    """The record of the clone on `target`, or one whose mapfile is `map_path` and whose other files lie beside it.

    Raises:
        UsageError: when the folder of `map_path` does not exist.
    """
    if map_path is not None:
        if not map_path.absolute().parent.is_dir():
            raise UsageError(
                f"cannot make {map_path}: its folder does not exist",
                hint="name a file in a folder that there is",
            )
        return CloneRecord(map_path, Path(f"{map_path}.digests"), Path(f"{map_path}.json"))
    folder = state_folder() / "clones" / _key(target)
    return CloneRecord(folder / "map", folder / "digests", folder / "clone.json")


def _key(identity: DiskIdentity) -> str:
    return hashlib.sha256(repr(identity.lasting).encode()).hexdigest()[:16]


def _facts(values: dict[str, object]) -> CloneFacts:
    if values["format"] != FORMAT_VERSION:
        raise KeyError("format")
    return CloneFacts(
        source=_identity(values["source"]),
        target=_identity(values["target"]),
        fingerprint=str(values["fingerprint"]),
        finished=values["finished"] is True,
    )


def _identity(values: object) -> DiskIdentity:
    if not isinstance(values, dict):
        raise TypeError("an identity is an object")
    pairs = {name: tuple(values[name]) if values[name] else None for name in ("device", "file")}
    return DiskIdentity(**{**values, **pairs})
