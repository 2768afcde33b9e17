"""One HTML page with pictures inside it: it needs no other file, no network and no script."""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE_NAME = "index.html"
LAST_HEADING = '<h2 id="settings">Settings</h2>'  # by which `is_page` knows one
STYLE = """
body { max-width: 100rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; background: #fff;
       font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin-bottom: 0; }
h2 { font-size: 1.1rem; margin: 2.5rem 0 0; }
p { margin: .3rem 0; max-width: 46rem; color: #444; }
nav a { margin-right: 1rem; }
h1, td { overflow-wrap: break-word; }
.picture { border: 1px solid #ddd; margin-top: .5rem; width: fit-content; max-width: 100%; }
.picture img { display: block; max-width: 100%; height: auto; }
.table { overflow-x: auto; margin-top: .5rem; }
table { border-collapse: collapse; font-size: 13px; }
td { padding: .1rem 1.2rem .1rem 0; vertical-align: top; border-bottom: 1px solid #eee; }
td:first-child { color: #666; }
th { padding: .1rem 1.2rem .1rem 0; text-align: left; }
""".strip()


@dataclass(frozen=True)
class PagePicture:
    """A picture on the page. kind: 'png' or 'gif'; name: its anchor; data: the bytes shown.

    file: its file's name in the page's folder, which the picture links.
    """

    name: str
    heading: str
    caption: str
    kind: str
    data: bytes
    file: str


@dataclass(frozen=True)
class PageTable:
    """A table on the page. name: its anchor; rows: of cells, of which the first are headings."""

    name: str
    heading: str
    caption: str
    rows: Sequence[Sequence[str]]


def html_page(
    title: str,
    pictures: Sequence[PagePicture],
    settings: Mapping[str, object],
    tables: Sequence[PageTable] = (),
    beside: Sequence[tuple[str, str]] = (),
) -> str:
    """The page: a title, tables, the pictures, no wider than the window, and settings.

    settings: those that are None are left out. beside: headings and names of files in the same
    folder, which the page links.
    """
    parts = [*tables, *pictures]
    places = [*beside, *((part.heading, f"#{part.name}") for part in parts)]
    links = " ".join(
        f'<a href="{place}">{html.escape(name)}</a>'
        for name, place in [*places, ("Settings", "#settings")]
    )
    sections = "\n".join([*map(_table_section, tables), *map(_picture_section, pictures)])
    rows = [[key, _setting(value)] for key, value in settings.items() if value is not None]
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
{sections}
{LAST_HEADING}
{_table(rows)}
</body>
</html>
"""


def is_page(path: Path) -> bool:
    """Whether a file is a page of pictures, of any version."""
    with open(path, "rb") as file:
        return LAST_HEADING.encode() in file.read()


def _setting(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _heading(part: PagePicture | PageTable) -> str:
    caption = f"\n<p>{html.escape(part.caption)}</p>" if part.caption else ""
    return f'<h2 id="{part.name}">{html.escape(part.heading)}</h2>{caption}'


def _table_section(table: PageTable) -> str:
    return f"{_heading(table)}\n{_table(table.rows[1:], table.rows[0])}"


def _table(rows: Sequence[Sequence[str]], headings: Sequence[str] = ()) -> str:
    lines = ["".join(f"<th>{html.escape(cell)}</th>" for cell in headings)] if headings else []
    lines += ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="table"><table>\n{body}\n</table></div>'


def _picture_section(picture: PagePicture) -> str:
    data = base64.b64encode(picture.data).decode("ascii")
    image = (
        f'<img alt="{html.escape(picture.heading)}" src="data:image/{picture.kind};base64,{data}">'
    )
    link = f'<a href="{html.escape(picture.file)}">{image}</a>'
    return f'{_heading(picture)}\n<div class="picture">{link}</div>'
