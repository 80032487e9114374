"""Boots a disk under QEMU and talks to it on its serial console, as a person at a terminal would.

Needs no virtualisation of the host: the processor is emulated, and slow. All waits are therefore
generous. The machine has a network card whose other end is nobody, and nothing that it writes
reaches the disk.
"""

import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pexpect

ROOT_PASSWORD = "etsclone"  # of the image that scripts/build-image makes
BOOT_TIMEOUT = 900.0
COMMAND_TIMEOUT = 300.0
BOOTS = 3
"""How often a machine is started that does not come to its first program."""
FIRST_PROGRAM = 300.0
"""Seconds within which it has to. An emulated one hangs before that, once in hundreds of boots; it has written
nothing then."""
OVMF = Path("/usr/share/OVMF")
EOL = r"\r*\n"  # the guest's terminal and the host's may each add a carriage return


class ConsoleError(AssertionError):
    """The machine did not say what was waited for; carries the end of what it said instead."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a command in the machine printed (both streams, mixed), and its exit code."""

    code: int
    output: str


class Console:
    """The serial console of a running machine. Made by `boot`."""

    def __init__(self, child: "pexpect.spawn[str]") -> None:
        self._child = child

    def expect(self, pattern: str, timeout: float) -> re.Match[str]:
        """Wait until the machine prints `pattern` (a regular expression); return the match."""
        try:
            self._child.expect(pattern, timeout=timeout)
        except (pexpect.TIMEOUT, pexpect.EOF) as error:
            ended = isinstance(error, pexpect.EOF)
            why = "it ended" if ended else f"not seen in {timeout:.0f} s"
            tail = (self._child.before or "")[-2000:]
            message = f"waited for {pattern!r}: {why}; the console's last words:\n{tail}"
            raise ConsoleError(message) from error
        match = self._child.match
        assert isinstance(match, re.Match)
        return match

    def log_in(self, password: str = ROOT_PASSWORD, timeout: float = BOOT_TIMEOUT) -> str:
        """Wait for the login prompt, log in as root; return the host name that the prompt showed."""
        host = self.expect(r"(\S+) login: ", timeout).group(1)
        self._child.sendline("root")
        self.expect("Password: ", COMMAND_TIMEOUT)
        self._child.sendline(password)
        self.expect(r"root@\S+# ", COMMAND_TIMEOUT)
        self._quieten()
        return str(host)

    def _quieten(self) -> None:
        # A plain shell without echo, prompt and line editing; kernel messages stay in the log.
        # The arithmetic tells the answer from the echo of the question.
        self._child.sendline("exec env PS1= PS2= ENV= /bin/sh")
        self._child.sendline("stty -echo cols 1000; dmesg -n 1; echo quiet-$((6 * 7))")
        self.expect(rf"quiet-42{EOL}", COMMAND_TIMEOUT)

    def run(self, command: str, timeout: float = COMMAND_TIMEOUT) -> Result:
        """Run a shell command line in the machine (logged in before)."""
        mark = secrets.token_hex(8)
        self._child.sendline(f"( {command}\n) < /dev/null; printf '\\n%s %d\\n' {mark} $?")
        match = self.expect(rf"(?s)(.*?){EOL}{mark} (\d+){EOL}", timeout)
        return Result(int(match.group(2)), re.sub(EOL, "\n", match.group(1)))

    def power_off(self, timeout: float = COMMAND_TIMEOUT) -> None:
        """Shut the machine down in order and wait until it is off."""
        self._child.sendline("systemctl poweroff")
        self._child.expect(pexpect.EOF, timeout=timeout)


def quoted(path: Path) -> str:
    """QEMU's own way to quote a comma."""
    return str(path).replace(",", ",,")


def uefi_firmware(variables: Path) -> list[str]:
    """QEMU's arguments for a UEFI that keeps its variables, boot entries among them, in a file."""
    return [
        *("-drive", f"if=pflash,format=raw,readonly=on,file={OVMF / 'OVMF_CODE_4M.fd'}"),
        *("-drive", f"if=pflash,format=raw,file={quoted(variables)}"),
    ]


def new_variables(file: Path) -> Path:
    """A file with the variables of a UEFI that has seen no disk yet: it has no boot entry."""
    return Path(shutil.copyfile(OVMF / "OVMF_VARS_4M.fd", file))


def command_line(
    disk: Path, memory_mib: int, *, variables: Path | None, beside: Sequence[Path] = ()
) -> list[str]:
    """QEMU's arguments: a disk, others beside it, writes thrown away; the serial line on stdin and stdout."""
    names = [quoted(each) for each in (disk, *beside)]
    return [
        *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "qemu64", "-smp", "2", "-m", str(memory_mib)),
        *(word for name in names for word in ("-drive", f"file={name},format=raw,if=virtio,snapshot=on")),
        "-nic", "user,restrict=on,model=virtio-net-pci",
        "-display", "none", "-monitor", "none", "-no-reboot",
        "-chardev", "stdio,id=serial,signal=off", "-serial", "chardev:serial",
        *(uefi_firmware(variables) if variables else ()),
    ]  # fmt: skip


@contextmanager
def boot(
    disk: Path,
    log: Path,
    memory_mib: int = 1024,
    *,
    uefi: bool = False,
    variables: Path | None = None,
    beside: Sequence[Path] = (),
) -> Iterator[Console]:
    """Boot `disk`, with other disks `beside` it, and give its console, also written to `log`.

    The machine ends with the block. It is a UEFI one if `uefi`, or if it has the `variables` of one in a file.
    """
    if uefi and variables is None:
        variables = new_variables(log.with_suffix(".variables"))
    argv = command_line(disk, memory_mib, variables=variables, beside=beside)
    with log.open("w", encoding="utf-8") as transcript, ExitStack() as ends:
        for left in reversed(range(BOOTS)):
            child = pexpect.spawn(
                argv[0], argv[1:], encoding="utf-8", codec_errors="replace", timeout=COMMAND_TIMEOUT
            )
            ends.callback(child.close, force=True)
            child.logfile_read = transcript
            console = Console(child)
            try:
                console.expect("Run /init as init process", FIRST_PROGRAM)
                break
            except ConsoleError:
                child.close(force=True)
                if not left:
                    raise
        yield console
