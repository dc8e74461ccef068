"""Procedural street scenes: label map, instance map, photo and true styles, at any size and in any number."""

from __future__ import annotations

from hdgan.scenes.dataset import (
    ensure_scenes,
    held_out_only,
    held_out_pairs,
    scenes_folder,
    spec_of,
    with_scenes,
    write_held_out,
    write_scenes,
)
from hdgan.scenes.scene import Instance, Scene, render_scene
from hdgan.scenes.styles import SPEC, STYLES, Appearance

__all__ = [
    "SPEC", "STYLES", "Appearance", "Instance", "Scene", "ensure_scenes", "held_out_only", "held_out_pairs",
    "render_scene", "scenes_folder", "spec_of", "with_scenes", "write_held_out", "write_scenes",
]  # fmt: skip
