# SPDX-License-Identifier: Apache-2.0
"""Evaluation of the shipped models on photographs and on photographic composites, beside plain methods."""
