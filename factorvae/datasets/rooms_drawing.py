"""A small ray caster: one object in a room, drawn as shading per region instead of as colours.

The scene is that of `factorvae.datasets.rooms`: a floor (z = 0), four walls with a white skirting
board, seen from inside only, and an object that stands on the middle of the floor. Geometry and
light are computed here, colours are not. What comes out says, for every pixel, how much of the
colours of floor, wall and object it takes and how much white is added:

    pixel = floor * floor_colour + wall * wall_colour + object * object_colour + white

A sample belongs to one region, and samples are averaged after the square root that turns light
into display values; so this sum is exact, antialiased edges included.

Arrays take only +, -, *, / and sqrt, which every machine rounds alike, and sums run in a fixed
order, so that two machines draw the same pictures. Points, directions and normals are float32
[3, N]; x points to the right and y away from a camera at orientation 0, z points up.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

SHAPES = ("cube", "cylinder", "sphere", "capsule")
PLANES = ("floor", "wall", "object", "white")

# Sizes at scale 1: the objects cover about equal areas and are told apart at a glance.
CUBE_SIDE = 1.64
CYLINDER_RADIUS, CYLINDER_HEIGHT = 0.93, 1.75
ROUND = {"sphere": (1.08, 2.16), "capsule": (0.74, 2.35)}  # radius, height

ROOM_HALF_WIDTH = 3.1
SKIRTING_HEIGHT = 0.2

CAMERA_DISTANCE, CAMERA_HEIGHT = 6.5, 3.1
LOOK_AT_HEIGHT = 1.15
HALF_VIEW = 0.385  # tangent of half the angle of view

SAMPLES = 34  # rays per pixel; a Fibonacci number, see `lattice`

# A soft disc of directions high up to the left, a weak fill light from the front and a white dome,
# as parts of the light that a surface can give back; what the floor throws back up is a fourth.
# The key light is so high that no shadow reaches a wall, and so far aside that shadows show.
KEY_LIGHT, KEY_DIRECTION, KEY_DISC_RADIUS = 0.6, (-0.8, -0.25, 1.25), 0.2
FILL_LIGHT, FILL_DIRECTION = 0.13, (0.3, -0.9, 0.2)
DOME_LIGHT, BOUNCED_LIGHT = 0.46, 0.14

Span = tuple[np.ndarray, np.ndarray]

TINY = 1e-9  # stands in for zero where something divides

# Light and shadow on the floor round an object, in units of the object's scale.
LIGHTMAP_CELLS, LIGHTMAP_HALF_WIDTH = 161, 4.0
LIGHTMAP_KEY_RAYS, LIGHTMAP_DOME_RAYS = 233, 377  # before the square's corners are cut off


class Rays(NamedTuple):
    """A camera's rays: one origin [3], unit directions [3, N]."""

    origin: np.ndarray
    directions: np.ndarray


class Lightmaps(NamedTuple):
    """Shares of light left to the floor round an object of scale 1: float32 [cells, cells].

    Rows run along y, columns along x, from -LIGHTMAP_HALF_WIDTH to LIGHTMAP_HALF_WIDTH; 0 is full
    shadow, 1 the open.
    """

    key: np.ndarray
    dome: np.ndarray


class Room(NamedTuple):
    """What the rays of one orientation meet behind the object, [N] each."""

    is_floor: np.ndarray
    floor_x: np.ndarray
    floor_y: np.ndarray
    dome_light: np.ndarray
    key_light: np.ndarray
    is_white: np.ndarray  # the skirting board


def lattice(count: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` (a Fibonacci number) even points of the unit square: x and y, float64 [count].

    No two share a row or a column, so that antialiased edges of any slope take many levels.
    """
    number = np.arange(count)
    step = round(count * (math.sqrt(5) - 1) / 2)  # the Fibonacci number before
    return (number + 0.5) / count, (number * step % count + 0.5) / count


def camera_rays(orientation: float, size: int, samples: int) -> Rays:
    """Rays of a camera turned by `orientation` degrees round the object; N = samples * size**2.

    Samples come first: ray n belongs to sample n // size**2 of pixel n % size**2 (row by row).
    """
    turn = math.radians(orientation)
    eye = np.array(
        [CAMERA_DISTANCE * math.sin(turn), -CAMERA_DISTANCE * math.cos(turn), CAMERA_HEIGHT]
    )
    right = np.array([math.cos(turn), math.sin(turn), 0.0])
    forward = np.array([0.0, 0.0, LOOK_AT_HEIGHT]) - eye
    forward /= math.sqrt(float(forward[0] ** 2 + forward[1] ** 2 + forward[2] ** 2))
    up = np.cross(right, forward)

    shift_x, shift_y = lattice(samples)
    column = (np.arange(size) + shift_x[:, None]) / size * 2 - 1  # [samples, size]
    row = 1 - (np.arange(size) + shift_y[:, None]) / size * 2
    across = np.broadcast_to(column[:, None, :] * HALF_VIEW, (samples, size, size)).ravel()
    upward = np.broadcast_to(row[:, :, None] * HALF_VIEW, (samples, size, size)).ravel()
    directions = forward[:, None] + right[:, None] * across + up[:, None] * upward
    directions /= np.sqrt(1 + across * across + upward * upward)
    return Rays(eye.astype(np.float32), directions.astype(np.float32))


# --- Where a ray meets an object. Objects stand on z = 0, at scale 1. -----------------------------
# `origin` and `direction` are [3, ...] and broadcast. Both answers are distances; a ray that
# misses has its entry behind its exit. The shapes are convex, so that two distances say all.


def _slab(origin: np.ndarray, direction: np.ndarray, low: float, high: float) -> Span:
    step = 1 / np.where(np.abs(direction) < TINY, np.float32(TINY), direction)
    first, second = (low - origin) * step, (high - origin) * step
    return np.minimum(first, second), np.maximum(first, second)


def _quadric(a: np.ndarray, half_b: np.ndarray, c: np.ndarray) -> Span:
    """Both roots of a t^2 + 2 half_b t + c, or (inf, -inf) where there are none."""
    a = np.maximum(a, np.float32(TINY))
    discriminant = half_b * half_b - a * c
    root = np.sqrt(np.maximum(discriminant, 0))
    miss = discriminant <= 0
    inf = np.float32(np.inf)
    return np.where(miss, inf, (-half_b - root) / a), np.where(miss, -inf, (root - half_b) / a)


def _cube(origin: np.ndarray, direction: np.ndarray) -> Span:
    half = CUBE_SIDE / 2
    in_x, out_x = _slab(origin[0], direction[0], -half, half)
    in_y, out_y = _slab(origin[1], direction[1], -half, half)
    in_z, out_z = _slab(origin[2], direction[2], 0.0, CUBE_SIDE)
    return np.maximum(np.maximum(in_x, in_y), in_z), np.minimum(np.minimum(out_x, out_y), out_z)


def _upright_cylinder(
    origin: np.ndarray, direction: np.ndarray, radius: float, low: float, high: float
) -> Span:
    (x, y, _), (dx, dy, _) = origin, direction
    in_side, out_side = _quadric(dx * dx + dy * dy, x * dx + y * dy, x * x + y * y - radius**2)
    in_z, out_z = _slab(origin[2], direction[2], low, high)
    return np.maximum(in_side, in_z), np.minimum(out_side, out_z)


def _ball(origin: np.ndarray, direction: np.ndarray, radius: float, height: float) -> Span:
    (x, y, z), (dx, dy, dz) = origin, direction
    z = z - height
    return _quadric(
        np.ones_like(dx), x * dx + y * dy + z * dz, x * x + y * y + z * z - radius * radius
    )


def _capsule(origin: np.ndarray, direction: np.ndarray, radius: float, height: float) -> Span:
    low, high = radius, height - radius
    parts = (
        _upright_cylinder(origin, direction, radius, low, high),
        _ball(origin, direction, radius, low),
        _ball(origin, direction, radius, high),
    )
    inf = np.float32(np.inf)
    entry, leave = inf, -inf
    for part_entry, part_leave in parts:
        hit = part_entry < part_leave
        entry = np.minimum(entry, np.where(hit, part_entry, inf))
        leave = np.maximum(leave, np.where(hit, part_leave, -inf))
    return entry, leave


def intersect(shape: str, origin: np.ndarray, direction: np.ndarray) -> Span:
    """Distances at which rays enter and leave `shape` (entry >= exit: no hit)."""
    if shape == "cube":
        return _cube(origin, direction)
    if shape == "cylinder":
        return _upright_cylinder(origin, direction, CYLINDER_RADIUS, 0.0, CYLINDER_HEIGHT)
    return _capsule(origin, direction, *ROUND[shape])  # a sphere's two ends are the same ball


def normals(shape: str, points: np.ndarray) -> np.ndarray:
    """Unit normals [3, N] at `points` [3, N] on the surface of `shape`."""
    x, y, z = points
    normal = np.zeros_like(points)
    if shape == "cube":
        half = CUBE_SIDE / 2
        from_centre = np.stack([x, y, z - half])
        face = np.abs(from_centre).argmax(axis=0)
        each = np.arange(points.shape[1])
        normal[face, each] = np.where(from_centre[face, each] > 0, 1, -1)
    elif shape == "cylinder":
        on_top = CYLINDER_HEIGHT - z < 1e-4
        normal[:2] = np.where(on_top, 0, points[:2] / CYLINDER_RADIUS)
        normal[2] = on_top
    else:  # away from the nearest point of the axis
        radius, height = ROUND[shape]
        axis = np.clip(z, np.float32(radius), np.float32(height - radius))
        normal[:] = np.stack([x, y, z - axis]) / np.float32(radius)
    return normal


# --- Light ----------------------------------------------------------------------------------------


def _unit(vector: tuple) -> np.ndarray:
    x, y, z = vector
    return np.array(vector, np.float32) / np.float32(math.sqrt(x * x + y * y + z * z))


def _disc(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Even points of the unit disc: those of `count` in the square that lie inside."""
    x, y = lattice(count)
    x, y = 2 * x - 1, 2 * y - 1
    inside = x * x + y * y < 1
    return x[inside], y[inside]


def _dot(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return first[0] * second[0] + first[1] * second[1] + first[2] * second[2]


def floor_lightmap(shape: str) -> Lightmaps:
    """Soft shadow and contact shadow that `shape` casts on the floor.

    Every light is infinitely far away, so that the map for another scale is this one, stretched.
    """
    side = np.linspace(-LIGHTMAP_HALF_WIDTH, LIGHTMAP_HALF_WIDTH, LIGHTMAP_CELLS)
    x, y = np.meshgrid(side.astype(np.float32), side.astype(np.float32))
    origin = np.stack([x, y, np.zeros_like(x)])  # [3, cells, cells]

    key = _unit(KEY_DIRECTION)
    right = _unit((key[1], -key[0], 0.0))
    up = np.cross(right, key)
    key_x, key_y = _disc(LIGHTMAP_KEY_RAYS)
    key_rays = key[:, None] + KEY_DISC_RADIUS * (right[:, None] * key_x + up[:, None] * key_y)
    # Even points of the disc, lifted to the hemisphere, are weighted by the cosine (Nusselt).
    dome_x, dome_y = _disc(LIGHTMAP_DOME_RAYS)
    dome_rays = np.stack([dome_x, dome_y, np.sqrt(1 - dome_x**2 - dome_y**2)])
    return Lightmaps(
        key=_open_share(shape, origin, key_rays), dome=_open_share(shape, origin, dome_rays)
    )


def _open_share(shape: str, origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """The share of `rays` [3, M] that leave each of `origin` [3, ...] without meeting `shape`."""
    free = np.zeros(origin.shape[1:], np.float32)
    for ray in (rays / np.sqrt(_dot(rays, rays))).astype(np.float32).T:
        entry, leave = intersect(shape, origin, ray[:, None, None])
        free += (entry >= leave) | (leave < 1e-4)
    return free / np.float32(rays.shape[1])


def _look_up(maps: Lightmaps, x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Both maps at x, y (in units of the scale), between cells bilinear."""
    to_cell = np.float32((LIGHTMAP_CELLS - 1) / (2 * LIGHTMAP_HALF_WIDTH))
    last = np.float32(LIGHTMAP_CELLS - 1.001)
    x = np.clip((x + np.float32(LIGHTMAP_HALF_WIDTH)) * to_cell, 0, last)
    y = np.clip((y + np.float32(LIGHTMAP_HALF_WIDTH)) * to_cell, 0, last)
    left, low = x.astype(np.int32), y.astype(np.int32)
    x, y = x - left, y - low
    corner = low * LIGHTMAP_CELLS + left
    found = []
    for values in maps:
        flat = values.ravel()
        near = flat[corner] * (1 - x) + flat[corner + 1] * x
        far = flat[corner + LIGHTMAP_CELLS] * (1 - x) + flat[corner + LIGHTMAP_CELLS + 1] * x
        found.append(near * (1 - y) + far * y)
    return found


def _corner_light(distance: np.ndarray, depth: float) -> np.ndarray:
    """Dome light left at `distance` from a plane: the form factor of a strip 0.9 high, softened."""
    distance = np.maximum(distance, 0)
    return 1 - np.float32(depth) * (1 - distance / np.sqrt(distance * distance + np.float32(0.81)))


def trace_room(rays: Rays) -> Room:
    """The floor, or the inner side of a wall, that each ray meets, and the light there."""
    (ox, oy, oz), (dx, dy, dz) = rays
    half = np.float32(ROOM_HALF_WIDTH)
    _, leave_x = _slab(ox, dx, -half, half)
    _, leave_y = _slab(oy, dy, -half, half)
    to_wall = np.minimum(leave_x, leave_y)
    to_floor = np.where(dz < 0, -oz / np.minimum(dz, np.float32(-TINY)), np.float32(np.inf))
    is_floor = to_floor < to_wall
    is_side = ~is_floor & (leave_x < leave_y)
    is_back = ~is_floor & ~is_side
    distance = np.minimum(to_floor, to_wall)
    x, y, z = ox + distance * dx, oy + distance * dy, oz + distance * dz
    normal = np.stack([-np.sign(dx) * is_side, -np.sign(dy) * is_back, is_floor])

    # Planes that meet take dome light from each other.
    dome = np.where(is_floor, 1, np.float32(0.9) * _corner_light(z, 0.30))
    dome *= np.where(is_side, 1, _corner_light(half - np.abs(x), 0.35))
    dome *= np.where(is_back, 1, _corner_light(half - np.abs(y), 0.35))
    pool = 1 / (1 + (x * x + y * y + (z - 1) * (z - 1)) / np.float32(40))
    fill = np.float32(FILL_LIGHT) * np.maximum(_dot(normal, _unit(FILL_DIRECTION)), 0)
    return Room(
        is_floor=is_floor,
        floor_x=x,
        floor_y=y,
        dome_light=np.float32(DOME_LIGHT) * dome + fill,
        key_light=np.float32(KEY_LIGHT) * np.maximum(_dot(normal, _unit(KEY_DIRECTION)), 0) * pool,
        is_white=~is_floor & (z < SKIRTING_HEIGHT),
    )


def shade_object(
    shape: str, points: np.ndarray, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Light [N] that the object's surface gives back, and the share [N] of white gloss on it."""
    normal = normals(shape, points)
    key, fill = _unit(KEY_DIRECTION), _unit(FILL_DIRECTION)
    wrap = np.float32(0.18)  # a lamp of some size reaches a little round the edge of the shadow
    towards_key = np.maximum((_dot(normal, key) + wrap) / (1 + wrap), 0)
    towards_fill = np.maximum(_dot(normal, fill), 0)
    near_floor = points[2] / (points[2] + np.float32(0.25))
    upward = (1 + normal[2]) / 2
    dome = upward * (np.float32(0.55) + np.float32(0.45) * near_floor)
    bounce = (1 - upward) * near_floor
    light = (
        np.float32(KEY_LIGHT) * towards_key
        + np.float32(FILL_LIGHT) * towards_fill
        + np.float32(DOME_LIGHT) * dome
        + np.float32(BOUNCED_LIGHT) * bounce
    )

    half_way = key[:, None] - directions
    half_way = half_way / np.sqrt(_dot(half_way, half_way))
    gloss = np.maximum(_dot(normal, half_way), 0)
    for _ in range(5):
        gloss = gloss * gloss  # to the power of 32
    rim = 1 - np.minimum(np.maximum(-_dot(normal, directions), 0), 1)
    rim = rim * rim * rim * rim
    return np.minimum(light, 1), np.float32(0.38) * gloss + np.float32(0.10) * rim * upward


# --- Pictures -------------------------------------------------------------------------------------


def draw_pictures(
    scales: Sequence[float],
    shapes: Sequence[str],
    orientations: Sequence[float],
    size: int = 64,
    samples: int = SAMPLES,
) -> Iterator[np.ndarray]:
    """Draw each of `shapes` at each of `scales`, one orientation (degrees) after another.

    Yields float32 [len(scales) * len(shapes), len(PLANES), size, size] once per orientation, the
    shape changing fastest. Values lie in 0..1, and to rounding so does their sum over planes.
    """
    maps = {shape: floor_lightmap(shape) for shape in shapes}
    for orientation in orientations:
        rays = camera_rays(orientation, size, samples)
        room = trace_room(rays)
        pictures = np.empty((len(scales), len(shapes), len(PLANES), size, size), np.float32)
        for step, scale in enumerate(scales):
            for number, shape in enumerate(shapes):
                planes = _draw(shape, np.float32(scale), rays, room, maps[shape])
                planes = planes.reshape(len(PLANES), samples, size, size)
                pictures[step, number] = planes.sum(axis=1) / np.float32(samples)
        yield pictures.reshape(-1, len(PLANES), size, size)


def _draw(shape: str, scale: np.float32, rays: Rays, room: Room, maps: Lightmaps) -> np.ndarray:
    """The samples of one picture, float32 [len(PLANES), N]."""
    origin = rays.origin / scale  # the object keeps scale 1 and the world shrinks round it
    entry, leave = intersect(shape, origin[:, None], rays.directions)
    hit = np.flatnonzero(entry < leave)  # never behind floor or wall: it stands in front of both
    floor = np.flatnonzero(room.is_floor)

    key_light, dome_light = room.key_light.copy(), room.dome_light.copy()
    key_open, dome_open = _look_up(maps, room.floor_x[floor] / scale, room.floor_y[floor] / scale)
    key_light[floor] *= key_open
    dome_light[floor] *= dome_open
    shade = np.sqrt(np.minimum(key_light + dome_light, 1))

    planes = np.zeros((len(PLANES), len(shade)), np.float32)
    on_floor, on_wall, on_object, white = planes
    on_floor[floor] = shade[floor]
    on_wall[:] = np.where(room.is_floor | room.is_white, 0, shade)
    white[:] = np.where(room.is_white, np.minimum(shade * np.float32(1.2), np.float32(0.97)), 0)

    directions = rays.directions[:, hit]
    light, gloss = shade_object(shape, origin[:, None] + entry[hit] * directions, directions)
    planes[:, hit] = 0
    on_object[hit] = np.sqrt(light) * (1 - gloss)
    white[hit] = gloss
    return planes
