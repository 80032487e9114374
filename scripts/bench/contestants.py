"""Who is measured, and with which command lines: data."""

from dataclasses import dataclass

LIMIT = "clone-limit"
LIMIT_VERIFIED = "clone-limit --verify"
ETSCLONE = "etsclone clone --verify=none"
ETSCLONE_VERIFIED = "etsclone clone"


@dataclass(frozen=True, slots=True)
class Contestant:
    """One row of the table.

    Attributes:
        name: what the table calls it.
        commands: run one after the other, without a shell. The names in braces are `Job.names`; what begins with
            `{fresh}` does not exist before.
        needs: an option that `etsclone clone --help` must know, or the contestant does not start.
        limit: the contestant that this one is measured against.
        left_out: how many bytes of used blocks it is known not to copy.
    """

    name: str
    commands: tuple[str, ...]
    needs: str = ""
    limit: str = LIMIT
    left_out: int = 0


# What a filesystem copier leaves out: boot code and partition table, the backup table, the swap partition.
_EDGES = (
    "dd if={source} of={target} bs=1M count=1 conv=fsync status=none",
    "dd if={source} of={target} bs=1M skip={last_mib} seek={last_mib} conv=fsync status=none",
    "partx --update {target}",
)
_SWAP = "dd if={source}p3 of={target}p3 bs=4M iflag=direct oflag=direct status=none"
_QEMU_DIRECT = "qemu-img convert -n -W -m 16 -t none -T none -f raw -O raw"

CONTESTANTS = (
    Contestant(LIMIT, ("{limit} {source} {target} {extents}",)),
    Contestant(
        LIMIT_VERIFIED,
        ("{limit} --verify {source} {target} {extents}",),
        limit=LIMIT_VERIFIED,
    ),
    Contestant("clone-limit --huge", ("{limit} --huge {source} {target} {extents}",)),
    Contestant(
        "clone-limit --huge --verify",
        ("{limit} --huge --verify {source} {target} {extents}",),
        limit=LIMIT_VERIFIED,
    ),
    Contestant(
        ETSCLONE,
        ("{etsclone} clone {source} {target} --yes --verify=none",),
        needs="--verify",
    ),
    Contestant(
        ETSCLONE_VERIFIED,
        ("{etsclone} clone {source} {target} --yes",),
        limit=LIMIT_VERIFIED,
    ),
    Contestant(
        "partclone -b per partition, dd for the rest",
        (
            *_EDGES,
            "partclone.vfat -b -s {source}p1 -o {target}p1 -L {log}",
            "partclone.ext4 -b -s {source}p2 -o {target}p2 -L {log}",
            _SWAP,
        ),
    ),
    Contestant(
        "the same, partclone without its waits (-f 0)",
        (
            *_EDGES,
            "partclone.vfat -f 0 -b -s {source}p1 -o {target}p1 -L {log}",
            "partclone.ext4 -f 0 -b -s {source}p2 -o {target}p2 -L {log}",
            _SWAP,
        ),
    ),
    Contestant(
        "e2image -ra -p, dd for the rest",
        (
            *_EDGES,
            "dd if={source}p1 of={target}p1 bs=4M iflag=direct oflag=direct status=none",
            "e2image -ra -p {source}p2 {target}p2",
            _SWAP,
        ),
        left_out=1 << 20,  # the backup superblocks
    ),
    Contestant(
        "dd bs=4M, direct",
        ("dd if={source} of={target} bs=4M iflag=direct oflag=direct status=none",),
    ),
    Contestant(
        "dd bs=4M, cached",
        ("dd if={source} of={target} bs=4M conv=fsync status=none",),
    ),
    Contestant(
        "qemu-img convert -n -W -m 16, cached",
        ("qemu-img convert -n -W -m 16 -f raw -O raw {source} {target}",),
    ),
    Contestant(
        "qemu-img convert -n -W -m 16, direct",
        (f"{_QEMU_DIRECT} {{source}} {{target}}",),
    ),
    Contestant(
        "the same, told that the target is zero",
        (f"{_QEMU_DIRECT} --target-is-zero {{source}} {{target}}",),
    ),
    Contestant("ddrescue, defaults", ("ddrescue -f {source} {target} {fresh}",)),
    Contestant("ddrescue, direct, 4 MiB", ("ddrescue -f -d -D -c 8192 {source} {target} {fresh}",)),
    Contestant(
        "ddrescue, direct, 4 MiB, domain map by partclone",
        (
            "partclone.vfat -f 0 -D -s {source}p1 -o {fresh}1 -L {log}",
            "partclone.ext4 -f 0 -D -s {source}p2 -o {fresh}2 -L {log}",
            "ddrescue -f -d -D -c 8192 -m {domain} {source} {target} {fresh}",
        ),
    ),
    Contestant(
        "bmaptool create + copy (from a file)",
        (
            "bmaptool create -o {fresh} {source_file}",
            "bmaptool copy --bmap {fresh} {source_file} {target}",
        ),
    ),
    Contestant(
        "bmaptool copy --no-verify (from a file, map made before)",
        ("bmaptool copy --no-verify --bmap {bmap} {source_file} {target}",),
    ),
)
"""Each starts from a target that is wholly allocated and zero, and from cold page caches; each ends when its last
command has ended and the target is flushed."""

REFRESH = "{etsclone} clone --refresh {source} {target} --yes"
READ_ONCE = "{limit} --read {source} {extents}"

PLAN = "{etsclone} clone --dry-run {source} {fresh}"
DOMAIN = "partclone.{reader} -D -s {partition} -o {fresh} -L {log}"
DOMAIN_QUICK = "partclone.{reader} -D -f 0 -s {partition} -o {fresh} -L {log}"

DIFF_TREES = "diff -rq of two trees of 100,000 files"
DIFF_INVENTORIES = "etsclone brd diff of their overlays"
DIFF_MANY = "etsclone brd diff, 1,000,000 files each"
DIFF_RQ = "sh -c 'diff -rq {left} {right} || test $? = 1'"
BRD_DIFF = "{etsclone} brd diff {left} {right} --trust {signers}"

PACKAGES = {
    "cc": "gcc",
    "dd": "coreutils",
    "diff": "diffutils",
    "partclone.ext4": "partclone",
    "e2image": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.vfat": "dosfstools",
    "mcopy": "mtools",
    "qemu-img": "qemu-utils",
    "ddrescue": "gddrescue",
    "bmaptool": "bmap-tools",
    "partx": "util-linux",
    "sfdisk": "fdisk",
    "losetup": "mount",
    "time": "time",
}
"""The programs that the bench runs, and the Debian packages that bring them."""
