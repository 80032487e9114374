"""How a comparison is told: as text for people, as facts for programs."""

import os
from collections.abc import Callable, Sequence

from etsclone.model.diff import (
    Change,
    Comparison,
    Course,
    Difference,
    Meaning,
    PackageChange,
    Shown,
    TextDiff,
)
from etsclone.model.tree import Kind, printable
from etsclone.units import counted

FEW_LINES = 100
"""How many lines of one meaning are printed unless all are asked for."""

_TITLES = {
    Meaning.UNCLAIMED: "unclaimed, a rebuild would miss it",
    Meaning.SCOPE: "in scope, kept by the overlays",
    Meaning.DISK: "bound to the disk, each clone keeps its own",
    Meaning.VOLATILE: "volatile, changes by itself",
    Meaning.TIME: "time only, nothing else differs",
}
_LISTED = (Meaning.UNCLAIMED, Meaning.SCOPE)
"""Meanings whose paths everybody wants to see; of the others the number will do."""

_SIGNS = {Change.ADDED: "+", Change.REMOVED: "-", Change.CHANGED: "~", Change.BENEATH: "~"}
_KINDS = {Kind.FOLDER: "folder", Kind.SYMLINK: "link"}


def print_comparison(
    comparison: Comparison,
    *,
    everything: bool,
    indent: str = "",
    out: Callable[[str], None] = print,
) -> None:
    """Print what differs by what it means; nothing of a meaning that nothing has."""
    for meaning, title in _TITLES.items():
        packages = comparison.packages if meaning is Meaning.UNCLAIMED else ()
        lines = [package_line(each) for each in packages]
        lines += [path_line(each) for each in comparison.differences[meaning]]
        if not lines:
            continue
        listed = everything or meaning in _LISTED
        shown = lines if everything else lines[: FEW_LINES if listed else 0]
        out(f"{indent}{title}: {_amount(len(packages), comparison.paths[meaning])}")
        for line in shown:
            out(f"{indent}  {line}")
        if listed and len(shown) < len(lines):
            out(f"{indent}  and {counted(len(lines) - len(shown), 'line')} more: --all shows them")


def print_texts(texts: Sequence[TextDiff]) -> None:
    """Print how contents differ, those that may be shown."""
    for text in texts:
        print()
        if text.shown is Shown.SECRET:
            print(f"{printable(text.path)} is secret and differs: --show-secrets shows it")
            continue
        if text.shown is not Shown.TEXT:
            print(f"{printable(text.path)} is {_SHOWN[text.shown]}")
        for line in text.lines:
            print(line)


def package_line(change: PackageChange) -> str:
    """A package in one line: `isc-dhcp-server upgraded 4.4.3-P1-2 -> 4.4.3-P1-4 (12 paths)`."""
    before, after = ", ".join(change.before), ", ".join(change.after)
    versions = {Course.INSTALLED: after, Course.REMOVED: before}.get(
        change.course, f"{before} -> {after}"
    )
    paths = f" ({counted(change.paths, 'path')})" if change.paths else ""
    return f"package {change.name} {change.course.value} {versions}{paths}"


def path_line(difference: Difference) -> str:
    """A path in one line: `~ /etc/hosts (content)`, `+ /opt/tool (folder, 31 paths)`."""
    # That the time differs too goes without saying.
    words = [word for word in difference.what if word != "time"] or list(difference.what)
    if difference.change is Change.BENEATH:
        words = [f"{counted(difference.paths, 'path')} beneath"]
    elif difference.change is not Change.CHANGED:
        words = [_KINDS[difference.kind]] if difference.kind in _KINDS else []
        words += [counted(difference.paths, "path")] if difference.paths > 1 else []
    details = f" ({', '.join(words)})" if words else ""
    return f"{_SIGNS[difference.change]} {printable(difference.path)}{details}"


def summary(comparison: Comparison) -> str:
    """What is unclaimed in a few words."""
    lines = [package_line(each) for each in comparison.packages]
    lines += [path_line(each) for each in comparison.differences[Meaning.UNCLAIMED]]
    more = f"; and {len(lines) - 3} more" if len(lines) > 3 else ""
    return "; ".join(lines[:3]) + more


def comparison_facts(comparison: Comparison) -> dict[str, object]:
    """A comparison as JSON facts; bytes of names that are not UTF-8 are surrogate escapes."""
    return {
        "unclaimed": comparison.unclaimed,
        "paths": {meaning.value: count for meaning, count in comparison.paths.items()},
        "packages": [
            {
                "name": each.name,
                "arch": each.arch,
                "change": each.course.value,
                "before": list(each.before),
                "after": list(each.after),
                "paths": each.paths,
            }
            for each in comparison.packages
        ],
        "differences": [
            {
                "path": os.fsdecode(each.path),
                "meaning": meaning.value,
                "change": each.change.value,
                "kind": each.kind.value,
                "what": list(each.what),
                "paths": each.paths,
            }
            for meaning, found in comparison.differences.items()
            for each in found
        ],
    }


def text_facts(texts: Sequence[TextDiff]) -> list[dict[str, object]]:
    """Differing contents as JSON facts."""
    return [
        {"path": os.fsdecode(text.path), "shown": text.shown.value, "lines": list(text.lines)}
        for text in texts
    ]


_SHOWN = {Shown.BINARY: "no text", Shown.LARGE: "too large to be compared line by line"}


def _amount(packages: int, paths: int) -> str:
    words = [counted(packages, "package")] if packages else []
    words += [counted(paths, "path")] if paths else []
    return ", ".join(words)
