"""Where the Dataset tab puts what is dropped, exported or fetched: nothing the browser says leads elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gradio.utils import get_upload_folder

from trainer.curation.intake import Upload
from trainer.errors import UserError
from trainer.runs.store import Workspace
from ui.context import AppContext
from ui.dataset import importing
from ui.dataset.source import drop_folder, dropped, unwrapped
from ui.dataset.transfer import destination, split_report, written_report


@pytest.fixture
def context(tmp_path: Path) -> AppContext:
    (tmp_path / "workspace" / "datasets").mkdir(parents=True)
    (tmp_path / "allowed").mkdir()
    return AppContext(Workspace(tmp_path / "workspace"), (tmp_path / "allowed",))


def code_of(action: Any, *values: Any) -> str:
    with pytest.raises(UserError) as caught:
        action(*values)
    return caught.value.problems[0].code


def test_a_destination_is_a_name_or_a_path_in_an_allowed_folder(context: AppContext, tmp_path: Path) -> None:
    assert destination(context, " my cats ") == context.workspace.datasets_dir / "my cats"
    assert destination(context, str(tmp_path / "allowed" / "x")) == tmp_path / "allowed" / "x"
    assert destination(context, f"{tmp_path}/allowed/y/../x") == tmp_path / "allowed" / "x"
    datasets = context.workspace.datasets_dir
    assert destination(context, str(datasets / "x")) == datasets / "x"
    assert code_of(destination, context, str(context.workspace.dir / "runs" / "x")) == "path.not_allowed"
    for given in (None, "", "..", ".", "../x", "a/../b", "..\\x", ".hidden", "a:b", "CON", "x" * 300, "a\nb", "dot."):
        assert code_of(destination, context, given) == "dataset.name"
    (tmp_path / "allowed" / "link").symlink_to(tmp_path)
    (tmp_path / "allowed" / "end").symlink_to(tmp_path / "secret")
    for given in ("/etc/x", "~/x", f"{tmp_path}/allowed/../x", "allowed/link/x", "allowed/end"):
        path = str(tmp_path / given) if given.startswith("allowed") else given
        assert code_of(destination, context, path) == "path.not_allowed", given
    assert code_of(destination, context, str(tmp_path / "allowed" / "CON")) == "dataset.name"


def test_only_what_was_uploaded_is_taken_from_a_drop(tmp_path: Path) -> None:
    arrived = Path(get_upload_folder())
    assert dropped([{"path": str(arrived / "1" / "a.png"), "name": "x/a.png"}]) == [
        Upload((arrived / "1" / "a.png").resolve(), "x/a.png")
    ]
    for path in ("/etc/passwd", f"{arrived}/../../etc/passwd", str(tmp_path / "a.png"), "", None, 3):
        assert code_of(dropped, [{"path": path, "name": "a.png"}]) == "upload.unknown"
    assert code_of(dropped, [{"path": str(arrived / "a.png")}]) == "upload.unknown"
    assert code_of(dropped, ["x"]) == "upload.unknown"
    assert dropped("x") == dropped(None) == []


def uploads(*names: str) -> list[Upload]:
    return [Upload(Path(f"/up/{number}{Path(name).suffix}"), name) for number, name in enumerate(names)]


def test_dropped_files_go_to_the_open_dataset_or_a_new_one(context: AppContext, tmp_path: Path) -> None:
    datasets = context.workspace.datasets_dir
    assert drop_folder(context, uploads("a.png"), str(tmp_path / "allowed"), "") == tmp_path / "allowed"
    assert code_of(drop_folder, context, uploads("a.png"), "/etc", "") == "path.not_allowed"
    assert drop_folder(context, uploads("cats/a.png", "cats/b.png"), "", "") == datasets / "cats"
    assert drop_folder(context, uploads("cats.zip"), "", "") == datasets / "cats"
    assert drop_folder(context, uploads("a.png", "cats/b.png"), "", "") == datasets / "my-pictures"
    assert drop_folder(context, uploads("a.png"), "", " named ") == datasets / "named"
    assert code_of(drop_folder, context, uploads("../x/a.png", "../x/b.png"), "", "") == "dataset.name"


def test_the_one_folder_around_a_drop_goes_unless_it_says_repeats() -> None:
    assert [each.name for each in unwrapped(uploads("cats/a.png", "cats/10_x/b.png"))] == ["a.png", "10_x/b.png"]
    for names in (("10_cat/a.png",), ("a.png", "cats/b.png"), ("x/a.png", "y/a.png")):
        assert [each.name for each in unwrapped(uploads(*names))] == list(names)
    assert unwrapped([]) == []


def test_what_is_fetched(context: AppContext, tmp_path: Path) -> None:
    order = importing.order(context, "owner/name@v1", "mine", "test", "", "photo")
    workspace = f"--workspace={context.workspace.dir}"
    assert order.command == [
        "import", "hf://datasets/owner/name@v1", "--name=mine", workspace, "--split=test", "--image-column=photo"
    ]  # fmt: skip
    assert order.out == context.workspace.datasets_dir / "mine"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "state.json").touch()
    assert code_of(importing.order, context, str(tmp_path / "elsewhere"), "x", "", "", "") == "path.not_allowed"
    assert code_of(importing.order, context, "owner/name", "../x", "", "", "") == "dataset.name"
    assert code_of(importing.order, context, "", "x", "", "", "") == "import.unknown"


def test_reports_are_sentences() -> None:
    done = {"pictures": 1, "captions": 2, "masks": 1, "out": "/x", "notes": ["Note."], "skipped": []}
    assert written_report(done) == "1 picture, 2 captions, 1 mask in /x. Note."
    done["skipped"] = [{"path": "a.png", "reason": "it is damaged"}]
    assert written_report(done).endswith("a.png was left out: it is damaged.")
    assert split_report({"moved": 2, "left": 8, "together": 1}) == (
        "2 pictures to validate on, 8 left to train on. 1 group of alike ones stayed together. Undo takes it back."
    )
