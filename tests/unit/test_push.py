"""A LoRA sent to a hub on this machine with the hub's own client: what arrives there, and what never does."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard, constants
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.hub_server import TOKEN, Fault, Hub, front_matter
from tests.recipe.tiny_runs import Watcher
from trainer.__main__ import main
from trainer.config_io import parse_config, parse_yaml
from trainer.errors import Problem, StoppedOnRequest, UserError
from trainer.lora.file import LoraFile, LoraLayer, network_metadata, write_lora
from trainer.pictures import save_png
from trainer.runs.store import Run, Workspace
from trainer.sharing.contents import source_of
from trainer.sharing.push import push
from trainer.sharing.settings import ShareSettings

REPO = "someone/neon-style"
UPLOAD = r"/lfs/[0-9a-f]{64}"
KEY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
PICTURES = "holiday-of-anna"


@pytest.fixture
def hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """With somebody who is known to it."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


def write_some_lora(path: Path, **metadata: str) -> Path:
    layers = {KEY: LoraLayer(torch.ones(4, 320), torch.ones(320, 4), 4.0)}
    write_lora(path, LoraFile(layers, {**network_metadata(layers, "sd_v1"), **metadata}), precision="fp16")
    return path


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A finished run as the trainer leaves it."""
    pictures = tmp_path / PICTURES
    pictures.mkdir()
    config = parse_config(
        {
            "name": "neon style",
            "model": {"base": "owner/base-model"},
            "dataset": {
                "sources": [{"path": str(pictures), "class_prompt": "anna", "mask_path": str(tmp_path / "masks")}],
                "captions": {"prefix": "photo of anna"},
            },
            "lora": {"rank": 4, "init_from": str(tmp_path / "first.safetensors")},
            "train": {"max_steps": 20},
            "loss": {"masked": "mask"},
            "samples": {"prompts": ["a street, néon", 'the "second" `one`']},
            "output": {"trigger": "neon", "license": "MIT", "tags": "night, street"},
        }
    )
    run = Workspace(tmp_path / "workspace").create_run(config)
    told = {"modelspec.trigger_phrase": "neon", "modelspec.title": "Neon", "modelspec.license": "MIT"}
    write_some_lora(run.output_path, ss_steps="20", ss_output_name="neon style", **told)
    for step in (10, 20):
        for index, prompt in enumerate(config.samples.prompts):
            seen = {**prompt.model_dump(), "model": str(tmp_path / "base"), "step": step}
            noise = Image.effect_noise((64, 64), 50 + step + index).convert("RGB")
            save_png(noise, run.samples_dir / f"step-{step:06d}-p{index:02d}-s42.png", seen)
    run.update(state="finished", step=20)
    return run


def pushed(source: Path, watcher: Watcher | None = None, **settings: Any) -> dict[str, Any]:
    return push(source_of(source), ShareSettings(**settings), events=watcher or Watcher())


def problem(source: Path, **settings: Any) -> Problem:
    with pytest.raises(UserError) as caught:
        pushed(source, **settings)
    (found,) = caught.value.problems
    assert TOKEN not in repr(found) and "\n" not in found.message and found.hint
    return found


def test_what_arrives_is_what_was_announced(hub: Hub, run: Run) -> None:
    watcher = Watcher()
    planned = push(source_of(run.dir), ShareSettings(), events=watcher, dry_run=True)
    assert not hub.repositories and not hub.blobs
    answer = pushed(run.dir, watcher)
    assert answer["files"] == planned["files"] and planned["dry_run"] and planned["new"]
    repository = hub.repositories[REPO]
    assert repository.private and answer["visibility"] == "private" and answer["commit"] == repository.commit
    assert answer["repo"] == REPO and answer["url"] == f"{hub.address}/{REPO}"
    sent = {name: len(data) for name, data in repository.files.items() if name != ".gitattributes"}
    assert sent == {file["name"]: file["size_bytes"] for file in answer["files"]}
    assert repository.files["neon style.safetensors"] == run.output_path.read_bytes()
    progress = [event for event in watcher.events if event["type"] == "progress"]
    assert progress[-1]["done"] == progress[-1]["total"] and REPO in progress[-1]["what"]
    assert len(repository.messages) == 1


def test_the_card_says_how_to_use_it(hub: Hub, run: Run) -> None:
    pushed(run.dir, note="Made at night.")
    text = hub.repositories[REPO].files["README.md"].decode()
    card = ModelCard(text)
    assert card.data.base_model == "owner/base-model" and card.data.library_name == "diffusers"
    assert card.data.license == "mit" and card.data.pipeline_tag == "text-to-image"
    assert set(card.data.tags) >= {"text-to-image", "lora", "diffusers", "stable-diffusion"}
    known = front_matter(text)
    assert known["instance_prompt"] == "neon"
    names = [each["output"]["url"] for each in known["widget"]]
    assert names == ["samples/step-000020-p00-s42.png", "samples/step-000020-p01-s42.png"]
    assert [each["text"] for each in known["widget"]] == ["a street, néon", 'the "second" `one`']
    assert set(names) < hub.repositories[REPO].files.keys()
    assert "# Neon\n" in text and "Made at night." in text and "<lora:neon style:1>" in text
    code = text.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert f'load_lora_weights("{REPO}", weight_name="neon style.safetensors")' in code
    assert 'from_pretrained("owner/base-model"' in code


def test_nothing_private_is_sent(hub: Hub, run: Run, tmp_path: Path) -> None:
    pushed(run.dir)
    everything = b"\n".join(hub.repositories[REPO].files.values())
    for word in (str(tmp_path), PICTURES, "anna", TOKEN, str(Path.home())):
        assert word.encode() not in everything, word
    settings = parse_yaml(hub.repositories[REPO].files["settings.yaml"].decode(), "settings")
    assert parse_config(settings).train.max_steps == 20
    assert settings["dataset"]["sources"] == [{"path": "pictures", "mask_path": "masks"}]
    assert settings["model"]["base"] == "owner/base-model"
    assert settings["lora"]["init_from"] == "first.safetensors"
    picture = hub.repositories[REPO].files["samples/step-000020-p00-s42.png"]
    with Image.open(io.BytesIO(picture)) as image:
        assert not image.info and image.size == (64, 64)


def test_without_samples_no_prompt_is_told(hub: Hub, run: Run) -> None:
    pushed(run.dir, samples=0)
    files = hub.repositories[REPO].files
    assert not any(name.startswith("samples/") for name in files)
    assert b"street, n" not in b"".join(files.values()) and "samples" not in files["settings.yaml"].decode()


def test_folder_names_are_told_where_asked_for(hub: Hub, run: Run, tmp_path: Path) -> None:
    pushed(run.dir, describe_dataset=True)
    text = hub.repositories[REPO].files["settings.yaml"].decode()
    assert PICTURES in text and "photo of anna" in text and str(tmp_path) not in text


def test_files_of_other_programs_are_cleaned(hub: Hub, tmp_path: Path) -> None:
    told = {
        "ss_tag_frequency": json.dumps({"10_anna": {"anna smiling": 3}}),
        "ss_dataset_dirs": json.dumps({"10_anna": {"n_repeats": 10}}),
        "ss_datasets": json.dumps(
            [{"tag_frequency": {"10_anna": {}}, "subsets": [{"img_count": 3, "image_dir": "C:\\pics\\10_anna"}]}]
        ),
        "ss_sd_model_name": "C:\\models\\sd15.safetensors",
        "ss_vae_name": "/home/anna/vae.pt",
        "ss_learning_rate": "1e-4",
    }
    file = write_some_lora(tmp_path / "their lora.safetensors", **told)
    before = file.read_bytes()
    answer = pushed(file, repo="someone/theirs", base_model="owner/base")
    assert answer["cleaned"] and file.read_bytes() == before
    data = hub.repositories["someone/theirs"].files["their lora.safetensors"]
    assert b"anna" not in data and b"C:" not in data
    (tmp_path / "back.safetensors").write_bytes(data)
    with safe_open(tmp_path / "back.safetensors", "pt") as back, safe_open(file, "pt") as first:
        metadata, original = back.metadata(), first.metadata()
        assert all(torch.equal(back.get_tensor(name), first.get_tensor(name)) for name in first.keys())  # noqa: SIM118
    assert metadata["ss_sd_model_name"] == "sd15.safetensors" and metadata["ss_vae_name"] == "vae.pt"
    assert metadata["ss_learning_rate"] == "1e-4" and json.loads(metadata["ss_datasets"])[0]["subsets"][0] == {
        "img_count": 3
    }
    assert metadata["sshs_model_hash"] == original["sshs_model_hash"] and "sshs_legacy_hash" not in metadata
    assert hub.repositories["someone/theirs"].card["base_model"] == "owner/base"

    pushed(file, repo="someone/theirs", describe_dataset=True)
    data = hub.repositories["someone/theirs"].files["their lora.safetensors"]
    assert b"anna smiling" in data and b"/home/anna" not in data


def test_a_path_in_a_text_is_found_before_anything_is_sent(hub: Hub, run: Run, tmp_path: Path) -> None:
    found = problem(run.dir, note=f"from {tmp_path / 'workspace'}")
    assert found.code == "share.private" and "README.md" in found.message and not hub.repositories


def test_an_upload_that_broke_off_goes_on(hub: Hub, run: Run) -> None:
    pictures = rf"/lfs/(?!{hashlib.sha256(run.output_path.read_bytes()).hexdigest()}).*"
    hub.faults.append(Fault(pictures, "PUT", 403))
    assert problem(run.dir).code == "model.token"
    lora = hashlib.sha256(run.output_path.read_bytes()).hexdigest()
    assert set(hub.blobs) == {lora} and hub.repositories[REPO].files.keys() == {".gitattributes"}  # nothing is seen
    answer = pushed(run.dir)
    assert hub.received[lora] == run.output_path.stat().st_size  # once
    assert not answer["new"] and "neon style.safetensors" in hub.repositories[REPO].files


def test_a_dropped_connection_is_tried_again(hub: Hub, run: Run) -> None:
    lora = hashlib.sha256(run.output_path.read_bytes()).hexdigest()
    hub.faults.append(Fault(f"/lfs/{lora}", "PUT", cut=1000))
    pushed(run.dir)
    assert hub.received[lora] == 1000 + run.output_path.stat().st_size
    assert hub.repositories[REPO].files["neon style.safetensors"] == run.output_path.read_bytes()


def test_a_stop_ends_it_within_a_file_and_nothing_is_seen(hub: Hub, run: Run) -> None:
    big = torch.zeros(2_000_000)
    save_file({f"{KEY}.lora_down.weight": big, f"{KEY}.lora_up.weight": big.clone()}, run.output_path)
    asked: list[int] = []

    def stop_in_the_middle() -> None:
        asked.append(0)
        if len(asked) == 40:  # blocks of 64 kB, of 16 MB
            raise StoppedOnRequest("stopped on request")

    with pytest.raises(StoppedOnRequest):
        push(source_of(run.dir), ShareSettings(), events=Watcher(), check_stop=stop_in_the_middle)
    assert hub.repositories[REPO].files.keys() == {".gitattributes"} and not hub.blobs
    pushed(run.dir)
    (path,) = run.dir.glob("output/*.safetensors")
    (run.dir / "back").write_bytes(hub.repositories[REPO].files["neon style.safetensors"])
    assert load_file(run.dir / "back").keys() == load_file(path).keys()


def test_the_same_again_is_no_new_commit(hub: Hub, run: Run) -> None:
    first = pushed(run.dir)
    again = pushed(run.dir)
    assert again["commit"] == first["commit"] and len(hub.repositories[REPO].messages) == 1


def test_a_rate_limit_is_waited_for_and_told(hub: Hub, run: Run) -> None:
    busy = {"status": 429, "headers": {"Retry-After": "0"}}
    hub.faults += [Fault("/api/repos/create", "POST", **busy), Fault(UPLOAD, "PUT", **busy)]  # type: ignore[arg-type]
    watcher = Watcher()
    pushed(run.dir, watcher)
    told = [event for event in watcher.events if event["type"] == "warning"]
    assert [event["code"] for event in told] == ["hub.busy"] * 2 and "0 s" in told[0]["message"]
    assert "neon style.safetensors" in hub.repositories[REPO].files

    hub.faults.append(Fault("/api/models/.*", "GET", 429, {"Retry-After": "86400"}))
    found = problem(run.dir)
    assert found.code == "model.hub_busy" and "86400 s" in found.message


@pytest.mark.parametrize("case", ["no token", "wrong token", "not mine", "no network", "public", "no right"])
def test_refusals_are_told(hub: Hub, run: Run, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    if case == "no token":
        monkeypatch.delenv("HF_TOKEN")
        found = problem(run.dir)
        assert found.code == "hub.no_token" and "hf auth login" in found.hint
    elif case == "wrong token":
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
        assert problem(run.dir).code == "model.token"
    elif case == "not mine":
        found = problem(run.dir, repo="another/name")
        assert found.code == "model.token" and "may not write to another/name" in found.message
    elif case == "no network":
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        found = problem(run.dir, repo=REPO)
        assert found.code == "model.no_network" and "cannot be reached" in found.message
    elif case == "public":
        pushed(run.dir, public=True)
        assert not hub.repositories[REPO].private
        assert problem(run.dir).code == "share.public"
    else:
        hub.faults.append(Fault("/api/models/.*/commit/.*", "POST", 403))
        assert "may not write" in problem(run.dir).message
    assert not hub.repositories or case in ("public", "no right")


def test_the_command_asks_and_answers(
    hub: Hub, run: Run, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = ["--workspace", str(run.workspace.dir)]
    assert main(["push", run.id, *workspace, "--dry-run", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["dry_run"] and not hub.repositories
    assert main(["push", run.id, *workspace]) == 2  # no terminal
    told = capfd.readouterr().err
    assert "README.md" in told and "only you can see" in told and "--yes" in told
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert main(["push", run.id, *workspace]) == 3
    assert not hub.repositories
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert main(["push", run.id, *workspace, "--samples", "1"]) == 0
    assert f"Sent to a new repository {REPO}" in capfd.readouterr().out
    assert len([name for name in hub.repositories[REPO].files if name.startswith("samples/")]) == 1
    assert main(["push", str(run.output_path), "--yes", "--private", "--public"]) == 2
    assert main(["push", str(run.output_path), "--yes", "--repo", "no name"]) == 2
    assert main(["push", str(run.dir / "nothing"), "--yes"]) == 2


class Terminal(io.StringIO):
    """What somebody types."""

    def isatty(self) -> bool:
        return True
