"""`etsclone brd capture`: what makes a server itself, as a signed overlay in the store."""

import contextlib
import hashlib
import logging
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO

from etsclone.chroot import in_chroot, require_root
from etsclone.commands.brd.inspect import header_facts
from etsclone.commands.brd.recipients import site_checked
from etsclone.commands.finished import check_finished
from etsclone.commands.history import followed
from etsclone.commands.keyfile import add_unlock
from etsclone.commands.listings import listing_aids
from etsclone.commands.output import add_json, ask_passphrase, print_json
from etsclone.commands.packages import installed_by_rpm
from etsclone.commands.system import System, system_at, system_on_disk
from etsclone.commands.trust import load_trust
from etsclone.commands.unchanged import keep_check, remember_generation, still_true
from etsclone.commands.unlock import given_keys
from etsclone.errors import SourceChanged
from etsclone.model.brd import Header
from etsclone.model.profile import Profile
from etsclone.model.scope import Scope
from etsclone.model.tree import Tree
from etsclone.overlay import inventory
from etsclone.overlay.brought import Brought, brought_by_dpkg, keep_brought
from etsclone.overlay.checked import Check
from etsclone.overlay.container import measure, write_overlay
from etsclone.overlay.content import content_digest, noted
from etsclone.overlay.header import MEMBERS, SEALED_MEMBERS
from etsclone.overlay.heldkey import load_key
from etsclone.overlay.listing import NO_AIDS, Aids, tree_listing
from etsclone.overlay.payload import write_payload
from etsclone.overlay.scan import scan
from etsclone.overlay.sealing import sealing
from etsclone.overlay.status import ATTEMPTS
from etsclone.overlay.temporary import room_needed
from etsclone.profiles import load_profile
from etsclone.store.folder import NewOverlay, Store, open_store
from etsclone.units import counted, human

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Captured:
    """What the child process inside the system tells.

    Host name, how many paths, how many files were read for the listing, what people should know, and the digests of
    what was found, before it was sealed: of the payload, the inventory's head and the listing.
    """

    host: str
    paths: int
    listed: int
    read: int
    warnings: tuple[str, ...]
    contents: tuple[str, ...]

    @property
    def amounts(self) -> str:
        """How much it was, in words."""
        kept = counted(self.paths, "path", "of the role is", "of the role are")
        listed = counted(self.listed, "path", "of the system is", "of the system are")
        read = counted(self.read, "file", "was", "were")
        return f"{kept} kept, {listed} listed, {read} read for it"


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=run, changes=True)
    parser.add_argument("store", metavar="STORE", type=Path, help="the BRD store")
    parser.add_argument(
        "--role", metavar="ROLE", required=True, help="the role that this system has"
    )
    parser.add_argument(
        "--key",
        metavar="KEYFILE",
        type=Path,
        required=True,
        help="OpenSSH key (Ed25519) to sign with; a public key if the private one is in ssh-agent or a token",
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
        "--trust",
        metavar="FILE",
        type=Path,
        help="allowed_signers file to trust the overlays by that this one is compared with",
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="read every file, also those that are as the last capture saw them",
    )
    add_unlock(parser)
    add_json(parser)


def run(arguments: Namespace) -> None:
    """Scan, archive, sign, store; when nothing changed, only the time is kept.

    Raises:
        NotRoot, StoreRefused, TrustRefused, KeyRefused, UsageError, RootNotMounted, RebuildUnfinished: before anything
            was written.
        ChainBroken: when the newest file of the role is none that a generation may follow; nothing was written.
        KeyRefused: also when an agent or a token does not sign in the end; nothing of it stays.
        StoreFull, DeviceError: when the store or $TMPDIR cannot take it; nothing of it stays.
    """
    require_root()
    store = open_store(arguments.store)
    store.check_role(arguments.role)
    recipients = site_checked(store)
    profile = load_profile(store.profile)
    key = load_key(arguments.key, lambda: ask_passphrase(arguments.key))
    trust = load_trust(store.signers_path, follow=False)  # with what this system has revoked
    # An overlay that nobody will accept is worse than none: it looks like a backup.
    signer = trust.signer_now(key.public_key, arguments.role, datetime.now(UTC))
    source = (
        system_on_disk(arguments.disk, writable=False, keys=given_keys(arguments))
        if arguments.disk
        else system_at(arguments.root)
    )
    with (
        source as system,
        room_needed(),
        tempfile.TemporaryFile() as payload,
        tempfile.TemporaryFile() as listing,
        store.new_overlay(arguments.role, partial(followed, store, trust=trust)) as new,
    ):
        check_finished(system.folder, system.name)
        with listing_aids(store.pair, arguments.role, full=arguments.full) as aids:
            captured = capture_system(
                system, profile.scope, payload, listing, recipients=recipients, aids=aids
            )
        previous = followed(store, new.previous, trust) if new.previous else None
        header = _header(store, profile, new, previous, system, captured, (payload, listing))
        content = content_digest(header, captured.contents, recipients, signer.fingerprint)
        check = still_true(store, new, content, header.created)
        if check:
            keep_check(store, check, key.sign)
        else:
            name = write_overlay(new.file, header, key.sign, payload, listing)
            new.commit()
            remember_generation(store, new, name, content)
            # Most captures find nothing new, and compare nothing.
            from etsclone.commands.brd.drift import unclaimed_notes  # noqa: PLC0415
            from etsclone.commands.brd.mistaken import mistaken_notes  # noqa: PLC0415

            notes = (
                *mistaken_notes(store, header),
                *unclaimed_notes(store, new.generation, profile, listing, arguments.trust),
            )
            captured = replace(captured, warnings=(*captured.warnings, *notes))
    if check:
        _report_unchanged(store, check, captured, as_json=arguments.json)
    else:
        _report(new, header, captured, as_json=arguments.json)


def capture_system(
    system: System,
    scope: Scope,
    payload: BinaryIO,
    listing: BinaryIO,
    *,
    recipients: Sequence[str] = (),
    aids: Aids = NO_AIDS,
) -> Captured:
    """Fill the two files from inside the system, sealed if they are to be, and rewind them."""
    started_ns = time.time_ns()
    rpm, notes = installed_by_rpm(system.folder)

    def work() -> Captured:
        brought = Brought.by(rpm) if rpm.packages else brought_by_dpkg("/", aids.brought)
        with tree_listing(
            "/", scope, started_ns=started_ns, skip=system.skip, brought=brought, aids=aids
        ) as put_out:
            # Here, the processes that list the tree are at work already.
            if aids.keep_brought:
                keep_brought(brought, "/", aids.keep_brought, started_ns=started_ns)
            kept = _kept(system, scope, payload, spool, recipients)
            with (
                sealing(listing, recipients) as sealed,
                inventory.writing_lines(sealed, brought.head) as write,
            ):
                listed = put_out(write, kept.tree)
        payload.flush()
        listing.flush()
        # Both read the files of the scope: what changes meanwhile is told once.
        warnings = dict.fromkeys((*notes, *kept.warnings, *listed.warnings))
        return Captured(
            _host_name(),
            len(kept.tree),
            listed.paths,
            listed.read,
            tuple(warnings),
            (kept.digest, hashlib.sha256(brought.head).hexdigest(), listed.digest),
        )

    with tempfile.TemporaryFile() as spool:  # made here: inside there may be no folder for it
        captured = in_chroot(system.folder, work)
    payload.seek(0)
    listing.seek(0)
    return captured


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is in the payload, its digest before it was sealed, and what people should know."""

    tree: Tree
    digest: str
    warnings: tuple[str, ...]


def _kept(
    system: System,
    scope: Scope,
    payload: BinaryIO,
    spool: BinaryIO,
    recipients: Sequence[str],
    attempts: int = ATTEMPTS,
) -> _Kept:
    """Archive the scope; from the beginning again when something has gone that the scan saw."""
    payload.seek(0)
    payload.truncate()
    seen = scan("/", scope, skip=system.skip)
    try:
        with sealing(payload, recipients) as sealed, noted(sealed) as note:
            archived = write_payload(note.file, "/", seen.scope, spool=spool)
    except SourceChanged:
        if attempts == 1:
            raise
    else:
        return _Kept(archived.tree, note.digest, (*seen.warnings, *archived.warnings))
    return _kept(system, scope, payload, spool, recipients, attempts - 1)


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
    previous: str | None,
    system: System,
    captured: Captured,
    contents: tuple[BinaryIO, BinaryIO],
) -> Header:
    names = SEALED_MEMBERS if store.recipients else MEMBERS
    members = tuple(measure(*each) for each in zip(names, contents, strict=True))
    for stream in contents:
        stream.seek(0)
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


def _report_unchanged(store: Store, check: Check, captured: Captured, *, as_json: bool) -> None:
    path = store.overlay(check.role, check.generation)
    if as_json:
        facts = {"unchanged": True, "path": str(path), "role": check.role}
        facts |= {"generation": check.generation, "digest": check.digest}
        checked = {"checked": f"{check.checked:%Y-%m-%dT%H:%M:%SZ}"}
        seen = {"paths": captured.paths, "listed": captured.listed, "read": captured.read}
        print_json(facts | checked | seen | {"warnings": list(captured.warnings)})
        return
    for warning in captured.warnings:
        print(f"note: {warning}")
    print(f"{path}: {check.role} is unchanged since generation {check.generation}; that was noted")


def _report(new: NewOverlay, header: Header, captured: Captured, *, as_json: bool) -> None:
    path = new.generation.path
    size = path.stat().st_size
    if as_json:
        facts = {
            "unchanged": False,
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
    print(captured.amounts)
    if header.sealed:
        print("sealed: only a recovery key opens it")
