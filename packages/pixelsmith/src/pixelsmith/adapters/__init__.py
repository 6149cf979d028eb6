# SPDX-License-Identifier: Apache-2.0
"""Denoisers of host libraries behind one protocol."""
