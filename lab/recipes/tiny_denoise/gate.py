# SPDX-License-Identifier: Apache-2.0
"""What a shipped denoiser must reach."""

from __future__ import annotations

SIGMAS = (15, 25, 50)
MEAN_GAIN = {15: 1.2, 25: 1.6, 50: 1.8}  # dB over the better classical baseline, colour photographs
WORST_LOSS = 0.2  # dB that a single photograph may lose
CLEAN_FLOOR = 40.0  # dB that every clean photograph must keep
CAVEAT = (
    "Trained on synthetic dead leaves only. Judged on 11 photographs, so the figures do not compare with "
    "published tables. White Gaussian noise only: real camera noise is not covered."
)
