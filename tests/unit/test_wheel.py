"""What a user installs."""

import subprocess
import sys
import zipfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def test_the_wheel_brings_the_profiles(tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "--target",
        "wheel",
        "--directory",
        str(tmp_path),
    ]
    subprocess.run(words, cwd=PROJECT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for profile in (PROJECT / "profiles").glob("*.toml"):
        assert f"etsclone/_profiles/{profile.name}" in names
    assert "etsclone/py.typed" in names
