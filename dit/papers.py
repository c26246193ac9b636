"""What the papers print: compute, parameters and FID of each model, as printed, with table and settings."""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dit.config import ModelConfig
from dit.presets import MODELS, preset

ARXIV = {"DiT": "2212.09748", "DiffiT": "2312.02139", "SiT": "2401.08740"}  # as named in a result's source
UNGUIDED = "250 DDPM steps"


@dataclass(frozen=True, kw_only=True)
class PaperResult:
    """A row of a paper's table. What a paper does not print is None."""

    name: str  # as the paper writes it
    resolution: int  # side of the pictures, in pixels
    gflops: float | None  # of one forward pass of one picture; the papers' flop is a multiply-accumulate
    parameters: float | None  # in millions; DiT's are those that are trained
    fid: float | None  # on 50,000 samples; lower is better
    guided: bool = False
    training_steps: int | None = None
    settings: str = ""  # of sampling
    source: str
    preset: str | None = None  # which of ours it is; None: not built here
    overrides: tuple[tuple[str, Any], ...] = ()  # fields of the preset to be replaced

    @property
    def config(self) -> ModelConfig | None:
        """Our config of the same model."""
        return preset(self.preset, **dict(self.overrides)) if self.preset else None

    @property
    def our_name(self) -> str | None:
        """What we call that config: the preset, and the pictures' side where the preset's own is another."""
        return f"{self.preset} at {self.resolution} px" if self.overrides else self.preset


AT_512 = (("input_size", 64),)  # latents: an eighth of the pixels


def _at_400k(name: str, preset: str, gflops: float, parameters: float, fid: float) -> PaperResult:
    """A row of Table 4 that its comparisons are made of: at 256 px, after 400,000 steps, without guidance."""
    return PaperResult(
        name=name,
        resolution=256,
        gflops=gflops,
        parameters=parameters,
        fid=fid,
        training_steps=400_000,
        settings=UNGUIDED,
        source="DiT, Table 4",
        preset=preset,
    )


SCALING = tuple(
    _at_400k(f"DiT-{size}", f"DiT-{size}", gflops, parameters, fid)
    for size, gflops, parameters, fid in (
        ("S/8", 0.36, 33, 153.60),
        ("S/4", 1.41, 33, 100.41),
        ("S/2", 6.06, 33, 68.40),
        ("B/8", 1.42, 131, 122.74),
        ("B/4", 5.56, 130, 68.38),
        ("B/2", 23.01, 130, 43.47),
        ("L/8", 5.01, 459, 118.87),
        ("L/4", 19.70, 458, 45.64),
        ("L/2", 80.71, 458, 23.33),
        ("XL/8", 7.39, 676, 106.41),
        ("XL/4", 29.05, 675, 43.01),
        ("XL/2", 118.64, 675, 19.47),
    )
)
DESIGNS = tuple(  # how a block hears of timestep and label; DiT's own is the last
    _at_400k(f"DiT-XL/2, {name}", preset, gflops, parameters, fid)
    for name, preset, gflops, parameters, fid in (
        ("in-context", "DiT-XL/2-in-context", 119.37, 449, 35.24),
        ("cross-attention", "DiT-XL/2-cross-attention", 137.62, 598, 26.14),
        ("adaLN", "DiT-XL/2-adaln", 118.56, 600, 25.21),
        ("adaLN-Zero", "DiT-XL/2", 118.64, 675, 19.47),
    )
)


def _xl_2(
    resolution: int, training_steps: int, fid: float, guidance: float | None = None, table: str = "Table 4"
) -> PaperResult:
    return PaperResult(
        name="DiT-XL/2-G" if guidance else "DiT-XL/2",
        resolution=resolution,
        gflops={256: 118.64, 512: 524.60}[resolution],
        parameters=675,
        fid=fid,
        guided=guidance is not None,
        training_steps=training_steps,
        settings=f"{UNGUIDED}, guidance {guidance:g}" if guidance else UNGUIDED,
        source=f"DiT, {table}",
        preset="DiT-XL/2",
        overrides=AT_512 if resolution == 512 else (),
    )


LONGER = (
    _xl_2(256, 2_352_000, 10.67),
    _xl_2(256, 7_000_000, 9.62),
    _xl_2(512, 1_301_000, 13.78),
    _xl_2(512, 3_000_000, 11.93),
)
GUIDED_DIT = (
    _xl_2(256, 7_000_000, 3.22, 1.25, "Tables 2 and 4"),
    _xl_2(256, 7_000_000, 2.27, 1.5, "Tables 2 and 4"),
    _xl_2(512, 3_000_000, 4.64, 1.25, "Tables 3 and 4"),
    _xl_2(512, 3_000_000, 3.04, 1.5, "Tables 3 and 4"),
)
# As DiffiT's authors list them beside their own. The number of MDT's parameters is not printed as such.
GUIDED_OTHERS = (
    PaperResult(
        name="DiffiT",
        resolution=256,
        gflops=114,
        parameters=561,
        fid=1.73,
        guided=True,
        settings="guidance rises from 1 to 4.6 over the steps (power-cosine)",
        source="DiffiT, Table 9",
        preset="DiffiT-XL/2",
    ),
    PaperResult(
        name="DiffiT",
        resolution=512,
        gflops=None,
        parameters=None,
        fid=2.67,
        guided=True,
        settings="guidance 1.49",
        source="DiffiT, ImageNet-512",
        preset="DiffiT-XL/2",
        overrides=AT_512,
    ),
    PaperResult(
        name="SiT-XL",
        resolution=256,
        gflops=119,
        parameters=675,
        fid=2.06,
        guided=True,
        training_steps=7_000_000,
        settings="250 SDE steps, guidance 1.5",
        source="DiffiT, Table 9; SiT",
        preset="DiT-XL/2",  # trained otherwise, the same network
    ),
    PaperResult(
        name="MDT-G",
        resolution=256,
        gflops=121,
        parameters=None,
        fid=1.79,
        guided=True,
        settings="guidance rises over the steps (power-cosine)",
        source="DiffiT, Table 9",
    ),
)
IMAGE_DIFFIT = tuple(
    PaperResult(
        name=name,
        resolution=side,
        gflops=None,
        parameters=None,
        fid=fid,
        training_steps=200_000,
        settings=f"{steps} steps of EDM's Heun sampler, no labels",
        source="DiffiT, image space",
        preset=name,
    )
    for name, side, fid, steps in (("DiffiT-CIFAR-32", 32, 1.95, 18), ("DiffiT-FFHQ-64", 64, 2.22, 40))
)


def _unet(
    name: str, resolution: int, gflops: float, fid: float | None, tables: str, parts: str = ""
) -> PaperResult:
    return PaperResult(
        name=name,
        resolution=resolution,
        gflops=gflops,
        parameters=None,
        fid=fid,
        settings=parts,
        source=f"DiT, {tables}",
    )


UNETS = (  # ADM-U: its base and its upsampler together
    _unet("ADM", 128, 307, None, "Table 6"),
    _unet("ADM", 256, 1120, 10.94, "Tables 2 and 6"),
    _unet("ADM", 512, 1983, 23.24, "Tables 3 and 6"),
    _unet("ADM-U", 256, 742, 7.49, "Tables 2 and 6", "base 110, upsampler 632 Gflops"),
    _unet("ADM-U", 512, 2813, 9.96, "Tables 3 and 6", "base 307, upsampler 2506 Gflops"),
    _unet("LDM-4", 256, 104, 10.56, "Tables 2 and 6"),
    _unet("LDM-8", 256, 57, 15.51, "Tables 2 and 6"),
)
BASELINES = tuple(name for name, config in MODELS.items() if config.backbone == "unet")  # ours; not printed
# DiT-XL/2 and its adaLN-Zero design are one row of the paper.
RESULTS = (*SCALING, *DESIGNS[:3], *LONGER, *UNETS, *GUIDED_DIT, *GUIDED_OTHERS, *IMAGE_DIFFIT)


def models() -> dict[str, ModelConfig]:
    """All models that are printed and built here, by our names, and our baselines."""
    printed = {result.our_name: result.config for result in RESULTS if result.preset}
    return printed | {name: preset(name) for name in BASELINES}


def of_config(config: ModelConfig) -> list[PaperResult]:
    """What is printed of a model, the first from Table 4 if there is one."""
    return [result for result in RESULTS if result.config == config]


def correlation(results: Iterable[PaperResult]) -> float:
    """Pearson's correlation of log10 Gflops with FID: what stands in the DiT paper's Fig. 8 for Table 4.

    Raises:
        ValueError: fewer than two results that have both numbers.
    """
    pairs = [(math.log10(r.gflops), r.fid) for r in results if r.gflops and r.fid]
    if len(pairs) < 2:
        raise ValueError(f"{len(pairs)} results have Gflops and FID; a correlation needs at least 2")
    return statistics.correlation(*zip(*pairs, strict=True))
