"""Damages every kind of file that a person may hand us and reads it: one of our own one-line errors, or success.

    python -m tests.fuzz.fuzz_files --minutes 5 [--seed 0] [--only NAME]

Any other exception, one that computes for more than ten seconds, or one that takes more than a gigabyte is a finding: it is
printed with the kind of file, the round and the seed that make it again, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from research.errors import UserError
from tests.fuzz.mutations import damaged, damaged_json
from tests.fuzz.targets import Target, targets
from vae.config import ConfigError
from vae.data.dataset import DataError
from vae.state import StateError

if TYPE_CHECKING:
    from collections.abc import Iterator

ALLOWED = (UserError, ConfigError, DataError, StateError)
SECONDS = 10  # of computing
ASLEEP = 120  # seconds on the clock: a machine under load is slow, not wrong
MEMORY = 1 << 30  # bytes above what is used at the start


class TooLong(BaseException):
    """A reading that did not end: no reader may catch it."""


def fuzz(folder: Path, *, seed: int, rounds: int | None, seconds: float | None, only: str = "") -> Iterator[str | None]:
    """Damage each specimen in turn; a finding as text, or None for a reading that went as it should."""
    found = {name: target for name, target in targets(folder).items() if only in name}
    pristine = {name: target.path.read_bytes() for name, target in found.items()}
    until = None if seconds is None else time.monotonic() + seconds
    number = 0
    while (rounds is None or number < rounds) and (until is None or time.monotonic() < until):
        for name, target in found.items():
            yield _once(name, target, pristine[name], f"{seed} {number} {name}")
            target.path.unlink(missing_ok=True)
            target.path.write_bytes(pristine[name])
        number += 1


def _once(name: str, target: Target, content: bytes, key: str) -> str | None:
    draw = random.Random(key)
    structured = target.is_json and draw.random() < 0.7
    changed = (damaged_json if structured else damaged)(content, draw)
    if target.seal is not None:
        changed = target.seal(changed)
    target.path.write_bytes(changed)
    try:
        with _limited():
            target.read()
    except ALLOWED as error:
        # The command line puts it on one line; what may not be there is a page.
        return f"{key}: a page of {len(str(error))} letters: {str(error)[:200]!r}" if len(str(error)) > 3000 else None
    except TooLong:
        return f"{key}: not done after {SECONDS} seconds"
    except MemoryError:
        return f"{key}: more than {MEMORY:,} bytes: {traceback.format_exc(limit=-3)}"
    except Exception:  # noqa: BLE001 - that is what is looked for
        return f"{key}: {traceback.format_exc(limit=-4)}"
    return None


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Ten seconds of computing and a gigabyte; nothing printed."""

    def late(number: int, frame: object) -> None:
        raise TooLong

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    numbers = (signal.SIGPROF, signal.SIGALRM)
    before = [signal.signal(number, late) for number in numbers]
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(ASLEEP)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def main() -> int:
    """By hand, for as long as it is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a part of the name of what to damage")
    arguments = parser.parse_args()
    count, findings = 0, dict[str, str]()
    with tempfile.TemporaryDirectory() as folder:
        for finding in fuzz(
            Path(folder), seed=arguments.seed, rounds=None, seconds=60 * arguments.minutes, only=arguments.only
        ):
            count += 1
            if finding is not None:
                # One for each kind of file, exception and line.
                name, lines = finding.split(":")[0].split(" ", 2)[2], finding.strip().splitlines()
                places = [line for line in lines if line.startswith('  File "')]
                where = f"{name} {places[-1] if places else ''} {lines[-1].split(':')[0]}"
                if where not in findings:
                    sys.stdout.write(f"--- {finding}\n")
                    sys.stdout.flush()
                findings.setdefault(where, finding)
    sys.stdout.write(f"{count} damaged files read, {len(findings)} different findings\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
