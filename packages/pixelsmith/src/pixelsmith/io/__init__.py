# SPDX-License-Identifier: Apache-2.0
"""Pictures of any size: resized, encoded, decoded and written in strips."""
