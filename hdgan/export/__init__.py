"""Trained models as programs that run where hdgan is not installed: ONNX, torch.export and AOTInductor."""

from hdgan.export.formats import FormatName
from hdgan.export.writing import Exported, Part, StyleSource, export_program

__all__ = ["Exported", "FormatName", "Part", "StyleSource", "export_program"]
