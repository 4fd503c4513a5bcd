"""Texts that look like options, files of arguments or line ends: nothing that somebody types becomes an option.

What the page orders is read back by the very parser of the command, as the job's process does it.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.unit.lora_samples import lora
from trainer.__main__ import command_parser
from trainer.errors import UserError
from trainer.jobs import jobs
from trainer.lora.file import write_lora
from trainer.lora.strengths import parse_loras
from trainer.pictures import LoraUse
from trainer.runs.store import Workspace
from ui.context import AppContext
from ui.dataset import caption_orders, transfer
from ui.dataset.caption_orders import CaptionRequest
from ui.dataset.desk import DatasetDesk, View
from ui.lora_choices import check_model
from ui.lora_tools import convert, extract, resize
from ui.lora_tools.merge_orders import Merge, merge_order

TRICKS = [
    "--workspace=/x", "--overwrite", "--help", "-h", "--set", "--set=model.base=x", "--json", "--", "-", "@file", "-1",
    "--events=/x/events", "--review", "a --overwrite", "a\n--overwrite", "a\r--zip", "a\0--overwrite", "=", "a=2",
    "--model", "--out=/x/o", "$(touch x)", "'; touch x; '", "%s%n", "{0}", "--trigger=x", "\u2014out", "--lora", "1e9",
]  # fmt: skip
"""Typed into fields; those with characters that no file name may have are refused as names."""


@pytest.fixture
def context(tmp_path: Path) -> AppContext:
    context = AppContext(Workspace(tmp_path / "workspace"))
    folder = context.workspace.datasets_dir / "--set"
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "--overwrite.png")
    return context


@pytest.fixture
def desk(context: AppContext) -> DatasetDesk:
    return DatasetDesk(context)


@pytest.fixture
def view(desk: DatasetDesk) -> View:
    return desk.open(str(desk.workspace.datasets_dir / "--set")).view


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are written down, and that is what is looked at; this process stands for theirs."""

    class Started:
        pid = 1

    monkeypatch.setattr("trainer.jobs.start_detached", lambda *_, **__: Started())


def read_back(command: list[str]) -> argparse.Namespace:
    """The arguments as the job's process understands them."""
    module = importlib.import_module(f"trainer.commands.{command[0]}")
    return command_parser(command[0], module).parse_args(command[1:])


def defaults_of(command: str, *needed: str) -> dict[str, Any]:
    return vars(read_back([command, *needed]))


def ordered(workspace: Workspace) -> argparse.Namespace:
    """The one job that was ordered; forgotten then."""
    (job,) = jobs(workspace)
    command = job.command
    shutil.rmtree(workspace.jobs_dir)
    return read_back(command)


@pytest.mark.parametrize("text", TRICKS)
def test_captions(desk: DatasetDesk, view: View, text: str) -> None:
    wording = {"trigger": text, "prefix": text, "suffix": text, "remove": [text]}
    caption_orders.start(desk, view, CaptionRequest("fixed", {"prompt": text}, wording, scope="all"))
    args = ordered(desk.workspace)
    assert (args.trigger, args.prefix, args.suffix, args.remove) == (text, text, text, [text])
    assert args.folder == desk.workspace.datasets_dir / "--set" and args.workspace == desk.workspace.dir
    changed = {"folder", "workspace", "trigger", "prefix", "suffix", "remove", "captioner", "names", "set"}
    same = {name: value for name, value in defaults_of("caption", "x").items() if name not in changed}
    assert {name: vars(args)[name] for name in same} == same


@pytest.mark.parametrize("text", TRICKS)
def test_exports(desk: DatasetDesk, view: View, text: str) -> None:
    try:
        transfer.order_export(desk, view, "all", "kohya", text, "", False, "3", text, text, "")
    except UserError as refused:
        assert refused.problems[0].field == "name"
        transfer.order_export(desk, view, "all", "kohya", "good", "", False, "3", text, text, "")
    args = ordered(desk.workspace)
    assert (args.concept, args.class_word, args.repeats, args.zip) == (text, text, 3, False)
    assert args.out.parent == desk.workspace.datasets_dir and args.masks is args.regularization is None


@pytest.fixture
def loras(context: AppContext) -> list[Path]:
    """Good files with all names that a file may have."""
    context.workspace.models_dir.mkdir(parents=True)
    names = [name for name in TRICKS if "\0" not in name and "/" not in name]
    paths = [context.workspace.models_dir / f"{name}.safetensors" for name in names]
    for path in paths:
        write_lora(path, lora(), precision=None)
    return paths


def test_files_of_loras(context: AppContext, loras: list[Path]) -> None:
    for path in loras:
        for command in (
            resize.order(context, str(path), 2, None, "", None, "good", False).command,
            convert.order(context, str(path), "diffusers", None, "", "good", False).command,
        ):
            args = read_back(command)
            assert (args.lora, args.overwrite, args.json) == (path, False, False)
        merge = Merge(loras=[LoraUse(path=str(path), weight=-0.5)], model="demo", name="good")
        args = read_back(merge_order(context.workspace, merge).command)
        assert [(file, strength.overall) for file, strength in parse_loras(args.lora)] == [(path, -0.5)]
        assert not args.overwrite and not args.dry_run and args.base is None


@pytest.mark.parametrize("text", TRICKS)
def test_models(context: AppContext, text: str) -> None:
    """One that is none is refused before a job is ordered."""
    with pytest.raises(UserError):
        check_model(context, text)
    with pytest.raises(UserError):
        context.allowed_model(text)
    assert extract.order(context, text, text, 4, None, 1.0, 0, "good", False).problems


def test_new_names(context: AppContext, loras: list[Path]) -> None:
    """A name becomes a file of the workspace, or is refused."""
    refused = []
    for text in TRICKS:
        order = merge_order(context.workspace, Merge(loras=[LoraUse(path=str(loras[0]))], model="demo", name=text))
        if order.problems:
            refused.append(text)
            continue
        args = read_back(order.command)
        assert (args.out, args.overwrite) == (context.workspace.models_dir / f"{text}.safetensors", False)
    assert {"--workspace=/x", "a\n--overwrite", "a\0--overwrite"} <= set(refused) < set(TRICKS)
