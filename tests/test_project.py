"""The project as a whole: its documents, its pins, and what its command costs to start."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from urllib.parse import unquote

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.places import ROOT

PINS = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.strip()]
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.parent.name != "_root"),  # the site's copies
    *sorted((ROOT / "benchmarks").glob("*.md")),
]

# Written in halves, so that this file may be among those that are searched.
REGISTRY_HOSTS = [
    "pypi" + ".org",
    "python" + "hosted.org",
    "download." + "pytorch.org",
    "conda." + "anaconda.org",
]
LOCAL_PATHS = ["/" + "work/", "/" + "root/", "/home" + "/(?!ubuntu)", "/Users" + "/", "file:" + "//"]


def tracked_files():
    """The text files that git tracks."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listing.split("\0")):
        try:
            yield name, (ROOT / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue


def anchors(document):
    """The fragments that GitHub gives the headings of a Markdown file."""
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ +(.+?) *$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_resolve(document):
    """Every relative link of a document leads to a file that exists, and to a heading of it."""
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, fragment = unquote(target).partition("#")
        file = document.parent / name if name else document
        if not file.exists() or (fragment and file.suffix == ".md" and fragment not in anchors(file)):
            broken.append(target)

    assert broken == []


@pytest.mark.parametrize("pattern", [*map(re.escape, REGISTRY_HOSTS), *LOCAL_PATHS])
def test_no_file_names_a_registry_or_a_path_of_one_machine(pattern):
    """The repository works from any clone and any mirror."""
    expression = re.compile(rf"(?<![\w.~$}}-]){pattern}")
    found = [name for name, text in tracked_files() if expression.search(text)]

    assert found == []


def test_pins_are_names_and_versions():
    """constraints.txt holds `name==version` lines, each name once."""
    names = [canonicalize_name(Requirement(line).name) for line in PINS]

    assert [line for line in PINS if not re.fullmatch(r"[A-Za-z0-9._-]+==[\w.+!]+( ?; ?.+)?", line)] == []
    assert sorted(set(names)) == sorted(names)


def test_every_direct_dependency_is_pinned():
    """Whatever pyproject.toml asks for has a tested version in constraints.txt, within its bounds."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    pins = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in map(Requirement, PINS)}

    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_help_is_quick():
    """`research --help` imports neither torch nor Ray: it answers at once."""
    if importlib.util.find_spec("research.cli.app") is None:
        pytest.skip("research.cli.app does not exist yet")
    program = """
import sys
sys.argv = ["research", "--help"]
from research.cli.app import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("LOADED", *sorted({"torch", "ray", "wandb", "optuna", "torchvision", "sklearn"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert "sweep" in done.stdout
    assert done.stdout.splitlines()[-1].split() == ["LOADED"]
