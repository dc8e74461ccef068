"""Trained models as programs that run where hdgan is not installed: ONNX and torch.export."""

from hdgan.export.writing import Exported, export_program

__all__ = ["Exported", "export_program"]
