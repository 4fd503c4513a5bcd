"""What is a name on the hub, and what a place on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.hub_names import HubFile, hub_file


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("owner/name", HubFile("owner/name")),
        (" owner/name ", HubFile("owner/name")),
        ("owner/name@v2", HubFile("owner/name", None, "v2")),
        ("owner/name@refs/pr/1", HubFile("owner/name", None, "refs/pr/1")),
        ("owner/name/neon.safetensors", HubFile("owner/name", "neon.safetensors")),
        ("owner/name/deep/er/neon v2.safetensors@0a1b", HubFile("owner/name", "deep/er/neon v2.safetensors", "0a1b")),
        ("o.w-n_er/na.me-1_0", HubFile("o.w-n_er/na.me-1_0")),
        ("loras/neon.safetensors", None),
        ("loras/neon.ckpt", None),
        ("owner", None),
        ("owner/", None),
        ("/owner/name", None),
        ("./owner/name.safetensors", None),
        ("owner/name/../../etc/x.safetensors", None),
        ("owner/../x.safetensors", None),
        ("owner/name/neon.ckpt", None),
        ("owner/name/neon.safetensors@", None),
        ("C:\\loras\\neon.safetensors", None),
        ("https://huggingface.co/owner/name", None),
        ("", None),
        (f"owner/name/{'x' * 5000}.safetensors", HubFile("owner/name", f"{'x' * 5000}.safetensors")),
        ("owner/name/\0.safetensors", HubFile("owner/name", "\0.safetensors")),
    ],
)
def test_names(text: str, expected: HubFile | None) -> None:
    assert hub_file(text) == expected
    if expected is not None:
        assert hub_file(str(expected)) == expected


def test_what_is_here_is_not_the_hubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub_file("owner/name") is None
    assert hub_file("owner/other") == HubFile("owner/other")
