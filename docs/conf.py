"""Configuration of the documentation site; ``make docs`` builds it.

The Markdown pages are written for a code host, where a link may lead to any file of the repository. This file maps such links
to pages of the site: documents at the root of the repository are copied to ``docs/_root``, and a link to a folder leads to
the file that describes the folder.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = PROJECT["name"]
author = PROJECT["authors"][0]["name"]
release = version = PROJECT["version"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"{project} {release}"
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True

myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # the changelog uses the same headings in each release

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring = True

# Documents outside docs/, and their pages in the site.
ELSEWHERE = {
    ROOT / "README.md": DOCS / "index.md",
    ROOT / "CHANGELOG.md": DOCS / "_root" / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md": DOCS / "_root" / "CONTRIBUTING.md",
    ROOT / "SECURITY.md": DOCS / "_root" / "SECURITY.md",
    ROOT / "benchmarks" / "README.md": DOCS / "_root" / "benchmarks.md",
}


def page_of(target: Path) -> Path:
    """Return the file that a link to ``target`` leads to in the site."""
    if target.is_dir():
        for name in ("README.md", "__init__.py"):
            if (target / name).exists():
                return page_of(target / name)
    return ELSEWHERE.get(target, target)


def relinked(text: str, source: Path, page: Path) -> str:
    """Return Markdown of the file ``source`` with its relative links as they must be in the file ``page``."""

    def replace(link: re.Match[str]) -> str:
        name, mark, fragment = link[1].partition("#")
        if not name or re.match(r"[a-z]+:", name):
            return link[0]
        target = page_of(Path(os.path.normpath(source.parent / name)))
        return f"]({os.path.relpath(target, page.parent)}{mark}{fragment})"

    return re.sub(r"\]\(([^)\s]+)\)", replace, text)


def copy_root(_: Sphinx) -> None:
    """Write the documents from outside docs/ to ``docs/_root``. The README becomes a part of the start page."""
    (DOCS / "_root").mkdir(exist_ok=True)
    for source, page in ELSEWHERE.items():
        text = relinked(source.read_text(encoding="utf-8"), source, page)
        (DOCS / "_root" / (source.name if page.name == "index.md" else page.name)).write_text(text, encoding="utf-8")


def relink(app: Sphinx, name: str, text: list[str]) -> None:
    """Map the links of a page that Sphinx reads."""
    page = Path(app.env.doc2path(name))
    if page.suffix == ".md" and "_root" not in page.parts:
        text[0] = relinked(text[0], page, page)


def setup(app: Sphinx) -> None:
    """Connect the two functions."""
    app.connect("builder-inited", copy_root)
    app.connect("source-read", relink)


exclude_patterns.append("_root/README.md")
