"""Datasets: finding pairs, reading them exactly, sizing, sampling, checking."""

from hdgan.data.config import DataConfig, ScenesConfig, SizeConfig
from hdgan.data.dataset import LoaderBatch, PairedDataset, Sample, photo_to_unit_range
from hdgan.data.images import class_of, read_input, read_map, read_photo, read_stored_photo, to_unit_range
from hdgan.data.layouts import find_pairs, find_phases, match_folders, validation_phase
from hdgan.data.pack import PackReport, pack_dataset
from hdgan.data.pairs import Listing, Orphan, Pair
from hdgan.data.sampler import StreamLoader, StreamSampler, make_loader
from hdgan.data.spec import DatasetSpec
from hdgan.data.transforms import Geometry, apply_to_input, apply_to_map, apply_to_photo, sample_geometry

__all__ = [
    "DataConfig",
    "DatasetSpec",
    "Geometry",
    "Listing",
    "LoaderBatch",
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
    "find_pairs",
    "find_phases",
    "make_loader",
    "match_folders",
    "pack_dataset",
    "photo_to_unit_range",
    "read_input",
    "read_map",
    "read_photo",
    "read_stored_photo",
    "sample_geometry",
    "to_unit_range",
    "validation_phase",
]
