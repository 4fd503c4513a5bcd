"""Edits on the Dataset tab, on real files: every operation with its undo, the table of tags, history, two windows."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.conftest import MEASURES, App, toast, wait_until_open
from tests.browser.test_dataset_tab import (
    caption_box,
    cards,
    eventually,
    field,
    make_dataset,
    open_folder,
    state,
    text_of,
    unfold,
)
from trainer.curation.operations import OPERATIONS

CAPTIONS = ["red_hair, cat, 1girl, cat", "Red Hair,  dog | sitting\r\nsecond line, cat\r\n", "", "cat"]
AFTER: dict[str, tuple[dict[str, str], list[str]]] = {
    "replace": (
        {"find": "cat", "replacement": "lion"},
        ["red_hair, lion, 1girl, lion", "Red Hair,  dog | sitting\r\nsecond line, lion\r\n", "", "lion"],
    ),
    "add": (
        {"tags": "new, newer"},
        ["red_hair, cat, 1girl, cat, new, newer",
         "Red Hair, dog | sitting, new, newer\r\nsecond line, cat, new, newer\r\n",
         "new, newer", "cat, new, newer"],
    ),
    "remove": (
        {"tags": "red*\nDOG*"},
        ["cat, 1girl, cat", "\r\nsecond line, cat\r\n", "", "cat"],
    ),
    "rename": (
        {"tags": "cat, dog", "new": "animal"},
        ["red_hair, animal, 1girl", "Red Hair,  dog | sitting\r\nsecond line, animal\r\n", "", "animal"],
    ),
    "trigger": (
        {"trigger": "ohwx"},
        ["ohwx, red_hair, cat, 1girl, cat",
         "ohwx, Red Hair, dog | sitting\r\nohwx, second line, cat\r\n", "ohwx", "ohwx, cat"],
    ),
    "move": (
        {"tags": "1girl, cat"},
        ["1girl, cat, red_hair", "Red Hair,  dog | sitting\r\ncat, second line\r\n", "", "cat"],
    ),
    "sort": ({}, ["1girl, cat, cat, red_hair", "dog | sitting, Red Hair\r\ncat, second line\r\n", "", "cat"]),
    "duplicates": ({}, ["red_hair, cat, 1girl", "Red Hair,  dog | sitting\r\nsecond line, cat\r\n", "", "cat"]),
    "respell": ({}, ["red hair, cat, 1girl, cat", "Red Hair,  dog | sitting\r\nsecond line, cat\r\n", "", "cat"]),
    "around": (
        {"prefix": "photo of ", "suffix": ", 4k"},
        ["photo of red_hair, cat, 1girl, cat, 4k",
         "photo of Red Hair,  dog | sitting, 4k\r\nphoto of second line, cat, 4k\r\n",
         "photo of , 4k", "photo of cat, 4k"],
    ),
    "rare": ({}, ["cat, cat", "\r\ncat\r\n", "", "cat"]),
    "keep": (
        {"tags": "red hair, 1girl"},
        ["red_hair, 1girl", "Red Hair\r\n\r\n", "", ""],
    ),
    "tidy": ({}, ["red_hair, cat, 1girl, cat", "Red Hair, dog | sitting\r\nsecond line, cat\r\n", "", "cat"]),
    "join": ({}, ["red_hair, cat, 1girl, cat", "Red Hair,  dog | sitting, second line, cat\r\n", "", "cat"]),
    "split": ({}, ["red_hair, cat, 1girl, cat", "Red Hair,  dog\r\nsitting\r\nsecond line, cat\r\n", "", "cat"]),
}  # fmt: skip


@pytest.fixture
def second(app: App, browser: BrowserContext) -> Iterator[Page]:
    """The page in another window."""
    opened = browser.new_page()
    opened.goto(app.url)
    wait_until_open(opened)
    yield opened
    opened.close()


def choose(page: Page, name: str, label: str) -> None:
    page.locator(f"#{name} input").click()
    page.get_by_role("option", name=label, exact=True).click()


def bytes_of(folder: Path, count: int = 4) -> list[bytes]:
    return [(folder / f"{number:04}.txt").read_bytes() for number in range(count)]


def apply(page: Page) -> None:
    page.locator("#edit-apply").click()


def test_every_operation_and_its_undo(app: App, page: Page, shot: Callable[[str], Path]) -> None:
    assert set(AFTER) == set(OPERATIONS)
    folder = make_dataset(app, "operations", 4)
    before = [text.encode("utf-8") for text in CAPTIONS]
    for number, data in enumerate(before):
        (folder / f"{number:04}.txt").write_bytes(data)
    open_folder(page, folder)
    unfold(page, "dataset-edits")
    for name, (options, expected) in AFTER.items():
        if name != "replace":
            choose(page, "edit-operation", OPERATIONS[name].label)
        for option, value in options.items():
            field(page, f"field-edit-{name}-{option}").fill(value)
        after = [text.encode("utf-8") for text in expected]
        apply(page)
        eventually(lambda after=after: bytes_of(folder) == after)
        expect(page.locator("#dataset-last")).to_contain_text("Last change")
        page.keyboard.press("Control+z")
        eventually(lambda: bytes_of(folder) == before)
        expect(page.locator("#dataset-last")).to_contain_text("Taken back")
    shot("dataset-edits")


def test_a_preview_in_pages_is_what_is_applied(app: App, page: Page) -> None:
    folder = make_dataset(app, "previewed", 45)
    before = bytes_of(folder, 45)
    open_folder(page, folder)
    unfold(page, "dataset-edits")
    choose(page, "field-edit-replace-what", "regular expression")
    field(page, "field-edit-replace-find").fill(r"(?P<colour>\w+) picture")
    field(page, "field-edit-replace-replacement").fill(r"\g<colour> <b>square</b>")
    page.locator("#edit-preview").click()
    expect(page.locator("#edit-result strong")).to_have_text("45 files would change.")
    expect(page.locator("#edit-result dt")).to_have_count(20)
    expect(page.locator("#edit-result del").first).to_have_text("picture")
    expect(page.locator("#edit-result dd").nth(1)).to_contain_text("a red <b>square</b>, number 0")
    page.locator("#edit-result").get_by_role("button", name="Next").click()
    expect(page.locator("#edit-result nav span")).to_have_text("21 to 40 of 45")
    page.locator("#edit-result").get_by_role("button", name="Next").click()
    expect(page.locator("#edit-result dt").last).to_have_text("0044.txt")

    (folder / "0001.txt").write_text("a green picture changed elsewhere", encoding="utf-8")
    apply(page)
    expect(toast(page, "This is not what you looked at")).to_be_visible()
    expect(page.locator("#edit-result dd").nth(3)).to_contain_text("square</b> changed elsewhere")
    assert text_of(folder, 0) == before[0].decode()
    apply(page)
    eventually(lambda: text_of(folder, 44) == "a red <b>square</b>, number 44\n")
    eventually(lambda: text_of(folder, 1) == "a green <b>square</b> changed elsewhere")

    page.reload()
    wait_until_open(page)
    expect(page.locator("#dataset-last")).to_contain_text("Last change: replace")
    page.locator("#dataset-undo").click()
    eventually(lambda: text_of(folder, 44) == before[44].decode())
    page.locator("#dataset-redo").click()
    eventually(lambda: text_of(folder, 0) == "a red <b>square</b>, number 0\n")


def test_wrong_orders_are_told_and_a_catastrophic_expression_is_given_up(app: App, page: Page) -> None:
    folder = make_dataset(app, "wrong", 3)
    (folder / "0001.txt").write_text("a" * 6000 + "!", encoding="utf-8")
    open_folder(page, folder)
    unfold(page, "dataset-edits")
    page.locator("#edit-preview").click()
    expect(toast(page, "There is nothing to find.")).to_be_visible()
    choose(page, "field-edit-replace-what", "regular expression")
    field(page, "field-edit-replace-find").fill("(a")
    page.locator("#edit-preview").click()
    expect(toast(page, "is not a regular expression")).to_be_visible()
    field(page, "field-edit-replace-find").fill("(a+)+$")
    apply(page)
    expect(toast(page, "takes too long")).to_be_visible()
    choose(page, "edit-scope", "Selected pictures")
    field(page, "field-edit-replace-find").fill("a")
    apply(page)
    expect(toast(page, "No pictures are chosen.")).to_be_visible()
    assert text_of(folder, 0) == "a red picture, number 0\n"
    expect(page.locator("#dataset-undo")).to_be_disabled()


def test_a_selection_a_filter_and_the_keys(app: App, page: Page) -> None:
    folder = make_dataset(app, "scopes")
    open_folder(page, folder)
    cards(page).nth(0).click()
    page.keyboard.press("Escape")
    expect(cards(page).nth(0)).to_be_focused()
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    expect(page.locator("#dataset-grid .ds-ticked")).to_contain_text("2 selected")
    unfold(page, "dataset-edits")
    choose(page, "edit-operation", "Trigger word first")
    choose(page, "edit-scope", "Selected pictures")
    field(page, "field-edit-trigger-trigger").fill("ohwx")
    apply(page)
    eventually(lambda: text_of(folder, 2) == "ohwx, a blue picture, number 2\n")
    eventually(lambda: text_of(folder, 0) == "ohwx, a red picture, number 0\n")
    assert text_of(folder, 1) == "a green picture, number 1\n"
    page.locator("#dataset-grid").get_by_label("Search").fill("green")
    expect(cards(page)).to_have_count(2)
    choose(page, "edit-scope", "Pictures shown by the filter")
    field(page, "field-edit-trigger-trigger").fill("qrs")
    apply(page)
    eventually(lambda: text_of(folder, 5) == "qrs, a green picture, number 5\n")
    assert text_of(folder, 0) == "ohwx, a red picture, number 0\n"

    field(page, "field-edit-trigger-trigger").press("Control+z")  # the field's own
    page.locator("#dataset-grid .ds-title").click()
    expect(page.locator("#dataset-last")).to_contain_text("trigger word qrs")
    page.keyboard.press("Control+z")
    eventually(lambda: text_of(folder, 5) == "a green picture, number 5\n")
    expect(page.locator("#dataset-redo")).to_be_enabled()
    page.keyboard.press("Control+Shift+Z")
    eventually(lambda: text_of(folder, 5) == "qrs, a green picture, number 5\n")


def test_the_table_of_tags(app: App, page: Page, shot: Callable[[str], Path]) -> None:
    folder = make_dataset(app, "tags", 60)
    for number in range(60):
        tags = ["blue eyes" if number else "Blue_Eyes", f"only {number:02}", "smile" if number % 2 else "hat"]
        (folder / f"{number:04}.txt").write_text(", ".join(tags), encoding="utf-8")
    open_folder(page, folder)
    unfold(page, "dataset-tag-table")
    table = page.locator("#dataset-tags")
    expect(table.locator("p[role=status]")).to_contain_text("64 tags, 1 look like another")
    expect(table.locator("tbody tr").first).to_contain_text("blue eyes59")
    expect(table.locator("tbody tr")).to_have_count(50)
    table.get_by_role("button", name="Next").click()
    expect(table.locator("tbody tr")).to_have_count(14)
    table.get_by_label("Find a tag").fill("eyes")
    expect(table.locator("tbody tr")).to_have_count(2)
    shot("dataset-tags")
    table.get_by_role("button", name="Merge into blue eyes").click()
    eventually(lambda: text_of(folder, 0) == "blue eyes, only 00, hat")
    expect(table.locator("tbody tr")).to_have_count(1)
    expect(table.locator("tbody tr")).to_contain_text("blue eyes60")

    table.get_by_label("Find a tag").fill("")
    table.get_by_label("Seen at least").fill("2")
    expect(table.locator("tbody tr")).to_have_count(3)
    table.get_by_label("Tick hat").check()
    table.get_by_label("Tick smile").check()
    table.get_by_label("New name").fill("thing")
    table.get_by_role("button", name="Merge into this name").click()
    eventually(
        lambda: (text_of(folder, 0), text_of(folder, 1)) == ("blue eyes, only 00, thing", "blue eyes, only 01, thing")
    )
    expect(table.locator("tbody tr")).to_have_count(2)
    table.get_by_label("Tick thing").check()
    table.get_by_role("button", name="Move first").click()
    eventually(lambda: text_of(folder, 1) == "thing, blue eyes, only 01")
    table.get_by_label("Tick blue eyes").check()
    table.get_by_role("button", name="Remove", exact=True).click()
    eventually(lambda: text_of(folder, 1) == "thing, only 01")
    table.get_by_label("Seen at least").fill("1")
    table.get_by_label("Find a tag").fill("only 07")
    table.get_by_role("button", name="only 07").click()
    expect(cards(page)).to_have_count(1)
    expect(cards(page)).to_have_attribute("data-name", "0007.png")

    unfold(page, "dataset-past")
    history = page.locator("#dataset-history li")
    expect(history).to_have_count(5)
    expect(history.first).to_contain_text("remove blue eyes")
    expect(history.first).to_contain_text("60 files")
    history.nth(3).get_by_role("button", name="Go back to here").click()
    eventually(
        lambda: (text_of(folder, 0), text_of(folder, 1)) == ("blue eyes, only 00, hat", "blue eyes, only 01, smile")
    )
    expect(page.locator("#dataset-history li.undone")).to_have_count(3)
    shot("dataset-history")
    history.first.get_by_role("button", name="Do again up to here").click()
    eventually(lambda: text_of(folder, 1) == "thing, only 01")
    history.last.get_by_role("button", name="Go back to here").click()
    eventually(lambda: text_of(folder, 0) == "Blue_Eyes, only 00, hat")


def test_encodings_and_read_only_files_are_told(app: App, page: Page) -> None:
    folder = make_dataset(app, "encodings", 5)
    data = [
        "größe, cat\r\n".encode("utf-16"),
        "größe, cat".encode("cp1252"),
        "\ufeffgröße, cat".encode(),
        b"cat\rx\r",
        b"cat",
    ]
    for number, content in enumerate(data):
        (folder / f"{number:04}.txt").write_bytes(content)
    (folder / "0004.txt").chmod(0o444)
    open_folder(page, folder)
    expect(cards(page).nth(1)).to_contain_text("größe")
    unfold(page, "dataset-edits")
    field(page, "field-edit-replace-find").fill("dog")
    apply(page)
    expect(toast(page, "Nothing was changed.")).to_be_visible()
    assert bytes_of(folder, 5) == data
    field(page, "field-edit-replace-find").fill("cat")
    field(page, "field-edit-replace-replacement").fill("lion")
    apply(page)
    expect(toast(page, "3 files were not plain UTF-8")).to_contain_text("0001.txt (probably Windows-1252)")
    expect(toast(page, "left alone because of")).to_contain_text("0004.txt (Permission denied)")
    assert bytes_of(folder, 5) == [
        "größe, lion\r\n".encode(),
        "größe, lion".encode(),
        "größe, lion".encode(),
        b"lion\rx\r",
        b"cat",
    ]
    page.locator("#dataset-undo").click()
    eventually(lambda: bytes_of(folder, 5) == data)


def test_two_windows_on_one_dataset(app: App, page: Page, second: Page) -> None:
    folder = make_dataset(app, "windows", 4)
    for window in (page, second):
        open_folder(window, folder)
        unfold(window, "dataset-edits")  # well before it is typed into: Gradio builds its fields in several steps

    # Editor and editor: the second to save is asked, and what it typed is still there.
    for window, text in ((page, "mine"), (second, "theirs")):
        cards(window).nth(0).click()
        caption_box(window).fill(text)
    caption_box(page).press("Control+Enter")
    expect(state(page)).to_have_text("Saved")
    caption_box(second).press("Control+Enter")
    expect(second.locator("#dataset-grid .ds-clash")).to_contain_text("mine")
    expect(caption_box(second)).to_have_value("theirs")
    assert text_of(folder, 0) == "mine\n"
    second.locator("#dataset-grid .ds-clash").get_by_role("button", name="Take theirs").click()

    # Bulk edit and editor: the other window shows it soon, and says so.
    cards(second).nth(1).click()
    caption_box(second).fill("typed while the other window edits")
    page.bring_to_front()  # what is typed into a window behind reaches Gradio late
    field(page, "field-edit-replace-find").fill("picture")
    field(page, "field-edit-replace-replacement").fill("square")
    apply(page)
    expect(cards(second).nth(2)).to_contain_text("a blue square")
    expect(toast(second, "changed in another window")).to_contain_text("replace picture")
    caption_box(second).press("Control+Enter")
    expect(second.locator("#dataset-grid .ds-clash")).to_contain_text("a green square, number 1")
    second.locator("#dataset-grid .ds-clash").get_by_role("button", name="Keep mine").click()
    eventually(lambda: text_of(folder, 1) == "typed while the other window edits\n")

    # Bulk and bulk: both are done, and what the second looked at before is not what it gets unasked.
    expect(cards(page).nth(1)).to_contain_text("typed while")
    second.bring_to_front()
    field(second, "field-edit-replace-find").fill("number")
    field(second, "field-edit-replace-replacement").fill("no.")
    second.locator("#edit-preview").click()
    expect(second.locator("#edit-result strong")).to_have_text("2 files would change.")
    page.bring_to_front()
    field(page, "field-edit-replace-find").fill("number 3")
    field(page, "field-edit-replace-replacement").fill("number 33")
    apply(page)
    eventually(lambda: text_of(folder, 3) == "a yellow square, number 33\n")
    second.bring_to_front()
    apply(second)
    expect(toast(second, "This is not what you looked at")).to_be_visible()
    apply(second)
    eventually(lambda: text_of(folder, 3) == "a yellow square, no. 33\n")

    # Undo and edit: taken back in one window, shown in the other.
    page.bring_to_front()
    expect(page.locator("#dataset-last")).to_contain_text(re.compile(r"replace number\s*$"))
    page.locator("#dataset-undo").click()
    eventually(lambda: text_of(folder, 3) == "a yellow square, number 33\n")
    expect(second.locator("#dataset-last")).to_contain_text("Last change: replace number 3")


def test_a_thousand_captions_are_replaced_in_two_seconds(app: App, page: Page) -> None:
    folder = make_dataset(app, "many", 1000)
    open_folder(page, folder)
    unfold(page, "dataset-edits")
    choose(page, "field-edit-replace-what", "regular expression")
    field(page, "field-edit-replace-find").fill(r"number (\d+)")
    field(page, "field-edit-replace-replacement").fill(r"no. \1")
    seconds = {}
    for button, done in (("preview", "#edit-result strong"), ("apply", "#dataset-undo:not([disabled])")):
        started = time.monotonic()
        page.locator(f"#edit-{button}").click()
        page.locator(done).wait_for()
        seconds[button] = time.monotonic() - started
    print(f"1,000 captions: preview {seconds['preview']:.2f} s, replace {seconds['apply']:.2f} s")  # noqa: T201
    assert text_of(folder, 999) == "a yellow picture, no. 999\n"
    assert seconds["preview"] < (2 if MEASURES else 20)
