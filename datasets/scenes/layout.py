"""A furnished room from random numbers: what stands where, the hero, light, colours, the camera."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from datasets.scenes.shade import NOISE, TEXTURES
from datasets.scenes.things import (
    BALL,
    CABINET,
    CEILING,
    FLOOR,
    PICTURE,
    VASE,
    WALL,
    Draw,
    Thing,
    ball,
    cabinet,
    chair,
    floor_lamp,
    pendant,
    picture,
    rug,
    table,
    table_lamp,
    vase,
)
from datasets.scenes.trace import Double, Light, Materials, Scene, View

_CLEARANCE = 0.65  # metres around the camera that stay free: depths stay above 0.3 m
_WALL_GAP = 0.55  # metres from the camera to the walls
_PERIPHERY = math.radians(14)  # off the viewing axis; small vivid things stand beyond
_TURNS = ((0.0, -1.0), (0.0, 1.0), (1.0, 0.0), (-1.0, 0.0))  # from each wall into the room
_HEROES: tuple[tuple[Callable[[Draw], Thing], float, float], ...] = (
    (table, 1.5, 3.0),
    (chair, 1.2, 2.4),
    (floor_lamp, 1.1, 2.2),
    (partial(ball, low=0.16, high=0.32), 1.0, 1.9),
    (partial(vase, low=0.45, high=0.75), 1.0, 1.9),
    (cabinet, 1.6, 3.6),
    (partial(picture, low=0.3), 2.2, 3.6),
)  # maker, least and greatest distance in metres at which a hero fills enough of the picture

Pose = tuple[float, float, float, float, float]  # of the foot: x, y, z; cosine, sine of the turn


def furnish(rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """A room for a picture of ``size`` (height, width)."""
    room = _Room(Draw(rng), size)
    hero, pitch = _place_hero(room)
    _place_furniture(room)
    _place_small_things(room)
    return _finish(rng, room, hero, pitch)


class _Room:
    """A room being furnished. Angles are bearings from where the camera looks, seen from above."""

    def __init__(self, draw: Draw, size: tuple[int, int]) -> None:
        self.draw, self.size = draw, size
        self.width, self.height, self.length = draw(3.2, 6.0), draw(2.3, 3.0), draw(3.2, 6.0)
        heading = draw(0, 2 * math.pi)
        self.ahead = (math.cos(heading), math.sin(heading))
        self.focal = max(size) / 2 / math.tan(math.radians(draw(58, 66)) / 2)
        self.half_view = math.atan(size[1] / 2 / self.focal)  # from the middle to either side
        self.half_rise = math.atan(size[0] / 2 / self.focal)
        # Back from about the middle of the room, so that most of it lies ahead.
        x, z = self.width * draw(0.4, 0.6), self.length * draw(0.4, 0.6)
        back = self.wall_ahead(x, z, -self.ahead[0], -self.ahead[1])[0] * draw(0.5, 0.95)
        self.x = min(max(x - back * self.ahead[0], _WALL_GAP), self.width - _WALL_GAP)
        self.z = min(max(z - back * self.ahead[1], _WALL_GAP), self.length - _WALL_GAP)
        self.eye = draw(1.3, 1.6)
        self.labels = [FLOOR, CEILING, WALL, WALL, WALL, WALL]
        self.vivid: list[int] = []
        self.boxes: list[tuple[float, ...]] = []
        self.rounds: list[tuple[float, ...]] = []
        self.taken = [(self.x, self.z, _CLEARANCE)]  # circles on the floor: x, z, radius
        self.walls: list[tuple[float, float, float]] = []  # taken along the walls: x, z, half width
        self.stands: list[tuple[Thing, Pose]] = []  # with room for small things
        self.hero_view = (0.0, 0.0, 0.0)  # distance, bearing, half angle

    def wall_ahead(self, x: float, z: float, dx: float, dz: float) -> tuple[float, int]:
        """Distance from (x, z) to the wall in the direction (dx, dz), and which wall it is."""
        to_x = ((self.width if dx > 0 else 0) - x) / dx if dx else math.inf
        to_z = ((self.length if dz > 0 else 0) - z) / dz if dz else math.inf
        return (to_x, int(dx > 0)) if to_x < to_z else (to_z, 2 + int(dz > 0))

    def reach(self, bearing: float) -> tuple[float, int]:
        """Distance from the camera to the wall, and which wall it is."""
        return self.wall_ahead(self.x, self.z, *self.toward(bearing))

    def toward(self, bearing: float) -> tuple[float, float]:
        (x, z), cos, sin = self.ahead, math.cos(bearing), math.sin(bearing)
        return x * cos - z * sin, z * cos + x * sin

    def at(self, bearing: float, distance: float) -> tuple[float, float]:
        dx, dz = self.toward(bearing)
        return self.x + distance * dx, self.z + distance * dz

    def bearing(self, x: float, z: float) -> float:
        (ahead_x, ahead_z), x, z = self.ahead, x - self.x, z - self.z
        return math.atan2(z * ahead_x - x * ahead_z, x * ahead_x + z * ahead_z)

    def any_bearing(self) -> float:
        return self.draw(-1.05, 1.05) * self.half_view

    def step(self, bearing: float, distance: float) -> bool:
        """Move the camera, unless that brings it too near to a wall."""
        x, z = self.at(bearing, distance)
        gap = min(x, z, self.width - x, self.length - z)
        if gap >= _WALL_GAP:
            self.x, self.z = x, z
            self.taken[0] = (x, z, _CLEARANCE)
        return gap >= _WALL_GAP

    def turn(self) -> tuple[float, float]:
        """Cosine and sine of a turn, every other time about along the walls."""
        angle = self.draw(0, 2 * math.pi)
        if self.draw.chance(0.5):
            angle = round(angle / (math.pi / 2)) * math.pi / 2 + self.draw(-0.15, 0.15)
        return math.cos(angle), math.sin(angle)

    def free(self, x: float, z: float, radius: float, wall: float) -> bool:
        """Whether a circle is ``wall`` from the walls, clear of others and not before the hero."""
        if not (wall < x < self.width - wall and wall < z < self.length - wall):
            return False
        for a, b, other in self.taken:
            if (x - a) ** 2 + (z - b) ** 2 < (radius + other) ** 2:
                return False
        distance, bearing, half = self.hero_view
        away = math.hypot(x - self.x, z - self.z)
        hides = away < distance and abs(self.bearing(x, z) - bearing) < half + radius / away
        return not hides or self.draw.chance(0.15)

    def spot(self, radius: float) -> tuple[float, float] | None:
        """Centre of a free circle in view; None if a few tries find none."""
        near = _CLEARANCE + radius
        for _ in range(6):
            bearing = self.any_bearing()
            far = self.reach(bearing)[0] - radius
            if far > near:
                x, z = self.at(bearing, near + (far - near) * math.sqrt(self.draw(0, 1)))
                if self.free(x, z, radius, radius):
                    return x, z
        return None

    def hang(self, thing: Thing, bearing: float, y: float) -> Pose:
        """The pose of ``thing`` with its back to the wall in a direction, its foot at height y."""
        distance, side = self.reach(bearing)
        x, z = self.at(bearing, distance)
        half, out = thing.span + 0.02, thing.back + 0.005
        if side < 2:
            x, z = (out, self.width - out)[side], min(max(z, half), self.length - half)
        else:
            x, z = min(max(x, half), self.width - half), (out, self.length - out)[side - 2]
        return x, y, z, *_TURNS[side]

    def wall_free(self, thing: Thing, pose: Pose) -> bool:
        return all(math.hypot(pose[0] - x, pose[2] - z) > thing.span + w for x, z, w in self.walls)

    def add(self, thing: Thing, pose: Pose, vivid: bool = False) -> int:
        """Put the parts of a thing into the room; returns its instance."""
        x, y, z, cos, sin = pose
        instance = len(self.labels)
        self.labels.append(thing.label)
        if vivid:
            self.vivid.append(instance)
        if thing.shelves:
            self.stands.append((thing, pose))
        for a, b, c, *half, material in thing.boxes:
            centre = (x + cos * a - sin * c, y + b, z + sin * a + cos * c)
            self.boxes.append((*centre, *half, cos, sin, instance, 2 * instance + material))
        for height, *shape, material in thing.rounds:
            self.rounds.append((x, y + height, z, *shape, instance, 2 * instance + material))
        return instance


def _place_hero(room: _Room) -> tuple[int, float]:
    """Place the hero near the viewing axis; returns its instance and a pitch towards it."""
    draw = room.draw
    while True:
        maker, near, far = _HEROES[draw.below(len(_HEROES))]
        thing, bearing = maker(draw), draw(-0.25, 0.25) * room.half_view
        reach, _ = room.reach(bearing)
        if thing.label in (CABINET, PICTURE):
            distance = thing.back + draw(near, far)
            if reach < thing.back + near or not room.step(bearing, max(reach - distance, 0)):
                continue
            distance = min(reach, distance)
            pose = room.hang(thing, bearing, draw(1.1, 1.7) if thing.label == PICTURE else 0)
            if abs(room.bearing(pose[0], pose[2])) > 0.5 * room.half_view:
                continue  # moved aside by a corner
            room.walls.append((pose[0], pose[2], thing.span))
            radius = thing.radius
            break
        stand = table(draw) if thing.label in (BALL, VASE) and draw.chance(0.4) else None
        radius = (stand or thing).radius
        near, far = max(near, _CLEARANCE + radius), min(far, reach - radius)
        distance = draw(near, far)
        x, z = room.at(bearing, distance)
        if near < far and room.free(x, z, radius, radius):
            pose = (x, stand.tall if stand else 0, z, *room.turn())
            if stand:
                room.add(stand, (x, 0, z, *room.turn()))
                room.stands.clear()  # nothing else on it
            break
    if thing.label != PICTURE:
        room.taken.append((pose[0], pose[2], radius))
    bearing = room.bearing(pose[0], pose[2])
    room.hero_view = (distance, bearing, 0.7 * thing.radius / distance)
    middle = pose[1] + (0 if thing.label == PICTURE else thing.tall / 2)
    drop = math.atan2(room.eye - middle, distance)
    pitch = min(max(drop + draw(-0.45, 0.3) * room.half_rise, -0.15), 0.6)
    return room.add(thing, pose, vivid=True), max(pitch, drop - 0.6 * room.half_rise)


def _place_furniture(room: _Room) -> None:
    draw = room.draw
    for _ in range(1 + draw.below(2)):
        thing = table(draw)
        spot = room.spot(thing.radius)
        if spot:
            pose = (spot[0], 0.0, spot[1], *room.turn())
            if thing.tall > 0.6:
                _place_chairs(room, thing, pose)
            room.taken.append((*spot, thing.radius))
            room.add(thing, pose)
    for maker, share in ((chair, 0.6), (chair, 0.3), (floor_lamp, 0.6)):
        thing = maker(draw)
        spot = room.spot(thing.radius) if draw.chance(share) else None
        if spot:
            room.taken.append((*spot, thing.radius))
            room.add(thing, (spot[0], 0, spot[1], *room.turn()))
    for _ in range(1 + draw.below(2)):
        thing = cabinet(draw)
        pose = room.hang(thing, room.any_bearing(), 0)
        x, _, z, *_ = pose
        if room.free(x, z, thing.radius, 0) and room.wall_free(thing, pose):
            room.taken.append((x, z, thing.radius))
            if thing.tall > 1.1:
                room.walls.append((x, z, thing.span))
            room.add(thing, pose)
    for _ in range(1 + draw.below(4)):
        thing = picture(draw)
        pose = room.hang(thing, room.any_bearing(), draw(1.3, 1.8))
        if room.wall_free(thing, pose):
            room.walls.append((pose[0], pose[2], thing.span))
            room.add(thing, pose)
    if draw.chance(0.65):
        x, z = room.at(0.5 * room.any_bearing(), draw(1.2, 2.8))
        x, z = min(max(x, 1.2), room.width - 1.2), min(max(z, 1.2), room.length - 1.2)
        room.add(rug(draw), (x, 0, z, *room.turn()))
    if draw.chance(0.35):
        thing = pendant(draw)
        spot = room.spot(thing.radius)
        if spot:
            room.add(thing, (spot[0], room.height, spot[1], 1, 0))


def _place_chairs(room: _Room, thing: Thing, pose: Pose) -> None:
    """Place up to three chairs that face a table, whose own circle is not yet taken."""
    draw, (x, _, z, cos, sin) = room.draw, pose
    _, _, _, half_x, half_z = thing.shelves[0]
    for _ in range(draw.below(4)):
        seat = chair(draw)
        quarter = draw.below(4)
        out = (half_x if quarter % 2 else half_z) + draw(0.1, 0.4)
        away_x, away_z = ((-sin, cos), (cos, sin), (sin, -cos), (-cos, -sin))[quarter]
        at_x, at_z = x + out * away_x, z + out * away_z
        if room.free(at_x, at_z, seat.radius, seat.radius):
            room.taken.append((at_x, at_z, seat.radius))
            room.add(seat, (at_x, 0, at_z, -away_z, away_x))


def _place_small_things(room: _Room) -> None:
    """Place balls, vases and lamps; up to two of them are vivid distractors."""
    draw = room.draw

    def put(thing: Thing, x: float, y: float, z: float) -> None:
        aside = abs(room.bearing(x, z)) > _PERIPHERY and thing.radius < 0.11
        distractor = aside and len(room.vivid) < 3 and draw.chance(0.25)
        room.add(thing, (x, y, z, *room.turn()), distractor)

    for stand, (x, y, z, cos, sin) in list(room.stands):
        for number, (a, b, c, half_x, half_z) in enumerate(stand.shelves):
            last = number + 1 == len(stand.shelves)
            headroom = 9.0 if last else stand.shelves[number + 1][1] - b - 0.05
            if last and stand.tall > 1.6:
                continue
            slots = max(1, int(half_x / 0.17))
            step = half_x / slots
            for slot in range(slots):
                if not draw.chance(0.5):
                    continue
                limit = min(step, half_z) * 0.95
                if headroom > 1 and limit > 0.12 and draw.chance(0.3):
                    thing = table_lamp(draw)
                elif draw.chance(0.4):
                    thing = ball(draw, 0.035, min(limit, headroom / 2, 0.12))
                else:
                    thing = vase(draw, 0.1, min(limit / 0.36, headroom, 0.32))
                a = (2 * slot + 1) * step - half_x
                put(thing, x + cos * a - sin * c, y + b, z + sin * a + cos * c)
    for maker in (ball, ball, ball, vase, vase):
        thing = maker(draw)
        spot = room.spot(thing.radius) if draw.chance(0.7) else None
        if spot:
            room.taken.append((*spot, thing.radius))
            put(thing, spot[0], 0, spot[1])


def _finish(rng: np.random.Generator, room: _Room, hero: int, pitch: float) -> Scene:
    """The scene with its camera, lights and materials."""
    draw = room.draw
    extent = np.array([room.width, room.height, room.length])
    place = (draw(0.1, 0.9), 1 - draw(0.05, 0.25), draw(0.1, 0.9))
    tint = np.array([draw(0.9, 1.15), 1.0, draw(0.75, 1.1)])
    sky = np.array([draw(-1, 1), draw(-0.2, 1), draw(-1, 1)])
    boxes = np.array(room.boxes).reshape(-1, 10).T
    rounds = np.array(room.rounds).reshape(-1, 9).T
    return Scene(
        room=extent,
        camera=_camera(room, pitch, draw(-0.06, 0.06)),
        boxes=boxes[:8],
        box_owner=boxes[8].astype(np.intp),
        box_material=boxes[9].astype(np.intp),
        rounds=rounds[:7],
        round_owner=rounds[7].astype(np.intp),
        round_material=rounds[8].astype(np.intp),
        plane_material=np.array([0, 2, 4, 4, 4, 4 if draw.chance(0.7) else 5]),
        labels=np.array(room.labels, np.uint8),
        hero=hero,
        distractors=tuple(instance for instance in room.vivid if instance != hero),
        materials=_materials(rng, len(room.labels), room.vivid),
        light=Light(extent * place, tint),
        sky=sky / math.sqrt(sky @ sky),
        ambient=draw(0.2, 0.6) * np.array([draw(0.9, 1.1), 1.0, draw(0.9, 1.1)]),
        white_balance=np.array([draw(0.9, 1.1), 1.0, draw(0.9, 1.1)]),
        exposure=draw(0.42, 0.6),
        noise=(draw(0.004, 0.02), draw.below(NOISE // 2)),
    )


def _camera(room: _Room, pitch: float, roll: float) -> View:
    x, z = room.ahead
    down = np.array([-x * math.sin(pitch), -math.cos(pitch), -z * math.sin(pitch)])
    right = np.array([z, 0, -x])
    forward = np.array([x * math.cos(pitch), -math.sin(pitch), z * math.cos(pitch)])
    cos, sin = math.cos(roll), math.sin(roll)
    axes = np.array([cos * right + sin * down, cos * down - sin * right, forward])
    height, width = room.size
    origin = np.array([room.x, room.eye, room.z])
    return View(origin, axes, room.focal, (width / 2, height / 2), room.size)


def _materials(rng: np.random.Generator, instances: int, vivid: list[int]) -> Materials:
    """Two materials for each instance, drawn alike for all classes: muted, or vivid for a few."""
    count = 2 * instances
    loud = np.zeros(count, np.bool_)
    for instance in vivid:
        loud[2 * instance : 2 * instance + 2] = True
    draws = rng.random((9, count))
    hue = np.array([draws[0], draws[0] + 0.15 * (draws[1] - 0.5)])
    saturation = np.where(loud, 0.75 + 0.25 * draws[2:4], 0.36 * draws[2:4])
    value = np.where(loud, 0.65 + 0.35 * draws[4], 0.3 + 0.65 * draws[4])
    second = np.minimum(np.maximum(value * (0.6 + 0.65 * draws[5]), 0.12), 1)
    # Red, green and blue of hue, saturation and value; the square decodes them to linear light.
    sector = (np.array([5, 3, 1])[:, None, None] + 6 * hue) % 6
    fade = np.minimum(np.maximum(np.minimum(sector, 4 - sector), 0), 1)
    colours: Double = (np.array([value, second]) * (1 - saturation * fade)) ** 2
    texture = (draws[6] * TEXTURES).astype(np.intp)
    texture[draws[7] < 0.4] = 0
    return Materials(colours.transpose(2, 1, 0), texture, 2 ** (5.7 + 2.2 * draws[8]))
