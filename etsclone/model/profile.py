"""A profile: what is known about one kind of server."""

from dataclasses import dataclass

from etsclone.model.scope import Scope


@dataclass(frozen=True, slots=True)
class Check:
    """A command that must succeed in a healthy system of this kind.

    It is run where it can write to nothing but `scratch`, folders that are empty for it (and /run, /tmp, /var/tmp). It
    is not run where one of `needs` does not exist.
    """

    name: str
    argv: tuple[str, ...]
    scratch: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile with all that it extends already merged. `sha256` (hex) is over the files it was made of.

    `secrets` are patterns of files whose content is not shown, beyond those that are known anyway.
    """

    name: str
    description: str
    sha256: str
    roles: tuple[str, ...]
    scope: Scope
    checks: tuple[Check, ...] = ()
    secrets: tuple[str, ...] = ()
