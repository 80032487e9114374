"""Quarantine as bytes: there and back, after a power cut at any sector, and what is not believed."""

import base64
import hashlib
import json
import random
import shutil
import subprocess
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.errors import FormatError, QuarantineRefused
from etsclone.model.extents import Extent, Extents
from etsclone.model.quarantine import MARK, Quarantine
from etsclone.plan.gpt import relocate
from etsclone.plan.quarantine import check_room, find_quarantine, marked, releasing, whole_head
from etsclone.units import KIB, MIB

SIZE = 4 * MIB
HEAD = MIB


def dos_head(seed: int = 1) -> bytes:
    """A head as that of an MBR with a boot loader in its gap."""
    code = random.Random(seed).randbytes(64 * KIB)
    return (code[:510] + b"\x55\xaa" + code[512:]).ljust(HEAD, b"\0")


def record_of(
    head: bytes, *, sector: int = 512, label: str = "dos", size: int = SIZE
) -> Quarantine:
    return Quarantine(
        size=size,
        sector_size=sector,
        label=label,
        head_size=len(head),
        head_sha256=hashlib.sha256(head).hexdigest(),
        withheld=head[: 2 * sector],
        marks=Extents.of([Extent(MIB, MIB + 4096), Extent(2 * MIB, 2 * MIB + 4096)]),
        marks_sha256="0" * 64,
        created="2026-01-01T00:00:00Z",
        source="a disk",
    )


@pytest.fixture(scope="module")
def gpt_disk(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    if shutil.which("sfdisk", path="/usr/sbin:/sbin") is None:
        pytest.skip("no sfdisk")
    path = tmp_path_factory.mktemp("gpt") / "disk"
    path.write_bytes(bytes(SIZE))
    text = "label: gpt\nstart=2048, size=2048\nsize=2048\n"
    subprocess.run(["/usr/sbin/sfdisk", "--quiet", path], input=text, text=True, check=True)
    return path.read_bytes()


@pytest.mark.parametrize("sector", [512, 4096])
def test_there_and_back(sector: int) -> None:
    head = dos_head()
    record = record_of(head, sector=sector)
    quarantined = marked(head, record)
    assert len(quarantined) == len(head)
    assert quarantined.startswith(MARK)
    assert quarantined[510:512] == bytes(2)
    assert quarantined[sector : 2 * sector] == bytes(sector)
    found = find_quarantine(quarantined + b"what comes next", SIZE)
    assert found is not None
    assert found.record == record
    assert whole_head(quarantined + b"what comes next", found) == head


def applied(disk: bytes, start: int, data: bytes) -> bytes:
    return disk[:start] + data + disk[start + len(data) :]


@pytest.mark.usefixtures("real_programs")
@pytest.mark.parametrize("size", [SIZE, SIZE + MIB])
@pytest.mark.parametrize("label", ["dos", "gpt"])
def test_a_power_cut_at_any_sector(label: str, size: int, request: pytest.FixtureRequest) -> None:
    if label == "gpt":
        whole = request.getfixturevalue("gpt_disk")
        head = whole[:HEAD]
        moved, backup = relocate(head, 512, size)
        assert (moved == head) == (size == SIZE)
        wanted = moved + whole[HEAD : SIZE - len(backup.data)]
        wanted = applied(wanted.ljust(size, b"\0"), backup.offset, backup.data)
    else:
        head = dos_head()
        wanted = head + bytes(size - HEAD)
    disk = marked(head, record_of(head, label=label)) + bytes(size - HEAD)
    found = find_quarantine(disk[:HEAD], size)
    assert found is not None
    record = disk[found.place : found.place + found.length]
    writes = releasing(whole_head(disk[:HEAD], found), found, size)
    pieces = [
        (write.offset + at, write.data[at : at + 512])
        for write in writes
        for at in range(0, len(write.data), 512)
    ]
    for start, data in pieces:
        # Until the first sector is there it is in quarantine, and from then on it is whole.
        assert disk.startswith(MARK) or disk[:512] == wanted[:512]
        if not disk.startswith(MARK):
            assert applied(disk, found.place, bytes(found.length)) == wanted
        again = find_quarantine(disk[:HEAD], size)
        if again is None:  # the record is going: nothing else is left to do
            assert disk[:512] == wanted[:512]
            assert disk[found.place : found.place + found.length] != record
        else:
            assert again == found
            assert whole_head(disk[:HEAD], again) == head
        disk = applied(disk, start, data)
    assert disk == wanted
    assert find_quarantine(disk[:HEAD], size) is None


def test_a_copy_on_a_larger_disk_gets_its_backup_at_the_end(gpt_disk: bytes) -> None:
    head = gpt_disk[:HEAD]
    found = find_quarantine(marked(head, record_of(head, label="gpt")), SIZE)
    assert found is not None
    backup, second, first, _ = releasing(head, found, 2 * SIZE)
    assert backup.offset + len(backup.data) == 2 * SIZE
    assert first.data + second.data == relocate(head, 512, 2 * SIZE)[0][:1024]


def test_a_smaller_disk_is_refused() -> None:
    head = dos_head()
    found = find_quarantine(marked(head, record_of(head)), SIZE)
    assert found is not None
    with pytest.raises(QuarantineRefused, match="had 4194304"):
        releasing(head, found, SIZE - 1)


@given(st.integers(0, HEAD - 1))
def test_any_changed_byte_is_found_out(position: int) -> None:
    head = dos_head()
    disk = bytearray(marked(head, record_of(head)))
    disk[position] ^= 1
    data = bytes(disk)
    try:
        found = find_quarantine(data, SIZE)
    except QuarantineRefused:
        return
    if found is None:
        assert position < len(MARK)
    elif position < 1024:
        # Words for people, and what is written anew in any case.
        assert whole_head(data, found) == head
    else:
        with pytest.raises(QuarantineRefused):
            whole_head(data, found)


def test_a_record_of_another_disk_is_not_believed() -> None:
    head = dos_head()
    quarantined = marked(head, record_of(head))
    assert find_quarantine(dos_head(2)[:512] + quarantined[512:], SIZE) is None
    assert find_quarantine(bytes(512) + quarantined[512:], SIZE) is None
    assert find_quarantine(head, SIZE) is None
    # What lies behind the head is a partition's.
    elsewhere = replace(record_of(head), head_size=32 * KIB)
    with pytest.raises(QuarantineRefused, match="damaged"):
        find_quarantine(marked(head, elsewhere), SIZE)


def test_a_head_without_room_is_refused() -> None:
    full = random.Random(3).randbytes(32 * KIB)
    with pytest.raises(QuarantineRefused, match="unused bytes"):
        check_room(full, 512, 4)
    with pytest.raises(QuarantineRefused, match="unused bytes"):
        marked(full, record_of(full))
    check_room(full[: 28 * KIB] + bytes(4 * KIB), 512, 4)


@given(st.integers(0, 128))
def test_what_is_checked_is_what_is_needed(count: int) -> None:
    head = dos_head()[: 64 * KIB].ljust(128 * KIB, b"\0")
    extents = Extents.of(
        Extent(10**13 + n * MIB, 10**13 + n * MIB + 128 * KIB) for n in range(count)
    )
    record = replace(record_of(head), marks=extents, source="x" * 80)
    for room in range(4 * KIB, 64 * KIB, 4 * KIB):
        tight = head[: 64 * KIB] + bytes(room)
        try:
            check_room(tight, 512, count)
        except QuarantineRefused:
            continue
        marked(tight, replace(record, withheld=tight[:1024]))
        return


def facts_of(head: bytes) -> dict[str, object]:
    """The members of a record, as JSON."""
    record = record_of(head)
    return asdict(record) | {
        "withheld": base64.b64encode(record.withheld).decode(),
        "marks": [[each.start, each.end] for each in record.marks],
    }


def with_record(text: bytes) -> bytes:
    """A head in quarantine whose record has this JSON and a digest that holds, which anybody can make."""
    whole = b"etsclone quarantine record 1\n" + text + b"\n"
    whole += hashlib.sha256(whole).hexdigest().encode() + b"\n"
    return MARK.ljust(4 * KIB, b"\0") + whole.ljust(HEAD - 4 * KIB, b"\0")


HOSTILE: dict[str, bytes | tuple[str, object]] = {
    "deep": b"[" * 200_000,
    "a list": b"[]",
    "a long number": b"9" * 5000,
    "no text": b"\xff",
    **{
        f"{name}: {value!r}": (name, value)
        for name, value in (
            ("head_size", "1"), ("head_size", HEAD + 1), ("head_size", -1), ("head_size", True),
            ("sector_size", "512"), ("sector_size", 0), ("sector_size", 512.0), ("sector_size", 1024),
            ("size", None), ("size", 10**30), ("size", 0),
            ("marks", [[0, 2**62]]), ("marks", [[0, SIZE + 1]]), ("marks", [[5, 5]]), ("marks", [["0", "9"]]),
            ("marks", {}), ("marks", [[1]]), ("marks", [1]),
            ("withheld", 7), ("withheld", "AA=="), ("withheld", "\u00e9"),
            ("label", []), ("label", "x" * 99), ("created", "\x1b[2J"), ("created", "x" * 999), ("source", 1),
            ("head_sha256", "z" * 64), ("marks_sha256", None), ("more", 1),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_record_is_refused(what: bytes | tuple[str, object]) -> None:
    facts = facts_of(dos_head())
    text = what if isinstance(what, bytes) else json.dumps(facts | dict([what])).encode()
    with pytest.raises(FormatError, match="cannot be understood"):
        find_quarantine(with_record(text), SIZE)


def test_marks_of_more_than_all_partitions_are_refused() -> None:
    large = facts_of(dos_head()) | {"size": 10**12, "marks": [[0, 32 * MIB + 1]]}
    with pytest.raises(FormatError, match="its marks have"):
        find_quarantine(with_record(json.dumps(large).encode()), SIZE)


def test_what_a_record_says_can_be_shown() -> None:
    facts = facts_of(dos_head()) | {"source": "\x1b]0;disk\x07\n" + "x" * 999}
    found = find_quarantine(with_record(json.dumps(facts).encode()), SIZE)
    assert found is not None
    assert found.record.source == "?]0;disk??" + "x" * 70


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(ANY_JSON, st.dictionaries(st.sampled_from(sorted(facts_of(dos_head()))), ANY_JSON))
def test_any_json_is_a_record_or_refused(alone: object, members: dict[str, object]) -> None:
    for value in (alone, facts_of(dos_head()) | members):
        try:
            found = find_quarantine(with_record(json.dumps(value).encode()), SIZE)
        except FormatError:
            continue
        assert found is not None
        record = found.record
        assert record.created.isprintable()
        assert record.source.isprintable()
        assert record.marks.size <= 32 * MIB
        assert all(each.end <= record.size for each in record.marks)
