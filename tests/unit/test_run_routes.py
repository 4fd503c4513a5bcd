"""What the scripts of the Runs tab fetch, asked without a browser."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from trainer.config import Config
from trainer.pictures import save_png
from trainer.runs.store import Run, Workspace
from ui import run_routes
from ui.context import AppContext


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Workspace(tmp_path).create_run(Config(name="star"))
    events = [{"type": "metric", "step": step, "time": step, "loss": 1 / step} for step in range(1, 41)]
    for step in (0, 20):
        name = f"step-{step:06d}-p00-s7.png"
        save_png(Image.new("RGB", (8, 8)), run.samples_dir / name, {"prompt": "<i>a star", "seed": 7})
        events.append({"type": "sample", "step": step, "time": 9.5, "path": f"samples/{name}", "prompt": "<i>a star"})
    run.events_path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return run


@pytest.fixture
def client(run: Run) -> TestClient:
    context = AppContext(run.workspace)
    run_routes.add_routes(context)
    return TestClient(Starlette(routes=context.page.routes))


def test_curves(client: TestClient, run: Run) -> None:
    answer = client.get(f"/atelier/runs/{run.id}/curves?first=10&last=12&keep=0").json()
    assert answer["steps"] == [10, 11, 12]
    assert answer["series"]["loss"]["smooth"] == pytest.approx([1 / 10, 1 / 11, 1 / 12])
    assert client.get(f"/atelier/runs/{run.id}/curves?axis=time&first=38").json()["steps"] == [39, 40]
    assert client.get(f"/atelier/runs/{run.id}/curves?points=10").json()["size"] == 4


@pytest.mark.parametrize("wrong", ["points=x", "first=nan", "last=inf", "keep=1", "keep=-0.5", "first="])
def test_wrong_questions(client: TestClient, run: Run, wrong: str) -> None:
    assert client.get(f"/atelier/runs/{run.id}/curves?{wrong}").status_code == 400


@pytest.mark.parametrize("missing", ["gone/curves", "gone/metrics.csv", "gone/previews", "..%2fx/curves"])
def test_runs_that_are_not_there(client: TestClient, missing: str) -> None:
    assert client.get(f"/atelier/runs/{missing}").status_code == 404


def test_previews_and_their_settings(client: TestClient, run: Run) -> None:
    wall = client.get(f"/atelier/runs/{run.id}/previews").json()
    assert wall["prompts"] == ["<i>a star"] and wall["steps"] == [0, 20]
    assert wall["cells"] == [[["step-000000-p00-s7.png", 9.5], ["step-000020-p00-s7.png", 9.5]]]
    samples = f"/atelier/runs/{run.id}/samples"
    assert client.get(f"{samples}/step-000020-p00-s7.png/settings").json()["seed"] == 7
    (run.samples_dir / "plain.png").write_bytes(b"no picture")
    assert "problem" in client.get(f"{samples}/plain.png/settings").json()
    for name in ("missing.png", "..%2frun.json", "run.json"):
        assert client.get(f"{samples}/{name}/settings").status_code == 404


def test_csv_and_comparison(client: TestClient, run: Run) -> None:
    answer = client.get(f"/atelier/runs/{run.id}/metrics.csv")
    assert answer.headers["content-disposition"] == f'attachment; filename="{run.id}.csv"'
    assert len(answer.text.splitlines()) == 41
    other = run.workspace.create_run(Config.model_validate({"name": "b", "lora": {"rank": 4}}))
    told = client.get(f"/atelier/compare?runs={run.id},gone,{other.id},{run.id}").json()
    assert [each["name"] for each in told["runs"]] == ["star", "b"]
    assert told["differences"] == [{"label": "Rank", "name": "lora.rank", "values": ["16", "4"]}]
    assert client.get("/atelier/compare").json() == {
        "runs": [],
        "differences": [],
        "evaluations": {"rows": [], "note": ""},
    }
