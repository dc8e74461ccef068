"""Sun, sky light, haze and shadows of a scene. The style of the sky sets the position of the sun."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hdgan.scenes.canvas import Canvas
from hdgan.scenes.layout import Car, Person, Pole, SceneLayout, Tree
from hdgan.scenes.styles import Look, linear
from hdgan.scenes.texture import smoothstep

# Discs that stand for a crown where its shadow falls: offsets along X and Z, and radius, in radii of the crown.
_CROWN = ((0, 0, 0.8), (-0.45, 0.3, 0.55), (0.5, 0.2, 0.5), (0.1, -0.5, 0.5), (0.0, 0.7, 0.4))
_FIRST, _LAST, _STEP = -60.0, 320.0, 0.25  # range and spacing of the height tables along Z


@dataclass(frozen=True)
class Weather:
    """Light that comes with a style of sky; azimuths are angles from Z towards X, in degrees."""

    azimuth: float
    elevation: float
    sun: tuple[float, float, float]
    ambient: tuple[float, float, float]
    haze: float
    """Depth in metres at which haze takes 63 % of the contrast."""


WEATHERS = {
    "morning": Weather(-118, 38, (1.5, 1.28, 0.98), (0.45, 0.50, 0.60), 420),
    "afternoon": Weather(122, 52, (1.6, 1.46, 1.22), (0.45, 0.52, 0.63), 520),
    "overcast": Weather(-60, 60, (0.0, 0.0, 0.0), (0.98, 1.02, 1.06), 260),
    "sunset": Weather(-11, 9, (1.7, 0.92, 0.42), (0.56, 0.48, 0.56), 240),
}


class Light:
    """The light of a scene, which turns the colours of surfaces into those that the camera sees."""

    def __init__(self, layout: SceneLayout, sky: Look, rng: np.random.Generator) -> None:
        weather = WEATHERS[sky.style.name]
        azimuth = np.radians(weather.azimuth + rng.uniform(-9, 9))
        elevation = np.radians(weather.elevation * rng.uniform(0.9, 1.1))
        flat = np.cos(elevation)
        self.sun = (float(flat * np.sin(azimuth)), float(np.sin(elevation)), float(flat * np.cos(azimuth)))
        """Unit vector towards the sun."""
        self.sun_rgb = np.array(weather.sun, np.float32)[:, None]  # [3, 1]
        self.ambient_rgb = np.array(weather.ambient, np.float32)[:, None]  # [3, 1]
        self.haze = weather.haze
        self.horizon_rgb = linear(sky.style.accent)[:, None] * np.float32(0.95)  # [3, 1]
        self.sunny = weather.sun[0] > 0
        self._side = -1 if self.sun[0] < 0 else 1
        self._facade = layout.street.facade
        self._heights = np.zeros(int((_LAST - _FIRST) / _STEP), np.float32)
        for building in layout.buildings:
            if building.side == self._side:
                span = slice(*(max(0, int((z - _FIRST) / _STEP)) for z in (building.near, building.far)))
                self._heights[span] = building.height + 0.6 * building.roof

    def facing(self, normal: tuple[float, float, float]) -> float:
        """Cosine between a surface and the sun, 0 where it faces away."""
        return max(0.0, sum(n * s for n, s in zip(normal, self.sun, strict=True)))

    def sunlit(self, x: np.ndarray, y: np.ndarray | float, z: np.ndarray) -> np.ndarray:
        """Share of the sun that the buildings let through to points of the street, float32 [N]."""
        if not self.sunny:
            return np.zeros_like(x)
        steps = np.maximum((self._side * self._facade - x) * (1 / self.sun[0]), 0)
        place = (z + steps * self.sun[2] - _FIRST) * (1 / _STEP)
        heights = self._heights[np.clip(place, 0, len(self._heights) - 1).astype(np.int32)]
        above = y + steps * self.sun[1] - heights
        return np.clip(above * 2.2 + 0.5, 0, 1)

    def sunlit_at(self, x: float, y: float, z: float) -> float:
        """As `sunlit`, for one point."""
        return float(self.sunlit(np.array([x], np.float32), y, np.array([z], np.float32))[0])

    def shade(
        self,
        albedo: np.ndarray,  # [3, N]
        sun: np.ndarray | float,  # [N] cosine times share of sun
        ambient: np.ndarray | float,  # [N] share of sky
        depth: np.ndarray | float,  # [N] metres
    ) -> np.ndarray:
        """Linear colours [3, N] of surfaces."""
        return self.mist(albedo * (self.sun_rgb * sun + self.ambient_rgb * ambient), depth)

    def mist(self, rgb: np.ndarray, depth: np.ndarray | float) -> np.ndarray:
        """Blend linear colours [3, N] into the haze of the horizon."""
        clear = np.exp(np.asarray(depth, np.float32) * np.float32(-1 / self.haze))
        return self.horizon_rgb + (rgb - self.horizon_rgb) * clear


class GroundShade:
    """Shadows that things throw on the ground, collected in two maps before the ground is painted."""

    def __init__(self, canvas: Canvas, light: Light) -> None:
        self._canvas, self._light = canvas, light
        shape = (canvas.height, canvas.width)
        self.sky = np.ones(shape, np.float32)  # [H, W] share of sky light that reaches the ground
        self.sun = np.ones(shape, np.float32)  # [H, W] share of sun light

    def add(self, thing: Tree | Car | Person | Pole) -> None:
        """Add the contact shadow and, on a sunny day, the cast shadow of `thing`."""
        x, z = thing.x, thing.z
        if isinstance(thing, Car):
            across = abs(np.sin(thing.heading)) > 0.5
            rx, rz = (thing.length / 2, thing.width / 2) if across else (thing.width / 2, thing.length / 2)
            self._disc(self.sky, (x, z), (rx * 1.18, rz * 1.1), 0.88, 0.34, box=True)
            for height in (0.3, 0.75, thing.height * 0.85):
                self._cast((x, z), (rx, rz), height, box=True)
        elif isinstance(thing, Person):
            self._disc(self.sky, (x, z), (0.34, 0.3), 0.6, 0.7)
            self._streak(x, z, 0.17, thing.height)
        elif isinstance(thing, Pole):
            self._disc(self.sky, (x, z), (0.2, 0.2), 0.5, 0.7)
            self._streak(x, z, 0.09, thing.height)
        else:
            self._disc(self.sky, (x, z), (0.6, 0.6), 0.6, 0.8)
            self._disc(self.sky, (x, z), (thing.radius * 1.2, thing.radius * 1.2), 0.22, 0.9)
            self._streak(x, z, 0.14, thing.trunk + 0.4)
            middle = 0.5 * (thing.trunk + thing.height)
            for dx, dz, share in _CROWN:
                radius = share * thing.radius
                self._cast((x + dx * thing.radius, z + dz * thing.radius), (radius, radius), middle)

    def _cast(self, centre: tuple[float, float], radii: tuple[float, float], height: float, box: bool = False) -> None:
        """Throw a disc that hangs at `height` above `centre` along the sun's rays."""
        if self._light.sunny:
            sx, sy, sz = self._light.sun
            step = height / sy
            place = (centre[0] - sx * step, centre[1] - sz * step)
            self._disc(self.sun, place, (radii[0] * 1.05, radii[1] * 1.05), 0.92, 0.28, box)

    def _disc(
        self,
        target: np.ndarray,  # [H, W]
        centre: tuple[float, float],
        radii: tuple[float, float],
        depth: float,
        soft: float,
        box: bool = False,
    ) -> None:
        """Darken a soft ellipse or, with `box`, a rounded rectangle on the ground by up to `depth`."""
        grow = 1 + soft
        corners = [(centre[0] + i * radii[0] * grow, centre[1] + j * radii[1] * grow) for i in (-1, 1) for j in (-1, 1)]
        found = self._ground(corners)
        if found is None:
            return
        rows, columns, x, z = found
        u, v = (x - centre[0]) * (1 / radii[0]), (z - centre[1]) * (1 / radii[1])
        u, v = u * u, v * v
        radius = np.sqrt(np.sqrt(u * u + v * v)) if box else np.sqrt(u + v)
        area = target[rows, columns]
        np.minimum(area, 1 - depth * (1 - smoothstep(1 - soft, grow, radius)), out=area)

    def _streak(self, x: float, z: float, radius: float, height: float) -> None:
        """Throw the shadow of something thin and upright; it grows softer and paler with distance."""
        if not self._light.sunny:
            return
        sx, sy, sz = self._light.sun
        dx, dz = -sx * height / sy, -sz * height / sy
        reach = radius * 3
        found = self._ground(
            [(x + t * dx + i * reach, z + t * dz + j * reach) for t in (0, 1) for i in (-1, 1) for j in (-1, 1)]
        )
        if found is None:
            return
        rows, columns, u, v = found
        u, v = u - x, v - z
        along = np.clip((u * dx + v * dz) * (1 / (dx * dx + dz * dz)), 0, 1)
        distance = np.hypot(u - along * dx, v - along * dz) * (1 / radius)
        area = self.sun[rows, columns]
        np.minimum(area, 1 - (0.9 - 0.3 * along) * (1 - smoothstep(0.6, 1.5, distance - along)), out=area)

    def _ground(self, corners: list[tuple[float, float]]) -> tuple[slice, slice, np.ndarray, np.ndarray] | None:
        """Box of the canvas around ground points, and X [h, w] and Z [h, 1] of its pixels; None if out of sight."""
        canvas = self._canvas
        if max(z for _, z in corners) < 2.0:
            return None
        rows, columns = canvas.box((x, 0.0, max(z, 1.0)) for x, z in corners)
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return None
        z = canvas.camera.y / np.maximum(canvas.b[rows], 1e-3)[:, None]  # [h, 1]
        return rows, columns, canvas.camera.x + z * canvas.a[columns], z
