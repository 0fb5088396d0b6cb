"""A folder in an object store: what fsspec's s3fs and gcsfs do, with their errors as one line for a person.

Exclusive creation is a conditional put, by the store itself: ``If-None-Match: *`` on S3, ``ifGenerationMatch=0`` on
Google Cloud Storage. Short outages are retried by the libraries (botocore's standard mode; gcsfs's own loop).
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from research.errors import StorageError, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SCHEMES = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gcs")}  # to the library, and the extra that installs it
ATTEMPTS = (
    8  # of a request to S3, with random waits up to 1, 2, 4, 8, 16, 20, 20 s, unless AWS_MAX_ATTEMPTS says otherwise
)
ROUNDS = 2  # of s3fs around that, for answers that break off
_URL_LIKE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
_LIBRARIES = {"aiobotocore", "aiohttp", "botocore", "fsspec", "gcsfs", "google", "requests", "s3fs"}
_TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_NO_CREDENTIALS = re.compile("Credential|TokenRetrieval|SSOToken|UnauthorizedSSO|RefreshError")
_UNREACHED = re.compile("Connect|Timeout|HTTPClientError|ProxyConnection|ResponseStreamingError")


def is_url(text: str) -> bool:
    """Return True if ``text`` is an address in an object store and not a path."""
    return _URL_LIKE.match(text) is not None


def parse_url(text: str) -> tuple[str, ...]:
    """``("s3", "bucket", "a", "b")`` of ``s3://bucket/a/b``.

    Raises:
        UserError: another scheme, no bucket, or a name that is no plain name.

    """
    scheme, _, rest = text.partition("://")
    if scheme not in SCHEMES:
        raise UserError(
            f"storage {text!r} must be a path or begin with {' or '.join(f'{known}://' for known in SCHEMES)}; other "
            "stores are reached where they speak S3 (AWS_ENDPOINT_URL), or mounted"
        )
    parts = rest.rstrip("/").split("/")
    if any(part in {"", ".", ".."} or not re.fullmatch(r"[\w.=+@ -]+", part) for part in parts):
        raise UserError(
            f"address {text!r} must be {scheme}://BUCKET/FOLDER/..., each part made of letters, digits and . _ = + @ -"
        )
    return (scheme, *parts)


def url_of(parts: Sequence[str]) -> str:
    """Return the address of ``parts``, the inverse of ``parse_url``, without a slash at its end."""
    return f"{parts[0]}://{'/'.join(parts[1:])}"


@dataclass(frozen=True)
class ObjectStore:
    """The objects below ``url``, named relative to it. Every method raises ``StorageError`` when the store doesn't."""

    url: str  # without a slash at its end

    def create(self, name: str, content: bytes) -> bool:
        """Write what must not be there yet. False: another's content is; nothing was written."""
        try:
            self._fs.pipe_file(self._key(name), content, mode="create")
        except Exception as error:
            code = str(_response(error).get("Error", {}).get("Code", ""))
            if not isinstance(error, FileExistsError) and code not in _TAKEN:
                raise self._explained(error, "written") from error
            # The library's retry after a lost answer meets the object that its first try made.
            return self.read(name) == content
        return True

    def write(self, name: str, content: bytes) -> None:
        """Write, whatever was there."""
        try:
            self._fs.pipe_file(self._key(name), content)
        except Exception as error:
            raise self._explained(error, "written") from error

    def read(self, name: str) -> bytes:
        """An object's content; ``FileNotFoundError`` for none."""
        return self.read_all([name])[0]

    def read_all(self, names: Sequence[str]) -> list[bytes]:
        """The contents of several objects, fetched side by side; ``FileNotFoundError`` when one is missing."""
        if not names:
            return []
        try:
            contents: dict[str, bytes] = self._fs.cat([self._key(name) for name in names])
        except FileNotFoundError as error:
            if _no_bucket(error):
                raise self._explained(error, "read") from error
            raise
        except Exception as error:
            raise self._explained(error, "read") from error
        by_key = {key.lstrip("/"): content for key, content in contents.items()}
        return [by_key[self._key(name)] for name in names]

    def names(self, folder: str = "") -> list[str]:
        """All objects below ``folder``, relative to ``url``, in order."""
        return sorted(self.listing(folder))

    def listing(self, folder: str = "") -> dict[str, str]:
        """All objects below ``folder``, relative to ``url``, to what tells a change: size and the store's own hash."""
        root = self._key("")
        try:
            found: dict[str, dict[str, Any]] = self._fs.find(self._key(folder), detail=True)
        except Exception as error:
            raise self._explained(error, "read") from error
        return {
            key.lstrip("/").removeprefix(f"{root}/"): f"{facts.get('size')} {facts.get('ETag') or facts.get('etag')}"
            for key, facts in found.items()
            if facts.get("type") == "file" and key.lstrip("/").startswith(f"{root}/")
        }

    def download(self, folder: Path) -> None:
        """Copy all objects to files of the same names below ``folder``, straight to disk and side by side."""
        try:
            # By the folder: names in a list would be read as patterns.
            self._fs.get(f"{self._key('')}/", f"{folder}/", recursive=True)
        except Exception as error:
            raise self._explained(error, "read") from error

    def remove(self, names: Sequence[str]) -> None:
        """Delete objects; what is not there is no error."""
        if not names:
            return
        try:
            self._fs.rm([self._key(name) for name in names])
        except FileNotFoundError:
            return
        except Exception as error:
            raise self._explained(error, "deleted") from error

    @property
    def _fs(self) -> Any:  # noqa: ANN401 - fsspec has no types
        return _filesystem(self.url.partition("://")[0])

    def _key(self, name: str) -> str:
        root = self.url.partition("://")[2]
        return f"{root}/{name}" if name else root

    def _explained(self, error: Exception, done: str) -> Exception:
        """One line for what a person can mend; ``error`` itself for what is a bug."""
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in _LIBRARIES:
            return error
        return StorageError(f"{self.url} can't be {done}: {_reason(error, self.url)}")


@functools.cache
def _filesystem(scheme: str) -> Any:  # noqa: ANN401 - fsspec has no types
    library, extra = SCHEMES[scheme]
    if importlib.util.find_spec(library) is None:
        raise UserError(f"{scheme}:// needs {library}: install the extra, pip install 'vae-research[{extra}]'")
    import fsspec  # noqa: PLC0415 - seconds, and only for those who use a store

    options: dict[str, Any] = {"use_listings_cache": False}  # others write there too
    if scheme == "s3":
        attempts = {} if "AWS_MAX_ATTEMPTS" in os.environ else {"max_attempts": ATTEMPTS}
        options["config_kwargs"] = {"retries": {"mode": "standard", **attempts}}
    else:
        logging.getLogger(library).setLevel(logging.CRITICAL)  # it logs a traceback with each error that it raises
    filesystem = fsspec.filesystem(scheme, **options)
    if scheme == "s3":
        filesystem.retries = ROUNDS
    return filesystem


def _response(error: BaseException) -> dict[str, Any]:
    """Return the response of S3; empty if the error has none."""
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            return response
    return {}


def _no_bucket(error: BaseException) -> bool:
    return str(_response(error).get("Error", {}).get("Code")) == "NoSuchBucket"


def _reason(error: Exception, url: str) -> str:
    """Return what happened, and the remedy."""
    scheme, bucket = parse_url(url)[:2]
    kind, told = type(error).__name__, " ".join(str(error).split())
    code = str(_response(error).get("Error", {}).get("Code", "") or getattr(error, "code", "") or "")
    if _NO_CREDENTIALS.search(kind):
        where = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, aws configure, or the machine's role"
        where = "gcloud auth application-default login, or GOOGLE_APPLICATION_CREDENTIALS" if scheme == "gs" else where
        return f"no credentials were found ({told}); give some: {where}"
    if isinstance(error, FileNotFoundError):
        return f"there is no bucket {bucket!r}; make it, or correct the address"
    if isinstance(error, PermissionError) or code in {"401", "403"} or told.startswith("Forbidden"):  # gcsfs's word
        return f"the store refuses ({told}); let these credentials read, write, list and delete there, then go on"
    if isinstance(error, ConnectionError | TimeoutError) or _UNREACHED.search(kind):
        return f"the store can't be reached ({told}); see to the network{' and AWS_ENDPOINT_URL' if scheme == 's3' else ''}, then go on"
    return f"{kind}{f' {code}' if code else ''}: {told}; mend that, then go on"
