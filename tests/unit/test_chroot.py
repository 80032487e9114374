"""Processes that work for this one."""

import os
import signal
import time
from pathlib import Path

from etsclone.chroot import forked


def test_a_child_works_no_longer_when_its_parent_is_killed(tmp_path: Path) -> None:
    beats = tmp_path / "beats"

    def work() -> None:
        while True:
            with beats.open("a") as file:
                file.write(".")
            time.sleep(0.005)

    parent = os.fork()
    if parent == 0:
        with forked(work, "a child") as child:
            child.result()
        os._exit(0)
    while not beats.exists():
        time.sleep(0.005)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    time.sleep(0.1)
    before = beats.read_bytes()
    time.sleep(0.2)
    assert beats.read_bytes() == before


def test_what_a_child_returns_comes_back() -> None:
    with forked(lambda: ["result"], "a child") as child:
        assert child.result() == ["result"]
