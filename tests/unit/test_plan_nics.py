"""MAC addresses in network configuration: which are found, which are not, and what writing others leaves alone."""

import re
import time
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.errors import UsageError
from etsclone.model.edit import Edit
from etsclone.model.hardware import Binding, check_mac
from etsclone.plan.nicfiles import parser_for
from etsclone.plan.nics import bindings, rewrite, unbound_inside
from etsclone.units import KIB

A, B, C, D = "52:54:00:aa:bb:01", "52:54:00:aa:bb:02", "52:54:00:aa:bb:03", "52:54:00:aa:bb:04"
NEW = "0c:c4:7a:de:ad:0f"


class Tree:
    """`model.edit.Files` of texts by path."""

    def __init__(self, texts: dict[str, str]) -> None:
        self.texts = {path.encode(): text.encode() for path, text in texts.items()}
        self.links: tuple[bytes, ...] = ()

    def read(self, path: bytes) -> bytes | None:
        return self.texts.get(path)

    def names(self, folder: bytes) -> tuple[bytes, ...]:
        below = (
            path[len(folder) + 1 :]
            for path in (*self.texts, *self.links)
            if path.startswith(folder + b"/")
        )
        return tuple(sorted({path.split(b"/")[0] for path in below}))

    def edited(self, edits: tuple[Edit, ...]) -> "Tree":
        after = Tree({})
        after.texts = self.texts | {edit.path: edit.after for edit in edits}
        return after


RULES = f"""\
# PCI device 0x8086:0x100e, was {A}
SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", ATTR{{address}}=="{A}", ATTR{{type}}=="1", NAME="eth0"
SUBSYSTEM=="net", \\
  ATTRS{{address}}=="{B}|{C}", \\
  NAME="lan"
SUBSYSTEM=="net", ATTR{{address}}!="00:00:00:00:00:00", ENV{{X}}="{D}"
"""
LINK = f"""\
[Match]
; MACAddress={D}
MACAddress={A.upper()} {B.replace(":", "-")} \\
  5254.00aa.bb03
PermanentMACAddress={D}
[Link]
Name=lan0
"""
NETWORK = f"""\
[Match]
MACAddress = {A}
Name=eth0
[Link]
MACAddress={B}
[DHCPServerStaticLease]
MACAddress={C}
"""
NETPLAN = f"""\
# {D}
network:
  version: 2
  ethernets:
    uplink:
      match:
        macaddress: "{A}"   # {D}
      set-name: eth0
    lan:
      match: {{ macaddress: {B.upper()}, driver: e1000e }}
      macaddress: {C}
    other: {{match: {{macaddress: '{D}'}}, dhcp4: true}}
    given: {{match: {{driver: e1000e}}, macaddress: {A}}}\r
    'last':\r
      match:\r
        macaddress: {B}\r
"""
IFCFG = f"""\
DEVICE=eth3
#HWADDR={D}
HWADDR="{A.upper()}"
MACADDR={B}
"""
KEYFILE = f"""\
[connection]
id=Wired 1
[ethernet]
mac-address={A.upper()}
cloned-mac-address={B}
mac-address-blacklist={C}
"""
INTERFACES = f"""\
auto eth0
iface eth0 inet dhcp
    hwaddress ether {A}
#   hwaddress ether {D}
rename mac/{B}=wan
"""
OPTIONS = f"""\
# ifname=old:{D}
GRUB_CMDLINE_LINUX="quiet ifname=lan0:{A} ifname=wan:{B.upper()} BOOTIF=01-{A.replace(":", "-")}"
GRUB_CMDLINE_LINUX_DEFAULT="BOOTIF={B} ifname=x:{A}:00 ifname=y"
"""
TREE = Tree(
    {
        "/etc/default/grub": OPTIONS,
        "/etc/kernel/cmdline": f"root=UUID=1 ifname=lan0:{A}",
        "/etc/dracut.conf.d/n.conf": f'kernel_cmdline="ifname=lan0:{A}"\n',
        "/boot/grub/grub.cfg": f"menuentry x {{\n\tlinux /v ifname=lan0:{A}\n}}\n",
        "/boot/efi/EFI/debian/grub.cfg": f"linux /v ifname=lan0:{A}\n",
        "/boot/loader/entries/1.conf": f"title x\noptions ro ifname=lan0:{A}\n",
        "/etc/udev/rules.d/70-persistent-net.rules": RULES,
        "/etc/systemd/network/10-lan.link": LINK,
        "/etc/systemd/network/10-lan.network": NETWORK,
        "/etc/systemd/network/20-x.network.d/a.conf": f"[Match]\nMACAddress={A}\n",
        "/etc/netplan/01.yaml": NETPLAN,
        "/etc/sysconfig/network-scripts/ifcfg-x": IFCFG,
        "/etc/NetworkManager/system-connections/Wired 1.nmconnection": KEYFILE,
        "/etc/NetworkManager/conf.d/x.conf": f"[keyfile]\nunmanaged-devices=mac:{A.upper()};mac:{B}\n",
        "/etc/network/interfaces": INTERFACES,
        "/etc/dhcp/dhcpd.conf": f"host x {{ hardware ethernet {A}; }}\n",
        "/etc/systemd/network/README": f"MACAddress={A}\n",
        "/etc/udev/rules.d/70.rules.bak": RULES,
    }
)


def short(found: tuple[Binding, ...], path: str) -> list[tuple[int, str, str, bool]]:
    return [
        (each.line, each.mac, each.name, each.matches)
        for each in found
        if each.path.decode().endswith(path)
    ]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("net.rules", [(2, A, "eth0", True), (4, B, "lan", True), (4, C, "lan", True)]),
        (
            "lan.link",
            [
                (3, A, "lan0", True),
                (3, B, "lan0", True),
                (4, C, "lan0", True),
                (5, D, "lan0", True),
            ],
        ),
        ("lan.network", [(2, A, "eth0", True), (5, B, "eth0", False)]),
        ("a.conf", [(2, A, "", True)]),
        (
            "01.yaml",
            [
                (7, A, "eth0", True),
                (10, B, "lan", True),
                (11, C, "lan", False),
                (12, D, "other", True),
                (13, A, "given", False),
                (16, B, "last", True),
            ],
        ),
        ("ifcfg-x", [(3, A, "eth3", True), (4, B, "eth3", False)]),
        ("nmconnection", [(4, A, "Wired 1", True), (5, B, "Wired 1", False)]),
        ("x.conf", [(2, A, "", True), (2, B, "", True)]),
        ("interfaces", [(3, A, "eth0", False), (5, B, "wan", True)]),
        (
            "default/grub",
            [(2, A, "lan0", True), (2, B, "wan", True), (2, A, "", True), (3, B, "", True)],
        ),
        ("cmdline", [(1, A, "lan0", True)]),
        ("n.conf", [(1, A, "lan0", True)]),
        ("/boot/grub/grub.cfg", [(2, A, "lan0", True)]),
        ("debian/grub.cfg", [(1, A, "lan0", True)]),
        ("1.conf", [(2, A, "lan0", True)]),
        ("dhcpd.conf", []),
        ("README", []),
        ("rules.bak", []),
    ],
)
def test_what_is_found(path: str, found: list[tuple[int, str, str, bool]]) -> None:
    assert short(bindings(TREE), path) == found


def test_an_address_is_written_as_the_old_one_was() -> None:
    after = TREE.edited(rewrite(TREE, {A: NEW, B: NEW[:-1] + "1", C: NEW[:-1] + "2"}))
    link = after.texts[b"/etc/systemd/network/10-lan.link"].decode()
    assert "\nMACAddress=0C:C4:7A:DE:AD:0F 0c-c4-7a-de-ad-01 \\\n  0cc4.7ade.ad02\n" in link
    assert after.texts[b"/etc/default/grub"].decode() == OPTIONS.replace(
        f"lan0:{A}", f"lan0:{NEW}"
    ).replace(B.upper(), f"{NEW[:-1]}1".upper()).replace(
        f"01-{A.replace(':', '-')}", f"01-{NEW.replace(':', '-')}"
    ).replace(f"BOOTIF={B}", f"BOOTIF={NEW[:-1]}1")
    for path in (b"/etc/dhcp/dhcpd.conf", b"/etc/systemd/network/README"):
        assert after.texts[path] == TREE.texts[path]
    assert (
        f"# PCI device 0x8086:0x100e, was {A}".encode()
        in after.texts[b"/etc/udev/rules.d/70-persistent-net.rules"]
    )


def test_reasons_name_the_interface() -> None:
    (edit,) = rewrite(Tree({"/etc/network/interfaces": INTERFACES}), {A: NEW})
    assert edit.reasons == (f"eth0 had the MAC {A}, has {NEW}",)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "/etc/network/interfaces",
            "auto lo NAME\niface NAME inet dhcp\n  up ip link set NAME up\n",
        ),
        ("/etc/network/interfaces.d/lan", "allow-hotplug NAME\n"),
        ("/etc/netplan/01.yaml", "network:\n ethernets: {NAME: {dhcp4: true}}\n"),
        ("/etc/netplan/01.yaml", "bridges:\n br0:\n  interfaces: [NAME]\n"),
        ("/etc/systemd/network/10.network", "[Match]\nName=eth0 NAME\n"),
        ("/etc/systemd/network/10.network", "[Match]\nName=wl*\n[Network]\nBridge=NAME"),
        ("/etc/sysconfig/network-scripts/ifcfg-lan", 'DEVICE="NAME"\nTYPE=Ethernet\n'),
        ("/etc/NetworkManager/system-connections/lan", "[connection]\ninterface-name=NAME\n"),
        ("/etc/NetworkManager/conf.d/a.conf", "unmanaged-devices=interface-name:NAME;eth0\n"),
        ("/etc/default/isc-dhcp-server", 'INTERFACESv4="NAME eth0"\nINTERFACESv6=""\n'),
        ("/etc/sysconfig/dhcpd", "DHCPDARGS=NAME\n"),
        ("/etc/udev/rules.d/70.rules", 'ENV{ID_NET_NAME_MAC}=="NAME", SYMLINK+="lan"\n'),
        ("/boot/grub/grub.cfg", "menuentry x {\n linux /v ip=:::::NAME:dhcp ro\n}\n"),
    ],
)
@pytest.mark.parametrize("kind", ["enx", "wlx", "wwx"])
def test_names_made_of_an_address_follow_it(path: str, text: str, kind: str) -> None:
    old, new = (kind + mac.replace(":", "") for mac in (A, NEW))
    tree = Tree({path: text.replace("NAME", old)})
    (first, *_) = found = bindings(tree)
    assert {(each.mac, each.matches) for each in found} == {(A, True)}
    assert first.line == text[: text.index("NAME")].count("\n") + 1
    (edit,) = rewrite(tree, {A: NEW})
    assert edit.after.decode() == text.replace("NAME", new)
    assert bindings(tree.edited((edit,)))[0].mac == NEW


@pytest.mark.parametrize(
    "word",
    [
        "enx525400aabb0",
        "enx525400aabb012",
        "xenx525400aabb01",
        "enX525400aabb01",
        "enx525400AABB01",
    ],
)
def test_what_only_looks_like_a_name_made_of_an_address_stays(word: str) -> None:
    text = f"auto {word}\n# enx525400aabb01\n  ;enx525400aabb01\n"
    assert bindings(Tree({"/etc/network/interfaces": text})) == ()
    assert bindings(Tree({"/etc/dhcp/dhcpd.conf": "enx525400aabb01"})) == ()
    assert bindings(Tree({"/etc/network/interfaces": "auto enx01005e000001"})) == ()


def test_two_may_change_places() -> None:
    after = TREE.edited(rewrite(TREE, {A: B, B: A}))
    swapped = {A: B, B: A}
    assert [each.mac for each in bindings(after)] == [
        swapped.get(each.mac, each.mac) for each in bindings(TREE)
    ]


MACS = st.lists(
    st.binary(min_size=5, max_size=5).map(lambda raw: check_mac("0a:" + raw.hex(":"))),
    min_size=4,
    max_size=4,
    unique=True,
).filter(lambda macs: not set(macs) & {A, B, C, D})


@given(MACS)
def test_there_and_back_is_the_same_and_all_else_stays(macs: list[str]) -> None:
    mapping = dict(zip((A, B, C, D), macs, strict=True))
    edits = rewrite(TREE, mapping)
    after = TREE.edited(edits)
    assert [each.mac for each in bindings(after)] == [mapping[each.mac] for each in bindings(TREE)]
    for edit in edits:
        assert without(edit.before, mapping) == without(edit.after, [*macs, *mapping])
        same = sum(
            one == other for one, other in zip(lines(edit.before), lines(edit.after), strict=True)
        )
        assert same == len(lines(edit.before)) - len(
            {each.line for each in bindings(TREE) if each.path == edit.path}
        )
    back = after.edited(rewrite(after, {new: old for old, new in mapping.items()}))
    assert back.texts == TREE.texts


def lines(text: bytes) -> list[bytes]:
    return text.split(b"\n")


def without(text: bytes, macs: Iterable[str]) -> bytes:
    """A text with all addresses the same, however they are written."""
    for mac in macs:
        digits = mac.replace(":", "")
        dotted = ".".join((digits[:4], digits[4:8], digits[8:]))
        for form in (mac, mac.replace(":", "-"), dotted):
            text = re.sub(re.escape(form.encode()), b"M", text, flags=re.IGNORECASE)
    return text


def test_an_address_that_nobody_names_is_told() -> None:
    tree = Tree({"/etc/network/interfaces": INTERFACES})
    with pytest.raises(
        UsageError, match=f"no binding of the system names the MAC address {C}"
    ) as told:
        rewrite(tree, {A: NEW, C: D})
    assert told.value.hint == f"they name {A}, {B}"
    with pytest.raises(UsageError):
        rewrite(Tree({}), {A: B})


def test_what_was_rewritten_already_is_no_mistake() -> None:
    assert rewrite(TREE.edited(rewrite(TREE, {A: NEW})), {A: NEW}) == ()


@pytest.mark.parametrize("text", [A, A.upper(), A.replace(":", "-"), "5254.00aa.bb01"])
def test_addresses_are_taken_in_each_form(text: str) -> None:
    assert check_mac(text) == A


@pytest.mark.parametrize(
    "text",
    [
        *("", "eth0", A[:-1], A + "0", A + ":00", A.replace(":", "-", 1), " " + A, "525400aabb01"),
        *("01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"),
    ],
)
def test_what_is_no_address_of_an_interface_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="MAC address"):
        check_mac(text)


@given(st.sampled_from(sorted(TREE.texts)), st.binary(max_size=300))
def test_garbage_is_passed_over(path: bytes, text: bytes) -> None:
    tree = Tree({})
    tree.texts = {path: text + TREE.texts[path][: len(text)] + text}
    for each in bindings(tree):
        assert check_mac(each.mac) == each.mac


def test_an_address_in_a_value_that_is_in_another_value_is_found_once() -> None:
    tree = Tree({"/etc/netplan/x.yaml": f"macaddress: {{match: {{macaddress: {A}}}}}\n"})
    assert [each.mac for each in bindings(tree)] == [A]
    (edit,) = rewrite(tree, {A: NEW})
    assert edit.after.decode() == f"macaddress: {{match: {{macaddress: {NEW}}}}}\n"


@pytest.mark.parametrize(
    "path",
    [
        b"/etc/udev/rules.d/70-net.rules",
        b"/etc/systemd/network/10-lan.link",
        b"/etc/netplan/01-net.yaml",
        b"/etc/sysconfig/network-scripts/ifcfg-eth0",
        b"/etc/NetworkManager/system-connections/lan",
        b"/etc/NetworkManager/NetworkManager.conf",
        b"/etc/network/interfaces",
    ],
)
@pytest.mark.parametrize(
    "piece",
    [
        b"{macaddress: 1, ",
        b"{ ",
        b"- ",
        b" ",
        b"'",
        b"mac/",
        b"a mac/0",
        b"hwaddress ",
        b'ATTR{address}=="',
        b'NAME="',
        b"\\\n",
        b"[Match",
        b"A=",
        b"export ",
        b"mac:",
    ],
)
def test_a_line_of_any_length_is_looked_through_at_once(path: bytes, piece: bytes) -> None:
    parse = parser_for(path)
    assert parse
    start = time.process_time()
    for before in (b"", b"a: "):
        for _ in parse(path, before + piece * (64 * KIB // len(piece))):
            pass
    assert time.process_time() - start < 1


def test_an_initramfs_that_binds_as_the_system_did_is_told() -> None:
    contents = {
        b"etc/systemd/network/10-lan.link": f"[Match]\nMACAddress={A} {B}\n".encode(),
        b"usr/lib/udev/rules.d/70-persistent-net.rules": RULES.encode(),
        b"lib/systemd/network/vendor.link": f"[Match]\nMACAddress={D}\n".encode(),
        b"usr/lib/systemd/network/linked.link": f"[Match]\nMACAddress={D}\n".encode(),
        b"conf/conf.d/resume": f"{D}\n".encode(),
    }
    assert unbound_inside(TREE, b"/boot/initrd.img-6.1", contents) == ()
    files = Tree(
        {
            "/etc/network/interfaces": f"rename mac/{A}=wan\nrename mac/{C}=lan\n",
            "/usr/lib/systemd/network/vendor.link": f"[Match]\nMACAddress={D}\n",
        }
    )
    files.links = (b"/etc/systemd/network/linked.link",)
    found = unbound_inside(files, b"/boot/initrd.img-6.1", contents)
    assert [str(each) for each in found] == [
        f"/boot/initrd.img-6.1: {name} in it names the MAC {B}, which the system does not"
        for name in (
            "etc/systemd/network/10-lan.link",
            "usr/lib/udev/rules.d/70-persistent-net.rules",
        )
    ]
