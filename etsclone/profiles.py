"""Finding and reading profiles: TOML files that say what makes a server of one kind itself.

A profile named `NAME` is looked for as `NAME.toml` in `/etc/etsclone/profiles`, then among those that came with the
package. A profile may extend others: their lists come first, in order; single values are overridden.
"""

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etsclone.errors import FormatError, UsageError
from etsclone.model.brd import check_name
from etsclone.model.profile import Check, Profile
from etsclone.model.scope import PatternError, Scope, check_pattern

SITE_PROFILES = Path("/etc/etsclone/profiles")

_FORMAT = 1
_KEYS = {
    "format": int, "name": str, "description": str, "extends": list, "roles": list, "scope": dict, "checks": list,
    "secrets": list,
}  # fmt: skip
_CHECK_KEYS = {"name", "argv"}
_PLACES = ("scratch", "needs")
_SCOPE_KEYS = ("role", "disk", "volatile")


@dataclass(frozen=True, slots=True)
class _Source:
    """One parsed file and the bytes it came from."""

    name: str
    raw: bytes
    data: dict[str, Any]


def load_profile(name: str) -> Profile:
    """The profile called `name`, with all that it extends merged in.

    Raises:
        UsageError: when there is no such profile.
        FormatError: when it, or one that it extends, cannot be read.
    """
    chain = _resolve(name, ())
    try:
        return _merge(chain)
    except (PatternError, ValueError) as error:
        raise FormatError(f"profile {name}: {error}") from error


def profile_folders() -> tuple[Path, ...]:
    """Where profiles are looked for, first match first."""
    shipped = Path(__file__).with_name("_profiles")
    # A source tree keeps them beside the package; the wheel carries them inside it.
    beside = shipped.parent.parent / "profiles"
    return (SITE_PROFILES, shipped if shipped.is_dir() else beside)


def _resolve(name: str, seen: tuple[str, ...]) -> tuple[_Source, ...]:
    if name in seen:
        raise FormatError(
            f"profile {name} extends itself by way of {' and '.join(seen)}",
            hint="give a profile of yours that extends another one a name of its own",
        )
    source = _read(name)
    bases = _strings(source, source.data.get("extends", []), "extends")
    chain: dict[str, _Source] = {}
    for base in bases:
        chain |= {each.name: each for each in _resolve(base, (*seen, name))}
    return (*chain.values(), source)


def _read(name: str) -> _Source:
    try:
        check_name(name)
    except ValueError as error:
        raise UsageError(
            str(error), hint="give the name of a profile, such as ltsp-isc-dhcp"
        ) from error
    for folder in profile_folders():
        path = folder / f"{name}.toml"
        if path.is_file():
            return _parse(path)
    known = sorted({path.stem for folder in profile_folders() for path in folder.glob("*.toml")})
    raise UsageError(
        f"there is no profile {name}", hint=f"known profiles: {', '.join(known) or 'none'}"
    )


def _parse(path: Path) -> _Source:
    raw = path.read_bytes()
    try:
        data = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} is no TOML: {error}") from error
    if data.get("format") != _FORMAT:
        raise FormatError(
            f"{path} does not say `format = {_FORMAT}`", hint="it may need a newer etsclone"
        )
    for key, value in data.items():
        if key not in _KEYS or not isinstance(value, _KEYS[key]):
            raise FormatError(f"{path}: {key} is unknown, or no {_KEYS.get(key, object).__name__}")
    if data.get("name") != path.stem:
        raise FormatError(f"{path}: its name must be {path.stem}, as the file's")
    return _Source(path.stem, raw, data)


def _merge(chain: tuple[_Source, ...]) -> Profile:
    last = chain[-1]
    roles: list[str] = next(
        (source.data["roles"] for source in reversed(chain) if "roles" in source.data), []
    )
    if len(roles) < 2:
        raise ValueError("a profile names two roles or more")
    lists = {
        key: tuple(_unique(pattern for source in chain for pattern in _scope(source)[key]))
        for key in _SCOPE_KEYS
    }
    return Profile(
        name=last.name,
        description=last.data.get("description", ""),
        sha256=hashlib.sha256(b"\0".join(source.raw for source in chain)).hexdigest(),
        roles=tuple(check_name(role) for role in _strings(last, roles, "roles")),
        scope=Scope(lists["role"], lists["disk"], lists["volatile"]),
        secrets=_secrets(chain),
        checks=tuple(
            _check(source, entry) for source in chain for entry in source.data.get("checks", [])
        ),
    )


def _scope(source: _Source) -> dict[str, list[str]]:
    scope = source.data.get("scope", {})
    unknown = set(scope) - set(_SCOPE_KEYS)
    if unknown:
        raise FormatError(
            f"profile {source.name}: unknown list in scope: {', '.join(sorted(unknown))}"
        )
    return {key: _strings(source, scope.get(key, []), f"scope.{key}") for key in _SCOPE_KEYS}


def _secrets(chain: tuple[_Source, ...]) -> tuple[str, ...]:
    lists = (_strings(source, source.data.get("secrets", []), "secrets") for source in chain)
    return tuple(map(check_pattern, _unique(pattern for each in lists for pattern in each)))


def _check(source: _Source, entry: object) -> Check:
    if (
        not isinstance(entry, dict)
        or not _CHECK_KEYS <= set(entry) <= _CHECK_KEYS | set(_PLACES)
        or not isinstance(entry["name"], str)
        or not entry["argv"]
    ):
        raise FormatError(
            f"profile {source.name}: a check has a name and an argv, and may have {' and '.join(_PLACES)}"
        )
    scratch, needs = (tuple(_strings(source, entry.get(key, []), key)) for key in _PLACES)
    for path in (*scratch, *needs):
        if not path.startswith("/") or ".." in path.split("/"):
            raise FormatError(f"profile {source.name}: not an absolute path: {path}")
    return Check(entry["name"], tuple(_strings(source, entry["argv"], "argv")), scratch, needs)


def _strings(source: _Source, value: object, key: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise FormatError(f"profile {source.name}: {key} is no list of texts")
    return value


def _unique(items: Any) -> dict[str, None]:  # noqa: ANN401
    return dict.fromkeys(items)
