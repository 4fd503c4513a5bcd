"""The demo's builder: from nothing to a model folder, and killed at any step it ends as if never interrupted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from trainer.demo import build, build_captioner, build_text, build_unet, build_vae, gates, training, world

STEPS = 3


class KilledError(Exception):
    """Stands for a kill between two optimizer steps."""


@pytest.fixture(autouse=True)
def small_build(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A builder of three steps a stage on a handful of pictures."""
    for module in (build_vae, build_text, build_unet, build_captioner):
        monkeypatch.setattr(module, "SAVE_EVERY_STEPS", 1)
    monkeypatch.setattr(build_vae, "PICTURES", 8)
    monkeypatch.setattr(build_vae, "HELD_OUT", 2)
    monkeypatch.setattr(build_vae, "SCALING_PICTURES", 8)
    monkeypatch.setattr(build_unet, "SHARD_PICTURES", 64)
    monkeypatch.setattr(build_unet, "BATCH", 4)
    monkeypatch.setattr(build_captioner, "PICTURES", 8)
    monkeypatch.setattr(build_captioner, "HELD_OUT", 2)
    monkeypatch.setattr(build_captioner, "BATCH", 4)
    monkeypatch.setattr(build, "VAE_STEPS", STEPS)
    monkeypatch.setattr(build, "DECODER_STEPS", STEPS)
    monkeypatch.setattr(build, "TEXT_STEPS", STEPS)
    monkeypatch.setattr(build, "CAPTIONER_STEPS", STEPS)
    monkeypatch.setattr(build, "PICTURES", 4 * STEPS)
    monkeypatch.setattr(build, "EVALUATION_PROMPTS", 1)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run_stages(work: Path) -> None:
    arguments = ["--work-dir", str(work), "--pictures", str(4 * STEPS)]
    assert build.main([*arguments, *(f"--stage={stage}" for stage in build.STAGES)]) == 0


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.parent.name}/{name}": tensor
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def test_killed_after_any_step_it_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_stages(tmp_path / "whole")
    save, saves = training.Run.save, 0

    def save_then_die(self: training.Run) -> None:
        nonlocal saves
        save(self)
        saves += 1
        raise KilledError

    for stage in build.STAGES:
        with monkeypatch.context() as patch:
            patch.setattr(training.Run, "save", save_then_die)
            for _ in range(2):
                with pytest.raises(KilledError):
                    build.main(["--work-dir", str(tmp_path / "killed"), "--pictures", str(4 * STEPS), "--stage", stage])
        build.main(["--work-dir", str(tmp_path / "killed"), "--pictures", str(4 * STEPS), "--stage", stage])
    assert saves == 2 * len(build.STAGES)
    whole, killed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert whole.keys() == killed.keys()
    assert [name for name in whole if not torch.equal(whole[name], killed[name])] == []

    build.export(tmp_path / "whole", tmp_path / "model")
    settings = [file.read_text(encoding="utf-8") for file in (tmp_path / "model").rglob("*config.json")]
    assert len(settings) >= 4 and not any(str(tmp_path) in text for text in settings)
    pictures = gates.generate(gates.load_pipeline(tmp_path / "model"), ["a red ring"], seed=0, steps=2)
    assert [picture.size for picture in pictures] == [(128, 128)]

    build_captioner.export(tmp_path / "whole" / "captioner", tmp_path / "captioner")
    captioner, processor = build_captioner.load(tmp_path / "captioner")
    assert len(build_captioner.captions_of(captioner, processor, pictures)) == 1


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    for seed in (0, 1):
        build.main(["--work-dir", str(tmp_path / str(seed)), "--stage", "text", "--seed", str(seed)])
    first, second = weights(tmp_path / "0"), weights(tmp_path / "1")
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_out_of_time_it_saves_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    common = ["--work-dir", str(tmp_path), "--pictures", str(4 * STEPS)]
    build.main([*common, "--stage", "vae", "--stage", "decoder", "--stage", "text"])
    with caplog.at_level("INFO"):
        assert build.main([*common, "--minutes", "0", "--out", str(tmp_path / "out")]) == 0
    assert "run the same command again" in caplog.text
    assert training.load_state(tmp_path / "unet.pt")["step"] == 0
    assert not (tmp_path / "out").exists()


def test_learning_rate_warms_up_stays_and_falls() -> None:
    rates = [training.learning_rate(1.0, step, 1000) for step in (0, 49, 300, 650, 825, 999)]
    assert rates[:4] == pytest.approx([0.02, 1.0, 1.0, 1.0])
    assert rates[4] == pytest.approx(0.02 + 0.98 * 0.5, abs=1e-3)
    assert rates[5] == pytest.approx(0.02, abs=1e-3)


def test_a_longer_training_starts_the_same() -> None:
    short, long = ([training.learning_rate(1.0, step, steps) for step in range(600)] for steps in (1000, 2000))
    assert short == long


def test_step_generators_differ_by_step_stage_and_seed_only() -> None:
    def draw(seed: int, stage: str, step: int) -> float:
        return torch.rand((), generator=training.step_generator(seed, stage, step)).item()

    values = [draw(0, "unet", 1), draw(0, "unet", 2), draw(0, "text", 1), draw(1, "unet", 1)]
    assert len(set(values)) == 4
    assert draw(0, "unet", 1) == values[0]


def test_average_is_young_at_first_and_swaps_in_and_out() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    ema = training.Ema([parameter], decay=0.999)
    parameter.data.fill_(1.0)
    ema.update(step=0)
    with ema.applied():
        assert parameter.item() == pytest.approx(0.9)
    assert parameter.item() == 1.0


@pytest.mark.parametrize(("step", "share"), [(0, 0.6 + 0.4 * 0.6), (build_unet.FIRST_PHASE_STEPS, 0.6)])
def test_most_timesteps_are_late_at_first(step: int, share: float) -> None:
    timesteps = build_unet.draw_timesteps(20_000, step, torch.Generator().manual_seed(0))
    late = (timesteps >= build_unet.LATE_FROM).float().mean().item()
    assert late == pytest.approx(share, abs=0.02)
    assert (timesteps.min().item(), timesteps.max().item()) == (0, 999)


def test_pool_grows_by_step_number_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_unet, "encoded", lambda *_: torch.zeros(64, 4, 16, 16))
    pool = build_unet.Pool(None, tmp_path, 0)
    sizes = []
    for step in (0, 499, 500, build_unet.FIRST_PHASE_STEPS, 100_000):
        pool.grow(step)
        sizes.append((len(pool.scenes), len(pool.figures)))
    assert sizes == [(64, 0), (64, 0), (128, 0), (64 * 4, 128), (64 * build_unet.SHARDS, 128)]


def test_figures_join_the_batch_in_the_second_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_unet, "BATCH", 32)
    monkeypatch.setattr(build_unet, "encoded", lambda *_: torch.zeros(64, 4, 16, 16))
    pool = build_unet.Pool(None, tmp_path, 0)
    for step, without_a_shape in ((0, 6), (build_unet.FIRST_PHASE_STEPS, 15)):
        pool.grow(step)
        latents, captions = pool.draw(step)
        named = sum(any(shape in caption.split() for shape in world.SHAPES) for caption in captions)
        assert latents.shape == (32, 4, 16, 16)
        assert 32 - named == pytest.approx(without_a_shape, abs=5)
        assert pool.draw(step)[1] == captions


def test_a_new_vae_already_keeps_colours() -> None:
    torch.manual_seed(0)
    quality = build_vae.psnr_db(build_vae.new_vae(), build_vae.base_pictures(seed=0, count=8))
    assert 10 < quality < math.inf
