"""Canaries of many kinds are taken out of text, and values that are no secrets stay as they are."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from urllib.parse import quote

import pytest

from research.redaction import redacted, redacted_command, secret_in, secrets_of

CANARY = "canary-5f0e7d"
LETTERS = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7cF0xL" * 4  # put together here: no file of the project holds a whole token


def _jwt() -> str:
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256"}, {"sub": "me", "iat": 1})]
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), LETTERS[:43]])


TOKENS = {
    "github": f"ghp_{LETTERS[:36]}",
    "github fine": f"github_pat_{LETTERS[:22]}_{LETTERS[:59]}",
    "gitlab": f"glpat-{LETTERS[:20]}",
    "hugging face": f"hf_{LETTERS[:34]}",
    "openai": f"sk-{LETTERS[:20]}T3BlbkFJ{LETTERS[20:40]}",
    "openai project": f"sk-proj-{LETTERS[:60]}",
    "anthropic": f"sk-ant-api03-{LETTERS[:93]}AA",
    "aws id": "AKIA" + "A2B3C4D5E6F7G2H3",
    "stripe": f"sk_live_{LETTERS[:24]}",
    "stripe test": f"rk_test_{LETTERS[:24]}",
    "slack": "xoxb-" + "123456789012-1234567890123-" + LETTERS[:24],
    "google": f"AIza{LETTERS[:35]}",
    "npm": f"npm_{LETTERS[:36]}",
    "pypi": f"pypi-AgEIcHlwaS5vcmc{LETTERS[:80]}",
    "sendgrid": f"SG.{LETTERS[:22]}.{LETTERS[:43]}",
    "docker": f"dckr_pat_{LETTERS[:27]}",
    "wandb": f"wandb_v1_{LETTERS[:77]}",
    "jwt": _jwt(),
    "azure": f"AccountKey={LETTERS[:86]}==",
    "twilio": "SK" + hashlib.md5(b"x").hexdigest(),
    "private key": "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\nAAAA\n-----END OPENSSH PRIVATE KEY-----",
}


@pytest.mark.parametrize("kind", TOKENS)
def test_redacted_token_of_a_known_form_is_hidden_without_its_name(kind):
    """A token is recognised by its form in an error, a path, an option and a diff, with its surroundings kept."""
    token = TOKENS[kind]
    assert redacted(f"can't sign in with {token!s} here") == "can't sign in with *** here"
    assert redacted_command(["research", "sweep", f"--data-dir=/data/{token}"])[-1] == "--data-dir=/data/***"
    assert token not in redacted(f"+    key = '{token}'\n")
    assert secret_in(f"x = '{token}'") is not None


@pytest.mark.parametrize(
    "name",
    [
        "DB_PASS", "MYSQL_PWD", "GITHUB_PAT", "SSH_KEY_PASSPHRASE", "STRIPE_KEY", "OPENAI_KEY", "CREDS", "PGPASSWORD",
        "SSHPASS", "GH_TOKEN", "APP_SECRET", "AZURE_STORAGE_CONNECTION_STRING", "AWS_ACCESS_KEY_ID", "KAGGLE_KEY",
        "DB_PASS_PROD", "OPENAI_KEY_2", "SERVICE_CREDS_JSON", "dbPassword", "PROXY_AUTH", "SESSION_JWT", "ENCRYPTION_KEY",
    ],
)  # fmt: skip
def test_redacted_value_of_a_telling_variable_is_hidden(monkeypatch, name):
    """The value is hidden as it is, quoted for a URL, escaped in JSON and put on one line."""
    value = f'{CANARY}"+ /x\ny'
    monkeypatch.setenv(name, value)
    for form in (value, quote(value, safe=""), json.dumps(value)[1:-1], " ".join(value.split())):
        assert redacted(f"at {form}, then") == "at ***, then"
    assert secret_in(f"a {value} b") == f"the value of {name}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PWD", "/srv/canary-1"), ("OLDPWD", "/srv/canary-1"), ("SSH_ASKPASS", "/usr/bin/ask-1"), ("MAX_TOKENS", "100000"),
        ("TOKENIZERS_PARALLELISM", "false-1"), ("SORT_KEY", "val/elbo"), ("SECRETS_FILE", "/x/y-1"), ("SECRET_NAME", "prod-1"),
        ("TOKEN_TYPE", "bearer-1"), ("COMPASS", "north-1"), ("KEYBOARD", "german-1"), ("AUTH_MODE", "token-1"),
        ("SSH_AUTH_SOCK", "/tmp/agent.123"), ("GOOGLE_APPLICATION_CREDENTIALS", sys.executable), ("KEYMAP", "us-nodead"),
    ],
)  # fmt: skip
def test_redacted_value_of_another_variable_stays(monkeypatch, name, value):
    """A path, a mode, a length and a plain word under such names are no secrets."""
    monkeypatch.setenv(name, value)
    assert redacted(f"at {value} there") == f"at {value} there"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:p@ss@host.example/x", "https://***@host.example/x"),
        ("https://me:p/ss@host.example:8080/x", "https://***@host.example:8080/x"),
        ("postgres://me:p?a#b@db.example:5432/x", "postgres://***@db.example:5432/x"),
        ("https://me:p@s/s@host.example/x", "https://***@host.example/x"),
        ("redis://:p@ss@localhost:6379/0", "redis://***@localhost:6379/0"),
        ("https://ghx@github.example/a", "https://***@github.example/a"),
        ("https://me:p%40ss@host/x?y", "https://***@host/x?y"),
        ("s3://key:se/cr+et@bucket.example/x", "s3://***@bucket.example/x"),
        ("https://host.example:8080/@me", "https://host.example:8080/@me"),
        ("https://host.example/@me/x", "https://host.example/@me/x"),
        ("https://me:pw@host.example/o/r@v1", "https://***@host.example/o/r@v1"),
        ("https://host/x?a=1&sig=abc%2Bdef&b=2", "https://host/x?a=1&sig=***&b=2"),
        ("https://host/x?X-Amz-Signature=0a1b2c", "https://host/x?X-Amz-Signature=***"),
        ("https://host/x?access_token=0a1b2c&page=2", "https://host/x?access_token=***&page=2"),
    ],
)
def test_redacted_url_loses_its_user_and_keeps_its_host(url, shown):
    """The password may hold @, / and ?; a path with @ is no password."""
    assert redacted(f"see {url}, then") == f"see {shown}, then"


def test_redacted_password_of_a_variables_url_is_hidden_alone(monkeypatch):
    """A password with @ in the URL of a variable without a telling name is hidden where it stands by itself."""
    monkeypatch.setenv("DATABASE_URL", "postgres://me:c@nary-77/x@db.example/x")
    assert redacted("no c@nary-77/x") == "no ***"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('+DB_PASSWORD = "hunter2!"', '+DB_PASSWORD = "***"'),
        ("{'api_key': 'hunter2!x'}", "{'api_key': '***'}"),
        ("login failed: password=hunter2!x;", "login failed: password=***;"),
        ("Authorization: Bearer abc123def456ghi", "Authorization: Bearer ***"),
        ("-H 'Authorization: Basic bWU6aHVudGVyMg=='", "-H 'Authorization: Basic ***'"),
    ],
)
def test_redacted_assignment_to_a_telling_name_is_hidden(text, shown):
    """A password in a diff, an error or a header is hidden by the name before it."""
    assert redacted(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        hashlib.sha256(b"x").hexdigest(),
        hashlib.sha1(b"x").hexdigest(),
        "/srv/Data/MNIST-2/train-images-idx3-ubyte.gz",
        "trial-0007-3b1d2c4e_ResNet50Encoder",
        "network.key_size, token_embedding_dim=64, num_tokens=128, pass_through=True",
        "config.password = getpass.getpass()",
        'token = os.environ["HF_TOKEN"]',
        "unexpected token: '3' in line 4",
        "invalid token 'elbo'; expected a basic block-decomposition",
        "2026-11-30T21:29:06.123456+00:00 torch==2.13.0+cu130",
        "val/nll_iwae>=5 mail me@example.org https://wandb.example/me/Run-12345678901234567890?x=1",
        base64.b64encode(bytes(range(256)) * 4).decode(),
        "sk-Learn_experiment_with_a_very_long_name_of_mine",
        "s3://bucket/Sweeps/Vae-20261130-212906/models/trial-0001",
    ],
)
def test_redacted_legal_text_stays(text):
    """Hashes, paths, names of parameters, code and times are shown as they are, and nothing in them is refused."""
    assert redacted(text) == text
    assert secret_in(text) is None


def test_redacted_command_small_numbers_and_plain_options_stay():
    """An option whose name only resembles a telling one keeps its value."""
    given = [
        "research",
        "sweep",
        "vae",
        "--sampler-option",
        "startup_trials=20",
        "--set",
        "token_dim=64",
        "pass=3",
        "--key",
    ]
    assert redacted_command(given) == given


def test_secrets_of_a_config_names_the_path():
    """The path of the value is named, never the value."""
    config = {"data": {"path": f"s3://k:{CANARY}@b.example/x"}, "objective": {"settings": {"password": "hunter2!x"}}}
    assert list(secrets_of(config)) == [
        ("data.path", "the password of a URL"),
        ("objective.settings.password", "the value of a telling name"),
    ]


def test_redaction_import_is_cheap():
    """Importing it, and redacting ordinary text, does not import the library of rules, nor what that brings."""
    script = (
        "import sys; from research.redaction import redacted; redacted('val/elbo is -99.5 at /srv/x');"
        "assert not {'detect_secrets', 'requests', 'pydantic', 'torch'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_redacted_long_text_takes_no_quadratic_time():
    """A megabyte without a blank is redacted in a moment: patterns must not start at each of its letters."""
    text = "aB3" * 330_000
    assert redacted(text) == text
