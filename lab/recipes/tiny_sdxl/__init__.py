# SPDX-License-Identifier: Apache-2.0
"""tiny-sdxl: a small complete Stable Diffusion XL pipeline, trained from nothing on the drawn world."""
