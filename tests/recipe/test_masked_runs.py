"""Runs with masks: white ones change nothing, black parts are not learned from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.recipe.tiny_runs import SIDE, losses_of, make_pictures, train_here
from trainer.conditioning import ready_made
from trainer.config import Config
from trainer.data.training_set import Batch
from trainer.devices import seeded_generator
from trainer.families.base import Conditioning
from trainer.recipe import Ingredients, batch_inputs, batch_losses
from trainer.runs.store import Workspace


def masks(folder: Path, count: int, white: int) -> Path:
    """Masks that are white in their ``white`` leftmost columns."""
    folder.mkdir()
    for number in range(count):
        mask = Image.new("L", (SIDE, SIDE), 0)
        mask.paste(255, (0, 0, white, SIDE))
        mask.save(folder / f"{number}.png")
    return folder


def test_masks_change_what_is_learned(tmp_path: Path, workspace: Workspace, config_of: Callable[..., Config]) -> None:
    pictures = make_pictures(tmp_path / "pictures")
    white, half = masks(tmp_path / "white", 3, SIDE), masks(tmp_path / "half", 3, SIDE // 2)

    def losses(mask_path: Path | None, **changes: Any) -> list[float]:
        source = {"path": str(pictures), "mask_path": None if mask_path is None else str(mask_path)}
        dataset = {"sources": [source], "resolution": SIDE, "buckets": {"min": 64, "step": 8}}
        run = workspace.create_run(config_of(dataset=dataset, train__max_steps=3, **changes))
        train_here(run)
        return list(losses_of(run).values())

    plain = losses(None)
    assert losses(white, loss__masked="mask") == pytest.approx(plain, rel=1e-6)
    masked = losses(half, loss__masked="mask")
    assert all(abs(one / other - 1) > 1e-3 for one, other in zip(masked, plain, strict=True))
    assert losses(half, loss__masked="mask", loss__unmasked_weight=1) == pytest.approx(plain, rel=1e-6)
    between = losses(half, loss__masked="mask", loss__unmasked_weight=0.3)
    assert between[0] == pytest.approx((masked[0] + 0.3 * (2 * plain[0] - masked[0])) / 1.3, rel=1e-4)  # halves


def test_a_masked_batch_by_hand_in_float64() -> None:
    """The whole loss of one batch: masked mean of each picture, min-SNR weight, regularization weight."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alphas = np.cumprod(1 - betas)
    latents = torch.randn(3, 4, 4, 6, generator=torch.Generator().manual_seed(1))
    shares = torch.rand(3, 1, 4, 6, generator=torch.Generator().manual_seed(2)).round()
    own = torch.tensor([1.0, 0.5, 1.0])
    config = Config.model_validate({"loss": {"masked": "alpha", "unmasked_weight": 0.2, "min_snr_gamma": 5}})

    def predict(noisy: torch.Tensor, *others: Any) -> torch.Tensor:
        return 0.3 * noisy

    table = torch.from_numpy(alphas).float()
    family: Any = SimpleNamespace(prediction_type="epsilon", alphas_cumprod=table, predict=predict)
    encode = ready_made(lambda captions: Conditioning(torch.zeros(3, 1, 1), {}))
    ingredients = Ingredients(config, family, encode, torch.device("cpu"), torch.float32, table)
    batch = Batch(latents, [""] * 3, own, torch.zeros(3, 6), [], shares)
    found = float(sum(batch_losses(ingredients, batch_inputs(ingredients, batch, 4))))

    seed = config.train.seed
    noise = torch.randn(latents.shape, generator=seeded_generator(seed, 4, "noise")).double().numpy()
    steps = torch.randint(0, 1000, (3,), generator=seeded_generator(seed, 4, "timesteps")).numpy()
    kept = alphas[steps][:, None, None, None]
    noisy = np.sqrt(kept) * latents.double().numpy() + np.sqrt(1 - kept) * noise
    errors = (0.3 * noisy - noise) ** 2
    weights = 0.2 + 0.8 * shares.double().numpy()
    each = (errors * weights).sum((1, 2, 3)) / (4 * weights.sum((1, 2, 3)))
    snr = alphas[steps] / (1 - alphas[steps])
    expected = (each * np.minimum(snr, 5) / snr * own.double().numpy()).mean()
    assert found == pytest.approx(expected, rel=1e-6)
