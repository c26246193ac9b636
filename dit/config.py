"""What a network is: a frozen config, checked when made."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

BACKBONES = ("dit", "diffit", "diffit-image", "unet")
U_SHAPED = ("diffit-image", "unet")
CONDITIONINGS = ("adaln-zero", "adaln", "cross-attention", "in-context")
PREDICTIONS = ("epsilon", "v", "velocity")
FORMULATIONS = ("ddpm", "edm", "flow")
FREQUENCIES = 128  # of the timestep's sinusoids
TIME_FACTOR = 4  # width of image DiffiT's time embedding, in hidden_size: 512, best in the paper's ablation
AUGMENTATIONS = 9  # numbers that say how EDM augmented a picture (train.augment)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of a model, in the DiT authors' own field names (facebookresearch/DiT, models.py).

    A backbone is isotropic ("dit", "diffit": patches, then `depth` blocks of one width) or U-shaped
    ("diffit-image", "unet": `depth` blocks in every stage, of width hidden_size * channel_mult[i]; every
    stage but the first halves the side).

    Raises:
        TypeError: a size is not a whole number.
        ValueError: a field is out of range; the message says value, constraint and remedy.
    """

    hidden_size: int  # D, the width of a token; of a U-shape, what channel_mult multiplies
    depth: int  # number of blocks; of a U-shape, in every stage
    num_heads: int  # where the width is hidden_size; wider stages have more heads of the same width
    patch_size: int = 2
    input_size: int = 32  # side of the (square) latent or picture
    in_channels: int = 4  # 4 for the SD autoencoder's latents, 3 for RGB, 1 for grey
    mlp_ratio: float = 4.0
    num_classes: int = 1000  # 0 makes an unconditional model; also the id of the null class
    class_dropout_prob: float = 0.1  # share of labels replaced by the null class in training; 0: has none
    learn_sigma: bool = True  # the output carries variance channels after the noise channels
    backbone: str = "dit"
    conditioning: str = "adaln-zero"  # how a DiT hears of timestep and label: its four block designs
    # "edm": noise levels are sigmas, the network is preconditioned (2206.00364). "flow": they are times from
    # 0 to 1 on straight paths from data to noise (2401.08740).
    formulation: str = "ddpm"
    # What the first C channels are: the noise (the paper), v (2202.00512), or of "flow" the path's velocity.
    prediction: str = "epsilon"
    qk_norm: bool = False  # queries and keys are normalised in each head (2302.05442; see dit.layers)
    # Of the U-shaped backbones.
    channel_mult: tuple[int, ...] = ()
    window_size: int = 0  # side of the windows that diffit-image attends in
    dropout: float = 0.0
    augment_dim: int = 0  # of the augmentation labels that diffit-image is conditioned on; 0: none
    # Where diffusers' DiT computes otherwise than the authors'. Its files only draw as meant if we follow.
    frequency_shift: int = 0  # 1: divides the exponents of the timestep frequencies by 127, not by 128
    mlp_norm_eps: float = 1e-6  # of the layer norm before the MLP; diffusers' files may say 1e-5
    block_embedders: bool = False  # every block embeds timestep and label by weights of its own

    def __post_init__(self) -> None:
        if isinstance(self.channel_mult, list):  # as JSON has it
            object.__setattr__(self, "channel_mult", tuple(self.channel_mult))
        if not isinstance(self.channel_mult, tuple):
            raise TypeError(f"channel_mult must be a tuple of whole numbers, not {self.channel_mult!r}")
        self._check_numbers()
        self._check_choices()
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}; "
                "change one so that every head gets the same width"
            )
        if self.input_size % self.patch_size:
            raise ValueError(
                f"input_size {self.input_size} is not a multiple of patch_size {self.patch_size}; "
                "choose a patch that divides the side"
            )
        self._check_formulation()
        if self.backbone in U_SHAPED:
            self._check_u_shape()
        else:
            self._check_isotropic()

    def _check_numbers(self) -> None:
        whole = {"num_classes": 0, "window_size": 0, "augment_dim": 0}
        whole |= dict.fromkeys(
            ("hidden_size", "depth", "num_heads", "patch_size", "input_size", "in_channels"), 1
        )
        values = [(name, getattr(self, name), least) for name, least in whole.items()]
        values += [(f"channel_mult[{i}]", value, 1) for i, value in enumerate(self.channel_mult)]
        for name, value, least in values:
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be a whole number, not {value!r}")
            if value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}")
        for name in ("class_dropout_prob", "dropout", "mlp_ratio", "mlp_norm_eps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{name} must be a number, not {value!r}")
        for name in ("class_dropout_prob", "dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1")
        for name in ("mlp_ratio", "mlp_norm_eps"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive and finite")
        if int(self.hidden_size * self.mlp_ratio) < 1:
            raise ValueError(
                f"mlp_ratio is {self.mlp_ratio}, which leaves an MLP of hidden_size {self.hidden_size} no "
                f"width; it must be at least {1 / self.hidden_size:.3g}"
            )

    def _check_choices(self) -> None:
        for name, allowed in (
            ("backbone", BACKBONES),
            ("conditioning", CONDITIONINGS),
            ("formulation", FORMULATIONS),
            ("prediction", PREDICTIONS),
            ("learn_sigma", (False, True)),
            ("qk_norm", (False, True)),
            ("block_embedders", (False, True)),
            ("augment_dim", (0, AUGMENTATIONS)),
            ("frequency_shift", (0, 1)),
        ):
            if getattr(self, name) not in allowed:
                choices = ", ".join(map(str, allowed))
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {choices}")
        only = {  # field: which backbones have it
            "conditioning": ("dit",),
            "block_embedders": ("dit",),
            "frequency_shift": ("dit", "diffit"),
            "mlp_norm_eps": ("dit",),
            "qk_norm": ("dit", "diffit", "diffit-image"),
            "channel_mult": U_SHAPED,
            "dropout": U_SHAPED,
            "window_size": ("diffit-image",),
            "augment_dim": ("diffit-image",),
        }
        defaults = {field.name: field.default for field in fields(self)}
        for name, backbones in only.items():
            if self.backbone not in backbones and (value := getattr(self, name)) != defaults[name]:
                raise ValueError(
                    f"{name} is {value!r}, but backbone {self.backbone} has no {name}; leave it out, "
                    f"or choose backbone {' or '.join(backbones)}"
                )
        for name in ("block_embedders", "mlp_norm_eps"):
            if self.conditioning != "adaln-zero" and (value := getattr(self, name)) != defaults[name]:
                raise ValueError(
                    f"{name} is {value!r}, but conditioning is {self.conditioning}; leave it out, as only "
                    "adaln-zero has it"
                )

    def _check_formulation(self) -> None:
        if self.formulation != "edm" and self.augment_dim:
            raise ValueError(
                f"augment_dim is {self.augment_dim}, but formulation is {self.formulation}; only edm has "
                "augmentation labels: use 0"
            )
        if self.formulation != "ddpm" and self.learn_sigma:
            raise ValueError(
                f"learn_sigma is True, but formulation {self.formulation} learns no variance; set it to False"
            )
        if self.formulation == "edm" and self.prediction != "epsilon":
            raise ValueError(
                f"prediction is {self.prediction!r}, but the preconditioning of formulation edm fixes what "
                "is predicted; leave it out"
            )
        if (self.formulation == "flow") != (self.prediction == "velocity"):
            remedy = "set it to velocity" if self.formulation == "flow" else "choose epsilon or v"
            raise ValueError(
                f"prediction is {self.prediction!r}, but formulation is {self.formulation}, and flow, only "
                f"flow, predicts the velocity; {remedy}"
            )

    def _check_isotropic(self) -> None:
        if self.hidden_size % 4:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of 4, as the 2-D position table needs; "
                "choose one that is"
            )

    def _check_u_shape(self) -> None:
        if self.patch_size != 1:
            raise ValueError(
                f"patch_size is {self.patch_size}, but backbone {self.backbone} has no patches; set it to 1"
            )
        if not self.channel_mult:
            raise ValueError(
                f"channel_mult is empty; backbone {self.backbone} needs a number for each stage, "
                "such as (1, 2, 2)"
            )
        if self.hidden_size % 4:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of 4, as the group norms need; "
                "choose one that is"
            )
        halvings = len(self.channel_mult) - 1
        if self.input_size % 2**halvings:
            raise ValueError(
                f"input_size {self.input_size} is not a multiple of {2**halvings}, as {halvings + 1} stages "
                "that each halve the side need; change one of them"
            )
        if self.backbone == "diffit-image":
            for width, side in self.stages:
                self._check_stage(width, side)

    def _check_stage(self, width: int, side: int) -> None:
        """Of the image-space DiffiT."""
        if width > 128 and width % 32:  # the most groups of a norm, each of at least 4 channels
            raise ValueError(
                f"hidden_size {self.hidden_size} makes a stage {width} wide, no multiple of 32, as the "
                "group norm of a stage wider than 128 needs; choose another hidden_size or channel_mult"
            )
        if not 1 <= self.window_size <= side:
            raise ValueError(
                f"window_size is {self.window_size}, but the stage of side {side} needs one from 1 to "
                f"{side}; choose a smaller window or fewer stages"
            )
        if side % self.window_size:
            raise ValueError(
                f"a stage has side {side}, no multiple of window_size {self.window_size}; "
                "choose a window that divides all sides"
            )

    @property
    def design(self) -> str:
        """The backbone in words, and how it is told timestep and class where it has the choice."""
        if self.backbone != "dit":
            return {"diffit": "DiffiT", "diffit-image": "DiffiT, image space", "unet": "U-Net"}[self.backbone]
        return f"DiT, {self.conditioning.replace('adaln', 'adaLN').replace('zero', 'Zero')}"

    @property
    def stages(self) -> tuple[tuple[int, int], ...]:
        """Width and side of each stage of a U-shape, from the picture inwards."""
        return tuple(
            (self.hidden_size * factor, self.input_size // 2**i) for i, factor in enumerate(self.channel_mult)
        )

    @property
    def head_size(self) -> int:
        """Width of an attention head, the same everywhere."""
        return self.hidden_size // self.num_heads

    @property
    def out_channels(self) -> int:
        """Channels of the output: noise (C), then variance logits (C) if `learn_sigma`."""
        return self.in_channels * (2 if self.learn_sigma else 1)

    @property
    def is_latent(self) -> bool:
        """Whether the model draws latents, which an autoencoder decodes; 1 (grey) and 3 (RGB) are pixels."""
        return self.in_channels not in (1, 3)

    @property
    def tokens(self) -> int:
        """T, the number of patches of one picture; of a U-shape, the places of its first stage."""
        return (self.input_size // self.patch_size) ** 2

    @property
    def label_rows(self) -> int:
        """Rows of the label table: the classes, and the null class if labels are ever dropped."""
        return self.num_classes + (self.class_dropout_prob > 0) if self.num_classes else 0

    @property
    def has_null_class(self) -> bool:
        """Whether the model learned an unconditional mode next to its classes, as guidance needs."""
        return self.num_classes > 0 and self.class_dropout_prob > 0

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self) | {"channel_mult": list(self.channel_mult)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """The inverse of `to_dict`. Raises ValueError on a field this version does not know."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown config fields {unknown}; this version knows {sorted(known)}")
        return cls(**values)
