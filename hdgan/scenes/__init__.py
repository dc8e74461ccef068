"""Procedural street scenes: label map, instance map, photo and true styles, at any size and in any number."""

from __future__ import annotations

from hdgan.scenes.dataset import ensure_scenes, scenes_folder, with_scenes
from hdgan.scenes.scene import Instance, Scene, render_scene
from hdgan.scenes.styles import CLASSES, PALETTE, STYLES, Style

__all__ = [
    "CLASSES", "PALETTE", "STYLES", "Instance", "Scene", "Style", "ensure_scenes", "render_scene", "scenes_folder",
    "with_scenes",
]  # fmt: skip
