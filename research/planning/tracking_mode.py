"""The mode of W&B, from the options and the environment: online, offline or disabled."""

from __future__ import annotations

import contextlib
import netrc
import os
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from research.errors import UserError

Mode = Literal["offline", "online", "disabled"]
DEFAULT_URL = "https://api.wandb.ai"
# W&B's own values, those of its earlier versions too, in any case of letters.
_SPELLINGS: dict[str, Mode] = {
    "offline": "offline", "dryrun": "offline", "online": "online", "run": "online", "disabled": "disabled",
}  # fmt: skip
_YES, _NO = {"1", "true", "t", "yes", "y", "on"}, {"", "0", "false", "f", "no", "n", "off"}


def default_mode() -> Mode:
    """``WANDB_DISABLED``, else ``WANDB_MODE`` where one is set, else online for who is logged in, else offline.

    Raises:
        UserError: one of the two has a value that is not understood. Online by mistake would publish a sweep.

    """
    disabled = os.environ.get("WANDB_DISABLED", "").strip().lower()
    if disabled not in _YES | _NO:
        raise UserError(f"WANDB_DISABLED must be true or false, got {disabled!r}; or give --wandb")
    if disabled in _YES:
        return "disabled"
    asked = os.environ.get("WANDB_MODE", "")
    if not asked.strip():
        return "online" if logged_in() else "offline"
    if (mode := _SPELLINGS.get(asked.strip().lower())) is None:
        raise UserError(
            f"WANDB_MODE must be offline (dryrun), online (run) or disabled, got {asked!r}; or give --wandb"
        )
    return mode


def logged_in() -> bool:
    """Return True if there is a key for W&B's host, in the environment or in netrc. Looks at no key."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        host = urlsplit(os.environ.get("WANDB_BASE_URL") or DEFAULT_URL).hostname
    except ValueError:
        return False  # no address: nobody can be logged in there
    named = os.environ.get("NETRC")
    for path in [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            if host in netrc.netrc(path).hosts:
                return True
    return False
