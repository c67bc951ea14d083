"""The report's page in a headless Chromium: that it can be read on a phone and a desk, and answers to who uses it."""

import contextlib
import io
import os
import re

import browser
import pytest
import report_samples as samples
from PIL import Image
from places import DOCS

from bnkit.lab.experiments.axes import number

PHONE, DESK = 390, 1280  # CSS pixels
FIRST = "#weight-scale-figure-1"  # a chart, with plain as series 0, batch norm as 1 and three runs


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    """The browser; skips where there is none that starts, which BNKIT_REQUIRE=browser makes a failure."""
    program = browser.find()
    if os.name == "nt":
        unavailable("Windows hands a process no pipes of the numbers that a browser reads")
    if program is None:
        unavailable("no Chromium or Chrome was found; BNKIT_BROWSER can name one")
    folder = tmp_path_factory.mktemp("profile")
    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(browser.started(program, folder))
        except (OSError, RuntimeError, TimeoutError) as error:
            unavailable(f"{program} does not start: {error}; {(folder / 'stderr').read_text()[-300:]}")
        yield opened


def unavailable(reason):
    if "browser" in os.environ.get("BNKIT_REQUIRE", "").split(","):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(samples.page(samples.full()), encoding="utf-8")
    return path


@pytest.fixture
def desk(window, file):
    window.open(file, DESK)
    yield window
    assert window.problems == []


@pytest.fixture
def phone(window, file):
    window.open(file, PHONE, phone=True)
    yield window
    assert window.problems == []


@pytest.fixture(params=["samples", "docs"])
def any_file(request, file):
    """The page of the samples, and the repository's own."""
    return file if request.param == "samples" else DOCS / "report.html"


@pytest.fixture(params=[PHONE, DESK])
def either(request, window, any_file):
    window.open(any_file, request.param, phone=request.param == PHONE)
    yield window
    assert window.problems == []


def path_of(window, selector):
    return window.value(f"document.querySelector({selector!r}).getAttribute('d')")


def numbers(path):
    return [float(n) for n in re.findall(r"-?\d+\.?\d*", path)]


def tip(window):
    """The shown values, or None."""
    return window.value("tip.hidden ? null : tip.innerText")


def background(window):
    return window.value("getComputedStyle(document.body).backgroundColor")


@pytest.mark.parametrize("width", [320, PHONE, 700, DESK])
def test_nothing_is_wider_than_the_window(window, any_file, width):
    window.open(any_file, width, phone=width <= PHONE)
    outside = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') &&
        (e.getBoundingClientRect().right > innerWidth + .5 || e.getBoundingClientRect().left < -.5)
        ).map(e => e.outerHTML.slice(0, 80))"""
    assert window.value(outside) == []
    assert window.value("document.documentElement.scrollWidth") == window.value("innerWidth") == width
    assert window.problems == []


def test_no_text_is_smaller_than_eleven_pixels(either):
    small = """[...document.querySelectorAll('body *')].filter(e => !['SCRIPT', 'STYLE'].includes(e.tagName) &&
        [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && parseFloat(getComputedStyle(e).fontSize) < 11
        ).map(e => e.outerHTML.slice(0, 80))"""
    assert either.value(small) == []


def test_no_ticks_label_covers_another(either):
    covered = """[...document.querySelectorAll('.x, .y')].filter(axis => {
        const boxes = [...axis.children].map(e => e.getBoundingClientRect()).filter(b => b.width)
        return boxes.some((a, i) => boxes.some((b, j) => i < j && a.left < b.right + 3 && b.left < a.right + 3 &&
            a.top + 2 < b.bottom && b.top + 2 < a.bottom))
        }).map(e => e.closest('.panel').id + e.innerText)"""
    assert either.value(covered) == []


def test_every_panel_is_large_enough_to_read(either):
    sizes = either.value("[...document.querySelectorAll('.panels svg')].map(e => [e.clientWidth, e.clientHeight])")
    assert min(width for width, _ in sizes) >= 100
    assert min(height for _, height in sizes) >= 100


def test_every_cell_of_a_grid_is_large_enough_to_compare_shapes(either):
    sizes = either.value("[...document.querySelectorAll('.cells svg')].map(e => [e.clientWidth, e.clientHeight])")
    assert min(width for width, _ in sizes) >= 48
    assert min(height for _, height in sizes) >= 48


def test_no_column_of_a_table_is_hidden_on_a_phone(phone):
    outside = """[...document.querySelectorAll('.scroll td, .scroll tbody th')].filter(e => e.innerText.trim() &&
        (e.getBoundingClientRect().right > innerWidth || !e.getBoundingClientRect().width)
        ).map(e => e.outerHTML.slice(0, 80))"""
    assert phone.value(outside) == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_every_panel_shows_its_curves(window, any_file, width, dark):
    window.open(any_file, width, dark=dark, phone=width == PHONE)
    picture = Image.open(io.BytesIO(window.screenshot(whole=True))).convert("RGB")
    assert picture.width == width
    boxes = window.value("""[...document.querySelectorAll('.plot svg')].map(e => {
        const b = e.getBoundingClientRect()
        return [b.left + scrollX, b.top + scrollY, b.right + scrollX, b.bottom + scrollY] })""")
    assert len(boxes) == any_file.read_text(encoding="utf-8").count('class="panel"') > 90
    for box in boxes:
        panel = picture.crop([round(edge) for edge in box])
        # As neither the card nor its grid are.
        colourful = sum(count for count, c in panel.getcolors(2**16) if max(c) - min(c) > 60)
        assert colourful > panel.width, "a curve has at least a pixel in each column"
    assert window.problems == []


def test_a_series_is_hidden_and_shown_by_its_button(desk):
    drawn = f"{FIRST} .plot g[data-series='0']"
    shown = f"document.querySelector({drawn!r}).getBoundingClientRect().width > 0"
    assert desk.value(shown)
    desk.click(f"{FIRST} button[data-series='0']")
    assert not desk.value(shown)
    assert desk.value(f"document.querySelector(\"{FIRST} button[data-series='0']\").ariaPressed") == "false"
    assert desk.value("document.querySelector(\"#learning-rate-figure-1 g[data-series='0']\").getBBox().width > 0")
    desk.click(f"{FIRST} button[data-series='0']")
    assert desk.value(shown)


def test_a_series_is_hidden_by_the_keyboard(desk):
    desk.value(f"document.querySelector('{FIRST} button').focus()")
    desk.press("Enter")
    assert desk.value(f"document.querySelector('{FIRST} g').getBoundingClientRect().width") == 0
    desk.press("Tab")
    assert desk.value("document.activeElement.dataset.series") == "1"


def test_without_a_run_the_mean_and_the_band_are_those_of_the_others(desk):
    mean, band = (f"{FIRST}-1 g[data-series='0'] .{part}" for part in ("mean", "band"))
    before = path_of(desk, mean), path_of(desk, band)
    desk.click(f"{FIRST} button[data-run='1']")
    chart = samples.weight_scale().charts[0]
    (x_low, x_high), line = (1 - 0.02 * 19, 20 + 0.02 * 19), chart.panels[0].items[0]
    kept = [line.runs["seed 0"], line.runs["seed 2"]]
    expected = []
    for x, values in zip(line.x, zip(*kept, strict=True), strict=True):
        place = (sum(values) / 2 + 0.04) / 1.08  # the axis reaches 4% beyond 0 and 1
        expected += [300 * (x - x_low) / (x_high - x_low), 200 * (1 - place)]
    # Coordinates have one decimal, values five digits.
    assert numbers(path_of(desk, mean)) == pytest.approx(expected, abs=0.06)
    assert path_of(desk, band) != before[1]
    desk.click(f"{FIRST} button[data-run='1']")
    assert numbers(path_of(desk, mean)) == pytest.approx(numbers(before[0]), abs=0.11)  # two roundings
    assert numbers(path_of(desk, band)) == pytest.approx(numbers(before[1]), abs=0.11)


def test_the_script_draws_as_the_page_was_drawn(desk):
    """Every line of every chart, with gaps and on logarithmic axes: once more by the script, for all runs."""
    every = """[...document.querySelectorAll('.plot g path.mean, .plot g path.band, .plot g path.mark')].map(
        e => e.getAttribute('d'))"""
    before = desk.value(every)
    desk.value("document.querySelectorAll('[data-each]').forEach(b => { b.click(); b.click() })")
    after = desk.value(every)
    assert len(before) == len(after) > 100
    for old, new in zip(before, after, strict=True):
        assert numbers(new) == pytest.approx(numbers(old), abs=0.11)  # one decimal, rounded in two languages
        assert re.sub(r"[\d. -]+", " ", new) == re.sub(r"[\d. -]+", " ", old)


def test_each_run_is_drawn_on_demand(desk):
    count = f"document.querySelectorAll(\"{FIRST}-1 g[data-series='1'] .run\").length"
    assert desk.value(count) == 0
    desk.click(f"{FIRST} [data-each]")
    assert desk.value(count) == 3
    desk.click(f"{FIRST} button[data-run='2']")
    assert desk.value(count) == 2


def test_pointing_shows_the_values_and_leaving_hides_them(desk):
    assert tip(desk) is None
    desk.hover(f"{FIRST}-1 svg", across=0.999)
    line = samples.weight_scale().charts[0].panels[0].items[0]
    last = [values[-1] for values in line.runs.values()]
    shown = tip(desk)
    assert shown.startswith("epoch 20\n")
    assert number(sum(last) / 3) in shown
    assert f"{number(min(last))} to {number(max(last))}" in shown
    assert "batch norm" in shown
    desk.send("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    assert tip(desk) is None


def test_a_hidden_series_has_no_values(desk):
    desk.click(f"{FIRST} button[data-series='1']")
    desk.hover(f"{FIRST}-1 svg")
    assert "plain" in tip(desk)
    assert "batch norm" not in tip(desk)


def test_a_tap_shows_the_values_until_the_next_one(phone):
    phone.tap("#activations-figure-1-2 svg")
    bars = samples.activations().charts[0].panels[1].items[0]
    shown = tip(phone)
    assert re.match(r"activation (−0.04 to 0|0 to 0.04)\n", shown)
    assert any(number(height) in shown for height in bars.heights[24:26])
    phone.tap("#activations h2")
    assert tip(phone) is None


@pytest.mark.parametrize(("panel", "across"), [(1, 0.001), (2, 0.999)], ids=["left", "right"])
def test_values_are_shown_inside_the_window(phone, panel, across):
    phone.tap(f"#learning-rate-figure-1-{panel} svg", across)
    box = phone.value("tip.getBoundingClientRect().toJSON()")
    assert box["width"] > 100
    assert box["left"] >= 0
    assert box["right"] <= PHONE


def test_arrows_go_from_value_to_value_and_from_panel_to_panel(desk):
    desk.value(f"document.querySelector('{FIRST}-1 .plot').focus()")
    desk.press("ArrowRight", "ArrowRight")
    assert tip(desk).startswith("epoch 2\n")
    desk.press("ArrowDown")
    assert desk.value("document.activeElement.closest('.panel').id") == f"{FIRST[1:]}-2"
    desk.press("ArrowLeft")
    assert tip(desk).startswith("epoch 20\n")
    desk.press("Escape")
    assert tip(desk) is None


def test_the_page_is_dark_where_the_system_is_and_the_button_changes_it(window, file):
    window.open(file, PHONE, phone=True)
    light = background(window)
    window.open(file, PHONE, dark=True, phone=True)
    dark = background(window)
    assert (light, dark) == ("rgb(246, 247, 249)", "rgb(15, 19, 23)")
    window.click("#theme")
    assert background(window) == light
    window.click("#theme")
    assert background(window) == dark
    assert window.problems == []


def test_without_its_script_the_page_shows_all_but_what_it_cannot_do(window, file):
    window.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        window.open(file, PHONE)
        picture = Image.open(io.BytesIO(window.screenshot(whole=True)))
    finally:
        window.send("Emulation.setScriptExecutionDisabled", value=False)
    window.open(file, PHONE)
    assert window.value("document.querySelector('#theme').hidden") is False
    whole = Image.open(io.BytesIO(window.screenshot(whole=True)))
    assert 0.9 * whole.height < picture.height < whole.height, "without the buttons for runs, with all the rest"


def test_a_text_that_looks_like_markup_does_nothing(window, tmp_path):
    bad = samples.HOSTILE
    line = samples.Line(bad, "plain", (1, 2), {bad: (0.0, 1.0), "other": (1.0, 0.0)})
    chart = samples.Chart(bad, bad, bad, (samples.Panel(bad, (line,), bad),))
    found = samples.Findings(bad, (chart,), (), (samples.Verdict(bad, "holds", bad, bad),))
    (tmp_path / "bad.html").write_text(samples.page([samples.experiment("weight-scale", found)]), encoding="utf-8")
    window.open(tmp_path / "bad.html", PHONE)
    window.hover(f"{FIRST}-1 svg")
    assert bad.split()[0] in tip(window)
    assert window.value("document.images.length") == 0
    assert window.value("document.documentElement.scrollWidth") == PHONE
    assert window.problems == []
