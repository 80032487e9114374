"""What fstab(5) and crypttab(5) call the volumes of a disk. Pure functions over text.

A *name* is a specification in one spelling: `UUID=...`, `LABEL=...`, `PARTUUID=...`, `PARTLABEL=...`,
`/dev/mapper/...`, `MD=...` (an array's name or number), `MDUUID=...`, `PART=...` (a partition's number), `PARTTYPE=...`
(its type, where it is mounted for that), and for what stands in the clear inside an encrypted volume, `INSIDE:` and a
name of that. Everything is matched against the volumes of one disk, never against what this machine has.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from etsclone.model.disk import Content, Disk, Partition

INSIDE = "INSIDE:"
TYPE = "TYPE="
AUTO = "PARTTYPE="
"""Before a partition's type: whatever is made of it, and where the partition may be mounted for it."""

ROOTS = (
    "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",  # x86-64
    "B921B045-1DF0-41C3-AF44-4C6F280D3FAE",  # arm64
)
USRS = (
    "8484680C-9521-48C6-9C11-B0720656F69E",  # x86-64
    "B0E01050-EE5F-4390-949A-9101B17104E9",  # arm64
)
"""Types of partitions that hold a root, and a /usr. Source: the Discoverable Partitions Specification (uapi-group.org).

Of these not the first is taken, but that with the highest version in its name. That is not judged here: all are."""

_GIVEN = re.compile(r"1[01]\d|12[0-7]", re.ASCII)

_BY = {"uuid": "UUID", "label": "LABEL", "partuuid": "PARTUUID", "partlabel": "PARTLABEL"}
_FOLDED = frozenset({"UUID", "PARTUUID", "MDUUID"})
"""Tags whose values are the same in upper and lower case."""

_BY_ID = re.compile(r"/dev/disk/by-(?:id|path|diskseq)/(.+)")
_NUMBERED = re.compile(
    r"(/dev/(?:(?:sd|vd|xvd|hd)[a-z]+|(?:nvme\d{1,4}n|mmcblk|loop)\d{1,4}(?=p)|disk/by-(?:id|path)/.+(?=-part)))"
    r"(?:p|-part)?(\d{1,4})",
    re.ASCII,
)
_VOLUME = re.compile(r"/dev/([^/]+)/([^/]+)")
_NO_GROUPS = frozenset({"disk", "md", "mapper", "block", "shm", "pts"})


@dataclass(frozen=True, slots=True)
class Volume:
    """A device of a disk that holds something: a partition, or what was opened inside of one.

    `names` are what a specification may call it, `where` is what people call it. `read_only` is how it is mounted where
    it is for its type.
    """

    device: str
    content: Content
    names: frozenset[str]
    where: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Words:
    """What a system's own files add to the names.

    `aliases` lead from one name to another. `stems` are what the disk is called (`/dev/sda`), as far as that is proved:
    see `stems`. `array` is the name of the one array of md that the files name, empty where they name none or several.
    """

    aliases: Mapping[str, str] = field(default_factory=dict)
    stems: frozenset[str] = frozenset()
    array: str = ""


def name_of(spec: str) -> str:
    """The one spelling of a specification."""
    spec = _path_of(spec)
    tag, equals, value = spec.partition("=")
    if equals and tag.isupper():
        return _tagged(tag, value.strip('"'))
    parts = spec.split("/")
    if len(parts) == 5 and parts[1:3] == ["dev", "disk"] and parts[3].removeprefix("by-") in _BY:
        return _tagged(_BY[parts[3].removeprefix("by-")], _unescaped(parts[4]))
    numbered = _NUMBERED.fullmatch(spec)
    if numbered:
        return f"PART={int(numbered[2])}"
    return _by_id(spec) or _array(spec) or _logical(spec) or spec


def stem_of(spec: str) -> str:
    """The disk that a specification by partition number names: `/dev/sda` of `/dev/sda1`; empty for others."""
    numbered = _NUMBERED.fullmatch(_path_of(spec))
    return numbered[1] if numbered else ""


def matching(spec: str, volumes: Sequence[Volume], words: Words) -> tuple[Volume, ...]:
    """The volumes that a specification names; of a disk in order it is one at most.

    A partition's number counts only on a disk that is known to be this one.
    """
    stem, name = stem_of(spec), name_of(spec)
    if stem and stem not in words.stems:
        return ()
    # Where mdadm.conf or crypttab say what is called so, nothing else is, whatever name it has of its own.
    wanted = words.aliases.get(name, name)
    return tuple(volume for volume in volumes if wanted in volume.names)


def only_array(spec: str, volumes: Sequence[Volume], words: Words) -> tuple[Volume, ...]:
    """The one array of a disk, where a specification by a number that says nothing can mean no other.

    Numbers are given anew at every start, from 127 down, to arrays whose names do not make one. So the number must be
    one of these, or the array without a name (its superblock is of version 0.90); the system's files must name no
    second array, and not say which one is called so.
    """
    name = name_of(spec)
    arrays = tuple(volume for volume in volumes if any(map(_is_array, volume.names)))
    if name != words.array or name in words.aliases or len(arrays) != 1:
        return ()
    unnamed = not any(each.startswith("MD=") for each in arrays[0].names)
    number = name.removeprefix("MD=")
    given = _GIVEN.fullmatch(number) or (unnamed and number.isdecimal())
    return arrays if given else ()


def is_firm(spec: str) -> bool:
    """Whether a specification by itself says which volume it means; a partition's number or type does not."""
    return not stem_of(spec) and not spec.startswith(AUTO)


def partition_names(partition: Partition, disk: Disk) -> Iterator[str]:
    """What a partition of a disk is called, whatever it holds."""
    if not partition.number:
        return
    yield f"PART={partition.number}"
    yield f"{TYPE}{partition.type.upper()}"
    if _goes_by_type(partition, disk):
        yield f"{AUTO}{partition.type.upper()}"
    if partition.uuid:
        yield _tagged("PARTUUID", partition.uuid)
    if partition.name:
        yield _tagged("PARTLABEL", partition.name)


def content_names(content: Content) -> Iterator[str]:
    """What something is called after what it holds."""
    if content.uuid:
        yield _tagged("UUID", content.uuid)
    if content.label:
        yield _tagged("LABEL", content.label)


def logical_names(group: str, volume: str) -> Iterator[str]:
    """What a logical volume is called. Source: lvm(8): in names of device-mapper a dash is doubled."""
    yield f"/dev/mapper/{_dashed(group)}-{_dashed(volume)}"


def array_names(uuid: str, name: str) -> Iterator[str]:
    """What an array of md is called: `uuid` and `name` are those of its superblock."""
    yield _tagged("MDUUID", uuid)
    if name:
        yield f"MD={name}"


def parse_mdadm_conf(text: str) -> dict[str, str]:
    """Which array is called what, as aliases: the lines `ARRAY /dev/md0 UUID=...` of mdadm.conf(5)."""
    aliases = {}
    for words in (line.split() for line in text.splitlines()):
        facts = dict(word.lower().partition("=")[::2] for word in words[2:])
        if len(words) > 2 and words[0].upper() == "ARRAY" and "uuid" in facts:
            aliases[name_of(words[1])] = _tagged("MDUUID", facts["uuid"])
    return aliases


def _goes_by_type(partition: Partition, disk: Disk) -> bool:
    """Source: the Discoverable Partitions Specification; systemd's dissect-image.c: of a type, the first one wins."""
    if not partition.automatic:
        return False
    earlier = (
        each
        for each in disk.partitions
        if each.type == partition.type and each.automatic and each.number < partition.number
    )
    return partition.type.upper() in (*ROOTS, *USRS) or not any(earlier)


def _path_of(spec: str) -> str:
    """A specification, and for `ID=...` the link that it stands for."""
    tag, _, value = spec.partition("=")
    return "/dev/disk/by-id/" + value.strip('"') if tag == "ID" else spec


def _tagged(tag: str, value: str) -> str:
    return f"{tag}={value.lower() if tag in _FOLDED else value}"


def _by_id(spec: str) -> str:
    match = _BY_ID.fullmatch(spec)
    kind, _, rest = match[1].partition("-name-") if match else ("", "", "")
    if kind == "dm" and rest:
        return f"/dev/mapper/{rest}"
    if kind == "md" and rest:
        return f"MD={rest.rpartition(':')[2]}"
    if match and match[1].startswith("md-uuid-"):
        return _tagged("MDUUID", match[1].removeprefix("md-uuid-"))
    return ""


def _array(spec: str) -> str:
    match = re.fullmatch(r"/dev/md(?:/(?:[^/]*:)?([^/]+)|_?d?(\d+))", spec)
    return f"MD={match[1] or match[2]}" if match else ""


def _is_array(name: str) -> bool:
    return name.startswith("MDUUID=")


def _logical(spec: str) -> str:
    match = _VOLUME.fullmatch(spec)
    if match is None or match[1] in _NO_GROUPS:
        return ""
    return next(logical_names(match[1], match[2]))


def _dashed(name: str) -> str:
    return name.replace("-", "--")


def _unescaped(name: str) -> str:
    """Source: udev(7): in names of links, bytes that are unsafe there are written as \\x20."""
    raw = re.sub(
        rb"\\x([0-9a-fA-F]{2})",
        lambda match: bytes([int(match[1], 16)]),
        name.encode("utf-8", "surrogateescape"),
    )
    return raw.decode("utf-8", "surrogateescape")
