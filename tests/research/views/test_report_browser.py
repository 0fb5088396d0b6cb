"""The report in a real browser: it opens from disk, asks for nothing, answers the pointer, and fits a phone."""

from __future__ import annotations

import json
import shutil

import pytest

from research.views.report.page import html
from tests.support.invented import TWO, hostile, models, whole

pypdfium2 = pytest.importorskip("pypdfium2", reason="pypdfium2 is not installed")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")

WIDTHS = (1280, 390)  # a laptop's and a phone's
CHARTS = "[...document.querySelectorAll('.js-plotly-plot')]"
# Writes a text at the right end of a chart.
MARK = """(chart, index) => Plotly.relayout(chart, {annotations: [
    {xref: 'paper', yref: 'paper', x: 1, xanchor: 'right', y: 0.5, showarrow: false, text: `&lt;end${index}>`}]})"""
SIDES = ("top", "right", "bottom", "left")
MARGIN = 27  # points, a little less than the centimetre of the margins
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def inside(sheet, margin):
    """Return the letters of a PDF's page that stand between its left and its right margin."""
    text = sheet.get_textpage()
    boxes = [text.get_charbox(index) for index in range(text.count_chars())]
    return "".join(
        text.get_text_range(index, 1)
        for index, (left, _, right, _) in enumerate(boxes)
        if margin <= left and right <= sheet.get_width() - margin
    )


def await_that(page, condition):
    """Ask until the condition holds. The page's policy forbids it to evaluate strings, as `wait_for_function` does."""
    for _ in range(300):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"did not come true: {condition}")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Two reports on disk: of one objective, and of two sweeps with two objectives side by side."""
    folder = tmp_path_factory.mktemp("pages")
    one = whole(folder / "one", conditional=True)
    models(one, "reconstructions.png", "samples.png")
    several = [whole(folder / name, name=name, objectives=TWO) for name in ("first", "second")]
    for name, ledgers in {"one": [one], "front": several[:1], "several": several}.items():
        (folder / f"{name}.html").write_text(html(ledgers))
    return folder


@pytest.fixture(scope="module")
def browser():
    """A headless chromium."""
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser, pages):
    """Opens a report from disk; in the end, no complaint and no request may have been heard."""
    heard, contexts = [], []

    def open_page(name, width=1280):
        context = browser.new_context(viewport={"width": width, "height": 800})
        contexts.append(context)

        def answer(route):
            if route.request.url.startswith(("file:", "data:", "blob:")):
                route.continue_()
            else:
                heard.append(f"request: {route.request.url}")
                route.abort()

        context.route("**/*", answer)
        page = context.new_page()
        page.on("console", lambda message: heard.append(message.text) if message.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.goto((pages / f"{name}.html").as_uri())
        await_that(page, "[...document.querySelectorAll('.plotly-graph-div')].every(chart => chart._fullLayout)")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert heard == []


@pytest.mark.parametrize("name", ["one", "front", "several"])
def test_the_page_fits(opened, name):
    """Nothing is wider than the window, on a laptop as on a phone: tables and charts scroll in their own boxes."""
    page = opened(name, WIDTHS[0])
    assert page.locator(".js-plotly-plot").count() >= 3
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_timeout(300)
        assert page.evaluate(OVERFLOW) <= 0, width


def test_contents_and_pictures_are_there(opened):
    """Every entry of the table of contents is a place in the page, and each kept model's pictures were decoded."""
    page = opened("one")
    places = page.eval_on_selector_all("nav a", "links => links.map(link => link.getAttribute('href'))")
    assert len(places) > 8
    assert all(page.locator(f"section{place}").count() == 1 for place in places)
    widths = page.eval_on_selector_all(".pictures img", "images => images.map(image => image.naturalWidth)")
    assert widths == [1] * 4


def test_a_click_on_the_legend_hides_a_kind_of_trial(opened):
    """The curves of trials that were stopped early go and come with a click."""
    page = opened("one")
    page.locator("#curves").scroll_into_view_if_needed()
    visible = "document.querySelector('#curves .js-plotly-plot')._fullData.filter(one => one.visible === true).length"
    before = page.evaluate(visible)
    page.locator("#curves .legendtoggle").nth(1).click()
    await_that(page, f"{visible} === {before - 1}")


def test_the_pointer_shows_a_point(opened):
    """A point of the rate-distortion plane tells its trial and its figures."""
    page = opened("one")
    page.locator("#rate-distortion").scroll_into_view_if_needed()
    page.locator("#rate-distortion .scatterlayer .point").first.hover(force=True)
    page.wait_for_selector("#rate-distortion .hoverlayer .hovertext")
    assert "trial" in page.locator("#rate-distortion .hoverlayer").text_content()


def test_page_on_paper_has_no_contents_and_fits(opened):
    """On paper there is no table of contents, and nothing is wider than the paper."""
    page = opened("one")
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 720, "height": 1000})
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_timeout(300)
    assert page.evaluate(OVERFLOW) <= 0
    assert not page.locator("nav").is_visible()


@pytest.mark.parametrize("paper", ["A4", "Letter"])
def test_pdf_of_the_page_has_its_charts_whole(opened, paper):
    """Chrome's own print to PDF, from a wide window, has the right end of every chart, between its margins."""
    page = opened("one")
    charts = page.evaluate(f"{CHARTS}.forEach({MARK}), {CHARTS}.length")
    document = pypdfium2.PdfDocument(page.pdf(format=paper, margin=dict.fromkeys(SIDES, "1cm")))
    printed = "".join(inside(sheet, MARGIN) for sheet in document)
    assert charts > 7
    assert [index for index in range(charts) if f"<end{index}>" not in printed] == []


def test_chart_after_printing_takes_the_window_again(opened):
    """When the print dialogue is closed, each chart is as wide as it was before."""
    page = opened("one")
    widths = f"{CHARTS}.map(chart => chart._fullLayout.width)"
    before = page.evaluate(widths)
    page.pdf()
    page.wait_for_timeout(300)
    assert page.evaluate(widths) == before


def test_report_with_a_foreign_script_runs_only_its_own(browser, pages, tmp_path):
    """A script, a handler and a picture's address that got into the page do nothing; the charts are drawn."""
    page_text = (pages / "one.html").read_text()
    hostile = (
        "<script>window.ran = 1</script><img src='data:,x' onerror='window.ran = 2'>"
        "<img src='https://example.invalid/x.png'><a id='bad' href='javascript:window.ran=3'>x</a>"
    )
    (tmp_path / "hostile.html").write_text(page_text.replace("<main>", "<main>" + hostile))
    context = browser.new_context()
    asked = []
    context.route("https://**/*", lambda route: (asked.append(route.request.url), route.abort()))
    page = context.new_page()
    page.goto((tmp_path / "hostile.html").as_uri())
    await_that(page, "[...document.querySelectorAll('.plotly-graph-div')].every(chart => chart._fullLayout)")
    page.locator("#bad").click()
    page.wait_for_timeout(300)
    assert page.evaluate("window.ran === undefined")
    assert asked == []
    context.close()


def test_chart_of_a_name_that_is_markup_shows_the_name(browser, tmp_path):
    """Plotly has tags and entities of its own in every text: a name that holds them is shown as it is."""
    name = "<b>bold</b> &amp; <a href='https://example.invalid'>x&y</a> [relu] a_b"
    ledger = hostile(tmp_path / "sweep", name)
    (tmp_path / "page.html").write_text(html([ledger]))
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    await_that(page, "[...document.querySelectorAll('.plotly-graph-div')].every(chart => chart._fullLayout)")
    assert page.locator("main .js-plotly-plot a[href*=example]").count() == 0
    assert page.evaluate("document.querySelector('main').textContent.includes(" + json.dumps(name) + ")")
    charts = page.eval_on_selector_all(".js-plotly-plot svg text", "all => all.map(one => one.textContent)")
    assert any(text.startswith("<b>bold</b> &amp;") for text in charts), charts
    page.close()
