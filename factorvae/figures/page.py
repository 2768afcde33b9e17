"""One HTML page with pictures inside it: no other file, no network, no script."""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

STYLE = """
body { max-width: 100rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; background: #fff;
       font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin-bottom: 0; }
h2 { font-size: 1.1rem; margin: 2.5rem 0 0; }
p { margin: .3rem 0; max-width: 46rem; color: #444; }
nav a { margin-right: 1rem; }
.picture { overflow-x: auto; border: 1px solid #ddd; margin-top: .5rem; width: fit-content;
           max-width: 100%; }
.picture img { display: block; }
table { border-collapse: collapse; font-size: 13px; }
td { padding: .1rem 1.2rem .1rem 0; vertical-align: top; border-bottom: 1px solid #eee; }
td:first-child { color: #666; }
th { padding: .1rem 1.2rem .1rem 0; text-align: left; }
""".strip()


@dataclass(frozen=True)
class PagePicture:
    """A picture on the page. kind: 'png' or 'gif'; name: its anchor; data: the file's bytes."""

    name: str
    heading: str
    caption: str
    kind: str
    data: bytes


def html_page(
    title: str,
    pictures: Sequence[PagePicture],
    settings: Mapping[str, object],
    table: Sequence[Sequence[str]] = (),
    beside: Sequence[tuple[str, str]] = (),
) -> str:
    """The page: a title, a table, the pictures at their own size (wide ones scroll), settings.

    table: rows of cells, of which the first are the headings; none where it is empty.
    beside: headings and names of files in the same folder, which the page links.
    """
    places = [*beside, *((p.heading, f"#{p.name}") for p in pictures), ("Settings", "#settings")]
    links = " ".join(f'<a href="{place}">{html.escape(name)}</a>' for name, place in places)
    sections = "\n".join(_section(picture) for picture in pictures)
    rows = "\n".join(
        f"<tr><td>{html.escape(str(key))}</td><td>{html.escape(str(value))}</td></tr>"
        for key, value in settings.items()
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>
{STYLE}
</style>
</head>
<body>
<h1>{html.escape(title)}</h1>
<nav>{links}</nav>
{_table(table)}
{sections}
<h2 id="settings">Settings</h2>
<table>
{rows}
</table>
</body>
</html>
"""


def _table(rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    heading = lines[0].replace("td>", "th>")
    body = "\n".join(f"<tr>{line}</tr>" for line in lines[1:])
    return f'<table class="scores">\n<tr>{heading}</tr>\n{body}\n</table>'


def _section(picture: PagePicture) -> str:
    data = base64.b64encode(picture.data).decode("ascii")
    heading = html.escape(picture.heading)
    return f"""<h2 id="{picture.name}">{heading}</h2>
<p>{html.escape(picture.caption)}</p>
<div class="picture"><img alt="{heading}" src="data:image/{picture.kind};base64,{data}"></div>"""
