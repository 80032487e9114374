"""Where a system names network interfaces by their MAC addresses, and its files with other addresses. Pure.

Only files that are about the system's own interfaces are looked at. A DHCP server's hosts are other machines: those
addresses stay. A name that udev made of an address (`enx525400123456`) is a binding to it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from etsclone.errors import UsageError
from etsclone.model.boot import Finding
from etsclone.model.edit import Edit, Files
from etsclone.model.hardware import Binding, check_digits
from etsclone.model.tree import join, name_of, parent_of, printable
from etsclone.plan.nicfiles import Value, made_names, parser_for
from etsclone.plan.references import referring

_FOLDERS = (
    b"/etc/udev/rules.d",
    b"/etc/systemd/network",
    b"/etc/netplan",
    b"/etc/sysconfig/network-scripts",
    b"/etc/sysconfig/network",
    b"/etc/NetworkManager",
    b"/etc/NetworkManager/conf.d",
    b"/etc/NetworkManager/system-connections",
    b"/etc/network",
    b"/etc/network/interfaces.d",
    b"/etc/cloud/cloud.cfg.d",
)
_DHCP_SERVERS = (b"/etc/default/isc-dhcp-server", b"/etc/sysconfig/dhcpd", b"/etc/sysconfig/dhcpd6")
"""Where dhcpd(8) is told on which interfaces it serves."""

_DROP_INS = re.compile(rb".+\.(?:link|network|netdev)\.d")

_MAC = re.compile(
    rb"(?<![0-9A-Fa-f:.-])"
    rb"(?:[0-9A-Fa-f]{2}(?:(?::[0-9A-Fa-f]{2}){5}|(?:-[0-9A-Fa-f]{2}){5})|[0-9A-Fa-f]{4}(?:\.[0-9A-Fa-f]{4}){2})"
    rb"(?![0-9A-Fa-f:.-])"
)


_TOP = re.compile(rb"^(?:etc|(?:usr/)?lib)/")
"""Where an initramfs has its copies."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A MAC address in bytes `[start, end)` of a file."""

    start: int
    end: int
    mac: str
    value: Value


def bindings(files: Files) -> tuple[Binding, ...]:
    """All places where a system names interfaces by their addresses, file by file."""
    return tuple(
        Binding(
            path,
            content.count(b"\n", 0, found.start) + 1,
            found.mac,
            found.value.name,
            found.value.matches,
        )
        for path, content in _texts(files)
        for found in _found(path, content)
    )


def rewrite(files: Files, mapping: Mapping[str, str]) -> tuple[Edit, ...]:
    """The edits after which a system names other addresses; all at once, so two may change places.

    An address is written with the separators and in the case in which the old one was found.

    Args:
        files: the system.
        mapping: other addresses by old ones, as `check_mac` returns them.

    Raises:
        UsageError: when the system names neither an old address nor what it is to become.
    """
    edits, named = [], set()
    for path, content in _texts(files):
        found = _found(path, content)
        named |= {each.mac for each in found}
        due = [each for each in found if mapping.get(each.mac, each.mac) != each.mac]
        if due:
            edits.append(
                Edit(path, content, _replaced(content, due, mapping), _reasons(due, mapping))
            )
    missing = [old for old, new in mapping.items() if not {old, new} & named]
    if missing:
        raise UsageError(
            f"no binding of the system names the MAC address {', '.join(missing)}",
            hint=f"they name {', '.join(sorted(named)) or 'none'}",
        )
    return tuple(edits)


def unbound_inside(
    files: Files, initramfs: bytes, contents: Mapping[bytes, bytes]
) -> tuple[Finding, ...]:
    """What the files in an initramfs bind interfaces to, and the system that it is made from does not any more.

    Args:
        files: the system.
        initramfs: its path.
        contents: by their names in it; copies of what is in /etc may lie below lib.
    """
    bound = {each.mac for each in bindings(files)}
    left: dict[tuple[bytes, str], None] = {}
    for name, content in contents.items():
        below = _TOP.sub(b"", name)
        path = b"/etc/" + below
        if not _is_link(files, path):
            vendors = (files.read(top + below) or b"" for top in (b"/usr/lib/", b"/lib/"))
            known = bound.union(*(_macs(path, each) for each in vendors))
            left |= {(name, mac): None for mac in _macs(path, content) if mac not in known}
    return tuple(
        Finding(
            f"{printable(name)} in it names the MAC {mac}, which the system does not",
            "it has to be made anew: interfaces get their names by it first",
            initramfs,
        )
        for name, mac in left
    )


def _is_link(files: Files, path: bytes) -> bool:
    """Whether there is something at a path that cannot be read as a file, but is copied into an initramfs."""
    return files.read(path) is None and name_of(path) in files.names(parent_of(path))


def maps(edit: Edit) -> bool:
    """Whether an edit gives a binding another address."""
    return _macs(edit.path, edit.before) != _macs(edit.path, edit.after)


def _macs(path: bytes, content: bytes) -> list[str]:
    return [each.mac for each in _found(path, content)]


def mapped_places(path: bytes, content: bytes) -> frozenset[int]:
    """Where the addresses in a file end that `bindings` tells and `rewrite` maps."""
    return frozenset(each.end for each in _found(path, content))


def _texts(files: Files) -> Iterator[tuple[bytes, bytes]]:
    """Every file that may name addresses, with its content."""
    for folder in _FOLDERS:
        for name in files.names(folder):
            path = join(folder, name)
            inside = files.names(path) if _DROP_INS.fullmatch(name) else ()
            for each in (path, *(join(path, below) for below in inside)):
                if parser_for(each) and (content := files.read(each)):
                    yield each, content
    # Among those that may name disks are those that tell a kernel its options.
    for path in (*_DHCP_SERVERS, *referring(files)):
        if parser_for(path) and (content := files.read(path)):
            yield path, content


def _found(path: bytes, content: bytes) -> list[_Found]:
    """The addresses in a file, in their order; none twice, even where one value is inside another one."""
    found: dict[int, _Found] = {}
    for value, start, end in _candidates(path, content):
        try:
            mac = check_digits(content[start:end].translate(None, b":.-").decode())
        except ValueError:
            continue  # all zeros, or a group: no interface
        found.setdefault(end, _Found(start, end, mac, value))
    return [found[end] for end in sorted(found)]


def _candidates(path: bytes, content: bytes) -> Iterator[tuple[Value, int, int]]:
    """The values in a file, and the bytes `[start, end)` in them that look like an address."""
    if parse := parser_for(path):
        for value in parse(path, content):
            for match in _MAC.finditer(content[value.start : value.end]):
                yield value, value.start + match.start(), value.start + match.end()
        for value in made_names(content):
            yield value, value.start, value.end


def _replaced(content: bytes, due: list[_Found], mapping: Mapping[str, str]) -> bytes:
    pieces, at = [], 0
    for each in due:
        pieces += [
            content[at : each.start],
            _like(content[each.start : each.end], mapping[each.mac]),
        ]
        at = each.end
    return b"".join((*pieces, content[at:]))


def _like(old: bytes, mac: str) -> bytes:
    """An address in the manner of another one."""
    digits = mac.replace(":", "").encode()
    digits = digits.upper() if old != old.lower() and old == old.upper() else digits
    separator = next((each for each in (b".", b":", b"-") if each in old), b"")
    size = 4 if separator == b"." else 2
    return separator.join(digits[at : at + size] for at in range(0, len(digits), size))


def _reasons(due: list[_Found], mapping: Mapping[str, str]) -> tuple[str, ...]:
    lines = (
        f"{each.value.name or 'an interface'} had the MAC {each.mac}, has {mapping[each.mac]}"
        for each in due
    )
    return tuple(dict.fromkeys(lines))
