"""A merged LoRA's recipe in words, and its sources found again among the LoRAs of the workspace. No gradio in here."""

from __future__ import annotations

from pathlib import Path

from trainer.lora.hashes import file_sha256
from trainer.lora.merge_recipe import Ingredient, Recipe
from trainer.lora.merge_settings import RANKED, SPARSE
from trainer.runs.store import Workspace
from ui.lora_choices import RowUse, known_loras


def recipe_rows(recipe: Recipe) -> list[tuple[str, str]]:
    """A table of names and values: how it was put together, then each source with its strength."""
    sources = [(Path(each.file).stem, str(each.strength).replace(",", ", ")) for each in recipe.ingredients]
    rows = [("Merged", how_in_words(recipe)), *((f"of {name}", strength) for name, strength in sources)]
    if recipe.kept is not None:
        mean, smallest = recipe.kept
        rows.append(
            ("Kept of the change", f"{mean:.2%} of its squared norm, {smallest:.2%} in the layer that lost most")
        )
    return rows


def how_in_words(recipe: Recipe) -> str:
    """``svd, rank 16`` or ``dare, rank 16, density 0.5, seed 3``."""
    settings = recipe.settings
    words = [str(settings.mode)]
    if settings.mode in RANKED:
        words.append(f"rank {settings.rank}")
        words += [f"3x3 convolutions {settings.conv_rank}"] if settings.conv_rank else []
    if settings.mode in SPARSE:
        words.append(f"density {settings.density:g}")
    if settings.mode == "dare":
        words.append(f"seed {settings.seed}")
    return ", ".join(words)


def find_sources(workspace: Workspace, recipe: Recipe) -> tuple[list[RowUse], list[str]]:
    """The recipe's LoRAs as rows, and in words what is missing or not the file that it was.

    They are looked for by name; where several files have it, that with the right hash counts, else the newest.
    """
    by_name: dict[str, list[Path]] = {}
    for _, path in known_loras(workspace):
        by_name.setdefault(Path(path).name, []).append(Path(path))
    found: list[RowUse] = []
    notes: list[str] = []
    for each in recipe.ingredients:
        named = by_name.get(each.file, [])
        if not named:
            notes.append(f"{each.file} is not on this machine")
            continue
        right = _with_hash(named, each)
        if right is None:
            notes.append(f"{each.file} is another file than the one that was merged")
        found.append(_row(right or named[0], each))
    return found, notes


def _with_hash(paths: list[Path], wanted: Ingredient) -> Path | None:
    if not wanted.sha256:
        return paths[0]
    return next((path for path in paths if file_sha256(path) == wanted.sha256), None)


def _row(path: Path, each: Ingredient) -> RowUse:
    _, _, parts = str(each.strength).partition(",")
    return RowUse(str(path), each.strength.overall, parts)
