"""Your own images with labels: npz files, and folders with a factors.csv."""

import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
import train
import visualize
from factorvae.datasets import load_dataset
from factorvae.datasets.npz import open_array, open_member, read_array
from factorvae.errors import UserError
from tests.helpers import encoded, pictures, run_main, write_tree

README = Path(__file__).parents[2] / "data" / "README.md"
GRID = np.array([[x, y] for x in range(4) for y in range(3)])  # [12, 2]
TINY = "--hidden_dim 16 --disc_depth 1 --disc_width 16 --latent_dim 2 --batch_size 4 --threads 1"


def write_npz(data_dir, **changes):
    """changes: arrays in place of these, or besides; None leaves one out."""
    arrays = {"images": pictures(12, 64, 64), "factors": GRID, "factor_names": ["hue", "tilt"]}
    path = data_dir / "mine.npz"
    np.savez(path, **{k: v for k, v in (arrays | changes).items() if v is not None})
    return path


def load(path, **options):
    kind = "folder" if path.is_dir() else "npz"
    return load_dataset(f"{kind}:{path}", path.parent / "data", **options)


def everything(ds):
    """uint8 [N, H, W, C]."""
    return ds.images(np.arange(len(ds))).numpy().transpose(0, 2, 3, 1)


def assert_refused(path, *told, **options):
    """One line that tells all of it, and no cache."""
    with pytest.raises(UserError) as refusal:
        load(path, **options)
    message = str(refusal.value)
    assert "\n" not in message and str(path) in message
    for part in told:
        assert part in message
    assert not list(path.parent.rglob("*.table"))


# npz files


def test_images_of_every_combination_are_a_grid_in_its_order(tmp_path):
    images, order = pictures(12, 64, 64), np.random.default_rng(0).permutation(12)
    path = write_npz(tmp_path, images=images[order], factors=GRID[order] * [10, -1])
    ds = load(path)
    assert (ds.name, ds.source, ds.image_shape) == (f"npz:{path}", "npz", (3, 64, 64))
    assert ds.factor_space.names == ("hue", "tilt")
    assert ds.factor_space.values == ((0, 10, 20, 30), (-2, -1, 0))
    # The second factor was turned round: its values are numbered as they are sorted.
    assert np.array_equal(
        everything(ds), images.reshape(4, 3, 64, 64, 3)[:, ::-1].reshape(12, 64, 64, 3)
    )
    assert ds.factors is None


def test_images_that_are_no_grid_have_factors_one_by_one(tmp_path):
    factors = np.vstack([GRID[:11], GRID[:1]])  # one twice, and one of none
    images = pictures(12, 64, 64)
    ds = load(write_npz(tmp_path, images=images, factors=factors.astype(np.float32) / 4))
    assert ds.factor_space is None
    assert (ds.factor_names, ds.factor_sizes) == (("hue", "tilt"), (4, 3))
    assert np.array_equal(ds.factors, factors) and ds.factors.dtype == np.int64
    assert np.array_equal(everything(ds), images)


def test_factors_that_would_make_a_grid_without_end_are_a_table(tmp_path):
    factors = np.random.default_rng(0).integers(0, 2, (12, 90))
    ds = load(write_npz(tmp_path, factors=factors, factor_names=None))
    assert ds.factor_space is None and ds.factors.shape == (12, 90)
    assert ds.factor_names[:2] == ("factor_0", "factor_1") and ds.factor_names[-1] == "factor_89"


@pytest.mark.parametrize(
    ("column", "indices"),
    [
        (["b", "a", "b", "c"], [1, 0, 1, 2]),
        (["10", "9", "1e1", "-.5"], [2, 1, 2, 0]),  # numbers, all of them
        (["10", "9", "nano", "10"], [0, 1, 2, 0]),  # words
        ([True, False, False, True], [1, 0, 0, 1]),
    ],
)
def test_values_become_indices(tmp_path, column, indices):
    images = pictures(4, 64, 64)
    factors = np.array([column, column]).T
    ds = load(write_npz(tmp_path, images=images, factors=factors))
    assert ds.factors.T.tolist() == [indices, indices]
    words = tuple(sorted(set(column))) if {"b", "nano"} & {*map(str, column)} else None
    assert ds.value_words.get("hue") == words


def test_a_factor_that_is_no_class_is_told(tmp_path, capsys):
    factors = np.column_stack([GRID[:, 0], np.linspace(0, 1, 12)])
    path = write_npz(tmp_path, factors=factors)
    load(path)
    told = capsys.readouterr().err
    assert f"{path}: tilt takes 12 values in 12 images" in told and "hue" not in told
    load(write_npz(tmp_path, factors=factors[:, 1:], factor_names=["tilt"]))  # a grid by itself
    assert f"{path}: tilt takes 12 values in 12 images" in capsys.readouterr().err


def test_arrays_without_factors(tmp_path):
    path = write_npz(tmp_path, factors=None, factor_names=None)
    ds = load(path)
    assert (ds.factor_space, ds.factors, ds.factor_names) == (None, None, ())
    assert np.array_equal(everything(ds), pictures(12, 64, 64))


@pytest.mark.parametrize("channels", [(), (1,)])
def test_images_of_one_channel_stay_so(tmp_path, channels):
    images = pictures(12, 64, 64, channels)
    ds = load(write_npz(tmp_path, images=images))
    assert ds.image_shape == (1, 64, 64)
    assert np.array_equal(everything(ds)[..., 0], images.reshape(12, 64, 64))


def test_crop_size_and_grayscale_are_those_of_photos(tmp_path):
    images = pictures(12, 80, 100)
    path = write_npz(tmp_path, images=images)
    expected = Image.fromarray(images[0]).crop((20, 10, 80, 70)).resize((32, 32), Image.LANCZOS)
    assert np.array_equal(everything(load(path, crop=60, image_size=32))[0], expected)
    grey = everything(load(path, grayscale=True))
    assert np.array_equal(
        grey[0, ..., 0],
        Image.fromarray(images[0, :, 10:90]).convert("L").resize((64, 64), Image.LANCZOS),
    )
    square = write_npz(tmp_path, images=images[:, :64, :64])
    cut = Image.fromarray(images[0, 16:48, 16:48]).resize((64, 64), Image.LANCZOS)
    assert np.array_equal(everything(load(square, crop=32))[0], cut)


def test_arrays_in_blocks_compressed_and_in_any_order(tmp_path, monkeypatch):
    monkeypatch.setattr("factorvae.datasets.array_file.BYTES_AT_ONCE", 5 * 64 * 64 * 3)
    path, images = tmp_path / "mine.npz", pictures(12, 64, 64)
    np.savez_compressed(
        path, images=images, factors=np.asfortranarray(GRID), factor_names=["hue", "tilt"]
    )
    ds = load(path)
    assert ds.factor_sizes == (4, 3) and np.array_equal(everything(ds), images)


def test_the_cache_is_made_again_when_the_file_changes(tmp_path, capsys):
    load(write_npz(tmp_path))
    ds = load(write_npz(tmp_path, images=pictures(13, 64, 64), factors=None))
    assert len(ds) == 13
    assert "was made from something else: making it again" in capsys.readouterr().err


def npy(values):
    buffer = io.BytesIO()
    np.save(buffer, np.array(values))
    return buffer.getvalue()


NPZ_FAULTS = {
    "no images": ({"images": None}, "it holds no images but factor_names, factors"),
    "float images": ({"images": np.zeros((12, 64, 64))}, "images are float64 (12, 64, 64)"),
    "16 bits": ({"images": np.zeros((12, 64, 64), "u2")}, "images are uint16 (12, 64, 64)"),
    "one image": ({"images": pictures(1, 64, 64)[0, :, :, 0]}, "images are uint8 (64, 64)"),
    "channels first": (
        {"images": np.zeros((12, 3, 64, 64), np.uint8)},
        "images are uint8 (12, 3, 64, 64)",
    ),
    "no image": ({"images": np.zeros((0, 64, 64), np.uint8)}, "images are uint8 (0, 64, 64)"),
    "another order": (
        {"images": np.asfortranarray(pictures(12, 64, 64, ()))},
        "images are in Fortran's order, not np.ascontiguousarray(images)",
    ),
    "pickled images": ({"images": np.array([{}, {}], object)}, "images are object (2,)"),
    "factors too few": ({"factors": GRID[:9]}, "factors are (9, 2) for 12 images"),
    "one factor": ({"factors": GRID[:, 0]}, "factors is int64 (12,)"),
    "no factor": ({"factors": GRID[:, :0]}, "factors are (12, 0) for 12 images"),
    "complex factors": ({"factors": GRID * 1j}, "factors is complex128 (12, 2)"),
    "pickled factors": ({"factors": GRID.astype(object)}, "factors is object (12, 2)"),
    "names too few": ({"factor_names": ["hue"]}, "1 factor_names for 2 factors"),
    "pickled names": (
        {"factor_names": np.array(["hue", "tilt"], object)},
        "factor_names is object (2,)",
    ),
}


@pytest.mark.parametrize("case", NPZ_FAULTS)
def test_another_shape_or_type_is_one_line(tmp_path, case):
    changes, told = NPZ_FAULTS[case]
    assert_refused(write_npz(tmp_path, **changes), told, "expected an npz with images uint8")


def test_masks_of_0_and_1_are_no_levels(tmp_path):
    path = write_npz(tmp_path, images=(pictures(12, 64, 64) > 127).astype(np.uint8))
    for _ in range(2):  # nothing that a second call would take was kept
        with pytest.raises(UserError, match="no pixel is more than 1: expected levels from 0 to"):
            load(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "mine.npz"
    assert_refused(path, "is not there, or is no file")
    path.write_bytes(b"<html>moved</html>")
    assert_refused(path, "File is not a zip file")
    np.save(tmp_path / "array.npy", pictures(12, 64, 64))
    assert_refused(tmp_path / "array.npy", "File is not a zip file")
    sound = write_npz(tmp_path).read_bytes()
    path.write_bytes(sound[: len(sound) // 2])
    assert_refused(path, "File is not a zip file")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", b"no array")
    assert_refused(path, "the header of images")


def test_a_changed_pixel_is_found(tmp_path):
    path = write_npz(tmp_path, factors=None, factor_names=None)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="Bad CRC-32"):
        load(path)
    assert not list(tmp_path.rglob("*.table"))


def test_a_damaged_name_in_the_directory_hides_no_array(tmp_path):
    path = write_npz(tmp_path)
    data = path.read_bytes()
    at = data.rindex(b"factors.npy")
    path.write_bytes(data[:at] + b"factorz" + data[at + 7 :])
    assert_refused(path, "differ")


@pytest.mark.parametrize(
    ("content", "read"),
    [
        (b"no array", lambda archive: open_member(archive, "x")),
        (npy([1.5]), lambda archive: open_array(archive, "x", [(1,)], "u")),
        (npy([1.5]), lambda archive: read_array(archive, "x", "u", 1)),
    ],
)
def test_a_refused_array_leaves_no_file_open(tmp_path, content, read):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", content)
    with zipfile.ZipFile(path) as archive:
        file = archive.fp
        with pytest.raises(ValueError):
            read(archive)
    assert file.closed


def test_a_crop_larger_than_the_images_is_refused(tmp_path):
    path = write_npz(tmp_path, images=pictures(12, 48, 64))
    assert_refused(path, "64x48 pixels have no square of 50: expected --crop 48 or less", crop=50)


@pytest.mark.parametrize("names", [["hue", "hue"], ["", "hue"]])
def test_names_must_be_distinct(tmp_path, names):
    with pytest.raises(UserError, match="mine.npz: expected distinct names of factors, not '"):
        load(write_npz(tmp_path, factor_names=names))


def test_numbers_must_be_finite(tmp_path):
    factors = GRID.astype(float)
    factors[7, 1] = np.nan
    with pytest.raises(UserError, match="tilt of image 7 is nan: expected finite numbers"):
        load(write_npz(tmp_path, factors=factors))
    for told in ("nan", "-Inf"):  # among numbers it is no word
        with pytest.raises(UserError, match="size of image 2 is .*: expected finite numbers"):
            load(write_folder(tmp_path, LABELS.replace("2.png,ball,2.5", f"2.png,ball,{told}")))


# Folders


LABELS = "file,shape,size\n0.png,ball,1\n1.png,cube,1\nsub/2.png,ball,2.5\nsub/3.png,cube,2.5\n"


def write_folder(data_dir, labels=LABELS):
    folder = data_dir / "mine"
    names = ("0.png", "1.png", "sub/2.png", "sub/3.png")
    contents = zip(names, map(encoded, pictures(4, 64, 64)), strict=True)
    write_tree(folder, dict(contents))
    (folder / "factors.csv").write_text(labels, newline="")
    return folder


def test_a_folder_with_labels_of_every_combination_is_a_grid(tmp_path):
    ds = load(write_folder(tmp_path))
    assert (ds.source, ds.factor_names, ds.factor_sizes) == ("folder", ("shape", "size"), (2, 2))
    assert ds.factor_space.values == ((0, 1), (1, 2.5))  # words are numbered
    assert ds.value_words == {"shape": ("ball", "cube")}
    # In the grid's order the size changes fastest: a small and a large ball, then the cubes.
    assert np.array_equal(everything(ds), pictures(4, 64, 64)[[0, 2, 1, 3]])


@pytest.mark.parametrize(
    "labels",
    [
        "\ufeff" + LABELS.replace("\n", "\r\n"),  # as spreadsheets write it
        LABELS.replace("0.png", "./0.png").replace(",ball", ', "ball"').replace(", ", ","),
        LABELS.replace(",", " , ") + "\n\n",
    ],
)
def test_labels_as_programs_write_them(tmp_path, labels):
    ds = load(write_folder(tmp_path, labels))
    assert ds.factor_space == load(write_folder(tmp_path / "plain")).factor_space


def test_images_that_are_left_out_take_their_labels_along(tmp_path):
    folder = write_folder(tmp_path)
    (folder / "1.png").write_bytes(b"no image")
    ds = load(folder, skip_bad_images=True)
    assert ds.factor_space is None
    assert ds.factors.tolist() == [[0, 0], [0, 1], [1, 1]]
    assert np.array_equal(everything(ds), pictures(4, 64, 64)[[0, 2, 3]])


CSV_FAULTS = {
    "a file that is not there": (
        LABELS + "4.png,ball,1\n5.png,ball,1\n",
        "4.png is no image below",
        "(2 of 6 lines are of none)",
    ),
    "an image without a line": (
        LABELS.replace("1.png,cube,1\n", ""),
        "1.png has no line (1 of 4 images have none)",
    ),
    "a file twice": (LABELS + "0.png,ball,1\n", "line 6: 0.png has a line already"),
    "a value missing": (LABELS.replace("cube,1", "cube"), "line 3", "2 values, not `1.png,cube`"),
    "a value empty": (LABELS.replace("cube,1", ",1"), "line 3", "not `1.png,,1`"),
    "a value too many": (LABELS.replace("cube,1", "cube,1,1"), "line 3", "not `1.png,cube,1,1`"),
    "semicolons": (LABELS.replace(",", ";"), "first line has 1 columns", "separated by commas"),
    "nothing": ("", "first line has 0 columns"),
    "no heading": (LABELS.partition("\n")[2], "its first line is of 0.png: expected a line before"),
    "a factor twice": (LABELS.replace("size", "shape"), "distinct names of factors"),
    "an overflow": (LABELS.replace("2.5", "1e999"), "size of image 2 is inf: expected finite"),
}


@pytest.mark.parametrize("case", CSV_FAULTS)
def test_labels_that_do_not_fit_are_one_line(tmp_path, case):
    labels, *told = CSV_FAULTS[case]
    with pytest.raises(UserError) as refusal:
        load(write_folder(tmp_path, labels))
    message = str(refusal.value)
    assert message.startswith(f"{tmp_path}/mine/factors.csv") and "\n" not in message
    for part in told:
        assert part in message


# The examples, and the scripts


def example(number):
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[number]


def test_the_examples_of_the_readme_make_such_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for number in range(2):
        exec(compile(example(number), "README", "exec"), names)
    arrays, folder = load(tmp_path / "squares.npz"), load(tmp_path / "squares")
    for ds in (arrays, folder):
        assert ds.factor_space.names == ("posX", "posY") and ds.factor_sizes == (16, 16)
        place = ds.factor_space.index_of([3, 5])
        ys, xs = np.nonzero(everything(ds)[place, :, :, 0])
        assert (xs.min(), xs.max(), ys.min(), ys.max()) == (12, 15, 20, 23)
    assert torch.equal(arrays.images([7]), folder.images([7])[:, :1])


def write_words(data_dir):
    """A folder whose labels, two of them words, are no grid."""
    rows = [("ball", "cube")[n % 2] + f",{'abc'[n % 3]},{n // 4}" for n in range(12)]
    images = pictures(12, 64, 64)
    write_tree(data_dir / "words", {f"{n:02}.png": encoded(i) for n, i in enumerate(images)})
    lines = [f"{n:02}.png,{row}\n" for n, row in enumerate(rows)]
    (data_dir / "words" / "factors.csv").write_text("file,shape,a$\\b$,size\n" + "".join(lines))


@pytest.mark.parametrize(
    "name", [pytest.param("npz:mine.npz", marks=pytest.mark.slow), "folder:words"]
)
def test_own_data_trains_is_scored_and_drawn(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_npz(tmp_path)
    write_words(tmp_path)
    flags = f"--dataset {name} --data_dir . {TINY} --max_steps 2 --output_dir run"
    assert run_main(train.main, *flags.split())[0] == 0
    metrics = "--metrics mig sap modularity --threads 1"
    code, out, err = run_main(evaluate.main, "--model_path", "run", *metrics.split())
    assert code == 0, err
    grid = name.startswith("npz")
    flags = "--model_path run --metrics factor_vae_score --num_batches 1 --threads 1"
    code, _, err = run_main(evaluate.main, *flags.split())
    assert code == (0 if grid else 2)
    assert ("has no image of every combination of its factors" in err) != grid
    flags = "--model_path run --output_dir pictures --num_images 1 --threads 1"
    code, _, err = run_main(visualize.main, *flags.split())
    assert code == 0, err
    drawn = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert {"factor_matrix.png", "explorer.html", "index.html"} <= drawn
    assert ("latent_response.png" in drawn) == grid
    assert ("sap_matrix.png" in drawn) != grid  # measured last were the votes, and not SAP
