"""Models of the hub, from a hub on this machine: what is downloaded, what works without it, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file

from tests.hub_server import Fault, Hub, use_hub
from tests.tiny_models import tiny_model
from trainer import hub as hub_module
from trainer.__main__ import main
from trainer.config import LoraSettings, ModelSettings
from trainer.errors import Problem, UserError
from trainer.families import load_family
from trainer.hub import cached_folder
from trainer.model_sizes import model_sizes
from trainer.weight_files import weights_in

CPU = torch.device("cpu")
REPO = "someone/tiny-model"
SECRET = "hf_ThisIsTheSecretOfThisMachine"
NOWHERE = "http://127.0.0.1:9"
PARTS = ("unet", "vae", "text_encoder")
SETTINGS = {
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    *(f"{part}/config.json" for part in PARTS),
}
WEIGHTS = {
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
}


class Told:
    """Remembers events."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def emit(self, kind: str, step: int = 0, **fields: Any) -> None:
        self.events.append({"type": kind, **fields})

    def warnings(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == "warning"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("sd1", tmp_path_factory.mktemp("tiny") / "model")


def load(base: str = REPO, told: Told | None = None, **model: Any) -> Any:
    return load_family(ModelSettings(base=base, **model), device=CPU, dtype=torch.float32, events=told)


def problem(**model: Any) -> Problem:
    with pytest.raises(UserError) as caught:
        load(**model)
    (found,) = caught.value.problems
    assert "http" not in found.message.replace(constants.ENDPOINT, "") and "\n" not in found.message
    return found


def go_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str) -> None:
    use_hub(monkeypatch, NOWHERE, tmp_path / "hub", offline=how == "switched off")


def with_strangers(folder: Path) -> Path:
    """What repositories hold besides, in the places where they hold it."""
    for name in (
        "README.md",
        "v1-5-pruned.safetensors",
        "v1-5-pruned.ckpt",
        "grid.png",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_flax_model.msgpack",
        "unet/model.onnx",
        "unet/model.onnx_data",
        "vae/diffusion_pytorch_model.fp16.bin",
        "text_encoder/pytorch_model.bin",
        "text_encoder/model.fp16.safetensors",
        "text_encoder/openvino_model.bin",
        "safety_checker/model.safetensors",
        "safety_checker/config.json",
        "vae_decoder/model.onnx",
        "feature_extractor/preprocessor_config.json",
    ):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"not needed")
    return folder


def assert_same_unet(family: Any, folder: Path, tolerance: float = 0) -> None:
    expected = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    given = family.denoiser.state_dict()
    assert given.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(given[name], tensor, rtol=tolerance, atol=tolerance)


def in_version(tiny: Path, folder: Path, version: str) -> Path:
    """The model with its weights saved in another way."""
    shutil.copytree(tiny, folder)
    family = load(str(tiny))
    parts = {"unet": family.denoiser, "vae": family.vae, "text_encoder": family.text_encoder}
    for name, part in parts.items():
        for weights in (folder / name).glob("*.safetensors"):
            weights.unlink()
        variant = "fp16" if "fp16" in version else None
        part = part.half() if variant else part
        if version == "bin":
            stem = "pytorch_model" if name == "text_encoder" else "diffusion_pytorch_model"
            torch.save(part.state_dict(), folder / name / f"{stem}.bin")
        else:
            size = {"max_shard_size": "40KB"} if "pieces" in version else {}
            part.save_pretrained(folder / name, variant=variant, **size)
    return folder


def test_only_what_is_needed_is_downloaded(hub: Hub, tiny: Path, tmp_path: Path) -> None:
    hub.add(REPO, with_strangers(Path(shutil.copytree(tiny, tmp_path / "model"))))
    told = Told()
    family = load(told=told)
    assert hub.downloaded() == SETTINGS | WEIGHTS
    assert_same_unet(family, tiny)
    progress = [event for event in told.events if event["type"] == "progress"]
    assert progress and progress[-1]["done"] == progress[-1]["total"]

    hub.asked.clear()
    load()
    assert hub.downloaded() == set()


@pytest.mark.parametrize("version", ["fp16", "pieces", "fp16 pieces", "bin"])
def test_other_versions_of_the_weights(hub: Hub, tiny: Path, tmp_path: Path, version: str) -> None:
    folder = in_version(tiny, tmp_path / "model", version)
    for part in PARTS:
        chosen = weights_in(folder / part)
        assert chosen is not None and (len(chosen.names) > 1) == ("pieces" in version)
        assert chosen.variant == ("fp16" if "fp16" in version else None) and chosen.safetensors == (version != "bin")
    tolerance = 1e-3 if "fp16" in version else 0
    assert_same_unet(load(str(folder)), tiny, tolerance)  # as a folder

    hub.add(REPO, folder)
    assert_same_unet(load(), tiny, tolerance)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert hub.downloaded() == names
    sizes = model_sizes(ModelSettings(base=REPO), LoraSettings())
    assert sizes.known == (version != "bin")
    if sizes.known:
        assert sizes == model_sizes(ModelSettings(base=str(tiny)), LoraSettings())


def test_a_pickle_that_holds_code_is_not_run(tiny: Path, tmp_path: Path) -> None:
    folder = in_version(tiny, tmp_path / "model", "bin")

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "was run",))

    torch.save({"conv_in.weight": Trap()}, folder / "unet" / "diffusion_pytorch_model.bin")
    found = problem(base=str(folder))
    assert found.code == "model.broken" and "unet" in found.message
    assert not (tmp_path / "was run").exists()


def test_a_missing_piece_is_named(hub: Hub, tiny: Path, tmp_path: Path) -> None:
    folder = in_version(tiny, tmp_path / "model", "pieces")
    piece = sorted((folder / "unet").glob("*-00002-of-*"))[0]
    piece.unlink()
    assert piece.name in problem(base=str(folder)).message
    with pytest.raises(UserError, match=piece.name):
        model_sizes(ModelSettings(base=str(folder)), LoraSettings())
    hub.add(REPO, folder)
    found = problem()
    assert found.code == "model.broken" and piece.name in found.message and "unet" in found.message
    assert not any(name.endswith(".safetensors") for name in hub.downloaded())


@pytest.mark.parametrize("how", ["switched off", "no network"])
def test_a_downloaded_model_needs_no_network(
    hub: Hub, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    hub.add(REPO, tiny)
    load()
    go_offline(monkeypatch, tmp_path, how)
    told = Told()
    assert_same_unet(load(told=told), tiny)
    codes = [warning["code"] for warning in told.warnings()]
    assert codes == ([] if how == "switched off" else ["model.no_network"])
    assert model_sizes(ModelSettings(base=REPO), LoraSettings()).known


@pytest.mark.parametrize(("how", "code"), [("switched off", "model.offline"), ("no network", "model.no_network")])
def test_without_a_network_a_model_that_is_not_here_is_told(
    hub: Hub, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, code: str
) -> None:
    go_offline(monkeypatch, tmp_path, how)
    found = problem()
    assert found.code == code and found.field == "model.base" and REPO in found.message
    assert ("HF_HUB_OFFLINE" in found.message) == (how == "switched off")

    use_hub(monkeypatch, hub.address, tmp_path / "hub")
    hub.add(REPO, tiny)
    load()
    next((tmp_path / "hub").glob("*/snapshots/*/unet/*.safetensors")).unlink()  # half of it is here
    assert cached_folder(REPO, None) is None and not model_sizes(ModelSettings(base=REPO), LoraSettings()).known
    go_offline(monkeypatch, tmp_path, how)
    assert problem().code == code


def test_a_download_that_breaks_off_is_told_and_gone_on_with(hub: Hub, tiny: Path) -> None:
    name = "unet/diffusion_pytorch_model.safetensors"
    repository = hub.add(REPO, tiny, cut=name)
    assert problem().code in ("model.no_network", "model.download")
    repository.cut = None
    hub.asked.clear()
    assert_same_unet(load(), tiny)
    assert hub.downloaded() <= WEIGHTS and name in hub.downloaded()


def test_a_lost_connection_is_taken_up_where_it_broke(hub: Hub, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.add(REPO, tiny)
    hub.faults.append(Fault(".*/resolve/.*/unet/.*safetensors", "GET", cut=5500))
    told = Told()
    assert_same_unet(load(told=told), tiny)
    assert hub.ranges == ["bytes=5000-"]
    progress = [event for event in told.events if event["type"] == "progress" and REPO in event["what"]]
    done = [event["done"] for event in progress]
    assert done == sorted(done) and done[-1] == progress[-1]["total"] > 0


def test_a_model_is_pulled_to_be_used_without_a_network(
    hub: Hub, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.add(REPO, tiny)
    assert main(["pull", REPO, "--model", "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert (answer["name"], answer["family"]) == (REPO, "sd1") and hub.downloaded() == SETTINGS | WEIGHTS
    assert answer["size_bytes"] == sum((tiny / name).stat().st_size for name in SETTINGS | WEIGHTS)
    assert main(["pull", REPO, "--model"]) == 0 and f"set model.base to {REPO}" in capfd.readouterr().out
    for wrong in ([f"{REPO}/unet/a.safetensors"], [REPO, "--out", "a.safetensors"], ["no name"]):
        assert main(["pull", *wrong, "--model"]) == 2
    go_offline(monkeypatch, tmp_path, "no network")
    assert_same_unet(load(), tiny)


def test_what_is_pulled_as_a_model_and_is_none_is_refused_before_its_weights(
    hub: Hub, tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(tiny, tmp_path / "other")
    index = json.loads((other / "model_index.json").read_text())
    (other / "model_index.json").write_text(json.dumps({**index, "_class_name": "FluxPipeline"}))
    hub.add(REPO, other)
    assert main(["pull", REPO, "--model"]) == 2
    assert "FluxPipeline" in capfd.readouterr().err and not hub.downloaded() & WEIGHTS


@pytest.mark.parametrize(
    ("status", "error", "files_only", "code", "words"),
    [
        (403, "GatedRepo", True, "model.gated", "accepted its terms"),
        (401, "GatedRepo", False, "model.gated", "accepted its terms"),
        (401, "RepoNotFound", False, "model.not_found", "not a model on the hub"),
        (403, "", True, "model.token", "may not read"),
        (429, "", False, "model.hub_busy", "no more requests"),
        (503, "", False, "model.hub_down", "503"),
        (418, "", False, "model.download", "418"),
    ],
)
def test_refusals_are_told_in_plain_words(
    hub: Hub, tiny: Path, status: int, error: str, files_only: bool, code: str, words: str
) -> None:
    repository = hub.add(REPO, tiny)
    if files_only:
        repository.refuses_files = (status, error)
    else:
        repository.refuses_all = (status, error)
    found = problem()
    assert found.code == code and words in found.message
    assert found.hint and found.field == "model.base"
    if code == "model.gated":
        assert f"{hub.address}/{REPO}" in found.hint and "hf auth login" in found.hint


def test_a_copy_here_is_used_when_the_hub_refuses(hub: Hub, tiny: Path) -> None:
    repository = hub.add(REPO, tiny)
    load()
    repository.refuses_all = (503, "")
    told = Told()
    assert_same_unet(load(told=told), tiny)
    (warning,) = told.warnings()
    assert warning["code"] == "model.hub_down" and "copy" in warning["message"]


def test_a_wait_that_the_hub_asks_for_is_told_and_waited_for(hub: Hub, tiny: Path) -> None:
    hub.add(REPO, tiny)
    hub.faults += [
        Fault(f"/api/models/{REPO}/revision/.*|/api/models/{REPO}", "GET", 429, {"Retry-After": "0"}),
        Fault(".*/resolve/.*/unet/.*safetensors", "GET", 429, {"Retry-After": "0"}),
    ]
    told = Told()
    assert_same_unet(load(told=told), tiny)
    assert [warning["code"] for warning in told.warnings()] == ["hub.busy"] * 2


def test_models_and_revisions_that_are_not_there(hub: Hub, tiny: Path) -> None:
    hub.add(REPO, tiny, revisions=("main", "v2"))
    assert problem(base="someone/else").code == "model.not_found"
    found = problem(revision="v3")
    assert found.code == "model.revision" and found.field == "model.revision" and "'v3'" in found.message
    load()
    assert problem(revision="v3").code == "model.revision"  # the copy of another revision does not stand in
    load(revision="v2")
    commit = hub.repositories[REPO].commit
    hub.asked.clear()
    load(revision=commit)
    assert not hub.asked  # a commit never changes


def test_what_is_no_model_is_told_before_anything_is_downloaded(hub: Hub, tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "single"
    folder.mkdir()
    (folder / "ponyXL.safetensors").write_bytes(b"x")
    hub.add(REPO, folder)
    found = problem()
    assert found.code == "model.not_a_model" and "model_index.json" in found.message
    assert "ponyXL.safetensors" in found.hint and hub.downloaded() == set()


@pytest.mark.parametrize("case", ["another family", "unknown kind", "own code"])
def test_wrong_models_are_told_before_their_weights_come(hub: Hub, tiny: Path, tmp_path: Path, case: str) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    if case == "unknown kind":
        (folder / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    if case == "own code":
        config = json.loads((folder / "unet" / "config.json").read_text())
        (folder / "unet" / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "x.py"}}))
    hub.add(REPO, folder)
    found = problem(family="sdxl" if case == "another family" else "auto")
    assert found.code == ("model.own_code" if case == "own code" else "model.family")
    assert hub.downloaded() == SETTINGS


def test_a_full_disk_is_told_before_the_download(hub: Hub, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(REPO, tiny)
    usage = shutil.disk_usage(tiny)
    monkeypatch.setattr(hub_module.shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
    found = problem()
    assert found.code == "model.disk_full" and "HF_HOME" in found.hint and "GB" in found.message
    assert hub.downloaded() == SETTINGS


@pytest.mark.parametrize("place", ["alone", "in a model"])
def test_a_vae_of_the_hub(hub: Hub, tiny: Path, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tiny_model("sdxl", tmp_path / "other")
    expected = load_file(other / "vae" / "diffusion_pytorch_model.safetensors")
    hub.add("someone/vae", other / "vae" if place == "alone" else other)
    names = {"config.json", "diffusion_pytorch_model.safetensors"}
    for attempt in ("online", "switched off"):
        if attempt != "online":
            go_offline(monkeypatch, tmp_path, attempt)
        family = load(str(tiny), vae="someone/vae")
        assert all(torch.equal(family.vae.state_dict()[name], tensor) for name, tensor in expected.items())
    assert hub.downloaded() == (names if place == "alone" else {f"vae/{name}" for name in names})


def test_what_holds_no_vae_is_told(hub: Hub, tiny: Path, tmp_path: Path) -> None:
    hub.add("someone/text", tiny / "text_encoder" / "..")
    hub.repositories["someone/text"].files = {"config.json": b"{}", "README.md": b"hello"}
    found = problem(base=str(tiny), vae="someone/text")
    assert found.code == "model.not_a_model" and found.field == "model.vae"
    found = problem(base=str(tiny), vae="someone/else")
    assert found.code == "model.not_found" and found.field == "model.vae"


def test_the_token_is_sent_and_never_shown(hub: Hub, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    hub.users[SECRET] = "anna"
    repository = hub.add(REPO, tiny)
    told = Told()
    load(told=told)
    assert f"Bearer {SECRET}" in hub.tokens
    for refusal in [(401, "GatedRepo"), (403, ""), (401, "RepoNotFound"), (500, "")]:
        repository.refuses_all = refusal
        load(told=told)
    assert len(told.warnings()) == 4 and SECRET not in repr(told.events)
    for refusal in [(401, "GatedRepo"), (403, ""), (401, "RepoNotFound"), (500, "")]:
        hub.add("someone/else", tiny, refuses_all=refusal)
        assert SECRET not in repr(problem(base="someone/else"))


def test_a_name_that_cannot_be_one_is_no_hub_id(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # nothing is there or above it that one of the names could mean
    for base in ("no-owner", "a/b/c", "../x", "owner/"):
        assert problem(base=base).code == "model.not_found" and not hub.asked
    with pytest.raises(UserError, match="Give its id alone: owner/name"):
        load("https://huggingface.co/owner/name/tree/main")
    assert problem(base="owner/na--me").code == "model.not_found"
