"""The memory for cached captions changes how long a run takes, and nothing of what comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.recipe.tiny_runs import losses_of, make_pictures, of_type, train_here
from trainer.families.sd import SdFamily
from trainer.runs.store import Run, Workspace

ROW_GB = 77 * 64 * 4 / 2**30
"""An embedding of the demo model: 64 numbers for each of 77 tokens, in 32 bits."""
BUDGETS = {"all": 1.0, "some": 3.5 * ROW_GB, "none": 0.0}


@pytest.fixture
def folders(tmp_path: Path) -> list[dict[str, Any]]:
    """Wildcards in one folder, shuffled tags in the other: batches mix what is known with what is not."""
    varied = make_pictures(tmp_path / "varied", 4)
    for number in range(4):
        (varied / f"{number}.txt").write_text(f"a {{red|blue|green}} circle, {{big|small}}, number {number}")
    shuffled = make_pictures(tmp_path / "shuffled", 3)
    return [
        {"path": str(varied), "captions": {"wildcards": True, "dropout": 0.2}},
        {"path": str(shuffled), "captions": {"shuffle": True}},
    ]


def trained(config_of: Callable[..., Any], place: Path, sources: list[dict[str, Any]], gb: float, **more: Any) -> Run:
    cache = {"text_gb": gb}
    settings = {"train__max_steps": 5, "validation__split": 0.2, "validation__every_steps": 2, **more}
    config = config_of(dataset__sources=sources, dataset__cache=cache, dataset__captions={"suffix": "end"}, **settings)
    config.train.batch_size = 3
    run = Workspace(place).create_run(config)
    train_here(run)
    return run


def encoded_texts(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the text encoder was given, call by call, from now on."""
    calls: list[list[str]] = []
    encode = SdFamily.encode_captions

    def watched(family: SdFamily, captions: list[str], **options: Any) -> Any:
        calls.append(list(captions))
        return encode(family, captions, **options)

    monkeypatch.setattr(SdFamily, "encode_captions", watched)
    return calls


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_the_same_losses_and_the_same_lora_with_any_budget(
    precision: str,
    folders: list[dict[str, Any]],
    tmp_path: Path,
    config_of: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = encoded_texts(monkeypatch)
    seen = {}
    for name, gb in BUDGETS.items():
        if (precision, name) == ("bf16", "none"):
            continue  # nothing that the others do not show
        calls.clear()
        run = trained(config_of, tmp_path / name, folders, gb, train__mixed_precision=precision)
        tensors = run.output_path.read_bytes()
        validations = [event["loss"] for event in of_type(run, "validation")]
        seen[name] = losses_of(run), validations, tensors, sum(len(call) for call in calls)
    everything = seen["all"]
    assert all(found[:3] == everything[:3] for found in seen.values())
    assert len(everything[0]) == 5 and len(everything[1]) >= 2
    assert "none" not in seen or seen["none"][3] > seen["some"][3] > 0, "some were found on the shelf"


def test_the_log_says_how(folders: list[dict[str, Any]], tmp_path: Path, config_of: Callable[..., Any]) -> None:
    run = trained(config_of, tmp_path / "work", folders[:1], BUDGETS["some"])
    assert "more than dataset.cache.text_gb" in run.log_path.read_text()
    assert not list((tmp_path / "work" / "cache").glob("text/*")), "the disk has the same bound"


def test_embeddings_on_disk_are_used_by_a_shelf_too(
    folders: list[dict[str, Any]], tmp_path: Path, config_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(config_of, tmp_path / "work", folders[:1], 1.0)
    calls = encoded_texts(monkeypatch)
    run = trained(config_of, tmp_path / "work", folders[:1], 0.0)
    assert calls == [] and losses_of(run) == losses_of(whole)


def test_cached_is_as_on_the_fly(folders: list[dict[str, Any]], tmp_path: Path, config_of: Callable[..., Any]) -> None:
    """A batch at once rounds otherwise than one by one, so equal to rounding only."""
    cached = trained(config_of, tmp_path / "cached", folders, 1.0)
    config = cached.config()
    config.dataset.cache.text = False
    live = Workspace(tmp_path / "live").create_run(config)
    train_here(live)
    found, expected = (torch.tensor(list(losses_of(run).values())) for run in (live, cached))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
