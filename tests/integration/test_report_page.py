"""``crema report`` on SenseQA clips, opened in a browser: everything shows and plays, nothing is
requested from outside, and it fits a phone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fabricated_run import write_log, write_results
from open_crema import cli
from open_crema.tasks import jsonl

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
TYPES = ("audio_voice", "thermal_side")
SUBSETS = ((), ("video",), ("video", "audio"), ("video", "audio", "thermal"))
SIZES = {"desktop": (1280, 900), "phone": (375, 740)}

pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER),
    reason="no chromium with its chromedriver; apt-get install chromium chromium-driver",
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    make = ("data", "make", "senseqa", "--n", "4", "--types", *TYPES, "--workers", "1")
    assert cli.main([*make, "--out", str(folder / "set")]) == 0
    data = folder / "set" / "questions.jsonl"
    samples = jsonl.load(data)
    for senses in SUBSETS:
        write_results(folder / "out" / "results" / "+".join(senses), samples, senses, data)
    write_log(folder / "out", SUBSETS[-1])
    assert cli.main(["report", str(folder / "out"), "--clips", "3"]) == 0
    return folder / "out" / "report.html"


@contextmanager
def browser(profile: Path) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER or ""
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        driver.set_script_timeout(60)
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def opened(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browser(tmp_path_factory.mktemp("profile")) as driver:
        driver.get_log("performance")  # what came with the start of the browser
        driver.get(page.as_uri())
        yield driver


def test_it_is_one_file_of_modest_size(page):
    assert page.stat().st_size < 1_500_000


def test_every_picture_shows(opened):
    widths = opened.execute_script("return [...document.images].map(i => i.naturalWidth)")
    # video, flow, depth, normal, touch and thermal of 4 frames, sound, 3 views of the points
    assert len(widths) == 3 * (6 * 4 + 1 + 3)
    assert min(widths) > 0


def test_every_sound_plays(opened):
    seconds = opened.execute_async_script(
        """const done = arguments[0], all = [...document.querySelectorAll("audio")];
        Promise.all(all.map(a => a.readyState > 0 ? 0 : new Promise(ready => {
            a.addEventListener("loadedmetadata", ready);
            a.addEventListener("error", ready);
        }))).then(() => done(all.map(a => a.duration)));"""
    )
    assert seconds == pytest.approx([4.0] * 3, abs=0.2)


def test_nothing_is_requested_from_outside_and_nothing_fails(opened, page):
    requested = [
        message["params"]["request"]["url"]
        for entry in opened.get_log("performance")
        if (message := json.loads(entry["message"])["message"])["method"]
        == "Network.requestWillBeSent"
    ]
    outside = [
        url for url in requested if not url.startswith(("data:", "chrome:", "chrome-untrusted:"))
    ]
    assert set(outside) <= {page.as_uri()}
    assert opened.get_log("browser") == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(opened, size, scheme):
    width, height = SIZES[size]
    view = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", view)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    there, shown = opened.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert there <= shown <= width  # the bar for scrolling takes some
    faint = opened.execute_script(CONTRAST)
    assert faint == []


def test_arrow_keys_go_from_clip_to_clip(opened):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    opened.execute_script("document.querySelector('#clip-1').focus()")

    def press(key: str) -> str:
        ActionChains(opened).send_keys(key).perform()
        return str(opened.switch_to.active_element.get_attribute("id"))

    assert [press(key) for key in (Keys.RIGHT, Keys.RIGHT, Keys.RIGHT)] == [
        "clip-2",
        "clip-3",
        "clip-3",
    ]
    assert press(Keys.LEFT) == "clip-2"
    opened.find_element(By.TAG_NAME, "body").click()
    opened.execute_script("document.activeElement.blur(); scrollTo(0, 0)")
    skip = opened.find_element(By.CLASS_NAME, "skip")
    opened.execute_script("arguments[0].focus()", skip)
    assert skip.location["x"] >= 0


# The texts whose contrast with what is behind them is below 4.5 (WCAG AA), where that is a plain
# colour.
CONTRAST = """
const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
const over = (colour, below) => {
  canvas.fillStyle = `rgb(${below})`; canvas.fillRect(0, 0, 1, 1);
  canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data.slice(0, 3)];
};
const behind = (e) => e ? over(getComputedStyle(e).backgroundColor, behind(e.parentElement))
  : [255, 255, 255];
const light = (rgb) => rgb.map(c => c / 255)
  .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const faint = new Set();
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const e = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || e.closest("script, style, .unseen")) continue;
  const back = behind(e), front = over(getComputedStyle(e).color, back);
  const [low, high] = [light(back), light(front)].sort((a, b) => a - b);
  const ratio = (high + 0.05) / (low + 0.05);
  if (ratio < 4.5) faint.add(`${texts.currentNode.data.trim()}: ${ratio.toFixed(2)}`);
}
return [...faint];
"""
