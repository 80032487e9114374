"""ext2, ext3 and ext4 made anew: what `dumpe2fs -h` tells becomes arguments of mke2fs. Pure functions over text."""

import re
from collections.abc import Iterator

from etsclone.errors import FormatError
from etsclone.model.fit import Recipe, TreeSize
from etsclone.units import KIB, MIB, align_up

KINDS = ("ext2", "ext3", "ext4")

_FEATURES = frozenset(
    {
        *(
            "64bit",
            "dir_index",
            "dir_nlink",
            "ea_inode",
            "ext_attr",
            "extent",
            "extra_isize",
            "filetype",
        ),
        *(
            "flex_bg",
            "has_journal",
            "huge_file",
            "inline_data",
            "large_dir",
            "large_file",
            "metadata_csum",
        ),
        *(
            "metadata_csum_seed",
            "orphan_file",
            "project",
            "resize_inode",
            "sparse_super",
            "uninit_bg",
        ),
    }
)
"""What mke2fs can be told, and needs nothing else to be told (source: ext4(5))."""

_SETTINGS = (
    "Filesystem features", "Default mount options", "Mount options", "Errors behavior", "Inode count", "Free inodes",
    "Block count", "Reserved block count", "Block size", "Blocks per group", "Flex block group size", "Inode size",
    "Directory Hash Seed", "Maximum mount count", "Check interval", "Reserved blocks uid", "Reserved blocks gid",
)  # fmt: skip
_LASTING = (
    "Filesystem features", "Default mount options", "Mount options", "Errors behavior", "Block size",
    "Blocks per group", "Inode size", "Directory Hash Seed", "Maximum mount count", "Check interval",
    "Reserved blocks uid", "Reserved blocks gid",
)  # fmt: skip
_MOUNT_OPTIONS = re.compile(r"[\w=,.:/+-]{0,63}", re.ASCII)
"""Those in `s_mount_opts` (source: ext4(5)) that are one word to debugfs; it writes 63 bytes at most."""

_ERRORS = {"Continue": "continue", "Remount read-only": "remount-ro", "Panic": "panic"}


def parse(printed: str, kind: str, uuid: str, label: str, size: int) -> Recipe:
    """Read what `dumpe2fs -h` printed.

    Raises:
        FormatError: when the filesystem was not cleanly unmounted, or has a feature that is not made anew.
    """
    found = dict(line.split(":", 1) for line in printed.splitlines() if ":" in line)
    facts = {name: found[name].strip() for name in found}
    if facts.get("Filesystem state") != "clean":
        raise FormatError(
            "it was not cleanly unmounted, or has errors: mount it once, or run e2fsck"
        )
    unknown = set(facts["Filesystem features"].split()) - _FEATURES
    if unknown:
        raise FormatError(f"it has features that are not made anew: {', '.join(sorted(unknown))}")
    if not _MOUNT_OPTIONS.fullmatch(facts.get("Mount options", "")):
        raise FormatError("it has default mount options that are not made anew: see `dumpe2fs -h`")
    # Two words in one field: the user's number, and the name that it has here.
    for name in ("Reserved blocks uid", "Reserved blocks gid", "Check interval"):
        facts[name] = facts[name].split()[0]
    facts["Journal MiB"] = str(_size_of(facts.get("Total journal size", "0")) // MIB)
    names = (*_SETTINGS, "Journal MiB")
    settings = tuple((name, facts[name]) for name in names if name in facts)
    return Recipe(kind, uuid, label, size, settings)


def lasting(recipe: Recipe) -> dict[str, str]:
    """The settings that are the same whatever the size."""
    return {name: recipe[name] for name in _LASTING} | {"UUID": recipe.uuid, "label": recipe.label}


def minimum(recipe: Recipe, tree: TreeSize) -> int:
    """The least size in bytes for a tree: a tenth more than it takes, and all that the filesystem needs for itself."""
    size = MIB
    while (needed := _needed(recipe, tree, size)) > size:
        size = align_up(needed, MIB)
    return size


def commands(recipe: Recipe, device: str, size: int) -> Iterator[tuple[str, list[str]]]:
    """The programs, with arguments, that make the filesystem in `size` bytes of a device."""
    features = recipe["Filesystem features"].split()
    reserved = 100 * recipe.number("Reserved block count") / recipe.number("Block count")
    # Not lazy: the kernel would go on writing after the mount, while files are compared.
    extended = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
    if recipe["Directory Hash Seed"]:
        extended += f",hash_seed={recipe['Directory Hash Seed']}"
    arguments = [
        *("-q", "-F", "-t", recipe.kind, "-U", recipe.uuid, "-L", recipe.label),
        *("-b", recipe["Block size"], "-I", recipe["Inode size"], "-g", recipe["Blocks per group"]),
        *("-N", str(_inodes(recipe, size)), "-m", f"{reserved:.4f}", "-E", extended),
        *("-e", _ERRORS[recipe["Errors behavior"]], "-O", ",".join(["none", *features])),
    ]
    if "has_journal" in features:
        arguments += ["-J", f"size={_journal(recipe, size) // MIB}"]
    if recipe["Flex block group size"]:
        arguments += ["-G", recipe["Flex block group size"]]
    yield "mke2fs", [*arguments, device]
    wanted = recipe["Default mount options"].replace("(none)", "").split()
    cleared = [f"^{name}" for name in ("user_xattr", "acl") if name not in wanted]
    tuning = [
        "-c",
        recipe["Maximum mount count"],
        "-i",
        f"{int(recipe['Check interval']) // 86400}d",
    ]
    tuning += ["-u", recipe["Reserved blocks uid"], "-g", recipe["Reserved blocks gid"]]
    if options := ",".join([*cleared, *wanted]):
        tuning += ["-o", options]
    yield "tune2fs", [*tuning, device]
    if options := recipe["Mount options"]:
        # tune2fs takes one alone: it parts them at the commas.
        yield "debugfs", ["-w", "-R", f"set_super_value mount_opts {options}", device]


def _needed(recipe: Recipe, tree: TreeSize, size: int) -> int:
    inodes = max(_inodes(recipe, size), tree.inodes)
    own = inodes * recipe.number("Inode size") + _journal(recipe, size) + _groups(recipe, size)
    # What is left: rounding of inode tables to blocks, lost+found.
    return tree.data * 11 // 10 + own + size // 200 + 2 * MIB


def _inodes(recipe: Recipe, size: int) -> int:
    """As many to a byte as before, and a tenth more than are in use."""
    count = recipe.number("Inode count")
    used = count - recipe.number("Free inodes")
    return min(count, max(count * size // recipe.size, used * 11 // 10 + 64))


def _journal(recipe: Recipe, size: int) -> int:
    """Source: mke2fs(8): at least 1024 blocks. No more than a sixteenth is spent on it."""
    if "has_journal" not in recipe["Filesystem features"].split():
        return 0
    least = align_up(1024 * recipe.number("Block size"), MIB)
    return max(least, min(recipe.number("Journal MiB") * MIB, size // 16 // MIB * MIB))


def _groups(recipe: Recipe, size: int) -> int:
    """Bitmaps, superblocks, group descriptors and the blocks reserved for more of them, in bytes (source: ext4(5))."""
    block = recipe.number("Block size")
    groups = -(-size // (block * recipe.number("Blocks per group")))
    sparse = "sparse_super" in recipe["Filesystem features"].split()
    backups = 1 + sum(_keeps_backup(group) for group in range(1, groups)) if sparse else groups
    descriptors = -(-groups * 64 // block) + block // 4
    return (2 * groups + backups * (1 + descriptors)) * block


def _keeps_backup(group: int) -> bool:
    def is_power(base: int) -> bool:
        power = 1
        while power < group:
            power *= base
        return power == group

    return any(is_power(base) for base in (3, 5, 7))


def _size_of(text: str) -> int:
    units = {"k": KIB, "M": MIB}
    return int(text[:-1]) * units[text[-1]] if text[-1:] in units else int(text)
