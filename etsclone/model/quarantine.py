"""Clones in quarantine: whole and verified, but without the first sectors, by which a disk is known."""

from dataclasses import dataclass

from etsclone.model.extents import Extents

IN_QUARANTINE = "clone in quarantine"
"""What a disk with the mark of quarantine is said to contain."""

MARK = b"etsclone quarantine 1\n"
"""What such a disk begins with."""


@dataclass(frozen=True, slots=True)
class Quarantine:
    """What a disk in quarantine says of itself; `docs/quarantine.md` is the format.

    Sizes in bytes. `withheld` are its first two sectors as they are to be. `head_sha256` (hex) is over the first
    `head_size` bytes as they are to be, `marks_sha256` over the bytes `marks`, where filesystems begin: they show
    whether anything was written to since. `created` is a time (ISO 8601, UTC), `source` tells what it was cloned from.
    """

    size: int
    sector_size: int
    label: str
    head_size: int
    head_sha256: str
    withheld: bytes
    marks: Extents
    marks_sha256: str
    created: str
    source: str


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A disk's first bytes in quarantine: the record that was found in them, and where it is."""

    record: Quarantine
    place: int
    length: int
