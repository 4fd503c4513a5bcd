"""250 odd files, through the real upload and what reads them then: each gets one sentence, and the app lives on."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.security.conftest import SECRET, Attacked
from tests.security.odd_files import ENDLESS_POSTSCRIPT, Kind, OddFile, odd_files

SEED = 48
MOST_BYTES = 2 * 2**30
"""What the app may have taken at most: a picture of 178 million pixels is the largest that is decoded."""
TURNING = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Signs that turn the direction of writing."""
READERS: dict[Kind, list[str]] = {
    "picture": ["dataset-add", "dropped-picture"],
    "archive": ["dataset-add"],
    "lora": ["merge-bring", "import-file"],
    "settings": ["import-file", "open-yaml", "import-preset"],
}
"""Which parts of the page read a kind of file: the first reads all of it, the others every third."""


@pytest.fixture(scope="module")
def files(attacked: Attacked) -> list[OddFile]:
    return odd_files(SEED, attacked.outside / "made by a pickle")


@pytest.fixture(scope="module")
def page(client: httpx.Client) -> Page:
    return Page(client)


class Page:
    """The page's events by the component that starts them."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        config = client.get("/config").json()
        self._blocks = {block["id"]: block for block in config["components"]}
        self._events = config["dependencies"]

    def read(self, reader: str, path: str, name: str) -> dict[str, Any]:
        """Hand an uploaded file to a part of the page; what it answers."""
        file = {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}
        if reader == "dropped-picture":
            return self._call(self._event("open_picture"), {}, {"path": path})
        if reader == "generate-source":
            event = next(each for each in self._events if self._starts(each, reader, "given"))
            return self._call(event, {}, {"path": path})
        if reader == "dataset-add":
            return self._call(self._event("add_files"), {"dataset-files": [file], "dataset-name": "odd"})
        event = next(each for each in self._events if self._starts(each, reader, "upload"))
        several = self._block(reader)["props"].get("file_count") == "multiple"
        return self._call(event, {reader: [file] if several else file})

    def _event(self, function: str) -> dict[str, Any]:
        return next(each for each in self._events if each["api_name"] == function)

    def _block(self, elem_id: str) -> dict[str, Any]:
        return next(block for block in self._blocks.values() if block["props"].get("elem_id") == elem_id)

    def _starts(self, event: dict[str, Any], elem_id: str, how: str) -> bool:
        return [self._block(elem_id)["id"], how] in event["targets"]

    def _call(
        self, event: dict[str, Any], values: dict[str, Any], told: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        blocks = [self._blocks[number] for number in event["inputs"]]
        data = [values.get(str(block["props"].get("elem_id")), block["props"].get("value")) for block in blocks]
        body = {"data": data, "fn_index": event["id"], "session_hash": "odd", "event_data": told or {}}
        body["trigger_id"] = event["targets"][0][0]
        answer = self._client.post(
            "/gradio_api/run/predict", content=json.dumps(body), headers={"content-type": "application/json"}
        )
        return answer.json()


def upload(client: httpx.Client, file: OddFile) -> str | None:
    """Send it as a browser would, its name as it is; the path it got, None where it was refused."""
    name = file.name.encode("utf-8", "surrogatepass").replace(b'"', b"%22")
    head = b'--odd\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n' % name
    answer = client.post(
        "/gradio_api/upload",
        content=head + file.data + b"\r\n--odd--\r\n",
        headers={"content-type": "multipart/form-data; boundary=odd"},
    )
    if answer.status_code >= 400:
        return None
    (path,) = answer.json()
    return str(path)


@pytest.fixture(autouse=True)
def the_app_lives_on(attacked: Attacked, client: httpx.Client) -> Iterator[None]:
    outside = attacked.state_outside()
    yield
    assert client.get("/gradio_api/startup-events").status_code == 200
    assert (attacked.touched(), attacked.state_outside()) == ([], outside)
    assert [path.name for path in attacked.outside.iterdir() if "pickle" in path.name] == []
    assert not [command for command in attacked.started() if "-m trainer" not in command]
    assert most_memory(attacked) < MOST_BYTES
    assert "Traceback" not in log_of(attacked)


def most_memory(attacked: Attacked) -> int:
    """Bytes that the app's process took at most so far."""
    status = Path(f"/proc/{attacked.process.pid}/status")
    if not status.exists():
        return psutil.Process(attacked.process.pid).memory_info().rss
    return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024


def log_of(attacked: Attacked) -> str:
    return (attacked.workspace / "logs" / "page.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", READERS)
def test_each_gets_one_sentence(
    kind: Kind, attacked: Attacked, client: httpx.Client, page: Page, files: list[OddFile]
) -> None:
    upload_folder = attacked.workspace / "tmp" / "page"
    answered = 0
    for number, file in enumerate(each for each in files if each.kind == kind):
        path = upload(client, file)
        if path is None:
            continue
        assert Path(path).resolve().is_relative_to(upload_folder), file.name
        for reader in READERS[kind] if number % 3 == 0 else READERS[kind][:1]:
            answer = page.read(reader, path, file.name)
            answered += 1
            told = answer.get("error")
            assert "data" in answer or (isinstance(told, str) and told), (file.name, reader, answer)
            assert "Traceback" not in json.dumps(answer) and SECRET not in json.dumps(answer), (file.name, reader)
            assert "not your fault" not in str(told), (file.name, reader, log_of(attacked)[-2000:])
            assert "<script" not in str(told) and "<img" not in str(told), (file.name, reader)
    assert answered > 30


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_postscript_starts_no_program(ending: str, client: httpx.Client, page: Page) -> None:
    """What Pillow by itself would draw with Ghostscript; the fixture above sees what the app starts."""
    path = upload(client, OddFile(f"endless.{ending}", ENDLESS_POSTSCRIPT, "picture"))
    assert path is not None
    for reader in ("dropped-picture", "generate-source"):
        assert "cannot be read as a picture" in page.read(reader, path, f"endless.{ending}")["error"]
    assert "data" in page.read("dataset-add", path, f"endless.{ending}")  # there it is named as a broken one


def test_there_are_enough_of_them(files: list[OddFile]) -> None:
    assert len(files) >= 200
    assert {file.kind for file in files} == set(READERS)


def test_what_was_taken_in_has_plain_names(attacked: Attacked) -> None:
    """After all that was uploaded above."""
    folder = attacked.workspace / "datasets" / "odd"
    taken = [path for path in folder.rglob("*") if path.is_file()]
    assert len(taken) > 20
    for path in taken:
        assert path.resolve().is_relative_to(folder) and not path.is_symlink()
        for part in path.relative_to(folder).parts:
            assert not re.search(r'[\\:*?"<>|]', part) and len(part.encode()) <= 255, part
            assert not any(unicodedata.category(letter) == "Cc" or letter in TURNING for letter in part), repr(part)


def test_uploads_have_a_limit(client: httpx.Client) -> None:
    """Gradio breaks an upload off that is larger; files of a data set have a lower one of their own."""
    assert client.get("/config").json()["max_file_size"] == 2 * 2**30
