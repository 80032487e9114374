"""Overlays that are too large for memory, where no folder takes temporary files, or the one that does is full."""

import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from attacks import SCOPE
from payloads import ETC, file, packed

from etsclone.errors import StoreFull
from etsclone.overlay import container, payload
from etsclone.overlay.payload import read_payload
from etsclone.overlay.trust import Trust
from etsclone.units import KIB

from .test_container import verified

LARGE = packed(ETC, file(b"/etc/large", os.urandom(64 * KIB)))


def no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """As on a rescue system that is full: /tmp, /var/tmp and the working folder are all on it."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    return "no folder for temporary files can be written to"


def full_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """It takes a file, and nothing in it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda *_, **__: open("/dev/full", "w+b", 0))  # noqa: SIM115
    return f"no space left in {tmp_path} for the "


@pytest.mark.parametrize("broken", [no_folder, full_folder])
def test_that_is_said(
    broken: Callable[[pytest.MonkeyPatch, Path], str],
    overlay: bytes,
    trust: Trust,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    message = broken(monkeypatch, tmp_path)
    with verified(overlay, trust), read_payload(io.BytesIO(LARGE), SCOPE):
        pass  # it is not too large
    monkeypatch.setattr(container, "_IN_MEMORY", 0)
    monkeypatch.setattr(payload, "_IN_MEMORY", KIB)
    with pytest.raises(StoreFull, match=message) as caught:
        verified(overlay, trust)
    assert "TMPDIR" in caught.value.hint
    with pytest.raises(StoreFull, match=message):
        read_payload(io.BytesIO(LARGE), SCOPE)
