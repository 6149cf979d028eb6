# SPDX-License-Identifier: Apache-2.0
"""Images of any size: resized, encoded, decoded and written in strips."""
