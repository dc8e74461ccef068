"""The layout of a random street in metres, as seen from a car; it does not depend on the size of the image.

X points right, Y up, Z ahead; the road's centre line is X = 0, the ground Y = 0, and the camera stands at Z = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks along Z."""

    x: float
    y: float
    focal: float
    """Focal length in half widths of the image."""
    shift: float
    """Horizontal position of the vanishing point, in half widths right of the centre."""
    horizon: float
    """Height of the horizon as a share of the image, from the top."""


@dataclass(frozen=True)
class Street:
    """The ground plan. Left and right have the same widths."""

    kerb: float
    """Distance of the kerbs from the centre line."""
    facade: float
    """Distance of the building line from the centre line."""
    end: float
    """Z of the row of buildings that closes the street."""
    crossings: tuple[tuple[float, float], ...]
    """Z ranges of cross streets."""
    parking: bool
    zebra: bool


@dataclass(frozen=True)
class Building:
    """A box with an optional sloping roof; its near corner on the street is (side * line, 0, near)."""

    side: int
    """-1 left, 1 right, 0 across the end of the street."""
    line: float
    near: float
    far: float
    height: float
    roof: float
    """Height of the sloping roof above the eaves."""
    left: float = 0.0
    right: float = 0.0
    """X range of a building across the end of the street."""
    ground_floor: float = 3.8
    floor: float = 3.2
    bay: float = 2.4
    shop: bool = False


@dataclass(frozen=True)
class Tree:
    """A tree at (x, z): a trunk with a crown around it, in metres."""

    x: float
    z: float
    height: float
    trunk: float
    """Height where the crown begins."""
    radius: float
    blobs: np.ndarray = field(repr=False)
    """Leaf masses, float32 [n, 3]: x, y, radius in a box of [-1, 1] by [0, 1], radius in half widths."""


@dataclass(frozen=True)
class Car:
    """A car on the road or parked, in metres."""

    x: float
    z: float
    """Centre of the footprint."""
    heading: float
    """Angle of the nose from Z towards X, in radians."""
    body: str
    length: float
    width: float
    height: float


@dataclass(frozen=True)
class Person:
    """Somebody who stands or walks at (x, z), in metres."""

    x: float
    z: float
    height: float
    facing: int
    """-1 walks to the left, 1 to the right, 0 towards the camera, 2 away from it."""
    stride: float
    """Swing of the legs, -1 to 1."""
    coat: float
    """Lower hem of the coat as a share of the height."""
    hair: float
    skin: float


@dataclass(frozen=True)
class Pole:
    """A post at (x, z), in metres."""

    x: float
    z: float
    height: float
    kind: str
    """lamp, sign or light (a traffic light)."""


Thing = Tree | Car | Person | Pole


@dataclass(frozen=True)
class SceneLayout:
    """Everything in a scene, without its looks. Things are sorted from near to far."""

    camera: Camera
    street: Street
    buildings: tuple[Building, ...]
    things: tuple[Thing, ...]


def lay_out(rng: np.random.Generator) -> SceneLayout:
    """Draw a street and what stands in it."""
    parking = bool(rng.random() < 0.75)
    kerb = rng.uniform(3.2, 3.9) + (2.2 if parking else rng.uniform(0, 0.6))
    facade = kerb + rng.uniform(3.0, 5.2)
    end = rng.uniform(95, 190)
    street = Street(kerb, facade, end, _crossings(rng, end), parking, bool(rng.random() < 0.7))
    camera = Camera(
        x=rng.uniform(1.0, 1.9),
        y=rng.uniform(1.65, 2.3),
        focal=rng.uniform(1.2, 1.5),
        shift=rng.uniform(-0.18, 0.14),
        horizon=rng.uniform(0.45, 0.53),
    )
    buildings = [*_row(rng, street, -1), *_row(rng, street, 1), *_closing_row(rng, street)]
    things: list[Thing] = [*_cars(rng, street, camera), *_kerbside(rng, street), *_people(rng, street)]
    things.sort(key=_nearest)
    return SceneLayout(camera, street, tuple(buildings), tuple(things))


def _nearest(thing: Thing) -> float:
    """Depth that decides which of two things hides the other: for a car its nearer end.

    What stands next to a car on the pavement is hidden by it, since the camera looks from the road.
    """
    if isinstance(thing, Car):
        return thing.z - 0.5 * max(thing.length * abs(math.cos(thing.heading)), thing.width)
    return thing.z - 0.3 if isinstance(thing, Person) else thing.z


def _crossings(rng: np.random.Generator, end: float) -> tuple[tuple[float, float], ...]:
    crossings: list[tuple[float, float]] = []
    near = rng.uniform(16, 60)
    while near < end - 40 and len(crossings) < 3:
        crossings.append((near, near + rng.uniform(8, 13)))
        near = crossings[-1][1] + rng.uniform(40, 90)
    return tuple(crossings) if rng.random() < 0.85 else ()


def _row(rng: np.random.Generator, street: Street, side: int) -> list[Building]:
    """One side of the street, near to far. Starts behind the camera: those buildings still throw shadows."""
    buildings = []
    typical = rng.uniform(7, 13)
    near = -45.0
    while near < street.end - 8:
        far = near + rng.uniform(8, 19)
        for start, stop in street.crossings:
            if near < start + 3.0 and far > start - 5.0:
                far = start - 2.0 if near < start - 6.0 else far
            if start - 6.0 <= near < stop + 3.0:
                near, far = stop + 2.5, stop + 2.5 + rng.uniform(9, 18)
        floor = rng.uniform(2.9, 3.4)
        ground_floor = rng.uniform(3.4, 4.2)
        floors = max(1, round((typical * rng.uniform(0.65, 1.5) - ground_floor) / floor))
        bays = max(2, round((far - near) / rng.uniform(2.1, 3.0)))
        buildings.append(
            Building(
                side=side,
                line=street.facade + (rng.uniform(0.5, 2.5) if rng.random() < 0.2 else 0.0),
                near=near,
                far=far,
                height=ground_floor + floors * floor + 0.7,
                roof=rng.uniform(1.8, 3.4) if rng.random() < 0.6 else 0.0,
                ground_floor=ground_floor,
                floor=floor,
                bay=(far - near) / bays,
                shop=bool(rng.random() < 0.6),
            )
        )
        near = far
    return buildings


def _closing_row(rng: np.random.Generator, street: Street) -> list[Building]:
    buildings = []
    left = -rng.uniform(60, 70)
    while left < 60:
        right = left + rng.uniform(12, 26)
        floors = int(rng.integers(2, 6)) + (int(rng.integers(3, 9)) if rng.random() < 0.15 else 0)
        height = 3.8 + 3.2 * floors + 0.7
        roof = rng.uniform(2, 5) if rng.random() < 0.6 else 0.0
        bay = (right - left) / round((right - left) / 2.6)
        buildings.append(Building(0, 0.0, street.end, street.end + 20, height, roof, left, right, bay=bay))
        left = right
    return buildings


def _in_crossing(street: Street, z: float, margin: float) -> bool:
    return any(start - margin < z < stop + margin for start, stop in street.crossings)


def _cars(rng: np.random.Generator, street: Street, camera: Camera) -> list[Car]:
    cars = []
    if street.parking:
        for side in (-1, 1):
            z = rng.uniform(7.5, 12)
            density = rng.uniform(0.35, 0.85)
            while z < 75:
                if rng.random() < density and not _in_crossing(street, z, 6.5):
                    turned = rng.random() < 0.15
                    heading = 0.0 if (side > 0) != turned else np.pi
                    cars.append(_car(rng, side * (street.kerb - 1.12), z, heading + rng.normal(0, 0.012)))
                z += rng.uniform(5.6, 7.4)
    lane = (street.kerb - (2.2 if street.parking else 0.0)) / 2
    if rng.random() < 0.6:
        cars.append(_car(rng, lane + rng.normal(0, 0.1), rng.uniform(11, 34), 0.0))
    z = rng.uniform(11, 40)
    for _ in range(int(rng.integers(0, 3))):
        cars.append(_car(rng, -lane + rng.normal(0, 0.12), z, np.pi))
        z += rng.uniform(10, 40)
    for start, stop in street.crossings:
        if rng.random() < 0.5:
            to_right = rng.random() < 0.5
            place = (start + 2.4 if to_right else stop - 2.4) + rng.normal(0, 0.2)
            x = rng.choice((-1, 1)) * rng.uniform(0, street.facade + 6)
            if all(abs(car.z - place) > 5 or abs(car.x - x) > 4.5 for car in cars):
                cars.append(_car(rng, x, place, np.pi / 2 if to_right else -np.pi / 2))
    return [car for car in cars if car.z > 7 or abs(car.x - camera.x) > 2.5]


def _car(rng: np.random.Generator, x: float, z: float, heading: float) -> Car:
    body = str(rng.choice(("saloon", "hatchback", "wagon", "van")))
    length, width, height = {
        "saloon": (4.6, 1.8, 1.44),
        "hatchback": (4.0, 1.74, 1.5),
        "wagon": (4.6, 1.86, 1.66),
        "van": (4.9, 1.94, 1.98),
    }[body]
    scale = rng.uniform(0.96, 1.04)
    return Car(float(x), z, float(heading), body, length * scale, width * scale, height * scale)


def _kerbside(rng: np.random.Generator, street: Street) -> list[Thing]:
    """Trees and poles in one line, a little behind the kerb."""
    things: list[Thing] = []
    for side in (-1, 1):
        z = rng.uniform(7, 14)
        leafy = rng.choice((0.15, 0.5, 0.85), p=(0.3, 0.35, 0.35))
        while z < min(street.end - 10, 110):
            x = side * (street.kerb + rng.uniform(0.7, 1.0))
            if not _in_crossing(street, z, 2.5):
                if rng.random() < leafy:
                    things.append(_tree(rng, x, z))
                elif rng.random() < 0.6:
                    kind = str(rng.choice(("lamp", "sign"), p=(0.7, 0.3)))
                    height = rng.uniform(5.2, 7.0) if kind == "lamp" else rng.uniform(2.6, 3.1)
                    things.append(Pole(side * (street.kerb + 0.5), z, height, kind))
            z += rng.uniform(6.0, 11.0)
        for start, _ in street.crossings:
            if rng.random() < 0.5:
                things.append(Pole(side * (street.kerb + 0.6), start - 2.6, 3.3, "light"))
    return things


def _tree(rng: np.random.Generator, x: float, z: float) -> Tree:
    height = rng.uniform(5.0, 9.5)
    radius = height * rng.uniform(0.24, 0.4)
    count = int(rng.integers(13, 20))
    angle, spread = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.uniform(0, 1, count))
    reach = rng.uniform(0.24, 0.4, count)
    squeeze = 1 - rng.uniform(0, 0.35) * np.sin(angle).clip(0)
    blobs = np.stack(
        [np.cos(angle) * spread * (1 - reach) * squeeze, 0.5 + 0.5 * np.sin(angle) * spread * (1 - reach), reach],
        axis=1,
    )
    core = np.array([[0.0, 0.5, 0.55], [0.0, 0.34, 0.45], [0.0, 0.68, 0.42]])
    return Tree(x, z, height, height * rng.uniform(0.24, 0.34), radius, np.vstack([core, blobs]).astype(np.float32))


def _people(rng: np.random.Generator, street: Street) -> list[Person]:
    people = []
    for _ in range(int(rng.integers(3, 12))):
        z = 6.5 + 34 * rng.random() ** 1.5
        side = 1 if rng.random() < 0.5 else -1
        x = side * rng.uniform(street.kerb + 1.4, street.facade - 0.5)
        if not _in_crossing(street, z, 1.0):
            people.append(_person(rng, x, z, int(rng.choice((-1, 1, 0, 2), p=(0.15, 0.15, 0.35, 0.35)))))
    for start, _ in street.crossings:
        if street.zebra:
            for _ in range(int(rng.integers(0, 3))):
                x = rng.uniform(-street.kerb, street.kerb)
                people.append(_person(rng, x, start - rng.uniform(1.6, 3.4), int(rng.choice((-1, 1)))))
    return people


def _person(rng: np.random.Generator, x: float, z: float, facing: int) -> Person:
    return Person(
        x=x,
        z=z,
        height=rng.uniform(1.6, 1.88),
        facing=facing,
        stride=float(rng.choice((-1, 1))) * rng.uniform(0.35, 1.0),
        coat=rng.uniform(0.36, 0.47),
        hair=rng.random(),
        skin=rng.random(),
    )
