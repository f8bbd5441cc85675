"""A page for every module of dreamer and fosp_ext, built from its docstrings (a hook of mkdocs)."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("dreamer", "fosp_ext")
FOLDER = "api"


def module_names(package: str) -> list[str]:
    """`dreamer`, `dreamer.agent`, ...: all modules that can be imported by their name."""
    names = []
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] != "__main__":
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return sorted(names)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the modules behind the pages that mkdocs.yml names."""
    modules = [
        {package: [{name: f"{FOLDER}/{name}.md"} for name in module_names(package)]}
        for package in PACKAGES
    ]
    config.nav.append({"API": modules})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages themselves; mkdocstrings fills them."""
    for package in PACKAGES:
        for name in module_names(package):
            page = File.generated(config, f"{FOLDER}/{name}.md", content=f"::: {name}\n")
            files.append(page)
    return files
