"""What filesystems' tools tell becomes the arguments of those that make them. The texts are from the real tools."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.disk import ext, xfs
from etsclone.errors import FormatError
from etsclone.model.fit import Recipe, TreeSize
from etsclone.units import GIB, MIB

DUMPE2FS = """\
Filesystem volume name:   hello
Last mounted on:          /srv: odd
Filesystem UUID:          2b3c7b9a-e40c-406f-94a0-178c0443d727
Filesystem features:      has_journal ext_attr resize_inode dir_index filetype extent 64bit flex_bg sparse_super
Default mount options:    user_xattr
Filesystem state:         clean
Errors behavior:          Remount read-only
Inode count:              655360
Block count:              2621440
Reserved block count:     78643
Free blocks:              2554687
Free inodes:              655349
Block size:               4096
Blocks per group:         32768
Flex block group size:    16
Maximum mount count:      -1
Check interval:           15552000 (6 months)
Reserved blocks uid:      0 (user root)
Reserved blocks gid:      20 (group dialout)
Inode size:	          256
Directory Hash Seed:      255de24c-6d8e-48e0-be22-849929ddde2f
Total journal size:       64M
"""
XFS_INFO = """\
meta-data=/dev/loop7p2           isize=512    agcount=4, agsize=38400 blks
         =                       sectsz=4096  attr=2, projid32bit=1
         =                       crc=1        finobt=1, sparse=1, rmapbt=0
         =                       reflink=1    bigtime=1 inobtcount=1 nrext64=0
data     =                       bsize=4096   blocks=153600, imaxpct=25
         =                       sunit=16     swidth=64 blks
naming   =version 2              bsize=8192   ascii-ci=0, ftype=1
log      =internal log           bsize=4096   blocks=16384, version=2
         =                       sectsz=512   sunit=1 blks, lazy-count=1
realtime =none                   extsz=4096   blocks=0, rtextents=0
"""
UUID = "2b3c7b9a-e40c-406f-94a0-178c0443d727"


def ext_recipe(text: str = DUMPE2FS) -> Recipe:
    return ext.parse(text, "ext4", UUID, "hello", 10 * GIB)


def words_after(argv: list[str], option: str) -> str:
    return argv[argv.index(option) + 1]


def test_ext4_is_made_as_it_was() -> None:
    (make, argv), (tune, tuning) = ext.commands(ext_recipe(), "/dev/x", 5 * GIB)
    assert (make, tune) == ("mke2fs", "tune2fs")
    expected = {"-t": "ext4", "-U": UUID, "-L": "hello", "-b": "4096", "-I": "256", "-g": "32768", "-G": "16",
                "-e": "remount-ro", "-m": "3.0000", "-N": "327680", "-J": "size=64"}  # fmt: skip
    assert {option: words_after(argv, option) for option in expected} == expected
    features = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super"
    assert words_after(argv, "-O") == features
    assert "hash_seed=255de24c-6d8e-48e0-be22-849929ddde2f" in words_after(argv, "-E")
    assert argv[-1] == tuning[-1] == "/dev/x"
    expected = {"-o": "^acl,user_xattr", "-c": "-1", "-i": "180d", "-u": "0", "-g": "20"}
    assert {option: words_after(tuning, option) for option in expected} == expected


def test_default_mount_options_are_the_same() -> None:
    text = DUMPE2FS.replace(
        "Filesystem state", "Mount options:  data_err=abort,commit=9\nFilesystem state"
    )
    *_, last = ext.commands(ext_recipe(text), "/dev/x", 5 * GIB)
    words = "set_super_value mount_opts data_err=abort,commit=9"
    assert last == ("debugfs", ["-w", "-R", words, "/dev/x"])
    assert ext.lasting(ext_recipe(text))["Mount options"] == "data_err=abort,commit=9"
    assert ext.lasting(ext_recipe())["Mount options"] == ""


@pytest.mark.parametrize("options", ["a b", 'a"b', "commit=5;x", "x" * 64])
def test_mount_options_that_cannot_be_given_are_not_lost(options: str) -> None:
    text = DUMPE2FS.replace("Filesystem state", f"Mount options: {options}\nFilesystem state")
    with pytest.raises(FormatError, match="default mount options that are not made anew"):
        ext_recipe(text)


def test_a_small_ext4_spends_no_more_than_a_sixteenth_on_its_journal() -> None:
    (_, argv), _ = ext.commands(ext_recipe(), "/dev/x", 320 * MIB)
    assert words_after(argv, "-J") == "size=20"


def test_there_are_inodes_for_all_files() -> None:
    recipe = ext_recipe(DUMPE2FS.replace("655349", "55360"))
    (_, argv), _ = ext.commands(recipe, "/dev/x", 2 * GIB)
    assert int(words_after(argv, "-N")) > 600_000


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("clean", "not clean", "not cleanly unmounted"),
        ("clean", "clean with errors", "or has errors"),
        ("64bit", "64bit encrypt quota", "not made anew: encrypt, quota"),
        ("64bit", "bigalloc", "not made anew: bigalloc"),
    ],
)
def test_an_ext4_that_is_not_made_anew(old: str, new: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        ext_recipe(DUMPE2FS.replace(old, new))


@given(st.integers(0, 8 * GIB), st.integers(1, 600_000))
def test_the_least_size_has_room_for_all(data: int, inodes: int) -> None:
    recipe = ext_recipe()
    least = ext.minimum(recipe, TreeSize(data, inodes))
    assert least % MIB == 0
    assert least >= data * 11 // 10 + inodes * 256
    # No more than that, the journal, and a few hundredths.
    assert (
        least
        <= (data * 11 // 10 + max(inodes, 655360 * least // (10 * GIB)) * 256) * 1.05 + 160 * MIB
    )


def test_xfs_is_made_as_it_was() -> None:
    recipe = xfs.parse(XFS_INFO, "xfs", UUID, "data", GIB)
    ((make, argv),) = xfs.commands(recipe, "/dev/x", GIB)
    assert make == "mkfs.xfs"
    expected = {
        "-m": f"crc=1,finobt=1,rmapbt=0,reflink=1,bigtime=1,inobtcount=1,uuid={UUID}",
        "-i": "size=512,attr=2,projid32bit=1,sparse=1,maxpct=25,nrext64=0",
        "-b": "size=4096",
        "-s": "size=4096",
        "-n": "size=8192,ftype=1",
        "-d": "sunit=128,swidth=512",
        "-L": "data",
    }
    assert {option: words_after(argv, option) for option in expected} == expected


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("=internal log ", "=/dev/sdx1    ", "another device"),
        ("=none   ", "=/dev/sdx", "another device"),
        ("ascii-ci=0", "ascii-ci=1", "small letters"),
    ],
)
def test_an_xfs_that_is_not_made_anew(old: str, new: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        xfs.parse(XFS_INFO.replace(old, new), "xfs", UUID, "", GIB)


def test_an_xfs_is_never_smaller_than_its_tools_allow() -> None:
    recipe = xfs.parse(XFS_INFO, "xfs", UUID, "", GIB)
    assert xfs.minimum(recipe, TreeSize(0, 1)) == 300 * MIB
    assert xfs.minimum(recipe, TreeSize(GIB, 1000)) > 1.1 * GIB
