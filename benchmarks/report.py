"""How fast the report page opens, and how large it is, with 500 samples in view.

The page is that of two runs on made-up poses, each sample with a picture that has about the detail of a photograph.
It is opened from disk in a headless Chromium, in turns with an empty page, which says what any page costs here.
`opened` is the time until the page is laid out, answers keys, and shows its first sample with the skeletons over the
picture. Plotly is unpacked only when a chart comes into view: `charts` and `space` say how long after it was scrolled
to the first chart and the first skeleton in space are there, drawn without a GPU.

    python benchmarks/report.py [--samples 500] [--rounds 3]
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import Browser, sync_playwright
from rich.console import Console
from rich.table import Table

from cluster.bench.about import about
from cluster.report.figures import compare, measure
from cluster.report.gallery import Photo, choose, side_px
from cluster.report.page import Report, render
from cluster.report.scored import ScoredRun
from cluster.samples import Samples
from cluster.scorecard import FIGURES
from poselib.skeleton import H36M_JOINTS

TARGETS = {"opened_s": 2.0, "size_mb": 15.0}
SCORED = 2000


def made_up_run(label: str, error_mm: float) -> ScoredRun:
    """A run over poses of nobody."""
    rng = np.random.default_rng(0)
    true_mm = rng.normal(0, 300, (SCORED, 17, 3)).astype(np.float32)
    away = rng.normal(0, error_mm, true_mm.shape).astype(np.float32)
    true_px = rng.uniform(20, 240, (SCORED, 17, 2)).astype(np.float32)
    number = np.arange(SCORED)
    samples = Samples(
        keys=np.array([f"S9_Walking{n // 40}_1_cam_{n:06d}" for n in number]),
        rows=number,
        subjects=np.full(SCORED, "S9"),
        actions=np.array([f"Action {n % 15}" for n in number]),
        cameras=np.full(SCORED, "cam"),
        pictures=np.full(SCORED, "video.mp4"),
        frames=number,
        errors_mm=np.linalg.norm(away, axis=-1).mean(axis=1),
        predicted_mm=true_mm + away,
        true_mm=true_mm,
        predicted_px=true_px + away[..., :2] / 10,
        true_px=true_px,
        spread_mm=np.abs(rng.normal(80, 20, (SCORED, 17))).astype(np.float32),
    )
    joints = dict.fromkeys(H36M_JOINTS, 0.0)
    card = {f"mean_pose_{key}": 0.0 for key in FIGURES} | {"mean_pose_per_joint": joints, "mean_pose_per_action": {}}
    return ScoredRun(Path(label), label, card | {"protocol": {"shard set": "made up"}}, samples)


def photo(number: int, side: int) -> Photo:
    """A picture with the detail of a photograph, about."""
    rng = np.random.default_rng(number)
    smooth = cv2.resize(rng.integers(0, 255, (side // 12, side // 12, 3), np.uint8), (side, side))
    noisy = np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
    return Photo(cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes(), np.eye(2, 3), side)


def page(samples: int) -> tuple[bytes, int]:
    """The report, and how many samples it shows: fewer than asked where one is in two groups."""
    runs = [made_up_run("one", 60), made_up_run("two", 55)]
    measured = [measure(run.samples) for run in runs]
    changes, own, sureness = compare(runs, measured, 500)
    places, groups = choose(runs, samples)
    photos: list[Photo | None] = [photo(int(place), side_px(samples)) for place in places]
    report = Report(runs, measured, own, changes, sureness, places, groups, photos)
    return render(report).encode(), len(places)


def open_once(browser: Browser, address: str) -> dict[str, float]:
    """Seconds to open a page, and, where it has charts, to draw them."""
    view = browser.new_context(viewport={"width": 1200, "height": 900})
    opened = view.new_page()
    began = time.perf_counter()
    opened.goto(address)
    opened.wait_for_selector("html[data-ready]", state="attached")
    found = {"opened_s": time.perf_counter() - began}
    for name, chart in (("charts_s", "histogram"), ("space_s", "space")):
        if opened.locator(f"#{chart}").count():
            began = time.perf_counter()
            opened.locator(f"#{chart}").scroll_into_view_if_needed()
            opened.wait_for_selector(f"#{chart}[data-drawn]", timeout=120_000)
            found[name] = time.perf_counter() - began
    view.close()
    return found


def main() -> None:
    """Print JSON lines and a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(json.dumps({"about": about()}), flush=True)
    program = shutil.which("chromium")
    if program is None:
        parser.error("needs Chromium (Debian's package `chromium`)")
    content, shown = page(arguments.samples)
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        report, empty = Path(folder, "report.html"), Path(folder, "empty.html")
        report.write_bytes(content)
        empty.write_text("<!doctype html><html data-ready><title>empty</title>")
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        )
        for turn in range(arguments.rounds + 1):
            for name, path in (("empty ", empty), ("", report)):
                for key, value in open_once(browser, path.as_uri()).items():
                    if turn:  # the first round warms up
                        times.setdefault(name + key, []).append(value)
        browser.close()
    figures = {"samples": shown, "size_mb": len(content) / 1e6} | {
        name: statistics.median(values) for name, values in times.items()
    }
    table = Table("figure", "measured", "target", "verdict")
    for name, value in figures.items():
        target = TARGETS.get(name)
        verdict = "-" if target is None else "met" if value < target else "missed"
        print(json.dumps({"figure": name, "value": round(value, 3), "target": target, "verdict": verdict}))
        table.add_row(name, f"{value:.2f}", "" if target is None else f"under {target:g}", verdict)
    Console(stderr=True).print(table)


if __name__ == "__main__":
    main()
