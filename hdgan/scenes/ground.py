"""Sky, road, pavement and markings: the surfaces that fill what the objects leave free."""

from __future__ import annotations

import numpy as np

from hdgan.scenes.canvas import Canvas, Pixels
from hdgan.scenes.layout import SceneLayout, Street
from hdgan.scenes.light import GroundShade, Light
from hdgan.scenes.styles import MARKING, PAVEMENT, ROAD, SKY, Look, linear
from hdgan.scenes.texture import masonry, noise, smooth_noise, smoothstep

_CORNER = 2.2  # radius of the kerb at corners, metres
_KERB_STONE = 0.26


def paint_sky(canvas: Canvas, light: Light, look: Look) -> None:
    """Fill the free pixels above the horizon."""
    rows = slice(0, int(np.searchsorted(canvas.b, 0)))
    pixels = canvas.free(rows, slice(0, canvas.width))
    rise = -pixels.b
    zenith, horizon, cloud = (linear(c)[:, None] for c in (look.colour, look.style.accent, look.style.trim))
    rgb = zenith + (horizon - zenith) * np.exp(rise * np.float32(-4.2))  # [3, N]
    sx, sy, sz = light.sun
    if look.style.name == "sunset":
        toward = (pixels.a * sx + rise * sy + sz) / np.sqrt(pixels.a**2 + rise**2 + 1)
        glow = np.exp((toward - 1) * 14)
        disc = smoothstep(0.9988, 0.9994, toward) * 3 + np.exp((toward - 1) * 220) * 1.2
        rgb = rgb * (0.8 + 0.5 * glow) + np.array([[1.0], [0.62], [0.25]], np.float32) * (0.35 * glow + disc)
    density, lit = _clouds(look, pixels.a, rise, sx)
    if look.style.name == "sunset":
        cloud = cloud * (0.55 + 0.7 * glow)
    shadow = zenith * 0.55 + cloud * 0.3
    rgb += ((shadow + (cloud - shadow) * lit) - rgb) * density
    canvas.paint(pixels, SKY, rgb)


def _clouds(look: Look, a: np.ndarray, rise: np.ndarray, toward_sun: float) -> tuple[np.ndarray, np.ndarray]:
    """Opacity and brightness of clouds [N], on a plane high above the street."""
    texture = look.style.texture
    low, high, period, most = {
        "clear": (0.9, 2.2, 9.0, 0.75),
        "cumulus": (0.1, 0.95, 7.0, 0.97),
        "stratus": (-1.6, 1.2, 8.0, 0.8),
        "cirrus": (0.0, 1.7, 6.0, 0.8),
    }[texture]
    far = 1 / (rise + np.float32(0.16))
    u, v = a * far, far * (2.2 if texture == "cirrus" else 1.4)
    cover = smooth_noise("cloud", u, v, period, look.seed)
    detail = smooth_noise("cloud", u, v, period / 5, look.seed + 5)
    density = smoothstep(low, high, cover + 0.28 * detail) * (most * smoothstep(0.0, 0.09, rise))
    step = np.float32(0.16 if toward_sun > 0 else -0.16)
    beyond = smooth_noise("cloud", u + step, v + 0.16, period, look.seed)
    lit = np.clip(0.72 + 0.7 * (cover - beyond) - 0.16 * (cover - 0.5) + 0.1 * detail, 0, 1)
    return density, lit


def paint_ground(canvas: Canvas, layout: SceneLayout, light: Light, shade: GroundShade, looks: dict[int, Look]) -> None:
    """Fill the free pixels below the horizon with road, pavement and markings."""
    pixels = canvas.free(slice(int(np.searchsorted(canvas.b, 0)), canvas.height), slice(0, canvas.width))
    street, camera = layout.street, layout.camera
    z = camera.y / np.maximum(pixels.b, 1e-4)  # [N]
    x = camera.x + z * pixels.a  # [N]
    into = _into_pavement(street, x, z)
    ids = np.where(into > 0, PAVEMENT, ROAD)
    ids[_is_marking(street, x, z, into)] = MARKING

    flat = pixels.index
    facade = np.clip((street.facade + 1.6 - np.abs(x)) * 0.4, 0.45, 1)
    ambient = shade.sky.ravel()[flat] * facade
    sun = light.sunlit(x, 0.0, z) * shade.sun.ravel()[flat] * light.facing((0, 1, 0))
    pixel = z * z * np.float32(1 / (canvas.unit * camera.y))  # [N] metres along Z under one pixel
    rgb = np.empty((3, len(flat)), np.float32)
    for label, surface in ((ROAD, _road), (PAVEMENT, _pavement), (MARKING, _marking)):
        chosen = np.nonzero(ids == label)[0]
        albedo = surface(looks[label], street, x[chosen], z[chosen], into[chosen], pixel[chosen])
        if label == MARKING:
            ground = _road(looks[ROAD], street, x[chosen], z[chosen], into[chosen], pixel[chosen])
            albedo += (ground - albedo) * (0.12 + 0.2 * np.clip(noise("clump", x[chosen], z[chosen], 5.0), 0, 2))
        rgb[:, chosen] = light.shade(albedo, sun[chosen], ambient[chosen], z[chosen])
    if looks[SKY].style.name == "sunset":
        _glint(rgb, pixels, light, sun, z)
    canvas.paint(pixels, ids, rgb)


def _into_pavement(street: Street, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Distance from the kerb in metres, positive on the pavement, right near the kerb; corners are round."""
    across = np.abs(x) - street.kerb
    along = np.full_like(z, 1e3)
    for start, stop in street.crossings:
        np.minimum(along, np.maximum(start - z, z - stop), out=along)
    outside = np.hypot(np.maximum(_CORNER - across, 0), np.maximum(_CORNER - along, 0))
    # Deep inside the pavement the rounded distance saturates; the plain one goes on.
    return np.where(outside > 0, _CORNER - outside, np.minimum(across, along))


def _is_marking(street: Street, x: np.ndarray, z: np.ndarray, into: np.ndarray) -> np.ndarray:
    """Where paint lies on the road, bool [N]."""
    clear = np.full(len(z), True)
    for start, stop in street.crossings:
        clear &= (z < start - 4.6) | (z > stop + 1.5)
    marking = clear & (np.abs(x) < 0.075) & (z % 6.0 < 3.2)
    if street.parking:
        edge = np.abs(np.abs(x) - (street.kerb - 2.2))
        marking |= clear & (edge < 0.05) & (z % 1.6 < 1.0)
    for start, _ in street.crossings:
        if street.zebra:
            bars = (x + street.kerb) % 1.0 < 0.5
            marking |= bars & (np.abs(x) < street.kerb - 0.3) & (z > start - 3.9) & (z < start - 1.1)
        else:
            marking |= (x > 0.1) & (x < street.kerb - 0.4) & (z > start - 1.7) & (z < start - 1.3)
    return marking & (into < -0.05)


def _road(look: Look, street: Street, x: np.ndarray, z: np.ndarray, into: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    near = np.clip(1.3 - pixel * 3, 0, 1)
    tone = 1 + 0.07 * smooth_noise("cloud", x, z, 37.0, look.seed)
    if look.style.texture == "asphalt":
        tone += near * 0.13 * noise("grain", x, z, 3.1, look.seed)
        lane = np.abs(np.abs(x) - 1.65)
        tone += 0.07 * (np.clip(1 - np.abs(lane - 0.75) * 3, 0, 1) - np.clip(1 - lane * 2, 0, 1))
        crack = np.abs(smooth_noise("cloud", x, z, 19.0, look.seed + 3) - 0.9) * 19
        tone -= 0.3 * near * np.clip(1 - crack, 0, 1)
    elif look.style.texture == "cobblestone":
        # Setts lie in shallow waves across the road.
        wave = z + 0.1 * np.cos(x * 2.1)
        tone *= masonry(x, wave, pixel, (0.3, 0.26), 0.06, look.seed, 0.24)
        tone += near * 0.08 * noise("grain", x, z, 2.3, look.seed)
    else:
        tone *= masonry(z, x, pixel * 0.6, (0.5, 0.25), 0.03, look.seed, 0.22)
        tone += near * 0.06 * noise("grain", x, z, 2.3, look.seed)
    gutter = np.clip(1 + into * 1.6, 0, 1)
    tone *= 1 - 0.3 * gutter * gutter
    return linear(look.colour)[:, None] * tone


def _pavement(
    look: Look, street: Street, x: np.ndarray, z: np.ndarray, into: np.ndarray, pixel: np.ndarray
) -> np.ndarray:
    size, joint, contrast = ((0.75, 0.75), 0.025, 0.1) if look.style.texture == "slabs" else ((0.4, 0.2), 0.022, 0.2)
    tone = masonry(x, z, pixel, size, joint, look.seed, contrast)
    tone += 0.06 * smooth_noise("cloud", x, z, 23.0, look.seed)
    tone += np.clip(1.3 - pixel * 3, 0, 1) * 0.06 * noise("grain", x, z, 2.9, look.seed)
    albedo = linear(look.colour)[:, None] * tone
    kerb = into < _KERB_STONE
    along = np.abs((z[kerb] + np.where(np.abs(x[kerb]) > street.kerb + 0.5, x[kerb], 0)) % 1.0 - 0.5)
    stone = 0.36 * (1 - 0.3 * np.clip(1 - (0.5 - along) * 40, 0, 1) * np.clip(1.5 - pixel[kerb] * 4, 0, 1))
    stone *= 1 + 0.08 * noise("grain", x[kerb], z[kerb], 3.3)
    # The face of the kerb, a hand wide, catches less light than its top.
    stone *= 1 - 0.45 * (into[kerb] < 0.07)
    albedo[:, kerb] = stone * np.array([[1.0], [0.98], [0.95]], np.float32)
    return albedo


def _marking(
    look: Look, street: Street, x: np.ndarray, z: np.ndarray, into: np.ndarray, pixel: np.ndarray
) -> np.ndarray:
    return linear(look.colour)[:, None] * (0.86 + 0.05 * noise("grain", x, z, 2.7, look.seed))


def _glint(rgb: np.ndarray, pixels: Pixels, light: Light, sun: np.ndarray, z: np.ndarray) -> None:
    """A low sun ahead mirrors in the road: a warm streak towards the camera."""
    sx, sy, sz = light.sun
    a = pixels.a - np.float32(sx / sz)
    streak = np.exp(-(a * a) * 14) * np.clip(0.25 - np.abs(pixels.b - np.float32(sy / sz)), 0, 1)
    streak *= np.clip(sun * 8, 0.25, 1)
    rgb += np.array([[1.0], [0.55], [0.22]], np.float32) * (streak * 1.5)
