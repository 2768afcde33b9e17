"""The models that ship: each opens, and reconstructs as well as its README says."""

import functools
import re

import pytest

from benchmarks.results.shipping import reconstruction, sample_images
from factorvae import load_model
from factorvae.checkpoint import DEFAULT_MODEL, PRETRAINED, load_checkpoint

MOST_BYTES = 2_500_000
MOST_BYTES_IN_ALL = 10_000_000
README = (PRETRAINED / "README.md").read_text()
FILES = sorted(PRETRAINED.glob("*.pt"))


def row_of(path):
    """The README's cells about a model."""
    (line,) = re.findall(rf"^\| `{re.escape(path.name)}` \|(.*)\|$", README, re.M)
    return [cell.strip() for cell in line.split("|")]


@pytest.fixture(scope="module")
def images_of(tmp_path_factory):
    """The sample of a dataset, drawn once."""
    folder = tmp_path_factory.mktemp("data")
    return functools.cache(lambda name: sample_images(name, folder))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_model_reconstructs_as_well_as_its_readme_says(path, images_of):
    checkpoint, row = load_checkpoint(path), row_of(path)
    images = images_of(checkpoint["config"]["dataset"])
    assert len(images) == 1000
    assert reconstruction(load_model(path), images) == pytest.approx(float(row[-1]), abs=0.06)
    assert row[2] == f"{checkpoint['step']:,}"
    assert re.search(r"--seed (\d+)", row[0])[1] == str(checkpoint["config"]["seed"])
    folders = checkpoint["config"]["data_dir"], checkpoint["config"]["output_dir"]
    assert folders == ("data", None)  # none of the machine that trained it


def test_they_are_small_and_one_is_the_default():
    assert DEFAULT_MODEL in FILES
    assert all(path.stat().st_size <= MOST_BYTES for path in FILES)
    assert sum(path.stat().st_size for path in FILES) <= MOST_BYTES_IN_ALL


def test_no_row_is_of_a_model_that_is_not_there():
    assert {*re.findall(r"^\| `(.*?)` \|", README, re.M)} == {path.name for path in FILES}
