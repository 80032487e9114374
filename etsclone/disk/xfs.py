"""xfs made anew: what `xfs_info` tells becomes arguments of mkfs.xfs. Pure functions over text."""

import re
from collections.abc import Iterator

from etsclone.errors import FormatError
from etsclone.model.fit import Recipe, TreeSize
from etsclone.units import MIB, SECTOR, align_up

KINDS = ("xfs",)

_SMALLEST = 300 * MIB
"""Source: mkfs.xfs(8), data section: smaller ones are not made any more."""

_META = ("crc", "finobt", "rmapbt", "reflink", "bigtime", "inobtcount")
_INODE = (("isize", "size"), ("attr", "attr"), ("projid32bit", "projid32bit"), ("sparse", "sparse"),
          ("imaxpct", "maxpct"), ("nrext64", "nrext64"))  # fmt: skip
_NAMING = (("naming.bsize", "size"), ("ftype", "ftype"))
_SECTION = re.compile(r"^(meta-data|data|naming|log|realtime)?\s*=(.*)$")
_VALUE = re.compile(r"([a-z0-9-]+)\s*=\s*([A-Za-z0-9]+)")
_REPEATED = frozenset({"bsize", "blocks", "sectsz", "sunit", "version"})


def parse(printed: str, kind: str, uuid: str, label: str, size: int) -> Recipe:
    """Read what `xfs_info` printed.

    Raises:
        FormatError: when it has a log or realtime part on another device, or names in an encoding of its own.
    """
    section, facts = "", {}
    for line in printed.splitlines():
        match = _SECTION.match(line)
        if match is None:
            continue
        section = match[1] or section
        if match[1] in {"log", "realtime"} and not match[2].startswith(("internal", "none")):
            raise FormatError("it has parts on another device")
        # `naming =version 2` has a space where others have none.
        for name, value in _VALUE.findall(match[2]):
            facts[f"{section}.{name}" if name in _REPEATED else name] = value
    if facts.get("ascii-ci", "0") != "0":
        raise FormatError("its names do not tell small letters from capitals")
    return Recipe(kind, uuid, label, size, tuple(sorted(facts.items())))


def lasting(recipe: Recipe) -> dict[str, str]:
    """The settings that are the same whatever the size."""
    names = (*_META, *(name for name, _ in (*_INODE, *_NAMING)), "data.bsize", "meta-data.sectsz")
    facts = {name: recipe[name] for name in names if name != "imaxpct"}
    return facts | {"UUID": recipe.uuid, "label": recipe.label}


def minimum(recipe: Recipe, tree: TreeSize) -> int:
    """The least size in bytes for a tree: a tenth more than it takes, inodes, a log, and room for its own trees."""
    own = tree.inodes * recipe.number("isize") * 11 // 10 + 80 * MIB
    # A thirtieth: what xfs sets aside for its trees (inodes, references, reverse map), and a log of a large one.
    return align_up(max(_SMALLEST, (tree.data * 11 // 10 + own) * 30 // 29), MIB)


def commands(recipe: Recipe, device: str, _size: int) -> Iterator[tuple[str, list[str]]]:
    """The programs, with arguments, that make the filesystem on a device."""
    meta = [f"{name}={recipe[name]}" for name in _META if recipe[name]]
    inode = [f"{option}={recipe[name]}" for name, option in _INODE if recipe[name]]
    naming = [f"{option}={recipe[name]}" for name, option in _NAMING if recipe[name]]
    block = recipe.number("data.bsize")
    stripe = [recipe.number(name) * block // SECTOR for name in ("data.sunit", "swidth")]
    data = f"sunit={stripe[0]},swidth={stripe[1]}" if all(stripe) else "noalign"
    arguments = ["-q", "-f", "-K", "-m", ",".join([*meta, f"uuid={recipe.uuid}"])]
    arguments += ["-i", ",".join(inode), "-b", f"size={block}"]
    arguments += ["-s", f"size={recipe['meta-data.sectsz']}", "-n", ",".join(naming), "-d", data]
    arguments += ["-L", recipe.label] if recipe.label else []
    yield "mkfs.xfs", [*arguments, device]
