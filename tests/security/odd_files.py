"""Files that somebody may upload to do harm or by mistake: broken, hostile, misnamed. The same ones for a seed."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from PIL.PngImagePlugin import PngInfo

Kind = Literal["picture", "archive", "lora", "settings"]
SCRIPT = "<img src=x onerror=\"document.title='PWNED'\"><script>document.title='PWNED'</script>"
ENDLESS_POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n{} loop\n%%EOF\n"
NAMES = [
    "../../outside/secret.png", "/etc/x.png", "..\\..\\outside\\x.png", "a\nb.png", "a\tb.png", "\x1b[31mred.png",
    "\u202egnp.exe.png", "x" * 300 + ".png", "é" * 200 + ".png", "CON.png", "nul.png", "--option.png", "-rf.png",
    ".hidden.png", "...png", " .png", "a.png ", "a.png.", "a.PNG", "a:b.png", "$(touch x).png", "`id`.png", "a;b.png",
    f"{SCRIPT}.png", "%2e%2e%2fa.png", "😀.png", "a\u0301.png", "a'b\"c.png", "{0}.png", "%s%n.png",
]  # fmt: skip


@dataclass(frozen=True)
class OddFile:
    """A file as it is uploaded: its name, its bytes, and what it pretends to be."""

    name: str
    data: bytes
    kind: Kind


class _Harm:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self._target = str(target)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return open, (self._target, "w")


def odd_files(seed: int, target: Path) -> list[OddFile]:
    """All of them. ``target`` is what pickles would make if they were loaded."""
    rng = random.Random(seed)
    return [*_pictures(rng), *_named(), *_archives(rng), *_loras(rng, target), *_settings(rng)]


# ---- pictures -----------------------------------------------------------------------------------------------------


def _pictures(rng: random.Random) -> Iterator[OddFile]:
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        whole = _encoded(kind)
        ending = {"JPEG": "jpg", "TIFF": "png"}.get(kind, kind.lower())
        for number in range(5):
            yield OddFile(f"cut-{number}.{ending}", whole[: rng.randrange(len(whole))], "picture")
            yield OddFile(f"flipped-{number}.{ending}", _flipped(rng, whole, 20), "picture")
        yield OddFile(f"empty.{ending}", b"", "picture")
        yield OddFile(f"zeros.{ending}", bytes(1000), "picture")
        yield OddFile(f"archive.{ending}", whole + _zip({"../a.png": whole}), "picture")
        yield OddFile(f"page.{ending}", whole + SCRIPT.encode(), "picture")
    yield OddFile("page.png", b"<!doctype html>" + SCRIPT.encode(), "picture")
    yield OddFile("drawing.png", b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', "picture")
    yield OddFile("gif.jpg", b"GIF89a/*" + SCRIPT.encode(), "picture")
    yield OddFile("wide.png", _png(50_000, 50_000, b""), "picture")
    yield OddFile("endless.png", _png(2**31 - 1, 2**31 - 1, b""), "picture")
    yield OddFile("nothing.png", _png(0, 0, b""), "picture")
    yield OddFile("packed.png", _png(20_000, 20_000, zlib.compress(bytes(20_000 * 2501), 9)), "picture")
    yield OddFile("large.png", _png(9_000, 9_000, zlib.compress(bytes(9_000 * 1126), 9)), "picture")
    yield OddFile("frames.gif", _frames(10_000), "picture")
    yield OddFile("text.png", _with_text("parameters", SCRIPT), "picture")
    yield OddFile("own-text.png", _with_text("lora_atelier", SCRIPT), "picture")
    yield OddFile("deep-text.png", _with_text("lora_atelier", "[" * 100_000), "picture")
    yield OddFile("steps.png", _with_text("parameters", "a\nSteps: 1e999, Seed: " + "9" * 5000), "picture")
    yield OddFile("packed-text.png", _text_bomb(), "picture")
    yield OddFile("profile.png", _with_profile(), "picture")


def _named() -> Iterator[OddFile]:
    for name in NAMES:
        yield OddFile(name, _encoded("PNG"), "picture")


def _encoded(kind: str) -> bytes:
    out = io.BytesIO()
    image = Image.effect_noise((32, 24), 50).convert("RGB")
    image.save(out, kind)
    return out.getvalue()


def _flipped(rng: random.Random, data: bytes, count: int) -> bytes:
    changed = bytearray(data)
    for _ in range(count):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png(width: int, height: int, packed: bytes, *more: bytes) -> bytes:
    """A PNG of one bit a pixel, with whatever stands in its packed rows."""
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


def _text_bomb() -> bytes:
    rows = zlib.compress(bytes(8 * 2))
    text = _chunk(b"zTXt", b"parameters\0\0" + zlib.compress(bytes(60_000_000), 9))
    return _png(8, 8, rows, text, text, text)


def _frames(count: int) -> bytes:
    out = io.BytesIO()
    Image.new("P", (4, 4)).save(out, "GIF")
    whole = out.getvalue()
    start = whole.index(b",\0\0\0\0")
    return whole[:start] + whole[start:-1] * count + b";"


def _with_text(name: str, text: str) -> bytes:
    out, info = io.BytesIO(), PngInfo()
    info.add_text(name, text)
    Image.new("RGB", (8, 8)).save(out, "PNG", pnginfo=info)
    return out.getvalue()


def _with_profile() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "PNG", icc_profile=b"\xff" * 5000)
    return out.getvalue()


# ---- archives -----------------------------------------------------------------------------------------------------


def _archives(rng: random.Random) -> Iterator[OddFile]:
    picture = _encoded("PNG")
    for number, name in enumerate(NAMES):
        yield OddFile(
            f"names-{number}.zip", _zip({name: picture, f"{name}.txt": b"\x1b]0;PWNED\x07\x1b[2J"}), "archive"
        )
    whole = _zip({f"{number}.png": picture for number in range(5)})
    for number in range(5):
        yield OddFile(f"cut-{number}.zip", whole[: rng.randrange(len(whole))], "archive")
        yield OddFile(f"flipped-{number}.zip", _flipped(rng, whole, 10), "archive")
    yield OddFile("bomb.zip", _zip({"a.png": bytes(150_000_000)}), "archive")
    yield OddFile("inner.zip", _zip({"b.zip": whole}), "archive")
    yield OddFile("links.zip", _links(), "archive")
    yield OddFile("many.zip", _zip({f"{number}.txt": b"" for number in range(5000)}), "archive")
    yield OddFile(
        "locked.zip", whole.replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"), "archive"
    )
    yield OddFile("tar.zip", _tar(), "archive")
    yield OddFile(
        "table.zip", _zip({"metadata.jsonl": b'{"file_name": "../../outside/secret.png", "text": "x"}'}), "archive"
    )
    yield OddFile("empty.zip", b"", "archive")


def _zip(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _links() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, target in (("a.png", "/etc/passwd"), ("folder", "../../../outside"), ("folder/b.png", "x")):
            member = zipfile.ZipInfo(name)
            member.external_attr = (0o120777 << 16) if name != "folder/b.png" else 0o644 << 16
            archive.writestr(member, target)
    return out.getvalue()


def _tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return out.getvalue()


# ---- LoRA files ---------------------------------------------------------------------------------------------------


def _loras(rng: random.Random, target: Path) -> Iterator[OddFile]:
    pickled = pickle.dumps(_Harm(target))
    yield OddFile("pickle.safetensors", pickled, "lora")
    yield OddFile("torch.safetensors", _zip({"archive/data.pkl": pickled, "archive/version": b"3"}), "lora")
    yield OddFile("behind.safetensors", struct.pack("<Q", 2) + b"{}" + pickled, "lora")
    for number, length in enumerate((0, 1, 2**31, 2**63, 2**64 - 1)):
        yield OddFile(f"length-{number}.safetensors", struct.pack("<Q", length) + b"{}", "lora")
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    for number, header in enumerate(
        [
            b"[" * 100_000, b'{"a":' * 2000, b"{}", b"null", b"\xff\xfe", b'{"a":' + b"9" * 5000 + b"}",
            json.dumps({"x": {**entry, "data_offsets": [-4, 0]}}).encode(),
            json.dumps({"x": {**entry, "shape": [2**62, 2**62]}}).encode(),
            json.dumps({SCRIPT: entry, "__metadata__": {"ss_output_name": SCRIPT}}).encode(),
            json.dumps({"x": entry, "__metadata__": {"ss_tag_frequency": "[" * 50_000}}).encode(),
        ]
    ):  # fmt: skip
        yield OddFile(f"header-{number}.safetensors", struct.pack("<Q", len(header)) + header + b"1234", "lora")
    whole = _lora()
    for number in range(10):
        yield OddFile(f"cut-{number}.safetensors", whole[: rng.randrange(len(whole))], "lora")
        yield OddFile(f"flipped-{number}.safetensors", _flipped(rng, whole, 8), "lora")
    for name in ("../x", "a\nb", "CON", "--out=x", "x" * 280, SCRIPT):
        yield OddFile(f"{name}.safetensors", whole, "lora")


def _lora() -> bytes:
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    header = {
        f"{name}.lora_down.weight": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]},
        f"{name}.lora_up.weight": {"dtype": "F32", "shape": [4, 2], "data_offsets": [32, 64]},
        "__metadata__": {"ss_output_name": SCRIPT},
    }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(64)


# ---- settings -----------------------------------------------------------------------------------------------------


def _settings(rng: random.Random) -> Iterator[OddFile]:
    laughs = "&a0 [x, x, x, x, x, x, x, x, x, x]"
    for level in range(1, 9):
        laughs += f", &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]"
    texts = {
        "python.yaml": "name: !!python/object/apply:os.system ['id']",
        "laughs.yaml": f"name: [{laughs}]",
        "laughs.json": "{" + f'"name": [{laughs}]' + "}",
        "circle.yaml": "lora: &a [*a]",
        "date.yaml": "name: 2026-13-45",
        "digits.yaml": "train: {max_steps: " + "9" * 5000 + "}",
        "deep.yaml": "[" * 2000,
        "deep.json": '{"a":' * 5000,
        "deep.toml": "a = " + "[" * 5000,
        "nul.yaml": "name: a\0b",
        "script.yaml": f"name: '{SCRIPT}'",
        "script.json": json.dumps(
            {"LoRA_type": "Standard", "output_name": SCRIPT, "pretrained_model_name_or_path": SCRIPT}
        ),
        "paths.json": json.dumps({"LoRA_type": "Standard", "train_data_dir": "/etc", "sample_prompts": "/etc/passwd"}),
        "paths.toml": 'dataset_config = "/etc/passwd"\nsample_prompts = "/etc/passwd"\n',
        "command.sh": "accelerate launch train_network.py --output_name '; id' $(id) `id` --config_file=/etc/passwd",
        "wide.txt": "a" * 200_000,
        "marks.yaml": "\ufeffname: x\n\x85",
        "list.yaml": "- 1\n- 2",
    }
    for name, text in texts.items():
        yield OddFile(name, text.encode("utf-8", "surrogatepass"), "settings")
    yield OddFile("bytes.yaml", bytes(range(256)), "settings")
    yield OddFile("utf16.yaml", "name: x".encode("utf-16"), "settings")
    whole = b"name: cat\nlora: {rank: 8, alpha: 4}\ntrain:\n  max_steps: 10\n  learning_rate: 1.0e-4\n"
    for number in range(6):
        yield OddFile(f"flipped-{number}.yaml", _flipped(rng, whole, 4), "settings")
