"""Files of older versions are read for ever, and those of newer ones are refused with a word."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
from PIL import Image
from schema_compared import bare, narrowed

from trainer.__main__ import main
from trainer.checkpoint_folders import MANIFEST, is_valid, newest_checkpoint
from trainer.config import Config
from trainer.config_io import load_config, parse_config
from trainer.curation.edit_log import EditLog
from trainer.curation.steps import Change
from trainer.errors import UserError
from trainer.files import read_json, write_json
from trainer.grids.spec import parse_grid
from trainer.grids.store import Grid, GridInfo, create_grid
from trainer.pictures import OUR_CHUNK, read_settings, save_png
from trainer.runs.store import RunInfo, Workspace
from trainer.versions import CONFIG, FORMATS, GRID, PICTURE, RUN, FileFormat
from ui import run_html
from ui.run_list import RunListReader

DATA = Path(__file__).parents[1] / "data"
CHECKPOINT_OF_OLD = DATA / "old_runs" / "2026-11-d" / "checkpoints" / "step-000006"
FROZEN = DATA / "old_files" / f"config-{CONFIG.version}.json"


def _doubled(values: dict[str, Any]) -> dict[str, Any]:
    return values | {"speed": 2 * values["speed"]}


def _renamed(values: dict[str, Any]) -> dict[str, Any]:
    return {"parts": values["parts"] | {"rate": values["speed"]}}


THREE = FileFormat("thing", "the thing", (_doubled, _renamed))


@pytest.mark.parametrize("said", [{}, {"version": 1}])
def test_steps_are_taken_one_after_another_and_leave_what_was_read(said: dict[str, Any]) -> None:
    given = {**said, "speed": 3, "parts": {"a": 1}}
    assert THREE.read(given) == {"version": 3, "parts": {"a": 1, "rate": 6}}
    assert given == {**said, "speed": 3, "parts": {"a": 1}}
    assert THREE.read({"version": 2, "speed": 3, "parts": {}}) == {"version": 3, "parts": {"rate": 3}}
    assert THREE.read({"version": 3, "parts": {}, "extra": [1]}) == {"version": 3, "parts": {}, "extra": [1]}


@pytest.mark.parametrize("version", [0, -1, 1.0, True, "2", None, [1]])
def test_what_is_no_version_is_left_for_the_model(version: Any) -> None:
    assert THREE.read({"version": version, "speed": 1}) == {"version": version, "speed": 1}
    assert THREE.read([version]) == [version]


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.code)
def test_newer_ones_are_told_with_what_to_do(kind: FileFormat) -> None:
    with pytest.raises(UserError) as caught:
        kind.read({"version": kind.version + 1})
    (problem,) = caught.value.problems
    assert (problem.code, problem.field) == (f"{kind.code}.newer", "version")
    assert f"{kind.version + 1} of {kind.name} was written by a newer LoRA Atelier" in problem.message
    assert f"up to {kind.version}." in problem.message
    assert problem.hint == "Update the program."


@pytest.mark.parametrize(("model", "kind"), [(Config, CONFIG), (RunInfo, RUN), (GridInfo, GRID)])
def test_models_write_the_version_of_their_format(model: Any, kind: FileFormat) -> None:
    field = model.model_fields["version"]
    assert field.default == kind.version
    assert get_args(field.annotation) == (kind.version,)


def test_no_setting_is_gone_renamed_or_narrowed_without_a_step() -> None:
    """What the frozen schema allows is still allowed; settings may be added.

    A change that is meant needs a function in ``CONFIG.steps``. ``LORA_ATELIER_FREEZE=1`` then writes the schema of
    the version that follows, or takes new settings into that of this one.
    """
    schema = Config.model_json_schema()
    now = bare(schema, schema["$defs"])
    if os.environ.get("LORA_ATELIER_FREEZE"):
        assert not FROZEN.exists() or not list(narrowed(now, read_json(FROZEN)))
        FROZEN.write_text(json.dumps(now, separators=(",", ":")) + "\n")
    assert list(narrowed(now, read_json(FROZEN))) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda sections: sections["train"]["properties"].pop("seed"), "train.seed is gone"),
        (lambda sections: sections["lora"]["properties"]["rank"].update(maximum=512), "lora.rank: maximum"),
        (lambda sections: sections["lora"]["properties"]["alpha"].update(type="integer"), "lora.alpha was of type"),
        (lambda sections: sections["lora"]["properties"]["type"]["enum"].remove("loha"), "lora.type allowed ['loha']"),
        (lambda sections: sections["model"]["properties"]["vae"].update(anyOf=[{"type": "string"}]), "model.vae was"),
        (lambda sections: sections["name"].update(pattern="a+"), "name: another pattern"),
        (lambda sections: sections["train"].update(required=["x"]), "train.x is required"),
    ],
)  # fmt: skip
def test_such_changes_are_seen(change: Any, complaint: str) -> None:
    before, now = read_json(FROZEN), read_json(FROZEN)
    change(now["properties"])
    found = list(narrowed(now, before))
    assert len(found) == 1
    assert found[0].startswith(complaint)


def test_a_newer_config_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("version: 2\nbrand_new: {a: 1}\n")
    with pytest.raises(UserError, match=r"newer LoRA Atelier.*Update the program") as caught:
        load_config(path)
    assert len(caught.value.problems) == 1, "what else is wrong with it only a newer program could say"
    assert path.read_text() == "version: 2\nbrand_new: {a: 1}\n"
    assert parse_config({"name": "x"}) == parse_config({"name": "x", "version": 1})


def test_a_newer_run_is_told_in_the_list_and_at_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    workspace = Workspace(tmp_path)
    old, new, broken = (workspace.create_run(Config(name=name)) for name in ("old", "new", "broken"))
    write_json(new.info_path, {"version": 2, "who knows": "what"})
    broken.info_path.write_text("{")
    reader = RunListReader(workspace)
    listed = reader.read()
    assert [info.id for info in listed.infos] == [old.id]
    told = "1 run was made by a newer LoRA Atelier and is not listed. Update the program."
    assert told in run_html.run_list(listed, "")
    assert reader.read() is listed
    assert main(["runs", "list", "--json", "--workspace", str(tmp_path)]) == 0
    out, err = capfd.readouterr()
    assert [run["id"] for run in json.loads(out)["runs"]] == [old.id]
    assert told in err
    assert main(["resume", str(new.dir), "--json"]) == 2
    assert json.loads(capfd.readouterr().out)["error"][0]["code"] == "run.newer"
    shutil.rmtree(new.dir)
    assert "newer" not in run_html.run_list(reader.read(), "")


def test_a_newer_checkpoint_is_not_taken_for_a_damaged_one(tmp_path: Path) -> None:
    checkpoint = tmp_path / "step-000006"
    shutil.copytree(CHECKPOINT_OF_OLD, checkpoint)
    assert is_valid(checkpoint)
    write_json(checkpoint / MANIFEST, read_json(checkpoint / MANIFEST) | {"version": 2})
    with pytest.raises(UserError, match="newer LoRA Atelier"):
        newest_checkpoint(tmp_path, pytest.fail)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000006"], "it is not set aside"


def test_pictures_say_their_version_and_newer_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    save_png(Image.new("RGB", (8, 8)), path, {"prompt": "fox"})
    with Image.open(path) as picture:
        assert json.loads(picture.info[OUR_CHUNK]) == {"version": PICTURE.version, "prompt": "fox"}
    assert read_settings(path) == {"prompt": "fox"}
    save_png(Image.new("RGB", (8, 8)), path, {"prompt": "fox", "version": 2})
    with pytest.raises(UserError, match="newer LoRA Atelier"):
        read_settings(path)


def test_a_newer_grid_is_refused(tmp_path: Path) -> None:
    grid = create_grid(tmp_path / "g", parse_grid({"x": {"kind": "seed", "values": "1-3"}}))
    values = read_json(grid.dir / "grid.json")
    assert values["version"] == GRID.version
    write_json(grid.dir / "grid.json", values | {"version": 2})
    with pytest.raises(UserError, match="newer LoRA Atelier"):
        grid.read()


def test_a_newer_edit_is_not_taken_back_and_nothing_changes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("cat")
    log = EditLog(tmp_path / "state", tmp_path)
    log.apply("replace", [Change("a.txt", "cat", "dog")])
    edit = tmp_path / "state" / "000001.jsonl"
    edit.write_text(edit.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(UserError, match="newer LoRA Atelier"):
        log.undo()
    assert (tmp_path / "a.txt").read_text() == "dog"
    assert log.titles() == ("replace", "")


def test_a_grid_of_before_versions_is_read() -> None:
    folder = DATA / "old_files" / "grid-2026-11"
    before = (folder / "grid.json").read_bytes()
    spec = Grid(folder).read().spec
    assert spec.shape == (3, 3, 1)
    assert [spec.settings_of(cell).seed for cell in spec.cells()][:3] == [1, 2, 3]
    assert (folder / "grid.json").read_bytes() == before


def test_edits_of_before_versions_are_taken_back(tmp_path: Path) -> None:
    shutil.copytree(DATA / "old_files" / "edits-2026-11", tmp_path / "state")
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "c.png").write_bytes(b"x")
    for name, text in {"a": "dog", "b": "chien à", "d": "new"}.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    log = EditLog(tmp_path / "state", folder)
    assert [edit.title for edit in log.history()] == ["move", "replace"]
    assert [(outcome.written, outcome.conflicts) for outcome in log.go_to(0)] == [(3, ()), (1, ())][::-1]
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == ["a.txt", "b.txt", "c.png"]
    assert (folder / "a.txt").read_text() == "cat"
    assert (folder / "b.txt").read_bytes() == "chat à".encode("latin-1"), "in the encoding that it had"
