"""Agents on the Hugging Face Hub: a small file and a page that says what it is.

Needs the extra `hub` (huggingface_hub), which is imported when something is sent or fetched. A
local folder with the same content takes the place of a repository wherever one is read.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML

from dreamer.errors import UserError
from dreamer.training.run_folder import saved_state
from fosp_ext.acting import ActingAgent, Bounds, load
from fosp_ext.export import export
from fosp_ext.run.run_folder import LoadedRun, load_run

FILE, CARD = "agent.pt", "README.md"
INSTALL = 'pip install "fosp-pytorch[hub]"'
_PAGE = """# {method} in {task}

An agent of a PyTorch implementation of [FOSP](https://openreview.net/forum?id=dbuFJg7eaw): safe
offline-to-online reinforcement learning from images, with a world model. It sees {cameras} at
{size}x{size} pixels and repeats each action {repeat} times; it cannot be trained further.

```python
import fosp_ext

agent = fosp_ext.from_hub("{repo}")
agent.reset()
step = agent.act({{{obs}}})  # (height, width, 3) uint8 each
step.action, step.violation_probability, step.value
```

## Training

| | |
|---|---|
| task | `{task}` |
| method, size, recipe | `{method}`, `{net}`, `{recipe}` |
| gradient updates | {updates} |
| seed | {seed} |
| variant of the task | `{variant}` |
| a step violates from a cost of | {violation} |

## Evaluation

{evaluation}

A low violation probability and a low cost in simulation are no promise for another environment or a
real robot.
"""


def push_to_hub(
    source: str | Path,
    repo: str,
    evaluation: Mapping[str, Any] | None = None,
    private: bool = False,
    token: str | None = None,
    api: Any = None,
) -> str:
    """Send the agent of a run, a checkpoint or an exported file to the repository `repo`.

    With it goes a model card, which shows `evaluation`, what `fosp_ext.evaluate` returns. `api` is
    an `HfApi` of your own. Returns the address of the repository.
    """
    hub = _library().HfApi(token=token) if api is None else api
    with tempfile.TemporaryDirectory() as place:
        folder = write_folder(source, Path(place) / "agent", repo, evaluation)
        url = hub.create_repo(repo_id=repo, private=private, exist_ok=True)
        hub.upload_folder(repo_id=repo, folder_path=str(folder), commit_message="Add an agent")
    return str(url)


def from_hub(
    repo: str | Path,
    device: str = "auto",
    bounds: Bounds | None = None,
    revision: str | None = None,
) -> ActingAgent:
    """The agent of a repository, or of a local folder that `write_folder` made; see `load`."""
    if Path(repo).is_dir():
        file = Path(repo) / FILE
    else:
        file = Path(_library().hf_hub_download(str(repo), FILE, revision=revision))
    return load(file, device, bounds)


def write_folder(
    source: str | Path, folder: Path, repo: str, evaluation: Mapping[str, Any] | None = None
) -> Path:
    """Write what a repository holds into a new folder: the exported agent and its model card."""
    folder.mkdir(parents=True)
    run = load_run(source, torch.device("cpu"))
    if run.exported:
        shutil.copyfile(source, folder / FILE)
    else:
        export(Path(source), folder / FILE)
    (folder / CARD).write_text(model_card(run, repo, evaluation))
    saved_state(folder / FILE)  # what is sent can be read
    return folder


def model_card(run: LoadedRun, repo: str, evaluation: Mapping[str, Any] | None = None) -> str:
    """The page of a repository: metadata that the Hub reads, and the same for people."""
    config, info = run.config, run.info
    text = io.StringIO()
    YAML().dump(_metadata(run, repo, evaluation), text)
    page = _PAGE.format(
        repo=repo,
        task=info.task,
        method=config.method,
        cameras=" and ".join(f"`{name}`" for name in info.cameras),
        obs=", ".join(f'"{name}": {name}' for name in info.cameras),
        size=info.size,
        repeat=info.action_repeat,
        net=config.size,
        recipe=config.recipe,
        updates=run.updates,
        seed=config.seed,
        variant=config.env.variant,
        violation=config.env.violation,
        evaluation=_table(evaluation),
    )
    return f"---\n{text.getvalue()}---\n\n{page}"


def _metadata(run: LoadedRun, repo: str, evaluation: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the Hub reads: tags, and results as its pages of reinforcement learning show them."""
    card: dict[str, Any] = {
        "library_name": "fosp-pytorch",
        "license": "apache-2.0",
        "pipeline_tag": "reinforcement-learning",
        "tags": ["reinforcement-learning", "safe-rl", "world-models", run.config.method],
    }
    if evaluation is None:
        return card
    metrics = [
        {"type": f"mean_{kind}", "name": f"mean_{kind}", "value": _spread(evaluation[key])}
        for kind, key in (("reward", "return"), ("cost", "cost"))
    ]
    result = {
        "task": {"type": "reinforcement-learning", "name": "reinforcement-learning"},
        "dataset": {"name": run.info.task, "type": run.info.task},
        "metrics": metrics,
    }
    card["model-index"] = [{"name": repo.rpartition("/")[2], "results": [result]}]
    return card


def _table(evaluation: Mapping[str, Any] | None) -> str:
    """Means and intervals as a table."""
    if evaluation is None:
        return "Not evaluated."
    rows = ["| | mean | 95 % interval of the mean |", "|---|---|---|"]
    for name in ("return", "cost", "violation_rate"):
        low, high = evaluation[name]["ci95"]
        rows.append(f"| {name} | {evaluation[name]['mean']:.3g} | {low:.3g} to {high:.3g} |")
    seeds = evaluation["seeds"]
    last = f"{evaluation['episodes']} episodes, seeds {seeds[0]} to {seeds[-1]}; "
    return "\n".join([*rows, "", f"{last}{evaluation['safe_episodes']:.0%} of them without cost."])


def _spread(row: Mapping[str, float]) -> str:
    return f"{row['mean']:.2f} +/- {row['std']:.2f}"


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(f"huggingface_hub is not installed; {INSTALL}") from error
    return huggingface_hub
