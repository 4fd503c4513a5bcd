"""LoRAs of a hub on this machine, by their names: what is downloaded, what works without it, where they are taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants, file_download

from tests.browser.example_runs import write_example_lora
from tests.hub_server import TOKEN, Fault, Hub, use_hub
from tests.recipe.tiny_runs import Watcher
from trainer.__main__ import main
from trainer.config_io import load_config, parse_config
from trainer.errors import Problem, UserError
from trainer.generate import check_files
from trainer.hub_loras import SeveralLorasError, cached_lora, cached_loras, fetch_lora, lora_file, with_local_loras
from trainer.hub_names import HubFile
from trainer.lora.file import read_lora
from trainer.pictures import LoraUse, PictureSettings
from trainer.sharing.contents import source_of
from trainer.sharing.push import push
from trainer.sharing.settings import ShareSettings

REPO = "someone/neon"
FOUND = HubFile(REPO)
CARD = "---\nbase_model:\n- owner/base\n---\n# Neon\n"


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_example_lora(tmp_path_factory.mktemp("lora") / "neon.safetensors")


@pytest.fixture
def folder(tmp_path: Path, lora: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "neon.safetensors").write_bytes(lora.read_bytes())
    (folder / "README.md").write_text(CARD)
    (folder / "picture.png").write_bytes(b"not wanted")
    return folder


def problem(found: HubFile = FOUND) -> Problem:
    with pytest.raises(UserError) as caught:
        fetch_lora(found, field="lora")
    (told,) = caught.value.problems
    assert told.hint and told.field == "lora"
    return told


def test_it_is_downloaded_once_with_what_it_was_made_for(hub: Hub, folder: Path, lora: Path) -> None:
    hub.add(REPO, folder)
    watcher = Watcher()
    assert cached_lora(FOUND) is None and cached_loras() == []
    got = fetch_lora(FOUND, events=watcher)
    assert got.path.read_bytes() == lora.read_bytes() and got.base_model == "owner/base"
    assert got.name == HubFile(REPO, "neon.safetensors")
    assert hub.downloaded() == {"neon.safetensors", "README.md"}
    (progress,) = [event for event in watcher.events if event["type"] == "progress"][-1:]
    assert progress["done"] == progress["total"] and REPO in progress["what"]
    hub.asked.clear()
    assert fetch_lora(got.name).path == got.path and not hub.downloaded()
    assert cached_lora(FOUND) == cached_lora(got.name) == got.path and cached_loras() == [got.name]


@pytest.mark.parametrize("how", ["switched off", "no network", "busy"])
def test_without_a_network_the_copy_here_is_used(
    hub: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    hub.add(REPO, folder)
    path = fetch_lora(FOUND).path
    address = "http://127.0.0.1:9" if how == "no network" else hub.address
    use_hub(monkeypatch, address, tmp_path / "hub", offline=how == "switched off")
    hub.faults.append(Fault("/api/models/.*", "GET", 429, {"Retry-After": "86400"}, times=9))
    watcher = Watcher()
    assert fetch_lora(FOUND, events=watcher).path == path and fetch_lora(FOUND).base_model == "owner/base"
    codes = [event["code"] for event in watcher.events if event["type"] == "warning"]
    assert codes == {"switched off": [], "no network": ["model.no_network"], "busy": ["model.hub_busy"]}[how]
    other = problem(HubFile("someone/other"))
    assert (
        other.code == {"switched off": "model.offline", "no network": "model.no_network", "busy": "model.hub_busy"}[how]
    )


def test_a_lost_connection_is_taken_up_where_it_broke(
    hub: Hub, folder: Path, lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    assert file_download.constants is constants
    hub.add(REPO, folder)
    hub.faults.append(Fault(".*/resolve/.*/neon.safetensors", "GET", cut=5500))
    watcher = Watcher()
    assert fetch_lora(FOUND, events=watcher).path.read_bytes() == lora.read_bytes()
    assert hub.ranges == ["bytes=5000-"]
    done = [event["done"] for event in watcher.events if event["type"] == "progress"]
    assert done == sorted(done)


def test_several_files_are_a_choice(hub: Hub, folder: Path, lora: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "v2").mkdir()
    (folder / "v2" / "neon two.safetensors").write_bytes(lora.read_bytes())
    hub.add(REPO, folder)
    with pytest.raises(SeveralLorasError) as caught:
        fetch_lora(FOUND)
    names = [f"{REPO}/neon.safetensors", f"{REPO}/v2/neon two.safetensors"]
    assert [str(choice) for choice in caught.value.choices] == names and not hub.downloaded()
    assert main(["pull", REPO, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["choices"] == names
    assert main(["pull", names[1], "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert answer["base_model"] == "owner/base" and Path(answer["path"]).read_bytes() == lora.read_bytes()
    assert cached_lora(FOUND) == Path(answer["path"])  # the only one here


def test_names_that_lead_nowhere_are_told(hub: Hub, folder: Path) -> None:
    hub.add(REPO, folder)
    assert problem(HubFile("someone/else")).code == "model.not_found"
    assert problem(HubFile(REPO, None, "v9")).code == "model.revision"
    missing = problem(HubFile(REPO, "other.safetensors"))
    assert missing.code == "lora.no_file" and "neon.safetensors" in missing.hint
    (folder / "neon.safetensors").rename(folder / "neon.ckpt")
    hub.add(REPO, folder)
    assert problem().code == "lora.no_file"
    (folder / "model_index.json").write_text("{}")
    hub.add(REPO, folder)
    assert problem().code == "lora.is_model"
    hub.add(REPO, folder, refuses_all=(403, "GatedRepo"))
    assert problem().code == "model.gated"


@pytest.mark.parametrize(
    ("token", "offered", "words", "hint"),
    [
        ("hf_wrong", {}, "does not accept the access token", "hf auth login"),
        ("hf_wrong", {"private": True}, "does not accept the access token", "hf auth login"),
        (None, {"private": True}, "or a private one", "for a private one log in"),
        ("hf_another", {"private": True}, "or a private one", "for a private one log in"),
        (None, {"refuses_all": (401, "GatedRepo")}, "accepted its terms", f"/{REPO}, then log in"),
        (TOKEN, {"refuses_files": (403, "GatedRepo")}, "accepted its terms", f"/{REPO}, then log in"),
        (TOKEN, {"refuses_files": (403, "")}, "may not read", "Give it the right to read"),
    ],
)
def test_why_it_is_not_given(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    token: str | None, offered: dict[str, Any], words: str, hint: str,
) -> None:  # fmt: skip
    """To someone without a token, with one that the hub does not know, and with one that is not enough."""
    hub.users["hf_another"] = "another"
    hub.add(REPO, folder, **offered)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    assert main(["pull", REPO]) == 2
    told = capfd.readouterr()
    assert words in told.err and hint in told.err and not told.out
    assert "Traceback" not in told.err and (token is None or token not in told.err)
    assert cached_lora(FOUND) is None


def test_a_private_one_is_given_to_its_owner(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(REPO, folder, private=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert main(["pull", REPO]) == 0 and cached_lora(FOUND) is not None


@pytest.mark.parametrize(
    "card", ["---\nbase_model: [\n---\n", "---\n- 1\n---\n", "\udcff", "---\nbase_model: {a: 1}\n---\n"]
)
def test_cards_that_are_wrong_name_nothing(hub: Hub, folder: Path, tmp_path: Path, card: str) -> None:
    (folder / "README.md").write_bytes(card.encode("utf-8", "surrogateescape"))
    hub.add(REPO, folder)
    fetch_lora(FOUND)
    hub.repositories[REPO].refuses_all = (503, "")
    assert fetch_lora(FOUND).base_model is None and cached_lora(FOUND) is not None


def test_a_revision_is_what_it_says(hub: Hub, folder: Path, lora: Path) -> None:
    hub.add(REPO, folder, revisions=("main", "v2"))
    pinned = HubFile(REPO, None, hub.repositories[REPO].commit)
    assert fetch_lora(HubFile(REPO, None, "v2")).path.read_bytes() == lora.read_bytes()
    fetch_lora(pinned)
    hub.asked.clear()
    assert fetch_lora(pinned).name.revision == pinned.revision and not hub.asked  # a commit never changes


def test_it_is_named_wherever_a_lora_is(
    hub: Hub, folder: Path, tmp_path: Path, lora: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.add(REPO, folder)
    settings = PictureSettings(prompt="x", loras=[LoraUse(path=REPO)])
    with pytest.raises(UserError, match="trainer pull someone/neon"):
        check_files(settings)  # drawing never downloads by itself
    out = tmp_path / "merged.safetensors"
    assert main(["merge", "--lora", f"{REPO}=2", "--out", str(out)]) == 0
    check_files(settings)
    for key, layer in read_lora(out).layers.items():
        expected = read_lora(lora).layers[key].delta() * 2
        assert (layer.delta() - expected).abs().max() <= 1e-3 * expected.abs().max()
    capfd.readouterr()
    assert main(["inspect", f"{REPO}/neon.safetensors", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["file"] == "neon.safetensors"
    copy = tmp_path / "copy.safetensors"
    assert main(["pull", REPO, "--out", str(copy)]) == 0 and copy.read_bytes() == lora.read_bytes()
    assert main(["pull", REPO, "--out", str(copy)]) == 2 and main(["pull", "no name"]) == 2
    arguments = ["generate", "--prompt", "x", "--steps", "1", "--width", "64", "--height", "64"]
    assert main([*arguments, "--lora", f"{REPO}=1", "--out", str(tmp_path / "pictures")]) == 0


def test_settings_name_it_too(hub: Hub, folder: Path, tmp_path: Path) -> None:
    hub.add(REPO, folder)
    values = {
        "lora": {"init_from": REPO, "merge_before_training": [{"path": f"{REPO}/neon.safetensors", "ratio": 0.5}]}
    }
    (tmp_path / "config.yaml").write_text(json.dumps(values))
    config = load_config(tmp_path / "config.yaml")
    assert config.lora.init_from == REPO and config.lora.merge_before_training[0].path == f"{REPO}/neon.safetensors"
    (tmp_path / REPO).mkdir(parents=True)
    assert load_config(tmp_path / "config.yaml").lora.init_from == str(tmp_path / REPO)  # what is here comes first

    local = with_local_loras(parse_config(values), Watcher(), begun=False).lora
    assert Path(str(local.init_from)) == Path(local.merge_before_training[0].path) == lora_file(REPO)
    assert local.merge_before_training[0].ratio == 0.5
    hub.repositories.clear()
    gone = parse_config({"lora": {"init_from": "someone/gone"}})
    assert with_local_loras(gone, Watcher(), begun=True).lora.init_from == "someone/gone"  # not needed any more
    with pytest.raises(UserError, match=r"lora\.init_from: 'someone/gone'"):
        with_local_loras(gone, Watcher(), begun=False)


def test_what_was_sent_can_be_got(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    file = folder / "neon.safetensors"
    push(source_of(file), ShareSettings(repo=REPO, base_model="owner/base"), events=Watcher())
    got = fetch_lora(FOUND)
    assert got.path.read_bytes() == file.read_bytes() and got.base_model == "owner/base"
    monkeypatch.delenv("HF_TOKEN")
    assert problem(HubFile("someone/neon", "neon2.safetensors")).code == "model.not_found"  # private
