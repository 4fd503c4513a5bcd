"""Previews and Generate read a prompt as training reads captions: its length, its emphasis, its layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.recipe.tiny_runs import Watcher, of_type, train_here
from trainer import sampling
from trainer.__main__ import main
from trainer.conditioning import caption_encoder
from trainer.config import Config
from trainer.config_io import parse_config
from trainer.data.text_plan import plan_texts
from trainer.errors import UserError
from trainer.families import load_family
from trainer.families.base import Conditioning, Family
from trainer.pictures import read_settings
from trainer.runs.store import Run, Workspace

LONG = "a red circle, " * 25 + "a (blue:1.4) square"
"""More than 75 tokens of the demo's tokenizer, fewer than 150; what differs stands at its end."""
READINGS: list[dict[str, Any]] = [
    {},
    {"max_token_length": 150},
    {"weighted": True},
    {"max_token_length": 225, "weighted": True},
]


@pytest.fixture(scope="module")
def demo() -> Family:
    config = parse_config({})
    return load_family(
        config.model, device=torch.device("cpu"), dtype=torch.float32, prediction_type="auto", zero_terminal_snr=False
    )


class _Enough(Exception):
    pass


def preview_embeddings(family: Family, config: Config, monkeypatch: pytest.MonkeyPatch) -> dict[str, Conditioning]:
    """What a preview's denoiser is given for prompt and negative prompt, caught on the way there."""
    given: list[Conditioning] = []

    def predict(noisy: Any, timestep: Any, condition: Conditioning, *others: Any, **named: Any) -> Any:
        given.append(condition)
        raise _Enough

    with monkeypatch.context() as patch:
        patch.setattr(family, "predict", predict)
        with pytest.raises(_Enough):
            sampling.draw_prompt(family, config, config.samples.prompts[0], (64, 64))
    negative, prompt = given[0].hidden_states.chunk(2)
    return {"prompt": Conditioning(prompt, {}), "negative": Conditioning(negative, {})}


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("clip_skip", [1, 2])
def test_a_preview_reads_what_training_reads(
    demo: Family, reading: dict[str, Any], clip_skip: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = {"prompt": LONG, "negative": "a (green:0.5) star"}
    config = parse_config(
        {"dataset": {"captions": reading}, "train": {"clip_skip": clip_skip}, "samples": {"prompts": [line]}}
    )
    encode = caption_encoder(demo, config, plan_texts(config, [LONG], True, 0), tmp_path, Watcher(), lambda: None)
    given = preview_embeddings(demo, config, monkeypatch)
    for name, text in line.items():
        assert torch.equal(given[name].hidden_states, encode([text]).hidden_states), name


def drawn(config_of: Any, folder: Path, lines: list[str], **captions: Any) -> list[tuple[dict[str, Any], np.ndarray]]:
    """Settings and pixels of the previews of one run."""
    config = config_of(train__max_steps=1, samples__every_steps=1, samples__prompts=lines, dataset__captions=captions)
    run: Run = Workspace(folder).create_run(config)
    train_here(run)
    paths = [run.dir / event["path"] for event in of_type(run, "sample")]
    return [(read_settings(path), np.asarray(Image.open(path))) for path in paths]


def test_the_tail_and_the_emphasis_of_a_prompt_reach_the_preview(config_of: Any, tmp_path: Path) -> None:
    flags = " --w 64 --h 64 --s 2"
    lines = [LONG + flags, LONG.replace("square", "star") + flags, LONG.replace("1.4", "0.2") + flags]
    (_, short), (_, short_other), _ = drawn(config_of, tmp_path / "short", lines)
    assert np.array_equal(short, short_other), "75 tokens end before the tail"
    plain = drawn(config_of, tmp_path / "long", lines, max_token_length=150)
    assert plain[0][0]["max_token_length"] == 150
    assert not np.array_equal(plain[0][1], plain[1][1]), "150 tokens read it"
    weighted = drawn(config_of, tmp_path / "weighted", lines, max_token_length=150, weighted=True)
    assert weighted[0][0]["weighted"]
    assert not np.array_equal(weighted[0][1], plain[0][1])
    assert not np.array_equal(weighted[0][1], weighted[2][1])


def generate(folder: Path, capfd: pytest.CaptureFixture[str], prompt: str, *options: str) -> np.ndarray:
    arguments = ["generate", "--prompt", prompt, "--out", str(folder), "--steps", "2", "--width", "64", "--json"]
    assert main([*arguments, "--height", "64", *options]) == 0
    picture = Path(json.loads(capfd.readouterr().out)["pictures"][0])
    settings = read_settings(picture)
    assert settings["weighted"] == ("--weighted" in options)
    return np.asarray(Image.open(picture))


def test_generate_reads_long_and_weighted_prompts(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    other = LONG.replace("square", "star")
    plain = generate(tmp_path, capfd, LONG)
    assert np.array_equal(plain, generate(tmp_path, capfd, other))
    length = ("--max-token-length", "150")
    long = generate(tmp_path, capfd, LONG, *length)
    assert not np.array_equal(long, generate(tmp_path, capfd, other, *length))
    assert not np.array_equal(long, generate(tmp_path, capfd, LONG, *length, "--weighted"))
    assert not np.array_equal(plain, generate(tmp_path, capfd, LONG, "--clip-skip", "2"))


def test_a_wrong_length_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["generate", "--prompt", "a", "--out", str(tmp_path), "--max-token-length", "100", "--json"]
    assert main(arguments) == 2
    (problem,) = json.loads(capfd.readouterr().out)["error"]
    assert problem["field"] == "max_token_length"
    assert "75, 150 or 225" in problem["message"]


def test_a_clip_skip_beyond_the_model_is_told_before_the_work(config_of: Any, workspace: Workspace) -> None:
    run = workspace.create_run(config_of(samples__prompts=["a --cs 2", "b --cs 3", "c --cs 12"]))
    with pytest.raises(UserError) as caught:
        train_here(run)
    assert [p.field for p in caught.value.problems] == ["samples.prompts.1.clip_skip", "samples.prompts.2.clip_skip"]
    assert not of_type(run, "metric")
