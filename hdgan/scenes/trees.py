"""Trees: crowns of overlapping leaf masses with frayed edges, on forked trunks."""

from __future__ import annotations

import numpy as np

from hdgan.scenes.canvas import Canvas, Place, Stencil
from hdgan.scenes.layout import Tree
from hdgan.scenes.light import Light
from hdgan.scenes.styles import Look, linear
from hdgan.scenes.texture import interpolated, noise, smooth_noise

_GRID = 64  # the crown's shape is smooth, so it is computed on a coarse grid at every resolution


def paint_tree(canvas: Canvas, light: Light, tree: Tree, id: int, look: Look) -> None:
    """Paint a tree in the pixels that are still free."""
    reach = tree.radius * 1.12
    stencil = Stencil(canvas, [(tree.x + i * reach, y, tree.z) for i in (-1, 1) for y in (0.0, tree.height * 1.03)])
    if stencil.hidden:
        return
    lit = light.sunlit_at(tree.x, 0.7 * tree.height, tree.z)
    _paint_crown(canvas, light, tree, id, look, stencil, lit)
    _paint_trunk(canvas, light, tree, id, look, stencil, lit)


def _crown(tree: Tree, light: Light) -> tuple[np.ndarray, np.ndarray]:
    """How deep inside the crown, and how much the leaf masses face the sun; float32 [_GRID, _GRID] each, top first."""
    across = np.linspace(-1.12, 1.12, _GRID, dtype=np.float32)[None, None, :]
    up = np.linspace(1.12, -0.12, _GRID, dtype=np.float32)[None, :, None]
    cx, cy, radius = tree.blobs.T[:, :, None, None]  # [n, 1, 1] each
    stretch = 2 * min((tree.height - tree.trunk) / (2 * tree.radius), 1.3)
    u, v = (across - cx) / radius, (up - cy) * (stretch / radius)  # [n, 1, _GRID], [n, _GRID, 1]
    depth = 1 - (u * u + v * v)  # [n, _GRID, _GRID]
    nearest = depth.argmax(0)
    inside = np.take_along_axis(depth, nearest[None], 0)[0]
    grid = np.arange(_GRID)
    u, v = u[nearest, 0, grid[None, :]], v[nearest, grid[:, None], 0]  # [_GRID, _GRID] each
    front = np.sqrt(np.clip(inside, 0, 1))
    sx, sy, sz = light.sun
    return inside, (u * sx + v * sy - front * sz) * 0.8


def _lookup(field: np.ndarray, tree: Tree, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Values of a crown field [_GRID, _GRID] at metres (x, y) from the foot, interpolated, float32 [N]."""
    column = (x * (1 / tree.radius) + 1.12) * ((_GRID - 1) / 2.24)
    row = (1.12 - (y - tree.trunk) * (1 / (tree.height - tree.trunk))) * ((_GRID - 1) / 1.24)
    # Clipped, so that no position reaches around the table's edge.
    return interpolated(field, np.clip(column, 0, _GRID - 1.001), np.clip(row, 0, _GRID - 1.001))


def _paint_crown(canvas: Canvas, light: Light, tree: Tree, id: int, look: Look, stencil: Stencil, lit: float) -> None:
    inside, facing = _crown(tree, light)
    bottom = canvas.project((tree.x, tree.trunk - 0.35, tree.z))[1]
    rows = slice(stencil.rows.start, max(stencil.rows.start, min(stencil.rows.stop, int(bottom))))
    pixels = canvas.free(rows, stencil.columns)
    x = canvas.camera.x + tree.z * pixels.a - np.float32(tree.x)
    y = canvas.camera.y - tree.z * pixels.b
    depth = _lookup(inside, tree, x, y)
    clumps = smooth_noise("clump", x, y, 9.0, look.seed)
    leaves = noise("grain", x, y, 5.5, look.seed)
    mask = depth + 0.2 * clumps + 0.14 * leaves > 0.12
    pixels, x, y = pixels[mask], x[mask], y[mask]
    depth, clumps, leaves = depth[mask], clumps[mask], leaves[mask]
    toward = _lookup(facing, tree, x, y)
    level = np.clip((y - np.float32(tree.trunk)) * (1 / (tree.height - tree.trunk)), 0, 1)
    sun = np.clip(0.36 + 0.6 * toward + 0.16 * clumps + 0.12 * leaves, 0.03, 1.2) * (lit * (0.55 + 0.45 * level))
    ambient = np.clip(0.34 + 0.4 * level + 0.14 * clumps + 0.13 * leaves - 0.12 * np.clip(depth, 0, 1), 0.12, 1.1)
    first, second = linear(look.colour)[:, None], linear(look.style.accent)[:, None]
    blend = np.clip(0.4 + 0.3 * clumps + 0.25 * leaves, 0, 1)
    # Light also comes through the leaves when the sun is behind them.
    through = max(0.0, light.sun[2]) * 0.35 * lit
    albedo = first + (second - first) * blend
    canvas.paint(pixels, id, light.shade(albedo, sun + through, ambient, tree.z))


def _paint_trunk(canvas: Canvas, light: Light, tree: Tree, id: int, look: Look, stencil: Stencil, lit: float) -> None:
    def at(x: float, y: float) -> Place:
        return canvas.project((tree.x + x, y, tree.z))

    fork = tree.trunk + 0.12 * (tree.height - tree.trunk)
    width = 0.022 * tree.height
    outline = [(-1.7, 0.0), (-1.05, 0.25), (-0.85, fork), (0.85, fork), (1.05, 0.25), (1.7, 0.0)]
    stencil.polygon([at(x * width, y) for x, y in outline], 1)
    for lean in (-0.34, 0.04, 0.38):
        tip, end = lean * tree.radius, fork + 0.26 * (tree.height - fork)
        branch = [(-0.7 * width, fork - 0.4), (0.7 * width, fork - 0.4), (tip + 0.02, end), (tip - 0.02, end)]
        stencil.polygon([at(x, y) for x, y in branch], 1)
    pixels, _, _ = stencil.seen(stencil.parts())
    x = canvas.camera.x + tree.z * pixels.a - np.float32(tree.x)
    y = canvas.camera.y - tree.z * pixels.b
    round_side = np.clip(x * (1 / width), -1, 1)
    bark = 1 + 0.2 * noise("clump", x, y * 0.25, 2.0, look.seed) + 0.1 * noise("grain", x, y, 1.5, look.seed)
    sun = np.clip(0.45 + 0.6 * round_side * light.sun[0] - 0.3 * light.sun[2], 0, 1) * lit
    ambient = (0.6 - 0.2 * np.abs(round_side)) * np.where(y > fork - 0.5, 0.6, 1.0)
    canvas.paint(pixels, id, light.shade(linear(look.style.trim)[:, None] * bark, sun, ambient, tree.z))
