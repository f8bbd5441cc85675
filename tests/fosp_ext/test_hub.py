"""Agents on the Hugging Face Hub, played through on local folders."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fosp_ext
from dreamer.errors import UserError
from dreamer.training.checkpoint import Checkpoint
from fosp_ext.export import export
from fosp_ext.hub import write_folder
from tests.support.agents import make_agent, written_run

huggingface_hub = pytest.importorskip("huggingface_hub")
IMAGES = {name: np.full((64, 64, 3), 90, np.uint8) for name in ("vision", "vision_back")}
FOUND = {
    "episodes": 2,
    "seeds": [1000, 1001],
    "safe_episodes": 0.5,
    "return": {"mean": 15.0, "std": 1.0, "ci95": [14.0, 16.0]},
    "cost": {"mean": 1.5, "std": 0.5, "ci95": [1.0, 2.0]},
    "violation_rate": {"mean": 0.2, "std": 0.1, "ci95": [0.1, 0.3]},
}


class LocalHub:
    """The two calls of `HfApi` that are used, into a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create_repo(self, repo_id: str, private: bool, exist_ok: bool) -> str:
        assert exist_ok
        (self.folder / repo_id).mkdir(parents=True, exist_ok=True)
        return f"local:{repo_id}"

    def upload_folder(self, repo_id: str, folder_path: str, commit_message: str) -> None:
        assert commit_message
        shutil.copytree(folder_path, self.folder / repo_id, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    return written_run(
        tmp_path_factory.mktemp("hub") / "run", make_agent(), "fosp_offline", "debug"
    )


def test_an_agent_goes_there_and_back(run, tmp_path):
    hub = LocalHub(tmp_path)
    assert fosp_ext.push_to_hub(run, "me/agent", FOUND, api=hub) == "local:me/agent"
    assert {path.name for path in (tmp_path / "me/agent").iterdir()} == {"agent.pt", "README.md"}
    fetched = fosp_ext.from_hub(tmp_path / "me/agent", "cpu").act(IMAGES)
    np.testing.assert_allclose(
        fetched.action, fosp_ext.load(run, "cpu").act(IMAGES).action, atol=0.02
    )
    state = Checkpoint.load(tmp_path / "me/agent/agent.pt")  # with weights_only=True
    assert state["left_out"]


def test_the_api_is_called_as_it_wants_to_be():
    """What `LocalHub` stands in for has these parameters."""
    import inspect

    for name, wanted in {
        "create_repo": {"repo_id", "private", "exist_ok"},
        "upload_folder": {"repo_id", "folder_path", "commit_message"},
    }.items():
        assert wanted <= set(inspect.signature(getattr(huggingface_hub.HfApi, name)).parameters)
    assert {"repo_id", "filename", "revision"} <= set(
        inspect.signature(huggingface_hub.hf_hub_download).parameters
    )


def test_the_card_is_one_that_the_hub_reads(run, tmp_path):
    folder = write_folder(run, tmp_path / "agent", "me/agent", FOUND)
    card = huggingface_hub.ModelCard.load(folder / "README.md")
    assert card.data.library_name == "fosp-pytorch"
    assert "safe-rl" in card.data.tags
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert results == {"mean_reward": "15.00 +/- 1.00", "mean_cost": "1.50 +/- 0.50"}
    assert 'agent.act({"vision": vision, "vision_back": vision_back})' in card.text
    assert "| return | 15 | 14 to 16 |" in card.text
    assert "50% of them without cost" in card.text


def test_an_exported_agent_without_evaluation(run, tmp_path):
    small = export(run, tmp_path / "small.pt")
    folder = write_folder(small, tmp_path / "agent", "me/agent")
    assert (folder / "agent.pt").read_bytes() == small.read_bytes()
    assert "Not evaluated." in (folder / "README.md").read_text()


def test_without_the_library_a_line_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (lambda: fosp_ext.push_to_hub(run, "me/a"), lambda: fosp_ext.from_hub("me/a")):
        with pytest.raises(UserError, match=r"pip install .fosp-pytorch\[hub\]"):
            call()
