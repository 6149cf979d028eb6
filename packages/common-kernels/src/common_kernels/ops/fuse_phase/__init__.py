# SPDX-License-Identifier: Apache-2.0
"""Fusion of the phases of two images in the Fourier domain."""

from common_kernels.ops.fuse_phase.api import explain_fuse_phase, fuse_phase

__all__ = ["explain_fuse_phase", "fuse_phase"]
