# SPDX-License-Identifier: Apache-2.0
"""The denoising loop, independent of any model library."""
