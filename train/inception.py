"""The standard Inception as an extractor: with its features the measures are FID, KID, IS and sFID.

Its code and its weights, converted from TensorFlow's of 2015, are torch-fidelity's, an optional extra.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dit.download import HubError, download
from dit.files import sha256
from dit.remote import cache_dir
from train.features import MAP_CHANNELS, Features, collect, flat

URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
DIGEST_BEGINS = "6726825d"  # of the file's SHA-256; its name ends with it
LAYERS = ["2048", "logits_unbiased"]  # ADM's evaluator leaves the bias out too


class InceptionFeatures:
    """Features of torch-fidelity's FeatureExtractorInceptionV3, as ADM's evaluator takes them.

    Pooled: 2048. The map: 7 channels of the first branch of the block that TensorFlow calls mixed_6, 17 x 17.
    Classes: its 1008, without the bias. The network itself scales pictures to 299 x 299, as TensorFlow 1 did.
    """

    name = "inception"
    classes: tuple[str, ...] = ()  # those of no data set here
    side = None
    dimensions = (2048, MAP_CHANNELS * 17 * 17)

    def __init__(self, device: torch.device | str = "cpu", weights: Path | None = None) -> None:
        """weights: the file, if it is on this disk already.

        Raises:
            ValueError: torch-fidelity is not installed.
            HubError: the weights cannot be fetched, or are damaged.
        """
        network = _network()
        path = weights or fetch_weights()
        self.digest, self.file, self.device = sha256(path), path.name, torch.device(device)
        tensors = io.BytesIO()  # it would unpickle anything: it gets tensors, and nothing else
        torch.save(torch.load(path, map_location="cpu", weights_only=True), tensors)
        tensors.seek(0)
        self.model: nn.Module = network("inception-v3-compat", LAYERS, feature_extractor_weights_path=tensors)
        self.model.to(self.device).eval()
        self.inner: Tensor | None = None
        self.model.Mixed_6d.branch1x1.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.inner = output

    def told(self) -> dict[str, Any]:
        """Which it is."""
        return {"name": self.name, "file": self.file, "sha256": self.digest}

    def of(self, pictures: np.ndarray) -> Features:
        """pictures: (N, H, W, 3) uint8 of any size."""
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3:
            raise ValueError(
                f"pictures are {pictures.dtype} {pictures.shape}; Inception takes uint8 (N, H, W, 3)"
            )

        def see(chunk: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
            x = torch.from_numpy(np.array(chunk)).permute(0, 3, 1, 2).to(self.device)
            pool, logits = self.model(x)
            return pool, flat(self.inner[:, :MAP_CHANNELS]), logits.softmax(1)

        return collect(see, pictures, chunk=50)


def fetch_weights() -> Path:
    """The weights' file, downloaded into the cache once (91 MB).

    Raises:
        HubError: it cannot be fetched, or what came is not it.
    """
    path = cache_dir() / "inception" / URL.rsplit("/", 1)[1]
    try:
        download(URL, path)
    except HubError as error:
        raise HubError(
            f"Inception's weights cannot be fetched: {error}; put the file of that address at {path}, or use "
            "--features classifier"
        ) from error
    if not (found := sha256(path)).startswith(DIGEST_BEGINS):
        raise HubError(
            f"{path}: its SHA-256 begins with {found[:8]} instead of {DIGEST_BEGINS}; remove it, and run the "
            "same command again"
        )
    return path


def _network() -> Any:
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except (ImportError, RuntimeError) as error:  # the latter of a torchvision of another torch
        raise ValueError(
            f"the standard Inception needs torch-fidelity, which cannot be imported: {error}; run pip "
            "install torch-fidelity, or use --features classifier"
        ) from error
    return FeatureExtractorInceptionV3
