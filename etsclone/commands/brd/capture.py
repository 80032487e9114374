"""`etsclone brd capture`: what makes a server itself, as a signed overlay in the store."""

import contextlib
import getpass
import logging
import tempfile
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO

from etsclone.chroot import in_chroot, require_root
from etsclone.commands.brd.inspect import header_facts
from etsclone.commands.output import add_json, print_json
from etsclone.commands.system import System, system_at, system_on_disk
from etsclone.commands.unchanged import keep_check, remember_generation, still_true
from etsclone.errors import TrustRefused
from etsclone.model.brd import NAMESPACE, Header, Signer
from etsclone.model.profile import Profile
from etsclone.model.tree import Entry
from etsclone.overlay import inventory
from etsclone.overlay.checked import Check
from etsclone.overlay.container import measure, read_envelope, write_overlay
from etsclone.overlay.content import content_digest
from etsclone.overlay.header import INVENTORY, PAYLOAD, digest
from etsclone.overlay.payload import write_payload
from etsclone.overlay.scan import scan
from etsclone.overlay.signing import SigningKey, load_private_key, sign
from etsclone.overlay.trust import Trust
from etsclone.profiles import load_profile
from etsclone.store.folder import NewOverlay, Store, open_store
from etsclone.units import human

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Captured:
    """What the child process inside the system tells: host name, how many paths, and what people should know."""

    host: str
    paths: int
    listed: int
    warnings: tuple[str, ...]


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=run)
    parser.add_argument("store", metavar="STORE", type=Path, help="the BRD store")
    parser.add_argument(
        "--role", metavar="ROLE", required=True, help="the role that this system has"
    )
    parser.add_argument(
        "--key",
        metavar="KEYFILE",
        type=Path,
        required=True,
        help="OpenSSH private key to sign with",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--root",
        metavar="DIR",
        default="/",
        help="where the system is mounted (default: /, this system)",
    )
    where.add_argument("--disk", metavar="DISK", help="disk or image file that carries the system")
    add_json(parser)


def run(arguments: Namespace) -> None:
    """Scan, archive, sign, store; when nothing changed, only the time is kept.

    Raises:
        NotRoot, StoreRefused, TrustRefused, KeyRefused, RootNotMounted: before anything was written.
        StoreFull, DeviceError: when the store cannot take it; nothing of it stays.
    """
    require_root()
    store = open_store(arguments.store)
    store.check_role(arguments.role)
    profile = load_profile(store.profile)
    key = load_private_key(
        arguments.key, lambda: getpass.getpass(f"passphrase of {arguments.key}: ").encode()
    )
    _check_signer(store, key, arguments.role)
    source = (
        system_on_disk(arguments.disk, writable=False)
        if arguments.disk
        else system_at(arguments.root)
    )
    with (
        source as system,
        tempfile.TemporaryFile() as payload,
        tempfile.TemporaryFile() as listing,
        store.new_overlay(arguments.role) as new,
    ):
        captured = _capture(system, profile, payload, listing)
        header = _header(store, profile, new, system, captured, payload, listing)
        content = _content(header, payload, listing)
        check = still_true(store, new, content, header.created)
        if check:
            keep_check(store, check, partial(sign, key=key))
        else:
            name = write_overlay(new.file, header, partial(sign, key=key), payload, listing)
            new.commit()
            remember_generation(store, new, name, content)
    if check:
        _report_unchanged(store, check, captured, as_json=arguments.json)
    else:
        _report(new, header, captured, as_json=arguments.json)


def _check_signer(store: Store, key: SigningKey, role: str) -> Signer:
    # An overlay that nobody will accept is worse than none: it looks like a backup.
    try:
        trust = Trust.parse(store.signers_path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrustRefused(f"cannot read {store.signers_path}: {error.strerror}") from error
    return trust.signer_for(key.public_key, role, NAMESPACE, datetime.now(UTC))


def _capture(system: System, profile: Profile, payload: BinaryIO, listing: BinaryIO) -> _Captured:
    """Fill the two files from inside the system, and rewind them."""

    def work() -> _Captured:
        listed = 0
        with inventory.writing(listing) as add:

            def count(entry: Entry) -> None:
                nonlocal listed
                listed += 1
                add(entry)

            seen = scan("/", profile.scope, skip=system.skip, listed=count)
        archived = write_payload(payload, "/", seen.scope)
        payload.flush()
        listing.flush()
        return _Captured(
            _host_name(), len(archived.tree), listed, (*seen.warnings, *archived.warnings)
        )

    captured = in_chroot(system.folder, work)
    payload.seek(0)
    listing.seek(0)
    return captured


def _host_name() -> str:
    with (
        contextlib.suppress(OSError),
        open("/etc/hostname", encoding="utf-8", errors="replace") as file,
    ):
        return file.readline().strip()
    return ""


def _header(
    store: Store,
    profile: Profile,
    new: NewOverlay,
    system: System,
    captured: _Captured,
    payload: BinaryIO,
    listing: BinaryIO,
) -> Header:
    previous = digest(read_envelope(new.previous.path).header) if new.previous else None
    members = (measure(PAYLOAD, payload), measure(INVENTORY, listing))
    payload.seek(0)
    listing.seek(0)
    return Header(
        pair=store.pair,
        role=new.generation.role,
        host=captured.host,
        profile=profile.name,
        profile_sha256=profile.sha256,
        scope=profile.scope,
        generation=new.generation.number,
        created=datetime.now(UTC).replace(microsecond=0),
        previous=previous,
        clone=system.clone,
        members=members,
    )


def _content(header: Header, payload: BinaryIO, listing: BinaryIO) -> str:
    content = content_digest(header, payload, listing)
    payload.seek(0)
    listing.seek(0)
    return content


def _report_unchanged(store: Store, check: Check, captured: _Captured, *, as_json: bool) -> None:
    path = store.overlay(check.role, check.generation)
    if as_json:
        facts = {"unchanged": True, "path": str(path), "role": check.role}
        facts |= {"generation": check.generation, "digest": check.digest}
        checked = {"checked": f"{check.checked:%Y-%m-%dT%H:%M:%SZ}"}
        print_json(facts | checked | {"warnings": list(captured.warnings)})
        return
    for warning in captured.warnings:
        print(f"note: {warning}")
    print(f"{path}: {check.role} is unchanged since generation {check.generation}; that was noted")


def _report(new: NewOverlay, header: Header, captured: _Captured, *, as_json: bool) -> None:
    path = new.generation.path
    size = path.stat().st_size
    if as_json:
        facts = {
            "unchanged": False,
            "path": str(path),
            "size": size,
            "paths": captured.paths,
            "listed": captured.listed,
        }
        print_json(header_facts(header) | facts | {"warnings": list(captured.warnings)})
        return
    for warning in captured.warnings:
        print(f"note: {warning}")
    print(f"{path}: generation {header.generation} of {header.role} ({header.host}), {human(size)}")
    print(
        f"{captured.paths} paths of the role are kept, {captured.listed} paths of the system are listed"
    )
