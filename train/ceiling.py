"""How fast a device could be, and how much of that a run uses (MFU)."""

import functools
import time

import torch

SIDES = {
    "cpu": (256, 512, 1024, 2048),
    "mps": (2048, 4096),
    "cuda": (4096, 8192, 16384),
}  # of square matrices
SECONDS = 0.1  # of multiplying, for each side
STRETCH = 0.02  # seconds that are timed at once: short, as the best is one without interruption
PASSES = 3  # forward, and backward with respect to activations and to weights


@functools.cache
def matmul_ceiling(device: torch.device, bf16: bool) -> float:
    """FLOP/s of large matrix products, in the precision that the trainer's run in: the best of several.

    1 MAC = 2 FLOPs. What a processor's data sheet promises is more; what a network reaches is less. 0 for
    XLA devices, where products that nobody needs are not computed.
    """
    if device.type == "xla":
        return 0.0
    dtype = torch.bfloat16 if bf16 else torch.float32
    best = 0.0
    for side in SIDES.get(device.type, SIDES["cpu"]):
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        out, flops = torch.empty_like(a), 2 * side**3
        if _seconds(a, b, out, 1) > SECONDS:  # which warms up; some processors are slow in half precision
            break
        spent = _seconds(a, b, out, 1)
        repeats = max(1, int(STRETCH / spent))
        best = max(best, flops / spent)
        while spent < SECONDS:
            took = _seconds(a, b, out, repeats)
            best, spent = max(best, flops * repeats / took), spent + took
    return best


def _seconds(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor, repeats: int) -> float:
    _wait(a.device)
    began = time.perf_counter()
    for _ in range(repeats):
        torch.mm(a, b, out=out)
    _wait(a.device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def mfu(macs_per_picture: int, images_per_second: float, ceiling: float, devices: int = 1) -> float:
    """Model FLOPs utilisation: the share, 0 to 1, of the ceiling that training uses.

    PaLM (2204.02311), appendix B: what the model needs, 3 passes of 2 FLOPs a MAC, not what is recomputed.

    Raises:
        ValueError: a ceiling or number of devices that is not positive.
    """
    if not (ceiling > 0 and devices > 0):
        raise ValueError(f"ceiling is {ceiling} FLOP/s of {devices} devices; both must be above 0")
    return PASSES * 2 * macs_per_picture * images_per_second / (ceiling * devices)
