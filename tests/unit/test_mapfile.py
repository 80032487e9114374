"""ddrescue mapfiles, also those that partclone writes."""

import pytest

from etsclone.errors import FormatError
from etsclone.model.extents import Extent, Extents
from etsclone.model.mapfile import BlockStatus, Mapfile, parse_mapfile

DOMAIN = """\
# Domain logfile created by partclone
# Source: /dev/sda1
0x00000000     ?
#      pos        size  status
0x00000000  0x00001000  +
0x00001000  0x00002000  ?
0x00003000  0x00001000  +
"""


def test_a_domain_file_of_partclone() -> None:
    domain = parse_mapfile(DOMAIN)
    assert domain.end == 0x4000
    assert domain.with_status(BlockStatus.FINISHED) == Extents.of(
        [Extent(0, 0x1000), Extent(0x3000, 0x4000)]
    )
    assert domain.with_status(BlockStatus.NOT_TRIED) == Extents.between(0x1000, 0x3000)


def test_a_mapfile_of_ddrescue_with_every_status() -> None:
    text = "0x50 + 2\n" + "".join(f"{n * 16} 0x10 {s.value}\n" for n, s in enumerate(BlockStatus))
    parsed = parse_mapfile(text)
    for number, status in enumerate(BlockStatus):
        assert parsed.with_status(status) == Extents.between(number * 16, number * 16 + 16)


def test_neighbours_of_one_status_become_one_range() -> None:
    parsed = parse_mapfile("0 ?\n0 8 +\n8 8 +  # the rest\n")
    assert parsed.with_status(BlockStatus.FINISHED) == Extents.between(0, 16)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "no status line or no blocks", id="empty"),
        pytest.param("# only a comment\n", "no status line or no blocks", id="comment"),
        pytest.param("0x0 ?\n", "no status line or no blocks", id="no blocks"),
        pytest.param("0\n0 8 +\n", "no status line", id="short status line"),
        pytest.param("0 ? 1 2\n0 8 +\n", "no status line", id="long status line"),
        pytest.param("0 ?\n0 8 +\n16 8 +\n", "gap or an overlap at 0x8", id="gap"),
        pytest.param("0 ?\n0 8 +\n4 8 +\n", "gap or an overlap at 0x8", id="overlap"),
        pytest.param("0 ?\n0 8\n", "unreadable block: 0 8", id="two fields"),
        pytest.param("0 ?\n0 8 x\n", "unreadable block", id="unknown status"),
        pytest.param("0 ?\n0 eight +\n", "unreadable block", id="no number"),
        pytest.param("0 ?\n0 0 +\n", "unreadable block", id="empty block"),
        pytest.param("0 ?\n-8 8 +\n", "unreadable block", id="negative position"),
    ],
)
def test_what_is_no_mapfile(text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        parse_mapfile(text)


def test_what_is_taken_out_was_not_tried() -> None:
    states = {
        BlockStatus.FINISHED: Extents.between(0, 60),
        BlockStatus.BAD_SECTOR: Extents.between(60, 70),
    }
    found = Mapfile.of(states, 100).without(Extents.between(50, 65))
    assert found.with_status(BlockStatus.FINISHED) == Extents.between(0, 50)
    assert found.with_status(BlockStatus.BAD_SECTOR) == Extents.between(65, 70)
    not_tried = Extents.between(50, 65) | Extents.between(70, 100)
    assert found.with_status(BlockStatus.NOT_TRIED) == not_tried
    assert found.end == 100
