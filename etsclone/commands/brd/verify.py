"""`etsclone brd verify`: every signature, digest and link of one overlay or of a whole store."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from etsclone.commands.identity import add_identity, given_identities
from etsclone.commands.output import add_json, print_json
from etsclone.commands.trust import add_revoked, load_trust
from etsclone.errors import EtscloneError, OverlaySealed, StoreRefused, VerificationFailed
from etsclone.overlay import inventory
from etsclone.overlay.container import VerifiedOverlay, open_verified
from etsclone.overlay.payload import read_payload
from etsclone.overlay.sealing import Identities
from etsclone.overlay.trust import Trust
from etsclone.store.folder import Generation, Store, open_store


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=run)
    parser.add_argument(
        "what", metavar="OVERLAY|STORE", type=Path, help="an overlay file or a BRD store"
    )
    parser.add_argument("--trust", metavar="FILE", type=Path, help="allowed_signers file to trust")
    add_revoked(parser)
    add_identity(parser, "to open what is sealed, and to read all contents to their end")
    add_json(parser)


def run(arguments: Namespace) -> None:
    """Verify and print what held.

    Raises:
        TrustRefused: when there is nothing to check signatures against.
        VerificationFailed: when anything does not hold.
    """
    identities = given_identities(arguments)
    if arguments.what.is_dir():
        store = open_store(arguments.what)
        trust = load_trust(arguments.trust, revoked=arguments.revoked, copy=store.signers_path)
        _verify_store(store, trust, identities, as_json=arguments.json)
    else:
        copy = arguments.what.parent.parent / "allowed_signers"
        trust = load_trust(arguments.trust, revoked=arguments.revoked, copy=copy)
        _verify_one(arguments.what, trust, identities, as_json=arguments.json)


def _verify_one(path: Path, trust: Trust, identities: Identities | None, *, as_json: bool) -> None:
    with open_verified(path, trust, identities=identities) as overlay:
        header, signer = overlay.header, overlay.signer
        contents = _contents(overlay, identities)
    if as_json:
        print_json(
            {
                "verified": True,
                "role": header.role,
                "generation": header.generation,
                "signer": signer.fingerprint,
                "contents": contents,
            }
        )
    else:
        print(
            f"{path}: generation {header.generation} of {header.role} of pair {header.pair},"
            f" signed by {signer.fingerprint}, contents {contents}"
        )


def _contents(overlay: VerifiedOverlay, identities: Identities | None) -> str:
    """How far the contents were looked at: not at all when they are sealed, to their end when there is an identity.

    Raises:
        HostilePayload: when they are not what a capture writes.
    """
    if not overlay.opened:
        return "sealed"
    if identities is None:
        return "not read"
    with read_payload(overlay.payload(), overlay.header.scope):
        for _ in inventory.read(overlay.inventory()):
            pass
    return "read"


def _verify_store(
    store: Store, trust: Trust, identities: Identities | None, *, as_json: bool
) -> None:
    rows: list[dict[str, object]] = []
    for role in store.roles:
        previous: str | None = None
        for item in store.generations(role):
            problem, contents, previous = _verify_generation(
                store, item, trust, identities, previous
            )
            rows.append(
                {
                    "path": str(item.path),
                    "role": role,
                    "generation": item.number,
                    "problem": problem,
                    "contents": contents,
                }
            )
    if not rows:
        raise StoreRefused(
            f"{store.path} holds no overlay yet", hint="`etsclone brd capture` makes one"
        )
    failed = [row for row in rows if row["problem"]]
    if as_json:
        print_json({"verified": not failed, "overlays": rows})
    else:
        for row in rows:
            seal = " (contents sealed)" if row["contents"] == "sealed" else ""
            print(f"{row['path']}: {row['problem'] or f'verified{seal}'}")
    if failed:
        raise VerificationFailed(
            f"{len(failed)} of {len(rows)} overlays do not verify",
            hint="restore them from another copy of the store",
        )
    if not as_json:
        print(f"all {len(rows)} overlays of pair {store.pair} verify")


def _verify_generation(
    store: Store,
    item: Generation,
    trust: Trust,
    identities: Identities | None,
    previous: str | None,
) -> tuple[str, str, str | None]:
    """What is wrong with a generation (empty: nothing), its `_contents`, and the digest for the next one to name."""
    try:
        with open_verified(
            item.path,
            trust,
            role=item.role,
            pair=store.pair,
            generation=item.number,
            identities=identities,
        ) as overlay:
            contents = _contents(overlay, identities)
            if overlay.header.previous != previous:
                return "it does not follow the generation before it", contents, overlay.digest
            return "", contents, overlay.digest
    except OverlaySealed as error:
        # All but its contents can still be looked at.
        problem, contents, link = _verify_generation(store, item, trust, None, previous)
        return problem or error.message, contents, link
    except EtscloneError as error:
        return error.message, "", None
