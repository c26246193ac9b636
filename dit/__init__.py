"""Diffusion transformers and their neighbours: models, diffusion, samplers, weights."""

from typing import Any

from dit.backbone import Backbone
from dit.config import ModelConfig
from dit.dit import DiT
from dit.flops import macs
from dit.models import initialised
from dit.pipeline import Pipeline
from dit.presets import MODELS, preset
from dit.settings import SampleSettings
from dit.weights import load


def build(config: ModelConfig | str, **overrides: Any) -> Backbone:
    """A freshly initialised model of a config, or of a preset's name with fields replaced.

    Raises:
        ValueError: no such preset or field, or a field out of range.
    """
    if isinstance(config, str):
        return initialised(preset(config, **overrides))
    return initialised(ModelConfig.from_dict(config.to_dict() | overrides))


__all__ = [
    "MODELS",
    "Backbone",
    "DiT",
    "ModelConfig",
    "Pipeline",
    "SampleSettings",
    "build",
    "load",
    "macs",
    "preset",
]
