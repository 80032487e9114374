"""A BRD store in a folder: a removable medium, a share, a disk.

    brd.toml            what this is: format, pair, profile, roles, recipients
    allowed_signers     a copy of who is trusted (never itself the source of trust)
    ROLE/ROLE-NNNNNN.brd    the generations of a role's overlay
    ROLE/ROLE-NNNNNN.header what stays of a pruned one: its first two members
    ROLE/ROLE.checked       when the newest one was last found to be still true
    receipts/ drills/

What the overlays hold is of no interest here. Files are 0600 and folders 0700, where the filesystem knows modes.
"""

import contextlib
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from etsclone.errors import FormatError, StoreRefused, medium_error
from etsclone.model.brd import CONFIG, MAX_SIGNERS, SIGNERS, check_name, check_recipients
from etsclone.regular import check_amount, read_regular
from etsclone.store.files import (
    LOCK_NAME,
    NewFile,
    aside,
    aside_name,
    copy_file,
    cut_off,
    locked,
    replace_text,
    sweep,
    sync_folder,
    typed_errors,
)
from etsclone.units import MIB

FORMAT_VERSION = 1
RECEIPTS = "receipts"
DRILLS = "drills"

_KEYS = {"format", "pair", "profile", "roles", "created"}
_MAX_CONFIG = 64 * 1024
_MAX_RECORD = 64 * MIB
"""A receipt names each change of a rebuild: these are some hundred thousand."""

_MAX_GENERATION = 999_999
_RESERVED = {CONFIG, SIGNERS, RECEIPTS, DRILLS}
_RECEIPT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_GENERATION_NAME = re.compile(r"([a-z0-9][a-z0-9._-]{0,63})-([0-9]{6})\.(brd|header)")
# Not ours, yet in the root of a fresh filesystem; and what a `create` leaves that was cut from power.
_HARMLESS = {"lost+found", LOCK_NAME, aside_name(CONFIG)}


@dataclass(frozen=True, slots=True)
class Generation:
    """One overlay of a role in a store, or (`pruned`) what stays of it: the header and its signature."""

    role: str
    number: int
    path: Path
    pruned: bool = False


@dataclass(frozen=True, slots=True)
class NewOverlay:
    """The next generation of a role, while it is written. Only `commit` makes it a generation."""

    generation: Generation
    previous: Generation | None
    _output: NewFile

    @property
    def file(self) -> BinaryIO:
        """Where to write the overlay. Its errors are `StoreFull`, `StoreRefused` and `DeviceError`."""
        return self._output.file

    def commit(self) -> None:
        """Make it durable and give it its name. Without this nothing of it stays.

        Raises:
            StoreFull, StoreRefused, DeviceError: when that fails; the store is as it was before.
        """
        self._output.commit()


@dataclass(frozen=True, slots=True)
class Store:
    """A store that was opened, with what its brd.toml says. Overlays are sealed to `recipients`, if there are any."""

    path: Path
    pair: str
    profile: str
    roles: tuple[str, ...]
    created: datetime
    recipients: tuple[str, ...] = ()

    @property
    def signers_path(self) -> Path:
        """The store's copy of allowed_signers."""
        return self.path / SIGNERS

    def check_role(self, role: str) -> None:
        """Raise `StoreRefused` unless the pair has this role."""
        if role not in self.roles:
            raise StoreRefused(
                f"pair {self.pair} has no role {role!r}",
                hint=f"its roles are {', '.join(self.roles)}",
            )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the store against other writers: around reading, changing and `replace_text` of a file in it.

        What killed writers left is removed first.

        Raises:
            StoreRefused: when another process holds it, the store is read-only, or a role's folder lies elsewhere.
            DeviceError: when the medium fails.
        """
        with locked(self.path):
            sweep(self.path)
            for role in self.roles:
                _check_own(self.path / role)
                sweep(self.path / role)
            yield

    def with_recipients(self, recipients: Sequence[str]) -> "Store":
        """Keep other recipients in brd.toml. Hold the lock, and have opened the store under it.

        Raises:
            StoreFull, StoreRefused, DeviceError: when the medium does not take it; all is as it was.
            ValueError: when they are no recipients, one is named twice, or there are too many.
        """
        store = replace(self, recipients=check_recipients(recipients))
        replace_text(self.path / CONFIG, _config_text(store))
        return store

    def generations(self, role: str) -> tuple[Generation, ...]:
        """What was captured of a role, oldest first, without what was pruned.

        Raises:
            StoreRefused, DeviceError: as `history`.
        """
        return tuple(item for item in self.history(role) if not item.pruned)

    def history(self, role: str) -> tuple[Generation, ...]:
        """What was ever captured of a role, oldest first. Files with any other name than a generation's are not seen.

        Raises:
            StoreRefused: when the pair has no such role, or its folder may not be read.
            DeviceError: when the medium fails.
        """
        self.check_role(role)
        folder = self.path / role
        found = (generation_named(folder / name) for name in _file_names(folder))
        return tuple(item for item in found if item and item.role == role)

    def checked_path(self, role: str) -> Path:
        """Where it is kept when a role's newest generation was last found to be still true."""
        return self.path / role / f"{role}.checked"

    def overlay(self, role: str, generation: int | None = None) -> Path:
        """The file of a role's overlay: of that generation, or of the newest.

        Raises:
            StoreRefused: as `generation`.
        """
        return self.generation(role, generation).path

    def generation(self, role: str, generation: int | None = None) -> Generation:
        """A role's generation: that one, or the newest. Its number is what the name of its file says.

        Raises:
            StoreRefused: when there is no such role, nothing was ever captured of it, or not this generation.
        """
        found = {item.number: item for item in self.generations(role)}
        if not found:
            raise StoreRefused(
                f"role {role} was never captured into {self.path}",
                hint=f"run `etsclone brd capture {self.path} --role {role}` on that server",
            )
        number = max(found) if generation is None else generation
        if number not in found:
            pruned = any(item.number == number for item in self.history(role))
            raise StoreRefused(
                f"generation {number} of role {role} was pruned"
                if pruned
                else f"there is no generation {number} of role {role}",
                hint=f"there is {', '.join(map(str, found))}",
            )
        return found[number]

    @contextlib.contextmanager
    def new_overlay(
        self, role: str, check: Callable[[Generation], object] | None = None
    ) -> Iterator[NewOverlay]:
        """The next generation of a role, to be written and committed; the store is locked meanwhile.

        Args:
            role: the role.
            check: raises when nothing may follow the newest file of the role; called before anything is written.

        Raises:
            StoreRefused: when there is no such role, another process writes, or the store is read-only.
            StoreFull, DeviceError: when the medium is full or fails.
        """
        self.check_role(role)
        with self.lock():
            existing = self.history(role)
            previous = existing[-1] if existing else None
            if check and previous:
                check(previous)  # until then its number is only a name
            number = previous.number + 1 if previous else 1
            if number > _MAX_GENERATION:
                raise StoreRefused(
                    f"role {role} has used up its generation numbers", hint="begin a new store"
                )
            folder = _make_folder(self.path / role)
            generation = Generation(role, number, folder / f"{role}-{number:06d}.brd")
            with aside(generation.path) as output:
                yield NewOverlay(generation, previous, output)

    def write_check(self, role: str, data: bytes) -> None:
        """Keep when a role was last found unchanged, in one step. Hold the lock.

        Raises:
            StoreFull, StoreRefused, DeviceError: when that fails; what was kept before is untouched.
        """
        with aside(self.checked_path(role), replace=True) as new:
            new.file.write(data)
            new.commit()

    def prune(self, item: Generation, size: int) -> None:
        """Keep only the first `size` bytes of a generation, its header and signature. Hold the lock.

        Raises:
            StoreRefused, DeviceError: when that fails. The generation is whole, or has the name of a pruned one.
        """
        cut_off(item.path, f"{item.role}-{item.number:06d}.header", size)

    def take(self, item: Generation, size: int) -> int:
        """Copy a generation of another store into this one, read it back, and return its size (bytes). Hold the lock.

        Raises:
            TargetChanged: when it does not have this `size`: it is being pruned.
            DigestMismatch: when it cannot be read back as it was written.
            StoreFull, StoreRefused, DeviceError: as for every file; nothing of it stays.
        """
        return copy_file(item.path, _make_folder(self.path / item.role) / item.path.name, size=size)

    def take_file(self, other: "Store", path: Path) -> int:
        """Copy another file of `other` to the same place, and replace what is there. Otherwise as `take`."""
        place = path.relative_to(other.path)
        target, most = self.path / place, _most(place)
        if not _is_record(place):
            _make_folder(target.parent)
            return copy_file(path, target, most=most, replace=True)
        with _writing_records(target.parent):
            return copy_file(path, target, most=most)

    def check_size(self, path: Path) -> None:
        """Raise `StoreRefused` when a file of the store, other than a generation, has more bytes than any may have."""
        with typed_errors(path), contextlib.suppress(FileNotFoundError):
            check_amount(path.lstat().st_size, _most(path.relative_to(self.path)), path)

    def records(self) -> tuple[Path, ...]:
        """The receipts, and what else was written down of what was done with the store."""
        return tuple(
            self.path / folder / name
            for folder in (RECEIPTS, DRILLS)
            for name in _file_names(self.path / folder)
            if _RECEIPT_NAME.fullmatch(name)
        )

    def write_receipt(self, name: str, data: bytes) -> Path:
        """Keep a receipt in one step; none is ever overwritten.

        Args:
            name: a file name of letters, digits, '.', '_' and '-'.
            data: all of it.

        Raises:
            StoreRefused: when there is one of that name, or the store is read-only.
            StoreFull, DeviceError: when the medium is full or fails.
            ValueError: when the name is none.
        """
        if not _RECEIPT_NAME.fullmatch(name):
            raise ValueError(f"not the name of a receipt: {name!r}")
        folder = self.path / RECEIPTS
        with _writing_records(folder), aside(folder / name) as new:
            new.file.write(data)
            new.commit()
        return folder / name


def create(
    path: Path, pair: str, profile: str, roles: Sequence[str], recipients: Sequence[str] = ()
) -> Store:
    """Make a store in a folder that does not exist yet (its parent does) or is empty.

    Raises:
        StoreRefused: when the folder is not empty or cannot be made.
        StoreFull, DeviceError: when the medium is full or fails.
        ValueError: when pair, profile or a role is no name, a role has the name of something else in a store, or a
            recipient is none.
    """
    _check_roles(roles)
    store = Store(
        path,
        check_name(pair),
        check_name(profile),
        tuple(roles),
        datetime.now(UTC).replace(microsecond=0),
        check_recipients(recipients),
    )
    _create(store, _config_text(store))
    return store


def create_like(original: Store, path: Path) -> Store:
    """Make a store for the same pair in a folder that does not exist yet (its parent does) or is empty.

    Raises:
        StoreRefused, StoreFull, DeviceError: as `create`.
    """
    with typed_errors(original.path):
        text = read_regular(original.path / CONFIG, _MAX_CONFIG).decode("utf-8")
    store = replace(original, path=path)
    _create(store, text)
    return store


def _create(store: Store, config: str) -> None:
    _check_empty(_make_folder(store.path))
    with store.lock():
        # First of all: from here on the folder is a store, and what is still missing is made when it is needed.
        replace_text(store.path / CONFIG, config)
        replace_text(store.signers_path, "")
        for name in (*store.roles, RECEIPTS, DRILLS):
            _make_folder(store.path / name)


def open_store(path: Path) -> Store:
    """Read what the store in a folder says of itself.

    Raises:
        StoreRefused: when there is no store, or one that a newer etsclone made.
        FormatError: when its brd.toml does not have its format.
        DeviceError: when the medium fails.
    """
    try:
        data = read_regular(path / CONFIG, _MAX_CONFIG)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreRefused(
            f"{path} is no BRD store: it has no {CONFIG}",
            hint=f"is it mounted? `etsclone brd init {path}` makes one",
        ) from error
    except OSError as error:
        raise medium_error(error, path) or StoreRefused(
            f"{path / CONFIG}: {error.strerror}", hint="check the medium and your rights"
        ) from error
    try:
        return _parse_config(path, tomllib.loads(data.decode("utf-8")))
    except (ValueError, TypeError) as error:
        raise FormatError(
            f"{path / CONFIG} does not have its format: {error}",
            hint="restore it from another copy of the store",
        ) from error


def read_settings(path: Path) -> bytes:
    """All bytes of a store's brd.toml or allowed_signers.

    Raises:
        StoreRefused: when it is no regular file, too large, or may not be read.
        DeviceError: when the medium fails.
        FileNotFoundError: when there is none.
    """
    with typed_errors(path):
        return read_regular(path, MAX_SIGNERS)


def _parse_config(path: Path, values: dict[str, object]) -> Store:
    version = values.get("format")
    if type(version) is not int:
        raise TypeError("format is no number")
    if version > FORMAT_VERSION:
        raise StoreRefused(
            f"{path} has store format {version}: it was made by a newer etsclone",
            hint="use the newest etsclone",
        )
    if version != FORMAT_VERSION or set(values) - {"recipients"} != _KEYS:
        raise ValueError("it does not have exactly the keys of format 1")
    pair, profile, created = values["pair"], values["profile"], values["created"]
    roles, recipients = values["roles"], values.get("recipients", [])
    if not isinstance(recipients, list):
        raise TypeError("recipients is no list")
    if not isinstance(pair, str) or not isinstance(profile, str) or not isinstance(roles, list):
        raise TypeError("pair and profile are text, roles is a list")
    if not isinstance(created, datetime) or created.tzinfo is None:
        raise TypeError("created is no time with a zone")
    _check_roles(roles)
    return Store(
        path,
        check_name(pair),
        check_name(profile),
        tuple(roles),
        created,
        check_recipients(recipients),
    )


def _config_text(store: Store) -> str:
    # Names have no character that TOML would want escaped.
    roles = ", ".join(f'"{role}"' for role in store.roles)
    return (
        "# A store of backup and recovery data; see docs/brd-format.md of etsclone.\n"
        f"format = {FORMAT_VERSION}\n"
        f'pair = "{store.pair}"\n'
        f'profile = "{store.profile}"\n'
        f"roles = [{roles}]\n"
        f"created = {store.created:%Y-%m-%dT%H:%M:%SZ}\n"
    ) + _recipients_text(store)


def _recipients_text(store: Store) -> str:
    if not store.recipients:
        return ""
    # A printable text is written alike in JSON and in TOML.
    lines = "".join(f"    {json.dumps(line, ensure_ascii=False)},\n" for line in store.recipients)
    return f"recipients = [\n{lines}]\n"


def _check_roles(roles: Sequence[object]) -> None:
    for role in roles:
        if not isinstance(role, str) or check_name(role) in _RESERVED:
            raise ValueError(f"not the name of a role: {role!r}")
    if not roles or len(set(roles)) != len(roles):
        raise ValueError("roles are missing, or one is named twice")


def _check_empty(path: Path) -> None:
    names = {entry.name for entry in path.iterdir()} - _HARMLESS
    if CONFIG in names:
        raise StoreRefused(
            f"{path} is a BRD store already", hint="`etsclone brd list` shows what it holds"
        )
    if names:
        raise StoreRefused(
            f"{path} is not empty and no BRD store", hint="name an empty folder, or a new one"
        )


def generation_named(path: Path) -> Generation | None:
    """What a file in a store is by its name alone; None when it has no name of a generation."""
    match = _GENERATION_NAME.fullmatch(path.name)
    if match is None or not int(match[2]):
        return None
    return Generation(match[1], int(match[2]), path, match[3] == "header")


def lies_in(path: Path, store: Path) -> bool:
    """Whether a path, which need not exist, is a store's folder or lies in it, by whatever links and (bind) mounts.

    Raises:
        StoreRefused, DeviceError: when the store cannot be read.
    """
    with typed_errors(store):
        folders = {_identity(Path(folder)) for folder, _, _ in os.walk(store)} - {None}
        return any(_identity(each) in folders for each in (path, *path.resolve().parents))


def _identity(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        status = path.stat()
        return status.st_dev, status.st_ino
    return None


@contextlib.contextmanager
def _writing_records(folder: Path) -> Iterator[None]:
    """Hold a folder of records. It has a lock of its own: one may be written while a capture holds the store."""
    _check_own(folder)
    with locked(_make_folder(folder), wait=True):
        sweep(folder)
        yield


def _check_own(folder: Path) -> None:
    """Raise `StoreRefused` for a folder of a store that is a link: what is written to it, and swept, lies elsewhere."""
    if folder.is_symlink():
        raise StoreRefused(
            f"{folder}: it is a symbolic link, no folder",
            hint="no etsclone put it there: find out who did, and remove it",
        )


def _is_record(place: Path) -> bool:
    """Whether a file lies in a folder of records: its path in the store tells."""
    return place.parent.name in (RECEIPTS, DRILLS)


def _most(place: Path) -> int:
    return _MAX_RECORD if _is_record(place) else MAX_SIGNERS


def _file_names(folder: Path) -> list[str]:
    """The names of the files in a folder, sorted; none when there is no such folder. Links are no files of ours."""
    with typed_errors(folder):
        try:
            return sorted(
                entry.name for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False)
            )
        except (FileNotFoundError, NotADirectoryError):
            return []


def _make_folder(path: Path) -> Path:
    with typed_errors(path):
        try:
            if not path.is_dir():
                path.mkdir(0o700, exist_ok=True)
                sync_folder(path.parent)
        except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
            raise StoreRefused(
                f"cannot make the folder {path}: {error.strerror}", hint="is the medium mounted?"
            ) from error
    return path
