"""Quarantine as bytes: a disk's head without what makes it a disk, and that head whole again.

The first two sectors (boot code and MBR, primary GPT header) are kept in a record that lies where the head holds
nothing but zeros. `docs/quarantine.md` is the format.
"""

import base64
import hashlib
import json
import re
import uuid
from dataclasses import asdict, fields

from etsclone.errors import FormatError, QuarantineRefused
from etsclone.model.extents import Extent, Extents
from etsclone.model.quarantine import MARK, Quarantine, Quarantined
from etsclone.model.write import Write
from etsclone.plan.gpt import protective, relocate
from etsclone.units import KIB, MIB, SECTOR, align_up

WITHHELD = 2
"""So many sectors are missing."""

_RECORD = b"etsclone quarantine record 1\n"
_BLOCK = 4 * KIB
_DIGEST_LINE = 65
_MEMBERS = {each.name for each in fields(Quarantine)}
_LONGEST = 80
_LARGEST_DISK = 2**63 - 1
_LARGEST_MARKS = 256 * 128 * KIB
"""A GPT as `clone` takes it has no more than 256 partitions, and each has one mark."""
_DISK_GUID, _DISK_SIGNATURE = slice(56, 72), slice(440, 444)
"""Where a GPT's header (UEFI specification, 5.3.2) and an MBR hold the identifier of the disk."""
_WORDS = (
    b"This disk is a clone in quarantine. `etsclone release DISK` makes it a disk like others.\n"
)


def marked(head: bytes, record: Quarantine) -> bytes:
    """A disk's head in quarantine.

    Args:
        head: as it is to be.
        record: what is said of it.

    Raises:
        QuarantineRefused: when the head has no room for the record.
    """
    text = _encode(record)
    place = _room(head, record.sector_size, align_up(len(text), _BLOCK))
    first = (MARK + _WORDS).ljust(WITHHELD * record.sector_size, b"\0")
    changed = first + head[len(first) :]
    return changed[:place] + text + changed[place + len(text) :]


def check_room(head: bytes, sector_size: int, partitions: int) -> None:
    """Make sure that a head has room for a record of so many partitions.

    Raises:
        QuarantineRefused: when it has not.
    """
    needed = 2 * KIB + WITHHELD * sector_size * 4 // 3 + 48 * partitions
    _room(head, sector_size, align_up(needed, _BLOCK))


def find_quarantine(head: bytes, size: int) -> Quarantined | None:
    """The record in the first bytes of a disk that is in quarantine, or is just being released; None for all others.

    Args:
        head: the first bytes.
        size: the disk's, which may be larger than it was.

    Raises:
        QuarantineRefused: when the disk has the mark, but no whole record.
        FormatError: when a record is whole, but says what none can.
    """
    for place in range(_BLOCK, len(head), _BLOCK):
        if head.startswith(_RECORD, place):
            found = _parse(head, place)
            if found is not None and _belongs(found, head, size):
                return found
    if head.startswith(MARK):
        raise QuarantineRefused(
            "the disk is in quarantine, but its record is damaged", hint="clone it again"
        )
    return None


def whole_head(head: bytes, found: Quarantined) -> bytes:
    """The head as it is to be.

    Raises:
        QuarantineRefused: when something else in it was changed.
    """
    record = found.record
    end = found.place + found.length
    whole = record.withheld + head[len(record.withheld) : found.place]
    whole = (whole + bytes(found.length) + head[end:])[: record.head_size]
    if hashlib.sha256(whole).hexdigest() != record.head_sha256:
        raise QuarantineRefused(
            "the first bytes of the disk were changed since it was put into quarantine",
            hint="clone it again",
        )
    return whole


def releasing(head: bytes, found: Quarantined, size: int) -> tuple[Write, ...]:
    """The writes that release a disk of `size` bytes, in this order; the first sector is what makes it one.

    Args:
        head: as it is to be (`whole_head`).
        found: what the disk says of itself.
        size: the disk's.

    Raises:
        FormatError: when it has no intact table.
        QuarantineRefused: when it became smaller.
    """
    record = found.record
    if size < record.size:
        raise QuarantineRefused(
            f"the disk has {size} bytes, and had {record.size} when it was put into quarantine",
            hint="copy the whole of it",
        )
    sector = record.sector_size
    tail: tuple[Write, ...] = ()
    if record.label == "gpt":
        head, backup = relocate(head, sector, size)
        tail = (backup,)
    return (
        *tail,
        Write(sector, head[sector : WITHHELD * sector], "second sector"),
        Write(0, head[:sector], "boot code and partition table"),
        Write(found.place, bytes(found.length), "place of the record"),
    )


def table_id(record: Quarantine) -> str:
    """The identifier of the table that a disk will have when it is released, as sfdisk prints it."""
    if record.label == "gpt":
        header = record.withheld[record.sector_size :]
        return str(uuid.UUID(bytes_le=header[_DISK_GUID])).upper()
    return f"0x{int.from_bytes(record.withheld[_DISK_SIGNATURE], 'little'):08x}"


def _belongs(found: Quarantined, head: bytes, size: int) -> bool:
    """Whether a record is that of the disk that it lies on, rather than left there by an earlier one."""
    sector_size = found.record.sector_size
    first, released = head[:sector_size], found.record.withheld[:sector_size]
    # On a larger disk than it was, release makes the protective MBR span all of it.
    whole = first in {released, protective(released, size // sector_size - 1)}
    return found.place + found.length <= found.record.head_size and (
        whole or first.startswith(MARK)
    )


def _room(head: bytes, sector_size: int, size: int) -> int:
    """Where so many bytes of a head are zeros: as far from the boot loader as can be."""
    first = align_up(WITHHELD * sector_size, _BLOCK)
    for place in range((len(head) - size) // _BLOCK * _BLOCK, first - 1, -_BLOCK):
        if not any(head[place : place + size]):
            return place
    raise QuarantineRefused(
        f"before the first partition there are no {size} unused bytes to keep the partition table in",
        hint="clone without --quarantine",
    )


def _encode(record: Quarantine) -> bytes:
    facts = asdict(record) | {
        "withheld": base64.b64encode(record.withheld).decode(),
        "marks": [[extent.start, extent.end] for extent in record.marks],
    }
    text = _RECORD + json.dumps(facts).encode() + b"\n"
    return text + hashlib.sha256(text).hexdigest().encode() + b"\n"


def _parse(head: bytes, place: int) -> Quarantined | None:
    """The record that lies at a place; None when it is not whole."""
    end = head.find(b"\n", place + len(_RECORD)) + 1
    text, digest = head[place:end], head[end : end + _DIGEST_LINE]
    if not end or digest != hashlib.sha256(text).hexdigest().encode() + b"\n":
        return None
    try:
        record = _record(json.loads(text[len(_RECORD) :]))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the record of the quarantine cannot be understood: {error}") from error
    return Quarantined(record, place, end + _DIGEST_LINE - place)


def _record(facts: object) -> Quarantine:
    """A record, none of whose members is believed to be of its type or within its bounds.

    Raises:
        ValueError: when one is not.
    """
    if not isinstance(facts, dict) or set(facts) != _MEMBERS:
        raise ValueError("it has not exactly the members that it must have")
    sector_size = _number(facts["sector_size"], 0, _BLOCK)
    if sector_size not in {SECTOR, _BLOCK}:
        raise ValueError(f"sectors of {sector_size} bytes")
    size = _number(facts["size"], WITHHELD * sector_size, _LARGEST_DISK)
    withheld = base64.b64decode(_text(facts["withheld"], 2 * WITHHELD * _BLOCK), validate=True)
    if len(withheld) != WITHHELD * sector_size:
        raise ValueError(f"{len(withheld)} bytes are withheld")
    return Quarantine(
        size=size,
        sector_size=sector_size,
        label=_text(facts["label"], 16),
        head_size=_number(facts["head_size"], len(withheld), min(size, MIB)),
        head_sha256=_digest(facts["head_sha256"]),
        withheld=withheld,
        marks=_marks(facts["marks"], size),
        marks_sha256=_digest(facts["marks_sha256"]),
        created=_text(facts["created"], _LONGEST),
        source=_printable(facts["source"]),
    )


def _marks(value: object, size: int) -> Extents:
    if not isinstance(value, list):
        raise ValueError("its marks are no list")  # noqa: TRY004 - of a file, and not of a caller
    found = []
    for each in value:
        if not isinstance(each, list) or len(each) != 2:
            raise ValueError("a mark is no pair")
        found.append(Extent(_number(each[0], 0, size), _number(each[1], 0, size)))
    marks = Extents.of(found)
    # Small partitions touch: only of all marks together it is known how large they may be.
    if marks.size > _LARGEST_MARKS:
        raise ValueError(f"its marks have {marks.size} bytes")
    return marks


def _number(value: object, low: int, high: int) -> int:
    # Not isinstance: true and false are ints in Python.
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"no whole number from {low} to {high}")
    return value


def _text(value: object, longest: int) -> str:
    # What is in it is shown to people.
    if not isinstance(value, str) or len(value) > longest or not value.isprintable():
        raise ValueError(f"no printable text of at most {longest} characters")
    return value


def _printable(value: object) -> str:
    # What a disk says of its model may hold anything, and was kept as it is.
    if not isinstance(value, str):
        raise ValueError("no text")  # noqa: TRY004 - of a file, and not of a caller
    return "".join(each if each.isprintable() else "?" for each in value[:_LONGEST])


def _digest(value: object) -> str:
    text = _text(value, 64)
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError("no digest")
    return text
