"""Captions by a real, tiny model on real files: jobs, drafts that are looked over, and jobs that are killed."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests import tiny_blip
from tests.browser.conftest import App, dismiss, frozen, wait_until_open
from tests.browser.test_dataset_tab import HOSTILE, cards, eventually, field, open_folder, unfold

RED, BLUE = "a photo of a red picture", "a photo of a blue picture"
JOB_MS = 180_000


@pytest.fixture(scope="module")
def model(app: App) -> Path:
    return tiny_blip.build(app.workspace / "models" / "tiny-blip")


def make_pictures(app: App, name: str, count: int) -> Path:
    """Pictures 0000.png (red), 0001.png (blue), 0002.png (red) ... without captions."""
    folder = app.workspace / "datasets" / name
    folder.mkdir(parents=True)
    for number in range(count):
        tiny_blip.plain_picture("blue" if number % 2 else "red").save(folder / f"{number:04}.png")
    return folder


def caption_of(folder: Path, number: int) -> str | None:
    file = folder / f"{number:04}.txt"
    return file.read_text(encoding="utf-8") if file.exists() else None


def choose(page: Page, name: str, option: str) -> None:
    """Choose in a dropdown; captioners may be marked as those on this machine."""
    page.locator(f"#{name} input").click()
    page.get_by_role("option", name=re.compile(rf"^{re.escape(option)}( \(on this machine\))?$")).click()


def ready(page: Page, folder: Path, model: Path) -> None:
    """Open the folder and choose the model in the panel."""
    open_folder(page, folder)
    unfold(page, "dataset-captions")
    choose(page, "captioner", "Sentences: BLIP")
    field(page, "field-captioner-blip-model").fill(str(model))


def job(page: Page) -> Locator:
    return page.locator("#dataset-job")


def drafts(page: Page) -> Locator:
    return page.locator("#dataset-review .rv-row")


def newest_job(app: App) -> Path:
    return max((app.workspace / "jobs").iterdir(), key=lambda folder: folder.stat().st_mtime)


def pid_of_job(app: App) -> int:
    return int(json.loads((newest_job(app) / "process.json").read_text(encoding="utf-8"))["pid"])


def seconds_at_work(app: App) -> float:
    """From the newest job's first written caption to its last; the page tells a speed from one second on."""
    lines = (newest_job(app) / "events.jsonl").read_text(encoding="utf-8").splitlines()
    times = [event["time"] for event in map(json.loads, lines) if event.get("what") == "writing captions"]
    return times[-1] - times[0] if times else 0.0


def test_captions_by_a_model_in_a_job(app: App, page: Page, model: Path, shot: Callable[[str], Path]) -> None:
    folder = make_pictures(app, "by-model", 2)
    (folder / "broken.png").write_bytes(b"not a picture")
    ready(page, folder, model)
    field(page, "field-wording-trigger").fill("ohwx")
    page.locator("#captioner-show").click()
    expect(field(page, "captioner-command")).to_have_value(
        f"python -m trainer caption {folder} --captioner=blip --workspace={app.workspace} "
        f"'--set=model=\"{model}\"' --trigger=ohwx"
    )
    page.locator("#captioner-start").click()
    expect(job(page)).to_contain_text("Captions for by-model")
    expect(job(page)).to_contain_text("2 captions written", timeout=JOB_MS)
    expect(job(page)).to_contain_text("broken.png was skipped")
    assert [caption_of(folder, number) for number in (0, 1)] == [f"ohwx, {RED}", f"ohwx, {BLUE}"]
    expect(cards(page).filter(has_text=BLUE)).to_have_count(1)
    shot("dataset-captioned")
    page.locator("#dataset-undo").click()
    eventually(lambda: not list(folder.glob("*.txt")))

    page.reload()
    wait_until_open(page)
    page.get_by_role("tab", name="Dataset", exact=True).click()
    unfold(page, "dataset-captions")
    expect(field(page, "field-wording-trigger")).to_have_value("ohwx")
    expect(field(page, "field-captioner-blip-model")).to_have_value(str(model))

    open_folder(page, make_pictures(app, "another", 1))
    expect(field(page, "field-wording-trigger")).to_have_value("")
    open_folder(page, folder)
    expect(field(page, "field-wording-trigger")).to_have_value("ohwx")


def test_drafts_are_looked_over_before_they_are_written(
    app: App, page: Page, model: Path, shot: Callable[[str], Path]
) -> None:
    folder = make_pictures(app, "drafted", 5)
    (folder / "0001.txt").write_text("a photo of a toy\n", encoding="utf-8")
    (folder / "0004.txt").write_text(HOSTILE, encoding="utf-8")
    ready(page, folder, model)
    choose(page, "captioner-handling", "Replace them")
    page.locator("#captioner-draft").click()
    expect(job(page)).to_contain_text("5 captions drafted", timeout=JOB_MS)
    expect(drafts(page)).to_have_count(5)
    assert len(list(folder.glob("*.txt"))) == 2
    expect(drafts(page).nth(1).locator("ins")).to_have_text(["blue picture"])
    expect(drafts(page).nth(1).locator("del")).to_have_text(["toy"])
    expect(drafts(page).nth(4).locator(".rv-difference")).to_contain_text("<script>window.hacked=3</script>")

    drafts(page).nth(0).get_by_role("button", name="Accept").click()
    expect(drafts(page).nth(0).locator(".rv-state")).to_have_text("Accepted")
    drafts(page).nth(1).locator("textarea").fill("a blue toy\nsecond line")
    drafts(page).nth(1).locator("textarea").press("Control+Enter")
    expect(drafts(page).nth(1).locator(".rv-state")).to_have_text("Accepted")
    drafts(page).nth(2).get_by_role("button", name="Reject").click()
    expect(drafts(page).nth(2).locator(".rv-state")).to_have_text("Rejected")
    shot("dataset-review")

    (folder / "0004.txt").write_text("theirs", encoding="utf-8")
    app.restart()
    page.reload()
    wait_until_open(page)
    page.get_by_role("tab", name="Dataset", exact=True).click()
    expect(page.locator("#dataset-review .rv-counts")).to_have_text(
        "5 drafts, 2 accepted, 1 rejected, 1 changed meanwhile"
    )
    expect(drafts(page).nth(4).locator("del")).to_contain_text("theirs")
    page.locator("#dataset-review").get_by_role("button", name="Accept all 1").click()
    write = page.locator("#dataset-review .rv-main")
    expect(write).to_have_text("Write 3 captions")
    write.click()
    eventually(lambda: caption_of(folder, 1) == "a blue toy\nsecond line\n")
    eventually(lambda: [caption_of(folder, number) for number in (0, 2, 3, 4)] == [RED, None, BLUE, "theirs"])
    expect(drafts(page)).to_have_count(2)
    expect(cards(page).nth(1)).to_contain_text("a blue toy")
    page.locator("#dataset-undo").click()
    eventually(lambda: caption_of(folder, 1) == "a photo of a toy\n")
    eventually(lambda: caption_of(folder, 0) is None)

    page.locator("#dataset-review").get_by_role("button", name="Discard drafts").click()
    page.locator("#dataset-review").get_by_role("button", name="Really discard 2?").click()
    expect(page.locator("#dataset-review .rv")).to_have_count(0)
    assert page.evaluate("window.hacked") is None


def test_a_try_and_a_draft_made_anew(app: App, page: Page, model: Path) -> None:
    folder = make_pictures(app, "tried", 5)
    ready(page, folder, model)
    page.locator("#captioner-try").click()
    expect(drafts(page)).to_have_count(3, timeout=JOB_MS)
    expect(job(page)).to_contain_text("3 captions drafted")
    drafts(page).nth(1).locator("textarea").fill("mine")
    drafts(page).nth(1).get_by_role("button", name="Draft anew").click()
    drafts(page).nth(1).get_by_label("Prompt for this picture").fill("a photo of a")
    drafts(page).nth(1).get_by_role("button", name="Draft", exact=True).click()
    expect(job(page)).to_contain_text("1 captions drafted", timeout=JOB_MS)
    expect(drafts(page).nth(1).locator("textarea")).to_have_value(BLUE)
    assert "a photo of a" in (newest_job(app) / "job.json").read_text(encoding="utf-8")
    assert not list(folder.glob("*.txt"))


def press_slowly(page: Page, app: App) -> None:
    """Press Cancel, and let go when the job has long told another step."""
    job(page).get_by_role("button", name="Cancel").hover()
    page.mouse.down()
    events = newest_job(app) / "events.jsonl"
    last = events.read_text(encoding="utf-8").splitlines()[-1]
    with events.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**json.loads(last), "done": json.loads(last)["done"] + 1}) + "\n")
    page.wait_for_timeout(2500)
    page.mouse.up()


def killed_between_writes(pid: int, folder: Path) -> bool:
    """Kill a process, unless it is in the midst of a write: nobody is left then to take the temporary file away."""
    with frozen(pid):
        between = not list(folder.glob(".*.tmp"))
        if between:
            os.kill(pid, signal.SIGKILL)
    return between


def test_a_job_that_is_cancelled_or_killed_goes_on_where_it_was(app: App, page: Page, model: Path) -> None:
    count = 400
    folder = make_pictures(app, "killed", count)
    for number in range(count):
        (folder / f"{number:04}.txt").write_text("old", encoding="utf-8")

    def new() -> int:
        texts = [caption_of(folder, number) for number in range(count)]
        assert set(texts) <= {"old", RED, BLUE}
        return sum(1 for text in texts if text != "old")

    ready(page, folder, model)
    choose(page, "captioner-handling", "Replace them")
    page.locator("#captioner-start").click()
    eventually(lambda: new() > 5, 120)
    with frozen(pid_of_job(app)):
        press_slowly(page, app)
        eventually(lambda: (newest_job(app) / "cancel.json").exists(), 60)
    expect(job(page)).to_contain_text("stopped")
    cancelled = new()
    assert 5 < cancelled < count

    job(page).get_by_role("button", name="Go on").click()
    eventually(lambda: new() > cancelled + 5 and seconds_at_work(app) > 1, 120)
    pid = pid_of_job(app)
    with frozen(pid):
        expect(job(page)).to_contain_text("pictures a minute")
    eventually(lambda: killed_between_writes(pid, folder), 60)
    expect(job(page)).to_contain_text("ended without saying why")
    killed = new()
    assert cancelled < killed < count
    assert not list(folder.glob(".*.tmp"))

    job(page).get_by_role("button", name="Go on").click()
    expect(job(page)).to_contain_text("captions written", timeout=JOB_MS)
    expect(job(page)).to_contain_text(f"{count - killed} captions written. {killed} pictures left as they were.")
    assert new() == count


def test_what_cannot_be_used_is_told(app: App, page: Page, tmp_path: Path) -> None:
    open_folder(page, make_pictures(app, "no-weights", 1))
    unfold(page, "dataset-captions")
    choose(page, "captioner", "Sentences: BLIP")
    field(page, "field-captioner-blip-model").fill("nobody/no-such-model")
    page.locator("#captioner-start").click()
    expect(job(page)).to_contain_text("hf download nobody/no-such-model", timeout=JOB_MS)
    for outside in (str(tmp_path), "../../../..", "~"):
        field(page, "field-captioner-blip-model").fill(outside)
        page.locator("#captioner-start").click()
        dismiss(page, "is not open to the page")
    choose(page, "captioner", "Sentences: Qwen-VL")
    choose(page, "captioner-template", "Tags, for SDXL anime models")
    expect(field(page, "field-captioner-qwen_vl-prompt")).to_have_value(
        re.compile("Danbooru tags.*{trigger}", re.DOTALL)
    )
