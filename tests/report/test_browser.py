"""The report in headless Chromium: nothing fails, sorting, filtering and the viewer work, hostile names do nothing."""

import shutil
from collections.abc import Iterator

import numpy as np
import pytest
from made_scores import HOSTILE_CASE, HOSTILE_SCRIPT

selenium = pytest.importorskip("selenium")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1000",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator["selenium.webdriver.Chrome"]:
    from selenium import webdriver

    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("chromium and chromedriver are not installed (apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()


@pytest.fixture
def page(browser, compared):
    """The report, freshly opened. Whatever a test does, the console stays empty and no hostile name has run."""
    browser.get(compared.path.as_uri())
    yield browser
    assert browser.get_log("browser") == []
    assert browser.execute_script("return window.hacked") is None


def css(page, selector):
    return page.find_elements("css selector", selector)


def column(page, place):
    return [
        row.find_elements("css selector", "th, td")[place].text
        for row in css(page, "#case-table tbody tr:not([hidden])")
    ]


def press(page, key):
    from selenium.webdriver import ActionChains

    ActionChains(page).send_keys(key).perform()


def test_hostile_names_are_text(page):
    assert {HOSTILE_CASE, HOSTILE_SCRIPT} <= set(column(page, 0))
    assert not css(page, "img, iframe")


def test_sorting_by_number_and_by_name(page):
    heads = css(page, "#case-table thead th")
    names = [head.text for head in heads]
    place = names.index("good: mean Dice")
    button = heads[place].find_element("css selector", "button")
    button.click()
    ascending = [float(text) for text in column(page, place)]
    assert ascending == sorted(ascending) and heads[place].get_attribute("aria-sort") == "ascending"
    button.click()
    assert [float(text) for text in column(page, place)] == ascending[::-1]
    assert heads[place].get_attribute("aria-sort") == "descending"
    heads[0].find_element("css selector", "button").click()
    assert heads[place].get_attribute("aria-sort") == "none"
    named = [name for name in column(page, 0) if name[1] == "_"]
    assert named == sorted(named)


def test_filters_by_text_and_by_group(page):
    css(page, "#find")[0].send_keys("subject es")
    assert {name[-3:] for name in column(page, 0) if name != HOSTILE_SCRIPT} == {"_ES"}
    assert css(page, "#count")[0].text == "3 of 6 cases"
    css(page, "#find")[0].clear()
    select = css(page, "#filters select")[0]
    option = next(option for option in select.find_elements("css selector", "option") if option.text == "A")
    option.click()
    assert sorted(column(page, 0)) == ["a_ED", "a_ES"]


def test_the_viewer_opens_by_key_and_walks_through_slices_and_cases(page):
    from selenium.webdriver.common.keys import Keys

    opener = css(page, "button.open")[0]
    page.execute_script("arguments[0].focus()", opener)
    press(page, Keys.ENTER)
    assert css(page, "dialog[open] #viewer-title")[0].text == opener.text
    assert [panel.text.split("\n")[0] for panel in css(page, "dialog .panel")] == [
        "image",
        "reference",
        "good",
        "poor",
    ]
    shown = css(page, "#slice-text")[0]
    press(page, Keys.HOME)
    assert shown.text.startswith("1 of 5") and not css(page, "dialog .outlines path")
    press(page, Keys.ARROW_UP)
    assert shown.text.startswith("2 of 5") and len(css(page, "dialog .outlines path")) == 3 * 3
    assert page.execute_script(
        "return [...document.querySelectorAll('dialog image')].every(i => i.getBBox().width > 0)"
    )
    css(page, "#label-boxes input")[0].click()
    assert len(css(page, "dialog .outlines path")) == 3 * 2
    css(page, "#both")[0].click()
    assert len(css(page, "dialog .outlines.under path")) == 2 * 2
    press(page, Keys.PAGE_DOWN)
    assert css(page, "#viewer-title")[0].text == column(page, 0)[1]
    press(page, Keys.ESCAPE)
    assert not css(page, "dialog[open]")
    assert page.switch_to.active_element.text == column(page, 0)[1]


def test_a_point_of_a_chart_opens_its_case_and_pictures_are_decoded(page):
    point = css(page, "circle[data-case]")[-1]
    page.execute_script("arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true}))", point)
    assert css(page, "dialog[open] #viewer-title")[0].text == point.get_attribute("data-case")
    decoded = page.execute_async_script(
        """const done = arguments[0];
        Promise.all([...document.querySelectorAll('image')].map(async (image) => {
          const own = new Image();
          own.src = image.getAttribute('href');
          await own.decode();
          return own.width;
        })).then(done, (error) => done([0]));"""
    )
    assert len(decoded) >= 6 and all(width > 0 for width in decoded)


def test_the_theme_follows_the_system_and_the_switch(page):
    def dark() -> bool:
        colour = page.execute_script("return getComputedStyle(document.body).backgroundColor")
        return colour != "rgb(255, 255, 255)"

    def system(theme: str) -> None:
        page.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        )

    system("dark")
    button = css(page, "#theme")[0]
    assert dark() and button.text == "Theme: automatic"
    button.click()
    assert not dark()
    system("light")
    button.click()
    assert dark()
    button.click()
    assert not dark()


def test_everything_is_open_in_print(page):
    page.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    assert not css(page, "details:not([open])")
    page.execute_script("window.dispatchEvent(new Event('afterprint'))")
    assert css(page, "details:not([open])")


def test_the_report_of_a_study_chooses_its_matrix_and_opens_its_cases(browser, pictured):
    browser.get(pictured.path.as_uri())

    def shown():
        return [block for block in css(browser, ".choice") if block.is_displayed()]

    (first,) = shown()
    assert first.get_attribute("data-metric") == "dice" and first.get_attribute("data-label") == "mean"
    for select, text in (("#choose-metric", "HD95 mm"), ("#choose-label", "MYO")):
        options = css(browser, f"{select} option")
        next(option for option in options if option.text == text).click()
    (chosen,) = shown()
    assert chosen.get_attribute("data-metric") == "hd95_mm" and "HD95 mm of MYO" in chosen.text
    opener = css(browser, "button.open")[0]
    browser.execute_script("arguments[0].click()", opener)
    assert css(browser, "dialog[open] #viewer-title")[0].text == opener.text
    assert [panel.text.split("\n")[0] for panel in css(browser, "dialog .panel")][:2] == [
        "image",
        "reference",
    ]
    assert {HOSTILE_CASE, HOSTILE_SCRIPT} <= set(column(browser, 0))
    wide = browser.execute_script(
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert wide == 0
    assert browser.get_log("browser") == [] and browser.execute_script("return window.hacked") is None


def test_the_player_shows_every_frame_of_a_cine(browser, measured):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    def upper_edge():
        """Of the wall in slice 1 of frame 3, whose first row is 13: colours (N, 3) of the canvas on one column, half a pixel about it."""
        script = """const [canvas, x, low, high] = arguments, { width: w, height: h } = canvas;
        const part = canvas.getContext("2d").getImageData(x * w, low * h, 1, (high - low) * h);
        return [...part.data]"""
        values = browser.execute_script(script, css(browser, "#canvas")[0], 25 / 44, 12.4 / 40, 13.6 / 40)
        return np.reshape(values, (-1, 4))[:, :3]

    browser.get(measured.pages.path.as_uri())
    css(browser, "circle[data-case='a_sa']")[0].click()
    assert css(browser, "h1")[0].text == "a_sa"
    text, player = css(browser, "#frame-text")[0], css(browser, "#player")[0]
    assert "frame 0 of 0 … 4 · 0 ms · ED · LV" in text.text
    player.send_keys(Keys.ARROW_RIGHT)
    assert "frame 1 of" in text.text and "ED" not in text.text
    css(browser, "button[data-go='3']")[0].click()
    volume = measured.record.cines[0].curve.lv_ml[3]
    assert f"· ES · LV {volume:.1f} ml" in text.text
    marks = css(browser, ".chart .mark")
    cursor = css(browser, ".chart .cursor")[0]
    assert abs(cursor.rect["x"] - marks[1].rect["x"]) < 1 and cursor.is_displayed()
    player.send_keys(Keys.ARROW_UP)  # one slice, of 44 x 40 pixels
    assert css(browser, "#canvas")[0].get_attribute("aria-label") == "a_sa: slice 1, frame 3"
    red, green, _ = upper_edge().T
    assert (green > red + 60).any()
    css(browser, "#outline-boxes input")[1].click()
    WebDriverWait(browser, 5).until(lambda _: upper_edge().max() > 80)  # the image is decoded
    assert np.ptp(upper_edge(), axis=1).max() == 0  # and grey
    css(browser, "#play")[0].click()
    WebDriverWait(browser, 5).until(lambda _: "ES" not in text.text)
    assert "Pause" in css(browser, "#play")[0].text
    player.send_keys("a")
    player.send_keys(Keys.HOME)
    assert "Play" in css(browser, "#play")[0].text and "frame 0" in text.text
    css(browser, ".page-link")[0].click()
    assert css(browser, "h1")[0].text == "4 cines of 4 subjects"
    said = [line for line in browser.get_log("browser") if "getImageData" not in line["message"]]  # our own
    assert said == [] and browser.execute_script("return window.hacked") is None
