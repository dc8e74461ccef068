"""Converting datasets of other arrangements and programs to the layouts nvidia and ab.

Each module whose name is in `FORMATS` is a format: its `FORMAT` recognises a source, and lists its samples and
classes. `finding` and `annotations` help them to find files, `labels` and `shapes` to read or draw maps. `converting`
divides the samples, and has them written by `writing` in the folder of `staging`.
"""

from hdgan.data.conversion.colors import CountedColors, count_colors
from hdgan.data.conversion.converting import FORMATS, ConversionReport, FormatName, convert_dataset
from hdgan.data.conversion.source import ConversionOptions
from hdgan.data.conversion.staging import ConversionSummary

__all__ = [
    "FORMATS",
    "ConversionOptions",
    "ConversionReport",
    "ConversionSummary",
    "CountedColors",
    "FormatName",
    "convert_dataset",
    "count_colors",
]
