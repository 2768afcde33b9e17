"""The downloader against a server on this machine: whole, interrupted, wrong and absent files."""

import hashlib
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from factorvae.datasets import download as module
from factorvae.datasets import load_dataset
from factorvae.datasets.download import download, download_all
from factorvae.datasets.published_files import PUBLISHED, PublishedFile, digest_is, how_to_get
from factorvae.errors import UserError, run_script
from tests.helpers import add_member, write_chairs

CONTENT = bytes(range(256)) * 4096  # 1 MiB


class Server(ThreadingHTTPServer):
    """Serves `content`; cuts the first answer short after `cut_after` bytes."""

    content = CONTENT
    ranges = True
    cut_after = None

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = []  # (Range asked for, status) of each


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, asked = self.server, self.headers["Range"]
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if not (server.ranges and asked):
            start, status = 0, 200
        else:
            status = 206 if start < len(server.content) else 416
        server.requests.append((asked, status))
        body = server.content[start:]
        self.send_response(status)
        self.send_header("Content-Length", len(body))
        self.end_headers()
        self.wfile.write(body if server.cut_after is None else body[: server.cut_after])
        server.cut_after = None

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def check(path):
    if path.read_bytes() != CONTENT:
        raise UserError(f"{path} is not what it should be")


def published_at(server):
    return PublishedFile(f"http://127.0.0.1:{server.server_port}/set.npz", "sub/set.npz", check)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_whole_file_arrives_in_its_place(server, tmp_path, capsys):
    path = download(published_at(server), tmp_path)
    assert path == tmp_path / "sub" / "set.npz"
    assert path.read_bytes() == CONTENT
    assert names_in(tmp_path / "sub") == ["set.npz"]
    assert "1,048,576 bytes" in capsys.readouterr().err
    with pytest.raises(UserError, match="already"):
        download(published_at(server), tmp_path)
    assert server.requests == [(None, 200)]


@pytest.mark.parametrize("ranges", [True, False])
def test_interrupted_download_goes_on(server, tmp_path, ranges):
    server.ranges = ranges
    server.cut_after = 700_000
    with pytest.raises(UserError, match=r"cannot fetch .*set.npz.* again .* put it in .*sub/"):
        download(published_at(server), tmp_path)
    assert names_in(tmp_path / "sub") == ["set.npz.part"]
    have = (tmp_path / "sub" / "set.npz.part").stat().st_size
    assert 0 < have <= 700_000
    assert download(published_at(server), tmp_path).read_bytes() == CONTENT
    assert server.requests == [(None, 200), (f"bytes={have}-", 206 if ranges else 200)]
    assert names_in(tmp_path / "sub") == ["set.npz"]


def test_part_that_is_whole_already_is_checked_and_taken(server, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "set.npz.part").write_bytes(CONTENT)
    assert download(published_at(server), tmp_path).read_bytes() == CONTENT
    assert server.requests == [(f"bytes={len(CONTENT)}-", 416)]


def test_wrong_content_is_refused_and_fetched_afresh(server, tmp_path):
    server.content = CONTENT[:-1] + b"?"
    with pytest.raises(UserError, match="wrong file, now deleted: .* is not what it should be"):
        download(published_at(server), tmp_path)
    assert names_in(tmp_path / "sub") == []
    server.content = CONTENT
    assert download(published_at(server), tmp_path).read_bytes() == CONTENT


def test_refused_connection_is_one_line_and_exit_code_2(server, tmp_path, monkeypatch, capsys):
    absent = published_at(server)
    server.shutdown()
    server.server_close()
    monkeypatch.setitem(PUBLISHED, "dsprites", (absent,))
    monkeypatch.setattr("sys.argv", ["download", "dsprites", "--data_dir", str(tmp_path)])
    assert run_script(module.main) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: cannot fetch {absent.url} (")
    assert line.endswith(f"put it in {tmp_path}/sub/")


def test_unknown_name_lists_those_known(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["download", "sprites"])
    assert run_script(module.main) == 2
    assert "'sprites'; those known: dsprites" in capsys.readouterr().err


def test_a_name_that_is_missing_is_one_line_and_exit_code_2(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["download"])
    assert run_script(module.main) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the following arguments are required: name")


def test_dsprites_goes_where_its_loader_looks_and_is_read_in_full(tmp_path):
    (dsprites,) = PUBLISHED["dsprites"]
    assert dsprites.path == "dsprites/dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
    assert dsprites.url.endswith("/dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz")
    (tmp_path / "page").write_bytes(b"<html>moved</html>")
    with pytest.raises(UserError, match=r"page is not the official .* \(737280, 64, 64\)"):
        dsprites.check(tmp_path / "page")


# The published files of each set


def files_at(server, *names):
    url = f"http://127.0.0.1:{server.server_port}/"
    md5 = hashlib.md5(CONTENT).hexdigest()
    return tuple(PublishedFile(url + name, f"norb/{name}", digest_is("md5", md5)) for name in names)


def test_files_of_a_set_are_fetched_one_by_one_and_those_there_are_kept(
    server, tmp_path, monkeypatch
):
    monkeypatch.setitem(PUBLISHED, "smallnorb", files_at(server, "a", "b", "c"))
    (tmp_path / "norb").mkdir()
    (tmp_path / "norb" / "b").write_bytes(b"there already")
    paths = list(download_all("smallnorb", tmp_path))
    assert [path.name for path in paths] == ["a", "c"]
    assert names_in(tmp_path / "norb") == ["a", "b", "c"]
    with pytest.raises(UserError, match="already"):
        list(download_all("smallnorb", tmp_path))


def test_without_network_one_line_tells_all_files_and_their_folder(
    server, tmp_path, monkeypatch, capsys
):
    files = files_at(server, "a", "b", "c")
    server.shutdown()
    server.server_close()
    monkeypatch.setitem(PUBLISHED, "smallnorb", files)
    monkeypatch.setattr("sys.argv", ["download", "smallnorb", "--data_dir", str(tmp_path)])
    assert run_script(module.main) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(file.url in line for file in files) and f"put it in {tmp_path}/norb/" in line


def test_a_wrong_checksum_is_told_and_the_file_deleted(server, tmp_path, monkeypatch):
    monkeypatch.setitem(PUBLISHED, "smallnorb", files_at(server, "a"))
    server.content = CONTENT[:-1] + b"?"
    with pytest.raises(UserError, match="wrong file, now deleted: .*1,048,576 bytes.* expected "):
        list(download_all("smallnorb", tmp_path))
    assert names_in(tmp_path / "norb") == []


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "celeba",
            [
                "img_align_celeba.zip",
                "list_attr_celeba.txt",
                "list_eval_partition.txt",
                "/celeba/",
                "mmlab",
            ],
        ),
        ("scream_dsprites", ["/scream/scream.jpg"]),
    ],
)
def test_what_needs_a_person_is_told_in_one_line(tmp_path, name, told):
    with pytest.raises(UserError) as refusal:
        list(download_all(name, tmp_path))
    message = str(refusal.value)
    assert "\n" not in message and str(tmp_path) in message
    assert all(part in message for part in told)


def test_a_tar_of_chairs_is_known_by_its_number_of_images(tmp_path, monkeypatch):
    (chairs,) = PUBLISHED["chairs"]
    write_chairs(tmp_path)
    path = tmp_path / chairs.path
    with pytest.raises(UserError, match="rendered_chairs.tar holds 18 images: expected 86,366"):
        chairs.check(path)
    monkeypatch.setattr("factorvae.datasets.published_files.CHAIRS", 3)
    monkeypatch.setattr("factorvae.datasets.published_files.VIEWS", 6)
    chairs.check(path)
    with tarfile.open(path, "a") as archive:
        add_member(archive, "../renders/escaped.png", b"")
    with pytest.raises(UserError, match="escaped.png.* inside the archive only"):
        chairs.check(path)


@pytest.mark.parametrize("name", sorted(set(PUBLISHED) - {"dsprites"}))
def test_files_go_where_their_loader_looks(tmp_path, name):
    """Put there with nonsense in it, the loader no longer says missing, but what is wrong."""
    with pytest.raises(UserError, match=r"is in none of .*factorvae.datasets.download"):
        load_dataset(name, tmp_path)
    for file in PUBLISHED[name]:
        path = tmp_path / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"nonsense")
    with pytest.raises(UserError, match="damaged|cut short"):
        load_dataset(name, tmp_path)
    told = how_to_get(name, tmp_path)  # of several files, the folder that they are in
    assert all(file.url in told or file.url.rpartition("/")[0] in told for file in PUBLISHED[name])


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        (
            "shapes3d",
            "sha256 .*: expected 0a0f6ed98baff276a50f3a081a7434d788da63cb135a98189b2a5b5769be1785",
        ),
        ("cars3d", "md5 .*: expected 4e866a7919c1beedf53964e6f7a23686"),
        ("mpi3d_toy", "md5 .*: expected 55889cb7c7dfc655d6e0277beee88868"),
        ("mpi3d_realistic", "md5 .*: expected 59a6225b88b635365f70c91b3e52f70f"),
        ("mpi3d_real", "md5 .*: expected 0f33f609918fb5c97996692f91129802"),
    ],
)
def test_known_checksums(name, digest):
    with pytest.raises(UserError, match=digest):
        PUBLISHED[name][0].check(Path(__file__))
