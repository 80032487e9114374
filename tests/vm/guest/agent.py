"""Runs in the helper VM: takes shell scripts from a virtio port, one JSON text a line, and tells how each ended."""

import io
import json
import subprocess
import tempfile
from pathlib import Path

PORT = Path("/dev/virtio-ports/etsclone")


def main() -> None:
    """Serve until the port is closed."""
    with PORT.open("r+b", buffering=0) as port:  # which only one may open, and only once
        answers = io.BufferedWriter(
            port
        )  # the port itself takes 32 KiB at a time, and leaves the rest
        answers.write(b'{"code": 0, "output": "ready"}\n')
        answers.flush()
        for line in io.BufferedReader(port):
            answers.write(json.dumps(run(json.loads(line))).encode() + b"\n")
            answers.flush()


def run(script: str) -> dict[str, object]:
    """Run a script to its end; what it left in the background goes on."""
    # A file and not a pipe: a background process would keep the pipe open.
    with tempfile.TemporaryFile() as output:
        argv = ["/bin/bash", "-euo", "pipefail", "-c", script]
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False
        )
        output.seek(0)
        return {"code": done.returncode, "output": output.read().decode("utf-8", "replace")}


if __name__ == "__main__":
    main()
