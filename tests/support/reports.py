"""Run folders for the tests of the report, and a reader of its page."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

from dreamer.config import save_yaml
from tests.support.agents import make_config


def make_run(folder: Path, *names: str, rows: int = 3, **overrides: str) -> Path:
    """A run folder as train.py leaves it, without checkpoints: settings and evaluations."""
    overrides = {"dataset__path": "gone.h5", **overrides}
    config = make_config(*(names or ("fosp_offline", "debug")), **overrides)
    folder.mkdir(parents=True)
    save_yaml(config, folder / "config.yaml")
    lines = [
        {"step": 10 * k, "eval/score": k + config.seed, "eval/cost": 2.0 * k, "train/x": 1.0}
        | {"eval/safe_episodes": 0.5}
        for k in range(1, rows + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def add_evaluation(
    run: Path, scores: list[float], costs: list[float], updates: int = 30, name: str = "30", **more
) -> Path:
    """What eval.py leaves in a run folder."""
    folder = run / "eval" / name
    folder.mkdir(parents=True)
    rows = [{"score": s, "cost": c} for s, c in zip(scores, costs, strict=True)]
    (folder / "episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "summary.json").write_text(json.dumps({"updates": updates, **more}))
    return folder


class Reader(HTMLParser):
    """Collects what a page refers to, and checks that every element is closed in turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.links, self.sources, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.links += [values["href"]] if "href" in values else []
        self.sources += [values[key] for key in ("src", "srcset") if key in values]
        assert tag != "source" or self.open[-1] == "picture"
        if tag not in ("meta", "img", "br", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
