"""Loading models: the demo model, renamed keys, everything that is not a model; captions as diffusers encodes them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer.config import ModelSettings
from trainer.demo import MODEL_DIR
from trainer.errors import UserError
from trainer.families import load_family
from trainer.families.emphasis import parse_emphasis
from trainer.families.sd import SdFamily

CPU = torch.device("cpu")
CAPTIONS = ["a big red circle on a blue background", ""]


def load(base: str | Path = "demo", **options: object) -> SdFamily:
    return load_family(ModelSettings(base=str(base)), device=CPU, dtype=torch.float32, **options)  # type: ignore


@pytest.fixture(scope="module")
def demo() -> SdFamily:
    return load()


@pytest.fixture
def model_copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODEL_DIR, tmp_path / "model"))


def encode(family: SdFamily, captions: list[str], length: int = 75, skip: int = 1, weighted: bool = False):
    with torch.no_grad():
        return family.encode_captions(
            captions, max_token_length=length, clip_skip=skip, weighted=weighted
        ).hidden_states


def test_captions_are_encoded_as_diffusers_does(demo: SdFamily) -> None:
    theirs, _ = demo.pipeline("ddim").encode_prompt(CAPTIONS, CPU, 1, False)
    assert torch.equal(encode(demo, CAPTIONS), theirs)


def test_clip_skip_takes_an_earlier_layer_and_the_final_norm(demo: SdFamily) -> None:
    ids = demo.tokenizer(CAPTIONS, padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        states = demo.text_encoder.embeddings(ids)
        mask = torch.full((ids.shape[1],) * 2, float("-inf")).triu(1)[None, None]
        states = demo.text_encoder.encoder.layers[0](states, attention_mask=mask)
        expected = demo.text_encoder.final_layer_norm(states)
    torch.testing.assert_close(encode(demo, CAPTIONS, skip=2), expected)


def test_long_captions_are_encoded_in_chunks(demo: SdFamily) -> None:
    room = demo.tokenizer.model_max_length - 2
    words = ["red", "blue", "circle", "square"] * 20
    ids = demo.tokenizer(" ".join(words), add_special_tokens=False).input_ids
    assert len(ids) > room
    joined = encode(demo, [" ".join(words)], length=150)
    assert joined.shape == (1, 2 * room + 2, demo.text_encoder.config.hidden_size)

    begin, end, pad = demo.tokenizer.bos_token_id, demo.tokenizer.eos_token_id, demo.tokenizer.pad_token_id
    second = ids[room : 2 * room]
    rows = [[begin, *ids[:room], end], [begin, *second, end, *[pad] * (room - len(second))]]
    with torch.no_grad():
        first, last = demo.text_encoder(torch.tensor(rows)).last_hidden_state
    torch.testing.assert_close(joined[0], torch.cat([first[:-1], last[1:]]))


def test_captions_longer_than_asked_are_cut_as_diffusers_does(demo: SdFamily) -> None:
    caption = "red circle " * 60
    theirs, _ = demo.pipeline("ddim").encode_prompt(caption, CPU, 1, False)
    assert torch.equal(encode(demo, [caption]), theirs)


def test_clip_skip_beyond_the_text_encoder_is_refused(demo: SdFamily) -> None:
    with pytest.raises(UserError, match="clip_skip") as caught:
        encode(demo, CAPTIONS, skip=3)
    assert caught.value.problems[0].field == "train.clip_skip"


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("plain, text: here", [("plain, text: here", 1.0)]),
        ("a (red) circle", [("a ", 1.0), ("red", 1.1), (" circle", 1.0)]),
        ("((red))", [("red", 1.21)]),
        ("[red]", [("red", 1 / 1.1)]),
        ("(red:1.3)", [("red", 1.3)]),
        ("(big (red:2) circle:0.5)", [("big ", 0.5), ("red", 1.0), (" circle", 0.5)]),
        (r"\(red\)", [("(red)", 1.0)]),
        ("(red", [("red", 1.1)]),
        ("red)", [("red)", 1.0)]),
        ("12:30", [("12:30", 1.0)]),
        ("", []),
    ],
)
def test_emphasis_is_read_as_a1111_reads_it(text: str, pieces: list[tuple[str, float]]) -> None:
    parsed = parse_emphasis(text)
    assert [piece for piece, _ in parsed] == [piece for piece, _ in pieces]
    assert [weight for _, weight in parsed] == pytest.approx([weight for _, weight in pieces])


def test_emphasis_scales_one_word_and_keeps_the_mean(demo: SdFamily) -> None:
    plain = encode(demo, ["a red circle"])
    assert torch.equal(encode(demo, ["a red circle"], weighted=True), plain)
    strong = encode(demo, ["a (red:1.5) circle"], weighted=True)
    ratio = strong[0] / plain[0]
    position = 2  # begin, a, red
    rest = torch.cat([ratio[:position], ratio[position + 1 :]]).median()
    torch.testing.assert_close(ratio[position].median() / rest, torch.tensor(1.5))
    torch.testing.assert_close(strong.mean(), plain.mean())


def test_latents_are_the_vaes_own(demo: SdFamily) -> None:
    pixels = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = demo.encode_pixels(pixels)
    assert latents.shape == (2, 4, 8, 12) and demo.latent_scale == 8
    with torch.no_grad():
        expected = demo.vae.encode(pixels).latent_dist.mode() * demo.vae.config.scaling_factor
    assert torch.equal(latents, expected)
    assert demo.decode_latents(latents).shape == pixels.shape
    drawn = demo.encode_pixels(pixels, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(drawn, latents)


def test_the_base_is_frozen_and_in_the_asked_precision() -> None:
    family = load_family(ModelSettings(), device=CPU, dtype=torch.bfloat16)
    assert isinstance(family, SdFamily)
    assert family.denoiser.dtype == family.text_encoder.dtype == torch.bfloat16
    assert family.vae.dtype == torch.float32
    for part in (family.denoiser, family.text_encoder, family.vae):
        assert not any(parameter.requires_grad for parameter in part.parameters())


def test_nothing_but_the_denoiser_is_loaded_before_it_is_used(model_copy: Path) -> None:
    settings = json.loads((model_copy / "vae" / "config.json").read_text())
    settings.pop("sample_size")  # left open, it is the class's own
    (model_copy / "vae" / "config.json").write_text(json.dumps(settings))
    family = load(model_copy)
    said = (family.max_clip_skip, family.text_width, family.text_dtype, family.latent_scale, family.tile_px)
    assert len(family.fingerprint_text) == len(family.fingerprint_vae) == 32
    assert set(family.adapter_targets("attention", conv=False, train="unet")) == {"unet"}
    family.train(True)
    family.save_memory("all")
    family.tile_decoding(True)
    family.move(text="meta", vae="meta")
    assert set(family.loaded) == {"unet"}

    text, vae = family.text_encoder.config, family.vae.config
    widths = 2 ** (len(vae.block_out_channels) - 1), vae.sample_size
    assert said == (text.num_hidden_layers, text.hidden_size, family.text_encoder.dtype, *widths)
    shared = [name for name in vae if not name.startswith("_")]
    assert [family.vae_part.config[name] for name in shared] == [vae[name] for name in shared]
    assert list(family.loaded) == ["unet", "text_encoder", "vae"]
    assert family.text_encoder.training and family.text_encoder.is_gradient_checkpointing and family.vae.use_tiling
    assert not family.vae.training and family.text_encoder.device == family.vae.device == torch.device("meta")


def test_prediction_type_follows_the_model_unless_given(demo: SdFamily) -> None:
    assert demo.prediction_type == "v_prediction"
    assert load(prediction_type="epsilon").prediction_type == "epsilon"


def test_zero_terminal_snr_ends_in_pure_noise_and_needs_v_prediction() -> None:
    assert load(zero_terminal_snr=True).alphas_cumprod[-1] == 0  # type: ignore
    with pytest.raises(UserError, match="zero_terminal_snr"):
        load(prediction_type="epsilon", zero_terminal_snr=True)


def test_targets_are_named_by_part(demo: SdFamily) -> None:
    sizes = {
        (target, conv): {part: len(names) for part, names in demo.adapter_targets(target, conv=conv).items()}
        for target in ("attention", "attention_ff", "full")
        for conv in (False, True)
    }
    # 16 transformer blocks: 8 attention, 2 feed-forward, 2 projections; 22 ResNets with 2 convs; 3 + 3 samplers
    assert sizes["attention", False] == {"unet": 16 * 8, "text_encoder": 8}
    assert sizes["attention_ff", False] == {"unet": 16 * 12, "text_encoder": 12}
    assert sizes["attention_ff", True] == {"unet": 16 * 12 + 22 * 2 + 6, "text_encoder": 12}
    shortcuts = sum(name.endswith("conv_shortcut") for name, _ in demo.denoiser.named_modules())
    assert sizes["full", False] == {"unet": 16 * 12 + 22 + shortcuts, "text_encoder": 12}


def test_text_encoders_saved_by_older_transformers_are_read(demo: SdFamily, model_copy: Path) -> None:
    weights = model_copy / "text_encoder" / "model.safetensors"
    old = {f"text_model.{name}": tensor for name, tensor in load_file(weights).items()}
    save_file(old, weights, metadata={"format": "pt"})
    assert torch.equal(encode(load(model_copy), CAPTIONS), encode(demo, CAPTIONS))


def test_another_vae_is_taken_from_its_folder(demo: SdFamily, model_copy: Path) -> None:
    weights = model_copy / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor * 0.5 for name, tensor in load_file(weights).items()}, weights, metadata={"format": "pt"})
    for given in (model_copy, model_copy / "vae"):
        other = load_family(ModelSettings(vae=str(given)), device=CPU, dtype=torch.float32)
        assert other.fingerprint_vae != demo.fingerprint_vae
        assert other.fingerprint_text == demo.fingerprint_text


def problem_of(base: Path | str) -> tuple[str, str]:
    with pytest.raises(UserError) as caught:
        load(base)
    problem = caught.value.problems[0]
    assert problem.hint
    return problem.code, problem.field


def test_what_is_not_a_model_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"x")
    assert problem_of(tmp_path) == ("model.not_a_model", "model.base")
    assert problem_of(tmp_path / "missing" / "folder") == ("model.not_found", "model.base")
    assert problem_of("nobody/no-such-model") == ("model.offline", "model.base")
    assert problem_of(file) == ("model.broken", "model.base")
    assert problem_of(tmp_path / "missing.safetensors") == ("model.not_found", "model.base")
    assert problem_of(Path(shutil.copyfile(file, tmp_path / "model.bin"))) == ("model.single_file", "model.base")


@pytest.mark.parametrize(
    "broken",
    [
        "unet/diffusion_pytorch_model.safetensors",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ],
)
@pytest.mark.parametrize("how", ["missing", "truncated"])
def test_a_broken_model_is_named(model_copy: Path, broken: str, how: str) -> None:
    path = model_copy / broken
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError) as caught:
        load(model_copy)
    assert caught.value.problems[0].code == "model.broken"
    assert broken.split("/")[0] in caught.value.problems[0].message


def test_a_missing_tokenizer_is_named(model_copy: Path) -> None:
    shutil.rmtree(model_copy / "tokenizer")
    assert problem_of(model_copy) == ("model.broken", "model.base")


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"])
def test_a_broken_tokenizer_is_named(model_copy: Path, name: str) -> None:
    path = model_copy / "tokenizer" / name
    if name in ("vocab.json", "merges.txt"):
        path.with_name("tokenizer.json").unlink()
        assert load(model_copy).tokenizer.bos_token_id is not None, "these two are one"
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:100])
    assert problem_of(model_copy) == ("model.broken", "model.base")


def test_pickled_weights_that_are_cut_off_are_named(model_copy: Path) -> None:
    weights = model_copy / "text_encoder" / "model.safetensors"
    pickled = weights.with_name("pytorch_model.bin")
    torch.save(load_file(weights), pickled)
    weights.unlink()
    assert load(model_copy).text_encoder.config.hidden_size == 64
    pickled.write_bytes(pickled.read_bytes()[:-1000])
    assert problem_of(model_copy) == ("model.broken", "model.base")


def test_a_list_of_pieces_that_cannot_be_read_is_named(model_copy: Path) -> None:
    load(model_copy).text_encoder.save_pretrained(model_copy / "text_encoder", max_shard_size="100KB")
    (model_copy / "text_encoder" / "model.safetensors").unlink()
    (index,) = (model_copy / "text_encoder").glob("*.index.json")
    assert load(model_copy).text_encoder.dtype == torch.float32
    index.write_text(index.read_text()[:50])
    assert problem_of(model_copy) == ("model.broken", "model.base")


@pytest.mark.parametrize("key", ["auto_map", "_attn_implementation_internal"])
def test_models_with_code_of_their_own_are_refused(model_copy: Path, key: str) -> None:
    config = model_copy / "text_encoder" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), key: "evil/repo"}))
    assert problem_of(model_copy) == ("model.own_code", "model.base")


def test_other_families_are_named(model_copy: Path) -> None:
    index = model_copy / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": "FluxPipeline"}))
    assert problem_of(model_copy) == ("model.family", "model.base")
