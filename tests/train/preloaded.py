"""What the process that tests fork others from does once for them all: imports, and measures the CPU."""

import diffusers.models.autoencoders.autoencoder_kl  # noqa: F401
import pytest  # noqa: F401
import torch
import torch._dynamo  # noqa: F401  imported by the first optimizer otherwise

import train.__main__
import train.encode  # noqa: F401
from train.ceiling import matmul_ceiling

torch.set_num_threads(1)
matmul_ceiling(torch.device("cpu"), False)
