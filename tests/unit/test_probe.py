"""Reading what sfdisk and the kernel tell about disks."""

import json
import os

import pytest

from etsclone.disk import mounts as mounts_module
from etsclone.disk.mounts import parse_mountinfo
from etsclone.disk.probe import parse_table
from etsclone.errors import FormatError
from etsclone.model.disk import Partition

GPT = """{"partitiontable": {"label": "gpt", "id": "0CFE", "device": "/dev/nvme0n1", "unit": "sectors",
 "firstlba": 34, "lastlba": 2014, "sectorsize": 512, "partitions": [
 {"node": "/dev/nvme0n1p2", "start": 4096, "size": 8192, "type": "0fc63daf-8483", "uuid": "AB", "name": "root"},
 {"node": "/dev/nvme0n1p1", "start": 2048, "size": 2048, "type": "21686148-6449"}]}}"""


def test_a_gpt_in_the_order_of_the_disk() -> None:
    table = parse_table(GPT, {1048576: "/dev/nvme0n1p1"})
    assert (table.label, table.uuid) == ("gpt", "0CFE")
    assert table.partitions == (
        Partition(1, "/dev/nvme0n1p1", 1048576, 1048576, "21686148-6449"),
        Partition(2, "", 2097152, 4194304, "0FC63DAF-8483", "AB", "root"),
    )


def test_sectors_of_4096_bytes() -> None:
    table = parse_table(GPT.replace('"sectorsize": 512', '"sectorsize": 4096'), {})
    assert table.partitions[0].start == 2048 * 4096
    assert table.partitions[0].end == 4096 * 4096


def test_an_mbr_of_an_old_sfdisk_without_sector_size() -> None:
    text = json.dumps(
        {
            "partitiontable": {
                "label": "dos",
                "id": "0xabcd",
                "partitions": [{"node": "disk.img5", "start": 63, "size": 7, "type": "f"}],
            }
        }
    )
    assert parse_table(text, {}).partitions == (
        Partition(5, "", 63 * 512, 7 * 512, "F", "0000abcd-05"),
    )


@pytest.mark.parametrize(("number", "uuid"), [(1, "1234abcd-01"), (16, "1234abcd-10")])
def test_partitions_of_an_mbr_are_called_after_the_disk(number: int, uuid: str) -> None:
    row = {"node": f"/dev/sda{number}", "start": 63, "size": 7, "type": "83"}
    table = {"label": "dos", "id": "0x1234abcd", "partitions": [row]}
    for mark, found in (("0x1234abcd", uuid), ("0x00000000", "")):
        text = json.dumps({"partitiontable": table | {"id": mark}})
        assert [part.uuid for part in parse_table(text, {}).partitions] == [found]


def test_a_table_without_partitions() -> None:
    assert parse_table('{"partitiontable": {"label": "gpt", "id": "x"}}', {}).partitions == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[]",
        "{}",
        '{"partitiontable": {"label": "gpt"}}',
        '{"partitiontable": {"label": "gpt", "id": "x", "partitions": [{"node": "/dev/sda1"}]}}',
        GPT.replace("p1", "p"),
    ],
)
def test_what_sfdisk_never_prints(text: str) -> None:
    with pytest.raises(FormatError, match="cannot read what sfdisk printed"):
        parse_table(text, {})


MOUNTINFO = r"""22 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw,errors=remount-ro
30 22 0:25 / /sys rw,nosuid - sysfs sysfs rw
41 22 8:17 / /media/my\040disk ro,relatime shared:7 master:3 - vfat /dev/sdb1 ro
42 22 8:18 / /mnt/a\134b ro,relatime - ext4 /dev/sdb2 rw
43 22 0:40 / /mnt/- rw - nfs4 server:/ex\011port rw
"""


def test_mountinfo() -> None:
    mounts = parse_mountinfo(MOUNTINFO)
    assert [mount.where for mount in mounts] == [
        "/",
        "/sys",
        "/media/my disk",
        "/mnt/a\\b",
        "/mnt/-",
    ]
    assert mounts[0].device == os.makedev(8, 2)
    assert (mounts[2].type, mounts[2].source) == ("vfat", "/dev/sdb1")
    assert mounts[4].source == "server:/ex\tport"


def test_only_some_filesystems_date_their_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts_module, "mounts_of_system", lambda: parse_mountinfo(MOUNTINFO))
    assert mounts_module.dated_filesystems() == {os.makedev(8, 2), os.makedev(8, 18)}


def test_it_takes_mount_and_filesystem_to_be_writable() -> None:
    assert [mount.writable for mount in parse_mountinfo(MOUNTINFO)] == [
        True,
        True,
        False,
        False,
        True,
    ]


def test_names_that_are_no_text_survive() -> None:
    (mount,) = parse_mountinfo("42 22 8:18 / /mnt/\udcff rw - ext4 /dev/sdb2 rw\n")
    assert os.fsencode(mount.where) == b"/mnt/\xff"
