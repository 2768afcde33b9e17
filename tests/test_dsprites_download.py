"""The downloader against a server on this machine: whole, interrupted, wrong and absent files."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from factorvae.datasets import download as module
from factorvae.datasets.download import download
from factorvae.datasets.published import PUBLISHED, PublishedFile
from factorvae.errors import UserError, run_script

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


def test_dsprites_goes_where_its_loader_looks_and_is_read_in_full(tmp_path):
    (dsprites,) = PUBLISHED["dsprites"]
    assert dsprites.path == "dsprites/dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
    assert dsprites.url.endswith("/dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz")
    (tmp_path / "page").write_bytes(b"<html>moved</html>")
    with pytest.raises(UserError, match=r"page is not the official .* \(737280, 64, 64\)"):
        dsprites.check(tmp_path / "page")
