"""The files of a ledger: one small file for each event, numbered without gaps, each sealed by a hash.

An event is a file that never changes, ``DIR/ledger/00000012.json``:

    {"event": {"type": "row", ...}, "previous": <sha256>, "sequence": 12, "time": <iso, utc>, "sha256": <hex>}

``sha256`` covers the canonical JSON (sorted keys, no spaces, no NaN) of everything before it. ``previous`` is the
``sha256`` of the event before. So a torn, altered, missing or foreign file is refused by name. A file is written under
a temporary name, synced, and then linked to its own name. The link fails if the number is taken, so that two drivers
on one sweep notice each other. Readers ignore temporary files. If the sweep is in an object store, the directory is a
mirror, and an event is created in the store first (``research.store.mirror``).
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, TypeAdapter, ValidationError

from research.errors import CorruptFile, UserError, storing
from research.ledger import checks
from research.ledger.events import Event, SweepCreated
from research.store.folders import clear_leftover_files
from research.store.in_place import InPlace, SweepGoneError, refuse_gone
from research.store.layout import NAMES, SweepFolder
from research.store.mirror import store_of
from vae.config import NonNegativeInt, part
from vae.durable import LARGE_TEXT, create_file, read_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_EVENT_FILE = re.compile(r"\d{8}\.json")
_SEAL = re.compile(rb',"sha256":"([0-9a-f]{64})"}\n')
_SEAL_BYTES = len(',"sha256":""}\n') + 64


@part
class Envelope:
    """An event with its number, its time, and the hash of the event before it."""

    sequence: NonNegativeInt
    previous: str
    time: Annotated[str, AfterValidator(checks.moment)]
    event: Event


_ENVELOPE: TypeAdapter[Envelope] = TypeAdapter(Envelope)


class Chain:
    """The event files of the sweep in ``directory``, up to the last event that was read or written here.

    ``check`` is called with each event before it is accepted. It raises ``ValueError`` for an event that can't follow
    the ones before it.
    """

    identity: str  # sha256 of the first event: tells this sweep from any other of the same name

    def __init__(self, directory: Path, check: Callable[[Event], None]) -> None:
        """Read nothing yet."""
        self.directory = directory
        self.folder = SweepFolder(directory)
        self._check = check
        self._count = 0
        self._previous = ""
        self._wrote = False
        self._store = store_of(directory)
        self._in_place = InPlace(directory)

    def __len__(self) -> int:
        """Return the number of events that were read or written."""
        return self._count

    def path(self, sequence: int) -> Path:
        """Return the file of event number ``sequence``."""
        return self.folder.event(sequence)

    def names(self) -> list[str]:
        """Return the names of all event files that exist, in no order. Raises ``OSError`` without a folder."""
        return [path.name for path in self.path(0).parent.iterdir() if _EVENT_FILE.fullmatch(path.name)]

    def check_in_place(self, *, now: bool = True) -> None:
        """Raise ``SweepGoneError`` if the sweep was removed, moved or replaced under us; see ``InPlace.check``."""
        self._in_place.check(self.identity, now=now)

    def read(self) -> Envelope | None:
        """Return the next event, verified; None if there is none yet, which costs one failing ``open``.

        Raises ``UserError`` if the file can't be read, ``CorruptFile`` if it is damaged or does not come next.
        """
        try:
            # By its text: a Path for each event is a third of the time that a long ledger takes to be read.
            raw = read_file(f"{self._folder}/{self._count:08d}.json", LARGE_TEXT)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"{self.path(self._count)} can't be read ({error.strerror})") from error
        envelope, seal = self._decode(raw)
        self._advance(seal)
        return envelope

    def write(self, event: Event) -> Envelope:
        """Make ``event`` durable as the next one, and return it as a reader will read it.

        Raises ``ValueError`` for an event that can't come next (nothing is written), ``UserError`` if another driver
        wrote this event's number or the storage can't take it.
        """
        if self._count > 0:
            self.check_in_place(now=False)
        envelope = Envelope(
            sequence=self._count,
            previous=self._previous,
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            event=event,
        )
        body = _canonical(_ENVELOPE.dump_python(envelope))
        seal = hashlib.sha256(body).hexdigest()
        checks.numbers(body)
        # What is taken in is what a reader will read, not the object that the caller may still change.
        written = _ENVELOPE.validate_json(body)
        self._refuse_impossible(written)
        self._store_file(body[:-1] + f',"sha256":"{seal}"}}\n'.encode())
        self._advance(seal)
        return written

    @property
    def last(self) -> str:
        """The sha256 of the last event."""
        return self._previous

    @property
    def _folder(self) -> str:
        return str(self.path(0).parent)

    def _advance(self, seal: str) -> None:
        if self._count == 0:
            self.identity = seal
        self._count, self._previous = self._count + 1, seal

    def _store_file(self, content: bytes) -> None:
        """Create the next event's file, in the object store first if there is one."""
        target = self.path(self._count)
        name = str(NAMES.event(self._count))
        shown = target if self._store is None else f"{self._store.url}/{name}"
        shared = UserError(f"{shown} was written by another process: two drivers share this sweep; stop one")
        if self._store is not None and not self._store.create(name, content):
            raise shared
        with storing(target):
            if not self._wrote:
                clear_leftover_files(self.directory)
                clear_leftover_files(target.parent)
                self._wrote = True
            # A mirror's file may have been fetched by a reader between these lines.
            if not create_file(target, content) and (self._store is None or read_file(target, LARGE_TEXT) != content):
                raise shared
            if self._count > 0:
                try:
                    refuse_gone(self.directory, self.identity)
                except SweepGoneError:  # while this was written: a ledger begins with its first event
                    target.unlink(missing_ok=True)
                    raise

    def _decode(self, raw: bytes) -> tuple[Envelope, str]:
        """Return the next event and its sha256 from its file's bytes, every one of which is accounted for."""
        path = self.path(self._count)
        seal = _SEAL.fullmatch(raw[-_SEAL_BYTES:])
        body = raw[:-_SEAL_BYTES] + b"}"
        if seal is None or hashlib.sha256(body).hexdigest() != seal[1].decode():
            raise CorruptFile(f"{path} is damaged (its sha256 does not match): restore it from a copy")
        try:
            checks.numbers(body)
        except ValueError as error:
            raise CorruptFile(f"{path} can't be understood ({error}): restore it from a copy") from error
        try:
            envelope = _ENVELOPE.validate_json(body)
            self._refuse_impossible(envelope)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(step) for step in first["loc"])[:100]
            raise CorruptFile(
                f"{path} can't be understood ({place}: {first['msg'][:200]}): another version wrote it"
            ) from error
        except ValueError as error:
            raise CorruptFile(
                f"{path} does not follow the event before it ({error}): restore it from a copy"
            ) from error
        return envelope, seal[1].decode()

    def _refuse_impossible(self, envelope: Envelope) -> None:
        """Raise ``ValueError`` for an event that can't come next."""
        if (envelope.sequence, envelope.previous) != (self._count, self._previous):
            raise ValueError(f"event {envelope.sequence} of another ledger")
        if isinstance(envelope.event, SweepCreated) != (self._count == 0):
            raise ValueError(
                f"a ledger begins with its one sweep event; event {self._count} is {envelope.event.type!r}"
            )
        self._check(envelope.event)


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
