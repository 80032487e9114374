"""The values in files of network configuration that name interfaces by their MAC addresses. Pure.

Each parser takes the path and content of one file and yields the places of values, in bytes, that hold addresses
somewhere in them. What it does not understand it passes over. Names that udev made of an address need no parser: they
are told by their form, wherever such a file has them.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from etsclone.model.tree import name_of
from etsclone.units import KIB


@dataclass(frozen=True, slots=True)
class Value:
    """Bytes `[start, end)` of a file; `matches` and `name` as of `model.hardware.Binding`."""

    start: int
    end: int
    matches: bool
    name: str = ""


Parser = Callable[[bytes, bytes], Iterator[Value]]


def parser_for(path: bytes) -> Parser | None:
    """The parser for a file in a folder of network configuration; None for other files there."""
    return next((parse for pattern, parse in _PARSERS if pattern.fullmatch(path)), None)


# --- names made of an address, systemd.net-naming-scheme(7) -----------------------------------------------------------

MADE_NAME = re.compile(rb"(?<![0-9A-Za-z])(?:en|wl|ww)x(?P<digits>[0-9a-f]{12})(?![0-9A-Za-z])")
_LINES = re.compile(rb"(?m)^[ \t]*[^#;\s][^\n]*")
"""Those that are no comments."""


def made_names(content: bytes) -> Iterator[Value]:
    """The digits of the address in each such name, and the name."""
    for line in _LINES.finditer(content):
        for match in MADE_NAME.finditer(content, *line.span()):
            yield Value(*match.span("digits"), matches=True, name=_text(match[0]))


def _only_names(_path: bytes, _content: bytes) -> Iterator[Value]:
    return iter(())


# --- udev(7) ---------------------------------------------------------------------------------------------------------

_RULE = re.compile(rb"(?:\\\n|[^\n])+")
_RULE_ADDRESS = re.compile(rb'\bATTRS?\{address\}\s*[!=]=\s*e?"([^"]*)"')
_RULE_NAME = re.compile(rb'\bNAME\s*:?=\s*"([^"]*)"')


def _rules(_path: bytes, content: bytes) -> Iterator[Value]:
    for rule in _RULE.finditer(content):
        if rule[0].lstrip().startswith(b"#"):
            continue
        name = _RULE_NAME.search(rule[0])
        for match in _RULE_ADDRESS.finditer(content, *rule.span()):
            yield Value(*match.span(1), matches=True, name=_text(name and name[1]))


# --- systemd.link(5), systemd.network(5), systemd.netdev(5), nm-settings-keyfile(5) ----------------------------------

_SECTION = re.compile(rb"\[([^\]]*)\]")
_SETTING = re.compile(rb"([A-Za-z0-9_.-]+)[ \t]*=[ \t]*")


@dataclass(frozen=True, slots=True)
class _Setting:
    """A key in a section of a file, and the bytes `[start, end)` that its value is on one line."""

    section: bytes
    key: bytes
    start: int
    end: int


def _settings(content: bytes) -> Iterator[_Setting]:
    section, key, continued, at = b"", b"", False, 0
    for line in content.splitlines(keepends=True):
        start, at = at, at + len(line)
        text = line.strip()
        if not text or text[:1] in b"#;":
            continue
        indent = line.index(text)
        if continued:
            yield _Setting(section, key, start + indent, start + indent + len(text))
        elif match := _SECTION.fullmatch(text):
            section = match[1]
        elif match := _SETTING.match(text):
            key = match[1]
            yield _Setting(section, key, start + indent + match.end(), start + indent + len(text))
        continued = text.endswith(b"\\")


def _ini(
    content: bytes, wanted: dict[tuple[bytes, bytes], bool], names: tuple[tuple[bytes, bytes], ...]
) -> Iterator[Value]:
    """Values of the wanted keys; `names` are those whose value is the interface's name, the best first."""
    found = list(_settings(content))
    first = {(each.section, each.key): content[each.start : each.end] for each in reversed(found)}
    name = _text(next((first[key] for key in names if key in first), None))
    for each in found:
        matches = wanted.get((each.section, each.key), wanted.get((b"", each.key)))
        if matches is not None:
            yield Value(each.start, each.end, matches, name)


def _systemd(_path: bytes, content: bytes) -> Iterator[Value]:
    wanted = {
        (b"Match", b"MACAddress"): True,
        (b"Match", b"PermanentMACAddress"): True,
        (b"Link", b"MACAddress"): False,
        (b"NetDev", b"MACAddress"): False,
    }
    sections = (b"Link", b"Match", b"NetDev")
    names = (*((section, b"Name") for section in sections), (b"Match", b"OriginalName"))
    return _ini(content, wanted, names)


def _connection(_path: bytes, content: bytes) -> Iterator[Value]:
    # The section is called after the kind of the connection.
    wanted = {(b"", b"mac-address"): True, (b"", b"cloned-mac-address"): False}
    return _ini(content, wanted, ((b"connection", b"interface-name"), (b"connection", b"id")))


_DEVICE_SPEC = re.compile(rb"\bmac:([0-9A-Fa-f:-]+)")


def _network_manager(_path: bytes, content: bytes) -> Iterator[Value]:
    for each in _settings(content):
        for match in _DEVICE_SPEC.finditer(content, each.start, each.end):
            yield Value(*match.span(1), matches=True)


# --- ifcfg-*, interfaces(5) ------------------------------------------------------------------------------------------

_ASSIGNMENT = re.compile(rb"(?m)^[ \t]*(?:export[ \t]+)?([A-Z0-9_]+)=[\"']?([^\"'\s#]*)")
_IFCFG_KEYS = {b"HWADDR": True, b"MACADDR": False, b"LLADDR": False}


def _ifcfg(path: bytes, content: bytes) -> Iterator[Value]:
    found = {match[1]: match[2] for match in _ASSIGNMENT.finditer(content)}
    name = _text(found.get(b"DEVICE") or name_of(path).removeprefix(b"ifcfg-"))
    for match in _ASSIGNMENT.finditer(content):
        if match[1] in _IFCFG_KEYS:
            yield Value(*match.span(2), _IFCFG_KEYS[match[1]], name)


_STANZA = re.compile(
    rb"(?m)^[ \t]*(?:iface[ \t]+(?P<name>\S+)|hwaddress[ \t]+(?:ether[ \t]+)?(?P<set>\S+)"
    rb"|[^#\s].*?\bmac/(?P<is>[0-9A-Fa-f:]+)(?:=(?P<new>\S+))?)"
)


def _interfaces(_path: bytes, content: bytes) -> Iterator[Value]:
    name = ""
    for match in _STANZA.finditer(content):
        if match["name"]:
            name = _text(match["name"])
        elif match["set"]:
            yield Value(*match.span("set"), matches=False, name=name)
        else:
            yield Value(*match.span("is"), matches=True, name=_text(match["new"]))


# --- dracut.cmdline(7), and what network boot loaders add ------------------------------------------------------------

_OPTION = re.compile(
    rb"(?:\bifname=(?P<name>[^\s:]{1,15}):(?P<named>[0-9A-Fa-f:]{17})|\bBOOTIF=(?:01-)?(?P<booted>[0-9A-Fa-f:-]{17}))"
    rb"(?![0-9A-Za-z:-])"
)


def _kernel_options(_path: bytes, content: bytes) -> Iterator[Value]:
    for line in _LINES.finditer(content):
        for match in _OPTION.finditer(content, *line.span()):
            yield Value(*match.span(match.lastgroup or 0), matches=True, name=_text(match["name"]))


# --- netplan(5), and the same in cloud-init's files ------------------------------------------------------------------

_YAML = re.compile(
    rb"(?m)^([ \t]*(?:-[ \t]+)*)([^\s#:'\"{\[-][^\s:]*|'[^'\n]*'|\"[^\"\n]*\")[ \t]*:(?=[ \t\r\n]|\Z)([^\n]*)"
)
_YAML_FLOW = re.compile(rb"[{}]|(?<=[{,])[ \t]*[\"']?macaddress[\"']?[ \t]*:[ \t]*([^\s,}]+)")
_YAML_LONGEST = 4 * KIB
"""Bytes of a line in flow style; nobody writes longer ones."""

_YAML_MATCH = b"match"


@dataclass(frozen=True, slots=True)
class _Line:
    """A `key: value` of block style, the keys that it is under, and the bytes `[start, end)` that its value is in."""

    above: tuple[bytes, ...]
    key: bytes
    start: int
    end: int


def _yaml(content: bytes) -> Iterator[_Line]:
    above: list[tuple[int, bytes]] = []
    for match in _YAML.finditer(content):
        indent, key, value = match.groups()
        while above and above[-1][0] >= len(indent):
            above.pop()
        size = len(value.partition(b" #")[0])
        yield _Line(
            tuple(key for _, key in above), _unquoted(key), match.start(3), match.start(3) + size
        )
        above.append((len(indent), _unquoted(key)))


def _netplan(_path: bytes, content: bytes) -> Iterator[Value]:
    lines = list(_yaml(content))
    names = {
        line.above: _unquoted(content[line.start : line.end])
        for line in lines
        if line.key == b"set-name"
    }
    for line in lines:
        here = (*line.above, line.key)
        if line.key == b"macaddress":
            matches = line.above[-1:] == (_YAML_MATCH,)
            yield Value(line.start, line.end, matches, _owner(line.above, names))
        elif line.key == b"mac_address":  # cloud-init's first version
            yield Value(line.start, line.end, matches=True)
        opened: list[int] = []
        end = min(line.end, line.start + _YAML_LONGEST)
        for flow in _YAML_FLOW.finditer(content, line.start, end):
            if flow[0] == b"{":
                opened.append(flow.start())
            elif flow[0] == b"}":
                del opened[-1:]
            elif opened:
                before = content[line.start : opened[-1]].rstrip(b" \t:\"'")
                matches = before.endswith(_YAML_MATCH) or (not before and line.key == _YAML_MATCH)
                yield Value(*flow.span(1), matches, _owner(here, names))


def _owner(keys: tuple[bytes, ...], names: dict[tuple[bytes, ...], bytes]) -> str:
    """The name that the configuration gives the interface, or the word under which it stands there."""
    keys = keys[:-1] if keys[-1:] == (_YAML_MATCH,) else keys
    return _text(names.get(keys) or (keys[-1] if keys else b""))


def _unquoted(text: bytes) -> bytes:
    return text.strip().strip(b"\"'")


def _text(name: bytes | None) -> str:
    return (name or b"").decode("utf-8", "replace")


_PARSERS: tuple[tuple[re.Pattern[bytes], Parser], ...] = tuple(
    (re.compile(pattern), parse)
    for pattern, parse in (
        (rb"/etc/udev/rules\.d/[^/]+\.rules", _rules),
        (rb"/etc/systemd/network/[^/]+\.(link|network|netdev)(\.d/[^/]+\.conf)?", _systemd),
        (rb"/etc/netplan/[^/]+\.yaml", _netplan),
        (rb"/etc/cloud/cloud\.cfg\.d/[^/]+\.cfg", _netplan),
        (rb"/etc/sysconfig/(network|network-scripts)/ifcfg-[^/]+", _ifcfg),
        (rb"/etc/NetworkManager/system-connections/[^/]+", _connection),
        (rb"/etc/NetworkManager/(NetworkManager|conf\.d/[^/]+)\.conf", _network_manager),
        (rb"/etc/network/(interfaces|interfaces\.d/[^/]+)", _interfaces),
        (rb"/etc/(default/isc-dhcp-server|sysconfig/dhcpd6?)", _only_names),
        (rb"/etc/(default/grub(\.d/[^/]+)?|kernel/cmdline|cmdline\.d/[^/]+)", _kernel_options),
        (rb"/etc/dracut\.conf(\.d/[^/]+)?", _kernel_options),
        (rb"/(boot|efi)/.+", _kernel_options),
    )
)
