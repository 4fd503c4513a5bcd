"""TIES and DARE against computations entry by entry in numpy, and their ranks and strengths."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from lora_samples import CONV, QUERY, TEXT, conv, linear, lora

from trainer.errors import UserError
from trainer.lora.file import LoraFile
from trainer.lora.merge import MERGE_KEY, MergeSettings, merge_loras
from trainer.lora.merge_modes import dare, ties
from trainer.lora.strengths import parse_strength

RATIOS = [0.8, -1.5, 0.4]


def _changes(outputs: int = 9, inputs: int = 14) -> list[torch.Tensor]:
    layers = [linear(4, 2.0, seed=seed, inputs=inputs, outputs=outputs) for seed in (1, 2, 3)]
    return [layer.delta() for layer in layers]


def _ties(changes: list[np.ndarray], ratios: list[float], density: float) -> np.ndarray:
    """Algorithm 1 of the paper, entry by entry."""
    kept = []
    for change in changes:
        size = round(density * change.size)
        smallest = sorted(abs(value) for value in change.flat)[change.size - size]
        kept.append([value if abs(value) >= smallest else 0.0 for value in change.flat])
    merged = []
    for place in range(changes[0].size):
        values = [ratio * each[place] for ratio, each in zip(ratios, kept, strict=True)]
        total = sum(values)
        agreeing = [value for value in values if value * total > 0]
        merged.append(sum(agreeing) / len(agreeing) if agreeing else 0.0)
    return np.array(merged).reshape(changes[0].shape)


@pytest.mark.parametrize("density", [0.1, 0.35, 1.0])
def test_ties_equals_the_papers_algorithm(density: float) -> None:
    changes = _changes()
    found = ties(changes, RATIOS, density)
    expected = _ties([change.double().numpy() for change in changes], RATIOS, density)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert np.count_nonzero(expected) < expected.size or density == 1.0


def test_ties_of_one_is_its_largest_entries() -> None:
    (change, *_) = _changes()
    found = ties([change], [2.0], 0.25)
    kept = found != 0
    assert int(kept.sum()) == round(0.25 * change.numel())
    assert float(change[kept].abs().min()) > float(change[~kept].abs().max())
    assert torch.equal(found[kept], 2 * change[kept])


def test_dare_drops_rescales_and_adds() -> None:
    changes, density = _changes(60, 70), 0.3
    found = dare(changes, RATIOS, density, [torch.Generator().manual_seed(seed) for seed in (5, 6, 7)])
    expected = np.zeros(changes[0].shape)
    for change, ratio, seed in zip(changes, RATIOS, (5, 6, 7), strict=True):
        mask = torch.rand(change.shape, generator=torch.Generator().manual_seed(seed)).numpy() < density
        assert abs(mask.mean() - density) < 0.03
        expected += ratio * mask * change.double().numpy() / density
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_dare_keeps_the_sum_on_average() -> None:
    changes, plain = _changes(), sum(ratio * change for ratio, change in zip(RATIOS, _changes(), strict=True))
    draws = [torch.Generator().manual_seed(seed) for seed in range(3)]
    mean = sum(dare(changes, RATIOS, 0.5, draws) for _ in range(2000)) / 2000
    assert float((mean - plain).norm() / plain.norm()) < 0.06


@pytest.mark.parametrize("mode", ["ties", "dare"])
def test_the_merged_layer_is_the_best_of_its_rank(mode: str) -> None:
    loras = [(lora(4, 2.0, seed=0), 0.7), (lora(8, 8.0, seed=10), -1.3)]
    settings = MergeSettings(mode, rank=3, conv_rank=2, density=0.4, seed=7 if mode == "dare" else None)  # type: ignore[arg-type]
    merged = merge_loras(loras, settings)
    whole = merge_loras(loras, replace(settings, rank=100, conv_rank=None))
    for module, rank in ((QUERY, 3), (TEXT, 3), (CONV, 2)):
        dense = whole.layers[module].delta(torch.float64).flatten(1)
        left, values, right = torch.linalg.svd(dense, full_matrices=False)
        best = left[:, :rank] * values[:rank] @ right[:rank]
        layer = merged.layers[module]
        assert layer.rank == rank
        assert float((layer.delta(torch.float64).flatten(1) - best).norm() / dense.norm()) < 1e-5
    record = json.loads(merged.metadata[MERGE_KEY])
    assert (record["mode"], record["rank"], record["conv_rank"], record["density"]) == (mode, 3, 2, 0.4)
    assert 0 < record["kept_energy"]["smallest"] < 1


def test_whole_density_is_the_sum_for_dare_and_the_mean_for_ties() -> None:
    one = lora(4, 2.0)
    for mode, share in (("dare", 1.0), ("ties", 0.5)):
        settings = MergeSettings(mode, rank=10, density=1.0)  # type: ignore[arg-type]
        merged = merge_loras([(one, 0.5), (one, 0.5)], settings)
        for module, layer in one.layers.items():
            torch.testing.assert_close(merged.layers[module].delta(), share * layer.delta(), rtol=1e-4, atol=1e-5)


def test_dare_depends_on_its_seed_and_on_nothing_else() -> None:
    loras = [(lora(4, 2.0, seed=0), 0.7), (lora(4, 2.0, seed=10), 0.3)]

    def merged(seed: int | None, *, only: str | None = None) -> torch.Tensor:
        kept = [
            (LoraFile({only or name: each.layers[only or name] for name in each.layers}, {}), r) for each, r in loras
        ]
        return merge_loras(kept, MergeSettings("dare", rank=8, seed=seed)).layers[QUERY].delta()

    assert torch.equal(merged(3), merged(3, only=QUERY))
    assert torch.equal(merged(None), merged(0))
    assert not torch.equal(merged(3), merged(4))


def test_a_lora_without_strength_takes_no_part() -> None:
    """It would draw the mean of TIES down."""
    first, second = lora(4, 2.0, seed=0), lora(4, 2.0, seed=10)
    settings = MergeSettings("ties", rank=10, density=0.5)
    alone = merge_loras([(first, 1.0)], settings)
    both = merge_loras([(first, 1.0), (second, parse_strength("0,text_encoder:1"))], settings)
    assert torch.equal(both.layers[QUERY].delta(), alone.layers[QUERY].delta())
    assert not torch.equal(both.layers[TEXT].delta(), alone.layers[TEXT].delta())


def test_convolutions_have_a_rank_of_their_own_in_svd_too() -> None:
    layers = {QUERY: linear(8, 2.0, seed=1), CONV: conv(8, 2.0, seed=2)}
    merged = merge_loras([(LoraFile(layers, {}), 1.0)], MergeSettings("svd", rank=2, conv_rank=5))
    assert (merged.layers[QUERY].rank, merged.layers[CONV].rank) == (2, 5)
    small = conv(8, 2.0, seed=2, kernel=1, inputs=12, outputs=10)
    merged = merge_loras([(LoraFile({QUERY: small}, {}), 1.0)], MergeSettings("svd", rank=2, conv_rank=5))
    assert merged.layers[QUERY].rank == 2, "a 1x1 convolution is a linear layer"


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        (MergeSettings("ties"), ["rank"]),
        (MergeSettings("ties", rank=0, density=0.0), ["rank", "density"]),
        (MergeSettings("dare", rank=4, conv_rank=-1, density=1.5), ["conv_rank", "density"]),
        (MergeSettings("dare", rank=4, density=float("nan")), ["density"]),
        (MergeSettings("exact", rank=4, density=0.5, seed=1), ["rank", "density", "seed"]),
        (MergeSettings("ties", rank=4, seed=1), ["seed"]),
        (MergeSettings("svd", rank=4, precision="fp16"), ["precision"]),
    ],
)
def test_settings_are_checked_all_at_once(settings: MergeSettings, fields: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        settings.check()
    assert [problem.field for problem in caught.value.problems] == fields
