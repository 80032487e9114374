"""What this machine remembers of the roles whose overlays it has seen, so that an old store is not taken for a new one.

    STATE/roles/PAIR/ROLE.json

    format      1
    newest      generation and header digest of the newest generation that was ever verified or captured here
    captured    header digest of the generation that was last captured here, and the digest of what it holds; or null

It is keyed by what is signed, pair and role: whoever can write to a store can write anything into its brd.toml.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from etsclone.errors import EtscloneError, FormatError
from etsclone.model.brd import check_name
from etsclone.model.history import Known
from etsclone.store.files import locked, replace_text, typed_errors
from etsclone.store.receipts import state_folder

FORMAT_VERSION = 1

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Captured:
    """The generation (its header's digest) that this machine captured last, and the digest of what it holds."""

    digest: str
    content: str


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered of one role."""

    newest: Known | None = None
    captured: Captured | None = None


def recall(pair: str, role: str) -> Memory:
    """What this machine knows of a role; nothing, when it has never seen one of its overlays.

    Raises:
        FormatError: when what it has written down cannot be understood.
        EtscloneError: when it cannot be read.
    """
    path = _path(pair, role)
    try:
        with typed_errors(path):
            text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return Memory()
    except UnicodeDecodeError as error:
        raise _damaged(path) from error
    try:
        return _memory(json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path) from error


def remember_newest(pair: str, role: str, known: Known, *, again: bool = False) -> None:
    """Remember a verified generation if it is the newest so far; `again`: even if a newer one was seen.

    That it cannot be written down is a warning: what was verified holds all the same.
    """

    def newer(memory: Memory) -> Memory:
        older = memory.newest is None or memory.newest.generation < known.generation
        return replace(memory, newest=known) if older or again else memory

    _change(pair, role, newer)


def remember_capture(pair: str, role: str, captured: Captured) -> None:
    """Remember what was captured last, so that the next capture can tell whether anything changed. As above."""
    _change(pair, role, lambda memory: replace(memory, captured=captured))


def _change(pair: str, role: str, work: Callable[[Memory], Memory]) -> None:
    path = _path(pair, role)
    try:
        if not _changes(work, recall(pair, role)):
            return  # who only looks need not be allowed to write
        with typed_errors(path):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(path.parent, wait=True):
            before = recall(pair, role)
            if _changes(work, before):
                replace_text(path, _text(work(before)))
    except (OSError, EtscloneError) as error:
        logger.warning("what was seen of role %s cannot be remembered: %s", role, error)


def _changes(work: Callable[[Memory], Memory], before: Memory) -> bool:
    return work(before) != before


def _path(pair: str, role: str) -> Path:
    return state_folder() / "roles" / check_name(pair) / f"{check_name(role)}.json"


def _text(memory: Memory) -> str:
    newest, captured = memory.newest, memory.captured
    values = {
        "format": FORMAT_VERSION,
        "newest": newest and {"generation": newest.generation, "digest": newest.digest},
        "captured": captured and {"digest": captured.digest, "content": captured.content},
    }
    return json.dumps(values, indent=2) + "\n"


def _memory(values: dict[str, Any]) -> Memory:
    if values["format"] != FORMAT_VERSION:
        raise ValueError("another format")
    newest, captured = values["newest"], values["captured"]
    return Memory(newest and Known(**newest), captured and Captured(**captured))


def _damaged(path: Path) -> FormatError:
    return FormatError(
        f"{path} is damaged, or of a newer etsclone",
        hint="remove it: this machine then no longer knows which generations it has seen",
    )
