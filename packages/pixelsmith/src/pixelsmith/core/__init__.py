# SPDX-License-Identifier: Apache-2.0
"""The loop itself, free of any model library."""
