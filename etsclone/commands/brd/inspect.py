"""`etsclone brd list` and `etsclone brd show`: what a store or an overlay says it holds, verified or not."""

from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from etsclone.commands.output import add_json, print_json, print_table
from etsclone.errors import DeviceError, EtscloneError, VerificationFailed
from etsclone.model.brd import Header
from etsclone.overlay.checked import peek_check
from etsclone.overlay.container import read_envelope
from etsclone.overlay.header import decode, digest
from etsclone.overlay.signing import check
from etsclone.overlay.sshwire import fingerprint
from etsclone.store.folder import Store, open_store
from etsclone.units import counted, human


def configure_list(parser: ArgumentParser) -> None:
    """Add the arguments of `list`."""
    parser.set_defaults(run=run_list)
    parser.add_argument("store", metavar="STORE", type=Path, help="the BRD store")
    add_json(parser)


def configure_show(parser: ArgumentParser) -> None:
    """Add the arguments of `show`."""
    parser.set_defaults(run=run_show)
    parser.add_argument(
        "overlay",
        metavar="OVERLAY",
        help="an overlay file, ROLE-NNNNNN.brd, or STORE:ROLE, or STORE:ROLE:GENERATION",
    )
    add_json(parser)


def run_list(arguments: Namespace) -> None:
    """Print a line a generation, oldest first; unreadable ones with the reason.

    Raises:
        StoreRefused: when there is no store.
        DeviceError: when the medium fails.
    """
    store = open_store(arguments.store)
    found = [
        _row(item.path) | {"role": role, "generation": item.number}
        for role in store.roles
        for item in store.generations(role)
    ]
    roles = {role: _role_facts(store, role) for role in store.roles}
    if arguments.json:
        print_json(
            {
                "pair": store.pair,
                "profile": store.profile,
                "roles": list(store.roles),
                "overlays": found,
                "history": roles,
            }
        )
        return
    print(f"pair {store.pair}, profile {store.profile}, roles {', '.join(store.roles)}")
    header = ("ROLE", "GENERATION", "CREATED", "HOST", "SIZE")
    print_table(header, [_cells(row) for row in found])
    for role, facts in roles.items():
        if facts["checked"]:
            print(f"{role} was last found unchanged at {facts['checked']}")
        if facts["pruned"]:
            pruned = counted(int(str(facts["pruned"])), "older generation")
            print(f"{role} has {pruned} of which only the headers were kept")


def run_show(arguments: Namespace) -> None:
    """Print the header's facts.

    Raises:
        UsageError, StoreRefused: when there is none of that name.
        OverlayMalformed: when it is no overlay.
        SignatureInvalid: when the header was changed since it was signed.
    """
    from etsclone.commands.brd.sides import find_place  # noqa: PLC0415 - a capture needs the facts alone

    path = Path(find_place(arguments.overlay).path)
    envelope = read_envelope(path)
    # Whether the key is to be trusted is the question of `verify`; that the bytes are those that it signed is checked.
    signature = check(envelope.header, envelope.signature)
    header = decode(envelope.header)
    age = datetime.now(UTC) - header.created
    facts = header_facts(header) | {
        "age": int(age.total_seconds()),
        "size": path.stat().st_size,
        "digest": digest(envelope.header),
        "signed_by": fingerprint(signature.key),
    }
    if arguments.json:
        print_json(facts)
        return
    facts |= {"age": str(timedelta(seconds=int(age.total_seconds())))}
    facts |= {"sealed": "yes: a recovery key opens it" if header.sealed else "no"}
    for name, value in facts.items():
        print(f"{name.replace('_', ' '):>12}  {_text(value)}")


def header_facts(header: Header) -> dict[str, object]:
    """A header as JSON facts; sizes in bytes."""
    return {
        "pair": header.pair,
        "role": header.role,
        "generation": header.generation,
        "host": header.host,
        "created": f"{header.created:%Y-%m-%dT%H:%M:%SZ}",
        "sealed": header.sealed,
        "profile": header.profile,
        "profile_sha256": header.profile_sha256,
        "previous": header.previous,
        "table_uuid": header.clone.table_uuid,
        "filesystems": [
            {"type": each.type, "uuid": each.uuid} for each in header.clone.filesystems
        ],
        "members": [
            {"name": each.name, "size": each.size, "sha256": each.sha256} for each in header.members
        ],
        "scope": {
            "role": list(header.scope.role),
            "disk": list(header.scope.disk),
            "volatile": list(header.scope.volatile),
        },
    }


def _role_facts(store: Store, role: str) -> dict[str, object]:
    """What is known of a role beside its overlays, not verified."""
    pruned = sum(item.pruned for item in store.history(role))
    checked: str | None = None
    if store.checked_path(role).exists():
        try:
            checked = f"{peek_check(store.checked_path(role)).checked:%Y-%m-%dT%H:%M:%SZ}"
        except VerificationFailed as error:
            checked = f"(unreadable: {error.message})"
    return {"checked": checked, "pruned": pruned}


def _row(path: Path) -> dict[str, object]:
    row: dict[str, object] = {"path": str(path), "size": path.stat().st_size}
    try:
        header = decode(read_envelope(path).header)
    except DeviceError:
        raise
    except EtscloneError as error:
        return row | {"error": error.message}
    return row | {"created": f"{header.created:%Y-%m-%dT%H:%M:%SZ}", "host": header.host}


def _cells(row: dict[str, object]) -> tuple[str, ...]:
    size = row["size"]
    created = str(row.get("created", f"unreadable: {row.get('error')}"))
    return (
        str(row["role"]),
        f"{row['generation']:06d}",
        created,
        str(row.get("host", "")),
        human(int(str(size))),
    )


def _text(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {len(items)} patterns" for key, items in value.items())
    if isinstance(value, list):
        return "; ".join(" ".join(str(part) for part in item.values()) for item in value)
    return "-" if value is None else str(value)
