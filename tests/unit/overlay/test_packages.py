"""What dpkg's records say, also odd ones; the records of rpm are read in tests/loop."""

from pathlib import Path

import pytest

from etsclone.model.packages import NO_PACKAGES, Package
from etsclone.overlay.packages import copy_rpm_database, dpkg_packages

STATUS = """\
Package: dhcpd
Status: install ok installed
Priority: optional
Architecture: amd64
Multi-Arch: same
Version: 4.4.3-P1-2+b1
Conffiles:
 /etc/dhcp/dhcpd.conf 0123456789abcdef0123456789abcdef
 /etc/default/dhcpd 0123456789abcdef0123456789abcdef obsolete
Description: a server
 with more lines
 Package: not this one

Package: held
Status: hold ok half-configured
Architecture: all
Version: 1:2.0

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1

Package: odd name
Status: install ok installed
Architecture: all
Version: 1
"""


@pytest.fixture
def system(tmp_path: Path) -> Path:
    info = tmp_path / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(STATUS)
    (tmp_path / "usr/sbin").mkdir(parents=True)
    (tmp_path / "sbin").symlink_to("usr/sbin")
    common = "/.\n/usr\n/usr/share\n"
    (info / "dhcpd:amd64.list").write_text(
        f"{common}/sbin/dhcpd\n/usr/share/dhcpd\n/usr/share/dhcpd/doc\n/etc/dhcp/dhcpd.conf\n"
        "/usr/share/both\n"
    )
    (info / "dhcpd:i386.list").write_text(f"{common}/usr/share/dhcpd/doc\n/usr/lib/i386\n")
    (info / "held.list").write_text(f"{common}/usr/share/both\n/usr/bin/held\n")
    (info / "held.md5sums").write_text("not a list\n")
    return tmp_path


def test_packages_and_owners(system: Path) -> None:
    found = dpkg_packages(str(system))
    assert found.packages == (
        Package("dhcpd", "amd64", "4.4.3-P1-2+b1"),
        Package("held", "all", "1:2.0"),
    )
    assert found.owners == {
        b"/usr/sbin/dhcpd": "dhcpd",
        b"/usr/share/dhcpd": "dhcpd",
        b"/usr/share/dhcpd/doc": "dhcpd",
        b"/usr/lib/i386": "dhcpd",
        b"/usr/bin/held": "held",
    }


def test_a_system_without_a_package_manager(tmp_path: Path) -> None:
    assert dpkg_packages(str(tmp_path)) == NO_PACKAGES


def test_records_behind_a_link_are_not_followed(system: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "var/lib").mkdir(parents=True)
    (other / "var/lib/dpkg").symlink_to(system / "var/lib/dpkg")
    assert dpkg_packages(str(other)) == NO_PACKAGES


def test_an_rpm_database_is_copied_and_no_link_followed(tmp_path: Path) -> None:
    import os

    into = tmp_path / "into"
    into.mkdir()
    rpm = tmp_path / "system/var/lib/rpm"
    rpm.mkdir(parents=True)
    descriptor = os.open(into, os.O_RDONLY)
    try:
        assert not copy_rpm_database(str(tmp_path / "system"), descriptor)
        (rpm / "rpmdb.sqlite").symlink_to("/etc/passwd")
        assert not copy_rpm_database(str(tmp_path / "system"), descriptor)
        (rpm / "Packages").write_bytes(b"records")
        assert copy_rpm_database(str(tmp_path / "system"), descriptor)
    finally:
        os.close(descriptor)
    assert {path.name: path.read_bytes() for path in into.iterdir()} == {"Packages": b"records"}
