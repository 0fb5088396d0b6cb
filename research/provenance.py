"""The origin of a result: its code, the versions, the machine.

Nothing here reads the values of environment variables, so no secret can be recorded.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research.patience import patient
from research.redaction import redacted

if TYPE_CHECKING:
    from pydantic import JsonValue

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("vae", "research", "search_spaces")
_SUFFIXES = {".py", ".css", ".html", ".js"}  # source code, and the templates of the report
PACKED = "packed.json"  # what git said about the code, in a copy that research.clusters.pack made
_VERSIONED = ("torch", "torchvision", "numpy", "ray", "optuna", "wandb")
# The instruction sets by which torch, oneDNN and OpenMP choose kernels. They decide the bits of a result.
_INSTRUCTION_SETS = re.compile(r"(avx|fma|amx|sse4_2|f16c|neon|asimd|sve|bf16|i8mm)\w*")


def code() -> dict[str, JsonValue]:
    """Return the state of the packages' code: ``{commit, dirty, diff_sha256, source_sha256}``.

    ``source_sha256`` is over the ``*.py`` files of the packages, sorted by path. ``dirty`` says that these
    differ from ``commit`` (a changed README doesn't count). Outside a git checkout ``commit`` is None, but a copy
    that was packed for a cluster tells what it was packed from, as long as nobody edited it there.
    """
    if (packed := _packed()) is not None:
        return dict(packed["code"])
    diff = diff_text()
    commit = _git("rev-parse", "HEAD") if diff is not None else None
    return {
        "commit": commit.strip() if commit else None,
        "dirty": bool(diff),
        "diff_sha256": hashlib.sha256(diff.encode()).hexdigest() if diff else None,
        "source_sha256": source_sha256(),
    }


def diff_text() -> str | None:
    """Return the difference of the sources from the checkout's commit, with new files; None if git cannot tell.

    Secrets are redacted: the differences are written beside the sweep, and sent to a cluster.
    """
    if (packed := _packed()) is not None:
        told = packed["diff"]
        return told if isinstance(told, str) else None
    if not _is_checkout():
        return None  # installed, or a folder inside somebody else's checkout
    paths = [f"{name}/*.py" for name in PACKAGES]
    plain = ("--no-ext-diff", "--no-textconv", "--no-color")
    changed = _git("diff", *plain, "HEAD", "--", *paths)
    new = _git("ls-files", "-z", "--others", "--exclude-standard", "--", *paths)
    if changed is None or new is None:  # no commit yet
        return None
    # --no-index answers 1 for "they differ", which here they always do.
    names = sorted(name for name in new.split("\0") if name)
    added = (_git("diff", *plain, "--no-index", "--", os.devnull, name) for name in names)
    return redacted(changed + "".join(text for text in added if text))


def package_files() -> list[Path]:
    """Return the files of the packages, as sorted paths below ROOT, without files that lie there by chance.

    In a checkout these are the files that git tracks, changed or not. In an installed wheel they are the files of its
    RECORD. Elsewhere, such as in a copy that was packed for a cluster, they are recognised by their suffix.
    """
    if _is_checkout() and (tracked := _git("ls-files", "-z", "--", *PACKAGES)) is not None:
        named = [Path(name) for name in tracked.split("\0") if name]
    else:
        found = (path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.suffix in _SUFFIXES)
        named = _recorded_files() or [path.relative_to(ROOT) for path in found]
    return sorted({path for path in named if os.path.lexists(ROOT / path) and path.suffix != ".pyc"})


def _recorded_files() -> list[Path]:
    """Return the packages' files in the RECORD of an installed wheel; none if the code is not a wheel's."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        wheel = importlib.metadata.distribution("vae-research")
        if Path(str(wheel.locate_file(""))).resolve() == ROOT and (record := wheel.read_text("RECORD")) is not None:
            names = [row[0] for row in csv.reader(record.splitlines()) if row]
            return [Path(name) for name in names if name.split("/")[0] in PACKAGES]
    return []


def _is_checkout() -> bool:
    """Return True if ROOT is the top of a git checkout."""
    top = _git("rev-parse", "--show-toplevel")
    return top is not None and Path(top.strip()).resolve() == ROOT


def _packed() -> dict[str, Any] | None:
    """Return the content of ``packed.json`` beside the packages; None if there is none, or if it does not fit them."""
    try:
        packed = json.loads((ROOT / PACKED).read_text(encoding="utf-8"))
        return packed if packed["code"]["source_sha256"] == source_sha256() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that results depend on, without importing them."""
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if "torch" in found:
        found["torch"] = _torch_build() or found["torch"]
    return found


def hardware() -> dict[str, JsonValue]:
    """Return the machine: ``{cpu, cores, usable_cores, isa, memory_gib, host, platform, gpus, cuda}``.

    GPUs are listed only if the process has imported torch already.
    """
    facts = _cpu_facts()
    found: dict[str, JsonValue] = {
        "cpu": facts.get("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "isa": _instruction_sets(facts.get("flags") or facts.get("Features") or ""),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "host": socket.gethostname(),
        "platform": platform.platform(),
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        devices = (torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count()))
        found["gpus"] = [
            {
                "name": device.name,
                "memory_gib": round(device.total_memory / 2**30, 1),
                "capability": f"{device.major}.{device.minor}",
            }
            for device in devices
        ]
        found["cuda"] = torch.version.cuda
    return found


def _git(*arguments: str) -> str | None:
    """Return the output of git; None without git, outside a checkout, or if it fails or hangs."""
    # Variables such as GIT_DIR, which a hook sets, would point git at another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        result = subprocess.run(  # noqa: S603 - arguments of ours
            ["git", "-c", "core.quotePath=false", *arguments],  # noqa: S607 - the user's own git
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=patient(30.0),
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    differs = "--no-index" in arguments and result.returncode == 1
    return result.stdout.decode("utf-8", "replace") if result.returncode == 0 or differs else None


@cache
def running_sha256() -> str:
    """Return :func:`source_sha256` from the start of this process, because files may be edited after their import."""
    return source_sha256()


def source_sha256() -> str:
    """Return the hash of the packages' ``*.py`` files, sorted by path. Equal code has equal hashes."""
    digest = hashlib.sha256()
    files = (path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
    for relative, path in sorted((path.relative_to(ROOT).as_posix(), path) for path in files):
        content = path.read_bytes()
        digest.update(f"{relative}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _torch_build() -> str | None:
    """Return torch's own name for its build (``2.15.0+cu130``), read without importing torch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        text = Path(spec.origin).with_name("version.py").read_text()
    except OSError:
        return None
    match = re.search(r"^__version__ = ['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    return match[1] if match else None


def _cpu_facts() -> dict[str, str]:
    """Return the first processor's entries in ``/proc/cpuinfo``; nothing if there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _instruction_sets(flags: str) -> str:
    return " ".join(sorted(flag for flag in set(flags.split()) if _INSTRUCTION_SETS.fullmatch(flag)))
