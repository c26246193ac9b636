"""What tells a network from any other: a digest of its config and numbers."""

import hashlib
import json

import torch

from dit.backbone import Backbone


def digest_of(model: Backbone) -> str:
    """SHA-256 of a network's config and numbers, in hexadecimal, whatever file they came from."""
    digest = hashlib.sha256(json.dumps(model.config.to_dict(), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
