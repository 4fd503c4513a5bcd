"""Pictures in and out on the Dataset tab, on real files: dropping, export, new sizes, validation, fetching."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import App, dismiss, toast
from tests.browser.test_dataset_tab import cards, eventually, field, make_dataset, open_folder, unfold

JOB_MS = 120_000


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, "PNG")
    return buffer.getvalue()


def drag(page: Page, files: dict[str, bytes], *events: str) -> None:
    """Drag files over the grid as a browser does."""
    script = """files => {
        const transfer = new DataTransfer();
        for (const [name, bytes] of Object.entries(files)) transfer.items.add(new File([new Uint8Array(bytes)], name));
        return transfer;
    }"""
    transfer = page.evaluate_handle(script, {name: list(data) for name, data in files.items()})
    for event in events:
        page.dispatch_event("#dataset-grid", event, {"dataTransfer": transfer})


def drop(page: Page, files: dict[str, bytes]) -> None:
    """Drop files on the grid."""
    drag(page, files, "dragenter", "dragover", "drop")


def part(page: Page, name: str) -> None:
    pick(page, "transfer-what", name)


def pick(page: Page, name: str, option: str) -> None:
    page.locator(f"#{name} input").click()
    page.get_by_role("option", name=option, exact=True).click()


def job(page: Page) -> Locator:
    return page.locator("#dataset-job")


def test_dropping_files_adds_them_and_overwrites_nothing(app: App, page: Page, shot: Callable[[str], Path]) -> None:
    folder = make_dataset(app, "dropped", 2)
    open_folder(page, folder)
    before = (folder / "0000.png").read_bytes()
    drag(page, {"x.png": b"x"}, "dragover")
    expect(page.locator("#dataset-drop .drop-words")).to_contain_text("Drop pictures")
    shot("dataset-drop")
    with zipfile.ZipFile(archive := io.BytesIO(), "w") as whole:
        whole.writestr("inner/new.png", png("orange"))
        whole.writestr("../../evil.png", png("black"))
    drop(
        page,
        {
            "0000.png": png("purple"),
            "0000.txt": b"a purple one",
            "0001.png": (folder / "0001.png").read_bytes(),
            "up.zip": archive.getvalue(),
            "virus.exe": b"MZ",
        },
    )
    eventually(lambda: (folder / "inner" / "new.png").exists())
    expect(cards(page)).to_have_count(4)
    expect(page.locator("#dataset-drop .drop-veil")).to_be_hidden()
    assert (folder / "0000.png").read_bytes() == before
    assert (folder / "0000-2.png").read_bytes() == png("purple")
    assert (folder / "0000-2.txt").read_text(encoding="utf-8") == "a purple one"
    expect(toast(page, "0000.png is now 0000-2.png")).to_be_visible()
    expect(toast(page, "virus.exe: it is neither a picture nor a caption")).to_be_visible()
    assert not list(app.workspace.parent.rglob("evil.png"))


def test_paths_that_were_not_uploaded_are_refused(app: App, page: Page) -> None:
    """A hostile answer, or request, names a file of this machine as if it had been dropped."""
    secret = app.workspace.parent / "secret.png"
    secret.write_bytes(png("black"))
    folder = make_dataset(app, "safe", 1)
    open_folder(page, folder)
    page.route("**/gradio_api/upload*", lambda route: route.fulfill(json=[str(secret)]))
    drop(page, {"x.png": png("red")})
    expect(toast(page, "secret.png")).to_be_visible()  # Gradio refuses it first
    assert [path.name for path in sorted(folder.iterdir())] == ["0000.png", "0000.txt"]
    assert secret.exists()
    expect(page.locator("#dataset-drop .drop-veil")).to_be_hidden()
    page.unroute("**/gradio_api/upload*")
    drop(page, {"x.png": png("red")})
    expect(cards(page)).to_have_count(2)


def test_export_then_open_the_result(app: App, page: Page, shot: Callable[[str], Path]) -> None:
    folder = make_dataset(app, "to-export", 4)
    open_folder(page, folder)
    unfold(page, "dataset-transfer")
    field(page, "export-name").fill("/etc/evil")
    page.locator("#export-start").click()
    dismiss(page, "not open to the page")
    cards(page).nth(1).focus()
    page.keyboard.press("Space")
    page.keyboard.press("Shift+ArrowRight")
    pick(page, "export-scope", "Selected pictures")
    field(page, "export-name").fill("exported")
    field(page, "export-repeats").fill("7")
    field(page, "export-concept").fill("ohwx")
    field(page, "export-class").fill("cat")
    shot("dataset-export")
    page.locator("#export-start").click()
    expect(job(page)).to_contain_text("2 pictures, 2 captions", timeout=JOB_MS)
    target = app.workspace / "datasets" / "exported" / "img" / "7_ohwx cat"
    assert (target / "0001.png").read_bytes() == (folder / "0001.png").read_bytes()
    assert (target / "0001.txt").read_bytes() == (folder / "0001.txt").read_bytes()
    job(page).get_by_role("button", name="Open it").click()
    expect(page.locator("#dataset-grid .ds-title")).to_have_text("exported / img")
    expect(cards(page)).to_have_count(2)


def test_new_sizes_with_a_smart_crop(app: App, page: Page, shot: Callable[[str], Path]) -> None:
    folder = make_dataset(app, "to-resize", 2)
    open_folder(page, folder)
    unfold(page, "dataset-transfer")
    part(page, "Other sizes and formats")
    pick(page, "pictures-size", "Exact size")
    field(page, "pictures-width").fill("16")
    field(page, "pictures-height").fill("24")
    page.locator("#pictures-start").click()
    dismiss(page, "does not work as a folder's name")
    field(page, "pictures-name").fill("resized")
    page.locator("#pictures-start").click()
    expect(job(page)).to_contain_text("cannot get another shape", timeout=JOB_MS)
    pick(page, "pictures-crop", "What stands out")
    pick(page, "pictures-format", "WebP")
    shot("dataset-sizes")
    page.locator("#pictures-start").click()
    expect(job(page)).to_contain_text("2 pictures, 2 captions", timeout=JOB_MS)
    with Image.open(app.workspace / "datasets" / "resized" / "0001.webp") as image:
        assert image.size == (16, 24)
    assert len(list(folder.iterdir())) == 4


def test_validation_pictures_go_and_come_back_and_reach_the_train_form(
    app: App, page: Page, shot: Callable[[str], Path]
) -> None:
    folder = make_dataset(app, "to-split", 10)
    open_folder(page, folder)
    unfold(page, "dataset-transfer")
    part(page, "Validation pictures")
    shot("dataset-split")
    page.locator("#split-share input").fill("0.2")
    page.locator("#split-start").click()
    expect(job(page)).to_contain_text("2 pictures to validate on, 8 left", timeout=JOB_MS)
    expect(cards(page)).to_have_count(8)
    held = folder / ".validation"
    assert len(list(held.glob("*.png"))) == len(list(held.glob("*.txt"))) == 2
    page.locator("#dataset-undo").click()
    expect(cards(page)).to_have_count(10)
    page.locator("#dataset-redo").click()
    expect(cards(page)).to_have_count(8)
    page.locator("#split-back").click()
    expect(cards(page)).to_have_count(10)
    page.locator("#dataset-undo").click()
    expect(cards(page)).to_have_count(8)
    page.locator("#dataset-train").click()
    sources = page.locator("#field-dataset-sources-0-path textarea, #field-dataset-sources-0-path input")
    expect(sources).to_have_value(str(folder))
    eventually(lambda: str(held) in (app.workspace / "last_form.yaml").read_text(encoding="utf-8"))


def test_fetching_a_saved_data_set(app: App, page: Page, shot: Callable[[str], Path]) -> None:
    datasets = pytest.importorskip("datasets", reason="the optional package `datasets` is not installed")
    rows = {
        "image": [{"bytes": png("red"), "path": None}, {"bytes": png("blue"), "path": None}],
        "text": ["one", "two"],
    }
    saved = app.workspace / "saved set"
    datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image()).save_to_disk(saved)
    unfold(page, "dataset-import")
    for given, told in (
        ("/etc", "not open to the page"),
        ("nonsense", "neither a data set"),
        (str(saved), "folder's name"),
    ):
        field(page, "import-path").fill(given)
        field(page, "import-name").fill("../x")
        page.locator("#import-save").click()
        dismiss(page, told)
    field(page, "import-name").fill("fetched")
    page.locator("#import-save").click()
    page.locator("#import-open").click(timeout=JOB_MS)
    shot("dataset-fetched")
    expect(page.locator("#dataset-grid .ds-title")).to_have_text("datasets / fetched")
    expect(cards(page)).to_have_count(2)
    assert (app.workspace / "datasets" / "fetched" / "0000001.txt").read_text(encoding="utf-8") == "two"
