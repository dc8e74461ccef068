"""The materials of facades: bare wall, windows, shops and doors, by position in metres."""

from __future__ import annotations

import numpy as np

from hdgan.scenes.layout import Building
from hdgan.scenes.light import Light
from hdgan.scenes.styles import RGB, Look, linear
from hdgan.scenes.texture import cell_hash, masonry, noise, smooth_noise

WALL, TRIM, GLASS, CURTAIN, DOOR, SIGN, ROOF, PLINTH, GOODS = range(9)
_DOORS: tuple[RGB, ...] = ((94, 52, 38), (44, 70, 62), (52, 58, 74), (110, 84, 60))
_SIGNS: tuple[RGB, ...] = ((122, 40, 44), (40, 74, 62), (46, 58, 92), (186, 142, 80), (60, 56, 54))
_ATTIC = 0.7  # wall between the upper windows and the eaves, a cornice


class FacadeTable:
    """Measures and colours of all buildings of a scene, each [n_buildings], to be looked up by pixel."""

    def __init__(self, buildings: list[tuple[Building, Look]]) -> None:
        def column(values: list[float]) -> np.ndarray:
            return np.array(values, np.float32)

        self.height = column([b.height for b, _ in buildings])
        self.ground_floor = column([b.ground_floor for b, _ in buildings])
        self.floor = column([b.floor for b, _ in buildings])
        self.bay = column([b.bay for b, _ in buildings])
        self.shop = np.array([b.shop for b, _ in buildings])
        self.seed = np.array([look.seed for _, look in buildings], np.int32)
        self.texture = np.array([look.style.texture for _, look in buildings])
        glass = self.texture == "glass"
        share = 0.42 + 0.16 * (self.seed * 37 % 101) * np.float32(1 / 101)
        self.width = np.where(glass, self.bay - 0.12, self.bay * share).astype(np.float32)  # of windows
        self.sill = np.where(glass, 0.28, 0.85).astype(np.float32)  # above the floor
        self.tall = np.where(glass, self.floor - 0.4, self.floor - 1.35).astype(np.float32)
        self.mirror = np.where(glass, 1.6, 0.7).astype(np.float32)
        self.colours = np.stack([_colours(look) for _, look in buildings], axis=1)  # [3, n_buildings, materials]


def _colours(look: Look) -> np.ndarray:
    """Linear colours of the materials, float32 [3, 9]."""
    wall = linear(look.colour)
    door, sign = linear(_DOORS[look.seed % len(_DOORS)]), linear(_SIGNS[look.seed % len(_SIGNS)])
    glass, curtain, goods = linear((56, 66, 78)), linear((208, 200, 186)), linear((150, 116, 82))
    trim, roof = linear(look.style.trim), linear(look.style.accent)
    return np.stack([wall, trim, glass, curtain, door, sign, roof, wall * np.float32(0.5), goods], axis=1)


def facade(
    table: FacadeTable,
    number: np.ndarray,  # [N] which building
    along: np.ndarray,  # [N] metres from the building's corner
    y: np.ndarray,  # [N] metres above the street
    pixel: np.ndarray,  # [N] metres covered by a pixel
    light: Light,
) -> np.ndarray:
    """Reflectances of facades, linear float32 [3, N]."""
    material, tone = np.full(len(y), WALL, np.uint8), np.ones(len(y), np.float32)
    bay, ground_floor = table.bay[number], table.ground_floor[number]
    column = np.floor(along / bay)
    across = along - (column + 0.5) * bay
    column = column.astype(np.int32)
    below_eaves = table.height[number] - y
    row = np.zeros_like(column)

    upper = np.nonzero((y >= ground_floor) & (below_eaves > _ATTIC))[0]
    floor = table.floor[number[upper]]
    level = y[upper] - ground_floor[upper]
    storey = np.floor(level / floor)
    row[upper] = storey.astype(np.int32) + 1
    level -= storey * floor
    material[upper], tone[upper] = _upper_floors(table, number[upper], across[upper], level, column[upper], row[upper])
    for shop, paint in ((True, _shops), (False, _homes)):
        low = np.nonzero((y < ground_floor) & (table.shop[number] == shop))[0]
        material[low], tone[low] = paint(table, number[low], across[low], y[low], column[low])
    cornice = np.nonzero(below_eaves <= _ATTIC)[0]
    material[cornice] = TRIM
    tone[cornice] = np.where(below_eaves[cornice] < 0.35, 1.0, 0.62)

    _weather(table, number, along, y, pixel, material, tone)
    albedo = table.colours[:, number, material] * tone
    glass = np.nonzero(material == GLASS)[0]
    # Panes reflect more sky the higher they are.
    chance = cell_hash(column[glass], row[glass], table.seed[number[glass]] + 7)
    mirror = (0.1 + 0.02 * y[glass]) * (0.5 + chance) * table.mirror[number[glass]]
    albedo[:, glass] += light.horizon_rgb * mirror
    return albedo


def _upper_floors(
    table: FacadeTable,
    number: np.ndarray,
    across: np.ndarray,
    level: np.ndarray,
    column: np.ndarray,
    row: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Materials and tones [N] around one window per bay; `level` is metres above the floor."""
    material, tone = np.full(len(level), WALL, np.uint8), np.ones(len(level), np.float32)
    width, tall = table.width[number], table.tall[number]
    side = width * 0.5 - np.abs(across)
    below = level - table.sill[number]
    above = tall - below
    near = side > -0.13
    material[near & (np.abs(below + 0.07) < 0.07)] = TRIM
    tone[near & (below < -0.14) & (below > -0.34)] = 0.78  # shadow of the sill
    material[(side > -0.1) & (side < 0) & (below > 0) & (above > -0.14)] = TRIM
    material[(side > -0.16) & (above < 0) & (above > -0.18)] = TRIM
    inside = np.nonzero((side > 0) & (below > 0) & (above > 0))[0]
    side, below, above, across = side[inside], below[inside], above[inside], np.abs(across[inside])
    width, tall = width[inside], tall[inside]
    chance = cell_hash(column[inside], row[inside], table.seed[number[inside]])
    curtain = (chance > 0.55) & ((across > width * 0.24) | (above < tall * 0.6 * (chance - 0.5)))
    kind = np.where(curtain, CURTAIN, GLASS).astype(np.uint8)
    shine = np.where(curtain, 0.5, 0.35 + 0.5 * chance + 0.4 * below / tall)
    frame = (np.minimum(np.minimum(side, below), above) < 0.07) | (across < 0.035)
    frame |= np.abs(above - tall * 0.34) < 0.03
    kind[frame], shine[frame] = TRIM, 0.8
    # The wall is thick: its edge shades the top of the pane.
    shine *= np.where((above < 0.2) | (side < 0.03), 0.42, 1.0)
    material[inside], tone[inside] = kind, shine
    return material, tone


def _shops(
    table: FacadeTable, number: np.ndarray, across: np.ndarray, y: np.ndarray, column: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Materials and tones [N] of a ground floor of shops: panes, doors, signs and awnings."""
    material, tone = np.full(len(y), WALL, np.uint8), np.ones(len(y), np.float32)
    material[y < 0.5] = PLINTH
    seed = table.seed[number]
    half = table.bay[number] * 0.5 - 0.16
    from_top = table.ground_floor[number] - y
    door = (column + seed) % 4 == 1
    side, below, above = half - np.abs(across), y - np.where(door, 0.06, 0.55), from_top - 0.95
    pane = np.nonzero((side > 0) & (below > 0) & (above > 0))[0]
    edge = np.minimum(np.minimum(side[pane], below[pane]), above[pane])
    # Goods stand in the light of lamps behind the pane.
    place, tier = across[pane] * np.float32(3.1), np.floor(below[pane] * 1.9)
    item, on_shelf = np.floor(place), below[pane] - tier * np.float32(1 / 1.9)
    chance = cell_hash((item + 31 * tier).astype(np.int32), column[pane], seed[pane] + 2)
    goods = (on_shelf < 0.1 + 0.34 * chance) & (np.abs(place - item - 0.5) < 0.3 + 0.2 * chance) & (tier < 3)
    goods &= ~door[pane] & (above[pane] > 0.3)
    board = (on_shelf < 0.035) & ~door[pane] & (tier < 4) & (tier > 0)
    kind = np.where(goods, np.where(chance * 7 % 1 > 0.75, CURTAIN, GOODS), GLASS).astype(np.uint8)
    shine = np.where(goods, 0.28 + 0.5 * (chance * 13 % 1), np.where(board, 0.25, 0.8)).astype(np.float32)
    shine += 0.35 * np.clip(1 - np.abs(above[pane] - 0.5) * 2.5, 0, 1) * np.clip(side[pane] * 2, 0, 1)
    shine *= np.where(above[pane] < 0.22, 0.5, 1.0)
    kind[edge < 0.08], shine[edge < 0.08] = DOOR, 1.0
    material[pane], tone[pane] = kind, shine

    awning = seed % 3 == 0
    sign = (from_top > 0.24) & (from_top < 0.88)
    material[sign], tone[sign] = SIGN, np.where(from_top[sign] < 0.34, 0.7, 1.0)
    # Letters are strokes in a grid of 3 x 3, no two signs alike.
    place = across * np.float32(2.6)
    letter, stroke = np.floor(place).astype(np.int32), np.floor((from_top - 0.41) * 10).astype(np.int32)
    place -= letter
    inked = cell_hash(letter * 9 + np.floor(place * 3.6).astype(np.int32) * 3 + stroke, column, seed) > 0.32
    written = sign & ~awning & (np.abs(from_top - 0.56) < 0.15) & (place < 0.82) & (np.abs(across) < half * 0.72)
    material[written & inked] = TRIM
    cloth = awning & (from_top > 0.3) & (from_top < 1.3) & (side > -0.1)
    material[cloth] = np.where(np.floor(across[cloth] * 2.8).astype(np.int32) & 1, TRIM, SIGN)
    tone[cloth] = 1.15 - 0.3 * from_top[cloth]
    tone[awning & (from_top >= 1.3) & (from_top < 1.75)] *= 0.5
    return material, tone


def _homes(
    table: FacadeTable, number: np.ndarray, across: np.ndarray, y: np.ndarray, column: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Materials and tones [N] of a ground floor with a door among windows."""
    material, tone = np.full(len(y), WALL, np.uint8), np.ones(len(y), np.float32)
    material[y < 0.5] = PLINTH
    from_top = table.ground_floor[number] - y
    door = (column + table.seed[number]) % 4 == 1
    side = np.where(door, 0.55, table.bay[number] * 0.26) - np.abs(across)
    below, above = y - np.where(door, 0.12, 1.0), from_top - 1.0
    opening = (side > 0) & (below > 0) & (above > 0)
    material[(side > -0.14) & (below > -0.12) & (above > -0.16) & ~opening] = TRIM
    material[opening] = np.where(door, DOOR, GLASS)[opening]
    tone[opening] = np.where(above < 0.2, 0.45, 0.85)[opening]
    frame = opening & ~door & ((np.minimum(np.minimum(side, below), above) < 0.07) | (np.abs(across) < 0.035))
    material[frame], tone[frame] = TRIM, 0.8
    tone[opening & door & (side > 0.12) & (np.abs(y % 0.9 - 0.45) < 0.3)] *= 0.75
    course = (from_top > 0.08) & (from_top < 0.3)
    material[course], tone[course] = TRIM, 0.9
    return material, tone


def _weather(
    table: FacadeTable,
    number: np.ndarray,
    along: np.ndarray,
    y: np.ndarray,
    pixel: np.ndarray,
    material: np.ndarray,
    tone: np.ndarray,
) -> None:
    """Give bare walls in `material` [N] the texture of their style, by changing `tone` [N]."""
    bare = np.nonzero((material == WALL) | (material == PLINTH))[0]
    number, along, y, pixel = number[bare], along[bare], y[bare], pixel[bare]
    seed, texture = table.seed[number], table.texture[number]
    grain = np.clip(1.3 - pixel * 12, 0, 1) * noise("grain", along, y, 3.0, seed)
    wall = 1 + 0.05 * smooth_noise("cloud", along, y, 21.0, seed) + 0.045 * grain
    for name, size, joint, contrast in (("brick", (0.34, 0.11), 0.018, 0.24), ("stone", (1.0, 0.5), 0.03, 0.1)):
        part = np.nonzero(texture == name)[0]
        wall[part] *= masonry(along[part], y[part], pixel[part], size, joint, seed[part], contrast)
    part = np.nonzero(texture == "plaster")[0]
    streaks = smooth_noise("clump", along[part], y[part] * 0.12, 8.0, seed[part])
    wall[part] *= 1 - 0.03 * np.clip(streaks, 0, 2)
    tone[bare] *= wall
