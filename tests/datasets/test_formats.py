"""Published formats in small real files: what is read, in which order, and what is refused."""

import contextlib
import functools
import gzip
import io
import os
import re
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from factorvae.datasets import DATASETS, load_dataset
from factorvae.datasets.published_files import PUBLISHED
from factorvae.errors import UserError
from tests.helpers import (
    CELEBA_ATTRIBUTES,
    CHAIR_IDS,
    SMALL_CARS3D,
    SMALL_MPI3D,
    SMALL_SHAPES3D,
    SMALL_SMALLNORB,
    add_member,
    binary_matrix,
    chair_files,
    encoded,
    pictures,
    write_cars3d,
    write_celeba,
    write_chairs,
    write_mpi3d,
    write_shapes3d,
    write_smallnorb,
)

SPACES = {
    "shapes3d": {"space": SMALL_SHAPES3D},
    "mpi3d_toy": {"spaces": SMALL_MPI3D},
    "cars3d": {"space": SMALL_CARS3D},
    "smallnorb": {"space": SMALL_SMALLNORB},
}
WRITERS = {
    "shapes3d": write_shapes3d,
    "mpi3d_toy": write_mpi3d,
    "cars3d": write_cars3d,
    "smallnorb": write_smallnorb,
    "chairs": write_chairs,
    "celeba": write_celeba,
}


def load(name, data_dir, **options):
    return load_dataset(name, data_dir, **SPACES.get(name, {}), **options)


def everything(ds):
    """All images as uint8 [N, H, W, C]."""
    return ds.images(np.arange(len(ds))).numpy().transpose(0, 2, 3, 1)


def shrunk(images, size=64):
    """By Pillow's own Lanczos filter, as Locatello et al. did."""
    return np.stack([Image.fromarray(i).resize((size, size), Image.LANCZOS) for i in images])


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*.table")}


def assert_refused(name, data_dir, *told, **options):
    """One line that tells all of it, and no cache made or touched."""
    before = snapshot(data_dir)
    with pytest.raises(UserError) as refusal:
        load(name, data_dir, **options)
    message = str(refusal.value)
    assert "\n" not in message
    for part in told:
        assert part in message
    assert snapshot(data_dir) == before
    assert not list(data_dir.rglob("*.partial"))


@pytest.mark.parametrize(  # that of Cars3D shrinks images for a second
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "cars3d")) for n in WRITERS]
)
def test_second_start_reads_the_cache_only(tmp_path, name, monkeypatch):
    WRITERS[name](tmp_path)
    first = everything(load(name, tmp_path))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.table")}

    def no_more(*_):
        raise AssertionError("it was made again")

    monkeypatch.setattr("factorvae.datasets.cache._write", no_more)
    ds = load(name, tmp_path)
    assert np.array_equal(everything(ds), first)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.table")} == before
    assert (ds.name, ds.source) == (name, "official")
    batch = ds.batch(torch.tensor([3, 0]))
    assert batch.dtype == torch.float32
    assert np.allclose(batch.numpy().transpose(0, 2, 3, 1) * 255, first[[3, 0]], atol=1e-4)


@pytest.mark.parametrize("name", [*WRITERS, "mpi3d_realistic", "mpi3d_real", "scream_dsprites"])
def test_missing_files_are_told_with_their_place(tmp_path, name):
    assert_refused(
        name, tmp_path, str(tmp_path), "http" if name != "scream_dsprites" else "scream.jpg"
    )
    if name == "shapes3d":
        assert_refused(name, tmp_path, "--dataset rooms", "3dshapes.h5", "download shapes3d")


def test_smallnorbs_addresses_are_told_one_a_line(tmp_path, capsys):
    assert_refused("smallnorb", tmp_path, "its 6 files from https://", f"{tmp_path}/smallnorb/")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6 and lines == [file.url for file in PUBLISHED["smallnorb"]]


def test_the_scream_says_where_its_picture_goes(tmp_path):
    assert_refused("scream_dsprites", tmp_path, f"put it in {tmp_path}/scream/scream.jpg")


# 3D Shapes


def test_shapes3d(tmp_path):
    images = write_shapes3d(tmp_path)
    ds = load("shapes3d", tmp_path)
    assert np.array_equal(everything(ds), images)
    assert ds.factor_space == SMALL_SHAPES3D
    assert ds.factor_names == (
        "floor_hue",
        "wall_hue",
        "object_hue",
        "scale",
        "shape",
        "orientation",
    )
    assert load("shapes3d", tmp_path, image_size=32).image_shape == (3, 32, 32)
    assert np.array_equal(everything(load("shapes3d", tmp_path, image_size=32)), shrunk(images, 32))


def test_shapes3d_in_full_has_the_published_factors():
    space = DATASETS["shapes3d"].__kwdefaults__["space"]
    assert space.sizes == (10, 10, 10, 8, 4, 15) and len(space) == 480_000
    assert space.values[3][0] == 0.75 and space.values[5][0] == -30


LABELS = np.array([[0.0] * 6])
SHAPES3D_DAMAGE = {
    "images missing": ({"images": None}, "images"),
    "labels missing": ({"labels": None}, "labels"),
    "images fewer": ({"images": pictures(95, 64, 64)}, "(95, 64, 64, 3)"),
    "images float": ({"images": pictures(96, 64, 64).astype("f4")}, "float32"),
    "labels in another order": (
        {"labels": np.roll(SMALL_SHAPES3D.factors_of(np.arange(96)), 1, 0).astype(float)},
        "another order",
    ),
    "a factor out of its range": (
        {"labels": SMALL_SHAPES3D.factors_of(np.arange(96)) + np.eye(96, 6) * 9.0},
        "floor_hue takes 3 values of 2",
    ),
}


@pytest.mark.parametrize("case", SHAPES3D_DAMAGE)
def test_shapes3d_with_other_content_is_refused(tmp_path, case):
    changes, told = SHAPES3D_DAMAGE[case]
    write_shapes3d(tmp_path, **changes)
    assert_refused("shapes3d", tmp_path, "3dshapes.h5 is not 3D Shapes", told, "(96, 64, 64, 3)")


def cut(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("shapes3d", "3dshapes.h5"),
        ("mpi3d_toy", "mpi3d_toy.npz"),
        ("cars3d", "nips2015-analogy-data.tar.gz"),
        ("smallnorb", "*-training-dat.mat.gz"),
        ("smallnorb", "*-testing-info.mat.gz"),
        ("chairs", "rendered_chairs.tar"),
    ],
)
@pytest.mark.parametrize("damage", [cut, lambda path: path.write_bytes(b"<html>moved</html>")])
def test_damaged_files_are_refused(tmp_path, name, file, damage):
    WRITERS[name](tmp_path)
    (path,) = tmp_path.rglob(file)
    damage(path)
    assert_refused(name, tmp_path, path.name)


# MPI3D


@pytest.mark.parametrize("space", SMALL_MPI3D)
def test_mpi3d_of_either_number_of_shapes(tmp_path, space):
    images = write_mpi3d(tmp_path, space=space)
    ds = load("mpi3d_toy", tmp_path)
    assert np.array_equal(everything(ds), images)
    assert ds.factor_space == space


def test_mpi3d_in_full_has_the_published_factors():
    spaces = DATASETS["mpi3d_real"].func.__kwdefaults__["spaces"]
    assert [len(space) for space in spaces] == [1_036_800, 460_800]
    assert spaces[0].sizes == (6, 6, 2, 3, 3, 40, 40)
    assert spaces[0].names[-2:] == ("horizontal_axis", "vertical_axis")


@pytest.mark.parametrize(
    "changes",
    [
        {"images": pictures(100, 64, 64)},
        {"images": pictures(108, 64, 64).astype(np.uint16)},
        {"images": np.array([{"pickled": 1}], dtype=object)},
        {"pictures": pictures(4, 64, 64), "images": np.zeros(3)},
    ],
)
def test_mpi3d_with_other_content_is_refused(tmp_path, changes):
    write_mpi3d(tmp_path, **changes)
    assert_refused("mpi3d_toy", tmp_path, "mpi3d_toy.npz is not MPI3D", "(108, 64, 64, 3)")


# Cars3D


def test_cars3d_files_are_sorted_and_ordered_by_factors(tmp_path):
    images = write_cars3d(tmp_path)
    ds = load("cars3d", tmp_path)
    assert (ds.factor_names, ds.factor_sizes) == (
        ("elevation", "azimuth", "object_type"),
        (4, 24, 3),
    )
    assert np.array_equal(everything(ds), shrunk(images))
    assert sorted(os.listdir(tmp_path / "cars3d" / "cars")) == [
        f"car_{n:03}_mesh.mat" for n in range(3)
    ]
    (tmp_path / "cars3d" / "nips2015-analogy-data.tar.gz").unlink()  # no longer needed
    assert np.array_equal(everything(load("cars3d", tmp_path)), shrunk(images))


def test_cars3d_with_other_content_is_refused(tmp_path):
    write_cars3d(tmp_path, cars=1)
    assert_refused("cars3d", tmp_path, "holds 1 .mat files: expected 3")
    write_cars3d(tmp_path / "other", im=np.zeros((128, 128, 3, 4, 24), np.uint8))
    assert_refused("cars3d", tmp_path / "other", "car_000_mesh.mat", "(128, 128, 3, 24, 4)")


@pytest.mark.parametrize("escape", ["../../outside.mat", "data/cars/../../../outside.mat"])
def test_a_path_out_of_an_archive_is_refused(tmp_path, escape):
    folder = tmp_path / "data" / "cars3d"
    folder.mkdir(parents=True)
    with tarfile.open(folder / "nips2015-analogy-data.tar.gz", "w:gz") as archive:
        add_member(archive, escape, b"escaped")
    assert_refused("cars3d", tmp_path / "data", "nips2015-analogy-data.tar.gz", "outside")
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "cars3d",
        "data",
        "nips2015-analogy-data.tar.gz",
    ]


@pytest.mark.parametrize(
    ("most", "size", "told"),
    [
        ("MEMBER", 1 << 20, "car_002_mesh.mat would be"),  # the first
        ("ARCHIVE", 16 << 20, "car_000_mesh.mat would be"),  # the third that is unpacked
    ],
)
def test_a_bomb_is_refused(tmp_path, monkeypatch, most, size, told):
    write_cars3d(tmp_path)
    monkeypatch.setattr(f"factorvae.datasets.image_files.LARGEST_{most}_BYTES", size)
    assert_refused("cars3d", tmp_path, told, f"{size:,}")
    assert not (tmp_path / "cars3d" / "cars").exists()


def test_a_tar_gz_of_which_any_byte_is_changed_is_refused(tmp_path):
    write_cars3d(tmp_path / "sound", cars=1)
    sound = (tmp_path / "sound/cars3d/nips2015-analogy-data.tar.gz").read_bytes()
    # The checksum, the number of bytes, and places all over the stream; the header's time and
    # name are under no checksum.
    content, refused = gzip.decompress(sound), 0
    for place in (-8, -1, *range(len(sound) // 8, len(sound) - 8, len(sound) // 8)):
        changed = bytearray(sound)
        changed[place] ^= 16
        with contextlib.suppress(OSError, EOFError, zlib.error):
            if gzip.decompress(changed) == content:
                continue  # it pads a stored block, and says nothing
        folder = tmp_path / f"{place}" / "cars3d"
        folder.mkdir(parents=True)
        (folder / "nips2015-analogy-data.tar.gz").write_bytes(changed)
        assert_refused("cars3d", folder.parent, "nips2015-analogy-data.tar.gz", "damaged")
        refused += 1
        assert not (folder / "cars").exists()
    assert refused > 6


def test_the_checksum_alone_tells_a_changed_car(tmp_path):
    """Stored, so that nothing but the checksum at the end of the file can tell."""
    path = tmp_path / "cars3d" / "nips2015-analogy-data.tar.gz"
    write_cars3d(tmp_path)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=0))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert_refused("cars3d", tmp_path, path.name, "damaged", "CRC check failed")


def test_padding_without_end_behind_a_tar_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "cars3d" / "nips2015-analogy-data.tar.gz"
    write_cars3d(tmp_path, cars=1)
    plain = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(plain + bytes(1 << 23), compresslevel=1))
    monkeypatch.setattr("factorvae.datasets.image_files.LARGEST_ARCHIVE_BYTES", len(plain) + 1)
    assert_refused("cars3d", tmp_path, path.name, "bytes unpacked")


# SmallNORB


def test_smallnorb_is_put_in_the_order_of_its_factors(tmp_path):
    images = write_smallnorb(tmp_path)
    ds = load("smallnorb", tmp_path)
    assert ds.image_shape == (1, 64, 64)
    assert ds.factor_names == ("category", "instance", "elevation", "azimuth", "lighting")
    assert ds.factor_space == SMALL_SMALLNORB
    assert np.array_equal(everything(ds)[..., 0], shrunk(images))


@pytest.mark.parametrize(("split", "instances"), [("train", [1, 3]), ("test", [0, 2])])
def test_smallnorb_splits_have_instances_of_their_own(tmp_path, split, instances):
    images = write_smallnorb(tmp_path).reshape(2, 4, 12, 96, 96)
    ds = load("smallnorb", tmp_path, split=split)
    assert ds.factor_sizes == (2, 2, 2, 3, 2)
    assert ds.factor_space.values[1] == tuple(instances)
    assert np.array_equal(everything(ds)[..., 0], shrunk(images[:, instances].reshape(-1, 96, 96)))


def test_smallnorb_unpacked_files_are_read_too(tmp_path):
    images = write_smallnorb(tmp_path)
    for path in (tmp_path / "smallnorb").iterdir():
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert np.array_equal(everything(load("smallnorb", tmp_path))[..., 0], shrunk(images))


def test_smallnorb_header_is_a_binary_matrix():
    """By hand from the format's description: a matrix of one dimension has three sizes."""
    header = binary_matrix(np.zeros(5, "<i4"))[:20]
    assert header == bytes.fromhex("544c3d1e 01000000 05000000 01000000 01000000")


SMALLNORB_DAMAGE = {
    "a factor out of its range": (
        "training-info",
        lambda a: a + np.int32([0, 9, 0, 0]),
        "elevation",
    ),
    "an odd azimuth": ("training-info", lambda a: a + np.int32([0, 0, 1, 0]), "azimuth is odd"),
    "a combination twice": ("testing-info", lambda a: np.vstack([a[:1], a[:-1]]), "no full grid"),
    "images cut": ("training-dat", lambda a: a[:-1], "(47, 2, 96, 96)"),
    "images of another size": ("training-dat", lambda a: a[:, :, ::2], "(48, 2, 48, 96)"),
    "images of another type": ("testing-dat", lambda a: a.astype("<i4"), "0x1e3d4c54"),
}


@pytest.mark.parametrize("case", SMALLNORB_DAMAGE)
def test_smallnorb_with_other_content_is_refused(tmp_path, case):
    file, damage, told = SMALLNORB_DAMAGE[case]
    write_smallnorb(tmp_path, change=lambda name, a: damage(a) if name.endswith(file) else a)
    assert_refused("smallnorb", tmp_path, told)


def test_smallnorb_that_goes_on_after_its_end_is_refused(tmp_path):
    write_smallnorb(tmp_path)
    (path,) = tmp_path.rglob("*-training-dat.mat.gz")
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"\0"))
    assert_refused("smallnorb", tmp_path, path.name, "goes on after its last value")


# 3D Chairs


@pytest.mark.parametrize("packed", [True, False])
def test_chairs_are_cropped_before_the_resize_and_have_factors(tmp_path, packed, capsys):
    files = write_chairs(tmp_path, packed)
    ds = load("chairs", tmp_path)
    told = capsys.readouterr().err
    assert "18 images; all of 3D Chairs are 86,366" in told and "lost" not in told
    assert (ds.factor_names, ds.factor_sizes) == (("chair_id", "azimuth", "elevation"), (3, 3, 2))
    assert ds.factor_space.values[1:] == ((0, 11, 23), (20, 30))
    images = everything(ds)
    assert images.shape == (18, 64, 64, 3)
    for chair, azimuth, elevation, pixels in files.values():
        factors = (chair, (0, 11, 23).index(azimuth), (20, 30).index(elevation))
        image = images[ds.factor_space.index_of(factors)]
        assert np.array_equal(image, shrunk([pixels[100:500, 100:500]])[0])
        assert (image[0] == 255).all()  # of the black frame outside the crop nothing is left


def test_chairs_crop_size_and_grayscale_are_options(tmp_path):
    write_chairs(tmp_path)
    whole = load("chairs", tmp_path, crop=600, grayscale=True, image_size=32)
    assert whole.image_shape == (1, 32, 32)
    assert (everything(whole)[:, 0] == 0).all()  # the frame
    assert load("chairs", tmp_path).image_shape == (3, 64, 64)


def test_chairs_with_a_view_missing_have_a_table_of_factors(tmp_path, capsys):
    files = dict(chair_files())
    (gone, *_) = files
    del files[gone]
    write_chairs(tmp_path, files=files)
    ds = load("chairs", tmp_path)
    told = capsys.readouterr().err
    assert "rendered_chairs.tar: 1 of 18 views are missing (3 chairs from 3 x 2 directions)" in told
    assert "is lost: factor_vae_score, beta_vae_score and the latent responses\n" in told
    assert ds.factor_space is None
    assert (ds.factor_names, ds.factor_sizes) == (("chair_id", "azimuth", "elevation"), (3, 3, 2))
    assert ds.factors.shape == (17, 3)
    for (chair, azimuth, elevation), image in zip(ds.factors, everything(ds), strict=True):
        blue = 5 * (20, 30)[elevation]
        assert tuple(image[32, 32]) == (60 * chair, 5 * (0, 11, 23)[azimuth], blue)


def test_chairs_of_other_names_have_no_factors(tmp_path):
    files = {name.replace("_r096", ""): value for name, value in chair_files().items()}
    write_chairs(tmp_path, files=files)
    ds = load("chairs", tmp_path)
    assert (ds.factor_space, ds.factors, ds.factor_names, len(ds)) == (None, None, (), 18)


def test_a_view_of_thirty_digits_is_no_view(tmp_path):
    files = {name.replace("_p020", f"_p{'2' * 30}"): v for name, v in chair_files().items()}
    write_chairs(tmp_path, files=files)
    ds = load("chairs", tmp_path)
    assert (ds.factor_space, ds.factors, len(ds)) == (None, None, 18)


def test_a_tar_without_chairs_is_refused(tmp_path):
    write_chairs(tmp_path, files={})
    assert_refused("chairs", tmp_path, "rendered_chairs.tar holds no images")


def test_a_tar_with_a_damaged_header_is_refused(tmp_path):
    write_chairs(tmp_path)
    path = tmp_path / "chairs" / "rendered_chairs.tar"
    with tarfile.open(path) as archive:
        place = archive.getmembers()[9].offset
    data = bytearray(path.read_bytes())
    data[place + 5] ^= 1
    path.write_bytes(data)
    assert_refused("chairs", tmp_path, "rendered_chairs.tar", f"damaged header at byte {place:,}")


@pytest.mark.parametrize("name", ["rendered_chairs", "rendered_chairs.tar"])
def test_a_pipe_in_place_of_the_files_is_none(tmp_path, name):
    (tmp_path / "chairs").mkdir()
    os.mkfifo(tmp_path / "chairs" / name)
    assert_refused("chairs", tmp_path, "is in none of")


@pytest.mark.parametrize(
    ("name", "file"), [("celeba", "list_attr_celeba.txt"), ("shapes3d", "3dshapes.h5")]
)
def test_a_folder_in_place_of_a_file_is_refused(tmp_path, name, file):
    WRITERS[name](tmp_path)
    (path,) = tmp_path.rglob(file)
    path.unlink()
    path.mkdir()
    assert_refused(name, tmp_path, str(path))


def test_chairs_second_start_does_not_list_the_tar(tmp_path, monkeypatch):
    write_chairs(tmp_path)
    load("chairs", tmp_path)
    monkeypatch.setattr("tarfile.open", None)
    assert len(load("chairs", tmp_path)) == 18


def test_a_bad_chair_is_told_or_skipped(tmp_path, capsys):
    write_chairs(tmp_path, packed=False)
    bad = (
        tmp_path
        / "chairs"
        / "rendered_chairs"
        / CHAIR_IDS[1]
        / "renders"
        / "image_002_p020_t023_r096.png"
    )
    cut(bad)
    assert_refused("chairs", tmp_path, str(bad), "--skip_bad_images")
    ds = load("chairs", tmp_path, skip_bad_images=True)
    assert (
        "left out 1 of 18 images: 77cc/renders/image_002_p020_t023_r096.png"
        in capsys.readouterr().err
    )
    assert ds.factor_space is None and len(ds) == len(ds.factors) == 17
    assert [1, 2, 0] not in ds.factors.tolist()
    again = load("chairs", tmp_path, skip_bad_images=True)
    assert "left out 1 of 18" in capsys.readouterr().err
    assert np.array_equal(everything(again), everything(ds))


# CelebA


@pytest.mark.parametrize("packed", [True, False])
def test_celeba_crops_keeps_attributes_and_respects_splits(tmp_path, packed):
    images, attributes, splits = write_celeba(tmp_path, packed=packed)
    cropped = [
        Image.open(io.BytesIO(encoded(i, "jpeg", quality=95))).crop((15, 35, 163, 183))
        for i in images
    ]
    expected = np.stack([image.resize((64, 64), Image.LANCZOS) for image in cropped])
    for split, number in (("train", 0), ("valid", 1), ("test", 2)):
        ds = load("celeba", tmp_path, split=split)
        assert np.array_equal(everything(ds), expected[splits == number])
        assert np.array_equal(ds.factors, attributes[splits == number])
        assert (ds.factor_names, ds.factor_sizes) == (CELEBA_ATTRIBUTES, (2, 2, 2))
        assert ds.factor_space is None
    assert len(load("celeba", tmp_path)) == len(load("celeba", tmp_path, split="train")) == 8
    assert len(load("celeba", tmp_path, split="all")) == 12
    assert len(list((tmp_path / "celeba").glob("64_*.table"))) == 1  # the splits share it


def test_celeba_crop_is_an_option(tmp_path):
    write_celeba(tmp_path)
    assert not np.array_equal(
        everything(load("celeba", tmp_path, crop=178)), everything(load("celeba", tmp_path))
    )
    assert_refused("celeba", tmp_path, "000001.jpg: 178x218 pixels have no square of 200", crop=200)


CELEBA_DAMAGE = {
    "an attribute of another image": (
        "attr",
        r"000003.jpg",
        "000033.jpg",
        "expected 000003.jpg and 3",
    ),
    "an attribute out of its range": ("attr", r"(000003.jpg) +-?1", r"\1 2", "`000003.jpg 2"),
    "an attribute too few": (
        "attr",
        r"(000003.jpg) +-?1",
        r"\1",
        "expected 000003.jpg and 3 of 1 or -1",
    ),
    "an image too many": ("attr", r"\Z", "000013.jpg 1 1 1\n", "lists 13 images"),
    "a split out of its range": ("partition", "000003.jpg 0", "000003.jpg 3", "`000003.jpg 3`"),
    "a path out of the folder": (
        "partition",
        "000003.jpg 0",
        "../3.jpg 0",
        "a file name, not `../3.jpg`",
    ),
    "no splits": ("partition", r"(?s).*", "", "is empty"),
}


@pytest.mark.parametrize("case", CELEBA_DAMAGE)
def test_celeba_lists_that_do_not_fit_are_refused(tmp_path, case):
    kind, pattern, replacement, told = CELEBA_DAMAGE[case]
    write_celeba(tmp_path)
    (path,) = tmp_path.rglob(f"list_*{kind}*.txt")
    text = path.read_text()
    path.write_text(re.sub(pattern, replacement, text, count=1))
    assert path.read_text() != text
    assert_refused("celeba", tmp_path, path.name, told)


def test_celeba_without_an_image_or_with_a_wrong_split_is_refused(tmp_path):
    write_celeba(tmp_path)
    assert_refused("celeba", tmp_path, "no split 'validation'", split="validation")
    load("celeba", tmp_path)  # what is cached of the attributes stays
    (tmp_path / "celeba" / "img_align_celeba" / "000005.jpg").unlink()
    told = "000005.jpg is missing, as are 1 of 12 images in all", "--skip_bad_images"
    assert_refused("celeba", tmp_path, *told)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("inside", ["img_align_celeba/img_align_celeba", "img_align_celeba"])
def test_celeba_as_mirrors_have_it(tmp_path, packed, inside):
    images, attributes, splits = write_celeba(tmp_path / "plain")
    write_celeba(tmp_path / "mirror", packed=packed, inside=inside, kind="csv")
    for split in ("train", "valid", "test", "all"):
        plain, mirror = (load("celeba", tmp_path / d, split=split) for d in ("plain", "mirror"))
        assert np.array_equal(everything(mirror), everything(plain))
        assert np.array_equal(mirror.factors, plain.factors)
        assert mirror.factor_names == CELEBA_ATTRIBUTES


@pytest.mark.parametrize("kind", ["txt", "csv"])
def test_celeba_as_a_whole_needs_no_partition(tmp_path, kind):
    images, attributes, splits = write_celeba(tmp_path, kind=kind)
    whole = everything(load("celeba", tmp_path, split="all"))
    (tmp_path / "celeba" / f"list_eval_partition.{kind}").unlink()
    ds = load("celeba", tmp_path, split="all")
    assert np.array_equal(everything(ds), whole) and np.array_equal(ds.factors, attributes)
    assert len(list((tmp_path / "celeba").glob("64_*.table"))) == 1  # it is not made again
    assert_refused(
        "celeba", tmp_path, "list_eval_partition.txt or list_eval_partition.csv is in none of"
    )
    assert_refused("celeba", tmp_path, "--split all needs no partition")


@pytest.mark.parametrize("packed", [True, False])
def test_a_part_of_celeba_is_told_and_used_if_asked(tmp_path, packed, capsys):
    images, attributes, splits = write_celeba(tmp_path, packed=packed)
    whole = everything(load("celeba", tmp_path, split="all"))
    capsys.readouterr()
    kept = [0, 3, 4, 7, 10]
    path = tmp_path / "celeba" / ("img_align_celeba.zip" if packed else "img_align_celeba")
    gone = [f"{n + 1:06}.jpg" for n in range(12) if n not in kept]
    if packed:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                if name.rpartition("/")[2] not in gone:
                    archive.writestr(name, content)
    else:
        for name in gone:
            (path / name).unlink()
    told = "000002.jpg is missing, as are 7 of 12 images in all: put them there, or"
    assert_refused("celeba", tmp_path, str(path), told, split="all")
    for _ in range(2):
        ds = load("celeba", tmp_path, split="all", skip_bad_images=True)
        assert np.array_equal(everything(ds), whole[kept])
        assert np.array_equal(ds.factors, attributes[kept])
        err = capsys.readouterr().err
        assert f"left out 7 of 12 images: {'img_align_celeba/' * packed}000002.jpg, " in err
        assert f"{path}: 5 of 202,599 images\n" in err
    bad = load("celeba", tmp_path, split="test", skip_bad_images=True)
    assert np.array_equal(everything(bad), whole[[10]])


def test_of_many_images_left_out_some_are_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("factorvae.datasets.images.MOST_LISTED", 2)
    _, attributes, _ = write_celeba(tmp_path)
    folder = tmp_path / "celeba" / "img_align_celeba"
    cut(folder / "000009.jpg")  # a bad one beside those that are missing
    for name in ("000002.jpg", "000005.jpg"):
        (folder / name).unlink()
    ds = load("celeba", tmp_path, split="all", skip_bad_images=True)
    assert np.array_equal(ds.factors, np.delete(attributes, [1, 4, 8], axis=0))
    assert "left out 3 of 12 images: 000002.jpg, 000005.jpg and 1 more\n" in capsys.readouterr().err


def test_celeba_skipped_images_leave_their_attributes_out(tmp_path, capsys):
    images, attributes, splits = write_celeba(tmp_path)
    cut(tmp_path / "celeba" / "img_align_celeba" / "000002.jpg")
    ds = load("celeba", tmp_path, skip_bad_images=True)
    assert np.array_equal(ds.factors, np.delete(attributes[:8], 1, axis=0))
    assert "left out 1 of 12 images: 000002.jpg" in capsys.readouterr().err


def test_a_member_of_absurd_size_in_celebas_zip_is_refused(tmp_path, monkeypatch):
    write_celeba(tmp_path, packed=True)
    load("celeba", tmp_path)  # a sound cache, which must stay
    path = tmp_path / "celeba" / "img_align_celeba.zip"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["img_align_celeba/000004.jpg"] = bytes(1 << 21)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    monkeypatch.setattr("factorvae.datasets.image_files.LARGEST_MEMBER_BYTES", 1 << 20)
    assert_refused("celeba", tmp_path, "000004.jpg would be 2,097,152 bytes unpacked")


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [(8, b"\0\x08\0\0", "can't decode"), (6, b"\xff\0", "zip file version 25.5")],
    ids=["a name that is no UTF-8", "a version to come"],
)
def test_a_damaged_directory_of_celebas_zip_is_refused(tmp_path, place, value, told):
    write_celeba(tmp_path, packed=True)
    load("celeba", tmp_path)  # a sound cache, which must stay
    path = tmp_path / "celeba" / "img_align_celeba.zip"
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\1\2")  # of the first member; its name comes 46 bytes on
    data[entry + place : entry + place + len(value)] = value
    data[entry + 46] = 0xFF
    path.write_bytes(data)
    assert_refused("celeba", tmp_path, "is no zip, or is cut short or damaged", told)


# Options


def test_an_option_that_a_dataset_lacks_is_refused(tmp_path):
    with pytest.raises(
        UserError, match="dsprites has no crop; it is for chairs, celeba, folder:PATH"
    ):
        load_dataset("dsprites", tmp_path, crop=100)
    with pytest.raises(UserError, match="shapes3d has no split; it is for celeba, smallnorb"):
        load_dataset("shapes3d", tmp_path, split="train", image_size=64)
    write_shapes3d(tmp_path)
    ds = load("shapes3d", tmp_path, split=None, grayscale=False, skip_bad_images=False, crop=None)
    assert len(ds) == 96
    assert_refused(
        "shapes3d", tmp_path, "image size 48 is not among 32, 64, 128, 256", image_size=48
    )
    assert_refused("shapes3d", tmp_path, "image size 0", image_size=0)


def test_partial_loaders_tell_their_options(tmp_path):
    with pytest.raises(UserError, match="mpi3d_real has no grayscale"):
        load_dataset("mpi3d_real", tmp_path, grayscale=True)
    assert isinstance(DATASETS["mpi3d_real"], functools.partial)
