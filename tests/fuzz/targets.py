"""Every reader of files and texts that others may have written, with good samples of what it reads.

A target gets the bytes of a case and a folder of its own. It may raise UserError; anything else is a failure. What it
gives back is checked where there is something that must be true of every answer.
"""

from __future__ import annotations

import io
import json
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from trainer.captioners.drafts import Draft, DraftFile
from trainer.captioners.tag_lists import read_tags
from trainer.checkpoint_folders import MANIFEST, is_valid
from trainer.config import CaptionSettings, Config
from trainer.config_io import apply_override, dump_config, load_config, parse_config, parse_yaml
from trainer.curation.crops import read_crops
from trainer.curation.edit_log import EditLog, edits_dir
from trainer.data.caption_files import decode
from trainer.data.caption_tables import read_table_files
from trainer.data.captions import caption_forms, process_caption
from trainer.data.image_files import PICTURE_ERRORS, read_rgb, read_size, why_unreadable
from trainer.evaluating.results import evaluation_of
from trainer.grids.axes import KINDS, read_axis
from trainer.grids.spec import as_given
from trainer.grids.store import Grid
from trainer.imports.reading import import_path
from trainer.infotext import read_infotext
from trainer.jobs import Job
from trainer.lora.hashes import file_hashes
from trainer.lora.keys import naming, other_kind, parse_name, unify_keys
from trainer.lora.merge_recipe import read_recipe
from trainer.lora.strengths import parse_loras, parse_strength
from trainer.pictures import A1111_CHUNK, OUR_CHUNK, parse_settings, read_picture
from trainer.prompt_lines import parse_lines
from trainer.remote.hosts import hosts
from trainer.remote.ssh import last_json
from trainer.runs.bin import Bin
from trainer.runs.events import EventTail, last_events, read_events
from trainer.runs.queue import read_queue
from trainer.runs.settings import read_settings
from trainer.runs.store import Run, Workspace
from trainer.single_file.header import read_header
from trainer.studio import read_answer, read_request
from ui.curves import Stretch
from ui.run_html import head_line, run_list
from ui.run_list import RunListReader
from ui.run_view import RunReader

DATA = Path(__file__).resolve().parents[1] / "data"
OLD_RUN = DATA / "old_runs" / "2026-11-d"
Read = Callable[[Path, bytes], None]


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        read: reads a case, in the folder that it is given.
        samples: good ones.
        share: how many cases it gets of all, beside the shares of the others: more where a case takes less time.
    """

    read: Read
    samples: tuple[bytes, ...]
    share: int


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _config(folder: Path, data: bytes) -> None:
    path = folder / "c.yaml"
    path.write_bytes(data)
    config = load_config(path)
    assert parse_config(parse_yaml(dump_config(config), "again")) == config


def _override(folder: Path, data: bytes) -> None:
    values = Config().model_dump(mode="json")
    for line in _text(data).split("\n")[:5]:
        apply_override(values, line)
    parse_config(values)


def _run(folder: Path, data: bytes) -> None:
    """By itself, and in the list of all runs: another one is listed whatever this one says."""
    workspace, good = Workspace(folder), Run(folder / "runs" / "good")
    run = Run(workspace.runs_dir / "a-run")
    if not good.dir.exists():
        good.dir.mkdir(parents=True)
        shutil.copyfile(OLD_RUN / "run.json", good.info_path)
        run.dir.mkdir()
    run.info_path.write_bytes(data)
    found = RunListReader(workspace).read()
    assert f'data-pick="{good.id}"' in run_list(found, run.id)
    info = run.read()
    assert info.version == 1 and run.output_path.parent == run.output_dir
    head_line(RunReader(run).view())


def _events(folder: Path, data: bytes) -> None:
    """Whole, in two looks, and as the page shows them: the same events."""
    run = _whole_run(folder)
    middle = len(data) // 2
    run.events_path.write_bytes(data[:middle])
    tail = EventTail(run.events_path)
    found = tail.read()
    run.events_path.write_bytes(data)
    assert found + tail.read() == read_events(run.events_path)
    last_events(run.events_path, 300)


def _page_of_a_run(folder: Path, data: bytes) -> None:
    run = _whole_run(folder)
    run.events_path.write_bytes(data)
    reader = RunReader(run)
    reader.view()
    json.loads(reader.curves(Stretch()))
    "".join(reader.csv())
    reader.wall()
    reader.figures()


def _whole_run(folder: Path) -> Run:
    run = Run(folder / "whole")
    if not run.dir.exists():
        run.dir.mkdir()
        for name in ("run.json", "config.yaml"):
            shutil.copyfile(OLD_RUN / name, run.dir / name)
    return run


def _manifest(folder: Path, data: bytes) -> None:
    checkpoint = folder / "step-000006"
    if not checkpoint.exists():
        shutil.copytree(OLD_RUN / "checkpoints" / "step-000006", checkpoint)
    (checkpoint / MANIFEST).write_bytes(data)
    is_valid(checkpoint)


def _picture_text(folder: Path, data: bytes) -> None:
    read_infotext(_text(data))


def _picture(folder: Path, data: bytes) -> None:
    """The case in the chunk that it fits, or as the whole file."""
    path = folder / "case.png"
    if data.startswith(b"\x89PNG"):
        path.write_bytes(data)
    else:
        chunks = PngInfo()
        text = _text(data).encode("utf-8", "replace").decode()
        chunks.add_text(OUR_CHUNK if data.lstrip().startswith(b"{") else A1111_CHUNK, text)
        Image.new("L", (1, 1)).save(path, pnginfo=chunks)
    parse_settings(read_picture(path).settings)


def _image(folder: Path, data: bytes) -> None:
    path = folder / "case.png"
    path.write_bytes(data)
    try:
        read_size(path)
        read_rgb(data)
    except PICTURE_ERRORS as error:
        assert why_unreadable(error)


def _import(folder: Path, data: bytes) -> None:
    ending = {b"{": "json", b"[": "toml"}.get(data.lstrip()[:1], "yaml")
    path = folder / f"case.{ending}"
    path.write_bytes(data)
    parse_config(import_path(path).config.model_dump(mode="json"))


def _command_line(folder: Path, data: bytes) -> None:
    path = folder / "case.txt"
    path.write_bytes(data)
    import_path(path)


def _header(folder: Path, data: bytes) -> None:
    path = folder / "case.safetensors"
    path.write_bytes(data)
    header = read_header(path)
    assert all(8 <= begin <= end <= len(data) for begin, end in header.spans.values())
    read_recipe(header.metadata)
    file_hashes(path, header.metadata)


def _keys(folder: Path, data: bytes) -> None:
    names = _text(data).split("\n")
    naming(names)
    modules = [name.module for each in names if (name := parse_name(each)) is not None]
    for sdxl in (False, True):
        unify_keys(modules, sdxl=sdxl)
    for name in names:
        other_kind(name)


def _caption(folder: Path, data: bytes) -> None:
    file = decode(data)
    kept = file.with_text(file.text).to_bytes()
    assert decode(kept).text == file.text or file.encoding != "utf-8"
    settings = CaptionSettings(wildcards=True, shuffle=True, tag_dropout=0.3, keep_tokens=1, prefix="p", suffix="s")
    process_caption(file.text, settings, random.Random(len(data)))
    caption_forms(file.text, CaptionSettings(wildcards=True), 50)


def _caption_table(folder: Path, data: bytes) -> None:
    ending = {b"{": ".jsonl", b"\n": ".json"}.get(data[:1], ".csv")
    path = folder / f"metadata{ending}"
    path.write_bytes(data)
    read_table_files([path])
    path.unlink()


def _prompts(folder: Path, data: bytes) -> None:
    lines = _text(data).split("\n")
    parse_lines("\n".join(lines))
    parse_config({"samples": {"prompts": lines}})


def _strengths(folder: Path, data: bytes) -> None:
    lines = _text(data).split("\n")
    parse_strength(lines[0])
    parse_loras(lines[1:])


def _axes(folder: Path, data: bytes) -> None:
    kinds = list(KINDS)
    read_axis("x", {"kind": kinds[len(data) % len(kinds)], "values": _text(data)}, as_given)


def _grid(folder: Path, data: bytes) -> None:
    (folder / "grid.json").write_bytes(data)
    spec = Grid(folder).read().spec
    assert len(list(spec.cells())) == spec.shape[0] * spec.shape[1] * spec.shape[2]


def _edit_log(folder: Path, data: bytes) -> None:
    """Nothing of what a broken log says is done outside of its folder of pictures."""
    state, pictures = folder / "state", folder / "pictures"
    state.mkdir(exist_ok=True)
    (pictures / "sub").mkdir(parents=True, exist_ok=True)
    (pictures / "a.txt").write_text("dog")
    (pictures / "sub" / "c.png").write_bytes(b"x")
    (state / "000001.jsonl").write_bytes(data)
    (state / "position").write_text("1")
    log = EditLog(state, pictures)
    log.titles()
    log.history()
    try:
        log.undo()
    finally:
        shutil.rmtree(folder / "pictures")
    assert sorted(path.name for path in folder.iterdir()) == ["state"], "it was written beside the pictures"


def _drafts(folder: Path, data: bytes) -> None:
    path = folder / "review.jsonl"
    path.write_bytes(data)
    DraftFile.open(path, folder)


def _crops(folder: Path, data: bytes) -> None:
    workspace = Workspace(folder)
    path = edits_dir(workspace, folder) / "crops.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    for box in read_crops(workspace, folder).values():
        assert 0 <= box.left < box.right <= 1


def _workspace_files(folder: Path, data: bytes) -> None:
    """The small files of a workspace, each of which may be anything after a crash or by hand."""
    workspace = Workspace(folder)
    item = folder / "bin" / "item"
    (item / "content").mkdir(parents=True, exist_ok=True)
    run = folder / "runs" / "a-run"
    (run / "evaluation").mkdir(parents=True, exist_ok=True)
    evaluations = (run / "evaluation" / name for name in ("summary.json", "step-000006.json"))
    names = ("queue.json", "settings.json", "hosts.json", "7.json")
    for path in (*(folder / name for name in names), item / "item.json", *evaluations):
        path.write_bytes(data)
    read_queue(workspace)
    read_settings(workspace)
    for host in hosts(workspace):
        assert not host.address.startswith("-"), "ssh would take it for an option"
        assert not host.folder.startswith("-")
    Bin(folder).items()
    evaluation_of(run).read_summary()
    evaluation_of(run).known("")
    read_request(folder / "7.json")
    read_answer(folder, "7")


def _answer_of_a_host(folder: Path, data: bytes) -> None:
    with suppress(ValueError):
        assert isinstance(last_json(_text(data)), dict)


def _job(folder: Path, data: bytes) -> None:
    job = Job(folder / "a-job")
    job.dir.mkdir(exist_ok=True)
    (job.dir / "job.json").write_text('{"title": "t", "command": ["merge"], "started": 1.0}')
    job.result_path.write_bytes(data)
    job.read()


def _tags(folder: Path, data: bytes) -> None:
    path = folder / "selected_tags.csv"
    path.write_bytes(data)
    read_tags(path)


def _of(*texts: str) -> tuple[bytes, ...]:
    return tuple(text.encode() for text in texts)


def _files(*patterns: str) -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for pattern in patterns for path in sorted(DATA.glob(pattern)))


def _png() -> tuple[bytes, ...]:
    found = []
    for kind, mode in (("PNG", "RGB"), ("PNG", "P"), ("JPEG", "RGB"), ("WEBP", "RGBA"), ("GIF", "P"), ("BMP", "L")):
        buffer = io.BytesIO()
        Image.new(mode, (9, 7), 3).save(buffer, kind)
        found.append(buffer.getvalue())
    return tuple(found)


_INFOTEXTS = _of(
    "a (red:1.2) star <lora:neon:0.8>\nNegative prompt: blurry, <lyco:x:1>\nSteps: 20, Sampler: DPM++ 2M, "
    'Schedule type: Karras, CFG scale: 7, Seed: 42, Size: 512x768, Model: "a, b", Clip skip: 2, Version: v1',
    "x\nSteps: 8, Sampler: Euler a, CFG scale: 1.5, Seed: 1, Size: 64x64, Denoising strength: 0.5, Hires upscale: 2, "
    'Hires steps: 3, Hires upscaler: Latent, Lora hashes: "a: 1, b: 2", Mask blur: 4, Inpaint area: Only masked',
    "{prompt}\nNegative prompt: a\nNegative prompt: b\nSteps: 20,Sampler: DDIM, Version: LoRA Atelier",
)
_NAMES = _of(
    "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight\nlora_te_text_model_encoder_layers_0_mlp_fc1.alpha",
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight\ntext_encoder_2.encoder.x.lora_B.weight",
    "lora_unet_input_blocks_4_1_proj_in.lora_up.weight\nlora_te1_text_model_encoder_layers_0_mlp_fc1.hada_w1_a\n"
    "lycoris_down_blocks_0_x.lokr_w1\ndiffusion_model.input_blocks.1.1.proj_in.dora_scale",
    "unet.mid_block.attentions.0.processor.to_q_lora.down.weight\nbase_model.model.x.y.lora_magnitude_vector",
)


_CAPTIONS = (
    *_of("1girl, red {a|b} hair ||| x, y", "line\r\nline, 日本"),
    "é, à".encode("latin-1"),
    "日本".encode("utf-16"),
)
_CAPTION_TABLES = _of(
    '{"file_name": "a.png", "text": "cat"}\n{"file_name": "b.png", "text": ""}',
    "file_name,text\na.png,cat\n",
    '\n{"a": {"caption": "x", "tags": "y"}}',
)
_AXES = _of("1-10 (+2)", "0-1 [5]", "512x768, 64x64", "Euler a, DPM++ 2M Karras", "1, 2, 3", "a|b")


@cache
def targets() -> dict[str, Target]:
    """All of them, by name."""
    header = {"__metadata__": {"ss_x": "1", "atelier_merge": '{"files": ["a"], "ratios": ["1"], "mode": "exact"}'},
              "a.weight": {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 8]}}  # fmt: skip
    text = json.dumps(header).encode()
    draft = Draft(name="a.png", file="a.txt", before="cat", text="dog", old="cat")
    safetensors = (len(text).to_bytes(8, "little") + text + b"12345678", *_files("old_runs/2026-11-a/output/*"))
    pictures = _files("old_runs/2026-11-[ad]/samples/*06*")
    settings = _of(json.dumps({"version": 1, "prompt": "a", "sampler": "dpmpp_2m_karras", "loras": [{"path": "x"}]}))
    configs = _files("old_runs/*/config.yaml") + _of(
        "name: x\ntrain: {max_steps: 3, optimizer: adamw}\nlora: {rank: 4}"
    )
    json_files = _files("old_runs/*/run.json", "old_files/grid*/grid.json") + _of(
        '{"paused": true, "order": ["a", "b"]}', '{"folders": ["/a"], "theme": "dark"}', '{"id": "7", "state": "done"}',
        '{"id": "item", "kind": "run", "title": "t", "place": "runs/x", "size_bytes": 3, "deleted": 1.0}',
        '{"step": 6, "key": "", "drift": 0.1, "drawn": [{"picture": "a", "prompt": "p", "seed": 1}]}',
        '{"id": "7", "kind": "picture", "settings": {"prompt": "x"}}',
        '{"hosts": [{"name": "big", "address": "me@big.example", "port": 22, "folder": "a/b", "devices": "cuda:0"}]}',
    )  # fmt: skip
    return {
        "config": Target(_config, configs, 1),
        "override": Target(_override, _of("train.max_steps=3\nlora.rank=8", "name=x"), 20),
        "run.json": Target(_run, _files("old_runs/*/run.json"), 8),
        "events": Target(_events, _files("old_runs/*/events.jsonl"), 8),
        "page of a run": Target(_page_of_a_run, _files("old_runs/*/events.jsonl"), 1),
        "manifest": Target(_manifest, _files("old_runs/*/checkpoints/*/manifest.json"), 25),
        "infotext": Target(_picture_text, _INFOTEXTS, 50),
        "picture": Target(_picture, (*settings, *_INFOTEXTS, *pictures), 12),
        "image": Target(_image, _png(), 20),
        "kohya_ss": Target(_import, _files("imports/kohya_gui/*.json"), 1),
        "OneTrainer": Target(_import, _files("imports/onetrainer/*.json"), 1),
        "ai-toolkit": Target(_import, _files("imports/ai_toolkit/*"), 1),
        "sd-scripts": Target(_import, _files("imports/sd_scripts/*.toml"), 2),
        "command line": Target(_command_line, _files("imports/command_line/*.txt"), 4),
        "safetensors": Target(_header, safetensors, 40),
        "LoRA names": Target(_keys, _NAMES, 160),
        "caption": Target(_caption, _CAPTIONS, 160),
        "caption table": Target(_caption_table, _CAPTION_TABLES, 40),
        "prompt lines": Target(_prompts, _of("a cat --n dog --w 512 --h 768 --d 42 --s 20 --ss euler\n# x\nb"), 40),
        "strengths": Target(_strengths, _of("1,text_encoder:0,unet.mid_block:1.2\na.safetensors=0.5\nb=1,unet:2"), 160),
        "axes": Target(_axes, _AXES, 120),
        "grid.json": Target(_grid, _files("old_files/grid*/grid.json"), 12),
        "edits": Target(_edit_log, _files("old_files/edits*/*.jsonl"), 1),
        "drafts": Target(_drafts, _of("\n".join([json.dumps(vars(draft)), '{"finished": "k"}', ""])), 25),
        "crops": Target(_crops, _of('{"a.png": [0.1, 0.2, 0.9, 1.0], "b/c.png": [0, 0, 1, 1]}'), 8),
        "workspace": Target(_workspace_files, json_files, 5),
        "answer of a host": Target(_answer_of_a_host, _of('Welcome\n{"runs": [{"id": "a", "step": 3}]}\n'), 25),
        "job": Target(_job, _of('{"state": "finished", "result": {"a": 1}, "error": null, "ended": 2.0}'), 25),
        "tags": Target(_tags, _of('tag_id,name,category,count,ips\n1,1girl,0,5,"[\'a\']"\n2,x,4,1,[]\n'), 80),
    }  # fmt: skip
