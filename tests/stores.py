"""Stores with real, signed overlays, made without a system to capture; and the command line, run in this process."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from etsclone import cli
from etsclone.model.brd import CloneIdentity, Header
from etsclone.model.scope import Scope
from etsclone.overlay.checked import Check, write_check
from etsclone.overlay.container import measure, read_envelope, write_overlay
from etsclone.overlay.header import INVENTORY, PAYLOAD, digest
from etsclone.overlay.signing import SigningKey, generate_key, load_private_key, sign
from etsclone.overlay.trust import add_signer, public_key_line
from etsclone.store.files import replace_text
from etsclone.store.folder import Store, create

ROLES = ("primary", "secondary")
START = datetime(2026, 1, 1, 3, 0, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def facts(self) -> Any:  # noqa: ANN401 - JSON
        return json.loads(self.out)


def etsclone(*words: str | Path, typed: str = "") -> Result:
    """Run the command line in this process, which goes on seeing what is mounted, and mounting it for all."""
    out, err = io.StringIO(), io.StringIO()
    shared = mock.patch("etsclone.commands.system.mount_privately")
    with redirect_stdout(out), redirect_stderr(err), _typing(typed), shared:
        code = _code([str(word) for word in words])
    return Result(code, out.getvalue(), err.getvalue())


@dataclass(frozen=True)
class Made:
    """A store, its trust, and the keys of its roles."""

    store: Store
    keys: dict[str, SigningKey] = field(repr=False)

    @property
    def path(self) -> Path:
        return self.store.path

    @property
    def trust(self) -> Path:
        return self.store.signers_path

    def capture(
        self,
        role: str = "primary",
        created: datetime | None = None,
        content: bytes = b"",
        **changes: Any,  # noqa: ANN401 - of the header
    ) -> Path:
        """Write the next generation of a role, a day after the one before it."""
        with self.store.new_overlay(role) as new:
            before = read_envelope(new.previous.path).header if new.previous else None
            number = new.generation.number
            payload, listing = io.BytesIO(content or f"{role} {number}".encode()), io.BytesIO()
            header = Header(
                pair=self.store.pair,
                role=role,
                host="host",
                profile=self.store.profile,
                profile_sha256="0" * 64,
                scope=Scope(("/etc",), (), ()),
                generation=number,
                created=created or START + timedelta(days=number),
                previous=digest(before) if before else None,
                clone=CloneIdentity(),
                members=(measure(PAYLOAD, payload), measure(INVENTORY, listing)),
            )
            payload.seek(0)
            write_overlay(
                new.file,
                replace(header, **changes),
                partial(sign, key=self.keys[role]),
                payload,
                listing,
            )
            new.commit()
        return new.generation.path

    def check(self, name: str, at: datetime, **changes: Any) -> None:  # noqa: ANN401 - of the record
        """Note that a role is unchanged."""
        newest = self.store.generations(name)[-1]
        check = Check(
            self.store.pair, name, newest.number, digest(read_envelope(newest.path).header), at
        )
        record = io.BytesIO()
        write_check(record, replace(check, **changes), partial(sign, key=self.keys[name]))
        with self.store.lock():
            self.store.write_check(name, record.getvalue())

    def at(self, path: Path) -> "Made":
        """The same keys with a copy of the store."""
        return Made(replace(self.store, path=path), self.keys)


def make_keys(folder: Path) -> dict[str, SigningKey]:
    """A key a role."""
    for role in ROLES:
        generate_key(folder / role)
    return {role: load_private_key(folder / role, lambda: b"") for role in ROLES}


def make(path: Path, keys: dict[str, SigningKey], pair: str = "ets") -> Made:
    """An empty store that lists the keys."""
    store = create(path, pair, "ltsp-isc-dhcp", ROLES)
    text = ""
    for role, key in keys.items():
        text = add_signer(text, role, public_key_line(key.public_key))
    with store.lock():
        replace_text(store.signers_path, text)
    return Made(store, keys)


def contents(path: Path) -> dict[str, bytes]:
    """The files of a store but for its locks."""
    files = (file for file in path.rglob("*") if file.is_file() and file.name != ".lock")
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def _code(words: list[str]) -> int:
    try:
        cli.main(words)
    except SystemExit as end:
        return int(end.code or 0)


@contextmanager
def _typing(text: str) -> Iterator[None]:
    with mock.patch("sys.stdin", io.StringIO(text)):
        yield


def generation(made: Made, number: int, role: str = "primary", suffix: str = "brd") -> Path:
    return made.path / role / f"{role}-{number:06d}.{suffix}"


def verify(made: Made, *more: str) -> Result:
    return etsclone("brd", "verify", made.path, "--trust", made.trust, *more)


def prune(made: Made, *more: str) -> Result:
    return etsclone("brd", "prune", made.path, "--trust", made.trust, *more)


def copy(made: Made, target: Path, *more: str) -> Result:
    return etsclone("brd", "copy", made.path, target, "--trust", made.trust, *more)


def check(made: Made, age: str, *more: str) -> Result:
    return etsclone("brd", "check", made.path, "--max-age", age, "--trust", made.trust, *more)


def flaws(result: Result) -> list[tuple[str, str, int]]:
    return [(each["flaw"], each["role"], each["generation"]) for each in result.facts["problems"]]


def refuses(result: Result, code: int, message: str) -> None:
    assert result.code == code, result.err
    assert message in result.err
    assert "hint: " in result.err
