# SPDX-License-Identifier: Apache-2.0
"""The frozen probe that judges generated images, and nothing else."""
