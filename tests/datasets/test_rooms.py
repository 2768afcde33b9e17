"""Rooms: the rendered look-alike of 3D Shapes, and the ray caster behind it."""

import itertools
import math

import numpy as np
import pytest
import torch

from factorvae.datasets import rooms_drawing as drawing
from factorvae.datasets.factors import FactorSpace
from factorvae.datasets.rooms import PALETTE, ROOMS, load_rooms
from factorvae.errors import UserError
from tests.helpers import no_wait_for_the_device

FLOOR_HUE, WALL_HUE, OBJECT_HUE, SCALE, SHAPE, ORIENTATION = range(6)
# All hues and shapes; the first and the last scale and orientation, two neighbours and one more.
SPACE = FactorSpace(
    ROOMS.names,
    (10, 10, 10, 4, 4, 4),
    (
        *ROOMS.values[:3],
        np.take(ROOMS.values[SCALE], (0, 1, 5, 7)),
        ROOMS.values[SHAPE],
        np.take(ROOMS.values[ORIENTATION], (0, 7, 8, 14)),
    ),
)
BASE = (2, 6, 9, 2, 2, 1)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def rooms(data_dir):
    """64 of the set's 480 pictures in all colours, drawn once for this module."""
    return load_rooms(data_dir, space=SPACE)


@pytest.fixture(scope="module")
def shading(rooms):
    """The planes of its pictures, float32 [scales, shapes, orientations, 4, H, W]."""
    return rooms.table.shading.astype(np.float32).reshape(4, 4, 4, 4, 64, 64)


def images_along(rooms, factor, base=BASE):
    """int [values, 3, 64, 64]: one factor takes all its values, the others keep those of base."""
    space = rooms.factor_space
    factors = np.tile(base, (space.sizes[factor], 1))
    factors[:, factor] = np.arange(space.sizes[factor])
    return rooms.images(space.index_of(factors)).int()


def changed(first, second):
    """bool [H, W]: pixels in which two images differ."""
    return (first != second).any(dim=0)


def small_space(**values):
    """One value of each factor, but for those given."""
    one = dict(zip(ROOMS.names, ((v[0],) for v in ROOMS.values), strict=True)) | values
    return FactorSpace(ROOMS.names, tuple(len(v) for v in one.values()), tuple(one.values()))


# --- The set --------------------------------------------------------------------------------------


def test_factors_are_those_of_3d_shapes(rooms):
    space = ROOMS
    assert len(space) == 480_000
    assert space.names == (
        "floor_hue",
        "wall_hue",
        "object_hue",
        "scale",
        "shape",
        "orientation",
    )
    assert space.sizes == (10, 10, 10, 8, 4, 15)
    for factor in (FLOOR_HUE, WALL_HUE, OBJECT_HUE):
        np.testing.assert_allclose(space.values[factor], np.linspace(0, 0.9, 10))
    np.testing.assert_allclose(space.values[SCALE], np.linspace(0.75, 1.25, 8))
    np.testing.assert_allclose(space.values[ORIENTATION], np.linspace(-30, 30, 15))
    assert drawing.SHAPES == ("cube", "cylinder", "sphere", "capsule")
    assert (rooms.name, rooms.source, len(rooms)) == ("rooms", "rendered", 64_000)
    assert rooms.image_shape == (3, 64, 64)


@pytest.mark.slow
def test_the_whole_set_is_drawn_by_default(rooms, tmp_path):
    whole = load_rooms(tmp_path)
    assert (whole.factor_space, len(whole)) == (ROOMS, 480_000)
    for factor in (SHAPE, ORIENTATION, SCALE):
        images = images_along(whole, factor, (2, 6, 9, 5, 2, 7))
        for image, following in itertools.pairwise(images):
            assert ((image - following).abs() > 8).any(dim=0).sum() >= 40  # pixels
    factors = np.array([[2, 6, 9, 5, 3, 14], [0, 1, 2, 7, 0, 8]])
    there = np.array([[2, 6, 9, 2, 3, 3], [0, 1, 2, 3, 0, 2]])
    assert torch.equal(whole.images(ROOMS.index_of(factors)), rooms.images(SPACE.index_of(there)))


def test_batch_mixes_the_colours_of_the_factors(rooms, shading):
    factors = np.random.default_rng(0).integers(0, SPACE.sizes, (40, len(SPACE.sizes)))
    palette = np.array(PALETTE) / 255
    batch = rooms.batch(SPACE.index_of(factors))
    assert batch.dtype == torch.float32 and batch.shape == (40, 3, 64, 64)
    for image, (floor, wall, thing, *picture) in zip(batch.numpy(), factors, strict=True):
        colours = np.stack([palette[floor], palette[wall], palette[thing], np.ones(3)])
        expected = np.einsum("rhw,rc->chw", shading[tuple(picture)], colours)
        np.testing.assert_allclose(image, expected, atol=1e-6)


def test_images_are_batches_in_255_levels(rooms):
    index = np.random.default_rng(1).integers(len(rooms), size=100)
    batch, images = rooms.batch(index), rooms.images(index)
    assert images.dtype == torch.uint8 and images.shape == (100, 3, 64, 64)
    assert torch.equal(images, (batch * 255).round().to(torch.uint8))
    assert batch.min() >= 0 and batch.max() <= 1


def test_index_may_be_array_or_tensor_and_of_one(rooms):
    index = [0, 63_999, 12_345]
    expected = rooms.batch(np.array(index))
    assert torch.equal(rooms.batch(torch.tensor(index)), expected)
    assert torch.equal(rooms.batch(np.array(index[1:2])), expected[1:2])


@pytest.mark.parametrize("index", [-1, 64_000])
def test_index_out_of_range(rooms, index):
    with pytest.raises(IndexError):
        rooms.batch(np.array([index]))


# --- What the factors do --------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [FLOOR_HUE, WALL_HUE, OBJECT_HUE])
def test_a_hue_changes_its_own_region_only(rooms, shading, factor):
    share = torch.from_numpy(shading[BASE[3:]][factor])
    images = images_along(rooms, factor)
    for image in images[1:]:
        touched = changed(images[0], image)
        assert not touched[share == 0].any()
        assert touched[share > 0.1].all()


def test_regions_lie_where_one_expects_them(rooms):
    floor, wall, thing = (
        changed(*images_along(rooms, factor)[:2]) for factor in (FLOOR_HUE, WALL_HUE, OBJECT_HUE)
    )
    assert floor[-1].all() and not floor[0].any()
    assert wall[0].all() and not wall[-1].any()
    assert thing[32, 32] and not thing[[0, -1]].any() and not thing[:, [0, -1]].any()


def test_hues_look_different(rooms):
    palette = np.array(PALETTE, float)
    distance = np.linalg.norm(palette[:, None] - palette[None], axis=-1)
    assert distance[~np.eye(10, dtype=bool)].min() > 60  # of 255
    # Hue 0 is red, 1/3 towards green and 2/3 towards blue, as on 3D Shapes' circle.
    assert [palette[hue].argmax() for hue in (0, 3, 7)] == [0, 1, 2]


def test_the_whole_object_is_in_the_picture(shading):
    thing = shading[:, :, :, drawing.PLANES.index("object")]
    assert thing[..., :4, :].max() == thing[..., -4:, :].max() == 0
    assert thing[..., :4].max() == thing[..., -4:].max() == 0


def test_scale_grows_the_object(shading):
    area = (shading[:, :, :, drawing.PLANES.index("object")] > 0).sum(axis=(-1, -2))
    assert (np.diff(area, axis=0) > 0).all()
    # Nearer parts grow a little more than the square of 1.25 / 0.75.
    ratio = area[-1] / area[0]
    assert (ratio > 2.3).all() and (ratio < 4).all()


@pytest.mark.parametrize("factor", [SHAPE, ORIENTATION, SCALE])
def test_each_value_gives_another_picture(rooms, factor):
    for shape in range(4):
        images = images_along(rooms, factor, (*BASE[:4], shape, BASE[5]))
        for number, image in enumerate(images):
            for other in images[:number]:
                assert ((image - other).abs() > 8).any(dim=0).sum() >= 40  # pixels


def test_same_geometry_whatever_the_hues(rooms):
    first, second = (
        images_along(rooms, OBJECT_HUE, (*hues, 0, 1, 1, 3)) for hues in [(0, 5), (8, 3)]
    )
    assert torch.equal(changed(first[0], first[6]), changed(second[0], second[6]))


# --- Drawing and keeping --------------------------------------------------------------------------


def test_drawn_once_then_read(rooms, data_dir, monkeypatch):
    def draw_again(*_):
        raise AssertionError("drawn although it is in the cache")

    monkeypatch.setattr(drawing, "draw_pictures", draw_again)
    again = load_rooms(data_dir, space=SPACE)
    index = np.arange(0, len(rooms), 641)
    assert torch.equal(again.images(index), rooms.images(index))


def test_a_part_of_the_set_shows_the_same_pictures(rooms, tmp_path):
    picked = {"wall_hue": (3, 7), "object_hue": (0, 1, 9), "shape": (1, 3), "orientation": (1, 3)}
    chosen = {
        name: tuple(np.take(SPACE.values[SPACE.names.index(name)], at))
        for name, at in picked.items()
    }
    part = load_rooms(tmp_path, space=small_space(**chosen))
    assert len(part) == 24
    factors = part.factor_space.factors_of(np.arange(24))
    for name, at in picked.items():
        column = SPACE.names.index(name)
        factors[:, column] = np.take(at, factors[:, column])
    assert torch.equal(part.images(np.arange(24)), rooms.images(SPACE.index_of(factors)))


def test_drawing_is_deterministic(rooms, shading):
    """Neither the other pictures drawn nor the time of drawing leave a trace."""
    (drawn,) = drawing.draw_pictures([SPACE.values[SCALE][2]], ["cylinder"], [SPACE.values[5][2]])
    assert np.array_equal(drawn[0].astype(np.float16), shading[2, 1, 2].astype(np.float16))


def test_other_image_sizes_show_the_same_scene(rooms, tmp_path):
    large = load_rooms(tmp_path, image_size=128, space=small_space(scale=(1.25,)))
    assert large.image_shape == (3, 128, 128)
    halved = torch.nn.functional.avg_pool2d(large.batch(np.array([0])), 2)
    index = SPACE.index_of(np.array([[0, 0, 0, 3, 0, 0]]))
    assert (halved - rooms.batch(index)).abs().max() < 0.1
    with pytest.raises(UserError, match="512"):
        load_rooms(tmp_path, image_size=512)


def test_edges_are_antialiased():
    """34 rays a pixel come near to what 8 x 8 give, at every edge, straight or round."""
    scene = ([1.0], ("cube", "capsule"), [17.0])
    few = next(drawing.draw_pictures(*scene))
    large = next(drawing.draw_pictures(*scene, size=512, samples=1))
    many = large.reshape(2, 4, 64, 8, 64, 8).mean(axis=(3, 5))
    assert np.abs(few - many).max() < 0.08
    share = few[:, drawing.PLANES.index("object")] / few.sum(axis=1)
    edge = share[(share > 0) & (share < 1)]
    assert len(np.unique(edge.round(2))) > 25


# --- The ray caster -------------------------------------------------------------------------------


def cast(shape, origin, direction):
    """Entry and exit of one ray, as floats."""
    direction = np.array(direction, np.float32)[:, None]
    entry, leave = drawing.intersect(shape, np.array(origin, np.float32)[:, None], direction)
    return entry.item(), leave.item()


@pytest.mark.parametrize(
    ("shape", "half_width", "height"),
    [
        ("cube", drawing.CUBE_SIDE / 2, drawing.CUBE_SIDE),
        ("cylinder", drawing.CYLINDER_RADIUS, drawing.CYLINDER_HEIGHT),
        ("sphere", *drawing.ROUND["sphere"]),
        ("capsule", *drawing.ROUND["capsule"]),
    ],
)
def test_rays_meet_objects_where_they_are(shape, half_width, height):
    middle = height / 2
    assert cast(shape, (0, -5, middle), (0, 1, 0)) == pytest.approx(
        (5 - half_width, 5 + half_width), abs=1e-5
    )
    assert cast(shape, (5, 0, middle), (-1, 0, 0)) == pytest.approx(
        (5 - half_width, 5 + half_width), abs=1e-5
    )
    assert cast(shape, (0, 0, 7), (0, 0, -1)) == pytest.approx((7 - height, 7), abs=1e-5)
    entry, leave = cast(shape, (half_width + 0.01, -5, middle), (0, 1, 0))
    assert entry >= leave


def test_slanted_rays():
    """45 degrees down on the axis: through a top edge, a cap, a ball's pole and a round end."""
    root = math.sqrt(0.5)
    for shape, height in (
        ("cube", drawing.CUBE_SIDE),
        ("cylinder", drawing.CYLINDER_HEIGHT),
    ):
        entry, _ = cast(shape, (0, -3, height + 3), (0, root, -root))
        assert entry == pytest.approx(3 / root, abs=1e-5)
    for shape, (radius, height) in drawing.ROUND.items():
        entry, _ = cast(shape, (0, -3, height - radius + 3), (0, root, -root))
        assert entry == pytest.approx(3 / root - radius, abs=1e-5)


@pytest.mark.parametrize("shape", drawing.SHAPES)
def test_normals_are_unit_and_face_the_ray(shape):
    rays = drawing.camera_rays(20.0, 32, 1)
    entry, leave = drawing.intersect(shape, rays.origin[:, None], rays.directions)
    hit = entry < leave
    directions = rays.directions[:, hit]
    normal = drawing.normals(shape, rays.origin[:, None] + entry[hit] * directions)
    np.testing.assert_allclose(np.linalg.norm(normal, axis=0), 1, atol=1e-5)
    assert ((normal * directions).sum(axis=0) < 1e-3).all()


@pytest.mark.parametrize("shape", drawing.SHAPES)
def test_shadows_lie_on_the_floor_only(shape):
    maps = drawing.floor_lightmap(shape)
    middle = drawing.LIGHTMAP_CELLS // 2
    assert maps.key[middle, middle] == 0  # right below the object
    assert (maps.key[:, 0] == 1).all()  # on the side of the light
    side = np.linspace(-drawing.LIGHTMAP_HALF_WIDTH, drawing.LIGHTMAP_HALF_WIDTH, len(maps.key))
    beyond = np.abs(side) > drawing.ROOM_HALF_WIDTH / 1.25  # the walls, seen by the largest object
    for share in maps:
        assert min(share[beyond].min(), share[:, beyond].min()) > 0.9


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_batches_equal_the_cpu_ones_and_wait_for_nothing(rooms):
    index = torch.randint(len(rooms), (64,), generator=torch.Generator().manual_seed(0))
    expected = rooms.batch(index)
    on_device = index.cuda()
    rooms.batch(on_device, "cuda")  # copies the table
    with no_wait_for_the_device():
        batch = rooms.batch(on_device, "cuda")
    torch.testing.assert_close(batch.cpu(), expected, atol=1e-6, rtol=0)
