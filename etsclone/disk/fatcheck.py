"""Whether a FAT filesystem is sound, by fsck.fat(8), which writes nothing here.

Its exit status is 1 for damage, and as well for what every unclean end of a mount leaves. So what it says is read: what
is known to be harmless is a note, and all else is damage, also what a newer fsck.fat may say in words not known here.
"""

import re

from etsclone.errors import CommandFailed
from etsclone.run import run

_FOUND = 1
_SHOWN = 3
_SAYS_NOTHING = re.compile(
    r"fsck\.fat \d.*|Leaving filesystem unchanged\.|.*: \d+ files, \d+/\d+ clusters|\s*"
)
_NOTES = {
    "its dirty bit is set: it was not unmounted before the machine stopped": re.compile(
        r"(0x41: |0x25: )?Dirty bit is set\. Fs was not properly unmounted and some data may be corrupt\."
        r"| Automatically removing dirty bit\."
    ),
    "the copy of its boot sector differs": re.compile(
        r"There are differences between boot sector and its backup\."
        r"|This is mostly harmless\. Differences: \(offset:original/backup\)"
        r"|  \d+:[0-9a-f]{2}/[0-9a-f]{2}(, \d+:[0-9a-f]{2}/[0-9a-f]{2})*(,| \.\.\.)?"
        r"|  Not automatically fixing this\."
    ),
    "its count of free clusters is not up to date": re.compile(
        r"Free cluster summary (wrong \(\d+ vs\. really \d+\)|uninitialized \(should be \d+\))"
        r"|  Auto-(correcting|setting)\."
    ),
}
"""What says that a mount did not end as it should, by what it is told as; the driver mends that by itself."""


def check_fat(device: str) -> str:
    """Have fsck.fat check a filesystem; returns what is not as it should be but harmless, in words, or nothing.

    Raises:
        CommandFailed: when it is not sound; the message has the first thing that is not.
        MissingProgram: when there is no fsck.fat here.
    """
    done = run("fsck.fat", ["-n", device], accept=(0, _FOUND))
    lines = [line for line in done.stdout.splitlines() if not _SAYS_NOTHING.fullmatch(line)]
    damage = [
        line.strip()
        for line in lines
        if not any(words.fullmatch(line) for words in _NOTES.values())
    ]
    if done.status == _FOUND and (damage or not lines):
        said = damage[:_SHOWN] or done.stderr.strip().splitlines()[-1:]
        raise CommandFailed(f"fsck.fat found damage: {'; '.join(said)}")
    return "; ".join(why for why, words in _NOTES.items() if any(map(words.fullmatch, lines)))
