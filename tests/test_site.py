"""The documentation site: every page, link, anchor and docstring builds without a warning."""

from __future__ import annotations

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="the site needs the packages of requirements-dev.txt")
pytest.importorskip("mkdocstrings", reason="the site needs the packages of requirements-dev.txt")

ROOT = Path(__file__).resolve().parents[1]
QUIET = {"NO_MKDOCS_2_WARNING": "1"}


class Addresses(HTMLParser):
    """What a page loads by itself: scripts, style sheets, images."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {"script": "src", "img": "src", "link": "href"}
        value = dict(attrs).get(names.get(tag, ""))
        if value and dict(attrs).get("rel") != "canonical":
            self.found.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site; mkdocs ends with an error at the first kind of broken link."""
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        words, cwd=ROOT, env={**os.environ, **QUIET}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def test_front_page_leads_to_every_part(site):
    text = (site / "index.html").read_text()
    for page in ("start/install", "concepts/algorithm", "reference/metrics", "research/results"):
        assert f'href="{page}.html"' in text


def test_api_pages_come_from_docstrings(site):
    text = (site / "api" / "dreamer.functional.html").read_text()
    assert "lambda_return" in text
    assert "Returns mixed over all n-step lengths" in text


def test_settings_are_on_a_page(site):
    assert "run.updates" in (site / "api" / "settings.html").read_text()


def test_pages_load_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        addresses = Addresses()
        addresses.feed(page.read_text())
        assert [word for word in addresses.found if word.startswith(("http", "//"))] == [], page
