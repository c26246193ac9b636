"""DiT-XL/2 with random weights in every layout that the real ones come in: for benchmarks and trials by hand.

python -m benchmarks.full_size --folder FOLDER    # 9 GB; then HF_HOME=FOLDER HF_HUB_OFFLINE=1 python app.py
"""

import json
import sys
from pathlib import Path

import torch
import tyro
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor

import dit
from dit.diffusers_layout import to_diffusers
from dit.export import scheduler_config, transformer_config
from dit.published import PUBLISHED

NAME = "DiT-XL/2-256"
AUTHORS, HUB_CACHE, DIFFUSERS = "DiT-XL-2-256x256.pt", "hub", "diffusers"


def random_model(preset: str = "DiT-XL/2", **overrides: int) -> dit.DiT:
    """A model that draws something: past the zero initialisation, whose output is 0 whatever it is given."""
    torch.manual_seed(0)
    model = dit.build(preset, **overrides)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.02)
    return model.eval()


def diffusers_state(model: dit.DiT) -> dict[str, Tensor]:
    """A state dict under diffusers' names, as its conversion of the authors' files makes it."""
    tensors = to_diffusers(model.config, model.state_dict())
    return {name: tensor.clone() for name, tensor in tensors.items()}  # no two in one storage


def random_autoencoder() -> AutoencoderKL:
    """The SD autoencoder's architecture (83.65 M parameters), random weights."""
    torch.manual_seed(1)
    blocks = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    return AutoencoderKL(
        down_block_types=blocks[0],
        up_block_types=blocks[1],
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        sample_size=256,
    ).eval()


def write(folder: Path) -> None:
    """The authors' file, a diffusers folder with safetensors, and a Hub cache with .bin files."""
    model, autoencoder = random_model(), random_autoencoder()
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), folder / AUTHORS)
    published = PUBLISHED[NAME]
    home = folder / HUB_CACHE / f"models--{published.repo_id.replace('/', '--')}"
    snapshot = home / "snapshots" / published.revision
    tensors = diffusers_state(model)
    config = transformer_config(model.config) | {"num_embeds_ada_norm": model.config.num_classes}
    # As published: from before diffusers had a class of its own for it, and before norm_eps was written down.
    published_config = {k: v for k, v in config.items() if k != "norm_eps"} | {
        "_class_name": "Transformer2DModel"
    }
    index = {
        "_class_name": "DiTPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "transformer": ["diffusers", "DiTTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    for place, said, safe in ((snapshot, published_config, False), (folder / DIFFUSERS, config, True)):
        for part in ("transformer", "scheduler"):
            (place / part).mkdir(parents=True, exist_ok=True)
        (place / "model_index.json").write_text(json.dumps(index))
        (place / "transformer" / "config.json").write_text(json.dumps(said))
        (place / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler_config(model.config)))
        autoencoder.save_pretrained(place / "vae", safe_serialization=safe)
        weights = place / "transformer" / "diffusion_pytorch_model"
        if safe:
            save_file(tensors, f"{weights}.safetensors", metadata={"format": "pt"})
        else:
            torch.save(tensors, f"{weights}.bin")
    (home / "refs").mkdir(exist_ok=True)
    (home / "refs" / "main").write_text(published.revision)


if __name__ == "__main__":
    sys.exit(tyro.cli(write, description=__doc__))
