"""Lines for a profile that would claim what no list claims yet: a proposal for a person to look over."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from etsclone.model.diff import Change, Difference, PackageChange
from etsclone.model.tree import name_of, parent_of
from etsclone.units import counted

FEW = 3
"""From how many differing siblings on they are claimed together."""

_COMMON = re.compile(
    rb"(?:/[^/]*|/(?:usr|var|home)/[^/]*|/usr/(?:local|lib|share)/[^/]*|/etc/systemd/[^/]*"
    rb"|/etc/(?:alternatives|apt|default|init\.d|pam\.d|profile\.d|rc.\.d|ssl|systemd)|/var/lib/systemd)"
)
"""Folders that hold so many things that nobody can mean all of them at once. A whole new one can be meant."""

_OF_ONE_MACHINE = re.compile(
    rb"[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE
)
"""A machine-id or a UUID: another machine has another one."""

_DISK = re.compile(
    rb"/(?:boot|efi)/.*|/etc/(?:fstab|crypttab|initramfs-tools|default/grub)[^/]*(?:/.*)?"
    # Not what makes overlays, and says whom to believe of them: an overlay of the store must not bring it.
    rb"|/etc/etsclone(?:/.*)?"
)
_VOLATILE = re.compile(
    rb"/(?:run|tmp|proc|sys|dev|media|mnt)(?:/.*)?"
    rb"|/var/(?:log|cache|tmp|run|lock|spool|backups|crash|mail)(?:/.*)?"
    rb"|.*(?:\.pid|\.lock|\.log(?:\.[0-9]+)?|\.leases?~?|\.cache|\.bak|\.old|\.sw[op]|~|-)"
    rb"|.*/(?:\.cache|__pycache__|lost\+found|\.[a-z]*_history)(?:/.*)?"
)
_STATE = re.compile(rb"/var/.*")


def suggestion(differences: Sequence[Difference], packages: Sequence[PackageChange] = ()) -> str:
    """The lists as TOML, ready to be put under `[scope]` of a profile. Every path is claimed by one of them.

    Args:
        differences: what no list claims.
        packages: what no list can claim; named in comments.
    """
    lists: dict[str, dict[str, str]] = defaultdict(dict)
    for pattern, members in _patterns(differences).items():
        lists[_list_for(members)].setdefault(pattern, _remark(members))
    text = [f"# {_package(change)}" for change in packages]
    for name in ("role", "disk", "volatile"):
        if lists[name]:
            rows = (f"    {_string(key)},{remark}\n" for key, remark in lists[name].items())
            text.append(f"{name} = [\n{''.join(rows)}]")
    return "".join(f"{part}\n" for part in text)


def _patterns(differences: Sequence[Difference]) -> Mapping[str, list[Difference]]:
    """A pattern for each difference, or one for many."""
    siblings: dict[bytes, list[Difference]] = defaultdict(list)
    for difference in differences:
        if difference.path != b"/":  # no pattern claims the root itself
            siblings[parent_of(difference.path)].append(difference)
    patterns: dict[str, list[Difference]] = defaultdict(list)
    for folder, members in siblings.items():
        together = _together(folder, members)
        for member in members:
            patterns[together or _exactly(member.path)].append(member)
    return patterns


def _together(folder: bytes, members: Sequence[Difference]) -> str | None:
    """One pattern for many differing siblings: those with their ending, or all that the folder holds."""
    if len(members) < FEW or len({_list_for([member]) for member in members}) > 1:
        return None
    endings = {name_of(member.path).rpartition(b".")[1:] for member in members}
    dot, ending = endings.pop() if len(endings) == 1 else (b"", b"")
    if dot and ending:
        return f"{_exactly(folder)}/*.{_component(ending)}"
    return None if _COMMON.fullmatch(folder) else _exactly(folder)


def _list_for(members: Iterable[Difference]) -> str:
    path = next(iter(members)).path
    if _DISK.fullmatch(path):
        return "disk"
    return "volatile" if _VOLATILE.fullmatch(path) else "role"


def _remark(members: Sequence[Difference]) -> str:
    """Why a line is there, as a comment."""
    first = members[0]
    if len(members) > 1:
        what = f"{counted(len(members), 'path')} differ"
    elif first.change is Change.CHANGED:
        what = ", ".join(first.what)
    else:
        what = (
            f"{first.change.value}, {counted(first.paths, 'path')}"
            if first.paths > 1
            else first.change.value
        )
    if _STATE.fullmatch(first.path) and _list_for(members) == "role":
        what += "; volatile, if it changes by itself"
    return f"  # {what}"


def _package(change: PackageChange) -> str:
    versions = " -> ".join(", ".join(side) or "nothing" for side in (change.before, change.after))
    return f"no pattern can claim packages: {change.name} {versions}, install the same on both"


def _exactly(path: bytes) -> str:
    return "".join(f"/{_component(part)}" for part in path.split(b"/")[1:] if part)


def _component(name: bytes) -> str:
    """A component that matches exactly this name, or, of what only one machine is called, every name."""
    if _OF_ONE_MACHINE.fullmatch(name):
        return "*"
    return "".join(map(_character, name.decode("utf-8", "surrogateescape")))


def _character(char: str) -> str:
    if char in "*?[":
        return f"[{char}]"
    # What no signed header takes: the wildcard stands for one byte of it.
    return char if char.isprintable() else "?" * len(char.encode("utf-8", "surrogateescape"))


def _string(text: str) -> str:
    """A basic string of TOML: printable text is written as in JSON."""
    return json.dumps(text, ensure_ascii=False)
