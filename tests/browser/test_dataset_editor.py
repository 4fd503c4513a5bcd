"""The editor of one picture, on real files: what it shows, and what it writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import App
from PIL import Image
from playwright.sync_api import Locator, Page, expect
from test_dataset_tab import caption_box, cards, eventually, open_folder, state

TAGS = "ohwx,  red fur , blue sky,sun\nsecond line,  kept as it is\n"


def make_folder(app: App, name: str, *captions: bytes | str, size: tuple[int, int] = (96, 64)) -> Path:
    """Pictures 0.png, 1.png ... with these captions, byte for byte."""
    folder = app.workspace / "datasets" / name
    folder.mkdir(parents=True)
    for number, caption in enumerate(captions):
        Image.new("RGB", size, ("red", "green", "blue")[number % 3]).save(folder / f"{number}.png")
        data = caption.encode() if isinstance(caption, str) else caption
        (folder / f"{number}.txt").write_bytes(data)
    return folder


def chips(page: Page, line: int = 0) -> Locator:
    return page.locator("#dataset-grid .ds-chip-row").nth(line).locator(".ds-edit-chip")


def text_becomes(folder: Path, text: str, number: int = 0) -> None:
    eventually(lambda: (folder / f"{number}.txt").read_bytes() == text.encode())


def test_chips_edit_one_tag_and_leave_the_rest(app: App, page: Page, shot: Callable[[str], Path]) -> None:
    folder = make_folder(app, "chips", TAGS, "sun, moon")
    open_folder(page, folder)
    cards(page).nth(0).click()
    expect(chips(page)).to_have_text(["ohwx×", "red fur×", "blue sky×", "sun×"])
    expect(chips(page, 1)).to_have_text(["second line×", "kept as it is×"])
    shot("dataset-chips")
    second = "\nsecond line,  kept as it is\n"
    chips(page).nth(1).dblclick()
    page.keyboard.insert_text("green fur")
    page.keyboard.press("Enter")
    text_becomes(folder, "ohwx,  green fur , blue sky,sun" + second)
    expect(chips(page).nth(1)).to_be_focused()
    page.keyboard.press("Alt+ArrowRight")
    text_becomes(folder, "ohwx,  blue sky , green fur,sun" + second)
    expect(chips(page).nth(2)).to_be_focused()
    page.keyboard.press("Delete")
    text_becomes(folder, "ohwx,  blue sky ,sun" + second)
    chips(page).nth(2).drag_to(chips(page).nth(0))
    text_becomes(folder, "sun,  ohwx ,blue sky" + second)
    chips(page).nth(0).get_by_role("button", name="Remove sun").click()
    text_becomes(folder, "ohwx ,blue sky" + second)
    add = page.locator("#dataset-grid .ds-add").first
    assert "moon" in add.evaluate("field => [...field.list.options].map((option) => option.value)")
    add.fill("moon, stars")
    add.press("Enter")
    text_becomes(folder, "ohwx ,blue sky,moon,stars" + second)
    expect(caption_box(page)).to_have_value(("ohwx ,blue sky,moon,stars" + second).rstrip("\n"))
    for _ in range(6):
        page.locator("#dataset-undo").click()
    text_becomes(folder, TAGS)
    expect(chips(page)).to_have_count(4)
    chips(page).nth(3).click()
    expect(page.locator("#dataset-grid .ds-bar .ds-chip")).to_contain_text("Tag: sun")
    expect(cards(page)).to_have_count(2)


def test_prose_has_no_chips_unless_asked_for(app: App, page: Page) -> None:
    prose = "A cat sits in the window and looks at the birds, which fly past the house while the sun goes down."
    open_folder(page, make_folder(app, "prose", prose))
    cards(page).nth(0).click()
    expect(page.locator("#dataset-grid .ds-edit-chip")).to_have_count(0)
    page.get_by_role("button", name="Show as tags").click()
    expect(page.locator("#dataset-grid .ds-edit-chip")).to_have_count(2)


def test_tokens_are_counted_while_typing(app: App, page: Page) -> None:
    open_folder(page, make_folder(app, "tokens", "a red cat"))
    cards(page).nth(0).click()
    meter, unread = page.locator("#dataset-grid .ds-meter"), page.locator("#dataset-grid .ds-unread")
    expect(meter).to_contain_text("3 of")
    expect(meter).to_have_attribute("title", "Counted with the vocabulary of the demo model.")
    expect(unread).to_be_hidden()
    caption_box(page).fill("red, " * 37 + "a 🦊🦊 red dog, blue")  # 37 times two tokens, then one more fits
    expect(unread).to_contain_text("🦊 red dog, blue")
    assert unread.locator("mark").inner_text().endswith("red dog, blue")
    expect(page.locator("#dataset-grid .ds-past")).to_have_text("blue×")
    meter.locator("select").select_option("150")
    expect(unread).to_be_hidden()
    expect(page.locator("#dataset-grid .ds-past")).to_have_count(0)
    caption_box(page).fill("first\nsecond")
    expect(unread).to_contain_text("Training reads the first line only")


def test_odd_encodings_are_told_and_survive(app: App, page: Page) -> None:
    texts = {
        "UTF-16": "größe, café".encode("utf-16"),
        "Latin-1": "größe, café".encode("latin-1"),
        "UTF-8 with a byte order mark": b"\xef\xbb\xbf" + "größe, café\r\nzwei\r\n".encode(),
    }
    folder = make_folder(app, "encodings", *texts.values(), b"")
    open_folder(page, folder)
    cards(page).nth(3).click()
    expect(caption_box(page)).to_have_value("")
    for number, (encoding, stored) in enumerate(texts.items()):
        cards(page).nth(number).click()
        expect(page.locator("#dataset-grid .ds-note")).to_contain_text(f"Stored as {encoding}; saving makes it UTF-8.")
        assert (folder / f"{number}.txt").read_bytes() == stored
        text = caption_box(page).input_value()
        assert text == ("größe, café\nzwei" if number == 2 else "größe, café")
        caption_box(page).fill(text + " 2")
        caption_box(page).press("Control+Enter")
        expect(state(page)).to_have_text("Saved")
        expect(page.locator("#dataset-grid .ds-note")).to_be_hidden()
        ends = "\r\nzwei 2\r\n" if number == 2 else " 2"
        assert (folder / f"{number}.txt").read_bytes() == f"größe, café{ends}".encode()
    assert (folder / "3.txt").read_bytes() == b""


def test_what_is_cut_off_is_drawn_on_the_upright_picture(app: App, page: Page) -> None:
    folder = make_folder(app, "placed", "a", size=(300, 200))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (300, 200), "red").save(folder / "turned.jpg", exif=exif)
    open_folder(page, folder)
    cards(page).nth(0).click()
    trained, box = page.locator("#dataset-grid .ds-trained"), page.locator("#dataset-grid .ds-bucket")
    expect(trained).to_contain_text("Trained at 256 × 192: 18 % cut off")
    assert shares_of(box) == [22 / 300, 4 / 200, 256 / 300, 192 / 200]
    cards(page).nth(1).click()
    expect(page.locator("#dataset-grid .ds-file")).to_contain_text("200 × 300 px")
    expect(trained).to_contain_text("Trained at 192 × 256: 18 % cut off")
    assert shares_of(box) == [4 / 200, 22 / 300, 192 / 200, 256 / 300]
    page.keyboard.press("Alt+ArrowLeft")
    expect(page.locator("#dataset-grid .ds-file")).to_contain_text("0.png")


def shares_of(box: Locator) -> Any:
    """Left, top, width and height of a box as drawn, as shares of the picture under it."""
    drawn = box.evaluate(
        """node => { const box = node.getBoundingClientRect(), frame = node.parentElement.getBoundingClientRect();
        return [(box.left - frame.left) / frame.width, (box.top - frame.top) / frame.height,
                box.width / frame.width, box.height / frame.height]; }"""
    )
    return pytest.approx(drawn, abs=0.002)
