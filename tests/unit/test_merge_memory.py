"""What the Merge tab remembers: all that was typed and is whole, and nothing of a damaged file."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.runs.store import Workspace
from ui.lora_choices import RowUse
from ui.lora_tools.merge_memory import FIRST_NAME, LastMerge, MergeMemory
from ui.lora_tools.merge_orders import MergeHow, fields_of, how_of

USES = [RowUse("/l/ink.safetensors", -0.5, "unet.mid_block:2"), RowUse("/l/line.safetensors", 3.0)]


@pytest.fixture
def memory(tmp_path: Path) -> MergeMemory:
    return MergeMemory(Workspace(tmp_path))


def test_it_comes_back_as_it_was(memory: MergeMemory) -> None:
    assert memory.last() is None
    how = MergeHow(target="folder", mode="dare", rank=4, conv_rank=2, density=0.25, seed=7, name="both")
    memory.keep(USES, {"seed": 9, "width": 64, "height": 64}, how=how, prompts=["a", "b"], request="r", sum="s")
    last = memory.last()
    assert last is not None and last.uses == USES and last.how == how
    assert (last.settings.seed, last.settings.width, last.settings.steps) == (9, 64, 12)
    assert (last.prompts, last.request, last.sum) == (["a", "b"], "r", "s")
    assert how_of(fields_of(how)) == how


def test_what_is_left_out_or_half_typed_stays_as_it_was(memory: MergeMemory) -> None:
    memory.keep(USES, {"seed": 9}, request="r")
    memory.keep(USES[:1], {"model": "other/model"}, how=MergeHow(name="x"))
    last = memory.last()
    assert last is not None and last.uses == USES[:1] and last.how.name == "x"
    assert (last.settings.seed, last.settings.model, last.request) == (9, "other/model", "r")
    memory.keep(USES, {"steps": 0})
    memory.keep([RowUse("/l/ink.safetensors", 1.0, "nonsense")], {})
    memory.keep(USES, {}, prompts=[])
    assert memory.last() == last
    with pytest.raises(ValueError):
        how_of(["lora", "no mode", 16, 0, 0.5, 0, "", "m", False])


@pytest.mark.parametrize("text", ["", "[]", '{"settings": {"steps": 0}}', '{"prompts": []}', "{"])
def test_a_damaged_file_is_none(memory: MergeMemory, tmp_path: Path, text: str) -> None:
    (tmp_path / "last_combine.json").write_text(text)
    assert memory.last() is None
    memory.keep(USES, {})
    last = memory.last()
    assert last is not None and last.how.name == FIRST_NAME and last.prompts == LastMerge().prompts
