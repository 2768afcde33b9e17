"""Fetch a dataset's published files: `python -m factorvae.datasets.download dsprites`."""

import functools
import http.client
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from factorvae.command_line import Parser
from factorvae.datasets.published_files import BY_HAND, PUBLISHED, PublishedFile, how_to_get
from factorvae.errors import UserError, run_script
from factorvae.progress import track

TIMEOUT_SECONDS = 30  # of silence
CHUNK_BYTES = 1 << 18


def download(published: PublishedFile, data_dir: str | Path = "data") -> Path:
    """Fetch the file into a `.part` beside its place, check it, and rename it; returns its path.

    A `.part` from before is continued where the server allows it. Raises UserError when the file
    cannot be fetched (the part stays) or is not what it should be (the part goes).
    """
    path = Path(data_dir) / published.path
    if path.exists():
        raise UserError(f"{path} is there already: delete it to fetch it again")
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _fetch(published.url, part)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"cannot fetch {published.url} ({error}): run this again to go on from there, or get "
            f"the file by other means and put it in {path.parent}/"
        ) from error
    try:
        published.check(part)
    except UserError as error:
        part.unlink()
        raise UserError(f"{published.url} gave a wrong file, now deleted: {error}") from error
    return part.replace(path)


def download_all(name: str, data_dir: str | Path = "data") -> Iterator[Path]:
    """Fetch a dataset's files one after another, those that are there already excepted.

    Raises UserError as `download` does, for a dataset that cannot be fetched with what to do
    instead, and where nothing is left to fetch.
    """
    if name in BY_HAND:
        raise UserError(how_to_get(name, data_dir))
    if name not in PUBLISHED:
        known = ", ".join((*PUBLISHED, *BY_HAND))
        raise UserError(f"no file is known for {name!r}; those known: {known}")
    files = PUBLISHED[name]
    missing = [file for file in files if not (Path(data_dir) / file.path).exists()]
    for number, file in enumerate(missing or files):  # with nothing missing, `download` says so
        try:
            yield download(file, data_dir)
        except UserError as error:
            others = " ".join(file.url for file in missing[number + 1 :])
            raise UserError(f"{error}; likewise {others}" if others else str(error)) from error


def _fetch(url: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if have and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing was left to fetch
        raise
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            have = 0  # the server sends it all again
        length = response.headers["Content-Length"]
        total = have + int(length) if length else None
        chunks = iter(functools.partial(response.read, CHUNK_BYTES), b"")
        with part.open("ab" if have else "wb") as file:
            for chunk in track(chunks, total, f"fetching {url}", " bytes", done=have):
                file.write(chunk)
            size = file.tell()
    if total is not None and size < total:
        raise ConnectionError(f"it broke off after {size:,} of {total:,} bytes")


def main() -> int:
    parser = Parser(prog="python -m factorvae.datasets.download")
    parser.add_argument("name", help=f"one of: {', '.join((*PUBLISHED, *BY_HAND))}")
    parser.add_argument("--data_dir", default="data", help="default: %(default)s")
    arguments = parser.parse_args()
    try:
        for path in download_all(arguments.name, arguments.data_dir):
            print(f"{path}: fetched and checked")
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from there", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
