"""The picture of a traced scene: textured surfaces, light and shadow, a sensor."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from datasets.scenes.trace import PLANES, Double, Float, Hits, Index, Scene

TEXTURES = 14
NOISE = 1 << 19
"""Length of the table of sensor noise; a picture's begins anywhere in its first half."""

_TILE = 128  # texels after which a texture repeats
_STEPS = 32  # between the two colours of a material
_FALL_OFF = 0.12  # of the point light, per square metre
_SLANT = 0.5  # by how much ambient light is brighter on faces towards the sky
_CORNER = 0.12  # metres from the room's edges over which ambient light fades in
_BIAS = 0.01  # metres, against shadows that touching things cast on each other

_RAMP = np.linspace(0, 1, _STEPS, dtype=np.float32)
# The planes of the room: axis of the normal, at which end of it, and rows as in ``_Faces.uv``.
_NORMALS, _ENDS = np.array([1, 1, 0, 0, 2, 2]), np.array([0, 1, 0, 1, 0, 1])
_UV = np.array(
    [[1, 1, 0, 0, 1, 1], [0, 0, 1, 1, 0, 0], [0] * 6, [0, 0, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]]
)


def shade(scene: Scene, hits: Hits) -> npt.NDArray[np.uint8]:
    """The picture [3, H, W], RGB."""
    face, faces = hits.face, _faces(scene)
    start = scene.camera.origin.astype(np.float32)
    point = [start[axis] + hits.depth * hits.rays[axis] for axis in range(3)]
    to_light = [np.float32(scene.light.position[axis]) - point[axis] for axis in range(3)]
    curved, normal = _curved(scene, faces, face, point)

    ambient = faces.sky.take(face)
    ambient[curved] = _dot(normal, [np.float32(value) for value in scene.sky])
    ambient *= np.float32(_SLANT)
    ambient += 1
    ambient *= _unoccluded(scene.room, point)

    # Lambert: cosine times distance, which is constant on a plane.
    direct = faces.height.take(face)
    direct[curved] = _dot(normal, [part[curved] for part in to_light])
    np.maximum(direct, 0, out=direct)
    square = _dot(to_light, to_light)
    direct /= np.sqrt(square) * (1 + np.float32(_FALL_OFF) * square)
    direct *= _unshadowed(hits, to_light)

    albedo = _albedo(faces, face, hits.depth, point)
    colours = _colours(scene)
    picture = np.empty((3, len(face)), np.float32)
    for channel in range(3):
        light = ambient * np.float32(scene.ambient[channel])
        light += direct * np.float32(scene.light.colour[channel])
        np.multiply(light, colours[channel].take(albedo), out=picture[channel])
    return _expose(scene, picture)


def _dot(first: Sequence[Float], second: Sequence[Float | np.float32]) -> Float:
    dot: Float = first[0] * second[0] + first[1] * second[1] + first[2] * second[2]
    return dot


@dataclass(frozen=True)
class _Faces:
    """What shading needs of the F faces (see ``Hits``); heights and cosines are of flat ones.

    height [F]: metres of the light above the plane. sky [F]: cosine to the sky. footprint [F]:
    texels in a pixel per squared metre of depth. uv [5, F]: texels per metre, of x and z for u, of
    x, y and z for v. texture, material [F]: row in the atlas, place in the colour table.
    rounds: the first face of round bodies.
    """

    height: Float
    sky: Float
    footprint: Float
    uv: Float
    texture: npt.NDArray[np.int32]
    material: Index
    rounds: int


def _faces(scene: Scene) -> _Faces:
    room, boxes, rounds = scene.room, scene.boxes, scene.rounds
    first = PLANES + 3 * boxes.shape[1]
    count = first + 2 * rounds.shape[1]
    eyes = np.array([scene.camera.origin, scene.light.position])
    heights, sky = np.zeros((2, count)), np.zeros(count)
    heights[:, :PLANES] = np.abs(eyes[:, _NORMALS] - _ENDS * room[_NORMALS])
    sky[:PLANES] = scene.sky[_NORMALS] * (1 - 2 * _ENDS)
    cos, sin = boxes[6], boxes[7]
    x, y, z = (eyes[:, :, None] - boxes[:3]).swapaxes(0, 1)
    sky_x, sky_y, sky_z = scene.sky
    axes = (
        (cos * x + sin * z, cos * sky_x + sin * sky_z),
        (y, sky_y),
        (cos * z - sin * x, cos * sky_z - sin * sky_x),
    )
    for axis, (offset, cosine) in enumerate(axes):
        sign = np.sign(offset[0])  # the camera sees only the side towards it
        heights[:, PLANES + axis : first : 3] = offset * sign - boxes[3 + axis]
        sky[PLANES + axis : first : 3] = cosine * sign
    x, y, z = (eyes[:, :, None] - rounds[:3]).swapaxes(0, 1)
    sign = np.sign(y[0])
    heights[:, first::2] = np.sqrt(x * x + y * y + z * z)
    heights[:, first + 1 :: 2] = y * sign - rounds[4]
    sky[first + 1 :: 2] = sky_y * sign

    # Textures lie along the edges of faces; on round sides they face the camera.
    uv = np.zeros((5, count))
    uv[:, :PLANES] = _UV
    uv[:2, PLANES:first:3] = -sin, cos
    uv[[0, 1, 2, 4], PLANES + 1 : first : 3] = cos, sin, -sin, cos
    uv[:2, PLANES + 2 : first : 3] = cos, sin
    uv[3, PLANES:first:3] = uv[3, PLANES + 2 : first : 3] = 1
    uv[:2, first::2] = scene.camera.axes[0, ::2, None]
    uv[3, first::2] = 1
    uv[[0, 4], first + 1 :: 2] = 1

    material = np.concatenate(
        [scene.plane_material, np.repeat(scene.box_material, 3), np.repeat(scene.round_material, 2)]
    )
    texels = scene.materials.texels[material]
    return _Faces(
        height=heights[1].astype(np.float32),
        sky=sky.astype(np.float32),
        footprint=(texels / (scene.camera.focal * np.maximum(heights[0], 0.01))).astype(np.float32),
        uv=(uv * texels).astype(np.float32),
        texture=(scene.materials.texture[material] * _TILE).astype(np.int32),
        material=material * _STEPS,
        rounds=first,
    )


def _curved(
    scene: Scene, faces: _Faces, face: Index, point: Sequence[Float]
) -> tuple[Index, Sequence[Float]]:
    """The pixels of round sides and their unit normals, x, y and z."""
    pixel = np.flatnonzero(face >= faces.rounds)
    body = face[pixel] - faces.rounds
    pixel, body = pixel[body % 2 == 0], body[body % 2 == 0] // 2
    centre = scene.rounds[:3].copy()
    centre[1] += scene.rounds[6]
    x, y, z = (point[axis][pixel] - centre[axis].astype(np.float32)[body] for axis in range(3))
    y *= scene.rounds[5].astype(np.float32)[body]
    length = np.sqrt(x * x + y * y + z * z)
    return pixel, (x / length, y / length, z / length)


def _unoccluded(room: Double, point: Sequence[Float]) -> Float:
    """Share [P] of the ambient light: less near the second nearest plane of the room."""
    gap = [np.minimum(point[axis], np.float32(room[axis]) - point[axis]) for axis in range(3)]
    low, high = np.minimum(gap[0], gap[1]), np.maximum(gap[0], gap[1])
    second = np.maximum(np.maximum(low, np.minimum(high, gap[2])), 0)
    share: Float = 1 - np.float32(0.6 * _CORNER) / (second + np.float32(_CORNER))
    return share


def _unshadowed(hits: Hits, to_light: Sequence[Float]) -> Float:
    """Share [P] of the direct light, between the four nearest texels of the shadow map."""
    side, (x, y) = hits.shadow.shape[0], hits.light_view.centre
    scale = np.float32(-hits.light_view.focal) / np.maximum(to_light[1], np.float32(0.05))
    u, v = to_light[0] * scale, to_light[2] * scale
    for place, centre in ((u, x), (v, y)):
        place += np.float32(centre - 0.5)
        np.maximum(place, 0, out=place)
        np.minimum(place, np.float32(side - 1.01), out=place)
    column, row = u.astype(np.int32), v.astype(np.int32)
    u -= column.astype(np.float32)
    v -= row.astype(np.float32)
    texel = (row * np.int32(side) + column).astype(np.intp)
    depth, shadow = to_light[1] - np.float32(_BIAS), hits.shadow.ravel()
    lit: list[Float] = [
        (shadow[shift:].take(texel) >= depth).astype(np.float32) for shift in (0, 1, side, side + 1)
    ]
    lit[0] += u * (lit[1] - lit[0])
    lit[2] += u * (lit[3] - lit[2])
    lit[0] += v * (lit[2] - lit[0])
    return lit[0]


def _albedo(faces: _Faces, face: Index, depth: Float, point: Sequence[Float]) -> Index:
    """Index [P] into the colour table: the material and how far between its colours."""
    x, y, z = point
    size = depth * depth * faces.footprint.take(face)
    mip = (size > 1).view(np.uint8) + (size > 2) + (size > 4) + (size > 8)
    row = mip * np.int32(TEXTURES * _TILE) + faces.texture.take(face)
    uv = [coefficient.take(face) for coefficient in faces.uv]
    # The offset keeps u and v positive, where the cast to integers rounds down.
    u = x * uv[0] + z * uv[1] + np.float32(32 * _TILE)
    v = x * uv[2] + y * uv[3] + z * uv[4] + np.float32(32 * _TILE)
    row += v.astype(np.int32) & (_TILE - 1)
    texel = row * np.int32(_TILE) + (u.astype(np.int32) & (_TILE - 1))
    colour: Index = faces.material.take(face) + _atlas().take(texel)
    return colour


def _colours(scene: Scene) -> Float:
    """Linear RGB [3, M * steps] of the materials."""
    first, second = scene.materials.colours.transpose(1, 2, 0)[..., None].astype(np.float32)
    colours: Float = first + (second - first) * _RAMP
    return colours.reshape(3, -1)


def _expose(scene: Scene, picture: Float) -> npt.NDArray[np.uint8]:
    """Gain, encoding and noise. A square root encodes, so that shot noise is even."""
    mean = float(picture[:, ::7].mean(dtype=np.float64))
    gain = scene.exposure**2 / max(mean, 1e-6) * scene.white_balance
    picture *= gain.astype(np.float32)[:, None]
    np.sqrt(picture, out=picture)
    deviation, first = scene.noise
    noise = _noise()[first : first + picture.size] * np.float32(deviation)
    if noise.size < picture.size:
        noise = np.resize(noise, picture.size)
    picture += noise.reshape(picture.shape)
    picture *= 255
    np.maximum(picture, 0, out=picture)
    np.minimum(picture, 255, out=picture)
    return picture.astype(np.uint8).reshape(3, *scene.camera.size)


@lru_cache(maxsize=1)
def _noise() -> Float:
    return np.random.Generator(np.random.PCG64(11)).standard_normal(NOISE, np.float32)


@lru_cache(maxsize=1)
def _atlas() -> npt.NDArray[np.uint8]:
    """Steps between the two colours, flat from [mip level, texture, v, u]."""
    rng = np.random.Generator(np.random.PCG64(7))
    line = np.arange(_TILE)
    row, column = line[:, None], line[None, :]

    def noise(cells: int, octaves: int) -> Double:
        total = np.zeros((_TILE, _TILE))
        for octave in range(octaves):
            knots = cells << octave
            place = line * knots / _TILE
            low = place.astype(np.intp)
            high, part = (low + 1) % knots, (place - low) ** 2 * (3 - 2 * (place - low))
            values = rng.random((knots, knots))
            rows = values[low] + (values[high] - values[low]) * part[:, None]
            total += (rows[:, low] + (rows[:, high] - rows[:, low]) * part) / 2**octave
        total -= total.min()
        return np.asarray(total / total.max())

    grain, cloud = noise(16, 3), noise(4, 4)
    fibre = noise(32, 2)[:, line // 8]
    board = rng.random(8)[row // 16]
    planks = np.where(row % 16 == 0, 1, 0.55 * board + 0.3 * fibre)
    tile = rng.random((4, 4))[row // 32, column // 32]
    tiles = np.where((row % 32 < 2) | (column % 32 < 2), 1, 0.25 * tile + 0.1 * grain)
    shifted = column + row // 16 % 2 * 16
    brick = rng.random((8, 4))[row // 16, shifted // 32 % 4]
    bricks = np.where((row % 16 < 2) | (shifted % 32 < 2), 1, 0.35 * brick + 0.2 * grain)
    radius = (row % 32 - 15.5) ** 2 + (column % 32 - 15.5) ** 2
    textures = [
        0.1 * grain,
        grain,
        cloud,
        np.abs(2 * cloud - 1) ** 0.5,  # veins
        planks,
        planks.T,
        tiles,
        (row // 32 + column // 32) % 2 * 0.9 + 0.1 * grain,  # squares, stripes, dots
        column // 16 % 2 * 0.9 + 0.1 * grain,
        row // 8 % 2 * 0.9 + 0.1 * grain,
        (row + column) // 16 % 2 * 0.9 + 0.1 * grain,
        (radius < 90) * 0.9 + 0.1 * grain,
        bricks,
        (row // 4 + column // 4) % 2 * 0.5 + 0.5 * fibre.T,  # cloth
    ]
    level: Double = np.stack([np.broadcast_to(texture, (_TILE, _TILE)) for texture in textures])
    levels = [level]
    for reach in (1, 2, 4, 8):
        for axis in (1, 2):
            level = (level + np.roll(level, -reach, axis)) / 2
        levels.append(level)
    return np.rint(np.stack(levels) * (_STEPS - 1)).astype(np.uint8).ravel()
