"""The documentation says what is there: metrics, links, presets, settings and commands."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from dreamer.command_line import parse_command_line
from dreamer.config import load_presets
from dreamer.help_text import asked_for, describe
from fosp_ext.config import SCHEMAS, resolve_config
from fosp_ext.run import eval as fosp_eval
from fosp_ext.run.train import ALIASES, FLAGS
from tests.support.pages import ROOT, commands, documented

TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "agents/README.md")]
PAGES = [*TOP, *sorted((ROOT / "docs").rglob("*.md"))]
RECORDS = ("results.md", "investigations.md")  # their commands are of the commits beside them
GUIDES = [page for page in PAGES if page.name not in RECORDS]
NEEDS_A_SIMULATOR = r"eval/.*|time/evaluate_s"
NO_HELDOUT = r"training_rows/.*"  # only where no episode is held out
VECTORS = r".*/vector_loss/joints"  # see test_own_data.py
ONLINE = r"(episode|training_cost)/.*|(step|fps)/env|time/play_s"  # see test_episode_log.py


def smoke_run(folder: Path, dataset: Path, method: str) -> set[str]:
    """All tags, in both kinds of files, that a short training writes without a simulator."""
    words = ["--configs", method, "debug", "--dataset.path", str(dataset), "--logdir", str(folder)]
    assert train.main([*words, "--device", "cpu", "--run.updates", "10"]) == 0
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    tags = {tag for line in lines for tag in json.loads(line)} - {"step"}
    shown = EventAccumulator(str(folder)).Reload().Tags()
    assert tags == set(shown["scalars"])
    return tags.union(shown["histograms"], shown["images"])


@pytest.fixture(scope="module")
def emitted(tmp_path_factory, toy_dataset) -> set[str]:
    """The tags of a training of each method."""
    folder = tmp_path_factory.mktemp("runs")
    methods = ("fosp_offline", "safedreamer", "bc", "dreamerv3")
    return set().union(*(smoke_run(folder / name, toy_dataset, name) for name in methods))


def test_every_metric_is_documented(emitted):
    assert sorted(emitted - documented()) == []


def test_no_documented_metric_is_gone(emitted):
    skipped = f"{NEEDS_A_SIMULATOR}|{NO_HELDOUT}|{ONLINE}|{VECTORS}"
    gone = sorted(documented() - emitted)
    assert [tag for tag in gone if not re.fullmatch(skipped, tag)] == []


def links(page: Path) -> Iterator[str]:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    yield from re.findall(r"\]\(([^)\s]+)\)", text)
    yield from re.findall(r"<img[^>]* src=\"([^\"]+)\"", text)


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page):
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_commands_are_understood(page):
    """Presets, settings, options, make targets and modules exist; nothing is run."""
    presets = load_presets(ROOT / "configs.yaml")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    for program, *words in commands(page):
        if program == "make":
            assert {word for word in words if "=" not in word} <= targets, words
        elif words[:1] == ["train.py"] and asked_for(words[1:]):
            describe(SCHEMAS, presets["defaults"], asked_for(words[1:]))
        elif words[:1] == ["train.py"]:
            names, overrides, _ = parse_command_line(words[1:], FLAGS)
            full = {ALIASES.get(key, key): value for key, value in overrides.items()}
            resolve_config(presets, names, full)
        elif words[:1] == ["eval.py"]:
            fosp_eval.parse(words[1:])
        elif words[:1] == ["-m"]:
            assert importlib.util.find_spec(words[1]), words


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) < 1500


def test_readme_has_the_commands_that_matter():
    said = [" ".join(words) for words in commands(ROOT / "README.md")]
    for start in (
        "make demo",
        "make test",
        "python train.py --configs collect",
        "python train.py --configs fosp_offline",
        "python eval.py --logdir",
        "tensorboard --logdir",
        "python -m fosp_ext.doctor",
    ):
        assert any(line.startswith(start) for line in said), start


def test_files_that_the_pages_name_exist():
    """`dreamer/x.py` and the like in inline code."""
    pattern = r"`((?:dreamer|fosp_ext|tests|docs|tools|benchmarks|experiments)/[\w/.]*\.(?:py|md))`"
    for page in PAGES:
        for name in re.findall(pattern, page.read_text()):
            assert (ROOT / name).exists(), f"{page.name}: {name}"


def test_deviations_that_the_code_names_are_listed():
    text = (ROOT / "docs" / "research" / "deviations.md").read_text()
    listed = set(re.findall(r"^\| (D\d+) \|", text, re.M))
    code = [*(ROOT / "dreamer").rglob("*.py"), *(ROOT / "fosp_ext").rglob("*.py")]
    named = {name for path in code for name in re.findall(r"deviates \((D\d+)\)", path.read_text())}
    assert named
    assert named <= listed


def test_sections_that_the_code_names_exist():
    """Comments cite algorithm.md by section, "2.3", or by equation, "eq. 2" and "(5)"."""
    text = (ROOT / "docs/concepts/algorithm.md").read_text()
    sections = set(re.findall(r"^##+ ([\d.]+?)\.? ", text, re.M))
    equations = set(re.findall(r" {2,}\((\d)\)$", text, re.M))
    code = [*(ROOT / "dreamer").rglob("*.py"), *(ROOT / "fosp_ext").rglob("*.py")]
    for path in code:
        cited = re.findall(
            r"docs/concepts/algorithm\.md (?:(\d(?:\.\d)?)|(?:eq\. |\()(\d))", path.read_text()
        )
        assert len(cited) == path.read_text().count("docs/concepts/algorithm.md"), path
        for section, equation in cited:
            assert section in sections or equation in equations, (path, section, equation)
