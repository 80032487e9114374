"""The two checksums, against the check values of the catalogue of CRC algorithms (reveng.sourceforge.io)."""

from hypothesis import given
from hypothesis import strategies as st

from etsclone.usedmap.crc import crc16, crc32c


def test_check_values() -> None:
    assert crc32c(0xFFFFFFFF, b"123456789") ^ 0xFFFFFFFF == 0xE3069283  # CRC-32/ISCSI
    assert crc16(0, b"123456789") == 0xBB3D  # CRC-16/ARC


@given(st.binary(max_size=200), st.integers(0, 200), st.integers(0, 0xFFFF))
def test_a_checksum_goes_on_where_it_stopped(data: bytes, at: int, start: int) -> None:
    for crc in (crc32c, crc16):
        assert crc(crc(start, data[:at]), data[at:]) == crc(start, data)
