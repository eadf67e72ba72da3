"""A real Chromium for tests: the machine's, or Debian's, unpacked once."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from contracts import layout
from tests.packages import unpack

_UNPACKED = layout.artifacts() / "tools" / "chromium"
_PACKAGES = ("chromium", "chromium-common", "chromium-driver")
# It asks nobody for anything: no updates, no lists, no time.
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium(folder: Path, width: int = 1280, height: int = 1000) -> Iterator[Chrome]:
    """Open a browser whose profile is in `folder`."""
    browser, driver = _programs()
    options = ChromeOptions()
    options.binary_location = str(browser)
    for option in (*_OPTIONS, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    log = str(folder / "driver.log")
    opened = Chrome(options=options, service=ChromeService(str(driver), log_output=log, env=_environment()))
    try:
        yield opened
    finally:
        opened.quit()


def _programs() -> tuple[Path, Path]:
    if (browser := shutil.which("chromium")) and (driver := shutil.which("chromedriver")):
        return Path(browser), Path(driver)
    if not _UNPACKED.exists():
        try:
            unpack(_PACKAGES, _UNPACKED)
        except OSError as error:
            install = f"sudo apt-get update && sudo apt-get install {' '.join(_PACKAGES)}"
            pytest.fail(f"this needs Chromium: {install}\n{error}")
    return _UNPACKED / "usr/lib/chromium/chromium", _UNPACKED / "usr/bin/chromedriver"


def _environment() -> dict[str, str]:
    """The driver and the browser that it starts find what was unpacked beside them; they know of no proxy."""
    libraries = _UNPACKED / "usr/lib/x86_64-linux-gnu"
    own = {"LD_LIBRARY_PATH": f"{libraries}:{libraries / 'pulseaudio'}"} if _UNPACKED.exists() else {}
    return {**{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}, **own}
