# SPDX-License-Identifier: Apache-2.0
"""What is kept in a file beside its pixels: how the image was made, and what belonged to the photo."""

from __future__ import annotations

import base64
import json
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from PIL import ExifTags, Image

__all__ = ["NO_METADATA", "Metadata"]

_SOFTWARE, _DESCRIPTION = ExifTags.Base.Software.value, ExifTags.Base.ImageDescription.value
# sizes of the photo, which the enlarged image does not have
_STALE = (ExifTags.Base.ExifImageWidth.value, ExifTags.Base.ExifImageHeight.value)
# what a TIFF holds in its first folder: description, make, model, date, artist, copyright
_TIFF_TEXTS = (270, 271, 272, 306, 315, 33432)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """Metadata of an image file.

    Attributes:
        settings: How the image was made, as JSON values: ``prompt``, ``seed``, ``model``, ``settings``.
        exif: EXIF block of the photo, as bytes, without its orientation.
        dpi: Resolution of the photo, horizontal and vertical.
    """

    settings: Mapping[str, object] = field(default_factory=dict[str, object])
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None

    @property
    def software(self) -> str:
        """Name and version of this package."""
        return f"pixelsmith {version('pixelsmith')}"

    def texts(self) -> dict[str, str]:
        """Return the texts of a PNG by keyword.

        ``parameters`` has the form that viewers of generated images read: the prompt, then a line of
        settings; ``pixelsmith`` is JSON with everything.
        """
        if not self.settings:
            return {"Software": self.software}
        return {
            "Software": self.software,
            "parameters": self._parameters(),
            "pixelsmith": json.dumps(self.settings, sort_keys=True, ensure_ascii=False),
        }

    def _parameters(self) -> str:
        found: Mapping[str, Any] = self.settings
        model: Mapping[str, Any] = (found.get("settings") or {}).get("model") or {}
        named = {
            "Steps": model.get("num_inference_steps"),
            "Sampler": (model.get("scheduler") or {}).get("class"),
            "CFG scale": model.get("guidance_scale"),
            "Seed": found.get("seed"),
            "Model": found.get("model"),
        }
        line = ", ".join(f"{name}: {value}" for name, value in named.items() if value is not None)
        negative = model.get("negative_prompt")
        return "\n".join(
            part for part in (
                str(found.get("prompt") or ""), f"Negative prompt: {negative}" if negative else "", line
            ) if part
        )  # fmt: skip

    def photo_exif(self) -> Image.Exif:
        """Return the EXIF block of the photo, without what is true of the photo only; may be empty."""
        exif = Image.Exif()
        if self.exif is not None:
            exif.load(self.exif)
            details = exif.get_ifd(ExifTags.IFD.Exif)
            for tag in _STALE:
                details.pop(tag, None)
        return exif

    def whole_exif(self, longest: int = sys.maxsize) -> bytes:
        """Return an EXIF block that also says how the image was made, for formats without texts.

        Args:
            longest: Most bytes of the block; the settings, then what is of the photo, are left out for it.
        """
        block = b""
        for photo, settings in ((True, True), (True, False), (False, False)):
            exif = self.photo_exif() if photo else Image.Exif()
            exif[_SOFTWARE] = self.software
            if settings and self.settings and _DESCRIPTION not in exif:
                exif[_DESCRIPTION] = json.dumps(self.settings, sort_keys=True)
            block = exif.tobytes()
            if len(block) <= longest:
                break
        return block

    def png_chunks(self) -> list[tuple[bytes, bytes]]:
        """Return the chunks of a PNG before its pixels, kind and content."""
        chunks = [
            # keyword, no compression, no language, no translation, UTF-8
            (b"iTXt", name.encode("latin-1") + b"\0\0\0\0\0" + text.encode())
            for name, text in self.texts().items()
        ]
        if self.dpi is not None:
            per_metre = [max(1, round(value / 0.0254)) for value in self.dpi]
            chunks.append((b"pHYs", struct.pack(">IIB", *per_metre, 1)))
        exif = self.photo_exif()
        if len(exif):
            chunks.append((b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
        return chunks

    def tiff_tags(self) -> list[tuple[int, int, int, bytes, bool]]:
        """Return further tags for ``tifffile``: the texts of the photo, and how the image was made."""
        exif = self.photo_exif()
        texts = {tag: str(exif[tag]) for tag in _TIFF_TEXTS if tag in exif}
        if self.settings:
            own = json.dumps(self.settings, sort_keys=True)
            held = texts.get(_DESCRIPTION, "").strip()
            texts[_DESCRIPTION] = f"{held}\n{own}" if held else own
        encoded = {tag: text.encode() + b"\0" for tag, text in texts.items()}
        return [(tag, 2, len(text), text, True) for tag, text in encoded.items()]

    def photo_to_dict(self) -> dict[str, object]:
        """Return what belonged to the photo, fit for JSON."""
        exif = None if self.exif is None else base64.b64encode(self.exif).decode()
        return {"exif": exif, "dpi": None if self.dpi is None else list(self.dpi)}

    @classmethod
    def photo_from_dict(cls, values: Mapping[str, Any]) -> Metadata:
        """Undo :meth:`photo_to_dict`."""
        exif, dpi = values.get("exif"), values.get("dpi")
        return cls(
            exif=None if exif is None else base64.b64decode(exif),
            dpi=None if dpi is None else (dpi[0], dpi[1]),
        )


NO_METADATA = Metadata()
