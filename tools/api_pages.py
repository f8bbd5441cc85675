"""Pages that are not written by hand, as a hook of mkdocs.

One for every module of dreamer and fosp_ext, built from its docstrings, and one with all settings,
as `train.py --help all` prints them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("dreamer", "fosp_ext")
FOLDER = "api"
SETTINGS = f"{FOLDER}/settings.md"


def module_names(package: str) -> list[str]:
    """`dreamer`, `dreamer.agent`, ...: all modules that can be imported by their name."""
    names = []
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] != "__main__":
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return sorted(names)


def settings_page() -> str:
    """The help of train.py, as the text of a page."""
    words = [sys.executable, str(ROOT / "train.py"), "--help", "all"]
    text = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return f"# All settings\n\nWhat `python train.py --help all` prints.\n\n```text\n{text}```\n"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put these pages behind the ones that mkdocs.yml names."""
    modules = [
        {package: [{name: f"{FOLDER}/{name}.md"} for name in module_names(package)]}
        for package in PACKAGES
    ]
    config.nav.append({"Settings and API": [SETTINGS, *modules]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages; mkdocstrings fills those of the modules."""
    files.append(File.generated(config, SETTINGS, content=settings_page()))
    for package in PACKAGES:
        for name in module_names(package):
            page = File.generated(config, f"{FOLDER}/{name}.md", content=f"::: {name}\n")
            files.append(page)
    return files
