"""The page: one HTML file with its figures inside, readable offline and on a small screen."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from fosp_ext.report.figures import FigureFile
from fosp_ext.report.tables import Cell, Interval, Table
from fosp_ext.report.videos import VideoLink

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #59636e; --paper: #ffffff;
  --line: #d1d9e0; --shade: #f6f8fa; --link: #0550ae; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --paper: #161b22;
  --line: #3d444d; --shade: #212830; --link: #79c0ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; }
h1, h2, h3 { line-height: 1.25; }
a { color: var(--link); }
p.lead { font-size: 1.1rem; margin: .4rem 0; }
p.note, figcaption, li.note { color: var(--soft); font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .45rem; border-bottom: 1px solid var(--line); text-align: right; }
th { background: var(--shade); vertical-align: bottom; }
th.text, td.text { text-align: left; }
td small { color: var(--soft); white-space: nowrap; }
table { overflow-wrap: normal; }
td.text { min-width: 8rem; }
img { max-width: 100%; height: auto; }
@media (max-width: 48rem) { .plot { overflow-x: auto; }
  .plot img { height: 22rem; max-width: none; } }
.videos { display: grid; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)); gap: 1rem; }
.videos figure { margin: 0; }
.videos video { width: 100%; display: block; }
"""


class Page:
    """Collects sections; `text` is the whole page."""

    def __init__(self, title: str) -> None:
        """Start with a heading."""
        self._title, self._parts = escape(title), [f"<h1>{escape(title)}</h1>"]

    def headline(self, lines: Sequence[str]) -> None:
        """What the page says in short."""
        self._parts += [f'<p class="lead">{escape(line)}</p>' for line in lines]

    def heading(self, words: str) -> None:
        """Begin a section."""
        self._parts.append(f"<h2>{escape(words)}</h2>")

    def paragraph(self, words: str, link: str = "") -> None:
        """An explanation, and a link where one belongs to it."""
        more = f' <a href="{escape(link)}">{escape(link)}</a>' if link else ""
        self._parts.append(f'<p class="note">{escape(words)}{more}</p>')

    def links(self, links: Sequence[tuple[str, str]]) -> None:
        """A list of (target, words)."""
        items = "".join(
            f'<li><a href="{escape(quote(target))}">{escape(words)}</a></li>'
            for target, words in links
        )
        self._parts.append(f"<ul>{items}</ul>")

    def remarks(self, lines: Sequence[str]) -> None:
        """Short remarks."""
        items = "".join(f'<li class="note">{escape(line)}</li>' for line in lines)
        self._parts.append(f"<ul>{items}</ul>")

    def table(self, table: Table) -> None:
        """A table that scrolls by itself where the screen is narrow."""
        first = table.rows[0]
        left = [' class="text"' if isinstance(cell, str) else "" for cell in first]
        heads = zip(left, table.columns, strict=True)
        heading = "".join(f"<th{kind}>{escape(column)}</th>" for kind, column in heads)
        share = [column in table.shares for column in table.columns]
        rows = "".join(
            "<tr>"
            + "".join(
                f"<td{kind}>{_share(cell) if percent else _cell(cell)}</td>"
                for kind, percent, cell in zip(left, share, row, strict=True)
            )
            + "</tr>"
            for row in table.rows
        )
        self._parts.append(
            f'<div class="scroll"><table><thead><tr>{heading}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )

    def figure(self, figure: FigureFile, words: str) -> None:
        """A drawing in the version that suits the reader's screen."""
        self._parts.append(
            '<div class="plot"><picture><source media="(prefers-color-scheme: dark)" '
            f'srcset="{_data(figure.dark, "png")}"><img src="{_data(figure.light, "png")}" '
            f'alt="{escape(words)}"></picture></div>'
        )

    def videos(self, videos: Sequence[VideoLink]) -> None:
        """The videos, which play by themselves, without sound and again and again."""
        self._parts.append(f'<div class="videos">{"".join(map(_video, videos))}</div>')

    def text(self) -> str:
        """The HTML."""
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{self._title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
            + "\n".join(self._parts)
            + "\n</body>\n</html>\n"
        )


def _video(video: VideoLink) -> str:
    caption, href = escape(video.caption), escape(quote(video.href))
    name = escape(video.href.rpartition("/")[2])
    shown = ""
    if video.still:
        poster = _data(video.still, "jpeg")
        shown = (
            f'<video src="{href}" poster="{poster}" autoplay muted loop playsinline controls '
            f'aria-label="{caption}"></video>'
        )
    link = f'<a href="{href}">{name}</a>'
    return f"<figure>{shown}{link}<figcaption>{caption}</figcaption></figure>"


def _data(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _share(cell: Cell | Interval) -> str:
    """A number in [0, 1], or such a number with its interval, in percent."""
    if isinstance(cell, tuple):
        middle, low, high = (100 * x for x in cell)
        interval = "" if math.isnan(low) else f" <small>[{low:.0f}, {high:.0f}]</small>"
        return f"{middle:.0f} %{interval}"
    assert isinstance(cell, float | int)
    return "not defined" if math.isnan(cell) else f"{100 * cell:.1f} %"


def _cell(cell: Cell | Interval) -> str:
    if isinstance(cell, tuple):
        middle, low, high = cell
        interval = "" if math.isnan(low) else f" <small>[{low:.2f}, {high:.2f}]</small>"
        return f"{middle:.2f}{interval}"
    if isinstance(cell, float):
        return "not defined" if math.isnan(cell) else f"{cell:.4g}"
    return escape(str(cell))
