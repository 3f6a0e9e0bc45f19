"""Measures a talking video: lip sync, likeness, sharpness and steadiness."""

from .report import Report, evaluate

__all__ = ["Report", "evaluate"]
