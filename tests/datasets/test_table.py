"""Tables of 8-bit images, factors without a grid, and the checks of large caches."""

import json
import os

import numpy as np
import pytest
import torch

from factorvae.datasets import Dataset, cache
from factorvae.datasets.cache import cached_array
from factorvae.datasets.dsprites_variants import Painted
from factorvae.datasets.table import OwnTable, Pixels, unit_interval
from factorvae.errors import UserError
from tests.helpers import pictures

IMAGES = pictures(20, 8, 8).transpose(0, 3, 1, 2)
ROWS = np.array([7, 3, 3, 19, 0])


def test_pixels_through_rows():
    table = Pixels(IMAGES, ROWS)
    assert (len(table), table.image_shape) == (5, (3, 8, 8))
    images = table.images([3, 0])
    assert images.dtype == torch.uint8 and np.array_equal(images.numpy(), IMAGES[[19, 7]])
    batch = table.batch([3, 0])
    assert batch.dtype == torch.float32
    assert torch.equal(batch, unit_interval(images))
    with pytest.raises(IndexError):
        table.batch([5])


def test_an_index_lies_where_the_table_does(sprites):
    """The meta device stands for one that a table lies on, or is too large for."""
    meta, cpu = torch.device("meta"), torch.device("cpu")
    on_device = (sprites.table, Painted(sprites.table, paint=None))
    for table in (*on_device, Pixels(IMAGES), OwnTable(sprites)):
        dataset = Dataset("some", "drawn", table)
        assert dataset.index_device(meta) == (meta if table in on_device else cpu)
        assert dataset.index_device(cpu) == cpu


def test_levels_become_the_unit_interval():
    levels = unit_interval(torch.arange(256, dtype=torch.uint8))
    assert levels[0] == 0 and levels[255] == 1
    assert torch.allclose(levels * 255, torch.arange(256.0), atol=1e-4)


def test_device_path_gives_the_same_images(monkeypatch):
    """Copied in parts and selected there, as on CUDA, but run on the CPU."""
    monkeypatch.setattr("factorvae.datasets.table.COPIED_AT_ONCE", 3 * IMAGES[0].nbytes)
    table, index = Pixels(IMAGES, ROWS), torch.tensor([4, 1, 1])
    copied = table._copy_to(torch.device("cpu"))
    assert np.array_equal(copied[0].numpy(), IMAGES)
    assert torch.equal(table._select(*copied, index), table.images(index))


def test_other_devices_get_each_batch_gathered():
    """The meta device keeps no values, but shows what would be sent where."""
    batch = Pixels(IMAGES, ROWS).batch([1, 2], "meta")
    assert (batch.device.type, batch.shape, batch.dtype) == ("meta", (2, 3, 8, 8), torch.float32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("share", [0.7, 0.0])
def test_batch_on_cuda(monkeypatch, share):
    monkeypatch.setattr("factorvae.datasets.table.LARGEST_SHARE_OF_DEVICE", share)
    table, index = Pixels(IMAGES, ROWS), torch.tensor([4, 1, 1])
    for where in (index, index.cuda()):
        assert torch.equal(table.batch(where, "cuda").cpu(), table.batch(index))
    assert (table._on_device[torch.device("cuda", 0)] is None) == (share == 0)


def test_factors_without_a_grid():
    factors = np.array([[0, 1], [2, 0], [1, 1], [0, 0], [2, 1]])
    ds = Dataset("set", "folder", Pixels(IMAGES, ROWS), None, factors, ("hue", "lid"), (3, 2))
    assert ds.factors is factors and ds.factor_space is None
    with pytest.raises(UserError, match="set: hue 2 is out of range: 0 to 1"):
        Dataset("set", "folder", Pixels(IMAGES, ROWS), None, factors, ("hue", "lid"), (2, 2))


# Caches


def blocks():
    return [IMAGES[:15], IMAGES[15:]]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "set.table"


def open_cache(path, made_from="pictures", make_blocks=blocks):
    return cached_array(path, (None, 3, 8, 8), {"made_from": made_from}, make_blocks)


def test_length_may_be_known_to_the_blocks_only(path):
    assert np.array_equal(open_cache(path), IMAGES)
    assert np.array_equal(open_cache(path, make_blocks=None), IMAGES)


def test_rows_left_out_are_remembered(path):
    def some():
        left_out.append(4)
        yield IMAGES[:4]
        left_out.append(18)
        yield IMAGES[5:18]
        yield IMAGES[19:]

    left_out = []
    kept = cached_array(path, (20, 3, 8, 8), {}, some, left_out)
    assert np.array_equal(kept, np.delete(IMAGES, [4, 18], axis=0)) and left_out == [4, 18]
    again = []
    assert np.array_equal(cached_array(path, (20, 3, 8, 8), {}, None, again), kept)
    assert again == [4, 18]
    data = path.read_bytes()
    path.write_bytes(data[:-8] + np.int64(17).tobytes())  # the list is under the checksum too
    left_out = []
    cached_array(path, (20, 3, 8, 8), {}, some, left_out)
    assert left_out == [4, 18] and path.read_bytes() == data


def test_a_large_cache_is_checked_once_for_each_of_its_states(path, monkeypatch, capsys):
    monkeypatch.setattr(cache, "ALWAYS_CHECKED_BYTES", 1000)
    checks = []
    digest = cache._digest
    monkeypatch.setattr(cache, "_digest", lambda *a: checks.append(1) or digest(*a))
    open_cache(path)  # written, and known to be sound
    open_cache(path, make_blocks=None)
    assert checks == []
    record = path.with_name("set.table.checked")
    assert json.loads(record.read_text())["st_size"] == path.stat().st_size
    for touch in (lambda: os.utime(path), record.unlink, lambda: record.write_text("{")):
        touch()
        open_cache(path, make_blocks=None)
        open_cache(path, make_blocks=None)
        assert len(checks) == 1
        checks.clear()


def test_damage_of_a_large_cache_is_found_and_mended(path, monkeypatch, capsys):
    monkeypatch.setattr(cache, "ALWAYS_CHECKED_BYTES", 1000)
    open_cache(path)
    status, data = path.stat(), bytearray(path.read_bytes())
    data[-50] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as if it had not been written to
    assert np.array_equal(open_cache(path), IMAGES)
    assert "is damaged (wrong checksum): making it again" in capsys.readouterr().err
    assert np.array_equal(open_cache(path, make_blocks=None), IMAGES)


def test_a_record_of_another_file_is_not_believed(path, monkeypatch):
    monkeypatch.setattr(cache, "ALWAYS_CHECKED_BYTES", 1000)
    open_cache(path)
    data = bytearray(path.read_bytes())
    data[-50] ^= 1
    path.unlink()
    path.write_bytes(data)
    assert np.array_equal(open_cache(path), IMAGES)


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_in_place_of_a_cache_is_refused(path, kind):
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(UserError, match="set.table is no file: expected a cache there, or nothing"):
        open_cache(path)
    assert path.exists()


def test_a_cache_of_less_than_no_rows_is_made_again(path, capsys):
    open_cache(path)
    header = json.loads(path.read_bytes()[: cache.HEADER_BYTES])
    row_bytes = 3 * 8 * 8
    header |= {"rows": -1, "left_out": 2 * row_bytes // 8, "sha256": "0" * 64}
    path.write_bytes(json.dumps(header).encode().ljust(cache.HEADER_BYTES) + bytes(row_bytes))
    assert np.array_equal(open_cache(path), IMAGES)
    assert "less than no rows" in capsys.readouterr().err


def test_a_header_that_does_not_fit_is_an_error(path):
    with pytest.raises(ValueError, match="header of .* would take"):
        open_cache(path, made_from="x" * 5000)
    assert not path.exists()
