"""Feeds the readers with what a coverage-guided fuzzer (atheris, libFuzzer) thinks of.

usage: python tests/fuzz/fuzz.py --seconds N [READER ...]     all readers, or those named, N seconds together; it
                                                              begins alike each time, so a longer run goes further
       python tests/fuzz/fuzz.py READER [libFuzzer's options]  one of them, until it is stopped

What it finds is kept in build/fuzz: READER-crash-* and READER-timeout-* are bugs. Put such a file into
tests/fuzz/found/READER/, where the unit tests read it for ever, and mend the reader. New inputs that reach new code go
to build/fuzz/READER/.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build" / "fuzz"
INSTRUMENTED = [
    f"etsclone.{part}" for part in ("boot", "model", "overlay", "plan", "store", "units")
]
LONGEST = 16_384
SLOW = 10
"""Seconds that one input may take."""


def fuzz(reader: str, options: list[str]) -> None:
    """Run libFuzzer in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        from readers import READERS
    read = READERS[reader]
    found = BUILD / reader
    found.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_len={LONGEST}", f"-timeout={SLOW}", "-rss_limit_mb=1024"]
    places = [f"-artifact_prefix={BUILD}/{reader}-", str(found), str(HERE / "corpus" / reader)]
    atheris.Setup([sys.argv[0], *limits, *options, *places], lambda data: read(data) and None)
    atheris.Fuzz()


def run_all(seconds: int, readers: list[str]) -> int:
    """Give each reader its share of the time; how many failed."""
    from readers import READERS

    names = readers or list(READERS)
    share = max(1, seconds // len(names))
    # The same seed: a run beside a change must not fail for what the change has nothing to do with.
    options = [f"-max_total_time={share}", "-seed=1", "-print_final_stats=1"]
    failed = []
    for name in names:
        argv = [sys.executable, __file__, name, *options]
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, timeout=seconds + 60
        )
        told = [
            line
            for line in done.stderr.splitlines()
            if line.startswith(("Done", "stat::number_of"))
        ]
        print(f"{name}: {'; '.join(told) or 'failed'}", flush=True)
        if done.returncode != 0:
            failed.append(name)
            print(done.stderr[-4000:], flush=True)
    return len(failed)


def main() -> None:
    """As the usage says."""
    match sys.argv[1:]:
        case ["--seconds", seconds, *readers]:
            sys.exit(run_all(int(seconds), readers))
        case [reader, *options] if not reader.startswith("-"):
            fuzz(reader, options)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
