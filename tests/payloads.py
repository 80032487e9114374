"""Payloads piece by piece: members as captures write them, and others that must be refused."""

import io
from dataclasses import replace

from etsclone.model.extents import Extent, Extents
from etsclone.model.tree import STAGING, Entry, Kind
from etsclone.overlay import pax
from etsclone.overlay.compression import compressed


def frame(content: bytes, level: int = 1) -> bytes:
    """As overlays have it: a checksum, and no size."""
    out = io.BytesIO()
    with compressed(out, level) as plain:
        plain.write(content)
    return out.getvalue()


def file(path: bytes, content: bytes = b"x", **changes: object) -> bytes:
    entry = Entry(path, Kind.FILE, 0o644, 0, 0, 0, size=len(content))
    entry = replace(entry, **changes)  # type: ignore[arg-type]
    return pax.header(entry, Extents.between(0, len(content))) + content + pax.padding(len(content))


def other(path: bytes, kind: Kind, **changes: object) -> bytes:
    mode = 0o644 if kind is Kind.FILE else 0o755
    return pax.header(Entry(path, kind, mode, 0, 0, 0, **changes), Extents())  # type: ignore[arg-type]


def packed(*members: bytes, end: bytes = pax.END) -> bytes:
    return frame(b"".join(members) + end)


ETC = other(b"/etc", Kind.FOLDER)
HOST = file(b"/etc/hostname")


def patched(member: bytes, old: bytes, new: bytes) -> bytes:
    """A member with other bytes in its last header, whose checksum is made to fit."""
    assert len(old) == len(new)
    start = member.index(b"ustar\x0000", pax.BLOCK) - 257
    block = member[start : start + pax.BLOCK].replace(old, new, 1)
    blank = block[:148] + b" " * 8 + block[156:]
    return (
        member[:start]
        + blank[:148]
        + b"%06o\0 " % sum(blank)
        + blank[156:]
        + member[start + pax.BLOCK :]
    )


def sparse(size: int, *extents: Extent) -> bytes:
    data = Extents(extents)
    member = pax.header(Entry(b"/etc/sparse", Kind.FILE, 0o644, 0, 0, 0, size=size), data)
    return member + bytes(data.size) + pax.padding(data.size)


def attributed(name: str) -> bytes:
    return other(b"/etc", Kind.FOLDER, xattrs=((name, b"1"),))


def device(major: int, minor: int) -> bytes:
    return other(b"/etc/disk", Kind.BLOCK_DEVICE, device=(major, minor))


HOSTILE = {
    ("parent folder", "is not plain"): [ETC, file(b"/etc/../shadow")],
    ("dot", "is not plain"): [ETC, file(b"/etc/./shadow")],
    ("absolute", "is not plain"): [ETC, file(b"//etc/shadow")],
    ("empty component", "is not plain"): [ETC, file(b"/etc//shadow")],
    ("trailing slash", "is not plain"): [other(b"/etc/", Kind.FOLDER)],
    ("the root", "is not plain"): [other(b"/", Kind.FOLDER)],
    ("outside of the scope", "outside of its scope"): [file(b"/usr")],
    ("left to the disk", "outside of its scope"): [ETC, file(b"/etc/fstab")],
    ("staging", "outside of its scope"): [ETC, other(b"/etc/" + STAGING, Kind.FOLDER)],
    ("twice", "twice or out of order"): [ETC, HOST, HOST],
    ("out of order", "twice or out of order"): [ETC, HOST, file(b"/etc/group")],
    ("folder after its content", "without its folder"): [HOST, ETC],
    ("folder missing", "without its folder"): [HOST],
    ("below a file", "without its folder"): [ETC, file(b"/etc/a"), file(b"/etc/a/b")],
    ("below a symbolic link", "without its folder"): [
        ETC,
        other(b"/etc/a", Kind.SYMLINK, target=b"/usr"),
        file(b"/etc/a/b"),
    ],
    ("below a symbolic link outside", "outside of its scope"): [
        other(b"/srv", Kind.SYMLINK, target=b"/usr"),
        file(b"/srv/x"),
    ],
    ("hard link to nothing", "no file before it"): [
        ETC,
        other(b"/etc/b", Kind.FILE, link_to=b"/etc/a"),
    ],
    ("hard link out of the scope", "no file before it"): [
        ETC,
        other(b"/etc/b", Kind.FILE, link_to=b"/root/secret"),
    ],
    ("hard link upwards", "is not plain"): [
        ETC,
        HOST,
        other(b"/etc/z", Kind.FILE, link_to=b"/etc/../etc/hostname"),
    ],
    ("hard link forwards", "no file before it"): [
        ETC,
        other(b"/etc/b", Kind.FILE, link_to=b"/etc/c"),
        file(b"/etc/c"),
    ],
    ("hard link to a folder", "no file before it"): [
        ETC,
        other(b"/etc/b", Kind.FILE, link_to=b"/etc"),
    ],
    ("hard link to a hard link", "no file before it"): [
        ETC,
        HOST,
        other(b"/etc/i", Kind.FILE, link_to=b"/etc/hostname"),
        other(b"/etc/j", Kind.FILE, link_to=b"/etc/i"),
    ],
    ("hard link with content", "content where none"): [
        ETC,
        HOST,
        patched(
            other(b"/etc/z", Kind.FILE, link_to=b"/etc/hostname"),
            b"0" * 11 + b"\0",
            b"0" * 10 + b"1\0",
        ),
    ],
    ("hard link of another mode", "not as its file"): [
        ETC,
        HOST,
        patched(other(b"/etc/z", Kind.FILE, link_to=b"/etc/hostname"), b"0000644", b"0000666"),
    ],
    ("hard link of another owner", "not as its file"): [
        ETC,
        HOST,
        other(b"/etc/z", Kind.FILE, link_to=b"/etc/hostname", uname="me"),
    ],
    ("time beyond the kernel's", "that no kernel takes"): [
        pax.header(Entry(b"/etc", Kind.FOLDER, 0, 0, 0, 2**63 * 10**9), Extents())
    ],
    ("symbolic link to nothing", "link to nothing"): [
        ETC,
        other(b"/etc/b", Kind.SYMLINK, target=b""),
    ],
    ("unknown type", "unknown type"): [patched(ETC, b"5" + b"\0" * 100, b"7" + b"\0" * 100)],
    ("checksum", "another form"): [ETC[:-512] + b"x" + ETC[-511:]],
    ("second prefix", "another form"): [patched(ETC, ETC[-167:], b"usr" + ETC[-164:])],
    ("other magic", "not a pax header"): [patched(ETC, b"ustar\x0000", b"ustar  \0")],
    ("mode bits", "not permission bits"): [
        other(b"/etc", Kind.FOLDER)[:-512] + patched(ETC, b"0000755", b"0100755")[-512:]
    ],
    ("no time", "no exact time"): [ETC[-512:]],
    ("unknown record", "unknown extended record"): [ETC.replace(b"mtime=", b"atime=")],
    ("NUL in a name", "NUL in path"): [
        ETC,
        file(b"/etc/" + b"a" * 200).replace(b"a" * 150, b"a" * 149 + b"\0"),
    ],
    ("sparse: holes too large", "holds too much"): [ETC, sparse(1 << 50)],
    ("sparse: behind its end", "does not fit"): [
        ETC,
        sparse(1024, Extent(0, 512), Extent(1024, 2048)),
    ],
    ("sparse: map cut", "map of a sparse file is damaged"): [
        ETC,
        sparse(1 << 20, Extent(0, 512)).replace(b"2\n0\n512\n", b"9\n0\n512\n"),
    ],
    ("sparse: bytes behind the map", "another form"): [
        ETC,
        sparse(1 << 20, Extent(0, 512)).replace(b"1048576\n0\n\0", b"1048576\n0\nx"),
    ],
    ("bytes behind a file", "hides bytes"): [ETC, HOST[:-1] + b"x"],
    ("attribute without a namespace", "no name of an attribute"): [attributed("name")],
    ("attribute of a namespace alone", "no name of an attribute"): [attributed("user.")],
    ("attribute without a name", "no name of an attribute"): [attributed("")],
    ("attribute with a NUL", "no name of an attribute"): [attributed("user.a\0b")],
    ("major number beyond the kernel's", "no device: 4096, 1"): [ETC, device(4096, 1)],
    ("minor number beyond the kernel's", "no device: 8, 1048576"): [ETC, device(8, 2**20)],
}


def with_records(member: bytes, old: bytes, new: bytes) -> bytes:
    """A member with other records, whose lengths stay: `old` and `new` have the same."""
    assert len(old) == len(new)
    assert old in member[pax.BLOCK : -pax.BLOCK]
    return member.replace(old, new, 1)


def with_more(member: bytes, text: bytes) -> bytes:
    """A member with one record more, `KEY=VALUE`, behind the others; of less than 100 bytes."""
    record = b"%d %s\n" % (len(text) + 4, text)
    size = int(member[124:135], 8)
    body = member[pax.BLOCK : pax.BLOCK + size] + record
    carrier = patched_block(member[: pax.BLOCK], slice(124, 136), b"%011o\0" % len(body))
    behind = member[pax.BLOCK + size + len(pax.padding(size)) :]
    return carrier + body + pax.padding(len(body)) + behind


def patched_block(block: bytes, where: slice, value: bytes) -> bytes:
    """A header block with another value in one field, and the checksum made to fit."""
    assert len(value) == where.stop - where.start
    blank = block[: where.start] + value + block[where.stop :]
    blank = blank[:148] + b" " * 8 + blank[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def patched_first(member: bytes, where: slice, value: bytes) -> bytes:
    return patched_block(member[: pax.BLOCK], where, value) + member[pax.BLOCK :]


def patched_last(member: bytes, where: slice, value: bytes) -> bytes:
    return member[: -pax.BLOCK] + patched_block(member[-pax.BLOCK :], where, value)


ATTRIBUTED = other(b"/etc", Kind.FOLDER, xattrs=(("user.a%", b"1"), ("user.b", b"2")))
LONG = other(b"/etc/" + b"n" * 120, Kind.FOLDER)
LARGE = pax.header(Entry(b"/etc", Kind.FOLDER, 0, 3_000_000, 0, 0, uname="u" * 40), Extents())
LAST_DEVICE = device(2**12 - 1, 2**20 - 1)
EARLY = pax.header(Entry(b"/etc", Kind.FOLDER, 0, 0, 0, -1), Extents())

OTHER_FORMS = {
    "time of the plain header": patched_last(ETC, slice(136, 148), b"00000000001\0"),
    "checksum's last byte": ETC[:-512] + ETC[-512:-357] + b"\0" + ETC[-356:],
    "bytes behind the name's NUL": patched_last(ETC, slice(0, 100), b"etc\0x".ljust(100, b"\0")),
    "bytes behind the target's NUL": patched_last(ETC, slice(157, 257), b"\0x".ljust(100, b"\0")),
    "bytes behind the owner's NUL": patched_last(ETC, slice(265, 297), b"\0x".ljust(32, b"\0")),
    "target of a folder": patched_last(ETC, slice(157, 257), b"usr".ljust(100, b"\0")),
    "device of a folder": patched_last(ETC, slice(329, 337), b"0000010\0"),
    "uid beside its record": patched_last(LARGE, slice(108, 116), b"0000001\0"),
    "name beside its record": patched_last(LARGE, slice(265, 297), b"v" * 31 + b"\0"),
    "path beside its record": patched_last(LONG, slice(0, 100), b"m" * 100),
    "number of fewer digits": patched_last(ETC, slice(108, 116), b"000000\0\0"),
    "name of the records' header": patched_first(ETC, slice(0, 100), b"x".ljust(100, b"\0")),
    "mode of the records' header": patched_first(ETC, slice(100, 108), b"0000600\0"),
    "owner of the records' header": patched_first(ETC, slice(108, 116), b"0000001\0"),
    "time of the records' header": patched_first(ETC, slice(136, 148), b"00000000001\0"),
    "target of the records' header": patched_first(ETC, slice(157, 257), b"x".ljust(100, b"\0")),
    "owner's name of the records' header": patched_first(ETC, slice(265, 297), b"x" * 31 + b"\0"),
    "device of the records' header": patched_first(ETC, slice(329, 337), b"0000001\0"),
    "bytes behind the records": ETC[:1000] + b"x" + ETC[1001:],
    "target in a record of a folder": with_more(ETC, b"linkpath=usr"),
    "path in a needless record": with_more(ETC, b"path=etc"),
    "uid in a needless record": with_more(ETC, b"uid=0000"),
    "size in a needless record": with_more(ETC, b"size=0000"),
    "flags of none": with_more(ETC, b"SCHILY.fflags="),
    "records in another order": with_records(
        ATTRIBUTED,
        b"28 SCHILY.xattr.user.a%25=1\n25 SCHILY.xattr.user.b=2\n",
        b"25 SCHILY.xattr.user.b=2\n28 SCHILY.xattr.user.a%25=1\n",
    ),
    "attribute escaped without need": with_more(ETC, b"SCHILY.xattr.user.a%3d=1"),
    "attribute escaped twice": with_more(
        with_more(ETC, b"SCHILY.xattr.user.a%=1"), b"SCHILY.xattr.user.a%25=2"
    ),
    "time of less than zero seconds": with_records(EARLY, b"-0.000000001", b"-0.000000000"),
    "time with zeros in front": with_records(EARLY, b"-0.000000001", b"00.000000001"),
}
