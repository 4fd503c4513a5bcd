"""The rules that hold the shape of the project, checked on its source."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from trainer.__main__ import COMMANDS, INTERNAL_COMMANDS, module_of

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [*sorted(path for folder in ("trainer", "ui") for path in (ROOT / folder).rglob("*.py")), ROOT / "app.py"]
TOP_LEVEL = {"app.py", "ui", "trainer", "presets", "tests", "requirements.txt", "launch.sh"}
TOP_LEVEL_FOR_TOOLS = {
    "README.md", "LICENSE", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "pyproject.toml", "requirements-dev.txt",
    "requirements-gpu.txt", "docs", ".ci", ".gitignore",
}  # fmt: skip
LONGEST_FUNCTION_LINES = 80
LONGEST_FILE_LINES = 450


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_nothing_else_lies_at_the_top() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = {line.split("/")[0] for line in tracked.splitlines()}
    assert names >= TOP_LEVEL
    assert names <= TOP_LEVEL | TOP_LEVEL_FOR_TOOLS


def test_no_two_test_files_share_a_name() -> None:
    """pytest imports test files by their bare names and refuses the second of a pair."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_point_one_way(path: Path) -> None:
    """The trainer knows no page; the page and what it shares with the trainer know no torch."""
    name, modules = relative(path), {module.split(".")[0] for module in imports(parsed(path))}
    if name.startswith("trainer/"):
        assert not modules & {"ui", "gradio", "app"}
    light = name.startswith(("ui/", "trainer/runs/", "trainer/config", "app.py")) or name == "trainer/jobs.py"
    if light:
        assert not modules & {"torch", "diffusers", "transformers", "peft", "accelerate"}


def test_the_page_never_loads_torch() -> None:
    code = (
        "import sys, ui.shell, trainer.jobs, trainer.runs.worker, trainer.config_io\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'peft'} & set(sys.modules)\n"
        "sys.exit(' '.join(heavy) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, f"importing the page loaded: {result.stderr}"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_only_families_ask_which_family(path: Path) -> None:
    if relative(path).startswith(("trainer/families/", "trainer/lora/keys.py")):
        return
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Compare):
            text = ast.unparse(node)
            asks = re.search(r"\bfamily(\.name)? (==|!=|in|not in) ['(\[{](?!auto')", text)
            assert not asks and not re.search(r"(==|!=) '(sd1|sd2|sdxl)'", text), text


def test_notes_are_shown_in_one_place() -> None:
    """There they are escaped: Gradio shows them as HTML."""
    showing = [relative(path) for path in SOURCES if re.search(r"\bgr\.(Info|Warning)\(", path.read_text("utf-8"))]
    assert showing == ["ui/messages.py"]


def test_pictures_are_opened_in_one_place() -> None:
    """There only formats are tried for which Pillow starts no program. Gradio's own pictures open what is sent."""
    opening = re.compile(r"\bImage\.open\(|\bimport open\b|\bgr\.(Image|ImageEditor|ImageSlider|Gallery|Annotated)\b")
    found = [relative(path) for path in SOURCES if opening.search(path.read_text("utf-8"))]
    assert found == ["trainer/data/image_files.py"]


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_files_and_functions_stay_readable(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE_LINES
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= LONGEST_FUNCTION_LINES, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_public_things_are_documented(path: Path) -> None:
    tree = parsed(path)
    assert path.name == "__init__.py" or ast.get_docstring(tree), "the file says nothing of what lives in it"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


@pytest.mark.parametrize("name", [*COMMANDS, *INTERNAL_COMMANDS])
def test_every_command_has_its_module(name: str) -> None:
    module = importlib.import_module(f"trainer.commands.{module_of(name)}")
    assert callable(module.add_arguments)
    assert callable(module.run)
    assert callable(module.describe)


def documents() -> list[Path]:
    named = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
    return named + sorted((ROOT / "docs").rglob("*.md")) + sorted((ROOT / "trainer").rglob("README.md"))


@pytest.mark.parametrize("path", documents(), ids=relative)
def test_documents_name_only_what_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http:", "https:")):
            assert (path.parent / target).exists(), f"link to {target}"
    for name in re.findall(r"`((?:ui|trainer|presets|tests|docs)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), f"{name} is named and does not exist"
    for command in re.findall(r"(?:launch\.sh trainer|python -m trainer) ([a-z][a-z-]*)", text):
        assert command in COMMANDS, f"the command {command} is named and does not exist"


@cache
def page_source() -> str:
    """What the page's words are written in: its own code, and the settings' labels."""
    paths = [path for ending in ("*.py", "*.js") for path in (ROOT / "ui").rglob(ending)]
    paths += [*(ROOT / "trainer").glob("config*.py")]
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=relative)
def test_documents_call_labels_as_the_page_does(path: Path) -> None:
    """What stands in italics there is a label."""
    text = re.sub(r"```.*?```|`[^`]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for label in re.findall(r"(?<![\w*])\*([^*]+)\*(?![\w*])", text):
        words = " ".join(label.split())
        assert re.search(rf"[\"'`>]{re.escape(words)}", page_source()), f"no label begins with {words!r}"
