"""`pose report` of runs scored on the studio's shards: its page in a real Chromium, and what it refuses."""

import json
import shutil

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

import pose
from cluster.scorecard import Evaluated, write_score
from cluster.tracking.journal import Journal
from poselib.metrics import root_relative
from shards.manifest import ShardSet

pytestmark = pytest.mark.integration

HOSTILE = "<img src=x onerror=alert(1)>"
EYE = "(() => { const {x, y, z} = space._fullLayout.scene._scene.getCamera().eye; return [x, y, z] })()"
SWIFTSHADER = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")


def scored(folder, shards: ShardSet, error_mm: float, actions: dict[str, str] | None = None, **protocol) -> str:
    """A run whose every joint but the root is off by about `error_mm`."""
    rows = shards.select(["S9"])
    samples = [shards.read(int(row)) for row in rows]
    for number, sample in enumerate(samples):
        action = (actions or {}).get(sample.names.action, sample.names.action)
        samples[number] = (sample, type(sample.names)(**{**vars(sample.names), "action": action}))
    true_mm = root_relative(np.stack([sample.arrays["joints_mm"] for sample, _ in samples])).astype(np.float32)
    true_px = np.stack([sample.arrays["joints_px"] for sample, _ in samples])
    rng = np.random.default_rng(0)  # the same directions for every run: differences are of one sign
    away = rng.normal(0, error_mm / 1.6, true_mm.shape).astype(np.float32)
    away[:, 0] = 0
    card = {"synthetic": True, "subjects": ["S9"], "flip test": False, "shard set": shards.manifest.set_hash}
    evaluated = Evaluated(
        predicted_mm=true_mm + away,
        true_mm=true_mm,
        predicted_px=true_px + away[..., :2] / 20,
        true_px=true_px,
        spread_mm=np.linalg.norm(away, axis=-1) + 1,
        keys=[sample.key for sample, _ in samples],
        rows=rows,
        names=[names for _, names in samples],
        mean_pose_mm=true_mm.mean(0),
        pictures=[],
        protocol=card | protocol,
    )
    write_score(folder, evaluated)
    (folder / "run.yaml").write_text(f"data: {{h36m: {shards.folder}}}\n")
    return str(folder)


@pytest.fixture(scope="module")
def shards(shard_sets) -> ShardSet:
    return ShardSet.open(shard_sets["h36m"])


@pytest.fixture(scope="module")
def pages(shards, tmp_path_factory) -> dict[str, str]:
    """Addresses of two reports: of one run, and of two whose names are markup."""
    folder = tmp_path_factory.mktemp("runs")
    one = scored(folder / "one", shards, 60, {"Directions": HOSTILE})
    two = scored(folder / "<b>two", shards, 40, **{"data": HOSTILE})
    assert pose.main(["report", one, "--samples", "12", "--draws", "200"]) == 0
    several = folder / "several.html"
    assert pose.main(["report", one, two, "--samples", "12", "--draws", "200", "--out", str(several),
                      "--across_protocols", "true"]) == 0  # fmt: skip
    return {"one": (folder / "one" / "report.html").as_uri(), "two": several.as_uri()}


@pytest.fixture(scope="module")
def chromium():
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("needs Chromium, which tests/setup.sh installs")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", *SWIFTSHADER])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, pages):
    """Opens a report; afterwards, nothing may have gone wrong in it."""
    wrong, contexts = [], []

    def open_page(name: str, **context):
        contexts.append(chromium.new_context(**context))
        page = contexts[-1].new_page()
        page.set_default_timeout(120_000)
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: wrong.append(request.url) if request.url.startswith("http") else None)
        page.goto(pages[name])
        page.wait_for_selector("html[data-ready]", state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def until(page, condition: str) -> None:
    """Wait; Playwright's own way of waiting is an `eval`, which the page's content policy forbids."""
    for _ in range(1200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never came true: {condition}")


def wait_drawn(page, name: str) -> None:
    page.locator(f"#{name}").scroll_into_view_if_needed()
    page.wait_for_selector(f"#{name}[data-drawn] .main-svg, #{name}[data-drawn] canvas", state="attached")


def test_charts_are_drawn_and_the_skeleton_turns_by_mouse_keys_and_buttons(opened, pages):
    page = opened("one", viewport={"width": 1200, "height": 900})
    assert page.locator(".headline .value").inner_text().split()[1] == "mm"
    assert page.locator(".tile", has_text="95 %").count() == 5  # all but the median
    for name in ("histogram", "within", "calibration"):
        wait_drawn(page, name)
        assert page.locator(f"#{name} .trace").count() >= 1
    assert float(page.locator(".said b").inner_text()) < 0.3  # the fixture's spreads are nearly right
    wait_drawn(page, "space")
    before = page.evaluate(EYE)
    box = page.locator("#space").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 120, box["y"] + box["height"] / 2, steps=8)
    page.mouse.up()
    until(page, f"Math.abs({EYE}[0] - {before[0]}) > 0.1")
    dragged = page.evaluate(EYE)
    page.locator("#space").focus()
    page.keyboard.press("ArrowLeft")
    until(page, f"Math.abs({EYE}[0] - {dragged[0]}) > 0.05")
    page.get_by_role("button", name="From above").click()
    until(page, f"{EYE}[2] > 1.5")


def test_without_webgl_the_page_says_so_and_keys_do_no_harm(chromium, pages):
    wrong, browser = (
        [],
        chromium.browser_type.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-3d-apis"]
        ),
    )
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(pages["one"])
    page.wait_for_selector("html[data-ready]", state="attached")
    page.locator("#space").scroll_into_view_if_needed()
    page.wait_for_selector("#space[data-drawn]", state="attached", timeout=120_000)
    assert "WebGL" in page.locator("#space").inner_text()
    page.locator("#space").focus()
    page.keyboard.press("ArrowLeft")
    page.get_by_role("button", name="From above").click()
    page.get_by_role("button", name="Next ›").click()
    assert "(2 of 4)" in page.locator("#howfar").inner_text()
    page.wait_for_timeout(500)
    assert "WebGL" in page.locator("#space").inner_text()
    browser.close()
    assert wrong == []


def test_another_sample_is_shown_by_keyboard_alone_and_the_view_stays(opened):
    page = opened("one", viewport={"width": 1200, "height": 900})
    wait_drawn(page, "space")
    page.get_by_role("button", name="From the side").click()
    until(page, f"{EYE}[0] > 1.5")
    first, bone = page.locator("#howfar").inner_text(), "space.data[1].x.slice(0, 2).join()"
    drawn, overlay = page.evaluate(bone), page.locator("#photo svg").inner_html()
    assert page.locator("#photo img").evaluate("image => image.complete && image.naturalWidth") > 100
    page.get_by_role("tab", name="Worst").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-current')") == "true"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert "(1 of 4)" in first
    assert "(2 of 4)" in page.locator("#howfar").inner_text()
    assert page.locator("#photo svg").inner_html() != overlay
    until(page, f"{bone} !== '{drawn}'")
    assert page.evaluate(EYE)[0] > 1.5
    page.get_by_role("tab", name="Worst").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", name="Median").get_attribute("aria-selected") == "true"
    assert "(1 of 4)" in page.locator("#howfar").inner_text()
    page.get_by_role("button", name="True").click()
    until(page, "space.data.length === 4")


def test_a_phone_in_the_dark_scrolls_down_only(opened):
    page = opened("two", viewport={"width": 375, "height": 800}, color_scheme="dark")
    for part in ("histogram", "space"):
        wait_drawn(page, part)
    page.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    red, green, blue = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert max(red, green, blue) < 60
    ink = page.evaluate("histogram._fullLayout.font.color")
    page.emulate_media(color_scheme="light")
    until(page, f"histogram._fullLayout.font.color !== '{ink}'")


def test_runs_side_by_side_and_markup_in_names_is_text(opened):
    page = opened("two", viewport={"width": 1200, "height": 900})
    (row,) = [text for text in page.locator("tbody tr").all_inner_texts() if text.startswith("MPJPE, mean of all")]
    assert "better" in row
    assert "[−" in row
    assert page.locator("h1").inner_text() == "one / <b>two"
    assert page.locator("main b", has_text="two").count() == 0
    assert HOSTILE in page.locator("#protocol").inner_text()
    assert HOSTILE in page.locator("#parts").inner_text()
    assert "another protocol" in page.locator(".note").nth(1).inner_text()
    wait_drawn(page, "histogram")
    wait_drawn(page, "space")
    page.get_by_role("tab", name="<b>two gains most").click()
    assert "<b>two" in page.locator("#howfar").inner_text()
    page.get_by_role("button", name="one", exact=True).click()
    until(page, "space.data.length === 3")


@pytest.fixture
def runs(shards, tmp_path, monkeypatch):
    """`one`, `other` of another protocol, `bare` without a score, `val` with another card, `empty` that is no run."""
    monkeypatch.chdir(tmp_path)
    scored(tmp_path / "one", shards, 60)
    scored(tmp_path / "other", shards, 60, **{"flip test": True})
    for name in ("bare", "empty"):
        (tmp_path / name).mkdir()
    shutil.copy(tmp_path / "one" / "run.yaml", tmp_path / "bare")
    shutil.copytree(tmp_path / "one", tmp_path / "val")
    for file in (tmp_path / "val").glob("score*"):
        file.rename(file.with_name(file.name.replace("score", "score_val")))
    return tmp_path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere is no run: there is no such folder"),
        (["empty"], "empty is no run: it holds no run.yaml"),
        (["bare"], "bare has no score.json; run `pose eval bare` first"),
        (["val"], "val has no score.json; --score score_val is there"),
        (["one", "other"], "other was scored by another protocol than one (flip test: False / True)"),
        (["one", "--out", "no/folder.html"], "no is not a folder"),
        (["one", "--h36m", "elsewhere"], "elsewhere"),
    ],
)
def test_what_cannot_be_reported_is_one_line(runs, capsys, words, said):
    assert pose.main(["report", *words]) == 1
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1


def test_without_the_shards_the_page_has_no_pictures_and_says_so(runs, capsys):
    (runs / "one" / "run.yaml").write_text("data: {h36m: gone}\n")
    assert pose.main(["report", "one"]) == 0
    assert "No pictures: gone" in capsys.readouterr().out
    page = (runs / "one" / "report.html").read_text()
    start = page.index(">", page.index('id="data"')) + 1
    data = json.loads(page[start : page.index("</script>", start)])
    assert {sample["photo"] for sample in data["samples"]} == {None}
    assert "No pictures: gone" in page


def test_a_runs_own_page_is_in_mlflow_too(runs, capsys):
    with Journal(runs / "one") as journal:
        journal.status("finished")
    words = ["--samples", "2", "--draws", "100"]
    assert pose.main(["report", "one", "--out", "elsewhere.html", *words]) == 0
    assert pose.main(["report", "one", "other", "--across_protocols", "true", *words]) == 0
    assert not (runs / "mlflow.db").exists()
    assert pose.main(["report", "one", *words]) == 0
    assert "not in MLflow" not in capsys.readouterr().out
    (sent,) = (runs / "mlflow-artifacts").rglob("report.html")
    assert sent.read_bytes() == (runs / "one" / "report.html").read_bytes()
