"""The editor of one picture, on real files: what it shows, and what it writes."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import App
from tests.browser.test_dataset_tab import caption_box, cards, eventually, field, open_folder, state
from tests.unit.dataset_samples import Recorded, never_stop, noise_picture
from trainer.config_io import parse_config
from trainer.curation.crops import read_crops
from trainer.data.augment import no_augmentation
from trainer.data.epoch import lay_out
from trainer.data.masks import MaskSource
from trainer.runs.store import Workspace

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
    expect(page.locator("#dataset-grid .ds-filters .ds-chip")).to_contain_text("Tag: sun")
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
    meter, unread = page.locator("#dataset-grid .ds-meter"), page.locator("#dataset-grid .ds-not-read")
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
        "probably Windows-1252": "größe, café".encode("latin-1"),
        "UTF-8 with a byte order mark": b"\xef\xbb\xbf" + "größe, café\r\nzwei\r\n".encode(),
    }
    folder = make_folder(app, "encodings", *texts.values(), b"")
    open_folder(page, folder)
    cards(page).nth(3).click()
    expect(caption_box(page)).to_have_value("")
    for number, (encoding, stored) in enumerate(texts.items()):
        cards(page).nth(number).click()
        expect(page.locator("#dataset-grid .ds-note")).to_contain_text(f"encoding: {encoding}. Saving makes it UTF-8")
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
    page.locator("#dataset-caption").press("Alt+ArrowLeft")
    expect(page.locator("#dataset-grid .ds-file")).to_contain_text("0.png")


def shares_of(box: Locator) -> Any:
    """Left, top, width and height of a box as drawn, as shares of the picture under it, once that is there."""
    drawn = box.evaluate(
        """async node => {
        while (!node.parentElement.clientWidth) await new Promise(requestAnimationFrame);
        const box = node.getBoundingClientRect(), frame = node.parentElement.getBoundingClientRect();
        return [(box.left - frame.left) / frame.width, (box.top - frame.top) / frame.height,
                box.width / frame.width, box.height / frame.height]; }"""
    )
    return pytest.approx(drawn, abs=0.002)


def painted_on(page: Page, start: tuple[float, float], *ends: tuple[float, float]) -> None:
    """Drag over the picture on the stage, between points given as shares of it."""
    place = page.locator("#dataset-grid .ds-sheet").bounding_box()
    assert place is not None
    points = [(place["x"] + x * place["width"], place["y"] + y * place["height"]) for x, y in (start, *ends)]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=4)
    page.mouse.up()


def canvas_alpha(page: Page) -> Any:
    """What the mask's canvas holds, 0 to 255."""
    url = page.locator("#dataset-grid .pt-canvas").evaluate("canvas => canvas.toDataURL('image/png')")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGBA"))[..., 3]


def on_stage(page: Page, name: str) -> Locator:
    """Open the stage with a tool; the stage's own controls."""
    page.locator("#dataset-grid .ds-open-tools").get_by_role("button", name=name, exact=True).click()
    stage = page.locator("#dataset-grid .ds-stage")
    expect(stage).to_be_visible()
    return stage


def press(stage: Locator, name: str) -> None:
    stage.get_by_role("button", name=name, exact=True).click()


def test_a_painted_mask_is_what_training_reads(app: App, page: Page) -> None:
    folder = make_folder(app, "masked", "a cat", "a dog", size=(128, 64))
    open_folder(page, folder)
    cards(page).nth(0).click()
    stage = on_stage(page, "Mask")
    expect(stage.get_by_role("button", name="Save mask")).to_be_disabled()
    press(stage, "Fill")
    assert (canvas_alpha(page) == 255).all()
    press(stage, "Clear")
    painted_on(page, (0.2, 0.3), (0.6, 0.8), (0.8, 0.3))
    once = canvas_alpha(page)
    assert once[19, 26] == 255 and once[0, 0] == 0 and ((once > 0) & (once < 255)).any()
    press(stage, "Invert")
    assert (canvas_alpha(page) == 255 - once).all()
    press(stage, "Erase")
    painted_on(page, (0.1, 0.9), (0.9, 0.9))
    assert canvas_alpha(page)[60, 64] == 0
    page.keyboard.press("Control+z")
    assert (canvas_alpha(page) == 255 - once).all()
    press(stage, "Save mask")
    expect(stage).to_be_hidden()
    expect(page.locator("#dataset-grid .ds-mask-shown")).to_be_visible()
    mask = folder / ".atelier" / "masks" / "0.png"
    stored = Image.open(mask)
    assert stored.mode == "L" and (np.asarray(stored) == 255 - once).all()

    page.locator("#dataset-undo").click()
    eventually(lambda: not mask.exists())
    expect(page.locator("#dataset-grid .ds-mask-shown")).to_be_hidden()
    page.locator("#dataset-redo").click()
    eventually(mask.exists)
    expect(page.locator("#dataset-grid .ds-mask-shown")).to_be_visible()
    on_stage(page, "Mask")
    eventually(lambda: (canvas_alpha(page) == 255 - once).all())
    press(stage, "Close")

    page.locator("#dataset-train").click()
    expect(field(page, "field-dataset-sources-0-path")).to_have_value(str(folder))
    page.get_by_role("button", name="Settings as text").click()
    config = parse_config(yaml.safe_load(page.locator("#yaml textarea").input_value()))
    assert config.loss.masked == "mask"
    entry = next(entry for entry in lay_out(config).training if entry.picture.path.name == "0.png")
    assert (entry.placement.width, entry.placement.height) == (128, 64)
    reader = MaskSource("mask", 1, None, Recorded())
    assert reader.fill([(entry, no_augmentation(entry.placement))], never_stop) == {}
    read = reader.masks([(entry, no_augmentation(entry.placement))])[0, 0].numpy()
    assert (np.rint(read * 255) == 255 - once).all()


def test_masks_start_from_what_is_there_and_are_not_lost_unasked(app: App, page: Page) -> None:
    folder = make_folder(app, "mask-starts", "a")
    clear = Image.new("RGBA", (96, 64), (255, 0, 0, 0))
    clear.paste((255, 0, 0, 255), (0, 0, 48, 64))
    clear.save(folder / "0.png")
    Image.new("L", (96, 64), 77).save(folder / "0-masklabel.png")
    open_folder(page, folder)
    page.locator("#dataset-grid [data-name='0.png']").click()
    stage = on_stage(page, "Mask")
    start = stage.get_by_label("Start from")
    start.select_option("alpha")
    eventually(lambda: (canvas_alpha(page) == np.asarray(clear)[..., 3]).all())
    start.select_option("onetrainer")
    eventually(lambda: (canvas_alpha(page) == 77).all())
    answers = [False, True]
    page.on("dialog", lambda dialog: dialog.accept() if answers.pop(0) else dialog.dismiss())
    page.keyboard.press("Escape")
    expect(stage).to_be_visible()
    press(stage, "Clear")
    press(stage, "Save mask")
    expect(stage.locator(".ds-told")).to_contain_text("Nothing is painted")
    press(stage, "Close")
    expect(stage).to_be_hidden()
    assert not (folder / ".atelier").exists() and answers == []

    on_stage(page, "Mask")
    press(stage, "Fill")
    page.keyboard.press("Control+Enter")
    expect(stage).to_be_hidden()
    mask = folder / ".atelier" / "masks" / "0.png"
    assert mask.exists()
    expect(page.locator("#dataset-grid .ds-mask-shown")).to_be_visible()
    on_stage(page, "Mask")
    press(stage, "Remove mask")
    expect(stage).to_be_hidden()
    eventually(lambda: not mask.exists())


def test_crop_by_hand(app: App, page: Page) -> None:
    folder = make_folder(app, "cropped", "a cat", size=(200, 100))
    noise_picture(200, 100).save(folder / "0.png")
    (folder / ".atelier" / "masks").mkdir(parents=True)
    noise_picture(200, 100, 1).convert("L").save(folder / ".atelier" / "masks" / "0.png")
    picture, mask = (np.asarray(Image.open(path)) for path in (folder / "0.png", folder / ".atelier/masks/0.png"))
    before = (folder / "0.png").read_bytes()
    open_folder(page, folder)
    cards(page).nth(0).click()
    stage = on_stage(page, "Crop")
    expect(stage.get_by_role("button", name="Keep this box")).to_be_disabled()
    stage.get_by_label("Shape").select_option("square")
    painted_on(page, (0.25, 0.2), (0.6, 0.5))
    expect(stage).to_contain_text("70 × 70 px at 50, 20")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowUp")
    expect(stage).to_contain_text("70 × 70 px at 51, 10")
    stage.get_by_label("Shape").select_option("free")
    stage.focus()
    page.keyboard.press("Alt+ArrowLeft")
    expect(stage).to_contain_text("69 × 70 px at 51, 10")
    press(stage, "Keep this box")
    expect(stage).to_be_hidden()
    workspace = Workspace(app.workspace)
    assert read_crops(workspace, folder)["0.png"].pixels(200, 100) == (51, 10, 120, 80)
    assert (folder / "0.png").read_bytes() == before
    expect(page.locator("#dataset-grid .ds-hand-box")).to_be_visible()

    on_stage(page, "Crop")
    expect(stage).to_contain_text("69 × 70 px at 51, 10")
    press(stage, "Crop the picture now")
    expect(stage).to_be_hidden()
    assert (np.asarray(Image.open(folder / "0.png")) == picture[10:80, 51:120]).all()
    assert (np.asarray(Image.open(folder / ".atelier/masks/0.png")) == mask[10:80, 51:120]).all()
    expect(page.locator("#dataset-grid .ds-file")).to_contain_text("69 × 70 px")
    assert read_crops(workspace, folder) == {}
    page.locator("#dataset-undo").click()
    expect(page.locator("#dataset-grid .ds-file")).to_contain_text("200 × 100 px")
    assert (folder / "0.png").read_bytes() == before
    assert (np.asarray(Image.open(folder / ".atelier/masks/0.png")) == mask).all()


def test_a_picture_is_looked_at_closely_and_painted_on_a_small_screen(app: App, page: Page) -> None:
    folder = make_folder(app, "small-screen", "a", size=(1500, 900))
    page.set_viewport_size({"width": 390, "height": 844})
    open_folder(page, folder)
    cards(page).nth(0).click()
    stage = on_stage(page, "Look closely")
    close_up = stage.locator(".ds-sheet img")
    eventually(lambda: close_up.evaluate("image => image.naturalWidth") == 1500)
    press(stage, "100 %")
    assert close_up.evaluate("image => image.getBoundingClientRect().width") == 1500
    page.keyboard.press("Escape")
    expect(stage).to_be_hidden()
    expect(page.locator("#dataset-grid .ds-editor")).to_be_visible()
    on_stage(page, "Mask")
    for element in stage.locator("button, input, select").all():
        box = element.bounding_box()
        assert box is None or (box["x"] >= 0 and box["x"] + box["width"] <= 390)
    stage.locator(".pt-layer").evaluate(
        """layer => {
          const { left, top, width, height } = layer.getBoundingClientRect();
          layer.setPointerCapture = () => {}; // there is no finger to capture
          for (const [kind, share] of [["pointerdown", 0.2], ["pointermove", 0.7], ["pointerup", 0.7]])
            layer.dispatchEvent(new PointerEvent(kind, { pointerType: "touch", pointerId: 1, isPrimary: true, button: 0,
              buttons: 1, bubbles: true, clientX: left + width * share, clientY: top + height / 2 }));
        }"""
    )
    painted = canvas_alpha(page)
    assert painted.shape == (900, 1500) and painted[450, 700] == 255 and painted[450, 1450] == 0
    press(stage, "Save mask")
    expect(stage).to_be_hidden()
    assert Image.open(folder / ".atelier" / "masks" / "0.png").size == (1500, 900)
