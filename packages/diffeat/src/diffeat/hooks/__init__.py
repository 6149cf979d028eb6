# SPDX-License-Identifier: Apache-2.0
"""Forward hooks that read activations from a running denoiser."""
