"""A real run, evaluated at its checkpoints: numbers against independent computations, and what is not done twice."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from tests.recipe.tiny_runs import Watcher, make_pictures, of_type, train_here
from tests.tiny_clip import tiny_clip, unit
from trainer.__main__ import main
from trainer.checkpoint_folders import LORA
from trainer.demo import MODEL_DIR
from trainer.devices import seeded_generator
from trainer.errors import UserError
from trainer.evaluating.evaluate import evaluate
from trainer.evaluating.examiner import Examiner
from trainer.evaluating.results import Evaluation, evaluation_of
from trainer.evaluating.settings import parse_evaluation
from trainer.runs.store import Run, Workspace

STEPS = (2, 4, 6)
PROMPT = "a plain house"
PREVIEW = "a big red circle, number 1"


@pytest.fixture(scope="module")
def run(config_of, tmp_path_factory: pytest.TempPathFactory) -> Run:
    workspace = Workspace(tmp_path_factory.mktemp("workspace"))
    held_out = make_pictures(tmp_path_factory.mktemp("held-out"), count=2)
    values: dict[str, Any] = {
        "train__max_steps": 6,
        "train__learning_rate": 5e-3,
        "lora__target": "attention",
        "validation__path": str(held_out),
        "validation__every_steps": 2,
        "validation__timesteps": 2,
        "output__save_every_steps": 2,
        "output__keep_best": True,
        "samples__prompts": [f"{PREVIEW} --s 1"],
    }
    run = workspace.create_run(config_of(**values))
    train_here(run)
    return run


def settings_of(**values: Any) -> Any:
    return parse_evaluation({"pictures": 2, "steps": 1, "drift_prompts": [PROMPT], **values})


def evaluated(run: Run, watcher: Watcher | None = None, steps: tuple[int, ...] = (), **values: Any) -> Evaluation:
    events = watcher or Watcher()
    return evaluate(run, settings_of(**values), steps, workspace=run.workspace, events=events)


@pytest.fixture(scope="module")
def evaluation(run: Run) -> Evaluation:
    return evaluated(run)


def test_the_loss_is_that_of_training_and_the_best_is_the_one_it_marked(run: Run, evaluation: Evaluation) -> None:
    told = {event["step"]: event["loss"] for event in of_type(run, "validation")}
    found = {each.step: each.validation_loss for each in evaluation.checkpoints}
    assert list(found) == [0, *STEPS]
    assert found == pytest.approx(told, rel=1e-5)
    assert evaluation.held_out and evaluation.validated_pictures == 2
    marked = [event["step"] for event in of_type(run, "checkpoint") if event["best"]][-1]
    assert evaluation.best == marked == min(STEPS, key=lambda step: told[step])


def test_drift_is_what_the_unet_with_the_lora_added_by_hand_gives(run: Run, evaluation: Evaluation) -> None:
    """Weights merged by hand into diffusers' own UNet, in float64."""
    config, folder = run.config(), evaluation_of(run.dir)
    lora_path = run.checkpoints_dir / "step-000006" / LORA
    examiner = Examiner(
        config, settings_of(metrics=["drift"]), folder, lora=lora_path, cache_dir=run.workspace.cache_dir,
        device=torch.device("cpu"), events=Watcher(),
    )  # fmt: skip
    (probe,) = examiner._probes
    plain = UNet2DConditionModel.from_pretrained(MODEL_DIR / "unet").double().eval()
    with_lora = UNet2DConditionModel.from_pretrained(MODEL_DIR / "unet").double().eval()
    tensors = load_file(lora_path)
    added = 0
    for name, module in with_lora.named_modules():
        key = f"lora_unet_{name.replace('.', '_')}"
        if f"{key}.lora_up.weight" in tensors:
            up, down = (tensors[f"{key}.lora_{part}.weight"].double() for part in ("up", "down"))
            change = float(tensors[f"{key}.alpha"]) / len(down) * (up.flatten(1) @ down.flatten(1))
            module.weight.data += change.reshape(module.weight.shape)
            added += 1
    assert added == len(tensors) // 3 and config.lora.train == "unet"
    moved = whole = 0.0
    for timestep in (250, 750):
        noise = torch.randn(
            probe.latents.shape, generator=seeded_generator(config.train.seed, "drift", PROMPT, timestep)
        )
        alpha = float(examiner._family.alphas_cumprod[timestep])
        noisy = math.sqrt(alpha) * probe.latents.double() + math.sqrt(1 - alpha) * noise.double()
        with torch.no_grad():
            states = probe.condition.hidden_states.double()
            before, now = (unet(noisy, timestep, states).sample for unet in (plain, with_lora))
        moved += float((now - before).square().sum())
        whole += float(before.square().sum())
    found = {each.step: each.drift for each in evaluation.checkpoints}
    assert found[6] == pytest.approx(math.sqrt(moved / whole), rel=1e-3)
    assert found[0] == 0 and found[6] > found[2] > 0


def test_pictures_are_kept_beside_the_training_picture_they_are_nearest_to(run: Run, evaluation: Evaluation) -> None:
    pictures = evaluation_of(run.dir).pictures
    sources = {source.path for source in run.config().dataset.sources}
    for row in evaluation.checkpoints:
        assert [each.seed for each in row.drawn] == [42, 43] and row.copies == 0
        for each in row.drawn:
            assert each.nearest is not None and -1 <= each.nearest.similarity < 1
            assert str(Path(each.nearest.source).parent) in sources
            assert (pictures / each.picture).is_file() and (pictures / each.nearest.picture).is_file()


def test_similarity_is_the_mean_cosine_of_the_pictures_that_were_kept(run: Run, tmp_path: Path) -> None:
    """All pairs, one by one, in float64; the pictures are read back from their files."""
    clip = tiny_clip(tmp_path / "clip")
    copy = Run(shutil.copytree(run.dir, tmp_path / "runs" / "copy"))
    found = evaluated(copy, steps=(4,), metrics=["similarity"], model=str(tmp_path / "clip"))
    processor = CLIPImageProcessorPil.from_pretrained(tmp_path / "clip")

    def looks(paths: list[Path]) -> np.ndarray:
        pixels = processor(images=[Image.open(path).convert("RGB") for path in paths], return_tensors="pt").pixel_values
        return unit(clip.get_image_features(pixels.double()).pooler_output)

    training = looks(sorted(Path(run.config().dataset.sources[0].path).glob("*.png")))
    tokens = CLIPTokenizer.from_pretrained(tmp_path / "clip")(PREVIEW, return_tensors="pt")
    (text,) = unit(clip.get_text_features(**tokens).pooler_output)
    for row in found.checkpoints:
        drawn = looks([evaluation_of(copy.dir).pictures / each.picture for each in row.drawn])
        pairs = [float(ours @ theirs) for ours in drawn for theirs in training]
        assert len(pairs) == 2 * 3 and row.image_similarity == pytest.approx(sum(pairs) / len(pairs), abs=1e-4)
        assert row.prompt_similarity == pytest.approx(sum(float(each @ text) for each in drawn) / 2, abs=1e-4)
        assert row.validation_loss is None and row.copies is None


def test_what_is_known_is_not_measured_again(run: Run, evaluation: Evaluation, tmp_path: Path) -> None:
    watcher = Watcher()
    assert evaluated(run, watcher) == evaluation and watcher.events == []

    copy = Run(shutil.copytree(run.dir, tmp_path / "runs" / "copy"))
    (evaluation_of(copy.dir).dir / "step-000004.json").unlink()  # as if it had been stopped there
    watcher = Watcher()
    events_before = copy.events_path.read_bytes()
    again = evaluated(copy, watcher)
    assert [event["step"] for event in watcher.events if event["type"] == "evaluation"] == [4]
    assert [each.validation_loss for each in again.checkpoints] == [
        each.validation_loss for each in evaluation.checkpoints
    ]
    assert copy.events_path.read_bytes() == events_before, "the run's own events are its trainer's"


def test_the_command_takes_one_checkpoint_and_answers_in_json(run: Run, capfd, tmp_path: Path) -> None:
    copy = Run(shutil.copytree(run.dir, tmp_path / "runs" / "copy"))
    shutil.rmtree(evaluation_of(copy.dir).dir)
    arguments = ["evaluate", str(copy.dir), "--checkpoint", "4", "--metrics", "validation", "--json"]
    assert main(arguments) == 0
    answer = json.loads(capfd.readouterr().out)
    assert [row["step"] for row in answer["checkpoints"]] == [0, 4] and answer["best"] == 4
    assert answer["checkpoints"][1]["drift"] is None and answer["checkpoints"][1]["drawn"] == []
    assert main([*arguments[:-1], "--checkpoint", "5", "--json"]) == 2
    problem = json.loads(capfd.readouterr().out)["error"][0]
    assert problem["field"] == "checkpoint" and "2, 4, 6" in problem["hint"]


def test_a_run_without_checkpoints_is_told(config_of, workspace: Workspace) -> None:
    with pytest.raises(UserError, match="no checkpoint"):
        evaluated(workspace.create_run(config_of()))


def test_what_is_found_goes_to_the_trackers_of_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[int, float | None]] = []
    module = "trainer.evaluating.evaluate.track_evaluation"
    monkeypatch.setattr(
        module,
        lambda run_dir, config, found, events: told.append({each.step: each.drift for each in found.checkpoints}),
    )
    found = evaluated(run, steps=(2,), metrics=["drift"])
    evaluated(run, steps=(2,), metrics=["drift"])
    assert told == [{each.step: each.drift for each in found.checkpoints}], "once: nothing was measured the second time"
