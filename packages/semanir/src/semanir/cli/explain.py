# SPDX-License-Identifier: Apache-2.0
"""``semanir explain``: which patches a pixel attends to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from common_kernels.runtime.cli import Device, Output, emit, say
from common_kernels.runtime.images import MAX_PIXELS
from cyclopts import Parameter


def explain(
    image: Path,
    /,
    *,
    at: Annotated[str, Parameter(allow_leading_hyphen=True)],
    output: Output,
    device: Device = Device(),
    model: str = "tiny-denoise",
    k: str = "",
    max_pixels: int = MAX_PIXELS,
) -> int:
    """Show which patches a pixel attends to: those that its stage lists as most similar, for several k.

    Writes an image, a row for each stage of the network, and beside it a page of the same name that ends in
    .html, with a slider for the number of keys.

    **Examples**

        semanir explain photo.jpg --at 210,95 -o patches.png
        semanir explain photo.jpg --at 210,95 -o patches.png --k 4,16,64 --model runs/mine/model

    Exit code: 0 done, 2 nothing could be done.

    Args:
        image: Image file.
        at: Pixel, as X,Y; 0,0 is the upper left one.
        model: Shipped name, folder, file, or hub id of a SemanIR network; see `semanir models`.
        k: Numbers of keys to draw, as in 4,16,64; by default a quarter and a half of the network's number,
            and that itself.
        max_pixels: Largest image to read, in pixels.
    """
    point, ks = _numbers("--at", at, "X,Y"), _numbers("--k", k, "4,16,64") if k else []
    if len(point) != 2:
        raise ValueError(f"--at must be X,Y, got {at!r}")
    page = output.output.with_suffix(".html")
    if output.output.suffix.lower() not in {".png", ".jpg", ".jpeg", ".webp"}:
        raise ValueError(f"--output must be a .png, .jpg or .webp file, got {output.output}")
    for file in (output.output, page):
        if file.exists() and not output.overwrite:
            raise FileExistsError(f"{file} exists: --overwrite replaces it")
    from common_kernels.runtime.files import atomic_write
    from common_kernels.runtime.images import read_image, write_image

    from semanir.data.crops import read_tensor
    from semanir.explanation import explain as find_listings
    from semanir.explanation_pictures import draw_listings, listings_page
    from semanir.model import SemanIR

    shown = read_image(image, max_pixels=max_pixels).to_rgb()
    network = SemanIR.from_pretrained(model, device=device.device, dtype=device.dtype)
    config = network.config
    ks = ks or sorted({max(1, config.k // 4), max(1, config.k // 2), min(config.k, config.window_size**2)})
    tensor = read_tensor(image, config.in_channels).to(next(network.parameters()).device)
    listings = find_listings(network, tensor, (point[0], point[1]), ks)
    if too_large := [each for each in ks if each > config.window_size**2]:
        raise ValueError(
            f"--k must be at most {config.window_size**2}, the tokens of a window, got {too_large[0]}"
        )
    title = f"{image.name}, pixel {point[0]},{point[1]}"
    write_image(draw_listings(shown, listings, ks, title=title), output.output)
    with atomic_write(page) as file:
        file.write(listings_page(shown, listings, title=title).encode())
    if output.json:
        stages = [{"stage": e.stage, "shift": e.shift, "token_size": e.token_size} for e in listings]
        entry = {"input": str(image), "outputs": {"image": str(output.output), "page": str(page)}}
        emit(entry | {"status": "done", "at": point, "k": ks, "stages": stages})
    else:
        say(f"Look at {output.output} and {page}")
    return 0


def _numbers(option: str, text: str, example: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(f"{option} must be whole numbers such as {example}, got {text!r}") from error
