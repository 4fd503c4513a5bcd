"""The command line as a user meets it: exit codes, one JSON document, no traceback for wrong input."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.__main__ import COMMANDS, INTERNAL_COMMANDS, main
from trainer.commands.arguments import add_names, names_of, workspace_of
from trainer.errors import JobFailed, Problem, StoppedOnRequest, UserError

ROOT = Path(__file__).resolve().parents[2]


def _run(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    call = [sys.executable, "-m", "trainer", *arguments]
    return subprocess.run(call, cwd=folder or ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_every_wrong_setting_is_told_at_once_with_exit_code_2(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("lora: {rank: 0, rnk: 1}\ntrain: {learning_rate: fast}\ndataset: {resolution: 100}")
    result = _run("train", str(config), "--workspace", str(tmp_path / "w"))
    assert result.returncode == 2
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 4
    assert all(line.startswith("error: ") for line in lines)
    assert result.stdout == ""
    assert not (tmp_path / "w").exists()


def test_json_is_one_document_and_nothing_else(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("version: 7")
    result = _run("train", str(config), "--json")
    assert result.returncode == 2
    assert [problem["code"] for problem in json.loads(result.stdout)["error"]] == ["config.newer"]
    good = _run("runs", "list", "--workspace", str(tmp_path), "--json")
    assert (good.returncode, json.loads(good.stdout)) == (0, {"runs": []})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dance"], "invalid choice: 'dance'"),
        (["runs", "dance"], "invalid choice"),
        (["train"], "arguments are required"),
        (["runs", "list", "--nonsense"], "--nonsense"),
        (["runs", "stop"], "needs a run"),
        (["runs", "stop", "../x"], "no run '../x'"),
        (["train", "none.yaml"], "cannot be read"),
        (["resume", "/nowhere"], "/nowhere"),
        (["merge", "--lora", "a.safetensors", "--out", "b.safetensors"], "FILE=NUMBER"),
        (["inspect", "none.safetensors"], "no file"),
    ],
)
def test_wrong_arguments_are_wrong_input(
    arguments: list[str],
    message: str,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORA_ATELIER_WORKSPACE", str(tmp_path / "w"))
    assert main([*arguments, "--json"]) == 2
    captured = capfd.readouterr()
    assert message in json.loads(captured.out)["error"][0]["message"] + captured.err
    assert "Traceback" not in captured.err
    assert main(arguments) == 2
    assert capfd.readouterr().out == ""


def test_help_lists_the_commands(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capfd.readouterr().out
    assert main([]) == 2
    assert capfd.readouterr() == ("", text)
    assert all(name in text for name in COMMANDS)
    assert not any(f"  {name} " in text for name in INTERNAL_COMMANDS)


@pytest.mark.parametrize("command", [*COMMANDS, *INTERNAL_COMMANDS])
def test_every_command_explains_itself(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    text = capfd.readouterr().out
    assert "--json" in text
    assert "--events" not in text


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (UserError.many([Problem("a", "One."), Problem("b", "Two.")]), 2, "error: One.\nerror: Two.\n"),
        (StoppedOnRequest("stopped at step 5"), 3, "stopped at step 5\n"),
        (KeyboardInterrupt(), 3, "stopped on request\n"),
        (ValueError("boom"), 1, "error: ValueError: boom\nDetails are in "),
        (JobFailed(Problem("memory", "Too little memory.", "Lower the rank."), Path("/x/log")), 1,
         "error: Too little memory. Lower the rank.\nDetails are in /x/log\n"),
    ],
)  # fmt: skip
def test_exit_codes(
    raised: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        os.write(1, b"chatter of C code\n")
        raise raised

    monkeypatch.setattr("trainer.commands.runs.run", fail)
    assert main(["runs", "list", "--json"]) == code
    captured = capfd.readouterr()
    json.loads(captured.out)
    assert said in captured.err
    assert "chatter of C code" in captured.err
    assert "Traceback" not in captured.err


def test_what_libraries_print_goes_to_stderr(tmp_path: Path) -> None:
    code = (
        "import sys, trainer.commands.runs as runs; from trainer.__main__ import main\n"
        "def run(args, events):\n"
        "    sys.stdout.write('chatter')\n"
        "    return {'runs': []}\n"
        "runs.run = run\n"
        "sys.exit(main(['runs', 'list', '--json']))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, json.loads(result.stdout), result.stderr) == (0, {"runs": []}, "chatter")


def test_an_unexpected_error_leaves_its_traceback_in_a_file(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trainer.commands.runs.run", lambda *_: 1 / 0)
    assert main(["runs", "list", "--json"]) == 1
    log = Path(json.loads(capfd.readouterr().out)["error"][0]["log"])
    assert "ZeroDivisionError" in log.read_text()
    log.unlink()


def test_names_of_files(tmp_path: Path) -> None:
    """One a line, also odd ones; a JSON list holds every name there is."""
    parser = argparse.ArgumentParser()
    add_names(parser, "only these")
    assert names_of(parser.parse_args([])) is None
    lines, listed, broken = tmp_path / "names.txt", tmp_path / "names.json", tmp_path / "broken.json"
    lines.write_bytes("[1] a.png\r\nsub/b.png\n\n猫 \u2028.png".encode())
    listed.write_text(json.dumps(["a\nb.png", "", 7, "c.png"]), encoding="utf-8")
    broken.write_text("[", encoding="utf-8")
    assert names_of(parser.parse_args(["--names", str(lines)])) == ["[1] a.png", "sub/b.png", "猫 \u2028.png"]
    assert names_of(parser.parse_args(["--names", str(listed)])) == ["a\nb.png", "c.png"]
    for wrong in (broken, tmp_path / "nothing.txt", tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            names_of(parser.parse_args(["--names", str(wrong)]))


def test_workspace_comes_from_the_argument_then_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import argparse

    monkeypatch.setenv("LORA_ATELIER_WORKSPACE", str(tmp_path / "e"))
    assert workspace_of(argparse.Namespace(workspace=None)).dir == tmp_path.resolve() / "e"
    assert workspace_of(argparse.Namespace(workspace=tmp_path / "a")).dir == tmp_path.resolve() / "a"
    monkeypatch.delenv("LORA_ATELIER_WORKSPACE")
    assert workspace_of(argparse.Namespace(workspace=None)).dir == ROOT / "workspace"
