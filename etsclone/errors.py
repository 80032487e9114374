"""Every way in which etsclone fails, with the exit code that a script will see.

The code stands on the class; a message says what is wrong, a hint says how to mend it. Messages are lower case and
have no full stop. Only `etsclone.cli` turns an error into an exit.
"""

import errno
import signal
from enum import IntEnum


class ExitCode(IntEnum):
    """What the process tells its caller."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    VERIFICATION = 4
    DEVICE = 5
    INTERRUPTED = 130


class EtscloneError(Exception):
    """Root of all expected failures. `message` says what is wrong, `hint` how to mend it (may be empty)."""

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(EtscloneError):
    """The command line asks for something that makes no sense."""

    exit_code = ExitCode.USAGE


# --- other programs and files --------------------------------------------------------------------------------------


class CommandFailed(EtscloneError):
    """Another program ran and reported a failure."""


class FormatError(EtscloneError):
    """A file that is not under a signature (profile, brd.toml, a program's output) does not have its format."""


class StoreFull(EtscloneError):
    """No space is left where BRD is written; what was there before is untouched."""


class StateLost(EtscloneError):
    """What this machine remembers of a clone cannot be kept; the target is unfinished unless that is said."""


class ReceiptLost(EtscloneError):
    """All is done, but its receipt cannot be kept, or not be signed."""


class OutputLost(EtscloneError):
    """What a command found out cannot be written to standard output."""


class HealthFailed(EtscloneError):
    """What was rebuilt is the role, but a filesystem or a check of the profile says that it is not sound."""


class TargetFull(EtscloneError):
    """No space is left on the disk that is rebuilt; the file at hand was not touched."""


# --- refused by a guard: nothing was changed ------------------------------------------------------------------------


class Refused(EtscloneError):
    """A guard said no before anything was changed."""

    exit_code = ExitCode.REFUSED


class MissingProgram(Refused):
    """A program that this command needs is not installed."""


class NotRoot(Refused):
    """The command needs root rights."""


class NotConfirmed(Refused):
    """The person did not type the target's name."""


class TargetRefused(Refused):
    """The target may not be written: mounted, held, read-only, too small, the source itself, the running system."""


class TargetChanged(Refused):
    """Between the shown plan and its execution the device behind the name became another one."""


class SourceRefused(Refused):
    """The source cannot be copied faithfully as it is."""


class SourceChanged(SourceRefused):
    """Something that was seen of the source is no longer there when it is to be copied."""


class GrowRefused(Refused):
    """The last partition cannot be enlarged: not with this content, this table, or what is installed here."""


class IdsRefused(Refused):
    """A clone cannot have identifiers of its own: something has one that cannot be changed."""


class QuarantineRefused(Refused):
    """A disk cannot be put into quarantine, or what is said of one in quarantine does not fit it."""


class RootNotMounted(Refused):
    """The folder given as the system's root is no mounted filesystem, or holds no system."""


class NoSystem(RootNotMounted):
    """A disk holds no root of a system: it may be one of data alone."""


class BootLoaderRefused(Refused):
    """A boot loader cannot be installed, or no boot entry made: not with this disk, this system, or this machine."""


class StoreRefused(Refused):
    """The store does not fit: no store, another pair, an unknown role, not empty, locked by another process."""


class StoreRolledBack(Refused):
    """The store's newest generation of a role is not the newest that this machine has seen."""


class StoreForked(Refused):
    """Two stores of a pair have different generations under the same number, or each has some that the other lacks."""


class SettingsDiffer(Refused):
    """Two copies of a store say otherwise who may open or sign its overlays, and none of both was chosen."""


class TrustRefused(Refused):
    """There is no statement of trust to check a signature against, or a key that may not sign for this role."""


class KeyRefused(Refused):
    """A key file cannot be used: not Ed25519, readable by others, wrong passphrase; or it would be overwritten."""


class OverlaySealed(Refused):
    """The contents of an overlay are sealed, and no identity that opens them was given."""


class ScopeConflict(Refused):
    """Applying the overlay would have to change something outside its scope."""


class NotExact(Refused):
    """Outside the scope the clone is not what was captured, and it was asked to be."""


class NothingKept(Refused):
    """There is no rebuild to undo or to commit."""


class RebuildUnfinished(Refused):
    """The disk is half way between two roles: a rebuild, or its undoing, was interrupted and has to be finished."""


class KeptExposed(Refused):
    """What rebuilds keep on a disk lies in a folder that others may enter: nobody can tell who wrote it."""


class UnsafePath(Refused):
    """A path on the disk leads through a symbolic link or another file that is no folder."""


# --- verification ---------------------------------------------------------------------------------------------------


class VerificationFailed(EtscloneError):
    """Something that was checked did not hold."""

    exit_code = ExitCode.VERIFICATION


class OverlayMalformed(VerificationFailed):
    """The overlay file does not have its exact format: truncated, members added or reordered, header too large."""


class OverlayMismatch(VerificationFailed):
    """A genuine overlay, but of another role, pair or generation than was asked for."""


class SignatureInvalid(VerificationFailed):
    """The signature does not hold, or was not made by a key that is trusted for the role."""


class KeyUntrusted(SignatureInvalid):
    """The signature holds, but does not count: its key is revoked, unknown, or listed for other roles or times."""


class DigestMismatch(VerificationFailed):
    """Bytes differ from the digest that vouches for them."""


class ChainBroken(VerificationFailed):
    """The generations in a store are not one whole history: lost, mixed, replayed or rolled back ones."""


class RoleStale(VerificationFailed):
    """A role was not captured, and not found unchanged, for longer than it may be."""


class HostilePayload(VerificationFailed):
    """A verified archive still holds what no capture writes: `..`, absolute paths, paths outside the signed scope."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(
            message,
            hint=hint
            or "take an older generation, and find out what signed this one with the role's key",
        )


class ComparisonFailed(VerificationFailed):
    """Two disks, or a scope and its overlay, differ."""


class KeptDamaged(VerificationFailed):
    """What a rebuild moved aside, to be brought back, is not what it was then."""


class CheckFailed(VerificationFailed):
    """A clone is not what was captured, or it is not sound; nothing was changed."""


class ReadBackDiffers(ComparisonFailed):
    """The target does not hold what was written to its bytes `[start, end)`."""

    def __init__(self, message: str, *, hint: str = "", start: int = 0, end: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.start = start
        self.end = end


class CannotBoot(VerificationFailed):
    """The role is on the disk, but the boot loader that was asked for, or an initramfs that had to be made, is not."""


class GrowFailed(VerificationFailed):
    """A filesystem could not be enlarged, or was not sound afterwards; the target is unfinished."""


class IdsFailed(VerificationFailed):
    """An identifier could not be changed, or what it belongs to was not sound afterwards; the target is unfinished."""


# --- devices --------------------------------------------------------------------------------------------------------


class DeviceError(EtscloneError):
    """A device reported an input or output error, vanished or changed; the target is unfinished."""

    exit_code = ExitCode.DEVICE


class SnapshotLost(DeviceError):
    """More of the source changed than its snapshot has room for: the target is unfinished."""


class ReadFailed(DeviceError):
    """Some bytes of a disk cannot be read; the rest of it may well be."""


class WritesLost(DeviceError):
    """What the target had taken is not on it: nothing counts as done that was not saved before."""

    HINT = "look at its cable and adapter, then go on with --resume, or use another disk"


class BytesLost(DeviceError):
    """The clone is complete but for bytes that the source no longer gives; the message says what they belonged to."""


class Interrupted(EtscloneError):
    """^C or a termination signal."""

    exit_code = ExitCode.INTERRUPTED


INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that ask a long operation to end."""


_GONE = frozenset(
    {
        errno.EIO,
        errno.EREMOTEIO,
        errno.ENODEV,
        errno.ENXIO,
        errno.ENOMEDIUM,
        errno.ESTALE,
        errno.ENOTCONN,  # what a FUSE filesystem says whose program is gone
        errno.ESHUTDOWN,  # what ext4 and xfs say whose disk is gone
        errno.EUCLEAN,  # these two: what filesystems say that are damaged
        errno.EBADMSG,
    }
)


def medium_error(error: OSError, what: object) -> DeviceError | None:
    """What the system's word on `what` means if a medium failed or is gone; None when it says something else."""
    if error.errno not in _GONE:
        return None
    return DeviceError(
        f"the medium of {what} failed: {error.strerror}",
        hint="check that it is still plugged in",
    )
