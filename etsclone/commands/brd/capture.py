"""`etsclone brd capture`: what makes a server itself, as a signed overlay in the store."""

import contextlib
import getpass
import logging
import tempfile
import time
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from etsclone.chroot import in_chroot, require_root
from etsclone.commands.brd.inspect import header_facts
from etsclone.commands.listings import listing_aids
from etsclone.commands.output import add_json, print_json
from etsclone.commands.system import System, system_at, system_on_disk
from etsclone.errors import TrustRefused
from etsclone.model.brd import NAMESPACE, Header, Signer
from etsclone.model.profile import Profile
from etsclone.overlay import inventory
from etsclone.overlay.container import measure, read_envelope, write_overlay
from etsclone.overlay.header import INVENTORY, PAYLOAD, digest
from etsclone.overlay.listing import Aids, list_tree
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
    """What the child process inside the system tells: host name, how many paths, how many read, and what
    people should know."""

    host: str
    paths: int
    listed: int
    read: int
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
    parser.add_argument(
        "--full",
        action="store_true",
        help="read every file, also those that are as the last capture saw them",
    )
    add_json(parser)


def run(arguments: Namespace) -> None:
    """Scan, archive, sign, store.

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
        started = time.time_ns()
        with listing_aids(store.pair, arguments.role, full=arguments.full) as aids:
            captured = _capture(system, profile, payload, listing, (started, aids))
        header = _header(store, profile, new, system, captured, payload, listing)
        write_overlay(new.file, header, lambda message: sign(message, key), payload, listing)
        new.commit()
    _report(new, header, captured, as_json=arguments.json)


def _check_signer(store: Store, key: SigningKey, role: str) -> Signer:
    # An overlay that nobody will accept is worse than none: it looks like a backup.
    try:
        trust = Trust.parse(store.signers_path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrustRefused(f"cannot read {store.signers_path}: {error.strerror}") from error
    return trust.signer_for(key.public_key, role, NAMESPACE, datetime.now(UTC))


def _capture(
    system: System, profile: Profile, payload: BinaryIO, listing: BinaryIO, when: tuple[int, Aids]
) -> _Captured:
    """Fill the two files from inside the system, and rewind them."""
    started_ns, aids = when

    def work() -> _Captured:
        seen = scan("/", profile.scope, skip=system.skip)
        archived = write_payload(payload, "/", seen.scope)
        with inventory.writing_lines(listing) as write:
            listed = list_tree(
                "/", profile.scope, write, started_ns=started_ns, skip=system.skip, aids=aids
            )
        payload.flush()
        listing.flush()
        # Both read the files of the scope: what changes meanwhile is told once.
        warnings = dict.fromkeys((*seen.warnings, *archived.warnings, *listed.warnings))
        return _Captured(
            _host_name(), len(archived.tree), listed.paths, listed.read, tuple(warnings)
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


def _report(new: NewOverlay, header: Header, captured: _Captured, *, as_json: bool) -> None:
    path = new.generation.path
    size = path.stat().st_size
    if as_json:
        facts = {
            "path": str(path),
            "size": size,
            "paths": captured.paths,
            "listed": captured.listed,
            "read": captured.read,
        }
        print_json(header_facts(header) | facts | {"warnings": list(captured.warnings)})
        return
    for warning in captured.warnings:
        print(f"note: {warning}")
    print(f"{path}: generation {header.generation} of {header.role} ({header.host}), {human(size)}")
    print(
        f"{captured.paths} paths of the role are kept, {captured.listed} paths of the system are listed,"
        f" {captured.read} files were read for it"
    )
