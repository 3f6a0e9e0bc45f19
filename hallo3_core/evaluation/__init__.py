"""How good a talking video is: lips, likeness, sharpness, steadiness."""

from .report import Report, evaluate

__all__ = ["Report", "evaluate"]
