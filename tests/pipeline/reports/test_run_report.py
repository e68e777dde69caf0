"""The report as its readers get it: opened in a browser, with hostile names, with much, with little, with nothing."""

import io
import os
from html.parser import HTMLParser

import cv2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipeline.destination.schemas import FAILURES, METRICS
from pipeline.pictures import metrics as measure
from pipeline.reports import run_report
from pipeline.reports.gallery import MAX_GALLERY, GalleryEntry, choose_gallery
from pipeline.reports.run_report import render_report

skimage_data = pytest.importorskip("skimage.data")

NO_COUNTS = dict.fromkeys(("objects", "good", "failed", "rows", "branch_failures", "bytes_read", "bytes_written"), 0)

HOSTILE = "<script>alert(1)</script>.png"
HOSTILE_BRANCH = '"><img src=x onerror=alert(2)> $\\frac{'


def jpeg(quality):
    def degrade(pixels):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file)), file.getbuffer().nbytes

    return degrade


def noise(sigma):
    def degrade(pixels):
        noisy = pixels + np.random.default_rng(7).normal(0, sigma, pixels.shape)
        return np.clip(np.round(noisy), 0, 255).astype(np.uint8), None

    return degrade


def denoised(pixels):
    return cv2.bilateralFilter(noise(25)(pixels)[0], 7, 60, 3), None


BRANCHES = {
    "jpeg-30": (jpeg(30), [{"step": "jpeg", "quality": 30}]),
    "jpeg-75": (jpeg(75), [{"step": "jpeg", "quality": 75}]),
    "noisy": (noise(25), [{"step": "gaussian_noise", "sigma": 25, "seed": 7}]),
    "denoised": (denoised, [{"step": "gaussian_noise", "sigma": 25, "seed": 7}, {"step": "denoise"}]),
}


def photographs():
    whole = {
        "portraits/astronaut.png": skimage_data.astronaut(),
        "kitchen/coffee.png": skimage_data.coffee(),
        "animals/chelsea the cat, asleep.png": skimage_data.chelsea(),
        "space/rocket.jpg": skimage_data.rocket(),
    }
    parts = {f"parts/{n}.png": np.ascontiguousarray(whole["kitchen/coffee.png"][n * 25 :, n * 40 :]) for n in range(6)}
    return whole | parts


def metrics_row(key, branch, before, after, count):
    coded = branch.startswith("jpeg")
    pixels = before.shape[0] * before.shape[1]
    return {
        **dict.fromkeys(METRICS.names),
        **measure.compare(after, before),
        **measure.describe(after),
        "key": key,
        "shard": 0,
        "branch": branch,
        "reference": "source",
        "width": before.shape[1],
        "height": before.shape[0],
        "bytes": count,
        "bpp": 8 * count / pixels if count else None,
        "compression_ratio": before.size / count if count else None,
        "encode_s": 0.0041 if coded else None,
        "decode_s": 0.0023 if coded else None,
        "develop_s": 0.0123 + len(branch) / 1e3,
    }


def table(rows):
    return pa.Table.from_pylist(rows, schema=METRICS)


def failure(key, reason, message, branch=None, stage="decode"):
    return {"key": key, "shard": 0, "branch": branch, "stage": stage, "reason": reason, "message": message}


def failures_table(rows=()):
    return pa.Table.from_pylist(list(rows), schema=FAILURES)


def run_of(branches, **changes):
    counts = {
        "objects": 1240,
        "good": 1233,
        "failed": 7,
        "rows": 4932,
        "branch_failures": 2,
        "bytes_read": 1_234_567_890,
        "bytes_written": 2_345_678,
    }
    run = {
        "run": "2026-07-28T140312-6f1c",
        "status": "complete",
        "darkroom_version": "0.1.0",
        "source": "s3://museum-masters/scans/2024",
        "destination": "s3://museum-derivatives/web",
        "recipe": {"name": "archive", "reference": "source", "branches": branches},
        "fingerprint": "9f2c51d07be3a6c4",
        "started": "2026-07-28T14:03:12+00:00",
        "finished": "2026-07-28T14:05:19+00:00",
        "seconds": 127.4,
        "engine": "threads",
        "device": "cpu",
        "shards": 12,
        "counts": counts,
        "versions": {"numpy": "2.4.0", "opencv-python-headless": "5.0.0", "torch": "2.9.1"},
        "message": None,
    }
    return run | changes


@pytest.fixture(scope="module")
def realistic():
    """Run, metrics, failures and gallery of photographs through simple codecs and noise; one key is hostile."""
    pictures = photographs() | {HOSTILE: np.ascontiguousarray(skimage_data.chelsea()[60:220, 100:330])}
    developed = {(key, name): f(pixels) for key, pixels in pictures.items() for name, (f, _) in BRANCHES.items()}
    rows = [metrics_row(key, name, pictures[key], *result) for (key, name), result in developed.items()]
    metrics = table(rows)
    by_place = {(row["key"], row["branch"]): row for row in rows}
    gallery = [
        GalleryEntry(
            branch,
            key,
            rank,
            by_place[key, branch]["psnr"],
            by_place[key, branch]["bpp"],
            pictures[key],
            developed[key, branch][0],
        )
        for branch, rank, key in choose_gallery(metrics)
    ]
    failures = failures_table(
        [failure(f"broken/{n:03}.jpg", "truncated", "the file ends after 40,960 of 81,233 bytes") for n in range(4)]
        + [failure("notes/readme.txt", "not_an_image", "starts with b'Dear colleague'")] * 2
        + [failure("x/" + HOSTILE, "corrupt", "</script><script>alert(3)</script> bad CRC in chunk IDAT")]
        + [failure("maps/sheet 9.tif", "step_failed", "tile 512 is larger than 480", "denoised", "develop")] * 2
    )
    run = run_of({name: chain for name, (_, chain) in BRANCHES.items()})
    return run, metrics, failures, gallery


def screenshot(browser, name, scheme="light", width=1280):
    """Saves a picture of the full page where DARKROOM_SCREENSHOTS says, for people to look at."""
    folder = os.environ.get("DARKROOM_SCREENSHOTS")
    if not folder:
        return
    feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
    browser.set_window_size(width, 900)
    height = browser.execute_script("return document.documentElement.scrollHeight")
    browser.set_window_size(width, min(height + 150, 12000))
    browser.save_screenshot(os.path.join(folder, f"{name}-{scheme}-{width}.png"))
    browser.set_window_size(1280, 900)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def by_css(browser, selector):
    return browser.find_elements("css selector", selector)


def test_a_realistic_report_opens_without_a_complaint(realistic, show):
    text = render_report(*realistic)
    browser = show(text)
    assert browser.title == "archive: run 2026-07-28T140312-6f1c"
    assert len(by_css(browser, ".compare")) == 12
    assert all(image.get_property("naturalWidth") > 0 for image in by_css(browser, "img"))
    assert len(by_css(browser, "svg.chart")) == 5
    words = browser.find_element("css selector", "body").text
    for expected in ("1,240", "9.7", "1.23 GB", "2.35 MB", "2 min 07 s", "28 July 2026, 14:03 UTC", "truncated"):
        assert expected in words
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert len(text) < 6e6
    for scheme in ("light", "dark"):
        screenshot(browser, "realistic", scheme)
    screenshot(browser, "realistic", "light", 500)


def test_the_slider_moves_the_cut_by_hand_and_by_key(realistic, show):
    browser = show(render_report(*realistic))
    box = by_css(browser, ".compare")[0]
    slider, before = box.find_element("css selector", "input"), box.find_element("css selector", ".before")

    def clip():
        return before.value_of_css_property("clip-path")

    assert clip() == "inset(0px 50% 0px 0px)"
    slider.send_keys("\ue014" * 5)
    assert clip() == "inset(0px 45% 0px 0px)"
    slider.send_keys("\ue011")
    assert clip() == "inset(0px 100% 0px 0px)"
    assert slider.get_attribute("aria-valuetext") == "0 percent before"
    webdriver = pytest.importorskip("selenium.webdriver")
    quarter = slider.size["width"] // 4
    webdriver.ActionChains(browser).move_to_element_with_offset(slider, quarter, 0).click().perform()
    assert clip() == "inset(0px 25% 0px 0px)"


def test_a_click_on_a_heading_sorts(realistic, show):
    browser = show(render_report(*realistic))

    def names():
        return [cell.text for cell in by_css(browser, "#measurements tbody th")]

    def click(label):
        heading = next(h for h in by_css(browser, "#measurements thead th") if h.text.startswith(label))
        heading.find_element("css selector", "button").click()
        return heading.get_attribute("aria-sort")

    assert names() == list(BRANCHES)
    assert click("PSNR") == "descending"
    by_quality = names()
    assert by_quality[0] == "jpeg-75"
    assert by_quality[-1] == "noisy"
    assert click("PSNR") == "ascending"
    assert names() == by_quality[::-1]
    assert click("Rate") == "ascending"
    assert names()[:2] == ["jpeg-30", "jpeg-75"]
    click("Rate")
    assert names()[:2] == ["jpeg-75", "jpeg-30"]
    assert click("Branch") == "ascending"
    assert names() == sorted(BRANCHES)
    best = {cell.text for cell in by_css(browser, "#measurements .best")}
    assert len(best) >= 5


class Tags(HTMLParser):
    """Collects every tag with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_hostile_names_stay_text(realistic, show):
    _, metrics, failures, gallery = realistic
    renamed = [row | {"branch": HOSTILE_BRANCH} if row["branch"] == "noisy" else row for row in metrics.to_pylist()]
    chain = [{"step": "<b>blur</b>", "text": "</style><script>alert(4)</script>"}]
    hostile = run_of(
        {"jpeg-30": chain, HOSTILE_BRANCH: chain, "label-0": []},
        source="s3://<svg onload=alert(5)>",
        message="</title><script>alert(6)</script>",
        status="failed",
        run="\"'><script>alert(7)</script>",
        versions={"<i>numpy": "<b>2"},
    )
    hostile["recipe"] |= {"name": "{{ 7 * 7 }}<h1>", "reference": "<u>"}
    pair = GalleryEntry(HOSTILE_BRANCH, HOSTILE, "best", 30.0, None, gallery[0].before, gallery[0].after)
    text = render_report(hostile, table(renamed), failures, [pair])
    tags = Tags(text).found
    assert sum(tag == "script" for tag, _ in tags) == 1
    assert not [tag for tag, attributes in tags if any(name.startswith("on") for name in attributes)]
    assert not {"b", "u"} & {tag for tag, _ in tags}
    assert HOSTILE not in text
    browser = show(text)
    assert HOSTILE in browser.find_element("css selector", "#failures").text
    assert HOSTILE in browser.find_element("css selector", "#pictures figcaption").text
    assert "{{ 7 * 7 }}<h1>" in browser.find_element("css selector", "h1").text
    drawn = by_css(browser, "svg.chart text")
    assert any(label.text.startswith('"><img src=x') for label in drawn)
    screenshot(browser, "hostile", "dark")


def test_nothing_at_all(show):
    run = run_of({"plain": []}, counts=NO_COUNTS, seconds=0, finished=None)
    browser = show(render_report(run, METRICS.empty_table(), failures_table(), []))
    words = browser.find_element("css selector", "main").text
    for expected in ("No picture was measured", "No pictures to show", "Nothing failed", "the picture as it is", "—"):
        assert expected in words
    screenshot(browser, "nothing")


def test_everything_failed(show):
    rows = [failure(f"scan {n:05}.tif", "read_error", "403 Forbidden " * 60) for n in range(70)]
    counts = {
        "objects": 70,
        "good": 0,
        "failed": 70,
        "rows": 0,
        "branch_failures": 0,
        "bytes_read": 0,
        "bytes_written": 9,
    }
    run = run_of({"plain": []}, counts=counts, status="failed", message="every picture failed: is the key valid?")
    browser = show(render_report(run, METRICS.empty_table(), failures_table(rows), []))
    assert len(by_css(browser, ".messages tbody tr")) == run_report.MAX_FAILURE_ROWS
    assert "The first 50 of 70" in browser.find_element("css selector", "#failures").text
    screenshot(browser, "failed")


def test_metrics_switched_off(realistic, show):
    run, metrics, failures, gallery = realistic
    measured = (
        "mse",
        "psnr",
        "ssim",
        "ms_ssim",
        "mae",
        "sharpness",
        "contrast",
        "entropy",
        "colourfulness",
        "noise_sigma",
    )
    bare = table([row | dict.fromkeys(measured) for row in metrics.to_pylist()])
    chosen = choose_gallery(bare)
    keys = [key for branch, _, key in chosen if branch == "noisy"]
    assert keys == sorted(set(keys))
    assert len(keys) == 3
    pair = GalleryEntry("noisy", keys[0], "best", None, None, gallery[0].before, gallery[0].after)
    browser = show(render_report(run, bare, failures, [pair]))
    headings = [heading.text.split("\n")[0] for heading in by_css(browser, "#measurements thead th")]
    assert headings == ["Branch", "Pictures", "Failed", "Rate", "Ratio", "Encode", "Decode", "Develop"]
    assert by_css(browser, "svg.chart") == []
    assert browser.find_element("css selector", ".rank").text == "example"
    screenshot(browser, "metrics-off")


def test_fifty_branches_give_a_reasonable_file(realistic, show):
    _, metrics, failures, gallery = realistic
    rows = [row | {"branch": f"branch {n:02}"} for n in range(50) for row in metrics.slice(n % 4, 9).to_pylist()]
    many = table(rows)
    chosen = choose_gallery(many)
    assert len(chosen) == MAX_GALLERY
    entries = [GalleryEntry(b, k, r, 30.0, 1.0, gallery[0].before, gallery[0].after) for b, r, k in chosen]
    text = render_report(run_of({f"branch {n:02}": [] for n in range(50)}), many, failures, entries)
    assert len(text) < 10e6
    browser = show(text)
    assert len(by_css(browser, "#measurements tbody tr")) == 50
    assert "34 branches are not drawn" in browser.find_element("css selector", "#charts").text
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    screenshot(browser, "many")


def test_the_report_is_a_pure_function(realistic):
    assert render_report(*realistic) == render_report(*realistic)
