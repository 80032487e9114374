"""Where else a system names MAC addresses: in places that `nics` does not know, and so nobody maps. Pure.

All of /etc is looked through, and what boot loaders tell the kernel. What names other machines is left out: DHCP
servers, virtual machines, firewalls, access points. So are comments.
"""

import re
from collections.abc import Collection, Iterator
from operator import attrgetter

from etsclone.model.edit import Folders
from etsclone.model.hardware import Mention, Mentions, check_digits
from etsclone.model.tree import join, name_of
from etsclone.plan.nicfiles import MADE_NAME
from etsclone.plan.nics import bindings, mapped_places
from etsclone.plan.references import referring
from etsclone.units import KIB, MIB

_MOST_FILES = 20_000
_MOST_BYTES = 64 * MIB
_LARGEST = 512 * KIB
"""What is larger is a list or a database, and is about others."""

_MOST_MENTIONS = 100
"""More tell nobody anything."""

_OTHERS_FILES = re.compile(
    rb"/etc/(?:"
    rb"dhcp3?/(?!dhclient).*|dhcpd6?\.conf.*|dhcpd?(?:\.conf)?\.d/.*|kea/.*|dnsmasq\.(?:conf|d/).*|ethers|arp.*|wakeonlan.*|bootptab"
    rb"|ltsp/.*|fai/.*|cobbler/.*|libvirt/.*|lxc/.*|xen/.*|pve/.*|freeradius/.*|raddb/.*|hostapd.*|squid.*/.*"
    rb"|bluetooth/.*|ssl/.*)",
    re.DOTALL,
)
"""What is about other machines (DHCP, netboot and access servers, virtual machines, radio), and certificates."""

_OTHERS_LINE = re.compile(
    rb"(?i)\bhardware[ \t]+ethernet\b|\bdhcp-host\b|bssids?\b|--mac-source\b|\bether[ \t]+[sd]addr\b|\blladdr\b|\bneigh"
)
_COMMENT = re.compile(rb"[ \t]*(?:#|;|//)")

_PAIRS = rb"[0-9A-Fa-f]{2}(?:(?::[0-9A-Fa-f]{2}){5}|(?:-[0-9A-Fa-f]{2}){5})"
_ADDRESS = re.compile(
    rb"(?:(?<![0-9A-Za-z:.-])|(?<=mac:)|(?<=BOOTIF=01-)|\bifname=[^\s:]{1,15}:)(?P<pairs>%b)(?![0-9A-Za-z:-])"
    rb"|%b" % (_PAIRS, MADE_NAME.pattern)
)
"""Also in the options of a kernel, and in the names that udev makes of them."""

_BYTES = re.compile(rb"\s*(?:cloned-)?mac-address\s*=\s*((?:\d{1,3};){5}\d{1,3});?\s*")
"""As old versions of NetworkManager wrote them in keyfiles: six numbers."""


def mentions(files: Folders, own: Collection[str]) -> Mentions:
    """Where a system names addresses of interfaces that are not a machine's, and that no binding holds.

    Args:
        files: the system.
        own: the machine's addresses, as `check_mac` returns them.
    """
    # What a system gives its interfaces they have, on any machine.
    known = {*own, *(each.mac for each in bindings(files) if not each.matches)}
    found: list[Mention] = []
    size, whole = 0, True
    for number, path in enumerate(_paths(files)):
        if number == _MOST_FILES or size > _MOST_BYTES or len(found) > _MOST_MENTIONS:
            whole = False
            break
        content = files.read(path) or b""
        size += len(content)
        if len(content) <= _LARGEST:
            found += (each for each in mentions_in(path, content) if each.mac not in known)
    shown = sorted(found[:_MOST_MENTIONS], key=attrgetter("mac", "path", "line"))
    return Mentions(tuple(shown), whole and len(shown) == len(found))


def mentions_in(path: bytes, content: bytes) -> Iterator[Mention]:
    """The addresses in the name of a file and in its content that no binding holds, one of each in a line."""
    for match in _ADDRESS.finditer(name_of(path)):
        yield from _mention(path, 0, _digits(match))
    mapped = mapped_places(path, content)
    start, before = 0, b""
    for number, line in enumerate(content.splitlines(keepends=True), 1):
        if not _COMMENT.match(line) and not _OTHERS_LINE.search(line):
            # What is printed of a certificate goes on behind a colon.
            at = len(line) - len(line.lstrip()) + 1 if before.rstrip().endswith(b":") else 0
            digits = [
                _digits(match)
                for match in _ADDRESS.finditer(line, at)
                if start + match.end() not in mapped
            ]
            if numbers := _BYTES.fullmatch(line):
                digits.append(_digits_of_bytes(numbers[1]))
            for each in dict.fromkeys(digits):
                yield from _mention(path, number, each)
        start, before = start + len(line), line


def _paths(files: Folders) -> Iterator[bytes]:
    """All that is below /etc, and files elsewhere that tell a kernel its options."""
    due = [b"/etc"]
    while due:
        folder = due.pop()
        for path in (join(folder, name) for name in files.names(folder)):
            if not _OTHERS_FILES.fullmatch(path):
                yield path
                if files.is_folder(path):
                    due.append(path)
    yield from (path for path in referring(files) if not path.startswith(b"/etc/"))


def _digits(match: re.Match[bytes]) -> str:
    """Twelve, in lower case, however they are parted."""
    return (match["pairs"] or match["digits"]).decode().replace(":", "").replace("-", "").lower()


def _digits_of_bytes(numbers: bytes) -> str:
    return "".join(f"{int(number):02x}" for number in numbers.split(b";"))


def _mention(path: bytes, line: int, digits: str) -> Iterator[Mention]:
    try:
        yield Mention(path, line, check_digits(digits))
    except ValueError:
        return  # no interface's: zeros, a group, or numbers above 255
