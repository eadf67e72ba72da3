"""The page, in a real Chromium: asked with a file, a text and a row, by mouse and by keyboard alone."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from tests.browser import chromium
from tests.gateway.whole import Whole

SCREENSHOTS = os.environ.get("SCREENSHOTS")  # a folder to keep them in, to be looked at


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture
def page(browser: Chrome, gateway: Whole) -> Iterator[Chrome]:
    """The page, with a key put in. In the end its console has no error but for what the test expects."""
    browser.get(gateway.url)
    browser.execute_script("sessionStorage.clear()")
    browser.get_log("browser")
    browser.get(gateway.url)
    wait(browser, lambda: "A key is needed" in text(browser, "status"))
    browser.get_log("browser")  # that 401
    browser.find_element(By.ID, "key").send_keys(gateway.admin(), Keys.TAB)
    wait(browser, lambda: "ferries" in [each.text for each in Select(browser.find_element(By.ID, "model")).options])
    yield browser
    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def wait(browser: Chrome, condition: Callable[[], Any]) -> None:
    WebDriverWait(browser, 15, 0.05).until(lambda _: condition())


def text(browser: Chrome, name: str) -> str:
    return str(browser.find_element(By.ID, name).text)


def choose(browser: Chrome, model: str) -> None:
    Select(browser.find_element(By.ID, "model")).select_by_visible_text(model)
    wait(browser, lambda: f"/v1/models/{model}/" in text(browser, "code") or text(browser, "code").startswith("Choose"))


def shot(browser: Chrome, name: str) -> None:
    if SCREENSHOTS:
        browser.save_screenshot(str(Path(SCREENSHOTS) / f"{name}.png"))


def ask(browser: Chrome) -> None:
    before = text(browser, "status")
    browser.find_element(By.ID, "send").click()
    wait(browser, lambda: text(browser, "status") not in (before, "Asking …"))


def test_a_file_is_chosen_asked_and_labelled(page: Chrome, tmp_path: Path) -> None:
    image = tmp_path / "it's a boot.png"
    image.write_bytes(b"<b>boot")
    choose(page, "labels")
    assert not page.find_element(By.ID, "send").is_enabled()
    page.find_element(By.ID, "file").send_keys(str(image))
    ask(page)
    assert "labels, release 1, request " in text(page, "status")
    rows = [row.text.split("\n") for row in page.find_elements(By.CSS_SELECTOR, "#result tbody tr")]
    assert rows[0] == ["<b>boot", "0.7500"]  # a label is text, whatever it says
    widths = [bar.rect["width"] for bar in page.find_elements(By.CSS_SELECTOR, "#result .fill")]
    assert widths[0] == pytest.approx(3 * widths[1], rel=0.05) and widths[0] > 20
    assert "ms: model" in text(page, "times") and "gateway" in text(page, "times")
    assert "'@it'\\''s a boot.png'" in text(page, "code")  # quoted for the shell
    page.find_element(By.ID, "truth").send_keys("Sneaker", Keys.ENTER)
    wait(page, lambda: text(page, "status") == "Label taken: Sneaker")
    shot(page, "file")


def test_a_row_of_entities_is_filled_and_code_is_shown_in_three_languages(page: Chrome) -> None:
    choose(page, "ferries")
    for name, value in {"line": "A", "departure": "2013-11-03T08:30", "passengers": "7"}.items():
        page.find_element(By.ID, f"field-{name}").send_keys(value)
    ask(page)
    assert "minutes 11" in text(page, "result").replace("\n", " ")
    for language, word in (("curl", "--data '{"), ("Python", "urllib.request"), ("JavaScript", "await fetch(")):
        page.find_element(By.ID, f"tab-{language}").click()
        assert word in text(page, "code") and "YOUR-KEY" in text(page, "code") and "gk_" not in text(page, "code")
    shot(page, "row")


def test_what_is_wrong_is_said_field_by_field(page: Chrome) -> None:
    choose(page, "ferries")
    page.find_element(By.ID, "field-line").send_keys("A")
    page.find_element(By.ID, "field-departure").send_keys("2013-11-03T08:30")
    page.find_element(By.ID, "field-passengers").send_keys("many")
    ask(page)
    assert "The input does not fit the model" in text(page, "status")
    assert "/entities/0/passengers" in text(page, "result") and "got 'many'" in text(page, "result")
    shot(page, "wrong")
    page.get_log("browser")  # the 422, which Chromium writes down


def test_texts_are_asked_by_keyboard_alone_and_what_was_asked_can_be_seen_again(page: Chrome) -> None:
    choose(page, "vectors")
    focused = page.find_element(By.ID, "text")
    focused.send_keys(Keys.CONTROL, "a")
    focused.send_keys("banana", Keys.TAB)
    assert page.switch_to.active_element.get_attribute("id") == "send"
    page.switch_to.active_element.send_keys(Keys.ENTER)
    wait(page, lambda: "4 numbers: 6.0000, 3.0000" in text(page, "result"))
    assert page.switch_to.active_element.get_attribute("id") == "answer"
    again = page.find_element(By.CSS_SELECTOR, "#recent button")
    request_id = again.get_attribute("title").removeprefix("Show ")
    page.find_element(By.ID, "tab-curl").send_keys(Keys.ARROW_RIGHT)
    assert page.switch_to.active_element.get_attribute("id") == "tab-Python"
    again.send_keys(Keys.ENTER)
    wait(page, lambda: request_id in text(page, "status"))
    shot(page, "text")


def test_everything_that_can_be_used_has_a_name_and_the_page_one_language_and_headings(page: Chrome) -> None:
    choose(page, "ferries")
    unnamed = page.execute_script("""
        return [...document.querySelectorAll("input, select, textarea, button, [role=tab], [tabindex]")]
            .filter((e) => !(e.labels?.length || e.innerText.trim() || e.ariaLabel || e.ariaLabelledByElements?.length))
            .map((e) => e.outerHTML)""")
    assert unnamed == []
    assert page.find_element(By.TAG_NAME, "html").get_attribute("lang") == "en"
    levels = [heading.tag_name for heading in page.find_elements(By.CSS_SELECTOR, "h1, h2, h3")]
    assert levels[0] == "h1" and levels.count("h1") == 1
    assert page.find_element(By.ID, "status").get_attribute("aria-live") == "polite"


def test_it_fits_a_narrow_screen(page: Chrome) -> None:
    size = page.get_window_size()
    try:
        page.set_window_size(500, 900)
        choose(page, "ferries")
        time.sleep(0.2)
        assert page.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
        shot(page, "narrow")
    finally:
        page.set_window_size(size["width"], size["height"])


def test_its_policy_lets_nothing_load_from_elsewhere(gateway: Whole) -> None:
    answer = gateway.ask("GET", "/", key="")
    policy = answer.headers["content-security-policy"]
    assert answer.status == 200 and "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert (
        gateway.ask("GET", "/page.js", headers={"if-none-match": gateway.ask("GET", "/page.js").headers["etag"]}).status
        == 304
    )
