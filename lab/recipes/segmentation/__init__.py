# SPDX-License-Identifier: Apache-2.0
"""What each part of ITACLIP is worth on the drawn world."""
