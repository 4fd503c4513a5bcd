"""Writing the open dataset anew for other programs or in other sizes, and splitting validation pictures off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from trainer.config import DatasetSettings
from trainer.curation.conversion import ConversionOptions
from trainer.curation.intake import dataset_folder
from trainer.curation.picture_sets import count_of
from trainer.curation.safe_names import name_problem
from trainer.curation.splitting import bring_back
from trainer.errors import UserError
from ui.context import AppContext
from ui.dataset.board import IN_ORDER, Board, tell
from ui.dataset.desk import DatasetDesk, View
from ui.dataset.edits import SCOPES
from ui.dataset.fields import FIELD, choice, folded, switch, text
from ui.messages import tells_problems
from ui.wiring import TELLING

LAYOUTS = [
    ("kohya's folders", "kohya"),
    ("Hugging Face", "imagefolder"),
    ("CSV table", "csv"),
    ("Plain, with .txt", "plain"),
]
SIZES = [
    ("As it is", "keep"),
    ("Longer side", "longest"),
    ("Shorter side", "shortest"),
    ("Exact size", "exact"),
    ("Bucket of training", "bucket"),
]
CROPS = [
    ("Nothing", "none"),
    ("The centre", "centre"),
    ("What stands out", "smart"),
    ("Boxes drawn by hand", "hand"),
]
ASPECTS = [("As the size says", "")] + [(shape, shape) for shape in ("1:1", "2:3", "3:2", "3:4", "4:3", "9:16", "16:9")]
FORMATS = [("As it is", "keep"), ("PNG", "png"), ("JPEG", "jpg"), ("WebP", "webp")]
_NOTHING_WRITTEN = "Cancelled. Nothing was written."
_PLACE = "A new dataset's name, or the path of a new folder that the page may open."


def build(desk: DatasetDesk, board: Board) -> None:
    """Lay the panel out and wire it."""
    first = next(iter(PARTS))
    with folded("Export, resize, split", "dataset-transfer"):
        with gr.Column(elem_classes=["fields"]):
            what = choice("What to do", "transfer-what", [(label, label) for label in PARTS], first)
        columns = []
        for label, part in PARTS.items():
            with gr.Column(visible=label == first) as column:
                part(desk, board)
            columns.append(column)
    what.change(
        lambda chosen: [gr.update(visible=label == chosen) for label in PARTS], what, columns, queue=False, **TELLING
    )


def _export_part(desk: DatasetDesk, board: Board) -> None:
    with gr.Column(elem_classes=["fields"]):
        scope = choice("Pictures", "export-scope", SCOPES, "all")
        layout = choice("For", "export-layout", LAYOUTS, "kohya", "Pictures stay as they are, to the byte.")
        name = text("To", "export-name", _PLACE, "my-export")
        masks = text("Masks", "export-masks", "Folder of masks with the pictures' names; empty: those painted here.")
        zipped = switch("As one zip file", "export-zip", False)
    with gr.Column(elem_classes=["fields"]) as kohya:
        repeats = text("Repeats", "export-repeats", "Of each picture in an epoch; empty: as they are now.", "10")
        concept = text("Trigger word", "export-concept", "In the folders' names.", "ohwx")
        class_word = text("Class", "export-class", "Behind the trigger word.", "cat")
        prior = text("Regularization pictures", "export-prior", "Folder of pictures of the class; empty for none.")
    with gr.Row(elem_classes=["actions"]):
        start = gr.Button("Export", variant="primary", elem_id="export-start", elem_classes=["fit"])
    layout.change(lambda chosen: gr.update(visible=chosen == "kohya"), layout, kohya, queue=False, **TELLING)
    desk.tells(
        "export", written_report, opens=lambda done: "" if done["zip"] else _made(done), stopped=_NOTHING_WRITTEN
    )
    fields = [scope, layout, name, masks, zipped, repeats, concept, class_word, prior]
    board.start(start, lambda view, *values: order_export(desk, view, *values), fields)


def _pictures_part(desk: DatasetDesk, board: Board) -> None:
    with gr.Column(elem_classes=["fields"]):
        scope = choice("Pictures", "pictures-scope", SCOPES, "all")
        size = choice("Size", "pictures-size", SIZES, "bucket")
        width = gr.Number(
            DatasetSettings.model_fields["resolution"].default,
            label="Pixels",
            info="Of the side, or the resolution.",
            precision=0,
            elem_id="pictures-width",
            **FIELD,
        )
        height = gr.Number(
            512, label="Height in pixels", precision=0, visible=False, elem_id="pictures-height", **FIELD
        )
        crop = choice("Crop to", "pictures-crop", CROPS, "none", "What stands out is told by edges and colours.")
        aspect = choice("Shape", "pictures-aspect", ASPECTS, "", "Width to height, for cropping.")
        upscale = switch("Enlarge smaller pictures", "pictures-upscale", False)
    with gr.Column(elem_classes=["fields"]):
        file_format = choice("Files", "pictures-format", FORMATS, "keep", "What needs no change is copied as it is.")
        quality = gr.Number(
            ConversionOptions.quality,
            label="Quality",
            info="Of JPEG and WebP, 1 to 100.",
            precision=0,
            elem_id="pictures-quality",
            **FIELD,
        )
        background = text("Transparent parts", "pictures-background", "A colour for them; empty: kept.", "white")
        info = "Folder of masks, treated like their pictures; empty: those painted here."
        masks = text("Masks", "pictures-masks", info)
        name = text("To", "pictures-name", _PLACE, "my-cat-512")
    with gr.Row(elem_classes=["actions"]):
        start = gr.Button("Write new pictures", variant="primary", elem_id="pictures-start", elem_classes=["fit"])

    def sides(rule: str) -> list[Any]:
        label = {"exact": "Width in pixels"}.get(rule, "Pixels")
        return [gr.update(visible=rule != "keep", label=label), gr.update(visible=rule == "exact")]

    size.change(sides, size, [width, height], queue=False, **TELLING)
    desk.tells("pictures", written_report, opens=_made, stopped=_NOTHING_WRITTEN)
    fields = [scope, size, width, height, crop, aspect, upscale, file_format, quality, background, masks, name]
    board.start(start, lambda view, *values: order_pictures(desk, view, *values), fields)


def _split_part(desk: DatasetDesk, board: Board) -> None:
    gr.HTML(
        "<p>Pictures that are not trained on tell whether a run learns or only memorises. They go out of the dataset "
        "with their captions; <b>Train on these pictures</b> fills them in as the validation folder.</p>",
        padding=False,
        elem_classes=["card-title"],
    )
    with gr.Column(elem_classes=["fields"]):
        info = "Of the pictures, at most 0.5. Pictures that look alike or share a caption stay together."
        share = gr.Number(0.1, label="Share", info=info, step=0.05, elem_id="split-share", **FIELD)
        seed = gr.Number(
            0, label="Seed", info="Another one, other pictures.", precision=0, elem_id="split-seed", **FIELD
        )
    with gr.Row(elem_classes=["actions"]):
        start = gr.Button("Split off", variant="primary", elem_id="split-start", elem_classes=["fit"])
        back = gr.Button("Bring back", elem_id="split-back", elem_classes=["fit"])

    @tells_problems
    def back_again(view: View) -> list[Any]:
        folder = desk.folder(view)
        desk.refuse_while_busy(folder)
        tell("Brought back", bring_back(folder, desk.log(folder)))
        return board.updates(desk.refresh(view))

    stopped = "Cancelled. What was moved by then is undone with Undo."
    desk.tells("split", split_report, opens=lambda done: str(done.get("validation", "")), stopped=stopped)
    board.start(start, lambda view, *values: order_split(desk, view, *values), [share, seed])
    back.click(back_again, board.grid, board.outputs, **IN_ORDER)


PARTS: dict[str, Callable[[DatasetDesk, Board], None]] = {
    "Export": _export_part,
    "Other sizes and formats": _pictures_part,
    "Validation pictures": _split_part,
}


def order_export(desk: DatasetDesk, view: View, *values: Any) -> None:
    """Start an export of the open folder. Raises UserError for places the page may not write or read."""
    scope, layout, name, masks, zipped, repeats, concept, class_word, prior = values
    arguments = [f"--to={layout}", f"--out={destination(desk.context, name)}"]
    arguments += ["--zip"] if zipped else []
    arguments += _folder_option(desk.context, "masks", masks)
    if layout == "kohya":
        arguments += [f"--repeats={repeats.strip()}"] if repeats and repeats.strip() else []
        arguments += [f"--concept={concept}"] if concept else []
        arguments += [f"--class-word={class_word}"] if class_word else []
        arguments += _folder_option(desk.context, "regularization", prior)
    desk.start(view, ["export"], "Export of", arguments, desk.chosen(view, scope))


def order_pictures(desk: DatasetDesk, view: View, *values: Any) -> None:
    """Start writing the open folder in other sizes. Raises UserError for places the page may not write or read."""
    scope, rule, width, height, crop, aspect, upscale, file_format, quality, background, masks, name = values
    sizes = {name: f"{width or 0}" for _, name in SIZES} | {"exact": f"{width or 0}x{height or 0}"}
    arguments = [f"--out={destination(desk.context, name)}", f"--workspace={desk.workspace.dir}"]
    arguments += [] if rule == "keep" else [f"--{rule}={sizes[rule]}"]
    arguments += [f"--crop={crop}", f"--format={file_format}", f"--quality={quality or 0}"]
    arguments += [f"--aspect={aspect}"] if aspect else []
    arguments += ["--upscale"] if upscale else []
    arguments += [f"--background={background.strip()}"] if background and background.strip() else []
    arguments += _folder_option(desk.context, "masks", masks)
    desk.start(view, ["pictures"], "New pictures of", arguments, desk.chosen(view, scope))


def order_split(desk: DatasetDesk, view: View, share: float | None, seed: int | None) -> None:
    """Start splitting validation pictures off the open folder."""
    arguments = [f"--share={share or 0}", f"--seed={seed or 0}", f"--workspace={desk.workspace.dir}"]
    desk.start(view, ["split"], "Validation pictures of", arguments)


def destination(context: AppContext, given: str | None) -> Path:
    """Where a new folder goes: among the workspace's datasets by its name, or a full path in a folder that is allowed.

    Raises UserError for names that do not work and places that are not open to the page.
    """
    name, datasets_dir = (given or "").strip(), context.workspace.datasets_dir
    if not Path(name).expanduser().is_absolute():
        return dataset_folder(datasets_dir, name)
    place = context.allowed(name)
    if problem := name_problem(place.name, "name"):
        raise UserError.many([problem])
    if place.is_relative_to(context.workspace.dir.resolve()) and not place.is_relative_to(datasets_dir.resolve()):
        message = f"{place} is among the program's own files."
        raise UserError("path.not_allowed", message, "Give a name alone: it then goes to your datasets.", "name")
    return place


def _folder_option(context: AppContext, option: str, given: str | None) -> list[str]:
    return [f"--{option}={context.allowed(given.strip())}"] if given and given.strip() else []


def _made(done: dict[str, Any]) -> str:
    """The folder that can be opened: none of a zip file."""
    return "" if done.get("zip") else str(Path(done["out"], done["pictures_dir"]))


def split_report(done: dict[str, Any]) -> str:
    """What splitting off answered, in a sentence."""
    together = f" {count_of(done['together'], 'group')} of alike ones stayed together." if done["together"] else ""
    return (
        f"{count_of(done['moved'], 'picture')} to validate on, {done['left']} left to train on.{together} "
        "Undo takes it back."
    )


def written_report(done: dict[str, Any]) -> str:
    """What an export, or writing new pictures, answered, in a few sentences."""
    counts = [count_of(done["pictures"], "picture"), count_of(done["captions"], "caption")]
    counts += [count_of(done["masks"], "mask")] if done["masks"] else []
    left_out = [f"{each['path']} was left out: {each['reason']}." for each in done["skipped"][:5]]
    return " ".join([f"{', '.join(counts)} in {done['out']}.", *done["notes"], *left_out])
