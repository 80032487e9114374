"""Where overlays are in stores: what `STORE:ROLE` and the like name."""

from pathlib import Path

from etsclone.commands.brd.sides import OverlayPlace
from etsclone.errors import UsageError
from etsclone.store.folder import Store, open_store
from etsclone.units import counted


def place_in(store: Store, role: str, generation: int | None = None) -> OverlayPlace:
    """A generation of a role in a store; the newest when none is named.

    Raises:
        StoreRefused: when there is no such role or generation.
    """
    found = store.generation(role, generation)
    return OverlayPlace(found.path, store.signers_path, store.pair, role, found.number)


def place_of(path: str, role: str, generation: int | None) -> OverlayPlace:
    """The same for the path of a store.

    Raises:
        StoreRefused, FormatError, DeviceError: also when there is no store, or one that cannot be read.
    """
    return place_in(open_store(Path(path)), role, generation)


def both_roles(path: str) -> tuple[OverlayPlace, OverlayPlace]:
    """The newest generations of the two roles of a store.

    Raises:
        UsageError: when it has more, or fewer.
        StoreRefused, FormatError, DeviceError: as `place_of`.
    """
    store = open_store(Path(path))
    if len(store.roles) != 2:
        raise UsageError(
            f"pair {store.pair} has {counted(len(store.roles), 'role')}",
            hint=f"name two of them: {path}:{store.roles[0]} {path}:{store.roles[1]}",
        )
    return place_in(store, store.roles[0]), place_in(store, store.roles[1])
