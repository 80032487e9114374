"""MAC addresses in places that nobody maps: which are told, and which are not a machine's own business."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import Tree

from etsclone.model.hardware import Mention
from etsclone.plan.nicmentions import mentions, mentions_in
from etsclone.units import KIB

A, B = "52:54:00:12:34:56", "0c:c4:7a:00:00:0f"
DIGITS, DASHED = A.replace(":", ""), A.replace(":", "-")


def tree(texts: dict[str, str]) -> Tree:
    return Tree({path.encode(): text.encode() for path, text in texts.items()})


def told(path: str, text: str, *own: str) -> list[tuple[int, str]]:
    return [(each.line, each.mac) for each in mentions(tree({path: text}), own).found]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/etc/mactab", f"# names\neth0 {A}\n"),
        ("/etc/iftab", f"\neth0 mac {A.upper()} arp 1\n"),
        ("/etc/wicked/ifconfig/eth0.xml", f"<interface>\n <match mac='{A}'/>\n"),
        ("/etc/kernel/entry", f"\nroot=UUID=1 ifname=eth0:{A} ro"),
        ("/etc/kernel/entry", f"\nroot=UUID=1 BOOTIF=01-{DASHED} ro"),
        ("/etc/default/grub", f'\nGRUB_CMDLINE_LINUX="net.ifnames=0 lan={A}"\n'),
        ("/etc/sysctl.d/x.conf", f"\nnet.ipv4.conf.enx{DIGITS}.forwarding=1\n"),
        ("/boot/efi/EFI/debian/grub.cfg", f"\nlinux /v x={DASHED}\n"),
        ("/etc/NetworkManager/NetworkManager.conf", f"[main]\nno-auto-default={A};\n"),
        (
            "/etc/NetworkManager/system-connections/x",
            "[802-3-ethernet]\nmac-address=82;84;0;18;52;86;\n",
        ),
        ("/etc/dhcp/dhclient.conf", f"\nsend dhcp-client-identifier {A};\n"),
        ("/etc/openvswitch/a/b/c.conf", f"\nx=mac:{A}\n"),
    ],
)
def test_what_is_told(path: str, text: str) -> None:
    assert told(path, text) == [(2, A)]
    assert told(path, text, A) == []
    assert told(path, text, B) == [(2, A)]


@pytest.mark.parametrize(
    "path", [f"/etc/sysconfig/network/route-enx{DIGITS}", f"/etc/wicked/{DASHED}.xml"]
)
def test_the_name_of_a_file_counts(path: str) -> None:
    (found,) = mentions(tree({path: ""}), ()).found
    assert found == Mention(path.encode(), 0, A)
    assert str(found) == path


@pytest.mark.parametrize(
    ("path", "text"),
    [
        # Other machines.
        ("/etc/dhcp/dhcpd.conf", f"host x {{ hardware ethernet {A}; }}\n"),
        ("/etc/dhcp/hosts/room1.conf", f"host x {{\n  hardware\n ethernet {A}; }}\n"),
        ("/etc/dhcpd.conf", f"host x {{ hardware ethernet {A}; }}\n"),
        ("/etc/school/hosts.conf", f"host x {{ hardware ethernet {A}; }}\n"),
        ("/etc/dnsmasq.conf", f"dhcp-host={A},pc1\n"),
        ("/etc/dnsmasq.d/a.conf", f"dhcp-host={A},pc1\n"),
        ("/etc/kea/kea-dhcp4.conf", f'"hw-address": "{A}"\n'),
        ("/etc/ethers", f"{A} pc1\n"),
        ("/etc/ltsp/ltsp.conf", f"[{A}]\nHOSTNAME=pc1\n"),
        ("/etc/libvirt/qemu/x.xml", f"<mac address='{A}'/>\n"),
        ("/etc/nftables.conf", f"ether saddr {A} accept\n"),
        ("/etc/iptables/rules.v4", f"-A INPUT -m mac --mac-source {A} -j ACCEPT\n"),
        ("/etc/NetworkManager/system-connections/w", f"[wifi]\nseen-bssids={A};\nbssid={A}\n"),
        # No interface's, or none at all.
        ("/etc/x", "ff:ff:ff:ff:ff:ff 00:00:00:00:00:00 01:00:5e:00:00:01 33:33:00:00:00:01\n"),
        ("/etc/x", f"# {A}\n  ; {A}\n// {A}\n"),
        ("/etc/x", f"{A}:01 f0:{A} {A}-1 x{A} {DIGITS} 99enx{DIGITS} enx{DIGITS}00\n"),
        ("/etc/openvpn/a.crt", f"  Modulus:\n   00:{A}:{A}:\n   {A}\n"),
        ("/etc/NetworkManager/system-connections/x", "mac-address=82;84;0;18;52;300\n"),
        # Where nothing is told of this system.
        ("/usr/share/doc/x", A),
        # What a binding tells, and what the system gives its interfaces.
        ("/etc/systemd/network/a.link", f"[Match]\nMACAddress={A}\n"),
        ("/etc/kernel/cmdline", f"ifname=eth0:{A} BOOTIF=01-{DASHED}\n"),
        ("/etc/network/interfaces", f"iface br0\n hwaddress {A}\n post-up x {A}\n"),
        ("/etc/network/interfaces", f"auto enx{DIGITS}\n"),
    ],
)
def test_what_is_not_told(path: str, text: str) -> None:
    assert told(path, text) == []


def test_all_is_told_in_order_of_addresses() -> None:
    texts = {"/etc/b": f"{B}\n{A} {A}\n", "/etc/a": A}
    found = mentions(tree(texts), ()).found
    assert [(each.mac, str(each)) for each in found] == [
        (B, "/etc/b:1"),
        (A, "/etc/a:1"),
        (A, "/etc/b:2"),
    ]


@pytest.mark.parametrize("files", [1, 200])
def test_more_than_anybody_reads_is_cut(files: int) -> None:
    lines = [f"02:00:00:00:00:{number:02x}\n" for number in range(200)]
    texts = {f"/etc/{number:03}": "".join(lines[number::files]) for number in range(files)}
    found = mentions(tree(texts), ())
    assert len(found.found) == 100
    assert not found.whole


def test_little_is_read_of_large_files_and_of_many() -> None:
    large = {f"/etc/{number}": "x" * (4096 * KIB) for number in range(20)}
    assert not mentions(tree(large), ()).whole
    assert mentions(tree({"/etc/large": f"{A}\n" * 40_000}), ()).found == ()


@given(st.binary(max_size=200), st.sampled_from([b"/etc/x", b"/etc/netplan/a.yaml"]))
def test_no_bytes_make_it_fail(noise: bytes, path: bytes) -> None:
    content = noise + A.encode() + b"\n" + noise
    for each in mentions_in(path + noise.replace(b"/", b"").replace(b"\0", b""), content):
        assert str(each).isprintable()


@pytest.mark.parametrize(
    "piece", [b"00:", b"ifname=", b"mac:", b" ", b"enx", b"1;", b"mac-address=1;", b"a-"]
)
def test_a_line_of_any_length_is_looked_through_at_once(piece: bytes) -> None:
    start = time.process_time()
    for _ in mentions_in(b"/etc/x", piece * (256 * KIB // len(piece)) + b"\n"):
        pass
    assert time.process_time() - start < 0.5
