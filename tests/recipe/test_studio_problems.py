"""Whatever goes wrong with one request, its answer says so, and the same process draws the next one right."""

from __future__ import annotations

import json
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.studio_answers import awaited
from tests.unit.test_studio import FAST, QUERY, pixels, until
from trainer.demo import MODEL_DIR
from trainer.generate import Painter
from trainer.lora.file import LoraFile, LoraLayer, write_lora
from trainer.pictures import LoraUse, PictureSettings
from trainer.runs.store import Workspace
from trainer.studio import Studio

MIB = 1 << 20
LARGE = {"width": 4096, "height": 4096}
"""A picture for which the first layer alone needs more than what is left."""


class Scene:
    """A studio with its process, and files that it is made to stumble over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.studio = Studio(Workspace(folder / "workspace"), idle_minutes=5)
        self.lora = self.make_lora("good.safetensors", seed=1)

    def make_lora(self, name: str, *, seed: int) -> Path:
        numbers = torch.Generator().manual_seed(seed)
        layer = LoraLayer(torch.randn(4, 32, generator=numbers), torch.randn(32, 4, generator=numbers), 2.0)
        write_lora(self.folder / name, LoraFile({QUERY: layer}, {}), precision="float")
        return self.folder / name

    def with_lora(self, path: Path, **changes: object) -> PictureSettings:
        return FAST.model_copy(update={"loras": [LoraUse(path=str(path))], **changes})

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.studio.info().pid)

    def asked_by_file(self, text: str) -> str:
        """A request that no program of ours wrote."""
        request_id = f"{time.time_ns():020d}-generate-abcdef"
        (self.studio.requests_dir / f"{request_id}.json").write_text(text.replace("ID", request_id))
        return request_id


def a_lora_for_another_model(scene: Scene) -> str:
    tensors = {n.replace("down_blocks_0", "down_blocks_9"): t for n, t in load_file(scene.lora).items()}
    save_file(tensors, scene.folder / "other.safetensors")
    return scene.studio.generate(scene.with_lora(scene.folder / "other.safetensors"))


def a_truncated_lora(scene: Scene) -> str:
    path = scene.folder / "half.safetensors"
    path.write_bytes(scene.lora.read_bytes()[:200])
    return scene.studio.preview(scene.with_lora(path), compare=True)


def a_lora_removed_while_it_is_used(scene: Scene) -> str:
    path = scene.make_lora("gone.safetensors", seed=2)
    assert awaited(scene.studio, scene.studio.generate(scene.with_lora(path)), 120).state == "done"
    path.unlink()
    return scene.studio.generate(scene.with_lora(path))


def no_base(scene: Scene) -> str:
    return scene.studio.generate(FAST.model_copy(update={"model": str(scene.folder / "nothing")}))


def a_broken_base(scene: Scene) -> str:
    model = shutil.copytree(MODEL_DIR, scene.folder / "broken", dirs_exist_ok=True)
    weights = next((model / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    return scene.studio.generate(FAST.model_copy(update={"model": str(model)}))


def a_size_not_divisible_by_eight(scene: Scene) -> str:
    settings = {**FAST.model_dump(), "width": 100}
    return scene.asked_by_file(json.dumps({"id": "ID", "kind": "generate", "settings": settings, "created": 1.0}))


def garbage(scene: Scene) -> str:
    return scene.asked_by_file("[" * 100_000)


def another_request_s_name(scene: Scene) -> str:
    return scene.asked_by_file(
        json.dumps({"id": "0-generate-0", "kind": "generate", "settings": FAST.model_dump(), "created": 1.0})
    )


def no_memory_for_the_picture(scene: Scene) -> str:
    _limit(scene, resource.RLIMIT_AS, scene.process.memory_info().vms + 48 * MIB)
    return scene.studio.generate(FAST.model_copy(update=LARGE))


def no_memory_for_the_model(scene: Scene) -> str:
    """Another model, and not a byte more than what the process has."""
    model = shutil.copytree(MODEL_DIR, scene.folder / "copy", dirs_exist_ok=True)
    _limit(scene, resource.RLIMIT_AS, scene.process.memory_info().vms - 48 * MIB)
    return scene.studio.generate(FAST.model_copy(update={"model": str(model)}))


def no_room_for_the_picture(scene: Scene) -> str:
    """Room for what is told, and not for a picture."""
    _limit(scene, resource.RLIMIT_FSIZE, 3000)
    return scene.studio.generate(FAST)


def no_room_for_anything(scene: Scene) -> str:
    """Not even for the answer, which is given when there is room again."""
    _limit(scene, resource.RLIMIT_FSIZE, 0)
    request = scene.studio.generate(FAST)
    log = scene.studio.log_path
    until(lambda: not scene.process.children() and _is_idle(scene), 60)
    assert scene.studio.answer(request).state != "failed", log.read_text()
    return request


CASES: dict[Callable[[Scene], str], tuple[str, str, str]] = {
    a_lora_for_another_model: ("lora.wrong_model", "other.safetensors is not for this model", "loras.0.path"),
    a_truncated_lora: ("lora.", "half.safetensors", "loras.0.path"),
    a_lora_removed_while_it_is_used: ("lora.missing", "There is no LoRA file", "loras.0.path"),
    no_base: ("model.", "nothing", "model.base"),
    a_broken_base: ("model.broken", "the unet of", "model.base"),
    a_size_not_divisible_by_eight: ("", "8", "settings.width"),
    garbage: ("studio.request", "cannot be read", ""),
    another_request_s_name: ("studio.request", "cannot be read", ""),
    no_memory_for_the_picture: ("picture.memory", "memory does not suffice", "width"),
    no_memory_for_the_model: ("studio.memory", "memory does not suffice", ""),
    no_room_for_the_picture: ("picture.not_saved", "could not be saved", ""),
    no_room_for_anything: ("picture.not_saved", "could not be saved", ""),
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    scene = Scene(tmp_path_factory.mktemp("scene"))
    yield scene
    scene.studio.let_go()


@pytest.fixture(scope="module")
def right(scene: Scene) -> np.ndarray:
    """The picture with the good LoRA, by this process."""
    painter = Painter("demo", torch.device("cpu"))
    painter.use([LoraUse(path=str(scene.lora))])
    return np.asarray(painter.draw(FAST, FAST.seed))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_it_is_told_and_the_next_picture_is_right(
    scene: Scene, right: np.ndarray, case: Callable[[Scene], str]
) -> None:
    assert _drawn(scene, scene.lora) is not None
    pid = scene.studio.info().pid
    answer_to = case(scene)
    try:
        told_while_short = awaited(scene.studio, answer_to, 120 if case is not no_room_for_anything else 0)
    finally:
        _limit(scene, resource.RLIMIT_AS, resource.RLIM_INFINITY)
        _limit(scene, resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
    answer = told_while_short if told_while_short.final else awaited(scene.studio, answer_to, 60)
    code, words, field = CASES[case]
    assert answer.state == "failed"
    (problem,) = answer.error
    assert problem["code"].startswith(code) and words in problem["message"], problem
    assert problem["field"] == field and (problem["hint"] or code == "")
    assert np.array_equal(_drawn(scene, scene.lora), right)
    assert scene.studio.info().pid == pid


def test_a_lora_that_changes_while_it_is_used_is_read_again(scene: Scene, right: np.ndarray) -> None:
    path = scene.make_lora("changing.safetensors", seed=3)
    before = _drawn(scene, path)
    shutil.copyfile(scene.lora, path)
    assert not np.array_equal(before, right)
    assert np.array_equal(_drawn(scene, path), right)


def _drawn(scene: Scene, lora: Path) -> np.ndarray:
    answer = awaited(scene.studio, scene.studio.generate(scene.with_lora(lora)), 120)
    assert answer.state == "done", answer.error
    return pixels(answer.pictures[0])


def _limit(scene: Scene, kind: int, most: int) -> None:
    scene.process.rlimit(kind, (most, resource.RLIM_INFINITY))


def _is_idle(scene: Scene) -> bool:
    """Whether it has done what it could: it uses no processor time for a moment."""
    before = sum(scene.process.cpu_times()[:2])
    time.sleep(0.5)
    return sum(scene.process.cpu_times()[:2]) - before < 0.1
