# SPDX-License-Identifier: Apache-2.0
"""The small model of vitron: what it learns, how it is judged, and the two experiments of the paper."""
