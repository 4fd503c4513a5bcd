"""Making pictures with a loaded model and LoRAs; on the CPU the result equals plain diffusers code bit for bit.

LoRA files of every naming are read by our own reader and given to diffusers in PEFT's names, after a check that the
model has each layer: diffusers itself leaves out what it does not recognise without an error (a text encoder LoRA
without output projections, for one; DoRA's magnitude, for another). DoRA, LoHa and LoKr are added into the weights.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import cast

import torch
from peft.tuners.lora import LoraLayer as LoraTunerLayer
from PIL import Image
from torch import nn

from trainer.config import ModelSettings
from trainer.devices import compute_dtype, give_back_memory, gpu_held, is_out_of_memory
from trainer.drawing import OnStep, Progress, draw, size_of, step_count
from trainer.errors import Problem, UserError
from trainer.families import load_family
from trainer.families.base import Family
from trainer.graphs import GraphMaker, graph_maker
from trainer.hub_loras import local_lora
from trainer.inputs import input_problems
from trainer.lora.file import LoraFile, fit_names, read_lora
from trainer.lora.layers import LoraLayer
from trainer.lora.patches import WeightPatches, check_fits, layers_by_key, shape_of
from trainer.lora.strengths import Strength
from trainer.memory_savers import NO_SAVERS, Savers
from trainer.pictures import LoraUse, PictureSettings, save_png
from trainer.replaying import Replaying
from trainer.resting_parts import arranged
from trainer.runs.events import EventSink

KEPT_LORAS = 8
"""LoRAs that stay loaded beside those in use."""


class Painter:
    """A loaded model that draws. LoRAs stay in it as adapters, so that changing a weight costs nothing."""

    def __init__(
        self,
        model: str,
        device: torch.device,
        events: EventSink | None = None,
        savers: Savers = NO_SAVERS,
        make_graph: GraphMaker | None = None,
    ) -> None:
        """Load the model. Raises UserError for no model.

        Args:
            model: see ``ModelSettings.base``.
            device: where it draws.
            events: told while a single file is converted.
            savers: what is done to save memory.
            make_graph: captures the denoiser; None for what the device has.
        """
        self.model = model
        self.device = device
        at_first = torch.device("cpu") if savers.texts_rest else device  # all of it at once may be too much
        dtype = compute_dtype("auto", device)
        self._whole = load_family(
            ModelSettings(base=model), device=at_first, dtype=dtype, events=events, inpainting=True
        )
        self._adapters = self._whole.pipeline("ddim")  # holds LoRAs on the model's own modules; it never draws
        self._make_graph = make_graph or graph_maker(device)
        self._arrange(savers)
        self._modules = layers_by_key(self.family)
        self._paths = {
            self.family.lora_key(part, path): f"{part}.{path}"
            for part, model_part in self._parts().items()
            for path, module in model_part.named_modules()
            if isinstance(module, nn.Linear | nn.Conv2d)
        }
        self._patches = WeightPatches(self._modules)
        self._patch_loras: dict[str, LoraFile] = {}
        self._loaded: dict[str, str] = {}

    @property
    def loras(self) -> list[str]:
        """The LoRA files held, least recently used first."""
        return list(self._loaded.values())

    def size(self, settings: PictureSettings) -> tuple[int, int]:
        """Width and height in pixels that are drawn at first: see ``drawing.size_of``."""
        return size_of(self.family, settings)

    def steps(self, settings: PictureSettings) -> int:
        """How many denoising steps a picture takes: see ``drawing.step_count``."""
        return step_count(self.family, settings)

    def decodes_in_tiles(self, settings: PictureSettings) -> bool:
        """Whether pictures of these settings are put together from tiles: asked for, or to save memory."""
        largest = max(settings.enlarged(self.size(settings)))
        return (self.savers.tiles or settings.tiled_decoding) and largest > self.family.tile_px

    def save_memory(self, savers: Savers) -> None:
        """Draw with these savers from now on."""
        if savers != self.savers:
            self._arrange(savers)

    @property
    def replays(self) -> str:
        """How the denoiser is captured and replayed where it can be, for people; empty where it cannot."""
        return "" if self._replaying is None else self._replaying.in_words

    def _arrange(self, savers: Savers) -> None:
        """Graphs take memory, and need a denoiser that stays where it is."""
        self.savers = savers
        self.family: Family = arranged(self._whole, self.device, savers)
        self._replaying: Replaying | None = None
        if self._make_graph is not None and savers == NO_SAVERS:
            self._replaying = Replaying(self.family, self._make_graph)
            self.family = cast(Family, self._replaying)

    def use(self, loras: list[LoraUse]) -> None:
        """Make these the LoRAs in effect. Raises UserError, with every problem, when a file is not for this model."""
        weights: dict[str, list[Strength]] = {}
        problems: list[Problem] = []
        for index, use in enumerate(loras):
            try:
                name = self._load(local_lora(use.path), use.strength)
            except UserError as error:
                problems += [
                    Problem(p.code, p.message, p.hint, p.field or f"loras.{index}.path") for p in error.problems
                ]
            else:
                weights.setdefault(name, []).append(use.strength)
        if problems:
            raise UserError.many(problems)
        self._activate(weights)
        self._forget_oldest(keep=set(weights))

    def draw(self, settings: PictureSettings, seed: int, on_step: OnStep | None = None) -> Image.Image:
        """One picture with the LoRAs in effect. Raises UserError when the memory does not suffice."""
        return self.draw_together(settings, [seed], on_step)[0]

    def draw_together(
        self, settings: PictureSettings, seeds: list[int], on_step: OnStep | None = None
    ) -> list[Image.Image]:
        """One picture for each seed, in one batch. Raises UserError when the memory does not suffice."""
        self.family.tile_decoding(self.savers.tiles or settings.tiled_decoding)
        with _told_when_memory_is_short():
            if self._replaying is None:
                return draw(self.family, settings, seeds, on_step=on_step)
            try:
                with self._replaying.picture():
                    return draw(self.family, settings, seeds, on_step=on_step)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or not self._replaying.make_room():
                    raise
            give_back_memory(self.device)
            return draw(self.family, settings, seeds, on_step=on_step)

    def _parts(self) -> dict[str, nn.Module]:
        """The modules that LoRAs go on, by their name in a diffusers pipeline."""
        return {"unet": self.family.denoiser, **self.family.text_encoders}

    def _load(self, path: Path, strength: Strength) -> str:
        """The adapter name of a LoRA file, loaded first where it is new or has changed.

        One whose strength differs by part or block is added into the weights, as diffusers has one number an adapter.
        """
        if not path.is_file():
            raise UserError("lora.missing", f"There is no LoRA file {path}.", "Check the path.")
        name = _adapter_name(path) + ("" if strength.is_uniform else "_by_block")
        if name in self._loaded:
            self._loaded[name] = self._loaded.pop(name)
            if name in self._patch_loras:
                strength.check(self._patch_loras[name].layers, path.name)
            return name
        lora = fit_names(read_lora(path), self._modules)
        check_fits(lora, self._modules, path.name)
        strength.check(lora.layers, path.name)
        if not self._is_plain(lora) or not strength.is_uniform:
            self._patch_loras[name] = lora
            self._loaded[name] = str(path)
            return name
        self._adapters.load_lora_weights(self._tensors(lora), adapter_name=name)
        self._loaded[name] = str(path)
        if self._set_alphas(name, lora) != len(lora.layers):
            self._forget(name)
            raise UserError(
                "lora.not_applied",
                f"Some layers of {path.name} cannot be applied to this model.",
                "`trainer inspect` lists what the file holds.",
            )
        return name

    def _is_plain(self, lora: LoraFile) -> bool:
        """Whether diffusers can hold it as an adapter: LoRA only, in the very shapes of the model."""
        return all(
            layer.is_plain and layer.weight_shape == shape_of(self._modules[key]) for key, layer in lora.layers.items()
        )

    def _tensors(self, lora: LoraFile) -> dict[str, torch.Tensor]:
        """The LoRA in the names of diffusers' own PEFT layout, which say exactly which layer is meant."""
        tensors: dict[str, torch.Tensor] = {}
        for key, layer in lora.layers.items():
            if isinstance(layer, LoraLayer):
                tensors[f"{self._paths[key]}.lora_A.weight"] = layer.down
                tensors[f"{self._paths[key]}.lora_B.weight"] = layer.up
        return tensors

    def _set_alphas(self, name: str, lora: LoraFile) -> int:
        """Give each layer the file's own alpha, which the PEFT layout does not carry; returns the layers found."""
        found = 0
        for part, module in self._parts().items():
            for path, layer in module.named_modules():
                if isinstance(layer, LoraTunerLayer) and name in layer.lora_alpha:
                    layer.lora_alpha[name] = lora.layers[self.family.lora_key(part, path)].alpha
                    found += 1
        return found

    def _activate(self, weights: dict[str, list[Strength]]) -> None:
        self._patches.use(
            [(lora, strength) for name, lora in self._patch_loras.items() for strength in weights.get(name, [])]
        )
        plain = {
            name: sum(strength.overall for strength in strengths)
            for name, strengths in weights.items()
            if name not in self._patch_loras
        }
        if plain:
            self._adapters.enable_lora()
            self._adapters.set_adapters(list(plain), list(plain.values()))
        else:
            self._adapters.disable_lora()

    def _forget_oldest(self, keep: set[str]) -> None:
        unused = [name for name in self._loaded if name not in keep]
        for name in unused[: max(0, len(unused) - KEPT_LORAS)]:
            self._forget(name)

    def _forget(self, name: str) -> None:
        if self._patch_loras.pop(name, None) is None:
            self._adapters.delete_adapters([name])
        self._loaded.pop(name)


def generate(
    settings: PictureSettings, folder: Path, *, device: torch.device, events: EventSink, share_gpu: bool = False
) -> list[Path]:
    """Make ``settings.count`` pictures with seeds counting up, and save each as PNG with its settings inside.

    Waits for a GPU that another job uses, unless ``share_gpu``. Raises UserError when the model or a LoRA is missing,
    or does not fit.
    """
    check_files(settings)
    with gpu_held(device, "drawing of pictures", events, share=share_gpu):
        painter = Painter(settings.model, device, events)
        painter.use(settings.loras)
        return _drawn(painter, settings, folder, events)


def _drawn(painter: Painter, settings: PictureSettings, folder: Path, events: EventSink) -> list[Path]:
    steps = painter.steps(settings)
    groups = seed_groups(settings)
    paths: list[Path] = []
    for index, seeds in enumerate(groups):

        def tell(progress: Progress, index: int = index) -> None:
            events.emit("progress", what="drawing", done=index * steps + progress.done, total=len(groups) * steps)

        for seed, image in zip(seeds, painter.draw_together(settings, seeds, tell), strict=True):
            paths.append(save_picture(painter, image, settings, seed, folder))
            events.emit("sample", path=str(paths[-1]), prompt=settings.prompt, seed=seed)
    return paths


def seed_groups(settings: PictureSettings) -> list[list[int]]:
    """The seeds of the pictures that are asked for, those together that are drawn in one batch."""
    seeds = [settings.seed + index for index in range(settings.count)]
    return [seeds[first : first + settings.batch_size] for first in range(0, len(seeds), settings.batch_size)]


def save_picture(painter: Painter, image: Image.Image, settings: PictureSettings, seed: int, folder: Path) -> Path:
    """Save a picture under the folder's next free number, with settings that make exactly this picture again."""
    path = folder / f"{next_number(folder):05d}-s{seed}.png"
    save_png(image, path, exact_settings(painter, settings, seed).model_dump())
    return path


def exact_settings(painter: Painter, settings: PictureSettings, seed: int) -> PictureSettings:
    """Settings that make exactly one picture again, whatever the model's own size is and however much memory there is.

    Raises UserError when a picture to start from cannot be read.
    """
    width, height = painter.size(settings)
    exact = {"seed": seed, "count": 1, "batch_size": 1, "width": width, "height": height}
    return settings.model_copy(update={**exact, "tiled_decoding": painter.decodes_in_tiles(settings)})


def next_number(folder: Path) -> int:
    """One more than the highest number that a picture in the folder begins with."""
    numbers = [int(match[1]) for file in folder.glob("*.png") if (match := re.match(r"(\d{1,9})-", file.name))]
    return max(numbers, default=0) + 1


def check_files(settings: PictureSettings) -> None:
    """Raise UserError for every LoRA or picture that is missing or cannot be read, before anything slow happens."""
    problems = input_problems(settings.init_image, settings.mask)
    for index, use in enumerate(settings.loras):
        try:
            path = local_lora(use.path)
            if not path.is_file():
                raise UserError("lora.missing", f"There is no LoRA file {use.path}.", "Check the path.")
            stat = path.stat()
            _check_lora(path, stat.st_size, stat.st_mtime_ns)
        except UserError as error:
            problems += [Problem(p.code, p.message, p.hint, f"loras.{index}.path") for p in error.problems]
    if problems:
        raise UserError.many(problems)


@lru_cache(maxsize=256)
def _check_lora(path: Path, size_bytes: int, mtime_ns: int) -> None:
    """Raise UserError where a LoRA cannot be read; one that could, and has not changed, is not read again.

    A slider that moves asks with each of its places.
    """
    read_lora(path)


def _adapter_name(path: Path) -> str:
    """Differs when the file's content may differ: PEFT allows no dots in it."""
    stat = path.stat()
    return hashlib.sha256(f"{path.resolve()}|{stat.st_mtime_ns}|{stat.st_size}".encode()).hexdigest()[:16]


@contextmanager
def _told_when_memory_is_short() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            "picture.memory",
            "The memory does not suffice for a picture of this size.",
            "Make it smaller, draw fewer at once (batch size), or end other programs.",
            "width",
        ) from error
