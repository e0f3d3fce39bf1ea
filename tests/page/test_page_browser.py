"""The page in a real browser: sorts, filters, hovers, keys, links; nothing leaves it."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from benchmark.leaderboard.overall import overall
from benchmark.report.page.page import page
from tests.page.page_data import HOSTILE, failed, in_pair, many, result, strips, views

CHROME = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("browser"),  # one is started
    pytest.mark.skipif(CHROME is None, reason="neither chromium nor google-chrome is installed"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROME, args=["--no-sandbox"])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three boards on one device, one on another; failed, untimed, reported and hostile rows."""
    folder = tmp_path_factory.mktemp("page")
    runs = [
        result("sparsemask", seed, 0.62 + seed / 100, cost=2) for seed in range(3)
    ] + [
        result("fcn", score=0.45, cost=1),
        result("smp-unet", score=0.7, cost=50),
        result("smp-fpn", score=0.55, cost=60),
        result("fcn", score=0.5, backbone="test_efficientnet", cost=1.5),
        result(f"x{HOSTILE}", score=0.3, cost=80, command=f"python {HOSTILE}"),
        result("untimed", score=0.35, cost=90, speed=None),
        failed("encnet", f"no memory {HOSTILE}"),
        result("fcn", task="depth", dataset="scenes", score=0.3),
        result("sparsemask", task="depth", dataset="scenes", score=0.2),
        result("fcn", task="edges", dataset="bsds500", score=0.7),
        result("fcn", device="GPU B", score=0.4),
    ]  # fmt: skip
    for run in runs[:5]:
        run.folder = folder / run.key
        strips(run.folder, "segmentation")
    tables = views(runs)
    path = folder / "index.html"
    path.write_text(page(tables, overall(tables)), encoding="utf-8")
    return path


@pytest.fixture
def visit(browser: Browser, file: Path) -> Iterator:
    """Opens the page in a context of its own; at the end nothing was logged or requested."""
    contexts: list[BrowserContext] = []
    seen: list[str] = []

    def go(hash_: str = "", path: Path = file, **options) -> Page:
        options = {"viewport": {"width": 1280, "height": 800}, "offline": True} | options
        context = browser.new_context(**options)
        context.set_default_timeout(8000)
        contexts.append(context)
        opened = context.new_page()
        opened.on("console", lambda message: seen.append(message.text))
        opened.on("pageerror", lambda error: seen.append(str(error)))
        opened.on("dialog", lambda dialog: seen.append(dialog.message))

        def requested(request):
            if not request.url.startswith(("data:", path.as_uri())):
                seen.append(request.url)

        opened.on("request", requested)
        opened.goto(path.as_uri() + hash_)
        return opened

    yield go
    for context in contexts:
        context.close()
    assert seen == []


def start(task: str = "segmentation", **more: str) -> str:
    return "#" + "&".join(
        f"{k}={v}"
        for k, v in {"task": task, "device": "CPU A (2 cores), 2 threads", **more}.items()
    )


def header(page: Page, title: str) -> Locator:
    text = re.compile(rf"^{title}\s")
    return page.locator("table.rows:visible > thead th").filter(has_text=text)


def names(page: Page) -> list[str]:
    """The decoders of the rows that are seen, in order."""
    return page.locator("table.rows > tbody > tr[id]:visible > th .name").all_inner_texts()


def test_first_screen_shows_the_best_rows_of_one_board(visit):
    page = visit()
    assert page.locator("section.board:visible").count() == 1
    assert page.locator("h2:visible").first.inner_text() == "segmentation on camvid"
    assert names(page)[:2] == ["smp-unet", "sparsemask"]
    first = page.locator("table.rows:visible tbody tr").first.bounding_box()
    assert first["y"] + first["height"] < 800
    assert page.locator("#count").inner_text() == "8 of 8 rows"


def test_sorts_by_mouse_and_by_keyboard(visit):
    page = visit(start())
    head = header(page, "ms")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    order = names(page)
    assert order[:3] == ["fcn", "fcn", "sparsemask"]
    # what has no latency is behind what has one, failed rows are last, both ways
    assert order[-2:] == ["untimed", "encnet"]
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert names(page)[1] == "smp-fpn"
    assert names(page)[-2:] == ["untimed", "encnet"]
    header(page, "mIoU").get_by_role("button").click()
    assert names(page)[0] == "smp-unet"  # the better end first
    assert page.locator("[aria-sort]:visible").count() == 1


def test_filters_and_the_way_back(visit):
    page = visit(start())
    page.get_by_label("Decoder").select_option("fcn")
    assert names(page) == ["fcn", "fcn"]
    page.get_by_label("Backbone").select_option("test_efficientnet")
    assert names(page) == ["fcn"]
    assert page.locator("#count").inner_text() == "1 of 8 rows"
    assert page.get_by_label("Backbone").evaluate("e => e === document.activeElement")
    page.get_by_label("Decoder").select_option("smp-unet")
    assert names(page) == []
    page.get_by_text("No rows match").get_by_role("button", name="clear filters").click()
    assert len(names(page)) == 8
    page.get_by_label("Pareto front").select_option("latency")
    assert names(page) == ["smp-unet", "sparsemask", "fcn", "fcn"]
    assert page.locator(".plot.latency .mark[aria-label]").count() == 4
    page.get_by_label("Task").select_option("depth")
    assert page.locator("h2:visible").first.inner_text() == "depth on scenes"


def test_filters_by_runtime_and_precision(visit, tmp_path):
    runs = [result("a", score=0.6), result("b", score=0.4)]
    for run in runs:
        score = run.metrics["miou"]
        run.pairs = [in_pair(run, "openvino", "f32", score, 4.0),
                     in_pair(run, "openvino", "int8", score - 0.1, 3.0)]  # fmt: skip
    path = tmp_path / "index.html"
    path.write_text(page(views([*runs, failed()]), []), encoding="utf-8")
    opened = visit("", path)
    assert opened.locator("#count").inner_text() == "7 of 7 rows"
    assert opened.get_by_label("Precision").locator("option").all_inner_texts() == [
        "all", "f32", "int8"
    ]  # fmt: skip
    opened.get_by_label("Runtime").select_option("openvino")
    assert names(opened) == ["a", "a", "b", "b"]
    marks = opened.locator(".plot.latency .mark[aria-label]")
    assert marks.count() == 4
    assert "a in openvino int8" in marks.first.get_attribute("aria-label")
    opened.get_by_label("Precision").select_option("int8")
    assert names(opened) == ["a", "b"]
    again = visit(opened.evaluate("location.hash"), path)  # a link shows the same
    assert names(again) == ["a", "b"]
    opened.get_by_role("button", name="Clear filters").click()
    assert len(names(opened)) == 7
    plain = visit()
    assert plain.get_by_label("Runtime").count() == 0  # a board of one runtime has no choice


def test_a_link_shows_the_same_view(visit):
    page = visit(start())
    page.get_by_label("Device").select_option("GPU B, 2 threads")
    page.get_by_label("Device").select_option("CPU A (2 cores), 2 threads")
    page.get_by_label("Backbone").select_option("test_resnet")
    header(page, "FPS").get_by_role("button").click()
    page.locator("button.name:visible").nth(1).click()
    address = page.evaluate("location.hash")
    order = names(page)
    again = visit(address)
    assert names(again) == order
    assert again.get_by_label("Backbone").input_value() == "test_resnet"
    assert again.locator("tr.detail:visible").count() == 1
    assert again.evaluate("location.hash") == address


def test_follows_the_link_from_the_overall_table(visit):
    page = visit()
    page.locator("section.overall a", has_text="depth on scenes").click()
    expect(page.locator("h2:visible").first).to_have_text("depth on scenes")
    page.locator("nav a", has_text="Environments").click()
    assert page.locator("h2:visible").first.inner_text() == "depth on scenes"


def test_a_link_to_a_row_brings_it_into_view(visit):
    small = {"width": 1280, "height": 300}
    page = visit(start(), viewport=small)
    page.locator("button.name:visible").nth(6).click()
    address = page.locator("a.permalink").get_attribute("href")
    again = visit(address, viewport=small)
    assert again.evaluate("scrollY") > 300
    assert 0 <= again.locator("tr.open").bounding_box()["y"] < 100


def test_predictions_wirings_and_the_sentence_follow_the_filters(visit):
    page = visit(start())
    short = page.locator(".short:visible")
    pictures = page.locator(".predictions figure[data-row]:visible")
    assert short.inner_text().startswith("Rank 1")
    assert pictures.count() == 3 * 3
    page.get_by_label("Decoder").select_option("sparsemask")
    assert short.inner_text().startswith("Of all rows: Rank 1: smp-unet on")
    assert pictures.count() == 3
    assert set(pictures.all_inner_texts()) == {"sparsemask on test_resnet"}
    assert page.locator(".wirings > figure:visible").count() == 1
    page.get_by_label("Decoder").select_option("untimed")
    assert page.locator("#wirings").is_hidden()
    assert page.locator(".predictions:visible").count() == 0
    page.get_by_role("button", name="Clear filters").click()
    assert short.inner_text().startswith("Rank 1")
    # in the order of the rows
    header(page, "ms").get_by_role("button").click()
    assert "fcn" in pictures.first.inner_text()


def test_many_rows_only_the_first_are_pictured(visit, tmp_path):
    runs = [result(f"d{i:02}", score=0.9 - i / 50) for i in range(14)]
    strips(tmp_path, "segmentation", images=1)
    for run in runs:
        run.folder = tmp_path
    path = tmp_path / "index.html"
    path.write_text(page(views(runs), []), encoding="utf-8")
    opened = visit(path=path)
    pictures = opened.locator(".predictions figure[data-row]:visible")
    assert pictures.count() == 12
    title = opened.locator(".predictions h3")
    assert title.inner_text() == "Predictions of the first 12 of 14 rows"
    opened.locator("button.name:visible").last.click()
    assert opened.locator("tr.detail .strip figure:visible").count() == 3
    opened.get_by_label("Decoder").select_option("d13")
    assert pictures.all_inner_texts() == ["d13"]
    assert title.inner_text().strip() == "Predictions"


def test_one_validation_is_no_curve(visit, tmp_path):
    history = [{"epoch": e, "loss": 1 / e} for e in (1.0, 2.0)]
    history[-1]["val/miou"] = 0.5
    path = tmp_path / "index.html"
    path.write_text(page(views([result("a", history=history)]), []), encoding="utf-8")
    opened = visit(path=path)
    assert opened.locator(".plot.curve-val").count() == 0
    assert opened.locator(".plot.curve-loss svg").first.is_visible()
    assert opened.get_by_text("Validation ran once").is_visible()


def test_a_board_without_a_finished_run(visit, tmp_path):
    reason = "out of memory: " + "a smaller --batch-size may help; " * 12
    path = tmp_path / "index.html"
    path.write_text(page(views([failed(error=reason, environment={})]), []), encoding="utf-8")
    for width in (390, 1280):
        opened = visit(path=path, viewport={"width": width, "height": 800})
        assert opened.get_by_label("Device").count() == 0
        text = opened.locator(".reason div").bounding_box()
        assert text["x"] + text["width"] <= width
        assert opened.locator(".reason div").evaluate("e => e.scrollWidth <= e.clientWidth")


def test_a_shadow_where_the_table_goes_on(visit):
    page = visit(start(), viewport={"width": 390, "height": 800})
    frame = page.locator("section.board:visible > .frame")
    expect(frame).to_have_class("frame more")
    scroll = frame.locator(".scroll")
    assert scroll.get_attribute("tabindex") == "0"
    assert scroll.get_attribute("aria-label") == "Table: segmentation on camvid"
    scroll.evaluate("e => { e.scrollLeft = e.scrollWidth; }")
    expect(frame).to_have_class("frame")
    wide = visit(start())
    expect(wide.locator("section.board:visible > .frame")).to_have_class("frame")


def test_each_command_can_be_copied(visit):
    page = visit(start(), permissions=["clipboard-read", "clipboard-write"])
    page.locator("section.board:visible summary", has_text="Commands that repeat").click()
    commands = page.locator("section.board:visible .commands dd")
    expect(commands.get_by_role("button")).to_have_count(8)
    last = commands.last
    last.get_by_role("button").click()
    expect(page.locator("#status")).to_contain_text("Copied the command of")
    assert page.evaluate("navigator.clipboard.readText()") == last.locator("code").inner_text()


@pytest.mark.parametrize(
    "wrong", ["#task=nothing&sort=x&dir=y&front=z&row=q", "#=&&%%%", "#board-99"]
)
def test_a_wrong_link_still_shows_a_board(visit, wrong):
    page = visit(wrong)
    assert page.locator("section.board:visible").count() == 1
    assert len(names(page)) > 0


def test_marks_tell_by_hover_and_by_keyboard(visit):
    page = visit(start())
    tip = page.locator("#tip")
    assert tip.is_hidden()
    marks = page.locator(".plot.latency .mark[aria-label]")
    assert marks.count() == 6  # neither the failed row nor the untimed one has a latency
    marks.nth(5).hover()
    assert "smp-fpn" in tip.inner_text() or "x<" in tip.inner_text()
    page.mouse.move(2, 2)
    assert tip.is_hidden()
    marks.nth(0).focus()
    assert "fcn" in tip.inner_text()
    assert "mIoU 0.450 (0.430–0.470)" in tip.inner_text()
    page.keyboard.press("ArrowRight")
    assert "test_efficientnet" in tip.inner_text()
    page.keyboard.press("End")
    assert marks.nth(5).evaluate("e => e === document.activeElement")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    assert page.locator("tr.detail:visible").count() == 1
    assert page.locator("tr.open button.name").evaluate("e => e === document.activeElement")
    # one stop for Tab in every plot
    assert page.locator(".plot.latency .mark[tabindex='0']").count() == 1


def test_each_plot_has_its_table(visit):
    page = visit(start())
    plots = page.locator(".plot:visible")
    titles = plots.locator("h3").all_inner_texts()
    assert len(titles) == 5
    assert plots.locator("summary", has_text="Table").count() == 5
    page.locator(".plot.latency summary").click()
    cells = page.locator(".plot.latency tbody tr").first.locator("th, td").all_inner_texts()
    assert cells == ["fcn", "test_resnet", "0.450", "10.0", "yes"]
    page.get_by_label("Cost on the horizontal axis").select_option("macs")
    assert page.locator(".plot.macs svg").first.is_visible()
    assert "x=macs" in page.evaluate("location.hash")


def test_front_is_a_stepped_line_through_its_rows(visit):
    page = visit(start())
    path = page.locator(".plot.latency svg[height] > path.step").get_attribute("d")
    assert re.fullmatch(r"M[\d.]+ [\d.]+(H[\d.]+V[\d.]+){3}H[\d.]+", path)


def test_a_row_opens_and_its_command_is_copied(visit):
    page = visit(start(), permissions=["clipboard-read", "clipboard-write"])
    button = page.locator("button.name:visible", has_text="sparsemask").first
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    assert button.evaluate("e => e === document.activeElement")
    panel = page.locator("tr.detail:visible")
    for title in ("Command", "Seeds", "Environment 1", "Wiring", "How it was timed"):
        assert panel.get_by_role("heading", name=title).count() == 1
    assert panel.locator(".strip img").count() == 9
    assert panel.locator(".strip img").first.evaluate("e => e.naturalWidth") == 192
    command = panel.locator("code").first
    assert command.evaluate("e => e.scrollWidth <= e.clientWidth")
    assert command.inner_text() == result("sparsemask", 0, cost=2).command
    page.get_by_role("button", name="Copy the command of sparsemask").click()
    expect(page.locator("#status")).to_contain_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == result("sparsemask", 0, cost=2).command
    panel.get_by_text("Commands of the other 2 seeds").click()
    assert "--seed 2" in panel.locator("code").nth(2).inner_text()
    button.click()
    assert page.locator("tr.detail:visible").count() == 0


def test_reported_rows_are_sorted_and_drawn_with_the_others(visit):
    page = visit(start("edges"))
    header(page, "ODS").get_by_role("button").click()
    assert names(page) == ["hed", "sparsemask", "fcn"]
    assert page.locator(".plot.bars .mark.reported").count() == 2
    page.locator(".plot.bars .mark.reported").first.hover()
    assert "reported, not measured here" in page.locator("#tip").inner_text()
    page.locator("button.name:visible", has_text="hed").click()
    expect(page.locator("tr.detail:visible")).to_contain_text("Nothing more is known of this row")


def test_copies_without_the_clipboard_interface(visit):
    page = visit(start())
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.locator("button.name:visible").first.click()
    page.get_by_role("button", name="Copy the command").first.click()
    expect(page.locator("#status")).to_contain_text("Copied")


def test_a_hostile_name_is_shown_and_does_nothing(visit):
    page = visit(start())
    assert any(HOSTILE.strip() in name for name in names(page))
    page.get_by_label("Decoder").select_option(index=7)
    page.locator("button.name:visible").first.click()
    assert page.locator("img[src='x']").count() == 0
    assert "onerror" in page.locator("tr.detail:visible code").first.inner_text()


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_width_scrolls_the_page_sideways(visit, width, opened):
    page = visit(start(), viewport={"width": width, "height": 844})
    if opened:
        page.locator("button.name:visible", has_text="sparsemask").first.click()
        page.locator(".plot summary").first.click()
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    # the names stay while the table is scrolled
    scroll = page.locator(".scroll:visible").first
    name = page.locator("button.name:visible").first
    scroll.evaluate("e => { e.scrollLeft = e.scrollWidth; }")
    box, place = name.bounding_box(), scroll.bounding_box()
    assert place["x"] <= box["x"] < place["x"] + place["width"] / 2


def test_targets_are_large_enough_for_a_finger(visit):
    page = visit(start(), viewport={"width": 390, "height": 844}, has_touch=True)
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, select, summary, nav a")]
        .filter((e) => e.offsetParent && e.getBoundingClientRect().height < 24)
        .map((e) => e.outerHTML)"""
    )
    assert small == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(visit, scheme):
    """4.5:1 for every text on its background, as WCAG 2 computes it."""
    page = visit(start(), color_scheme=scheme)
    page.locator("button.name:visible").first.click()
    weak = page.evaluate(
        """() => {
          const parse = (c) => (c.match(/[\\d.]+/g) || []).map(Number);
          const light = (c) => {
            const [r, g, b] = parse(c).map((v) => v / 255)
              .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const behind = (e) => {
            for (let n = e; n; n = n.parentElement) {
              const c = getComputedStyle(n).backgroundColor;
              if ((parse(c)[3] ?? 1) > 0) return c;
            }
            return "rgb(255, 255, 255)";
          };
          const found = new Set();
          for (const e of document.querySelectorAll("body *")) {
            const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
            if (!own || !e.getClientRects().length || e.closest("script, select")) continue;
            const style = getComputedStyle(e);
            const [a, b] = [light(e.closest("svg") ? style.fill : style.color), light(behind(e))];
            const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            if (ratio < 4.5) found.add(`${e.tagName} ${e.className} ${ratio.toFixed(2)}`);
          }
          return [...found];
        }"""
    )
    assert weak == []
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


def test_without_javascript_all_tables_are_there(visit):
    page = visit(java_script_enabled=False)
    assert page.locator("section.board:visible").count() == 4
    assert page.locator("noscript p").is_visible()
    boards = json.loads(page.locator("#data").text_content())
    assert [len(board["rows"]) for board in boards if len(board["rows"]) > 3] == [8]
    rows = page.locator("table.rows tbody tr[id]").count()
    assert rows == sum(len(board["rows"]) for board in boards)
    assert page.locator("#controls").is_hidden()
    page.locator("section.board summary", has_text="Commands").first.click()
    assert page.locator("section.board dd code").first.is_visible()
    assert page.locator(".strip img").first.is_visible()
    assert page.locator(".wiring").first.is_visible()


def test_prints_what_is_shown(visit):
    page = visit(start())
    page.emulate_media(media="print")
    assert page.locator("#controls").is_hidden()
    assert page.locator("table.rows:visible").count() == 1


def test_500_runs_are_usable(visit, tmp_path):
    path = tmp_path / "index.html"
    path.write_text(page(views(many()), []), encoding="utf-8")
    opened = visit(path=path)
    opened.get_by_label("Pareto front").select_option("any")
    assert 0 < len(names(opened)) < 13
