"""How a batch and other work is shared out between processes, and what one alone does of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.dataset_samples import Recorded, config_for, never_stop, write_pictures
from trainer.config import LossSettings, Multires
from trainer.data.augment import no_augmentation
from trainer.data.cache import LatentCache, View
from trainer.data.epoch import lay_out
from trainer.data.rows import Rows, all_rows, rounds_of, rows_in_step, rows_of
from trainer.devices import seeded_generator
from trainer.errors import UserError
from trainer.lora.dropout import Draws
from trainer.noise import among_all, draw_noise
from trainer.planner import arithmetic, plan
from trainer.ranks import ALONE, CALLS, Ranks, is_launched, leads_launch, starter
from trainer.runs.gpus import check_device, devices_of
from trainer.runs.queue import suits
from trainer.runs.store import RunInfo
from trainer.runs.turns import AllTurns, Turn


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 7])
def test_each_picture_of_a_batch_is_one_processs_and_nobody_has_more_than_its_batch(processes: int) -> None:
    for batch_size in (1, 2, 5):
        for whole in range(1, batch_size * processes + 1):
            shares = [rows_of(process, processes, whole) for process in range(processes)]
            assert [place for rows in shares for place in range(whole)[rows.part]] == list(range(whole))
            counts = [rows.count for rows in shares]
            assert max(counts) <= batch_size and max(counts) - min(counts) <= 1


def test_a_mean_over_all_is_the_sum_of_the_parts_of_it() -> None:
    losses = torch.tensor([0.5, 2.0, 7.0])
    parts = [losses[rows.part].mean() / rows.times_fewer for rows in (Rows(0, 1, 3), Rows(1, 2, 3))]
    assert float(sum(parts)) == pytest.approx(9.5 / 3)
    assert all_rows(3).times_fewer == 1.0 and all_rows(3).are_all


def test_in_step_all_have_as_many_pieces_and_what_is_taken_along_does_not_count() -> None:
    losses = torch.tensor([0.5])
    shares = [rows_in_step(process, 3, 1) for process in range(3)]
    assert [rows.part for rows in shares] == [slice(0, 1)] * 3
    assert float(sum(losses[rows.part].mean() / rows.times_fewer for rows in shares)) == 0.5
    assert [rows_in_step(process, 3, 5) for process in range(3)] == [rows_of(process, 3, 5) for process in range(3)]
    for processes in (1, 2, 3, 4):
        for count in range(1, 9):
            pieces = list(range(count))
            rounds = [list(rounds_of(process, processes, pieces, in_step=True)) for process in range(processes)]
            assert {len(each) for each in rounds} == {-(-count // processes)}
            assert sorted(piece for each in rounds for piece, counts in each if counts) == pieces
            free = [list(rounds_of(process, processes, pieces, in_step=False)) for process in range(processes)]
            assert free == [[(piece, True) for piece, counts in each if counts] for each in rounds]


def test_noise_belongs_to_the_place_in_the_whole_batch() -> None:
    settings = LossSettings(noise_offset=0.1, multires_noise=Multires(iterations=3, discount=0.5))
    latents = torch.randn(5, 4, 8, 8)
    together = draw_noise(latents, settings, seeded_generator(1, "noise"))
    for rows in (Rows(0, 2, 5), Rows(2, 3, 5), Rows(4, 1, 5)):
        own = draw_noise(among_all(latents[rows.part], rows), settings, seeded_generator(1, "noise"))[rows.part]
        assert torch.equal(own, together[rows.part])
    assert among_all(latents, all_rows(5)) is latents


@pytest.mark.parametrize(
    "inputs",
    [torch.randn(4, 3, 10), torch.randn(4, 3, 5, 6).contiguous(memory_format=torch.channels_last)],
    ids=["tokens", "pictures"],
)
def test_dropouts_belong_to_the_place_in_the_whole_batch(inputs: torch.Tensor) -> None:
    draws = Draws()

    def dropped(rows: Rows | None) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(7)
        draws.rows = rows
        own = inputs if rows is None else inputs[rows.part]
        return draws.dropout(own, 0.4, True), draws.uniform([len(own), 6], inputs.device)

    together = dropped(None)
    assert 0.2 < float((together[0] == 0).float().mean()) < 0.6
    for rows in (Rows(0, 1, 4), Rows(1, 3, 4)):
        assert all(torch.equal(own, all_[rows.part]) for own, all_ in zip(dropped(rows), together, strict=True))
    assert torch.equal(draws.dropout(inputs, 0.4, False), inputs), "not in training"


class _OfTwo(Ranks):
    """One of two processes that are threads here."""

    size = 2

    def __init__(self, index: int, met: threading.Barrier) -> None:
        self.index, self._met = index, met
        self.waited = 0

    def shares(self, pieces: Sequence[Any]) -> Iterator[Sequence[Any]]:
        yield pieces[self.index :: 2]
        self._met.wait(60)
        self.waited += 1
        yield pieces[1 - self.index :: 2]


class _Encoder:
    """Counts the pictures that go through the VAE, whose latents are their mean colours."""

    fingerprint_vae = "vae"

    def __init__(self) -> None:
        self.pictures = 0

    def encode_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        self.pictures += len(pixels)
        return pixels.mean((2, 3), keepdim=True).expand(-1, -1, 8, 8)


def test_pictures_are_encoded_once_by_whoever_has_them(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", [(64, 64)] * 20 + [(64, 128)] * 20)
    config = config_for(tmp_path / "in", dataset={"resolution": 64})
    views = [View(e.picture.path, e.placement, no_augmentation(e.placement)) for e in lay_out(config).training]
    met, encoders = threading.Barrier(2), [_Encoder(), _Encoder()]
    ranks = [_OfTwo(index, met) for index in range(2)]
    caches = [
        LatentCache(encoder, tmp_path / "cache", Recorded(), rank)  # type: ignore[arg-type]
        for encoder, rank in zip(encoders, ranks, strict=True)
    ]
    threads = [threading.Thread(target=cache.fill, args=(views, never_stop)) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    counts = [encoder.pictures for encoder in encoders]
    assert sum(counts) == len(views) and min(counts) > 0 and [each.waited for each in ranks] == [1, 1]
    assert all(torch.equal(caches[0].latents(view), caches[1].latents(view)) for view in views)


def test_one_process_has_nobody_to_share_with() -> None:
    assert (ALONE.leads, ALONE.size, ALONE.rows(4)) == (True, 1, Rows(0, 4, 4))
    assert list(ALONE.shares([1, 2, 3])) == [[1, 2, 3]] and list(ALONE.rounds([1, 2])) == [(1, True), (2, True)]
    assert ALONE.share(lambda: "found") == "found" and ALONE.union({1}) == {1}
    assert ALONE.add_up([], 1) is None and ALONE.lost() is None and list(ALONE.calls()) == []
    for call in CALLS:
        ALONE.call(call)


def test_a_launch_is_known_by_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LORA_ATELIER_STARTER"):
        monkeypatch.delenv(name, raising=False)
    assert (is_launched(), leads_launch(), starter()) == (False, True, None)
    monkeypatch.setenv("RANK", "1")
    assert leads_launch(), "a cluster's variables say nothing while there is one process"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LORA_ATELIER_STARTER", "77")
    assert (is_launched(), leads_launch(), starter()) == (True, False, 77)


def test_all_turns_are_taken_in_one_order_and_given_back_together(tmp_path: Path) -> None:
    first, second = (Turn(tmp_path / f"{name}.lock", "another job") for name in "ab")
    ours = AllTurns([Turn(tmp_path / "a.lock"), Turn(tmp_path / "b.lock")])
    assert second.take(0) and not ours.take()
    assert ours.holder is not None and ours.holder.what == "another job"
    assert not first.take(0), "what was got is held while the other one is waited for"
    second.give_back()
    assert ours.take()
    ours.give_back()
    assert first.take(0) and second.take(0)


def test_a_run_for_several_devices_is_started_by_the_first_ones_worker() -> None:
    check_device("cpu,cpu")
    assert devices_of("cpu,cpu") == ["cpu", "cpu"]
    for wrong in ("cpu,cuda:7", "cuda:7,cuda:7", "cpu,"):
        with pytest.raises(UserError, match="no device"):
            check_device(wrong)
    info = RunInfo(id="a", name="a", created=0, wanted_device="cuda:1,cuda:0")
    assert suits(info, "cuda:1") and not suits(info, "cuda:0") and not suits(info, "cpu")


def test_the_plan_counts_the_batch_of_all_processes(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", [(64, 64)] * 10)
    config = config_for(tmp_path / "in", train={"batch_size": 2, "epochs": 3})
    line = "10 pictures x 1 repeat / (2 x 2 processes) = 3 steps an epoch, 1 short batch included"
    assert arithmetic(config, lay_out(config), 2) == line
    found = plan(config, processes=2)
    assert (found.batches_per_epoch, found.max_steps, found.buckets[0].batches) == (3, 9, 3)
    assert plan(config).batches_per_epoch == 5


def test_the_plan_says_where_there_is_nobody_to_share_with(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", [(64, 64)] * 2)
    config = config_for(tmp_path / "in", model={"share_out": True})
    codes = [[each.code for each in plan(config, processes=count).warnings] for count in (1, 2)]
    assert ["model.nobody_to_share_with" in each for each in codes] == [True, False]
