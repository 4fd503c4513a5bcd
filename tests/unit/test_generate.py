"""Pictures equal those of plain diffusers code, bit for bit; what cannot work says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

from trainer import generate
from trainer.__main__ import main
from trainer.demo import MODEL_DIR
from trainer.errors import UserError
from trainer.generate import Painter, check_files, save_picture
from trainer.lora.file import LoraFile, LoraLayer, read_lora, write_lora
from trainer.lora.keys import kohya_key
from trainer.memory_savers import Savers
from trainer.pictures import LoraUse, PictureSettings, read_settings

TARGETS = ("attn2.to_q", "attn1.to_out.0", "proj_in", "q_proj", "k_proj", "v_proj", "out_proj", "mlp.fc1")
CPU = torch.device("cpu")
PROMPT = "a red star on a blue background"
FAST = PictureSettings(prompt=PROMPT, negative="green", steps=2, guidance=4.0, seed=7, width=64, height=64)


def make_lora(path: Path, seed: int, *, text: bool, rank: int = 4, alphas: tuple[float, ...] = (2.0,)) -> Path:
    """A random LoRA that changes pictures visibly, with alpha different from rank."""
    random = torch.Generator().manual_seed(seed)
    pipeline = StableDiffusionPipeline.from_pretrained(MODEL_DIR, safety_checker=None, torch_dtype=torch.float32)
    parts = {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder if text else torch.nn.Module()}
    layers: dict[str, LoraLayer] = {}
    for part, module in parts.items():
        for name, layer in module.named_modules():
            if name.endswith(TARGETS):
                shape = layer.weight.shape
                down = torch.randn(rank, *shape[1:], generator=random) * 0.3
                up = torch.randn(shape[0], rank, *[1] * (len(shape) - 2), generator=random) * 0.3
                layers[kohya_key(part, name)] = LoraLayer(down, up, alphas[len(layers) % len(alphas)])
    write_lora(path, LoraFile(layers, {}), precision="fp16")
    return path


@pytest.fixture(scope="module")
def loras(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("loras")
    return [
        make_lora(folder / "both.safetensors", 1, text=True),
        make_lora(folder / "unet.v2.safetensors", 2, text=False),
    ]


def plain_diffusers(loras: list[tuple[Path, float]]) -> np.ndarray:
    """What somebody would write with diffusers alone."""
    pipeline = StableDiffusionPipeline.from_pretrained(MODEL_DIR, safety_checker=None, torch_dtype=torch.float32)
    for index, (path, _) in enumerate(loras):
        pipeline.load_lora_weights(
            str(path.parent), weight_name=path.name, adapter_name=f"lora{index}", use_safetensors=True
        )
    if loras:
        pipeline.set_adapters([f"lora{index}" for index in range(len(loras))], [weight for _, weight in loras])
    pipeline.set_progress_bar_config(disable=True)
    settings = {
        "width": 64,
        "height": 64,
        "num_inference_steps": 2,
        "guidance_scale": 4.0,
        "generator": torch.Generator().manual_seed(7),
    }
    return np.asarray(pipeline(PROMPT, negative_prompt="green", **settings).images[0])


def ours(painter: Painter, loras: list[tuple[Path, float]], **changes: Any) -> np.ndarray:
    painter.use([LoraUse(path=str(path), weight=weight) for path, weight in loras])
    return np.asarray(painter.draw(FAST.model_copy(update=changes), 7))


@pytest.fixture(scope="module")
def painter() -> Painter:
    return Painter("demo", CPU)


def test_command_equals_diffusers_without_and_with_loras(
    tmp_path: Path, loras: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    chosen = [(loras[0], 0.6), (loras[1], -1.4)]
    options = ["--negative", "green", "--steps", "2", "--guidance", "4", "--seed", "6", "--count", "2"]
    options += ["--width", "64", "--height", "64", "--sampler", "ddim"]
    for path, weight in chosen:
        options += ["--lora", f"{path}={weight}"]
    assert main(["generate", "--prompt", PROMPT, "--out", str(tmp_path / "out"), "--json", *options]) == 0
    pictures = json.loads(capfd.readouterr().out)["pictures"]
    assert [Path(picture).name for picture in pictures] == ["00001-s6.png", "00002-s7.png"]
    assert np.array_equal(np.asarray(Image.open(pictures[1])), plain_diffusers(chosen))
    again = read_settings(Path(pictures[1]))
    assert (again["seed"], again["count"], again["loras"][1]["weight"]) == (7, 1, -1.4)


def test_command_from_a_masked_picture_in_batches(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Image.effect_noise((64, 64), 80).convert("RGB").save(tmp_path / "start.png")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))
    mask.save(tmp_path / "mask.png")
    options = ["--steps", "3", "--seed", "5", "--count", "3", "--batch-size", "2", "--strength", "0.7"]
    options += ["--width", "64", "--height", "64"]
    options += ["--init-image", str(tmp_path / "start.png"), "--mask", str(tmp_path / "mask.png"), "--mask-blur", "0"]
    assert main(["generate", "--prompt", PROMPT, "--out", str(tmp_path / "out"), "--json", *options]) == 0
    pictures = [Path(path) for path in json.loads(capfd.readouterr().out)["pictures"]]
    assert [path.name for path in pictures] == ["00001-s5.png", "00002-s6.png", "00003-s7.png"]
    start, drawn = (np.asarray(Image.open(path)) for path in (tmp_path / "start.png", pictures[2]))
    assert np.array_equal(drawn[:, 32:], start[:, 32:]) and not np.array_equal(drawn[:, :32], start[:, :32])
    again = read_settings(pictures[0])
    assert (again["seed"], again["batch_size"], again["strength"]) == (5, 1, 0.7)
    assert again["init_image"] == str(tmp_path / "start.png")
    mask.paste(0, (0, 0, 64, 64))
    mask.save(tmp_path / "mask.png")
    assert main(["generate", "--prompt", PROMPT, "--out", str(tmp_path / "out"), "--json", *options]) == 2
    assert json.loads(capfd.readouterr().out)["error"][0]["field"] == "mask"


def test_swapping_in_one_process_equals_fresh_diffusers(painter: Painter, loras: list[Path]) -> None:
    both, unet = loras
    seen = []
    for chosen in ([(both, 0.6), (unet, 1.7)], [(unet, 1.0)], [], [(both, -0.5)]):
        expected = plain_diffusers(chosen)
        assert np.array_equal(ours(painter, chosen), expected), chosen
        seen.append(expected)
    assert len({picture.tobytes() for picture in seen}) == 4  # each of them did change the picture
    assert np.array_equal(ours(painter, []), seen[2])


def test_other_layouts_do_the_same(painter: Painter, loras: list[Path], tmp_path: Path) -> None:
    """The same LoRA in PEFT's names, in which diffusers alone needs the metadata for alpha."""
    renamed: dict[str, torch.Tensor] = {}
    kohya = load_file(loras[1])
    for name, _ in painter.family.denoiser.named_modules():
        key = kohya_key("unet", name.replace(".base_layer", ""))
        if f"{key}.alpha" in kohya:
            scale = kohya[f"{key}.alpha"] / kohya[f"{key}.lora_down.weight"].shape[0]
            path = f"unet.{name.replace('.base_layer', '')}"
            renamed[f"{path}.lora_A.weight"] = kohya[f"{key}.lora_down.weight"].float()
            renamed[f"{path}.lora_B.weight"] = kohya[f"{key}.lora_up.weight"].float() * scale
    assert len(renamed) == len(kohya) // 3 * 2
    save_file(renamed, tmp_path / "peft.safetensors")
    difference = ours(painter, [(tmp_path / "peft.safetensors", 1.0)]).astype(int) - ours(painter, [(loras[1], 1.0)])
    assert np.abs(difference).max() <= 1


def test_each_layer_keeps_its_own_alpha(painter: Painter, tmp_path: Path) -> None:
    """diffusers applies one alpha to the whole text encoder; folding it into the weights shows what is right."""
    mixed = make_lora(tmp_path / "mixed.safetensors", 3, text=True, alphas=(1.0, 2.0, 8.0))
    tensors = load_file(mixed)
    for key in [name.removesuffix(".alpha") for name in tensors if name.endswith(".alpha")]:
        tensors[f"{key}.lora_up.weight"] = tensors[f"{key}.lora_up.weight"].float() * (tensors[f"{key}.alpha"] / 4)
        tensors[f"{key}.alpha"] = torch.tensor(4.0)
    save_file(tensors, tmp_path / "folded.safetensors")
    expected = plain_diffusers([(tmp_path / "folded.safetensors", 0.8)])
    difference = np.abs(ours(painter, [(mixed, 0.8)]).astype(int) - expected)
    assert difference.max() <= 1


def test_a_text_encoder_lora_of_single_layers_counts(painter: Painter, tmp_path: Path, loras: list[Path]) -> None:
    """diffusers alone leaves out attention layers where the output projection has none."""
    tensors = {name: tensor for name, tensor in load_file(loras[0]).items() if "lora_te_" in name and "q_proj" in name}
    save_file(tensors, tmp_path / "q.safetensors")
    assert not np.array_equal(ours(painter, [(tmp_path / "q.safetensors", 1.0)]), ours(painter, []))


def test_strength_by_part_and_block(painter: Painter, tmp_path: Path, loras: list[Path]) -> None:
    """The same as a file in which the other parts' layers are scaled by hand."""
    painter.use([LoraUse(path=str(loras[0]), weight=0.8, parts="text_encoder:0,unet.mid_block:-1")])
    picture = np.asarray(painter.draw(FAST, 7)).astype(int)
    tensors = {name: tensor for name, tensor in load_file(loras[0]).items() if "lora_te_" not in name}
    for name in tensors:
        if "mid_block" in name and name.endswith("up.weight"):
            tensors[name] = tensors[name] * (-1 / 0.8)
    save_file(tensors, tmp_path / "by_hand.safetensors")
    assert np.abs(picture - plain_diffusers([(tmp_path / "by_hand.safetensors", 0.8)])).max() <= 1
    assert not np.array_equal(picture, plain_diffusers([(loras[0], 0.8)]))
    with pytest.raises(UserError, match=r"has no unet\.up_blocks\.9"):
        painter.use([LoraUse(path=str(loras[0]), parts="unet.up_blocks.9:1")])


def test_a_changed_file_is_read_again(painter: Painter, tmp_path: Path) -> None:
    path = make_lora(tmp_path / "a.safetensors", 4, text=False)
    before = ours(painter, [(path, 1.0)])
    make_lora(path, 5, text=False, rank=2)
    assert not np.array_equal(ours(painter, [(path, 1.0)]), before)


def test_unused_loras_are_let_go(painter: Painter, tmp_path: Path, loras: list[Path]) -> None:
    for seed in range(10):
        copy = tmp_path / f"{seed}.safetensors"
        copy.write_bytes(loras[1].read_bytes())
        ours(painter, [(copy, 0.5)], steps=1)
    assert len(painter.loras) == 9
    held = {name for module in painter.family.denoiser.modules() for name in vars(module).get("scaling", {})}
    assert len(held) == 9


@pytest.mark.parametrize("change", ["shape", "layer", "family"])
def test_a_lora_of_another_model_is_refused(painter: Painter, tmp_path: Path, loras: list[Path], change: str) -> None:
    tensors = load_file(loras[1])
    key = next(name for name in tensors if name.endswith("attn2_to_q.lora_down.weight"))
    if change == "shape":
        tensors[key] = torch.zeros(4, 768)
    else:
        old = key.removesuffix(".lora_down.weight")
        new = {"layer": "lora_unet_nowhere", "family": "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_q"}
        tensors = {name.replace(old, new[change]): tensor for name, tensor in tensors.items()}
    path = tmp_path / "other.safetensors"
    save_file(tensors, path)
    before = ours(painter, [])
    with pytest.raises(UserError, match=r"other.safetensors is not for this model: 1 of its layers"):
        painter.use([LoraUse(path=str(path))])
    assert np.array_equal(ours(painter, []), before)


def test_every_problem_is_told_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["generate", "--prompt", "x", "--out", str(tmp_path), "--json", "--lora", "missing.safetensors=1"]
    arguments += ["--lora", "no-weight", "--width", "100", "--sampler", "magic", "--steps", "many", "--count", "0"]
    assert main(arguments) == 2
    fields = [problem["field"] for problem in json.loads(capfd.readouterr().out)["error"]]
    assert fields == ["loras", "loras", "width", "steps", "sampler", "count"]
    assert not list(tmp_path.iterdir())


def test_clip_skip_beyond_the_model(painter: Painter) -> None:
    with pytest.raises(UserError, match="more than the 2 layers"):
        painter.draw(FAST.model_copy(update={"clip_skip": 3}), 1)


def test_model_that_is_none(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--prompt", "x", "--out", str(tmp_path / "o"), "--model", str(tmp_path), "--json"]) == 2
    assert json.loads(capfd.readouterr().out)["error"][0]["field"] == "model.base"


def test_a_lora_is_read_again_only_when_it_has_changed(
    loras: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check before each picture must cost nothing while a slider moves."""
    read: list[Path] = []
    monkeypatch.setattr(generate, "read_lora", lambda path: (read.append(path), read_lora(path)))
    path = Path(shutil.copyfile(loras[1], tmp_path / "a.safetensors"))
    for weight in (0.1, 0.2, 0.3):
        check_files(FAST.model_copy(update={"loras": [LoraUse(path=str(path), weight=weight)]}))
    assert read == [path]
    shutil.copyfile(loras[0], path)
    check_files(FAST.model_copy(update={"loras": [LoraUse(path=str(path))]}))
    assert read == [path, path]
    path.write_bytes(b"no LoRA")
    for _ in range(2):
        with pytest.raises(UserError):
            check_files(FAST.model_copy(update={"loras": [LoraUse(path=str(path))]}))


def test_a_picture_says_that_it_was_decoded_in_tiles(tmp_path: Path) -> None:
    """They are seen in it: its settings make the very same picture again, also where there is memory enough."""
    large = FAST.model_copy(update={"width": 160, "height": 64})
    whole, short = Painter("demo", CPU), Painter("demo", CPU, savers=Savers(tiles=True))
    pictures = {each: each.draw(large, 7) for each in (short, whole)}
    assert pictures[short].tobytes() != pictures[whole].tobytes()
    told = read_settings(save_picture(short, pictures[short], large, 7, tmp_path))
    assert told["tiled_decoding"] is True
    assert whole.draw(PictureSettings.model_validate(told), 7).tobytes() == pictures[short].tobytes()
    assert whole.draw(large, 7).tobytes() == pictures[whole].tobytes()
    for painter, settings in ((whole, large), (short, FAST)):
        told = read_settings(save_picture(painter, pictures[painter], settings, 7, tmp_path))
        assert told["tiled_decoding"] is False, "not asked for, or nothing larger than a tile"
