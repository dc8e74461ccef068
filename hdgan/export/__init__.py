"""Trained models as programs that run where hdgan is not installed: ONNX, torch.export and AOTInductor."""

from hdgan.export.writing import Exported, export_program

__all__ = ["Exported", "export_program"]
