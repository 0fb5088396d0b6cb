"""Rules that recognise a secret: by the name that it is given, and by its form.

The forms are those of the library ``detect-secrets``, used as data, and those that its last release does not know.
The library is imported only for a text that holds something long and mixed, because the import takes 0.3 seconds.
"""

from __future__ import annotations

import importlib
import re
from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import PurePath

# Names whose value is always a secret.
_ALWAYS = re.compile(
    r"passw(or)?d|passphrase|passcode|secret|credential|(api|access|private|auth|encryption|signing|account)_?key"
    r"|connection_?string|conn_?str",
    re.IGNORECASE,
)
_WORDS = {"pass", "pwd", "passwd", "pw", "psw", "token", "cred", "creds", "pat", "jwt", "bearer", "authtoken"}
_ENDINGS = ("token", "pass", "pwd", "passwd", "creds")  # of a word: GHTOKEN, SSHPASS
_NO_ENDINGS = {"askpass", "bypass", "compass", "multipass", "oldpwd"}
# Names whose value may be a secret. It is one if it looks random.
_PERHAPS = {"key", "auth", "authorization", "cookie", "pin", "otp", "salt", "signature", "sig", "webhook"}
# A fact about a secret, such as its path, is not a secret.
_ABOUT = {
    "path", "file", "files", "filename", "dir", "directory", "folder", "url", "uri", "name", "type", "mode", "user",
    "username", "host", "port", "ttl", "expiry", "expires", "timeout", "length", "len", "size", "count", "limit", "limits",
    "sock", "socket", "pid", "info", "agent", "enabled", "disabled", "command", "cmd", "helper", "provider", "algorithm", "arn", "version", "region", "endpoint",
}  # fmt: skip
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
# Values that do not look like a secret: a plain word or path, a number, a truth value.
_PLAIN = re.compile(r"[a-z][a-z_./:-]*|[~.]{0,2}/[\w./~-]*|[+-]?[\d.]+(e[+-]?\d+)?|True|False|None|TRUE|FALSE|NONE")
_SMALL = re.compile(r"[+-]?[\d.]{1,5}")

# The detectors of detect-secrets whose whole match is the secret. Its other rules use names and entropy: they would
# report hashes and ordinary words.
_DETECTORS = {
    "aws": "AWSKeyDetector",
    "azure_storage_key": "AzureStorageKeyDetector",
    "discord": "DiscordBotTokenDetector",
    "github_token": "GitHubTokenDetector",
    "gitlab_token": "GitLabTokenDetector",
    "mailchimp": "MailchimpDetector",
    "npm": "NpmDetector",
    "openai": "OpenAIDetector",
    "pypi_token": "PypiTokenDetector",
    "sendgrid": "SendGridDetector",
    "slack": "SlackDetector",
    "square_oauth": "SquareOAuthDetector",
    "stripe": "StripeDetector",
    "telegram_token": "TelegramBotTokenDetector",
    "twilio": "TwilioKeyDetector",
}
# The forms that the vendors document and that detect-secrets 1.5.0 does not know.
_MORE = {
    "Anthropic API key": r"sk-ant-[\w-]{20,}",
    "API key": r"sk-(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{32,}|sk-or-v1-[0-9a-f]{64}",
    "Docker token": r"dckr_(?:pat|oat)_[\w-]{20,}",
    "DigitalOcean token": r"do[opr]_v1_[a-f0-9]{64}",
    "GitHub token": r"github_pat_\w{22,255}",
    "Google API key": r"AIza[\w-]{35}",
    "Google OAuth secret": r"(?:GOCSPX-[\w-]{20,}|ya29\.[\w-]{20,})",
    "Groq API key": r"gsk_[A-Za-z0-9]{40,}",
    "Hugging Face token": r"(?:hf|api_org)_[A-Za-z0-9]{30,}",
    "JSON Web Token": r"eyJ[\w-]{8,}={0,2}\.eyJ[\w-]{8,}={0,2}(?:\.[\w-]*)?",
    "npm token": r"npm_[A-Za-z0-9]{36}",
    "NVIDIA API key": r"nvapi-[\w-]{40,}",
    "Replicate token": r"r8_[A-Za-z0-9]{37}",
    "Slack token": r"xapp-\d-[A-Z0-9]+-\d+-[a-z0-9]+|xox[a-z]-[A-Za-z0-9-]{20,}",
    "Stripe key": r"(?:[rs]k_test_[0-9a-zA-Z]{16,}|whsec_[A-Za-z0-9+/]{24,})",
    "Weights & Biases key": r"wandb_v\d_\w{20,}",
}
PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\Z)",
    re.DOTALL,
)
_WORD = re.compile(r"[\w+/=.:~-]{20,}")
_PREFIX = re.compile(r"A3T|AKIA|ASIA|ABIA|ACCA|xox|-us\d|AC|SK|GR")

# Names of files that hold secrets, in lower case. Templates and public keys do not hold any.
_SECRET_FILES = (
    ".env", ".env.*", "*.env", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.ppk", "*.ovpn",
    "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", ".netrc", "_netrc", ".pgpass", ".my.cnf", ".npmrc", ".pypirc",
    ".htpasswd", ".git-credentials", ".dockercfg", ".s3cfg", ".boto", "rclone.conf", ".vault-token", "credentials",
    "credentials.json", "credentials.y*ml", "*service[-_]account*.json", "client_secret*.json", "secrets.json", "secrets.y*ml",
    "secrets.toml", "*.tfvars", "*.tfstate", ".envrc", "kubeconfig", "auth_token",
)  # fmt: skip
_NO_SECRET_FILES = ("*.pub", "*.example", "*.sample", "*.template", "*.dist", "example.env")
_SECRET_FOLDERS = {".ssh", ".aws", ".gnupg", ".kube", ".docker", ".azure", ".gcloud"}


def is_secret_file(path: PurePath) -> bool:
    """Return True if a file of this path holds secrets, by its own name or the name of a folder above it."""
    name = path.name.lower()
    if any(part.lower() in _SECRET_FOLDERS for part in path.parts):
        return True
    return any(fnmatchcase(name, rule) for rule in _SECRET_FILES) and not any(
        fnmatchcase(name, rule) for rule in _NO_SECRET_FILES
    )


def is_telling(name: str) -> bool:
    """Return True if the value under ``name`` is a secret whatever it looks like, as ``DB_PASS`` or ``api-key``."""
    words = _words(name)
    if not words or words[-1] in _ABOUT or name in {"PWD", "OLDPWD"}:
        return False
    if _ALWAYS.search("_".join(words)) or _ALWAYS.search(name.replace("-", "_")):
        return True
    return any(
        word in _WORDS or (word.endswith(_ENDINGS) and word not in _NO_ENDINGS and len(word) > 4)  # noqa: PLR2004
        for word in words
    )


def is_suspicious(name: str, value: str) -> bool:
    """Return True if ``value`` under ``name`` is a secret: by the name alone, or by the name and a random look."""
    if is_telling(name):
        return _SMALL.fullmatch(value) is None or _ALWAYS.search(name.replace("-", "_")) is not None
    words = _words(name)
    return bool(words) and words[-1] not in _ABOUT and bool(_PERHAPS & set(words)) and _PLAIN.fullmatch(value) is None


def tokens(text: str) -> Iterator[tuple[str, str]]:
    """Yield each secret of a known form in ``text``, with the name of its kind."""
    for match in PRIVATE_KEY.finditer(text):
        yield "private key", match[0]
    if not any(_may_be_token(match[0]) for match in _WORD.finditer(text)):
        return
    for kind, pattern in _patterns():
        for match in pattern.finditer(text):
            before = text[match.start() - 1 : match.start()]
            after = text[match.end() : match.end() + 1]
            # A match inside a longer word of letters and digits, such as a picture in base64, is a coincidence.
            if not _in_word(before, match[0][0]) and not _in_word(after, match[0][-1]):
                yield kind, match[0]


def _may_be_token(word: str) -> bool:
    """Return True if ``word`` has digits, and letters of both cases or a telling prefix. Most text has no such word."""
    if not any(letter.isdigit() for letter in word):
        return False
    return (word != word.lower() and word != word.upper()) or _PREFIX.search(word) is not None


def _in_word(beside: str, edge: str) -> bool:
    return beside.isalnum() and edge.isalnum()


def _words(name: str) -> list[str]:
    """``dbPassWord`` or ``DB-PASS_WORD`` -> its parts in lower case; digits at the end don't count."""
    words = [word.lower() for word in _PARTS.findall(name)]
    while words and words[-1].isdigit():
        words.pop()
    return words


@cache
def _patterns() -> list[tuple[str, re.Pattern[str]]]:
    found = [(kind, re.compile(pattern)) for kind, pattern in _MORE.items()]
    for module, name in _DETECTORS.items():
        detector = getattr(importlib.import_module(f"detect_secrets.plugins.{module}"), name)
        kind = str(detector.secret_type)
        found += [(kind, pattern) for pattern in detector.denylist]
    return found
