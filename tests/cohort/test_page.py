"""The cohort's page in a real Chromium."""

from __future__ import annotations

import copy
import csv
import json
import os
import random
import re
import time
from pathlib import Path

import pytest
from conftest import Cohort
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

SCREENSHOTS = os.environ.get("VOXMASK_SCREENSHOTS")
PATIENCE_S = 120


def open_page(browser: Chrome, path: Path) -> None:
    """Opens a page from disk, waits for its table, and checks that it asked for nothing else."""
    browser.get_log("performance")
    browser.get(f"file://{path}")
    wait(browser, lambda: rows(browser))
    browser.execute_script("localStorage.clear()")
    events = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    # The first page of a new browser is its own.
    others = [url for url in asked if not url.startswith(("data:", "blob:", "chrome:"))]
    assert others in ([f"file://{path}"], []), others
    severe = [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    assert not severe, severe


def wait(browser: Chrome, until) -> None:
    WebDriverWait(browser, PATIENCE_S).until(lambda _: until())


def screenshot(browser: Chrome, name: str) -> None:
    """Keeps a picture to look at, in the folder that ``VOXMASK_SCREENSHOTS`` names."""
    if SCREENSHOTS:
        browser.save_screenshot(str(Path(SCREENSHOTS) / f"{name}.png"))


def rows(browser: Chrome) -> list[str]:
    """Ids of all scans that the table shows, in its order, rendered or not."""
    return browser.execute_script("return table.getData('active').map((scan) => scan.id)")


def press(browser: Chrome, *keys: str) -> None:
    for key in keys:
        ActionChains(browser).send_keys(key).perform()


def shown(browser: Chrome) -> str:
    return browser.find_element(By.ID, "viewer-id").text


def pixels(browser: Chrome) -> list[int]:
    """Brightness of the large picture, coarsely."""
    return browser.execute_script(
        """const canvas = document.getElementById("canvas");
        const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        return Array.from(data.filter((_, n) => n % 4003 === 0));"""
    )


def test_totals_left_out_and_sites_are_shown(browser: Chrome, cohort: Cohort) -> None:
    open_page(browser, cohort.folder / "cohort.html")
    assert rows(browser) == cohort.ids
    text = browser.find_element(By.TAG_NAME, "main").text
    assert re.search(r"4\s+scans", text) and re.search(r"3\s+done", text)
    assert "1 left out" in text
    sites = browser.find_element(By.ID, "site-table").text
    for word in ("north", "south", "all", "limits of agreement"):
        assert word in sites
    charts = browser.execute_script("return charts.map((chart) => chart.data.datasets.length)")
    assert charts == [1, 1, 1, 1, 2]
    screenshot(browser, "page")


def test_the_table_sorts_and_filters(browser: Chrome, cohort: Cohort) -> None:
    open_page(browser, cohort.folder / "cohort.html")
    header = browser.find_element(By.CSS_SELECTOR, '[tabulator-field="share"] .tabulator-col-title')
    header.click()
    shares = browser.execute_script("return table.getData('active').map((scan) => scan.share)")
    assert shares == sorted(shares) and len(shares) == 3
    search = browser.find_element(By.ID, "search")
    search.send_keys("north")
    wait(browser, lambda: len(rows(browser)) == 1)
    assert "1 of 3 scans" in browser.find_element(By.ID, "count").text
    search.send_keys(Keys.CONTROL, "a", Keys.DELETE)
    wait(browser, lambda: len(rows(browser)) == 3)


def test_a_scan_opens_large_and_is_leafed_through_by_keys_and_slider(
    browser: Chrome, cohort: Cohort
) -> None:
    open_page(browser, cohort.folder / "cohort.html")
    browser.find_element(By.CSS_SELECTOR, "#table .tabulator-row").click()
    assert shown(browser) == cohort.ids[0]
    wait(browser, lambda: max(pixels(browser)[:300]) > 60)
    screenshot(browser, "viewer")
    first = pixels(browser)
    press(browser, Keys.ARROW_UP)
    assert browser.find_element(By.ID, "slice-number").text == "4 of 6"
    second = pixels(browser)
    assert second != first
    press(browser, "3")
    pressed = browser.find_element(By.CSS_SELECTOR, '[aria-pressed="true"]').text
    assert pressed == "sagittal" and pixels(browser) != second
    slider = browser.find_element(By.ID, "slice")
    browser.execute_script("arguments[0].value = 0; arguments[0].dispatchEvent(new Event('input'))", slider)
    assert browser.find_element(By.ID, "slice-number").text == "1 of 6"
    press(browser, Keys.ARROW_RIGHT)
    assert shown(browser) == cohort.ids[1]
    press(browser, Keys.ARROW_LEFT)
    assert shown(browser) == cohort.ids[0]


def test_decisions_are_made_by_key_and_saved_as_csv(browser: Chrome, cohort: Cohort) -> None:
    open_page(browser, cohort.folder / "cohort.html")
    browser.refresh()
    wait(browser, lambda: rows(browser))
    press(browser, Keys.ENTER)
    press(browser, "a", "r", "a", "u")
    # The last one stays, as there is no next.
    assert shown(browser) == cohort.ids[2]
    press(browser, Keys.ESCAPE)
    browser.find_element(By.ID, "save").click()
    saved = browser.downloads / "decisions.csv"
    wait(browser, saved.exists)
    lines = list(csv.DictReader(saved.read_text().splitlines()))
    found = {line["id"]: line["decision"] for line in lines}
    assert found == dict(zip(cohort.ids, ("accepted", "rejected", ""), strict=True))
    # They are still there when the page is opened again.
    browser.refresh()
    wait(browser, lambda: rows(browser))
    assert "2 decided" in browser.find_element(By.ID, "count").text
    browser.find_element(By.ID, "only-open").click()
    wait(browser, lambda: rows(browser) == [cohort.ids[2]])


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)`, as the WCAG has it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(browser: Chrome, cohort: Cohort, theme: str) -> None:
    open_page(browser, cohort.folder / "cohort.html")
    choice = browser.find_element(By.ID, "theme")
    choice.find_element(By.CSS_SELECTOR, f'option[value="{theme}"]').click()
    screenshot(browser, theme)
    paper = browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
    assert (luminance(paper) < 0.2) == (theme == "dark")
    for selector in ("body", ".hint", ".tabulator-cell", "#totals dt", "#left-out summary", ".notes"):
        for element in browser.find_elements(By.CSS_SELECTOR, selector)[:1]:
            ink = element.value_of_css_property("color")
            low, high = sorted((luminance(ink), luminance(paper)))
            # WCAG 2.2, success criterion 1.4.3.
            assert (high + 0.05) / (low + 0.05) >= 4.5, (selector, ink, paper)


def test_2000_scans_open_and_sort_in_under_a_second(
    browser: Chrome, cohort: Cohort, tmp_path: Path
) -> None:
    page = tmp_path / "large.html"
    page.write_text(multiplied(cohort, 2000))
    started = time.monotonic()
    open_page(browser, page)
    opened_s = time.monotonic() - started
    assert len(rows(browser)) == 2000
    sort = """const done = arguments[arguments.length - 1];
        const started = performance.now();
        table.setSort(arguments[0], arguments[1]);
        requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - started)));"""
    # A machine that is busy with other work only ever adds to the time: the best of five counts.
    slowest_ms = max(
        min(browser.execute_async_script(sort, column, ("asc", "desc")[n % 2]) for n in range(5))
        for column in ("score", "share", "id", "review")
    )
    screenshot(browser, "large")
    print(f"2,000 scans: opened in {opened_s:.1f} s, slowest sort {slowest_ms:.0f} ms")
    assert slowest_ms < 1000
    pictures = browser.execute_script("return document.querySelectorAll('.thumb').length")
    assert 0 < pictures < 200, "only rows in view are made"


def multiplied(cohort: Cohort, count: int) -> str:
    """The cohort's page with so many scans: values drawn anew, pictures those of the real ones."""
    page = cohort.page
    start = page.index('id="data">') + len('id="data">')
    end = page.index("</script>", start)
    data = json.loads(page[start:end])
    pictures = dict(re.findall(r'id="picture-(scan-[0-9a-f]+)">([^<]*)<', page))
    draw = random.Random(0)
    scans, more = [], []
    for n in range(count):
        scan = copy.deepcopy(data["scans"][n % len(data["scans"])])
        picture = pictures[scan["id"]]
        scan["id"] = f"scan-{draw.getrandbits(48):012x}"
        scan["score"] = draw.gauss(-1, 1)
        scan["share"] = draw.random()
        scans.append(scan)
        more.append(f'<script type="text/plain" id="picture-{scan["id"]}">{picture}</script>\n')
    data["scans"] = scans
    text = json.dumps(data).replace("<", "\\u003c")
    return page[:start] + text + "</script>\n" + "".join(more) + page[end + len("</script>") :]
