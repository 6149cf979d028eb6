# SPDX-License-Identifier: Apache-2.0
"""What each part of pixelsmith is worth, with tiny-sdxl on the drawn world."""
