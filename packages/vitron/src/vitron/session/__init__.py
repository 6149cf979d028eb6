# SPDX-License-Identifier: Apache-2.0
"""Conversations between one user and one model."""
