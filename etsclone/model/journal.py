"""The journal of a rebuild: what changes hands, so that it can be finished or undone at any time. Data and its text.

docs/rebuild-journal.md is the format. Nothing here reads or writes files.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, TypeVar

from etsclone.errors import FormatError
from etsclone.model.keep import BootCode
from etsclone.model.tree import FLAGS, Kind

VERSIONS = range(1, 4)
LIMIT = 256 << 20
"""The most bytes of a journal that are read."""

TIMES = range(-(2**63) * 10**9, 2**63 * 10**9)
"""The times (ns since the epoch) that a file can be given: whole seconds are a signed number of 64 bits."""

_IDS = range(2**32 - 1)  # the last number is nobody's
_MODES = range(0o7777 + 1)
_PLACES = range(2**63)
_LONGEST_WORDS = 1000
_LONGEST_NAME, _LONGEST_VALUE = 255, 65536  # of an extended attribute, in bytes: xattr(7)
_LONGEST_COMPLAINT = 200
_CONTENT = re.compile(r"[0-9a-f]{64}|[0-9]{1,10}:[0-9]{1,10}|", re.ASCII)

Attributes = tuple[tuple[str, bytes], ...]
Item = TypeVar("Item")


class Progress(Enum):
    """How far a rebuild is. The values are the words of the journal."""

    STAGED = "staged"
    """New files are being prepared: no path of the system has changed."""
    BEGUN = "begun"
    """All is prepared, and paths may have changed hands: the next run finishes it, or undoes it when asked to."""
    APPLIED = "applied"
    """Done. What was replaced or removed is kept."""
    UNDOING = "undoing"
    """The next run goes on to undo it."""
    DROPPING = "dropping"
    """What was kept, or prepared, is being removed: nothing else is left to do."""


@dataclass(frozen=True, slots=True)
class Standing:
    """All that a folder is, but for what it holds; the fields are those of `Entry`."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: Attributes = ()
    flags: tuple[str, ...] = ()

    @property
    def lasting(self) -> "Standing":
        """Without what also changes if nobody means to change the folder."""
        return replace(self, mtime_ns=0, flags=())


@dataclass(frozen=True, slots=True)
class Seen:
    """All that stands at a path, by which it is known again.

    `content` is the SHA-256 (hex) of a file's bytes, or of where a symbolic link leads; of a device it is
    `major:minor`. `size` is that of a file or link. `standing` is None where a filesystem makes up owners and modes
    itself, as vfat does: there they tell nothing.
    """

    path: bytes
    kind: Kind
    size: int = 0
    content: str = ""
    standing: Standing | None = None


@dataclass(frozen=True, slots=True)
class Swap:
    """One path that changes hands: what stands there is moved aside (`old`), what was prepared takes its place (`new`).

    A folder comes and goes with all that it holds. `top` is the topmost folder of its filesystem; `flags` are those of
    what is moved aside, when they forbid that.
    """

    path: bytes
    top: bytes
    old: bool
    new: bool
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stay:
    """A folder that stays, with what it is before and after: paths in it change hands, or it gets other metadata."""

    path: bytes
    before: Standing
    after: Standing

    @property
    def is_changed(self) -> bool:
        """Whether the folder itself is meant to change, and not only the names in it."""
        return self.before.lasting != self.after.lasting


@dataclass(frozen=True, slots=True)
class Lock:
    """Flags that something new gets when all is in its place: before, they would forbid to move it."""

    path: bytes
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Steps:
    """What a rebuild does; a swap's number, which names what is kept and prepared for it, is its position.

    `code` is what an undo writes to the disk, `lost` what it cannot bring back, in words: what programs of the clone
    change when the steps are done. `was` is what all swaps move aside, `put` what they put in place and no program is
    going to change, each with all beneath it.
    """

    swaps: tuple[Swap, ...] = ()
    stays: tuple[Stay, ...] = ()
    locks: tuple[Lock, ...] = ()
    code: tuple[BootCode, ...] = ()
    lost: tuple[str, ...] = ()
    was: tuple[Seen, ...] = ()
    put: tuple[Seen, ...] = ()


@dataclass(frozen=True, slots=True)
class Journal:
    """A whole journal: when it was begun (UTC, ISO 8601), what it makes of the disk, and which filesystems it is on.

    `tops` are their topmost folders, the root first. Version 1 has no boot code, and nothing lost; before version 3,
    nothing tells what it was that is kept. `pair` is the pair whose role it makes, empty when nothing tells: a journal
    of any version may name it, and older readers pass over it.
    """

    began: str
    label: str
    tops: tuple[bytes, ...]
    steps: Steps = Steps()
    progress: Progress = Progress.STAGED
    version: int = 1
    pair: str = ""


def half_way(label: str, progress: Progress | None) -> str:
    """In words, where a system is between two roles; empty when it is one of them."""
    way = {Progress.BEGUN: "to", Progress.UNDOING: "back from"}.get(progress or Progress.STAGED)
    return f"half way {way} {label or 'another role'}" if way else ""


# --- writing -------------------------------------------------------------------------------------------------------


def head_line(journal: Journal) -> bytes:
    """The first line."""
    facts = {
        "journal": journal.version,
        "began": journal.began,
        "label": journal.label,
        "tops": [_text(top) for top in journal.tops],
    }
    return _line(facts | ({"pair": journal.pair} if journal.pair else {}))


def step_lines(steps: Steps) -> bytes:
    """The lines of all steps."""
    swaps: list[dict[str, Any]] = [
        {
            "swap": _text(swap.path),
            "top": _text(swap.top),
            "old": swap.old,
            "new": swap.new,
            "flags": swap.flags,
        }
        for swap in steps.swaps
    ]
    stays: list[dict[str, Any]] = [
        {
            "stay": _text(stay.path),
            "before": _standing_facts(stay.before),
            "after": _standing_facts(stay.after),
        }
        for stay in steps.stays
    ]
    locks = [{"lock": _text(lock.path), "flags": lock.flags} for lock in steps.locks]
    code = [
        {"code": each.start, "before": base64.b64encode(each.before).decode()}
        for each in steps.code
    ]
    lost = [{"lost": each} for each in steps.lost]
    was = [{"was": _text(seen.path)} | _seen_facts(seen) for seen in steps.was]
    put = [{"put": _text(seen.path)} | _seen_facts(seen) for seen in steps.put]
    return b"".join(map(_line, (*swaps, *stays, *locks, *code, *lost, *was, *put)))


def begun_line(before: bytes) -> bytes:
    """The line that says that all steps are written down; `before` are all the bytes before it."""
    return _line({"progress": Progress.BEGUN.value, "sha256": hashlib.sha256(before).hexdigest()})


def progress_line(progress: Progress) -> bytes:
    """The line that says that a rebuild is this far."""
    return _line({"progress": progress.value})


def _line(facts: Mapping[str, Any]) -> bytes:
    return json.dumps(facts, separators=(",", ":")).encode() + b"\n"


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _standing_facts(standing: Standing) -> dict[str, Any]:
    return {
        "mode": standing.mode,
        "uid": standing.uid,
        "gid": standing.gid,
        "mtime_ns": standing.mtime_ns,
        "xattrs": {name: base64.b64encode(value).decode() for name, value in standing.xattrs},
        "flags": standing.flags,
    }


def _seen_facts(seen: Seen) -> dict[str, Any]:
    return {
        "kind": seen.kind.value,
        "size": seen.size,
        "content": seen.content,
        "stands": seen.standing and _standing_facts(seen.standing),
    }


# --- reading -------------------------------------------------------------------------------------------------------


def parse_journal(data: bytes) -> Journal:
    """Read a journal; a last line that was cut off does not count, nor do steps that are not vouched for.

    Raises:
        FormatError: for anything that is no journal of this version.
    """
    lines = data.splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        del lines[-1]
    try:
        return _parsed(lines)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(
            f"the journal of an earlier rebuild is damaged: {str(error)[:_LONGEST_COMPLAINT]}",
            hint="docs/rebuild-journal.md tells how to look at it, and how to undo it by hand",
        ) from error


def _parsed(lines: list[bytes]) -> Journal:
    if not lines:
        return Journal("", "", ())
    facts = json.loads(lines[0])
    version = facts["journal"]
    if type(version) is not int or version not in VERSIONS:
        raise ValueError(f"its version {version!r} is not known here")
    began, label = _words(facts["began"]), _words(facts["label"])
    pair = _words(facts.get("pair", ""))
    tops = tuple(map(_path, facts["tops"]))
    if tops[:1] != (b"/",):
        raise ValueError("not a first line")
    read: dict[str, Callable[[Any], Any]] = {"swap": _swap, "stay": _stay, "lock": _lock}
    if version > 1:
        read |= {"code": _code, "lost": lambda facts: _words(facts["lost"])}
    if version > 2:
        read |= {"was": lambda facts: _seen("was", facts), "put": lambda facts: _seen("put", facts)}
    steps: dict[str, list[Any]] = {kind: [] for kind in read}
    progress = Progress.STAGED
    for number, line in enumerate(lines[1:], 1):
        facts = json.loads(line)
        kind = next(iter(facts), "")
        if kind == "progress":
            _check_progress(progress, facts, lines[:number])
            progress = Progress(facts["progress"])
        elif progress is not Progress.STAGED:
            raise ValueError("a step after the steps")
        else:
            steps[kind].append(read[kind](facts))
    found = Steps(*(tuple(each) for each in steps.values()))
    if not {swap.top for swap in found.swaps} <= set(tops):
        raise ValueError("a step on a filesystem that is not named")
    return Journal(began, label, tops, found, progress, version, pair)


def _check_progress(before: Progress, facts: Mapping[str, Any], lines: Iterable[bytes]) -> None:
    if (before is Progress.STAGED) != ("sha256" in facts):
        raise ValueError("steps that are not vouched for")
    if "sha256" in facts and facts["sha256"] != hashlib.sha256(b"".join(lines)).hexdigest():
        raise ValueError("its steps do not have their digest")


def _swap(facts: Mapping[str, Any]) -> Swap:
    old, new = facts["old"], facts["new"]
    if old not in (True, False) or new not in (True, False):
        raise ValueError("neither true nor false")
    if not old and not new:
        raise ValueError("a swap of nothing")
    return Swap(_path(facts["swap"]), _path(facts["top"]), old, new, _flags(facts["flags"]))


def _stay(facts: Mapping[str, Any]) -> Stay:
    return Stay(_path(facts["stay"]), _standing(facts["before"]), _standing(facts["after"]))


def _lock(facts: Mapping[str, Any]) -> Lock:
    return Lock(_path(facts["lock"]), _flags(facts["flags"]))


def _code(facts: Mapping[str, Any]) -> BootCode:
    return BootCode(
        _number(facts["code"], _PLACES), base64.b64decode(facts["before"], validate=True)
    )


def _seen(key: str, facts: Mapping[str, Any]) -> Seen:
    content, stands = facts["content"], facts["stands"]
    if _CONTENT.fullmatch(content) is None:
        raise ValueError("not a content")
    return Seen(
        _path(facts[key]),
        Kind(facts["kind"]),
        _number(facts["size"], _PLACES),
        content,
        None if stands is None else _standing(stands),
    )


def _standing(facts: Mapping[str, Any]) -> Standing:
    return Standing(
        mode=_number(facts["mode"], _MODES),
        uid=_number(facts["uid"], _IDS),
        gid=_number(facts["gid"], _IDS),
        mtime_ns=_number(facts["mtime_ns"], TIMES),
        xattrs=tuple(sorted(map(_attribute, facts["xattrs"].items()))),
        flags=_flags(facts["flags"]),
    )


def _number(value: object, allowed: range) -> int:
    if type(value) is not int or value not in allowed:
        raise ValueError(f"no such number: {value!r}")
    return value


def _words(text: object) -> str:
    """What is shown to people before they answer: nothing that could write to their terminal."""
    if not isinstance(text, str) or not text.isprintable() or len(text) > _LONGEST_WORDS:
        raise ValueError("not a line of plain text")
    return text


def _attribute(item: tuple[str, str]) -> tuple[str, bytes]:
    name, value = item[0], base64.b64decode(item[1], validate=True)
    if (
        not 0 < len(name.encode("utf-8", "surrogateescape")) <= _LONGEST_NAME
        or "\0" in name
        or len(value) > _LONGEST_VALUE
    ):
        raise ValueError(f"not an attribute: {name!r}")
    return name, value


def _path(text: str) -> bytes:
    path = text.encode("utf-8", "surrogateescape")
    components = path.split(b"/")[1:]
    if path != b"/" and (
        not path.startswith(b"/") or {b"", b".", b".."} & set(components) or b"\0" in path
    ):
        raise ValueError(f"not a plain path: {path!r}")
    return path


def _flags(words: list[str]) -> tuple[str, ...]:
    flags = tuple(words)
    if flags != tuple(flag for flag in FLAGS if flag in flags):
        raise ValueError(f"not flags: {flags}")
    return flags
