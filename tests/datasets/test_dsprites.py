"""dSprites from its cache and from the official file, on a small part of the set."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from factorvae.datasets import DATASETS, cache, dsprites, load_dataset
from factorvae.datasets.dsprites_drawing import render
from factorvae.datasets.dsprites_file import OFFICIAL_FILE, read_official
from factorvae.errors import UserError
from tests.helpers import PACKED, PIXELS, SPACE, flip_one_bit, part_of_dsprites


def load(data_dir):
    return load_dataset("dsprites", data_dir, space=SPACE)


def forbid(monkeypatch, name):
    """Make the test fail if the blocks of `render` or `read_official` are asked for."""

    def blocks(*_):
        raise AssertionError(f"{name} was used")
        yield

    monkeypatch.setattr(dsprites, name, blocks)


# The dataset


def test_interface(tmp_path):
    ds = load(tmp_path)
    assert (len(ds), ds.name, ds.source, ds.image_shape) == (
        1152,
        "dsprites",
        "rendered",
        (1, 64, 64),
    )
    assert ds.factor_space == SPACE
    index = np.array([1151, 0, 77, 77])
    images = ds.images(index)
    assert images.dtype == torch.uint8
    assert np.array_equal(images.numpy(), 255 * PIXELS[index][:, None])
    batch = ds.batch(torch.as_tensor(index))
    assert batch.dtype == torch.float32
    assert np.array_equal(batch.numpy(), PIXELS[index][:, None].astype(np.float32))
    assert ds.batch([5]).shape == (1, 1, 64, 64)
    with pytest.raises(IndexError):
        ds.batch([1152])


def test_device_path_gives_the_same_batch(tmp_path):
    """The unpacking by shifts that other devices use, run on the CPU."""
    table = load(tmp_path).table
    index = torch.tensor([3, 1000, 3])
    packed, shifts = table._copy_on(torch.device("cpu"))
    assert torch.equal(table._unpack(packed, shifts, index), table.batch(index))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_batch_on_cuda(tmp_path):
    ds = load(tmp_path)
    index = torch.tensor([3, 1000, 3])
    for where in (index, index.cuda()):
        batch = ds.batch(where, "cuda")
        assert batch.device.type == "cuda"
        assert torch.equal(batch.cpu(), ds.batch(index))


def test_unknown_names_and_sizes_are_refused(tmp_path):
    with pytest.raises(UserError, match=f"'sprites'.*{', '.join(DATASETS)}"):
        load_dataset("sprites", tmp_path)
    with pytest.raises(UserError, match="64x64 only.* 32 "):
        load_dataset("dsprites", tmp_path, image_size=32)


# The cache


def test_second_start_draws_nothing_and_writes_nothing(tmp_path, monkeypatch, capsys):
    load(tmp_path)
    path = tmp_path / "dsprites" / "rendered.table"
    before = path.stat()
    header = json.loads(path.read_bytes()[: cache.HEADER_BYTES])
    assert header["sha256"] == hashlib.sha256(PACKED).hexdigest()
    forbid(monkeypatch, "render")
    capsys.readouterr()
    ds = load(tmp_path)
    assert np.array_equal(ds.table.packed, PACKED)
    assert not ds.table.packed.flags.writeable
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert os.listdir(path.parent) == ["rendered.table"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (flip_one_bit, "is damaged (wrong checksum)"),
        (lambda data: data[:-1], "is damaged (wrong size)"),
        (lambda data: data + b"\0", "is damaged (wrong size)"),
        (lambda data: data[:100], "is damaged (unreadable header)"),
        (lambda data: b"", "is damaged (unreadable header)"),
        (lambda data: b"[" * 4096 + data[4096:], "is damaged (unreadable header)"),
        (lambda data: b'{"a":' * 819 + data[4095:], "is damaged (unreadable header)"),
        (lambda data: bytes(4096) + data[4096:], "is damaged (unreadable header)"),
        (lambda data: b"\xff" * 4096 + data[4096:], "is damaged (unreadable header)"),
        (lambda data: b"[]".ljust(4096) + data[4096:], "is damaged (unreadable header)"),
        (lambda data: data.replace(b'"renderer": 1', b'"renderer": 0'), "was made from something"),
        (lambda data: data.replace(b'"sha256"', b'"sha25_"'), "is damaged (incomplete header)"),
        (lambda data: data.replace(b'"rows": 1152', b'"rows": 1151'), "is damaged (wrong size)"),
    ],
)
def test_damaged_cache_is_found_and_made_again(tmp_path, capsys, damage, told):
    load(tmp_path)
    path = tmp_path / "dsprites" / "rendered.table"
    sound = path.read_bytes()
    path.write_bytes(damage(sound))
    capsys.readouterr()
    assert np.array_equal(load(tmp_path).table.packed, PACKED)
    first_line = capsys.readouterr().err.splitlines()[0]
    assert first_line.startswith(f"{path} {told}") and first_line.endswith("making it again")
    assert path.read_bytes() == sound


def test_cache_of_another_part_is_not_mistaken_for_this_one(tmp_path):
    load_dataset("dsprites", tmp_path, space=part_of_dsprites(orientations=2))
    assert np.array_equal(load(tmp_path).table.packed, PACKED)


def test_interruption_leaves_no_cache_and_no_litter(tmp_path, monkeypatch):
    def interrupted(space):
        yield from list(render(space))[:3]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dsprites, "render", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load(tmp_path)
    assert os.listdir(tmp_path / "dsprites") == []
    assert np.array_equal(load(tmp_path).table.packed, PACKED)


@pytest.mark.slow
def test_killed_writer_leaves_what_was_there_and_its_litter_is_removed_later(tmp_path):
    """SIGKILL in the middle of drawing; only an hour later is its partial file nobody's."""
    script = (
        "import os, sys, test_dsprites as t\n"
        "def killed(space):\n"
        "    yield from list(t.render(space))[:3]\n"
        "    os.kill(os.getpid(), 9)\n"
        "t.dsprites.render = killed\n"
        "t.load(sys.argv[1])\n"
    )
    assert run_python(script, tmp_path).wait() == -9
    folder = tmp_path / "dsprites"
    (partial,) = folder.iterdir()
    assert np.array_equal(load(tmp_path).table.packed, PACKED)
    assert partial.exists()
    two_hours_ago = time.time() - 7200
    os.utime(partial, (two_hours_ago, two_hours_ago))
    (folder / "rendered.table").unlink()
    load(tmp_path)
    assert os.listdir(folder) == ["rendered.table"]


@pytest.mark.slow
def test_processes_starting_at_once_all_get_the_set(tmp_path):
    """Both have begun to draw before either has finished; each checks every byte it got."""
    script = (
        "import sys, time, pathlib, numpy as np, test_dsprites as t\n"
        "def slow(space):\n"
        "    blocks = list(t.render(space))\n"
        "    yield blocks[0]\n"
        "    folder = pathlib.Path(sys.argv[1]) / 'dsprites'\n"
        "    while len(list(folder.iterdir())) < 2: time.sleep(.01)\n"
        "    yield from blocks[1:]\n"
        "t.dsprites.render = slow\n"
        "assert np.array_equal(t.load(sys.argv[1]).table.packed, t.PACKED)\n"
    )
    processes = [run_python(script, tmp_path) for _ in range(2)]
    try:
        assert [process.wait(timeout=600) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    assert os.listdir(tmp_path / "dsprites") == ["rendered.table"]
    assert np.array_equal(load(tmp_path).table.packed, PACKED)


def run_python(script, *arguments):
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": f"{here.parents[1]}{os.pathsep}{here}"}
    return subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], env=environment)


def test_data_directory_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*file/dsprites/rendered.table: Not a dir"):
        load(tmp_path / "file")


def test_a_generator_that_stops_early_is_not_a_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(dsprites, "render", lambda space: list(render(space))[:-1])
    with pytest.raises(ValueError, match="1088 rows"):
        load(tmp_path)
    assert os.listdir(tmp_path / "dsprites") == []


# The official file


def official_arrays():
    grid = SPACE.factors_of(np.arange(len(SPACE)))
    values = [np.array(v)[column] for v, column in zip(SPACE.values, grid.T, strict=True)]
    white = np.ones(len(SPACE))
    return {
        "metadata": np.array({"pickled": "and never opened"}, dtype=object),
        "imgs": PIXELS,
        "latents_classes": np.column_stack([np.zeros_like(white, dtype=np.int64), grid]),
        "latents_values": np.column_stack([white, *values]),
    }


def write_official(path, **changes):
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = official_arrays() | changes
    np.savez_compressed(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


@pytest.mark.parametrize("folder", [".", "dsprites", "dsprites-dataset"])
def test_official_file_is_used_wherever_it_lies(tmp_path, monkeypatch, folder):
    load(tmp_path)  # a drawn cache must not be taken for it
    pixels = PIXELS.copy()
    pixels[100, 0, 0] = 1  # a stray pixel of its own, so that the source can be told apart
    write_official(tmp_path / folder / OFFICIAL_FILE, imgs=pixels)
    ds = load(tmp_path)
    assert ds.source == "official"
    assert np.array_equal(ds.table.packed, np.packbits(pixels.reshape(len(SPACE), -1), axis=1))
    forbid(monkeypatch, "read_official")
    assert np.array_equal(load(tmp_path).table.packed, ds.table.packed)


def test_changed_official_file_is_packed_again(tmp_path):
    path = write_official(tmp_path / OFFICIAL_FILE)
    assert load(tmp_path).images([100])[0, 0, 0, 0] == 0
    pixels = PIXELS.copy()
    pixels[100, 0, 0] = 1
    write_official(path, imgs=pixels)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert load(tmp_path).images([100])[0, 0, 0, 0] == 255
    path.unlink()
    ds = load(tmp_path)
    assert (ds.source, ds.images([100])[0, 0, 0, 0]) == ("rendered", 0)


def test_official_file_is_read_in_blocks(tmp_path):
    path = write_official(tmp_path / OFFICIAL_FILE)
    tracemalloc.start()
    for _ in read_official(path, SPACE):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < PIXELS.nbytes / 3


SHIFTED = np.roll(PIXELS, 1, axis=0)
DAMAGED_CONTENT = {
    "imgs missing": {"imgs": None},
    "imgs cut": {"imgs": PIXELS[:-1]},
    "imgs float": {"imgs": PIXELS.astype(np.float32)},
    "imgs signed": {"imgs": PIXELS.astype(np.int64)},
    "imgs pickled": {"imgs": PIXELS[:, 0, 0].astype(object)},
    "imgs column by column": {"imgs": np.asfortranarray(PIXELS)},
    "imgs 255": {"imgs": PIXELS * np.uint8(255)},
    "imgs in another order": {"imgs": SHIFTED},
    "imgs inverted": {"imgs": 1 - PIXELS},
    "classes in another order": {
        "latents_classes": np.roll(official_arrays()["latents_classes"], 1, 0)
    },
    "classes without colour": {"latents_classes": official_arrays()["latents_classes"][:, 1:]},
    "values in degrees": {"latents_values": official_arrays()["latents_values"] * 57.3},
    "values missing": {"latents_values": None},
    "values nan": {"latents_values": np.full((len(SPACE), 6), np.nan)},
}


@pytest.mark.parametrize("case", DAMAGED_CONTENT)
def test_official_file_with_other_content_is_refused(tmp_path, case):
    path = write_official(tmp_path / OFFICIAL_FILE, **DAMAGED_CONTENT[case])
    assert_refused(tmp_path, path)


HEADER = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1152, 64, 64), }"


@pytest.mark.parametrize(
    "header",
    [
        HEADER.replace(b"}", b""),
        b"{[1]: 2}",
        HEADER.replace(b"'shape'", b"3"),
        HEADER.replace(b"(1152", b"(" * 3000),
        HEADER.replace(b"(1152, 64, 64)", b"1152"),
        HEADER.replace(b"1152", b"9" * 5000),
        HEADER.replace(b"'|u1'", b"('|u1',"),
        HEADER.replace(b"'|u1'", b"[('a', '|u1', {})]"),
        b"\0" * 64,
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::SyntaxWarning")
def test_a_damaged_npy_header_is_refused(tmp_path, header):
    path = write_official(tmp_path / OFFICIAL_FILE, imgs=None)
    with zipfile.ZipFile(path, "a") as archive:
        start = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little")
        archive.writestr("imgs.npy", start + header + b"\n" + PIXELS.tobytes())
    assert_refused(tmp_path, path)


def test_a_damaged_lzma_member_is_refused(tmp_path):
    path = tmp_path / OFFICIAL_FILE
    buffer = io.BytesIO()
    np.save(buffer, PIXELS)
    write_official(path, imgs=None)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_LZMA) as archive:
        archive.writestr("imgs.npy", buffer.getvalue())
        start = archive.getinfo("imgs.npy").header_offset + 30 + len("imgs.npy")
    sound = path.read_bytes()
    assert load(tmp_path).source == "official"
    shutil.rmtree(tmp_path / "dsprites")
    for place in (2, 4, 10, 40):  # size of the properties, the properties, the stream
        data = bytearray(sound)
        data[start + place] ^= 255
        path.write_bytes(data)
        assert_refused(tmp_path, path)


def cut(data):
    return data[: len(data) // 2]


def zero_the_middle(data):
    middle = len(data) // 2
    return data[:middle] + bytes(64) + data[middle + 64 :]


@pytest.mark.parametrize(
    "damage", [cut, zero_the_middle, lambda data: b"", lambda data: b"<html>not found</html>"]
)
def test_damaged_official_file_is_refused(tmp_path, damage):
    path = write_official(tmp_path / OFFICIAL_FILE)
    path.write_bytes(damage(path.read_bytes()))
    assert_refused(tmp_path, path)


def test_official_file_with_a_wrong_member_checksum_is_refused(tmp_path):
    """Stored without compression, so that only the archive's own CRC can tell the flipped bit."""
    path = tmp_path / OFFICIAL_FILE
    np.savez(path, **official_arrays())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("imgs.npy").header_offset
    data = bytearray(path.read_bytes())
    data[start + 64 * 64 * 100] ^= 1
    path.write_bytes(data)
    assert_refused(tmp_path, path)


def assert_refused(data_dir, path):
    with pytest.raises(UserError) as refusal:
        load(data_dir)
    message = str(refusal.value)
    assert message.startswith(f"{path} is not the official dSprites file, or is damaged (")
    assert "imgs uint8 (1152, 64, 64)" in message and "\n" not in message
    assert os.listdir(data_dir / "dsprites") == []
