"""Any folder of images: listing, decoding, cropping, resizing, bad images, and the cache."""

import errno
import functools
import io
import os
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from factorvae.datasets import images as module
from factorvae.datasets import load_dataset
from factorvae.datasets.image_files import FolderImages, ZipImages
from factorvae.datasets.images import Preparation, decode
from factorvae.device import in_threads
from factorvae.errors import UserError
from tests.helpers import encoded, pictures, write_tree

WHOLE = Preparation()
COUNT = 70  # more than a block


@functools.cache
def encoded_pictures():
    return [*map(encoded, pictures(COUNT, 64, 64))]


@pytest.fixture
def folder(tmp_path):
    """Images in nested folders."""
    root = tmp_path / "my pictures"
    images = enumerate(encoded_pictures())
    write_tree(root, {f"{n % 3}/sub/{n:03}.PNG": image for n, image in images})
    return root


def load(folder, **options):
    return load_dataset(f"folder:{folder}", folder.parent / "data", **options)


def everything(ds):
    return ds.images(np.arange(len(ds))).numpy().transpose(0, 2, 3, 1)


def caches(folder):
    """{name: bytes} of all that is kept, and nothing half made."""
    return {p.name: p.read_bytes() for p in (folder.parent / "data").rglob("*") if p.is_file()}


# Listing


def test_a_nested_folder_comes_in_the_order_of_its_paths(folder):
    ds = load(folder)
    order = sorted(range(COUNT), key=lambda n: (n % 3, n))
    assert np.array_equal(everything(ds), pictures(COUNT, 64, 64)[order])
    assert (ds.name, ds.source, ds.image_shape) == (f"folder:{folder}", "folder", (3, 64, 64))
    assert (ds.factor_space, ds.factors, ds.factor_names) == (None, None, ())


def test_other_and_hidden_files_are_passed_over(folder):
    before = len(load(folder))
    write_tree(folder, {"notes.txt": b"", ".DS_Store": b"", "._0.png": b"", ".cache/a.png": b""})
    assert len(load(folder)) == before


def test_two_folders_of_one_name_do_not_share_a_cache(tmp_path):
    for parent, level in (("a", 10), ("b", 200)):
        image = encoded(np.full((64, 64, 3), level, np.uint8))
        write_tree(tmp_path / parent / "images", {"x.png": image})
    levels = [
        everything(load_dataset(f"folder:{tmp_path / parent / 'images'}", tmp_path / "data")).max()
        for parent in ("a", "b", "a")
    ]
    assert levels == [10, 200, 10]


@pytest.mark.parametrize(
    ("name", "told"), [("missing", "is not there"), ("empty", "holds no images")]
)
def test_folders_without_images_are_refused(tmp_path, name, told):
    (tmp_path / "empty" / "sub").mkdir(parents=True)
    (tmp_path / "empty" / "readme.txt").write_text("")
    with pytest.raises(UserError, match=f"{name} {told}.*expected"):
        load(tmp_path / name)


def test_the_path_is_part_of_the_name(tmp_path):
    for name in ("folder", "folder:"):
        with pytest.raises(UserError, match="unknown dataset .*folder:PATH"):
            load_dataset(name, tmp_path)


# Preparation


def test_crop_comes_before_the_resize():
    """A white square in the middle of black: only a crop that works gives white all over."""
    pixels = np.zeros((600, 600, 3), np.uint8)
    pixels[100:500, 100:500] = 255
    assert (decode(encoded(pixels), Preparation(crop=400)) == 255).all()
    framed = decode(encoded(pixels), WHOLE)
    assert (framed[:, 0] == 0).all() and (framed[:, 32, 32] == 255).all()


@pytest.mark.parametrize(("width", "height"), [(90, 64), (64, 91)])
def test_without_a_crop_the_largest_centred_square_is_taken(width, height):
    pixels = pictures(1, height, width)[0]
    left, top = (width - 64) // 2, (height - 64) // 2
    expected = pixels[top : top + 64, left : left + 64]
    assert np.array_equal(decode(encoded(pixels), WHOLE), expected.transpose(2, 0, 1))


def test_resize_is_antialiased():
    """Lines one pixel wide become an even grey; picking pixels would leave black and white."""
    lines = np.zeros((256, 256, 3), np.uint8)
    lines[::2] = 255
    small = decode(encoded(lines), WHOLE)[:, 4:-4]
    assert np.abs(small.astype(int) - 127.5).max() < 8


@pytest.mark.parametrize("image_size", [32, 128, 256])
def test_sizes_and_grayscale(folder, image_size):
    ds = load(folder, image_size=image_size, grayscale=True)
    assert ds.image_shape == (1, image_size, image_size)
    first = Image.fromarray(pictures(COUNT, 64, 64)[0]).convert("L")
    expected = np.asarray(first.resize((image_size, image_size), Image.LANCZOS))
    assert np.array_equal(everything(ds)[0, :, :, 0], expected)


@pytest.mark.parametrize("image_size", [0, 16, 48, 512])
def test_other_sizes_are_refused(folder, image_size):
    with pytest.raises(UserError, match=f"image size {image_size} is not among 32, 64, 128, 256"):
        load(folder, image_size=image_size)


def png(image, **options):
    return decode(encoded_image(image, "png", **options), Preparation(32))


def encoded_image(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_every_kind_of_pixel_becomes_eight_bits_over_white():
    grey = np.full((32, 32), 100, np.uint8)
    assert (png(Image.fromarray(grey)) == 100).all()
    assert (png(Image.fromarray(grey.astype(np.uint16) * 257)) == 100).all()
    assert (png(Image.fromarray(np.full((32, 32), 51_200, np.uint16))) == 199).all()  # 199.2
    assert (png(Image.fromarray(grey).convert("1", dither=Image.Dither.NONE)) == 0).all()
    alpha = np.tile(np.where(np.arange(32) < 16, 0, 255), (32, 1)).astype(np.uint8)
    half_clear = png(Image.fromarray(np.dstack([grey, grey, grey, alpha])))
    assert (half_clear[:, :, :16] == 255).all() and (half_clear[:, :, 16:] == 100).all()
    palette = Image.fromarray(grey).convert("P")
    assert (png(palette, transparency=palette.getpixel((0, 0))) == 255).all()
    ink = Image.new("CMYK", (32, 32), (255, 0, 0, 0))
    red, green, blue = decode(encoded_image(ink, "jpeg"), Preparation(32)).reshape(3, -1).mean(1)
    assert red < 10 and green > 200 and blue > 200


def test_photographs_are_turned_upright():
    pixels = pictures(1, 64, 64)[0]
    exif = Image.Exif()
    exif[module.ORIENTATION] = 6  # to be turned by 90 degrees clockwise
    data = encoded_image(Image.fromarray(pixels), "png", exif=exif)
    assert np.array_equal(decode(data, WHOLE).transpose(1, 2, 0), np.rot90(pixels, -1))


# Bad images


def png_of_size(width, height):
    """A sound header that promises many pixels: a bomb."""
    image = bytearray(encoded(np.zeros((8, 8, 3), np.uint8)))
    image[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    image[29:33] = zlib.crc32(image[12:29]).to_bytes(4, "big")
    return bytes(image)


def with_pixels(image, change):
    """A PNG of sound chunks, whose compressed pixels are changed."""
    start = image.index(b"IDAT")
    end = start + 4 + int.from_bytes(image[start - 4 : start], "big")
    assert image[end + 8 : end + 12] == b"IEND"
    chunk = b"IDAT" + change(image[start + 4 : end])
    size, checksum = len(chunk) - 4, zlib.crc32(chunk)
    parts = image[: start - 4], size.to_bytes(4, "big"), chunk, checksum.to_bytes(4, "big")
    return b"".join((*parts, image[end + 4 :]))


SOUND = encoded(pictures(1, 64, 64)[0])
BAD = {
    "truncated": (SOUND[: len(SOUND) // 2], ""),
    "undecodable": (b"<html>not found</html>", "not an image"),
    "empty": (b"", "not an image"),
    "flipped": (
        SOUND[:60] + bytes([SOUND[60] ^ 255]) + SOUND[61:],
        "checksum of its chunk b'IDAT'",
    ),
    "without its end": (SOUND[:-12], "ends before its last chunk"),
    "pixels cut": (with_pixels(SOUND, lambda pixels: pixels[:-1]), "its pixels end early"),
    "pixels changed": (with_pixels(SOUND, lambda pixels: pixels[:-1] + b"\0"), "data check"),
    "pixels without end": (
        with_pixels(SOUND, lambda pixels: zlib.compress(bytes(1 << 21))),
        "its pixels are more than 36,864 bytes",
    ),
    "large": (png_of_size(9000, 9000), "9000x9000 pixels are more than"),
    "bomb": (png_of_size(60000, 60000), "bomb"),
    "float": (
        encoded_image(Image.fromarray(np.zeros((64, 64), np.float32)), "tiff"),
        "floating point",
    ),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
}


@pytest.mark.filterwarnings("error", "default::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("case", BAD)
def test_a_bad_image_is_one_line_and_no_cache(folder, case, capsys):
    content, told = BAD[case]
    bad = folder / "1" / "sub" / "bad.png"
    bad.write_bytes(content)
    with pytest.raises(UserError) as refusal:
        load(folder, crop=60)
    message = str(refusal.value)
    assert message.startswith(f"{bad}: ") and "\n" not in message
    assert told in message
    assert message.endswith("expected a sound image; --skip_bad_images leaves it out")
    assert caches(folder) == {}
    assert "Warning" not in capsys.readouterr().err


def test_a_crop_that_is_too_large_is_told_by_its_flag(folder):
    with pytest.raises(UserError, match="64x64 pixels have no square of 1000: expected --crop 64"):
        load(folder, crop=1000)
    assert caches(folder) == {}


def test_every_change_of_a_png_is_found_or_changes_nothing():
    sound = decode(SOUND, WHOLE)
    generator = np.random.default_rng(0)
    found = 0
    for place in generator.integers(0, len(SOUND), 300):
        changed = bytearray(SOUND)
        changed[place] ^= 1 << generator.integers(8)
        try:
            assert np.array_equal(decode(bytes(changed), WHOLE), sound)
        except (ValueError, OSError, SyntaxError, zlib.error):
            found += 1
    assert found > 290


def test_pngs_of_every_kind_pass_their_checksums():
    pixels = pictures(1, 700, 700)[0]  # several chunks of pixels
    data = encoded(pixels, compress_level=0)
    assert data.count(b"IDAT") > 1
    assert np.array_equal(
        decode(data, Preparation(crop=64)), pixels[318:382, 318:382].transpose(2, 0, 1)
    )
    thin = np.full((1000, 1), 7, np.uint8)
    assert (decode(encoded(thin), WHOLE) == 7).all()
    assert np.array_equal(decode(data + b"more", WHOLE), decode(data, WHOLE))


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_never_ends_is_no_image(folder, kind, capsys):
    path = folder / "1" / "endless.png"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(UserError, match="endless.png: it is no regular file: expected a sound"):
        load(folder)
    assert len(load(folder, skip_bad_images=True)) == COUNT
    assert f"left out 1 of {COUNT + 1} images: 1/endless.png" in capsys.readouterr().err


def test_links_to_a_folder_above_are_refused_but_others_followed(folder):
    (folder / "again").symlink_to(folder / "0")
    expected = len(list((folder / "0").rglob("*.PNG")))
    assert len(load(folder)) == COUNT + expected
    for name in ("a", "b"):  # two of them would be followed some 2^40 times
        (folder / "0" / name).symlink_to(folder)
    with pytest.raises(UserError, match="is a link to a folder above it: remove it"):
        load(folder)


def test_a_file_of_absurd_size_is_not_read(folder, monkeypatch):
    monkeypatch.setattr("factorvae.datasets.image_files.LARGEST_MEMBER_BYTES", 1 << 20)
    with (folder / "large.png").open("wb") as file:
        file.truncate((1 << 20) + 1)
    with pytest.raises(UserError, match="large.png would be 1,048,577 bytes"):
        load(folder)


def test_a_name_cannot_reach_the_terminal(folder, capsys):
    write_tree(folder, {"\x1b[31mred\nnext\u202e.png": b"no image"})
    escaped = r"\x1b[31mred\nnext\u202e.png"
    with pytest.raises(UserError) as refusal:
        load(folder)
    assert str(refusal.value).startswith(f"{folder}/{escaped}: not an image")
    for _ in range(2):
        load(folder, skip_bad_images=True)
        told = capsys.readouterr().err
        assert f"left out 1 of {COUNT + 1} images: {escaped}\n" in told
        assert "--skip_bad_images" not in told
        assert "\x1b[31m" not in told and "\u202e" not in told


def test_a_folder_of_odd_name_is_told_in_escapes(folder, capsys):
    odd = folder.rename(folder.with_name("\x1b]0;title\x07"))
    load(odd)
    told = capsys.readouterr().err
    assert r"\x1b]0;title\x07" in told and "\x1b]" not in told


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("~nosuchuser/x", "~nosuchuser/x is not there"),
        ("x" * 5000, "File name too long"),
        ("/".join(["x" * 200] * 50), "File name too long"),
        ("a\0b", "NUL"),
    ],
)
def test_paths_that_cannot_be_are_one_short_line(tmp_path, monkeypatch, path, told):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=told) as refusal:
        load_dataset(f"folder:{path}", tmp_path / "data")
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 700


def test_a_data_directory_of_too_long_a_name_is_one_short_line():
    for name in ("dsprites", "shapes3d", "celeba", "rooms"):
        with pytest.raises(UserError, match="File name too long") as refusal:
            load_dataset(name, "x" * 5000)
        assert len(str(refusal.value)) < 700


@pytest.mark.parametrize("letters", [127, 120])  # of two bytes each; a name has 255 at most
def test_a_folder_of_the_longest_name_has_a_cache(folder, letters):
    long = folder.rename(folder.with_name("é" * letters))
    first = everything(load(long))
    assert len(caches(long)) == 1
    assert np.array_equal(everything(load(long)), first)


def test_a_bad_image_leaves_an_older_cache_as_it_was(folder):
    load(folder)
    before = caches(folder)
    (folder / "0" / "new.png").write_bytes(b"")
    with pytest.raises(UserError, match="new.png"):
        load(folder)
    assert caches(folder) == before


def test_skipped_images_are_counted_and_listed_at_every_start(folder, capsys):
    sound = everything(load(folder))
    for name in ("0/a.png", "2/sub/z.png"):
        (folder / name).write_bytes(b"no image")
    capsys.readouterr()
    ds = load(folder, skip_bad_images=True)
    told = capsys.readouterr().err
    assert f"left out: {folder}/0/a.png: not an image" in told
    assert f"left out 2 of {COUNT + 2} images: 0/a.png, 2/sub/z.png" in told
    assert np.array_equal(everything(ds), sound)
    assert np.array_equal(everything(load(folder, skip_bad_images=True)), sound)
    told = f"left out 2 of {COUNT + 2} images: 0/a.png, 2/sub/z.png\n"
    assert capsys.readouterr().err == told
    before = caches(folder)
    with pytest.raises(UserError, match="0/a.png"):  # asked for all, it is not content with less
        load(folder)
    assert caches(folder) == before


@pytest.mark.parametrize("fails", ["an image", "the disk"])
def test_threads_are_awaited_where_preparing_fails(folder, monkeypatch, fails):
    """Not when the garbage is collected, which any other thread may have to do."""
    ended = []

    def watched(*arguments):
        try:
            yield from in_threads(*arguments)
        finally:
            ended.append(threading.current_thread())

    def full(block):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "in_threads", watched)
    if fails == "an image":
        (folder / "0" / "bad.png").write_bytes(b"no image")
    else:
        monkeypatch.setattr("factorvae.datasets.cache.np.ascontiguousarray", full)
    with pytest.raises(UserError):
        load(folder)
    assert ended == [threading.main_thread()]


def test_skipping_all_images_is_refused(tmp_path):
    write_tree(tmp_path / "pictures", {f"{n}.jpg": b"no image" for n in range(70)})
    with pytest.raises(UserError, match="none of 70 images can be read"):
        load(tmp_path / "pictures", skip_bad_images=True)


# The cache


def test_second_start_decodes_nothing(folder, monkeypatch):
    first = everything(load(folder))

    def no_more(*_):
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(module, "decode", no_more)
    assert np.array_equal(everything(load(folder)), first)


@pytest.mark.parametrize("change", ["content", "added", "removed", "renamed"])
def test_a_changed_folder_is_prepared_again(folder, change, capsys):
    load(folder)
    path = folder / "0" / "sub" / "000.PNG"
    white = encoded(np.full((64, 64, 3), 255, np.uint8))
    if change == "content":
        path.write_bytes(white)
    elif change == "added":
        (folder / "0" / "sub" / "000+.png").write_bytes(white)
    elif change == "removed":
        path.unlink()
    else:
        path.rename(folder / "1" / "first.png")
    ds = load(folder)
    assert "was made from something else: making it again" in capsys.readouterr().err
    assert len(ds) == COUNT + (change == "added") - (change == "removed")
    white_ones = (everything(ds) == 255).all(axis=(1, 2, 3))
    assert white_ones.sum() == (change in ("content", "added"))


def test_a_file_written_again_in_its_own_size_is_prepared_again(tmp_path):
    path = tmp_path / "images" / "x.bmp"
    for level in (10, 200):
        image = encoded_image(Image.fromarray(np.full((64, 64), level, np.uint8)), "bmp")
        write_tree(path.parent, {path.name: image})
        os.utime(path, ns=(0, 10**18 + level // 200))  # one nanosecond apart
        assert everything(load(path.parent)).max() == level


def test_other_names_of_the_same_files_are_another_source(tmp_path):
    write_tree(tmp_path, {"a.png": b"", "b.png": b""})
    for kind, path in ((FolderImages, tmp_path), (ZipImages, tmp_path / "a.png")):
        assert kind(path, ["a.png"]).made_from == kind(path, ["a.png"]).made_from
        assert kind(path, ["a.png"]).made_from != kind(path, ["b.png"]).made_from


def test_preparations_have_caches_of_their_own(folder):
    for options in ({}, {"grayscale": True}, {"image_size": 32}, {"crop": 50}):
        load(folder, **options)
    before = caches(folder)
    assert len(before) == 4
    assert load(folder).image_shape == (3, 64, 64)
    assert caches(folder) == before


@pytest.mark.slow
def test_a_killed_preparation_leaves_no_cache(folder):
    script = (
        "import os, sys\n"
        "from factorvae.datasets import images, load_dataset\n"
        "decode, count = images.decode, []\n"
        "def killed(*arguments):\n"
        "    count.append(1)\n"
        f"    if len(count) == {COUNT - 5}: os.kill(os.getpid(), 9)\n"
        "    return decode(*arguments)\n"
        "images.decode = killed\n"
        "load_dataset('folder:' + sys.argv[1], sys.argv[2])\n"
    )
    data = folder.parent / "data"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.run([sys.executable, "-c", script, folder, data], env=environment)
    assert process.returncode == -9
    assert not list(data.rglob("*.table"))
    (partial,) = data.rglob("*.partial")
    os.utime(partial, (time.time() - 7200,) * 2)
    assert len(load(folder)) == COUNT
    assert [path.suffix for path in data.rglob("*.*")] == [".table"]


def test_batches_can_be_read_from_any_index(folder):
    ds = load(folder)
    for index in ([5, 0, 5], np.array([5, 0, 5]), torch.tensor([5, 0, 5])):
        assert torch.equal(ds.batch(index), ds.batch([5, 0, 5]))
    assert ds.batch([0]).shape == (1, 3, 64, 64)
