"""Painting buildings: rays of the free pixels are cast against walls, gables and roofs, from near to far.

Then all facades of the scene are shaded at once, which is cheaper than one after another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hdgan.scenes.canvas import Canvas, Pixels, Point
from hdgan.scenes.facades import ROOF, FacadeTable, facade
from hdgan.scenes.layout import Building
from hdgan.scenes.light import Light
from hdgan.scenes.styles import Look
from hdgan.scenes.texture import masonry

_DEPTH = 45.0  # how far a building reaches away from the street, metres
_SLOPE = 0.75  # metres a roof over a street front recedes for each metre it rises
_GABLE = 1.3  # the same for roofs of the row across the end of the street


@dataclass(frozen=True)
class _Face:
    """The pixels that show one flat face of one building."""

    number: int
    """Index of the building in the scene's table."""
    normal: Point
    pixels: Pixels
    x: np.ndarray  # [N] metres
    y: np.ndarray  # [N]
    z: np.ndarray  # [N]
    along: np.ndarray  # [N] metres from the building's corner
    roof: bool = False


def paint_buildings(canvas: Canvas, light: Light, buildings: list[tuple[Building, int, Look]]) -> None:
    """Paint all buildings, each with id and look, in the free pixels; those of one side are sorted from near to far."""
    faces: list[_Face] = []
    for number, (building, id, _) in enumerate(buildings):
        rows, columns = canvas.box(_corners(building))
        if rows.start >= rows.stop or columns.start >= columns.stop or not canvas.empty(rows, columns).any():
            continue
        for face in _faces(canvas, building, number, canvas.free(rows, columns)):
            canvas.ids[face.pixels.index] = id
            faces.append(face)
    table = FacadeTable([(building, look) for building, _, look in buildings])
    for roof, shade in ((False, _shade_walls), (True, _shade_roofs)):
        chosen = [face for face in faces if face.roof == roof]
        if chosen:
            canvas.paint(*shade(canvas, light, table, chosen))


def _corners(building: Building) -> list[Point]:
    top = building.height + building.roof
    near, far = max(building.near, 0.6), max(building.far, 0.7)
    if building.side:
        street, back = building.side * building.line, building.side * (building.line + _DEPTH)
        places = [(street, near), (street, far), (back, near)]
    else:
        places = [(building.left, near), (building.right, near)]
    return [(x, y, z) for x, z in places for y in (0.0, top)]


def _faces(canvas: Canvas, building: Building, number: int, pixels: Pixels) -> list[_Face]:
    """The faces of one building that are visible in the free `pixels`."""
    if not building.side:
        return _front(canvas, building, number, pixels)
    cx, cy = canvas.camera.x, canvas.camera.y
    plane, side = building.side * building.line - cx, building.side
    z = 1 / np.maximum(pixels.a * np.float32(1 / plane), 1e-4)
    y = cy - z * pixels.b
    wall = (z >= building.near) & (z <= building.far) & (y >= 0) & (y <= building.height)
    seen, at, up = pixels[wall], z[wall], y[wall]
    x = np.full_like(at, side * (building.line - 0.05))
    faces = [_Face(number, (-float(side), 0.0, 0.0), seen, x, up, at, at - np.float32(building.near))]
    rest = ~wall
    if building.roof:
        slope = side * _SLOPE
        closer = pixels.a + slope * pixels.b
        z = (plane + slope * (cy - building.height)) / np.where(np.abs(closer) < 1e-5, 1e-5, closer)
        y = cy - z * pixels.b
        roof = rest & (z >= building.near) & (z <= building.far)
        roof &= (y >= building.height) & (y <= building.height + building.roof)
        rest &= ~roof
        seen, at, up = pixels[roof], z[roof], y[roof]
        length = float(np.hypot(1, _SLOPE))
        normal = (-side / length, _SLOPE / length, 0.0)
        faces.append(_Face(number, normal, seen, cx + at * seen.a, up, at, at - np.float32(building.near), roof=True))
    if building.near > 1:
        faces += _front(canvas, building, number, pixels[rest])
    return faces


def _front(canvas: Canvas, building: Building, number: int, pixels: Pixels) -> list[_Face]:
    """The face towards the camera: a gable end at a cross street, or a house at the end of the street."""
    camera, z = canvas.camera, building.near
    x = camera.x + z * pixels.a
    y = camera.y - z * pixels.b
    over = np.maximum(y - building.height, 0)
    if building.side:
        along = building.side * x - np.float32(building.line)
        face = (along >= over * _SLOPE) & (along <= _DEPTH)
    else:
        along = x - np.float32(building.left)
        face = np.minimum(along, building.right - x) >= over * _GABLE
    face &= (y >= 0) & (over <= building.roof)
    depth = np.full(int(face.sum()), z, np.float32)
    return [_Face(number, (0.0, 0.0, -1.0), pixels[face], x[face], y[face], depth, along[face])]


def _join(faces: list[_Face]) -> tuple[Pixels, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, building numbers, x, y, z and along of all faces, one after another."""
    numbers = np.repeat([face.number for face in faces], [len(face.x) for face in faces])
    pixels = Pixels(*(np.concatenate([getattr(face.pixels, name) for face in faces]) for name in ("index", "a", "b")))
    x, y, z, along = (np.concatenate([getattr(face, name) for face in faces]) for name in ("x", "y", "z", "along"))
    return pixels, numbers, x, y, z, along


def _facing(light: Light, faces: list[_Face]) -> np.ndarray:
    return np.repeat(np.array([light.facing(f.normal) for f in faces], np.float32), [len(f.x) for f in faces])


def _shade_walls(
    canvas: Canvas, light: Light, table: FacadeTable, faces: list[_Face]
) -> tuple[Pixels, np.ndarray, np.ndarray]:
    pixels, numbers, x, y, z, along = _join(faces)
    rgb = facade(table, numbers, along, y, z * np.float32(1 / canvas.unit), light)
    above = np.nonzero(y > table.height[numbers])[0]
    if len(above):
        # Above the eaves a front is the hip of the roof.
        number, rise = numbers[above], y[above] - table.height[numbers[above]]
        tone = masonry(along[above], rise, z[above] * np.float32(1 / canvas.unit), (0.36, 0.24), 0.05, 0, 0.12)
        rgb[:, above] = table.colours[:, number, ROOF] * (tone * np.where(rise < 0.14, 0.6, 1.0))
    sun = light.sunlit(x, y, z) * _facing(light, faces)
    # Sky light grows with height above the street, and is least in the corner with the pavement.
    ambient = (0.5 + 0.05 * np.minimum(y, 9)) * (0.75 + 0.25 * np.minimum(y * 1.6, 1))
    return pixels, canvas.ids[pixels.index], light.shade(rgb, sun, ambient, z)


def _shade_roofs(
    canvas: Canvas, light: Light, table: FacadeTable, faces: list[_Face]
) -> tuple[Pixels, np.ndarray, np.ndarray]:
    pixels, numbers, _, y, z, along = _join(faces)
    rise = y - table.height[numbers]
    tone = masonry(along, rise, z * np.float32(1 / canvas.unit), (0.36, 0.3), 0.05, 0, 0.15)
    # A gutter hangs under the eaves.
    tone *= np.where(rise < 0.16, 0.5, 1.0)
    rgb = table.colours[:, numbers, ROOF] * tone
    return pixels, canvas.ids[pixels.index], light.shade(rgb, _facing(light, faces) * float(light.sunny), 1.0, z)
