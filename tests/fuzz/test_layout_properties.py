"""What is true of the bucket of every picture, of every epoch, and of the name of every layer."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from tests.fuzz import properties  # noqa: F401 - how many examples there are
from trainer.config import BucketSettings, DatasetSettings
from trainer.data.buckets import bucket_sizes, place
from trainer.data.epoch import Entry, batches_per_epoch, epoch_batches
from trainer.data.folders import Picture
from trainer.lora.keys import kohya_key, parse_name, part_of, unify_keys
from trainer.lora.module_paths import module_path
from trainer.lora.sai_keys import from_sai, is_sai_key, to_sai

SIDES = st.integers(1, 20_000)
STEPS = st.integers(1, 32).map(lambda count: 8 * count)
RESOLUTIONS = st.integers(8, 256).map(lambda count: 8 * count)


@st.composite
def dataset_settings(draw: st.DrawFn) -> DatasetSettings:
    smallest = draw(RESOLUTIONS)
    buckets = BucketSettings(
        enabled=draw(st.booleans()),
        min=smallest,
        max=draw(RESOLUTIONS.filter(lambda side: side >= smallest)),
        step=draw(STEPS),
        upscale=draw(st.booleans()),
    )
    return DatasetSettings(resolution=[(draw(RESOLUTIONS), draw(RESOLUTIONS))], buckets=buckets)


@given(SIDES, SIDES, dataset_settings())
def test_every_picture_has_one_bucket_that_it_covers(width: int, height: int, settings: DatasetSettings) -> None:
    assume(width * height <= 10**8)
    found = place(width, height, settings)
    (resolution,) = settings.resolution  # type: ignore[misc]
    assert found == place(width, height, settings)
    assert found.width <= found.scaled_width
    assert found.height <= found.scaled_height
    assert 0 <= found.crop_left <= found.scaled_width - found.width
    assert 0 <= found.crop_top <= found.scaled_height - found.height
    if not settings.buckets.enabled:
        assert (found.width, found.height) == resolution
        return
    step = min(settings.buckets.step, *resolution)
    assert found.width % step == found.height % step == 0
    assert min(found.width, found.height) >= step
    if settings.buckets.upscale:
        assert (found.width, found.height) in bucket_sizes(resolution, settings.buckets)
    elif min(width, height) >= step:
        larger = (math.isqrt(math.prod(resolution)) + step) ** 2  # one side is rounded, the other follows the shape
        assert found.width * found.height <= max(larger, step * max(width, height))
        assert found.scaled_width <= width + 1
        assert found.scaled_height <= height + 1


@given(dataset_settings())
def test_buckets_are_multiples_of_the_step_and_no_larger_than_the_resolution(settings: DatasetSettings) -> None:
    (resolution,) = settings.resolution  # type: ignore[misc]
    sizes = bucket_sizes(resolution, settings.buckets)
    assert sizes == sorted(set(sizes))
    assert len(sizes) >= 1
    if settings.buckets.enabled:
        step = min(settings.buckets.step, *resolution)
        for width, height in sizes:
            assert width % step == height % step == 0
            assert width * height <= math.prod(resolution)
            assert (height, width) in sizes


def _entry(number: int, size: tuple[int, int], repeats: int) -> Entry:
    settings = DatasetSettings(resolution=[(64, 64)], buckets=BucketSettings(min=64, step=8))
    picture = Picture(Path(f"{number}.png"), 0, f"0/{number}.png", "", None, False, repeats, False, *size)
    return Entry(picture, place(*size, settings), (64, 64), repeats, 1.0)


SIZES = st.sampled_from([(64, 64), (128, 64), (64, 128), (30, 500), (9, 9)])


@given(
    st.lists(st.tuples(SIZES, st.integers(1, 4)), min_size=1, max_size=12),
    st.integers(1, 5),
    st.integers(),
    st.integers(0, 9),
)
def test_an_epoch_shows_every_picture_as_often_as_it_is_to_be(
    pictures: list[tuple[tuple[int, int], int]], batch_size: int, seed: int, epoch: int
) -> None:
    entries = [_entry(number, size, repeats) for number, (size, repeats) in enumerate(pictures)]
    batches = epoch_batches(entries, batch_size, seed, epoch)
    shown = Counter((showing.entry.key, showing.number) for batch in batches for showing in batch)
    assert shown == Counter((entry.key, number) for entry in entries for number in range(entry.repeats))
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert all(len({showing.entry.bucket for showing in batch}) == 1 for batch in batches)
    assert len(batches) == batches_per_epoch(entries, batch_size)
    assert batches == epoch_batches(entries, batch_size, seed, epoch)


NUMBERS = st.integers(0, 11)
_TRANSFORMER = st.sampled_from(
    ["attn1.to_q", "attn1.to_k", "attn2.to_v", "attn2.to_out.0", "ff.net.0.proj", "ff.net.2"]
)
_IN_BLOCK = st.one_of(
    st.builds(lambda a, t, rest: f"attentions.{a}.transformer_blocks.{t}.{rest}", NUMBERS, NUMBERS, _TRANSFORMER),
    st.builds(lambda a, rest: f"attentions.{a}.{rest}", NUMBERS, st.sampled_from(["proj_in", "proj_out"])),
    st.builds(
        lambda r, rest: f"resnets.{r}.{rest}",
        NUMBERS,
        st.sampled_from(["conv1", "conv2", "conv_shortcut", "time_emb_proj"]),
    ),
)
UNET_PATHS = st.one_of(
    st.builds(lambda side, n, rest: f"{side}_blocks.{n}.{rest}", st.sampled_from(["down", "up"]), NUMBERS, _IN_BLOCK),
    st.builds(lambda rest: f"mid_block.{rest}", _IN_BLOCK),
    st.sampled_from(["conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2"]),
)
TEXT_PATHS = st.builds(
    lambda layer, rest: f"text_model.encoder.layers.{layer}.{rest}",
    st.integers(0, 31),
    st.sampled_from(["self_attn.q_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2"]),
)
PLACES = st.tuples(st.just("unet"), UNET_PATHS) | st.tuples(
    st.sampled_from(["text_encoder", "text_encoder_2"]), TEXT_PATHS
)
ROLES = {
    "down": [".lora_A.weight", ".lora_A.default.weight", ".lora.down.weight", ".lora_linear_layer.down.weight"],
    "up": [".lora_B.weight", ".lora_B.default.weight", ".lora.up.weight", ".lora_linear_layer.up.weight"],
    "alpha": [".alpha"],
}


@given(PLACES)
def test_a_layers_key_leads_back_to_its_part_and_path(where: tuple[str, str]) -> None:
    key = kohya_key(*where)
    assert part_of(key) == where[0]
    assert module_path(key) == where


@given(PLACES, st.sampled_from(sorted(ROLES)), st.data())
def test_names_of_every_layout_lead_to_one_key(where: tuple[str, str], role: str, data: Any) -> None:
    part, path = where
    key = kohya_key(part, path)
    names = [f"{part}.{path}{ending}" for ending in ROLES[role]]
    names.append(f"{key}.{'alpha' if role == 'alpha' else f'lora_{role}.weight'}")
    found = parse_name(data.draw(st.sampled_from(names)))
    assert found is not None
    assert (found.module, found.role) == (key, role)


SDXL_PATHS = st.one_of(
    st.builds(
        lambda side, n, rest: f"{side}_blocks.{n}.{rest}",
        st.sampled_from(["down", "up"]),
        st.integers(0, 2),
        st.builds(
            lambda a, t, rest: f"attentions.{a}.transformer_blocks.{t}.{rest}",
            st.integers(0, 1),
            st.integers(0, 9),
            _TRANSFORMER,
        ),
    ),
    st.builds(lambda t, rest: f"mid_block.attentions.0.transformer_blocks.{t}.{rest}", st.integers(0, 9), _TRANSFORMER),
    st.sampled_from(["conv_in", "conv_out"]),
)


@given(SDXL_PATHS)
def test_stabilitys_names_of_sdxl_lead_there_and_back(path: str) -> None:
    key = kohya_key("unet", path)
    sai = to_sai(key)
    assert from_sai(sai) == key
    assert to_sai(sai) == sai
    assert kohya_key("unet", path, sdxl=True) == sai
    assert module_path(sai) == ("unet", path)
    if is_sai_key(sai):
        assert unify_keys([key], sdxl=True) == ({key: sai} if key != sai else {})
