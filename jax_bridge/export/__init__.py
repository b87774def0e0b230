"""Fields of a data set as files of other tools: npy, safetensors, Parquet, LeRobot's columns."""

from jax_bridge.export.exporting import FORMATS, ExportPlan, ExportReport, export

__all__ = ["FORMATS", "ExportPlan", "ExportReport", "export"]
