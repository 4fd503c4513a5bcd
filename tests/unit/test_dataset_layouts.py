"""Every way in which people bring pictures and captions, up to the batches that are trained on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.dataset_samples import Recorded, config_for, never_stop, write_picture
from trainer.conditioning import caption_encoder
from trainer.config import ModelSettings
from trainer.data.caption_tables import read_table_files
from trainer.data.training_set import prepare_training_set
from trainer.families import load_family
from trainer.families.base import Family

Seen = Counter[tuple[str, float]]
"""How often each caption is trained on in an epoch, with its weight in the loss."""


@pytest.fixture(scope="module")
def family() -> Family:
    return load_family(ModelSettings(), device=torch.device("cpu"), dtype=torch.float32)


def kohya_folders(root: Path) -> tuple[list[dict[str, Any]], Seen]:
    """Repeats and class prompts in folder names, a caption file that wins over them, and regularization likewise."""
    write_picture(root / "img" / "3_sks dog" / "a.png", seed=1)
    write_picture(root / "img" / "3_sks dog" / "b.png", seed=2, caption="sks dog on grass")
    write_picture(root / "img" / "1_sks cat" / "c.png", seed=3)
    write_picture(root / "reg" / "1_dog" / "d.png", seed=4)
    write_picture(root / "reg" / "1_dog" / "e.png", seed=5)
    sources = [{"path": str(root / "img")}, {"path": str(root / "reg"), "is_regularization": True}]
    own: Seen = Counter({("sks dog", 1.0): 3, ("sks dog on grass", 1.0): 3, ("sks cat", 1.0): 1})
    return sources, own + Counter({("dog", 0.5): 7})


def jsonl_table(root: Path) -> tuple[list[dict[str, Any]], Seen]:
    write_picture(root / "train" / "a.png", seed=1)
    write_picture(root / "train" / "sub" / "b.png", seed=2)
    rows = [{"file_name": "a.png", "text": "no", "long": "one"}, {"file_name": "sub/b.png", "long": "two"}]
    (root / "train" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sources = [{"path": str(root / "train"), "repeats": 2, "caption_column": "long"}]
    return sources, Counter({("one", 1.0): 2, ("two", 1.0): 2})


def csv_table(root: Path) -> tuple[list[dict[str, Any]], Seen]:
    write_picture(root / "a.png", seed=1)
    write_picture(root / "b.png", seed=2, caption="beside it")
    (root / "metadata.csv").write_text('file_name,text\na.png,"one, with a comma"\nb.png,two\n')
    return [{"path": str(root)}], Counter({("one, with a comma", 1.0): 1, ("beside it", 1.0): 1})


def kohya_json(root: Path) -> tuple[list[dict[str, Any]], Seen]:
    """The table of sd-scripts' fine-tuning, with full paths of another machine, beside the folder of pictures."""
    write_picture(root / "in" / "a.png", seed=1)
    write_picture(root / "in" / "b.png", seed=2)
    table = {"/elsewhere/a": {"caption": "a dog", "tags": "dog, grass"}, "/elsewhere/b": {"tags": "cat"}}
    (root / "meta_cap.json").write_text(json.dumps(table))
    sources = [{"path": str(root / "in"), "metadata_file": str(root / "meta_cap.json")}]
    return sources, Counter({("a dog, dog, grass", 1.0): 1, ("cat", 1.0): 1})


def own_settings(root: Path) -> tuple[list[dict[str, Any]], Seen]:
    """Two folders with repeats, class prompt and caption settings of their own."""
    write_picture(root / "one" / "a.png", seed=1, caption="a, b")
    write_picture(root / "two" / "b.png", seed=2)
    one = {
        "path": str(root / "one"),
        "repeats": 2,
        "captions": {"prefix": "photo,", "tag_dropout": 1, "keep_tokens": 1},
    }
    two = {"path": str(root / "two"), "class_prompt": "thing"}
    return [one, two], Counter({("photo", 1.0): 2, ("thing", 1.0): 1})


def saved_data_set(root: Path) -> tuple[list[dict[str, Any]], Seen]:
    """Hugging Face's `datasets`, where that package is installed."""
    library = pytest.importorskip("datasets", reason="the optional package `datasets` is not installed")
    pictures = [str(write_picture(root / f"{number}.png", seed=number)) for number in range(2)]
    columns = {"picture": pictures, "words": ["one", "two"]}
    library.Dataset.from_dict(columns).cast_column("picture", library.Image()).save_to_disk(root / "saved")
    source = {"path": str(root / "saved"), "image_column": "picture", "caption_column": "words", "repeats": 2}
    return [source], Counter({("one", 1.0): 2, ("two", 1.0): 2})


@pytest.mark.parametrize("layout", [kohya_folders, jsonl_table, csv_table, kohya_json, own_settings, saved_data_set])
@pytest.mark.parametrize("cached", [True, False], ids=["cached", "as they come"])
def test_an_epoch_shows_what_the_layout_says(
    layout: Callable[[Path], tuple[list[dict[str, Any]], Seen]],
    cached: bool,
    family: Family,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    sources, expected = layout(tmp_path / "data")
    train = {"batch_size": 2, "prior_loss_weight": 0.5}
    config = config_for(dataset={"sources": sources, "cache": {"latents": cached}}, train=train)
    data = prepare_training_set(config, family, tmp_path / "cache", Recorded(), never_stop)
    for epoch in range(2):
        seen: Seen = Counter()
        for index in range(data.batches_per_epoch):
            batch = data.batch(epoch * data.batches_per_epoch + index)
            assert batch.latents.shape[1:] == (4, 8, 8) and torch.isfinite(batch.latents).all()
            seen.update(zip(batch.captions, batch.loss_weights.tolist(), strict=True))
        assert seen == expected


@pytest.mark.parametrize("to_disk", [True, False])
def test_caches_are_on_disk_only_where_asked_for(family: Family, tmp_path: Path, to_disk: bool) -> None:
    """Latents, masks and captions alike."""
    write_picture(tmp_path / "in" / "a.png", caption="a dog")
    dataset = {"sources": [{"path": str(tmp_path / "in")}], "cache": {"to_disk": to_disk}}
    config = config_for(dataset=dataset, loss={"masked": "alpha"})
    data = prepare_training_set(config, family, tmp_path / "cache", Recorded(), never_stop)
    caption_encoder(family, config, data.text_plan, tmp_path / "cache", Recorded(), never_stop)
    kinds = {path.relative_to(tmp_path / "cache").parts[0] for path in (tmp_path / "cache").rglob("*.safetensors")}
    assert kinds == ({"latents", "text"} if to_disk else set())


@pytest.mark.parametrize("name", ["metadata.jsonl", "meta_cap.json"])
def test_a_table_with_brackets_without_end_is_told(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text('{"a": ' + "[" * 100_000)
    found = read_table_files([tmp_path / name])
    assert [problem.code for problem in found.warnings] == ["dataset.caption_table"]
