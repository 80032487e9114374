"""A small Debian VM with Debian's own kernel, for what the kernel at hand may lack: device-mapper, md, FAT.

    with helper(server, tmp_path, {"source": 8 * GIB, "target": 8 * GIB}) as vm:
        vm.check(f"pvcreate {vm.disk('source')}")               # the output; fails the test unless it exits 0
        result = vm.run(f"etsclone clone {vm.disk('source')} {vm.disk('target')} --yes")

`server` is the fixture `helper_image`. The VM runs bash scripts (-euo pipefail) one after the other as root, without
standard input; what a script leaves in the background goes on. udev runs, no other service does. There is no network.

Its root is a logical volume, helper/root, of /dev/vda2, with free extents in its group; /boot is /dev/vda1. Nothing
that is written to /dev/vda outlives the VM. Scratch disks are sparse files in the folder given, and removed in the end.
`etsclone` is the code of this checkout with the packages of the running Python, which must have the version of the
guest's; its state is in /run/etsclone. `/mnt/pair/install-role` makes a mounted tree either role by hand.

One boot (6 s by TCG on an idle machine) serves a whole module: use a fixture with scope="module".
"""

import contextlib
import importlib.metadata
import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .qemu import BOOTS, COMMAND_TIMEOUT, FIRST_PROGRAM, Result, quoted, uefi_firmware

PROJECT = Path(__file__).parents[2]
GUEST = Path(__file__).parent / "guest"
DEVICES = PROJECT / "scripts" / "helper" / "devices"
PAIR = PROJECT / "scripts" / "pair"
PROJECT_DISK_MIB = 256
TAIL = 3000
PORT = "@PORT@"  # in arguments, for the number of a descriptor


@dataclass(frozen=True, slots=True)
class Helper:
    """A running helper VM. Made by `helper`."""

    port: socket.socket
    console: Path
    names: tuple[str, ...]
    folder: Path

    def disk(self, name: str) -> str:
        """The device in the VM of a scratch disk."""
        return f"/dev/vd{chr(ord('c') + self.names.index(name))}"

    def file(self, name: str) -> Path:
        """The file of a scratch disk on this side."""
        return self.folder / f"{name}.raw"

    def run(self, script: str, timeout: float = COMMAND_TIMEOUT) -> Result:
        """Run a bash script in the VM; returns its exit code and what it wrote (both streams, mixed)."""
        self.port.sendall(json.dumps(script).encode() + b"\n")
        return self.answer(timeout, script)

    def check(self, script: str, timeout: float = COMMAND_TIMEOUT) -> str:
        """Run a bash script that must succeed; returns what it wrote."""
        result = self.run(script, timeout)
        assert result.code == 0, f"{script}\nended with {result.code}:\n{result.output}"
        return result.output

    def answer(self, timeout: float, what: str) -> Result:
        """Wait for what the VM says next."""
        received, until = b"", time.monotonic() + timeout
        while not received.endswith(b"\n"):
            self.port.settimeout(max(0.1, until - time.monotonic()))
            try:
                more = self.port.recv(1 << 20)
            except TimeoutError:
                more = b""
            if not more:
                self.port.close()  # what comes later would answer another question
            assert more, f"no answer to:\n{what}\n{self._last_words()}"
            received += more
        answer = json.loads(received)
        return Result(answer["code"], answer["output"])

    def _last_words(self) -> str:
        said = self.console.read_text(errors="replace")[-TAIL:]
        return (
            f"the console's last words:\n{said}\nQEMU's:\n{(self.folder / 'qemu.log').read_text()}"
        )


@contextlib.contextmanager
def helper(
    image: Path,
    folder: Path,
    disks: Mapping[str, int],
    more: Path | None = None,
    *,
    variables: Path | None = None,
) -> Iterator[Helper]:
    """Boot the helper with scratch disks (name and size in bytes); it ends with the block.

    Args:
        image: the folder that scripts/build-helper made.
        folder: for the disks and the log of the console (console.log).
        disks: at most twenty; one with a file there already keeps what it holds.
        more: a folder that the VM has, read-only, as /mnt/more.
        variables: a file with those of a UEFI, which the VM then has, and which outlives it.
    """
    project = project_disk(folder, more)
    files = []
    for name, size in disks.items():
        files.append(folder / f"{name}.raw")
        with files[-1].open("ab") as opened:
            opened.truncate(size)
    console = folder / "console.log"
    argv = command_line(image, project, files, console, variables)
    try:
        for left in reversed(range(BOOTS)):
            with machine(argv, folder / "qemu.log") as port:
                vm = Helper(port, console, tuple(disks), folder)
                try:
                    vm.answer(FIRST_PROGRAM, "boot")
                except AssertionError:
                    if left:
                        continue
                    raise
                yield vm
                return
    finally:
        for file in (project, *files):
            file.unlink()


@contextlib.contextmanager
def machine(argv: list[str], log: Path) -> Iterator[socket.socket]:
    """Run QEMU with arguments that name PORT; the other end of that."""
    ours, theirs = socket.socketpair()
    with ours, log.open("w") as opened:
        with theirs:
            qemu = subprocess.Popen(
                [word.replace(PORT, str(theirs.fileno())) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=opened,
                stderr=opened,
                pass_fds=[theirs.fileno()],
            )
        try:
            yield ours
        finally:
            qemu.kill()
            qemu.wait()


def command_line(
    image: Path, project: Path, disks: list[Path], console: Path, variables: Path | None
) -> list[str]:
    """QEMU's arguments: kernel and initrd without a boot loader, disks, a console into a file, a port on a socket."""
    argv = [
        *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "qemu64", "-smp", "2", "-m", "1024"),
        *("-kernel", str(image / "kernel"), "-initrd", str(image / "initrd")),
        # On a busy machine the first ticks come too late for the kernel's check of its timer, and it panics.
        *("-append", "console=ttyS0 no_timer_check mitigations=off panic=-1 random.trust_cpu=on"),
        *("-display", "none", "-monitor", "none", "-no-reboot", "-nodefaults", "-nic", "none"),
        *("-serial", f"file:{quoted(console)}", "-device", "virtio-rng-pci"),
        *("-device", "virtio-serial-pci", "-chardev", f"socket,id=port,fd={PORT}"),
        *("-device", "virtserialport,chardev=port,name=etsclone"),
        *(uefi_firmware(variables) if variables else ()),
    ]  # fmt: skip
    drives = [
        ("system", f"file={quoted(image / 'disk.raw')},snapshot=on"),
        ("project", f"file={quoted(project)},readonly=on"),
        # What QEMU wrote need not reach this machine's disk: it is looked at from here, or by the VM.
        *((disk.stem, f"file={quoted(disk)},cache=unsafe,discard=unmap") for disk in disks),
    ]
    for name, drive in drives:
        argv += ["-drive", f"{drive},format=raw,if=none,id={name}"]
        # Each has a serial number, as real disks do: device names may change.
        argv += ["-device", f"virtio-blk-pci,drive={name},serial={name}"]
    return argv


def project_disk(folder: Path, more: Path | None) -> Path:
    """A filesystem with etsclone, the packages that it needs, and what the VM runs first."""
    disk, tree = folder / "project.raw", folder / "project"
    shutil.copytree(GUEST, tree)
    shutil.copy(DEVICES, tree)
    shutil.copytree(PAIR, tree / "pair")
    if more is not None:
        shutil.copytree(more, tree / "more")
    library = tree / "lib"
    shutil.copytree(PROJECT / "etsclone", library / "etsclone")
    for name in packages("etsclone"):
        for file in importlib.metadata.files(name) or []:
            if ".." not in file.parts:
                target = library / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file.locate(), target)
    shutil.copytree(PROJECT / "profiles", library / "etsclone" / "_profiles")
    make = ["mke2fs", "-qF", "-t", "ext4", "-d", str(tree), str(disk), f"{PROJECT_DISK_MIB}M"]
    subprocess.run(make, check=True)
    shutil.rmtree(tree)
    return disk


def packages(name: str) -> set[str]:
    """The distributions that one needs, itself not among them, whatever their depth."""
    found: set[str] = set()
    todo = [name]
    while todo:
        for requirement in importlib.metadata.requires(todo.pop()) or []:
            words = re.match(r"[A-Za-z0-9._-]+", requirement)
            needed = words.group() if words and "extra ==" not in requirement else ""
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                if needed and needed not in found and importlib.metadata.version(needed):
                    found.add(needed)
                    todo.append(needed)
    return found
