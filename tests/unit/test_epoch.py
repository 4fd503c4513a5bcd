"""What an epoch holds: repeats, regularization, validation, batches, steps."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from tests.unit.dataset_samples import config_for, write_pictures
from trainer.config import TrainSettings
from trainer.data.epoch import (
    Layout,
    batches_per_epoch,
    epoch_batches,
    lay_out,
    regularization_repeats,
    total_steps,
    validation_keys,
    views_per_bucket,
)
from trainer.errors import UserError

SIZES = [(64, 64)] * 5 + [(128, 64)] * 3 + [(64, 128)]


def layout_of(folder: Path, sizes: list[tuple[int, int]] = SIZES, **sections: object) -> Layout:
    write_pictures(folder, sizes)
    dataset = {"sources": [{"path": str(folder), "repeats": 3}], "resolution": [[128, 64]]}
    return lay_out(config_for(folder, dataset=dataset, **sections))


@pytest.mark.parametrize(
    ("training", "own", "expected"),
    [
        (4, [1, 1, 1, 1], [1, 1, 1, 1]),
        (10, [1, 1, 1], [4, 3, 3]),  # once round, then one more each until ten are reached
        (10, [2, 2], [5, 5]),
        (3, [1, 1, 1, 1, 1], [1, 1, 1, 0, 0]),  # limited
        (5, [3, 3, 3], [3, 3, 0]),  # the first round keeps whole repeats, as sd-scripts does
        (0, [1, 1], [0, 0]),
        (5, [], []),
    ],
)
def test_regularization_pictures_go_with_the_training_pictures(
    training: int, own: list[int], expected: list[int]
) -> None:
    assert regularization_repeats(training, own) == expected


@pytest.mark.parametrize("batch_size", [1, 2, 4, 100])
def test_every_picture_is_seen_its_repeats_times_in_every_epoch(tmp_path: Path, batch_size: int) -> None:
    layout = layout_of(tmp_path)
    for epoch in range(3):
        batches = epoch_batches(layout.training, batch_size, 1, epoch)
        assert len(batches) == batches_per_epoch(layout.training, batch_size)
        seen = Counter((showing.entry.key, showing.number) for batch in batches for showing in batch)
        assert len(seen) == 9 * 3 and set(seen.values()) == {1}
        for batch in batches:
            assert len({showing.entry.bucket for showing in batch}) == 1 and 1 <= len(batch) <= batch_size
            assert all(showing.epoch == epoch for showing in batch)


def test_short_batches_are_kept_and_counted(tmp_path: Path) -> None:
    layout = layout_of(tmp_path)
    assert views_per_bucket(layout.training) == {(64, 64): 15, (64, 128): 3, (128, 64): 9}
    assert batches_per_epoch(layout.training, 4) == 4 + 1 + 3
    lengths = Counter(len(batch) for batch in epoch_batches(layout.training, 4, 0, 0))
    assert lengths == {4: 3 + 2, 3: 2, 1: 1}


def test_the_order_comes_from_seed_and_epoch(tmp_path: Path) -> None:
    entries = layout_of(tmp_path).training

    def order(seed: int, epoch: int) -> list[str]:
        return [showing.entry.key for batch in epoch_batches(entries, 2, seed, epoch) for showing in batch]

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    random.seed(5)  # nothing hangs on the global generator
    assert order(1, 0) == order(1, 0)


def test_each_showing_has_its_own_chance(tmp_path: Path) -> None:
    showings = [
        s for epoch in range(2) for batch in epoch_batches(layout_of(tmp_path).training, 2, 1, epoch) for s in batch
    ]
    numbers = {showing.rng(7, purpose).random() for showing in showings for purpose in ("caption", "augmentation")}
    numbers |= {showing.rng(8, "caption").random() for showing in showings}
    assert len(numbers) == 3 * len(showings)


def test_validation_takes_its_share_and_stays_put() -> None:
    keys = [f"0/{number}.png" for number in range(200)]
    held = validation_keys(keys, 0.1, seed=3)
    assert len(held) == 20 and held == validation_keys(keys[::-1], 0.1, seed=3)
    assert held != validation_keys(keys, 0.1, seed=4)
    more = validation_keys([*keys, "0/new.png"], 0.1, seed=3)
    assert len(held - more) <= 1
    assert validation_keys(keys, 0, seed=3) == set()
    assert len(validation_keys(keys[:3], 0.01, seed=3)) == 1
    assert len(validation_keys(keys[:3], 0.99, seed=3)) == 2
    assert validation_keys(keys[:1], 0.5, seed=3) == set()


def test_pictures_held_back_are_not_trained_on(tmp_path: Path) -> None:
    layout = layout_of(tmp_path, validation={"split": 0.34})
    trained, held = ({entry.picture.key for entry in side} for side in (layout.training, layout.validation))
    assert len(held) == 3 and not trained & held and len(trained | held) == 9
    assert all(entry.repeats == 1 for entry in layout.validation)


def test_regularization_is_weighted_and_never_held_back(tmp_path: Path) -> None:
    write_pictures(tmp_path / "own", [(64, 64)] * 4)
    write_pictures(tmp_path / "prior", [(64, 64)] * 6)
    sources = [
        {"path": str(tmp_path / "own")},
        {"path": str(tmp_path / "prior"), "is_regularization": True},
    ]
    config = config_for(dataset={"sources": sources}, train={"prior_loss_weight": 0.25}, validation={"split": 0.5})
    layout = lay_out(config)
    weights = Counter((entry.picture.is_regularization, entry.loss_weight) for entry in layout.training)
    assert weights == {(False, 1.0): 2, (True, 0.25): 2}
    assert len(layout.unused) == 4 and not any(entry.picture.is_regularization for entry in layout.validation)


def test_only_regularization_pictures_is_an_error(tmp_path: Path) -> None:
    write_pictures(tmp_path, [(64, 64)])
    with pytest.raises(UserError) as caught:
        lay_out(config_for(dataset={"sources": [{"path": str(tmp_path), "is_regularization": True}]}))
    assert caught.value.problems[0].code == "dataset.only_regularization"


def test_every_resolution_shows_every_picture(tmp_path: Path) -> None:
    write_pictures(tmp_path, [(200, 200), (100, 100)])
    layout = lay_out(config_for(tmp_path, dataset={"resolution": [64, 128]}))
    assert [entry.bucket for entry in layout.training] == [(64, 64), (128, 128), (64, 64), (64, 64)]
    assert len({entry.key for entry in layout.training}) == 4


@pytest.mark.parametrize(
    ("train", "batches", "steps"),
    [
        ({"max_steps": 70}, 60, 70),
        ({"max_steps": 70, "epochs": 2}, 60, 120),  # epochs win
        ({"epochs": 2, "gradient_accumulation_steps": 4}, 60, 30),
        ({"epochs": 3, "gradient_accumulation_steps": 2}, 5, 8),  # 15 batches: accumulation runs across epochs
        ({"epochs": 1, "gradient_accumulation_steps": 8}, 5, 1),
    ],
)
def test_steps_of_a_run(train: dict[str, int], batches: int, steps: int) -> None:
    assert total_steps(TrainSettings(**train), batches) == steps


def test_a_folder_of_its_own_is_validated_on_and_not_trained_on(tmp_path: Path) -> None:
    write_pictures(tmp_path / "held", [(64, 64), (128, 64)])
    layout = layout_of(tmp_path / "in", validation={"path": str(tmp_path / "held")})
    assert len(layout.training) == len(SIZES)
    assert [entry.picture.path.parent.name for entry in layout.validation] == ["held"] * 2
    assert {entry.picture.key for entry in layout.validation} == {"validation/0/00.png", "validation/0/01.png"}
    assert {entry.picture.source for entry in layout.validation} == {None}, "no folder's own settings are theirs"
    assert all(entry.repeats == 1 for entry in layout.validation)


def test_a_validation_folder_that_cannot_be_used_is_told_with_the_other_problems(tmp_path: Path) -> None:
    config = config_for(tmp_path / "nothing", validation={"path": str(tmp_path / "neither")})
    with pytest.raises(UserError) as caught:
        lay_out(config)
    assert [problem.field for problem in caught.value.problems] == ["dataset.sources.0.path", "validation.path"]
    assert caught.value.problems[1].message.startswith("validation.path: the folder ")


def test_validating_on_what_is_trained_on_is_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in" / "held", [(64, 64)])
    with pytest.raises(UserError, match=r"validation.path: 1 of its pictures are trained on too"):
        layout_of(tmp_path / "in", validation={"path": str(tmp_path / "in" / "held")})
