"""Diffusion transformers: models, diffusion, samplers, weights."""

from typing import Any

from dit.config import MODELS, ModelConfig, preset
from dit.dit import DiT, init_weights
from dit.flops import macs
from dit.pipeline import Pipeline, SampleSettings
from dit.weights import load


def build(config: ModelConfig | str, **overrides: Any) -> DiT:
    """A freshly initialised model of a config, or of a preset's name with fields replaced.

    Raises:
        ValueError: no such preset, or a field out of range.
    """
    from dataclasses import replace

    config = preset(config, **overrides) if isinstance(config, str) else replace(config, **overrides)
    model = DiT(config)
    init_weights(model)
    return model


__all__ = ["MODELS", "DiT", "ModelConfig", "Pipeline", "SampleSettings", "build", "load", "macs", "preset"]
