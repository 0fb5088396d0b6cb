"""Draw the pictures of the documents from a real sweep; ``make pictures`` runs this.

    python docs/images/draw.py [--sweep DIR]

Without ``--sweep`` it runs ``research sweep quickstart`` first, which takes about two minutes. It needs chromium. Each
picture is below 200 kB.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright
from rich.console import Console

from research.ledger.log import Ledger
from research.views.watch import Follower

HERE = Path(__file__).parent
LIMIT = 200_000  # bytes
WIDTH, HEIGHT = 1280, 800  # pixels of the screenshot
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


def research(*arguments: str | Path) -> None:
    """Run a verb."""
    subprocess.run([sys.executable, "-m", "research.cli", *map(str, arguments)], check=True)


def save(picture: Image.Image, name: str) -> None:
    """Write a PNG with a palette, which makes screenshots about four times smaller."""
    picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(HERE / name, optimize=True)


def live_table(sweep: Path, scratch: Path) -> None:
    """Draw the live table in the middle of the sweep: the same ledger, cut off while trials were running."""
    events = sorted((sweep / "ledger").iterdir())
    part = scratch / sweep.name
    (part / "ledger").mkdir(parents=True)
    for event in events[: round(len(events) * 0.6)]:
        shutil.copy(event, part / "ledger")
    console = Console(record=True, width=100, height=24, force_terminal=True, file=io.StringIO())
    console.print(Follower(Ledger.open(part), console).view.frame())
    console.save_svg(str(HERE / "live.svg"), title="research sweep quickstart")


def report_page(sweep: Path, scratch: Path) -> None:
    """Take a screenshot of the first screen of the report."""
    page_file = scratch / "report.html"
    research("report", sweep, "--out", page_file)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(page_file.as_uri())
        page.wait_for_load_state("networkidle")
        picture = page.screenshot()
        browser.close()
    save(Image.open(io.BytesIO(picture)), "report.png")


def main() -> None:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(description="Draw the pictures of the documents.")
    parser.add_argument("--sweep", type=Path, help="the directory of an ended sweep of quickstart; default: run one")
    sweep = parser.parse_args().sweep
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if sweep is None:
            research("sweep", "quickstart", "--name", "first", "--storage", scratch / "sweeps", "--wandb", "disabled")
            sweep = scratch / "sweeps" / "first"
        best = Ledger.open(sweep).ranked()[0].number
        for name in ("samples.png", "reconstructions.png"):
            with Image.open(sweep / "models" / f"trial-{best:04d}" / name) as picture:
                save(picture, name)
        live_table(sweep, scratch / "live")
        report_page(sweep, scratch)
    for picture in sorted([*HERE.glob("*.png"), *HERE.glob("*.svg")]):
        size = picture.stat().st_size
        print(f"{picture.name}  {size:,} bytes")
        if size > LIMIT:
            sys.exit(f"{picture.name} has {size:,} bytes, more than {LIMIT:,}: draw less, or with fewer colours")


main()
