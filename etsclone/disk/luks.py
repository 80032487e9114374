"""Volumes encrypted with LUKS: opened with a key file, a key of the clone's, or a passphrase; always closed."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from etsclone.disk.mapper import new_name, node_of, patiently, quiet_udev
from etsclone.errors import KeyRefused, SourceRefused
from etsclone.run import run, uninterrupted

CONTENT = "crypto_LUKS"
"""What blkid calls it."""

_NO_KEY = 2
_BUSY = 5
"""Exit statuses of cryptsetup(8): no key slot takes the key; the device is in use."""

_TRIES = 3
"""How often a person may mistype."""


@dataclass(slots=True)
class Keys:
    """What opens encrypted volumes: keys, and whom to ask. What opened one is kept to open it again, in memory only.

    `ask` is given words for the volume and returns what was typed; None where nobody is to be asked.
    """

    given: tuple[bytes, ...] = field(default=(), repr=False)
    ask: Callable[[str], bytes] | None = None
    _known: list[bytes] = field(default_factory=list, init=False, repr=False)

    def candidates(self, volume: str, of_clone: bytes) -> Iterator[bytes]:
        """Keys to try for a volume, the likeliest first; `of_clone` is a key that the clone's crypttab names."""
        yield from list(self._known)
        if of_clone:
            yield of_clone
        yield from self.given
        if self.ask is not None:
            for _ in range(_TRIES):
                yield self.ask(volume)

    def silent(self) -> "Keys":
        """The same without anybody to ask."""
        return Keys((*self._known, *self.given))

    def remember(self, key: bytes) -> None:
        """Try this one first from now on."""
        if key not in self._known:
            self._known.append(key)


@contextlib.contextmanager
def unlocked(device: str, keys: Keys, *, read_only: bool, of_clone: bytes = b"") -> Iterator[str]:
    """An encrypted volume in the clear, for as long as the context lasts; yields the device node.

    Raises:
        KeyRefused: when nothing opens it.
        SourceRefused: when somebody else has opened it.
        CommandFailed: when its header makes no sense.
    """
    name = new_name(f"{device.rpartition('/')[2]}-luks")
    access = ["--readonly"] if read_only else []
    # The key comes by standard input, so that it is in no list of processes.
    argv = ["open", "--type", "luks", *access, "--key-file", "-", "--", device, name]
    with contextlib.ExitStack() as stack:
        for key in filter(None, keys.candidates(device, of_clone)):
            with uninterrupted():
                quiet_udev()
                done = run("cryptsetup", argv, accept=(0, _NO_KEY, _BUSY), feed=key)
                if done.status == 0:
                    stack.callback(patiently, lambda: run("cryptsetup", ["close", name]))
            if done.status == 0:
                keys.remember(key)
                yield node_of(name)
                return
            if done.status == _BUSY:
                raise SourceRefused(
                    f"{device} is encrypted, and in use already",
                    hint="unmount and close what is on it; `etsclone umount DISK` closes what a killed etsclone left",
                )
        raise KeyRefused(
            f"{device} is encrypted, and no key given opens it",
            hint="give its passphrase when asked, or --key-file FILE",
        )
