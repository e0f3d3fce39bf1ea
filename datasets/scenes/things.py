"""The things in a room, part by part: tables, chairs, cabinets, lamps, balls, vases, ..."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain, count

import numpy as np

CLASSES = (
    "floor",
    "wall",
    "ceiling",
    "table",
    "chair",
    "cabinet",
    "lamp",
    "ball",
    "vase",
    "picture",
    "rug",
)
FLOOR, WALL, CEILING, TABLE, CHAIR, CABINET, LAMP, BALL, VASE, PICTURE, RUG = range(11)


class Draw:
    """Uniform scalars, drawn in blocks: one call of NumPy for each would be slow."""

    def __init__(self, rng: np.random.Generator) -> None:
        blocks = (rng.random(256).tolist() for _ in count())
        self._next: Callable[[], float] = chain.from_iterable(blocks).__next__

    def __call__(self, low: float, high: float) -> float:
        return low + (high - low) * self._next()

    def chance(self, share: float) -> bool:
        return self._next() < share

    def below(self, stop: int) -> int:
        return int(self._next() * stop)


@dataclass
class Thing:
    """One object around its foot: x to its right, z to its front; parts of two materials.

    boxes: centre, half extents, material. rounds: height of the centre, radius, half height,
    squeeze, bulge, material. shelves: level places for small things: centre, half extents x, z.
    radius: of the circle that it takes on the floor. span, back: half the width, and the distance
    from the foot to the back, of things at a wall. tall: height of its top.
    """

    label: int
    radius: float = 0.0
    span: float = 0.0
    back: float = 0.0
    tall: float = 0.0
    boxes: list[tuple[float, ...]] = field(default_factory=list)
    rounds: list[tuple[float, ...]] = field(default_factory=list)
    shelves: list[tuple[float, float, float, float, float]] = field(default_factory=list)

    def box(self, x: float, y: float, z: float, a: float, b: float, c: float, m: int = 0) -> None:
        self.boxes.append((x, y, z, a, b, c, m))

    def tube(self, bottom: float, top: float, radius: float, m: int = 0) -> None:
        half = (top - bottom) / 2
        self.rounds.append((bottom + half, radius, half, 0, 0, m))

    def bulb(
        self, bottom: float, top: float, radius: float, low: float, high: float, m: int = 0
    ) -> None:
        """An ellipsoid, cut to ``low`` to ``high`` of its height, which is -1 to 1."""
        half = (top - bottom) / 2
        squeeze, lift = (radius / half) ** 2, (high + low) / 2 * half
        shape = (radius, (high - low) / 2 * half, squeeze, -lift)
        self.rounds.append((bottom + half + lift, *shape, m))

    def legs(self, x: float, z: float, height: float, half: float, m: int = 1) -> None:
        for sx in (-1, 1):
            for sz in (-1, 1):
                self.box(sx * (x - half), height / 2, sz * (z - half), half, height / 2, half, m)


def table(draw: Draw) -> Thing:
    thing = Thing(TABLE)
    height = draw(0.38, 0.48) if draw.chance(0.3) else draw(0.66, 0.8)
    thing.tall = height
    top = draw(0.012, 0.025)
    if draw.chance(0.25):
        radius = draw(0.3, 0.55)
        thing.tube(height - 2 * top, height, radius)
        thing.tube(0.03, height - 2 * top, draw(0.025, 0.05), 1)
        thing.tube(0, 0.03, radius * 0.55, 1)
        thing.radius = radius
        thing.shelves.append((0, height, 0, radius * 0.65, radius * 0.65))
        return thing
    x, z = draw(0.35, 0.8), draw(0.28, 0.45)
    thing.box(0, height - top, 0, x, top, z)
    inset = draw(0.0, 0.06)
    half = draw(0.018, 0.034)
    thing.legs(x - inset, z - inset, height - 2 * top, half)
    if draw.chance(0.35):  # a board between the legs
        thing.box(0, draw(0.1, 0.3) * height, 0, x - inset - half, 0.012, z - inset - half, 1)
    elif draw.chance(0.5):  # a frame under the top
        for side in (-1, 1):
            y, rail = height - 2 * top - 0.04, z - inset - half
            thing.box(0, y, side * rail, x - inset - 2 * half, 0.04, half * 0.6, 1)
            thing.box(side * (x - inset - half), y, 0, half * 0.6, 0.04, rail - half, 1)
    thing.radius = math.hypot(x, z)
    thing.shelves.append((0, height, 0, x, z))
    return thing


def chair(draw: Draw) -> Thing:
    thing = Thing(CHAIR)
    half, seat, thick = draw(0.19, 0.24), draw(0.42, 0.5), draw(0.015, 0.035)
    leg = draw(0.013, 0.022)
    thing.legs(half, half, seat - 2 * thick, leg)
    thing.box(0, seat - thick, 0, half, thick, half)
    top = seat + draw(0.35, 0.55)
    middle, rise, back = (seat + top) / 2, (top - seat) / 2, -half + leg
    style = draw.below(3)
    if style == 0:
        thing.box(0, middle + 0.03, back, half, rise - 0.03, leg * 0.8)
    else:
        for side in (-1, 1):
            thing.box(side * (half - leg), middle, back, leg, rise, leg, 1)
    if style == 1:
        for rail in range(2 + draw.below(2)):
            y = top - 0.05 - 0.14 * rail
            thing.box(0, y, back, half - 2 * leg, 0.035, leg * 0.6)
    elif style == 2:
        thing.box(0, top - 0.03, back, half - 2 * leg, 0.03, leg * 0.8)
        for slat in (-0.45, 0.0, 0.45):
            thing.box(slat * half, middle - 0.03, back, 0.014, rise - 0.03, leg * 0.5)
    if draw.chance(0.2):
        for side in (-1, 1):
            x, y = side * (half - leg), seat + 0.2
            thing.box(x, y, 0, leg, 0.014, half, 1)
            thing.box(x, (seat + y) / 2, half - leg, leg, 0.1, leg, 1)
    thing.radius, thing.tall = half * 1.25, top
    return thing


def cabinet(draw: Draw) -> Thing:
    thing = Thing(CABINET)
    x, z = draw(0.3, 0.65), draw(0.15, 0.25)
    height = draw(0.7, 1.1) if draw.chance(0.5) else draw(1.3, 2.0)
    thing.radius, thing.span, thing.back, thing.tall = x, x, z, height
    foot = draw(0.08, 0.2) if draw.chance(0.4) else 0.0
    if foot:
        thing.legs(x, z, foot, 0.022)
    body, middle = (height - foot) / 2, (height + foot) / 2
    if draw.chance(0.5):  # open shelves
        thick = draw(0.012, 0.022)
        for side in (-1, 1):
            thing.box(side * (x - thick), middle, 0, thick, body, z)
        if draw.chance(0.5):
            thing.box(0, middle, -z + 0.008, x - 2 * thick, body, 0.008, 1)
        boards = 2 + int((height - foot) / draw(0.32, 0.48))
        for board in range(boards):
            y = foot + thick + board * (height - foot - 2 * thick) / (boards - 1)
            thing.box(0, y, 0, x - 2 * thick, thick, z)
            thing.shelves.append((0, y + thick, 0, x - 2 * thick, z - 0.02))
        return thing
    thing.box(0, middle, -0.01, x, body, z - 0.01)
    columns, rows = (2, 1) if draw.chance(0.5) else (1, 2 + draw.below(3))
    for column in range(columns):
        for row in range(rows):
            wide, tall = x / columns, body / rows
            at = (2 * column + 1) * wide - x
            y = foot + (2 * row + 1) * tall
            thing.box(at, y, z - 0.01, wide - 0.012, tall - 0.012, 0.012, 1)
            grip = at + (0.7 * wide if column == 0 else -0.7 * wide) * (columns - 1)
            thing.box(grip, y, z + 0.012, 0.012 + 0.04 * (columns == 1), 0.025, 0.014)
    thing.shelves.append((0, height, 0, x, z))
    return thing


def _shade(thing: Thing, draw: Draw, low: float, high: float, radius: float) -> None:
    if draw.chance(0.5):
        thing.tube(low, high, radius, 1)
    else:
        thing.bulb(2 * low - high, high, radius, draw(-0.2, 0.2), draw(0.75, 0.95), 1)


def floor_lamp(draw: Draw) -> Thing:
    height = draw(1.2, 1.65)
    thing = Thing(LAMP, 0.2, tall=height)
    thing.tube(0, 0.03, draw(0.12, 0.17))
    thing.tube(0.03, height, draw(0.013, 0.02))
    _shade(thing, draw, height - draw(0.18, 0.28), height + 0.04, draw(0.14, 0.23))
    return thing


def table_lamp(draw: Draw) -> Thing:
    foot, height = draw(0.08, 0.2), draw(0.34, 0.5)
    thing = Thing(LAMP, 0.12, tall=height)
    thing.bulb(0, foot, draw(0.05, 0.08), -0.8, 1)
    thing.tube(foot * 0.8, height, 0.011)
    _shade(thing, draw, height - draw(0.12, 0.17), height + 0.02, draw(0.09, 0.15))
    return thing


def pendant(draw: Draw) -> Thing:
    """A lamp whose foot is on the ceiling."""
    thing = Thing(LAMP, 0.25)
    drop = draw(0.35, 0.8)
    thing.tube(-drop, 0, 0.012)
    _shade(thing, draw, -drop - draw(0.12, 0.22), -drop, draw(0.14, 0.25))
    return thing


def ball(draw: Draw, low: float = 0.08, high: float = 0.24) -> Thing:
    radius = draw(low, high)
    thing = Thing(BALL, radius, tall=2 * radius)
    thing.bulb(0, 2 * radius, radius, -1, 1)
    return thing


def vase(draw: Draw, low: float = 0.2, high: float = 0.5) -> Thing:
    height = draw(low, high)
    radius = height * draw(0.2, 0.36)
    thing = Thing(VASE, radius, tall=height)
    style = draw.below(4)
    if style == 0:  # a bin
        thing.tube(0, height, radius * 0.8)
        thing.tube(height * 0.86, height * 0.92, radius * 0.84, 1)
    elif style == 1:  # a bottle
        thing.bulb(-0.1 * height, height * 0.66, radius, -0.73, 1)
        thing.tube(height * 0.5, height, radius * 0.32, 1)
    elif style == 2:  # a bowl on a foot
        thing.tube(0, height * 0.08, radius * 0.6)
        thing.tube(0.08 * height, height * 0.4, radius * 0.16)
        thing.bulb(height * 0.3, height * 1.5, radius, -1, draw(-0.1, 0.16), 1)
    else:  # a jar
        thing.bulb(-0.12 * height, height * 1.02, radius, -0.78, 0.72)
        thing.tube(height * 0.78, height, radius * 0.62, 1)
    return thing


def picture(draw: Draw, low: float = 0.15) -> Thing:
    """A framed picture; its foot is its middle, at the wall."""
    x, y = draw(low, 0.5), draw(low, 0.4)
    thing = Thing(PICTURE, x, span=x, tall=y)
    rim = draw(0.02, 0.05)
    thing.box(0, 0, 0.02, x, y, 0.02, 1)
    thing.box(0, 0, 0.03, x - rim, y - rim, 0.018)
    return thing


def rug(draw: Draw) -> Thing:
    thing = Thing(RUG)
    if draw.chance(0.3):
        thing.tube(-0.01, 0.012, draw(0.5, 1.0))
    else:
        x, z = draw(0.5, 1.1), draw(0.4, 0.8)
        thing.box(0, 0.005, 0, x, 0.005, z, 1)
        thing.box(0, 0.0053, 0, x - 0.07, 0.0053, z - 0.07)
    return thing
