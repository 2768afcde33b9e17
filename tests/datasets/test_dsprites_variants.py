"""dSprites in colour, in noise and on a picture: the definitions of Locatello et al. 2019."""

import numpy as np
import pytest
import torch
from PIL import Image

from factorvae.datasets import load_dataset
from factorvae.datasets.dsprites_variants import _picture, scrambled
from factorvae.errors import UserError
from tests.helpers import PIXELS, SPACE, encoded, flip_one_bit, pictures

SPRITE = torch.from_numpy(PIXELS.astype(bool))[:, None].expand(-1, 3, -1, -1)
VARIANTS = ("color_dsprites", "noisy_dsprites", "scream_dsprites")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("data")
    (data_dir / "scream").mkdir()
    picture = encoded(pictures(1, 80, 90)[0], "jpeg")
    (data_dir / "scream" / "scream.jpg").write_bytes(picture)
    return data_dir


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request, data_dir):
    return load_dataset(request.param, data_dir, space=SPACE)


@pytest.fixture(scope="module")
def images_of(data_dir):
    """All images of a variant, int [N, 3, 64, 64]."""
    return lambda name: (
        load_dataset(name, data_dir, space=SPACE).images(np.arange(len(SPACE))).int()
    )


def test_interface(variant):
    assert (len(variant), variant.source, variant.image_shape) == (1152, "rendered", (3, 64, 64))
    assert variant.name in VARIANTS and variant.factor_space == SPACE
    images, batch = variant.images([5, 3]), variant.batch(np.array([5, 3]))
    assert images.dtype == torch.uint8 and batch.dtype == torch.float32
    assert torch.allclose(batch * 255, images.float(), atol=1e-4)


def test_an_image_depends_on_its_index_only(variant):
    index = np.array([7, 1000, 7, 8], dtype=np.int32)
    images = variant.images(index)
    assert torch.equal(images[0], images[2])
    assert torch.equal(images[1], variant.images(torch.tensor([1000]))[0])
    assert not torch.equal(images[0], images[3])
    assert index.tolist() == [7, 1000, 7, 8]  # and is left as it was


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_batch_on_cuda(variant):
    index = torch.tensor([3, 1000, 3])
    assert torch.equal(variant.batch(index.cuda(), "cuda").cpu(), variant.batch(index))


@pytest.mark.slow
def test_colour_is_uniform_from_a_half_on_the_sprite_and_nowhere_else(images_of):
    images = images_of("color_dsprites")
    assert (images[~SPRITE] == 0).all()
    colours = images.amax(dim=(2, 3))  # [N, 3]
    assert (images == colours[:, :, None, None])[SPRITE].all()
    assert colours.min() in (128, 129) and colours.max() in (254, 255)
    mean, error = (128 + 255) / 2, 128 / 12**0.5 / len(SPACE) ** 0.5
    assert (colours.float().mean(dim=0) - mean).abs().max() < 4 * error
    correlation = np.corrcoef(colours.T) - np.eye(3)
    assert np.abs(correlation).max() < 4 / len(SPACE) ** 0.5


@pytest.mark.slow
def test_noise_is_uniform_around_a_white_sprite(images_of):
    images = images_of("noisy_dsprites")
    assert (images[SPRITE] == 255).all()
    noise = images[~SPRITE]
    counts = torch.bincount(noise, minlength=256).double()
    expected = len(noise) / 256
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_squared - 255) < 6 * (2 * 255) ** 0.5
    # Images, channels and neighbours have nothing in common.
    corner = images[:, :, :2].float().numpy() / 255  # no sprite comes so high
    parts = [corner[:-1, 0], corner[1:, 0], corner[:-1, 1], corner[:-1, 2]]
    parts.append(np.roll(corner[:-1, 0], 1, axis=2))
    correlation = np.corrcoef([part.ravel() for part in parts]) - np.eye(len(parts))
    assert np.abs(correlation).max() < 5 / parts[0].size ** 0.5


def test_scream_is_a_patch_averaged_with_a_colour_and_inverted_on_the_sprite(data_dir, images_of):
    upright = images_of("scream_dsprites")
    upright = torch.where(SPRITE, 255 - upright, upright)
    picture = np.asarray(Image.open(data_dir / "scream" / "scream.jpg")).transpose(2, 0, 1)
    patches = torch.tensor(picture).unfold(1, 64, 1).unfold(2, 64, 1).int()  # [3, 17, 27, 64, 64]
    found = set()
    for image in upright[:20]:
        # 2 * image is patch + colour, or one less: constant over the patch it was made from.
        rest = 2 * image[:, None, None] - patches
        spread = (rest.amax(dim=(3, 4)) - rest.amin(dim=(3, 4))).amax(dim=0)  # [17, 27]
        assert spread.min() <= 1
        down, right = np.unravel_index(int(spread.argmin()), spread.shape)
        found.add((down, right, *rest[:, down, right].amax(dim=(1, 2)).tolist()))
    downs, rights, *colours = zip(*found, strict=True)
    assert len(set(downs)) > 7 and len(set(rights)) > 7
    assert all(min(colour) < 80 and max(colour) > 175 for colour in colours)


def test_a_large_picture_is_shrunk_first(tmp_path):
    (tmp_path / "scream").mkdir()
    picture = encoded(pictures(1, 548, 700)[0], "jpeg")
    (tmp_path / "scream" / "scream.jpg").write_bytes(picture)
    assert _picture(tmp_path).shape == (3, 274, 350)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"no image", "not a sound image"),
        (encoded(pictures(1, 60, 300)[0], "jpeg"), "more than 64"),
    ],
)
def test_a_bad_picture_is_refused(tmp_path, content, told):
    path = tmp_path / "scream" / "scream.jpg"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path}.*{told}"):
        load_dataset("scream_dsprites", tmp_path, space=SPACE)


def test_scrambling_is_a_bijection_without_order():
    numbers = torch.arange(1 << 16, dtype=torch.int32)
    words = scrambled(numbers.clone())
    assert len(words.unique()) == 1 << 16
    bits = (words[:, None] >> torch.arange(32)) & 1
    assert (bits.float().mean(dim=0) - 0.5).abs().max() < 4 * 0.5 / 256
    flipped = scrambled(numbers ^ 1)
    changed = ((words ^ flipped)[:, None] >> torch.arange(32)) & 1
    assert (changed.float().mean(dim=0) - 0.5).abs().max() < 0.05
    # By hand: 1 -> 0x7feb352d -> xor its upper half 0x7feb -> 0x7feb4ac6, and so on.
    x = 1
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = ((x ^ (x >> shift)) * factor) % 2**32
    assert int(words[1]) % 2**32 == x ^ (x >> 16)


def test_variants_share_the_checked_cache(tmp_path):
    load_dataset("noisy_dsprites", tmp_path, space=SPACE)
    path = tmp_path / "dsprites" / "rendered.table"
    sound = path.read_bytes()
    path.write_bytes(flip_one_bit(sound))
    load_dataset("color_dsprites", tmp_path, space=SPACE)
    assert path.read_bytes() == sound
