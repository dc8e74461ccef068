"""Datasets: finding pairs, reading them exactly, sizing, sampling, checking."""

from hdgan.data.config import DataConfig, ScenesConfig, SizeConfig
from hdgan.data.dataset import Batch, PairedDataset, Sample
from hdgan.data.images import class_of, read_input, read_map, read_photo, to_unit_range
from hdgan.data.layouts import Listing, Orphan, Pair, find_pairs, find_phases, match_folders, validation_phase
from hdgan.data.pack import PackReport, pack_dataset
from hdgan.data.sampler import StreamLoader, StreamSampler, make_loader
from hdgan.data.transforms import Geometry, apply_to_input, apply_to_map, apply_to_photo, draw_geometry

__all__ = [
    "Batch",
    "DataConfig",
    "Geometry",
    "Listing",
    "Orphan",
    "PackReport",
    "Pair",
    "PairedDataset",
    "Sample",
    "ScenesConfig",
    "SizeConfig",
    "StreamLoader",
    "StreamSampler",
    "apply_to_input",
    "apply_to_map",
    "apply_to_photo",
    "class_of",
    "draw_geometry",
    "find_pairs",
    "find_phases",
    "make_loader",
    "match_folders",
    "pack_dataset",
    "read_input",
    "read_map",
    "read_photo",
    "to_unit_range",
    "validation_phase",
]
