"""`etsclone brd verify`: every signature, digest and link of one overlay or of a whole store."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from etsclone.commands.output import add_json, print_json
from etsclone.commands.trust import load_trust
from etsclone.errors import EtscloneError, StoreRefused, VerificationFailed
from etsclone.overlay.container import open_verified
from etsclone.overlay.trust import Trust
from etsclone.store.folder import Generation, Store, open_store


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=run)
    parser.add_argument(
        "what", metavar="OVERLAY|STORE", type=Path, help="an overlay file or a BRD store"
    )
    parser.add_argument("--trust", metavar="FILE", type=Path, help="allowed_signers file to trust")
    add_json(parser)


def run(arguments: Namespace) -> None:
    """Verify and print what held.

    Raises:
        TrustRefused: when there is nothing to check signatures against.
        VerificationFailed: when anything does not hold.
    """
    if arguments.what.is_dir():
        store = open_store(arguments.what)
        _verify_store(
            store, load_trust(arguments.trust, copy=store.signers_path), as_json=arguments.json
        )
    else:
        copy = arguments.what.parent.parent / "allowed_signers"
        _verify_one(arguments.what, load_trust(arguments.trust, copy=copy), as_json=arguments.json)


def _verify_one(path: Path, trust: Trust, *, as_json: bool) -> None:
    with open_verified(path, trust) as overlay:
        header, signer = overlay.header, overlay.signer
    if as_json:
        print_json(
            {
                "verified": True,
                "role": header.role,
                "generation": header.generation,
                "signer": signer.fingerprint,
            }
        )
    else:
        print(
            f"{path}: generation {header.generation} of {header.role} of pair {header.pair},"
            f" signed by {signer.fingerprint}"
        )


def _verify_store(store: Store, trust: Trust, *, as_json: bool) -> None:
    rows: list[dict[str, object]] = []
    for role in store.roles:
        previous: str | None = None
        for item in store.generations(role):
            problem, previous = _verify_generation(store, item, trust, previous)
            rows.append(
                {
                    "path": str(item.path),
                    "role": role,
                    "generation": item.number,
                    "problem": problem,
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
            print(f"{row['path']}: {row['problem'] or 'verified'}")
    if failed:
        raise VerificationFailed(
            f"{len(failed)} of {len(rows)} overlays do not verify",
            hint="restore them from another copy of the store",
        )
    if not as_json:
        print(f"all {len(rows)} overlays of pair {store.pair} verify")


def _verify_generation(
    store: Store, item: Generation, trust: Trust, previous: str | None
) -> tuple[str, str | None]:
    """What is wrong with a generation (empty: nothing), and its header's digest for the next one to name."""
    try:
        with open_verified(
            item.path, trust, role=item.role, pair=store.pair, generation=item.number
        ) as overlay:
            if overlay.header.previous != previous:
                return "it does not follow the generation before it", overlay.digest
            return "", overlay.digest
    except EtscloneError as error:
        return error.message, None
