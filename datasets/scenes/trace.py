"""Ray casting of rooms in NumPy: what each pixel sees and how far away it is.

A room is an axis-aligned shell (x and z level, y up, floor at y = 0, metres) with primitives of two
kinds: boxes turned about the vertical, and upright round bodies (balls, ellipsoids, cylinders) cut
off below and above. A primitive is tried only on the pixels of its projected window, and all such
pairs of a kind are intersected at once. The light is one more view, straight down on the floor,
traced in the same pass; it makes the shadow map.

Pixels are computed in float32 and only by operations that IEEE 754 defines to the last bit
(``+ - * /``, square roots, comparisons): a value depends neither on its batch nor on the processor.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
Double = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]

PLANES = 6
"""Instances 0 to 5 are the room: floor, ceiling, the walls x = 0, x = max, z = 0, z = max."""
NEAR = 0.25
"""Least depth in metres that a view sees."""

_SIDE = 96  # texels of the shadow map, 6 to 9 cm each
_MARGIN = 1.0  # metres around the floor that the shadow map covers, for the shadows on the walls
_PAD = 0.05  # pixels around a projected window, far above the rounding errors

_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64).T
_EDGES = np.array([(i, i | bit) for bit in (1, 2, 4) for i in range(8) if not i & bit]).T


@dataclass(frozen=True)
class View:
    """A pinhole: pixel (row, column) looks along
    ``forward + right * (column + ½ - centre[0]) / focal + down * (row + ½ - centre[1]) / focal``,
    so the parameter of the ray is the depth along the axis.

    origin [3]: metres. axes [3, 3]: right, down, forward. focal, centre (x, y): pixels.
    size: (height, width).
    """

    origin: Double
    axes: Double
    focal: float
    centre: tuple[float, float]
    size: tuple[int, int]

    def basis(self) -> Double:
        """[3, 3]: the ray of pixel (0, 0), its change per column, its change per row."""
        basis = self.axes[[2, 0, 1]]
        basis[1:] /= self.focal
        basis[0] += basis[1] * (0.5 - self.centre[0]) + basis[2] * (0.5 - self.centre[1])
        return basis


@dataclass(frozen=True)
class Light:
    """A point light. colour [3]: linear RGB that it gives a facing surface near by."""

    position: Double
    colour: Double


@dataclass(frozen=True)
class Materials:
    """Two colours mixed by a texture: linear RGB [M, 2, 3], index [M], texels per metre [M]."""

    colours: Double
    texture: Index
    texels: Double


@dataclass(frozen=True)
class Scene:
    """All that a picture depends on.

    room [3]: extents in metres.
    boxes [8, B]: centre, half extents, cosine and sine of the turn from x towards z.
    rounds [7, R]: centre, radius r, half height h, squeeze k, bulge b: from the centre, the points
    ``x² + z² + k (y - b)² <= r²`` with ``|y| <= h``. k is 1 for a ball, 0 for a cylinder.
    *_owner: the instance that a primitive is a part of. *_material: index into ``materials``.
    labels: the class of each instance. hero: the salient instance. distractors: other vivid ones.
    ambient [3]: linear RGB. sky [3]: unit vector, from where the ambient light is brightest.
    white_balance [3]: gains. exposure: mean of the encoded picture, about.
    noise: standard deviation, and where in the table of noise the picture's begins.
    """

    room: Double
    camera: View
    boxes: Double
    box_owner: Index
    box_material: Index
    rounds: Double
    round_owner: Index
    round_material: Index
    plane_material: Index
    labels: npt.NDArray[np.uint8]
    hero: int
    distractors: tuple[int, ...]
    materials: Materials
    light: Light
    sky: Double
    ambient: Double
    white_balance: Double
    exposure: float
    noise: tuple[float, int]


@dataclass(frozen=True)
class Hits:
    """What the camera's P pixels see first, in row order, and the shadow map.

    depth [P]: metres. instance [P]. rays [3, P]: directions, of depth 1.
    face [P]: 0 to 5 the room's planes, then three per box (normal along its own x, y or z), then
    two per round body (side, cut).
    shadow [side, side]: metres below the light at which the first thing below it ends.
    """

    depth: Float
    instance: Index
    rays: Float
    face: Index
    light_view: View
    shadow: Float


def trace(scene: Scene) -> Hits:
    """Cast the rays of the camera and of the light."""
    views = (scene.camera, _light_view(scene.room, scene.light.position))
    bases = np.array([view.basis() for view in views])
    rays = _rays(scene.camera.size, bases[0])
    pixels = rays.shape[1]
    # Depths in both views; the light's are infinite at first.
    nearest = np.full(pixels + _SIDE * _SIDE, np.inf, np.float32)
    nearest[:pixels], face = _trace_room(scene.room, scene.camera.origin, rays)

    pairs = _pair_up(views, bases, scene.boxes, scene.rounds)
    split = pairs.boxes
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        box = _intersect_boxes(pairs.origin[:3, :split], pairs.ray[:3, :split])
        body = _intersect_rounds(pairs.origin[:, split:], pairs.ray[:, split:])
    enter = np.concatenate([box.enter, body.enter])
    leave = np.concatenate([box.leave, body.leave])
    side = np.concatenate([box.side, body.side])
    hit = np.flatnonzero((enter < leave) & (enter > NEAR))
    pixel = pairs.pixel.take(hit)
    of_camera = pixel < pixels
    # The light's map holds far sides: a lit surface then never shadows itself.
    depth = np.concatenate([leave, enter]).take(hit + of_camera * np.intp(len(enter)))
    np.minimum.at(nearest, pixel, depth)
    first = np.flatnonzero((depth == nearest.take(pixel)) & of_camera)
    index = hit.take(first)
    face[pixel.take(first)] = pairs.face.take(index) + side.take(index)

    owner = np.concatenate(
        [np.arange(PLANES), np.repeat(scene.box_owner, 3), np.repeat(scene.round_owner, 2)]
    )
    shadow = nearest[pixels:].reshape(_SIDE, _SIDE)
    shadow[[0, -1]] = shadow[:, [0, -1]] = np.inf  # look-ups beyond the map end here: lit
    return Hits(nearest[:pixels], owner.take(face), rays, face, views[1], shadow)


def _light_view(room: Double, position: Double) -> View:
    """The view from a light straight down whose picture covers the floor and a margin."""
    x, height, z = position.tolist()
    scale = _SIDE / (float(max(room[0], room[2])) + 2 * _MARGIN)
    centre = (
        _SIDE / 2 + scale * (x - float(room[0]) / 2),
        _SIDE / 2 + scale * (z - float(room[2]) / 2),
    )
    axes = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
    return View(position, axes, scale * height, centre, (_SIDE, _SIDE))


def _rays(size: tuple[int, int], basis: Double) -> Float:
    height, width = size
    first, right, down = basis[..., None]
    lines = (first + right * np.arange(width)).astype(np.float32)
    rows = (down * np.arange(height)).astype(np.float32)
    rays: Float = lines[:, None, :] + rows[:, :, None]
    return rays.reshape(3, -1)


def _trace_room(room: Double, origin: Double, rays: Float) -> tuple[Float, Index]:
    """Depth and face [P] of the room's planes, seen from within."""
    half = room / 2
    to_middle, reach = (half - origin).astype(np.float32), half.astype(np.float32)
    ends = []
    with np.errstate(divide="ignore", invalid="ignore"):
        for axis in range(3):
            end = np.copysign(reach[axis], rays[axis])
            end += to_middle[axis]
            end /= rays[axis]
            ends.append(end)
    depth = np.minimum(np.minimum(ends[0], ends[1]), ends[2])
    level = ends[1] == depth
    across = (ends[0] == depth) & ~level
    positive = (rays > 0).view(np.uint8)
    face = level * positive[1]
    face += across * (2 + positive[0])
    face += ~(level | across) * (4 + positive[2])
    return depth, face.astype(np.intp)


@dataclass(frozen=True)
class _Pairs:
    """N pairs of a primitive and a pixel in its window, first those of the boxes.

    pixel [N]: counted through both views. face [N]: the first of the primitive's. boxes: number of
    pairs of boxes. origin, ray [4, N]: where the ray starts and how it goes on, in coordinates
    where boxes are the cube from -1 to 1 (three of them) and round bodies the unit ball or tube,
    the fourth being their height from -1 to 1.
    """

    pixel: Index
    face: Index
    boxes: int
    origin: Float
    ray: Float


def _pair_up(views: tuple[View, ...], bases: Double, boxes: Double, rounds: Double) -> _Pairs:
    count, bodies, sights = boxes.shape[1], rounds.shape[1], len(views)
    upright = np.array([[1.0], [0.0]]).repeat(bodies, axis=1)
    hulls = np.concatenate([boxes, np.concatenate([rounds[[0, 1, 2, 3, 4, 3]], upright])], axis=1)
    left, top, columns, rows = _windows(views, hulls).reshape(4, -1)
    frames = _frames(views, bases, hulls[:3], boxes, rounds)
    # Primitives to lines, lines to pixels: no pixel needs a division.
    rows *= columns > 0
    of_line = np.repeat(np.arange(len(rows)), rows)
    row = np.arange(len(of_line)) - np.repeat(np.cumsum(rows) - rows - top, rows)
    length = columns[of_line]
    begin = np.cumsum(length) - length
    first, right, down, origin = frames[:, :, of_line].swapaxes(0, 1)
    lines = np.empty((3, *first.shape), np.float32)
    lines[0], lines[1], lines[2] = first + right * left[of_line] + down * row, right, origin
    ray, step, start = np.repeat(lines, length, axis=2)
    number = np.arange(ray.shape[1])
    ray += step * (number - np.repeat(begin, length)).astype(np.float32)

    view = of_line % sights
    widths = np.array([view.size[1] for view in views])
    starts = np.array([0, views[0].size[0] * views[0].size[1]])
    shift = starts[view] + widths[view] * row + left[of_line] - begin
    faces = np.concatenate([3 * np.arange(count), 3 * count + 2 * np.arange(bodies)]) + PLANES
    return _Pairs(
        pixel=number + np.repeat(shift, length),
        face=np.repeat(faces[of_line // sights], length),
        boxes=int((rows * columns)[: count * sights].sum()),
        origin=start,
        ray=ray,
    )


def _windows(views: tuple[View, ...], boxes: Double) -> Index:
    """[4, B, V]: first column, first row, columns and rows of the pixels that a box may cover."""
    cos, sin = boxes[6], boxes[7]
    x, y, z = _CORNERS[:, :, None] * boxes[3:6, None]
    corners = np.array([cos * x - sin * z, y, sin * x + cos * z]) + boxes[:3, None]
    pinholes = np.array([view.axes for view in views])
    for pinhole, view in zip(pinholes, views, strict=True):
        pinhole[:2] *= view.focal
        pinhole[:2] += np.outer(view.centre, pinhole[2])
    origins = np.array([view.origin for view in views])[..., None]
    projected = np.matmul(pinholes, corners.reshape(3, -1) - origins)
    projected = projected.reshape(-1, *corners.shape).transpose(1, 2, 3, 0)  # [3, 8 corners, B, V]
    behind = projected[2] < NEAR
    plane = projected[:2] / np.where(behind, np.inf, projected[2])
    low = np.where(behind, np.inf, plane).min(1)
    high = np.where(behind, -np.inf, plane).max(1)
    cut = behind.any(0) & ~behind.all(0)
    if cut.any():  # the points where edges cross the near plane bound what is before it
        start, end = projected[:, _EDGES[0]][..., cut], projected[:, _EDGES[1]][..., cut]
        crosses = (start[2] < NEAR) != (end[2] < NEAR)
        span = np.where(crosses, end[2] - start[2], 1)
        crossing = (start + (end - start) * ((NEAR - start[2]) / span))[:2] / NEAR
        low[:, cut] = np.minimum(low[:, cut], np.where(crosses, crossing, np.inf).min(1))
        high[:, cut] = np.maximum(high[:, cut], np.where(crosses, crossing, -np.inf).max(1))
    size = np.array([view.size[::-1] for view in views], np.float64).T[:, None]
    first = np.minimum(np.maximum(np.ceil(low - (0.5 + _PAD)), 0), size)
    end = np.minimum(np.maximum(np.floor(high + (0.5 + _PAD)), first), size)
    return np.concatenate([first, end - first]).astype(np.intp)


def _frames(
    views: tuple[View, ...], bases: Double, centres: Double, boxes: Double, rounds: Double
) -> Double:
    """[4, 4, N * V]: in the coordinates of each primitive (see ``_Pairs``), the rays of the views
    (first, per column, per row) and their origins.
    """
    count = boxes.shape[1]
    vectors = np.empty((3, 4, centres.shape[1], len(views)))
    vectors[:, :3] = bases.transpose(2, 1, 0)[:, :, None]
    vectors[:, 3] = np.array([view.origin for view in views]).T[:, None] - centres[..., None]
    frames = np.zeros((4, *vectors.shape[1:]))

    x, y, z = vectors[:, :, :count]
    half_x, half_y, half_z, cos, sin = boxes[3:, :, None]
    frames[0, :, :count] = (cos * x + sin * z) / half_x
    frames[1, :, :count] = y / half_y
    frames[2, :, :count] = (cos * z - sin * x) / half_z

    x, y, z = vectors[:, :, count:]
    radius, half, squeeze, bulge = rounds[3:, :, None]
    frames[0, :, count:] = x / radius
    frames[2, :, count:] = z / radius
    frames[3, :, count:] = y / half
    y[3] -= bulge
    frames[1, :, count:] = y * (np.sqrt(squeeze) / radius)
    return frames.reshape(4, 4, -1)


class _Crossing(NamedTuple):
    """Depths [N] where rays enter and leave a body, and by which of its faces they enter."""

    enter: Float
    leave: Float
    side: npt.NDArray[np.uint8]


def _intersect_boxes(origin: Float, ray: Float) -> _Crossing:
    """Rays [3, N] with the cube from -1 to 1."""
    inverse = np.float32(1) / ray
    middle, reach = origin * inverse, np.abs(inverse)
    begin, end = -reach - middle, reach - middle
    enter = np.maximum(np.maximum(begin[0], begin[1]), begin[2])
    leave = np.minimum(np.minimum(end[0], end[1]), end[2])
    on_y = enter == begin[1]
    on_x = (enter == begin[0]) & ~on_y
    return _Crossing(enter, leave, 2 - on_y.view(np.uint8) - 2 * on_x.view(np.uint8))


def _intersect_rounds(origin: Float, ray: Float) -> _Crossing:
    """Rays [4, N] with the unit ball or tube between the cuts."""
    (x, y, z, height), (dx, dy, dz, rise) = origin, ray
    inverse = np.float32(1) / (dx * dx + dy * dy + dz * dz)
    closest = -(x * dx + y * dy + z * dz) * inverse
    # From the closest point, as the textbook's discriminant cancels for thin poles far away.
    x, y, z = x + closest * dx, y + closest * dy, z + closest * dz
    reach = np.sqrt((np.float32(1) - (x * x + y * y + z * z)) * inverse)
    begin = closest - reach
    inverse = np.float32(1) / rise
    middle, slab = height * inverse, np.abs(inverse)
    enter = np.maximum(begin, -slab - middle)
    leave = np.minimum(closest + reach, slab - middle)
    return _Crossing(enter, leave, (enter != begin).view(np.uint8))
