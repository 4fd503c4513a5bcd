"""The doctor's findings on the page: mended by a click, taken back, left as they are, told when they are old."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import App
from tests.browser.test_dataset_tab import HOSTILE, cards, eventually, open_folder, unfold
from tests.unit.doctor_samples import sharp, write


def finding(page: Page, code: str) -> Locator:
    return page.locator(f"#dataset-findings li[data-code='{code}']")


def check(page: Page) -> None:
    unfold(page, "dataset-check")
    page.locator("#dataset-resolution input").fill("64")
    page.locator("#check-start").click()
    page.locator("#dataset-findings .fd-bar").wait_for()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def press(place: Locator, name: str) -> None:
    place.get_by_role("button", name=name, exact=True).click()


def test_check_fix_undo_and_leave(app: App, page: Page, shot: Callable[[str], Path]) -> None:
    folder = app.workspace / "datasets" / "doctored"
    for number in range(4):
        write(folder, f"{number}.png", sharp(number), f"blue eyes, number {number}")
    write(folder, "4.png", sharp(4), "Blue_Eyes, number 4")
    write(folder, "twin.png", sharp(0), "the twin")
    write(folder, "lying.png", sharp(6), "lying", kind="JPEG")
    write(folder, "tiny.png", sharp(7, 30, 30), "tiny")
    before = names(folder)
    open_folder(page, folder)
    check(page)
    shot("dataset-doctor")

    twins = finding(page, "picture.duplicate")
    expect(twins.locator(".fd-kept img")).to_have_attribute("alt", "0.png")
    press(twins, "Set aside")
    expect(twins.locator(".fd-question")).to_contain_text("1 file will go to the set-aside folder")
    twins.locator("select").select_option("twin.png")
    press(twins, "Do it")
    expect(page.locator("#dataset-job")).to_contain_text("1 file fixed")
    assert names(folder) == before - {"0.png", "0.txt"}
    expect(twins).to_have_count(0)
    expect(cards(page)).to_have_count(7)
    page.locator("#dataset-undo").click()
    expect(twins).to_be_visible()
    assert names(folder) == before

    spelling = finding(page, "tag.spelling")
    press(spelling, "Change to the usual one")
    press(spelling, "Do it")
    expect(spelling).to_have_count(0)
    eventually(lambda: (folder / "4.txt").read_text(encoding="utf-8") == "blue eyes, number 4")
    page.locator("#dataset-undo").click()
    expect(spelling).to_be_visible()

    tiny = finding(page, "picture.tiny")
    press(tiny, "Show 1")
    expect(cards(page)).to_have_count(1)
    press(tiny, "Leave as is")
    expect(tiny).to_have_count(0)
    page.reload()
    unfold(page, "dataset-check")
    press(page.locator("#dataset-findings"), "Tell again")
    expect(tiny).to_be_visible()

    press(page.locator("#dataset-findings"), "Fix all safe ones (2 files)")
    expect(page.locator(".fd-question")).to_contain_text("1 file will get the ending that fits")
    press(page.locator(".fd-question"), "Do it")
    expect(page.locator("#dataset-job")).to_contain_text("2 files fixed")
    assert names(folder) == before - {"twin.png", "twin.txt", "lying.png"} | {"lying.jpg"}
    expect(finding(page, "picture.wrong_extension")).to_have_count(0)
    page.locator("#dataset-undo").click()
    expect(finding(page, "picture.wrong_extension")).to_be_visible()
    assert names(folder) == before


def test_old_findings_are_told_and_names_are_only_text(app: App, page: Page) -> None:
    folder = app.workspace / "datasets" / "doctored-hostile"
    for number in range(2):
        write(folder, f"{number}.png", sharp(number), HOSTILE)
    write(folder, "${window.hacked=7} `x` <img src=x onerror=window.hacked=8>.png", sharp(0), HOSTILE)
    (folder / "lonely ${window.hacked=9}.txt").write_text("nobody", encoding="utf-8")
    open_folder(page, folder)
    check(page)
    expect(finding(page, "caption.identical")).to_contain_text(HOSTILE[:60])
    expect(finding(page, "caption.no_picture")).to_contain_text("lonely ${window.hacked=9}.txt")
    press(finding(page, "picture.duplicate"), "Set aside")
    expect(finding(page, "picture.duplicate").locator("option").first).to_contain_text("${window.hacked=7}")
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src='x']").count() == 0

    write(folder, "new.png", sharp(9))
    page.reload()
    unfold(page, "dataset-check")
    expect(page.locator("#dataset-findings .fd-bar")).to_contain_text("Files have changed since.")
    press(page.locator("#dataset-findings"), "Check again")
    expect(page.locator("#dataset-job")).to_contain_text("4 pictures looked at")
    expect(page.locator("#dataset-findings .fd-bar")).not_to_contain_text("Files have changed")
    press(finding(page, "picture.duplicate"), "Show 2")
    expect(cards(page)).to_have_count(2)
