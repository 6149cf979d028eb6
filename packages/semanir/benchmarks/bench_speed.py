# SPDX-License-Identifier: Apache-2.0
"""Time and memory of SemanIR beside SwinIR and ATD at nearly equal numbers of weights, on one CPU thread.

    python bench_speed.py --size 128 --repeats 3
    COMMON_KERNELS_NATIVE=off python bench_speed.py --size 512 --networks tiny-denoise

All networks double the sides of the same image, their weights are random, each runs in a process of its own;
only ``tiny-denoise``, which is asked for by name, restores.
Time is that of the processor, which other programs on it do not lengthen much. SwinIR and ATD are those of
spandrel (extra ``spandrel``), in the light configurations of their papers.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from statistics import median

import torch
from torch import nn

DEPTHS, DIM, HEADS, UPSCALE = (6, 6, 6, 6), 60, 6, 2


def semanir(*, window: int, k: int) -> nn.Module:
    """Return the columnar network with as many layers and channels as the light SwinIR."""
    from semanir import SemanIR, SemanIRConfig

    config = SemanIRConfig.preset(
        "sr-small",
        embed_dims=(DIM,),
        num_heads=(HEADS,),
        depths=DEPTHS,
        window_size=window,
        k=k,
        upscale=UPSCALE,
        upsampler="pixelshuffledirect",
    )
    return SemanIR(config)


def swinir(*, window: int = 8) -> nn.Module:
    """Return the light SwinIR (arXiv 2108.10257, Sec. 4.1), as spandrel has it."""
    from spandrel.architectures.SwinIR import SwinIR

    return SwinIR(
        img_size=64,
        embed_dim=DIM,
        depths=list(DEPTHS),
        num_heads=[HEADS] * len(DEPTHS),
        window_size=window,
        mlp_ratio=2.0,
        upscale=UPSCALE,
        upsampler="pixelshuffledirect",
    )


def atd() -> nn.Module:
    """Return the light ATD (arXiv 2401.08209, Sec. 4.1), as spandrel has it."""
    from spandrel.architectures.ATD import ATD

    return ATD(
        img_size=64,
        embed_dim=48,
        depths=(6, 6, 6, 6),
        num_heads=(4, 4, 4, 4),
        window_size=16,
        category_size=128,
        num_tokens=64,
        reducted_dim=8,
        convffn_kernel_size=7,
        mlp_ratio=1.0,
        upscale=UPSCALE,
        upsampler="pixelshuffledirect",
        norm=True,
    )


def shipped() -> nn.Module:
    """Return the denoiser inside the package, as ``semanir restore`` runs it on a tile."""
    from semanir import SemanIR

    model = SemanIR.from_pretrained("tiny-denoise", device="cpu")
    return model.to(memory_format=torch.channels_last)


NETWORKS = {
    "SemanIR, window 32, k 128": lambda: semanir(window=32, k=128),
    "SemanIR, window 32, k 1024": lambda: semanir(window=32, k=1024),
    "SemanIR, window 16, k 64": lambda: semanir(window=16, k=64),
    "SemanIR, window 8, k 32": lambda: semanir(window=8, k=32),
    "SwinIR light, window 8": swinir,
    "SwinIR light, window 32": lambda: swinir(window=32),
    "ATD light": atd,
    "tiny-denoise": shipped,
}


def measure(name: str, size: int, repeats: int) -> dict[str, object]:
    """Return weights in millions, median seconds of the processor, and memory beyond the network in MB."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = NETWORKS[name]().eval()
    image = torch.rand(1, 3, size, size)
    with torch.inference_mode():
        model(torch.rand(1, 3, 64, 64))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        times = [_time(model, image) for _ in range(repeats)]
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    weights = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    return {
        "network": name,
        "weights_m": round(weights, 3),
        "seconds": round(median(times), 2),
        "memory_mb": round((after - before) / 1024),
    }


def _time(model: nn.Module, image: torch.Tensor) -> float:
    began = time.process_time()
    model(image)
    return time.process_time() - began


def main() -> None:
    """Print one JSON object per network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="side of the image in pixels")
    parser.add_argument("--repeats", type=int, default=3)
    peers = [name for name in NETWORKS if name != "tiny-denoise"]
    parser.add_argument("--networks", nargs="*", default=peers, help="names of the table")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(measure(options.networks[0], options.size, options.repeats)), flush=True)
        return
    for name in options.networks:
        numbers = ["--size", str(options.size), "--repeats", str(options.repeats)]
        subprocess.run([sys.executable, __file__, "--inside", *numbers, "--networks", name], check=True)


if __name__ == "__main__":
    main()
