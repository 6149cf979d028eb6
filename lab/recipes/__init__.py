# SPDX-License-Identifier: Apache-2.0
"""Training and judging of the shipped small models; never published."""
