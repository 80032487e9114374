"""What a clone with identifiers of its own was cloned from: a list in its system, by which a rebuild still knows it.

    /var/lib/etsclone/cloned-from

Each line is a kind, as blkid calls a filesystem or sfdisk a partition table, and an identifier. A clone of such a clone
has what its source had, and its source's own.
"""

import re

from etsclone.model.brd import CloneIdentity, Filesystem
from etsclone.model.disk import Disk

ORIGINS = "/var/lib/etsclone/cloned-from"

_LINE = re.compile(rb"([A-Za-z0-9_+.-]{1,32}) ([0-9A-Za-z-]{4,40})")
_MOST = 256
"""A header of an overlay has room for these, and more; the latest count."""


def clone_identity(disk: Disk) -> CloneIdentity:
    """What all clones of this disk have in common."""
    contents = [part.content for part in disk.partitions] or [disk.content]
    return CloneIdentity(
        table_uuid=disk.table.uuid if disk.table else "",
        filesystems=tuple(
            Filesystem(content.type, content.uuid) for content in contents if content.uuid
        ),
    )


def parse_origins(text: bytes) -> tuple[Filesystem, ...]:
    """The identifiers in a list, the latest last; what is none is passed over."""
    found = (_LINE.fullmatch(line) for line in text.splitlines())
    known = dict.fromkeys((match[1].decode(), match[2].decode()) for match in found if match)
    return tuple(Filesystem(*each) for each in known)[-_MOST:]


def with_origin(text: bytes, source: CloneIdentity, label: str) -> bytes:
    """A list with the identifiers of one disk more, whose partition table is of this kind (`label`)."""
    table = (Filesystem(label, source.table_uuid),) if source.table_uuid else ()
    own = {*table, *source.filesystems}
    earlier = (each for each in parse_origins(text) if each not in own)
    lines = [f"{each.type} {each.uuid}\n" for each in (*earlier, *table, *source.filesystems)]
    return "".join(lines[-_MOST:]).encode(errors="replace")
