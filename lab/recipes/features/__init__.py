# SPDX-License-Identifier: Apache-2.0
"""Which activations of the small diffusion model say what, measured on the drawn world."""
