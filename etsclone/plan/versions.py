"""Which packages came, went or became another version."""

import re
from collections.abc import Iterable, Sequence

from etsclone.model.diff import Course, PackageChange
from etsclone.model.packages import Package

_PARTS = re.compile(r"([^0-9]*)([0-9]*)")

_PartKey = tuple[tuple[tuple[int, ...], int], ...]
SortKey = tuple[int, _PartKey, _PartKey]


def package_changes(
    before: Iterable[Package], after: Iterable[Package]
) -> tuple[PackageChange, ...]:
    """What became of each package of which the two sides have different versions, by name and architecture."""
    old, new = _versions(before), _versions(after)
    return tuple(
        PackageChange(
            *key, _course(old.get(key, ()), new.get(key, ())), old.get(key, ()), new.get(key, ())
        )
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    )


def sort_key(version: str) -> SortKey:
    """A key that sorts versions as dpkg does (deb-version(7)); what RPM versions consist of is nearly the same."""
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "0")
    return (int(epoch) if epoch.isdigit() else 0, _part_key(upstream), _part_key(revision))


def _versions(packages: Iterable[Package]) -> dict[tuple[str, str], tuple[str, ...]]:
    versions: dict[tuple[str, str], tuple[str, ...]] = {}
    for package in packages:
        key = (package.name, package.arch)
        versions[key] = (*versions.get(key, ()), package.version)
    return versions


def _course(before: Sequence[str], after: Sequence[str]) -> Course:
    if not before:
        return Course.INSTALLED
    if not after:
        return Course.REMOVED
    newer = max(map(sort_key, before)) < max(map(sort_key, after))
    return Course.UPGRADED if newer else Course.DOWNGRADED


def _part_key(text: str) -> _PartKey:
    """Text and numbers in turn. A tilde sorts before the end, the end before letters, letters before the rest."""
    return tuple(
        ((*map(_weight, letters), 0), int(digits or "0"))
        for letters, digits in _PARTS.findall(text)
    )


def _weight(character: str) -> int:
    if character == "~":
        return -1
    return ord(character) + (0 if character.isalpha() else 256)
