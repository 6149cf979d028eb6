# SPDX-License-Identifier: Apache-2.0
"""What is behind :class:`semanir.Restorer`: images in memory, tiles through a network, files, videos."""
