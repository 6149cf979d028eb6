# SPDX-License-Identifier: Apache-2.0
"""Errors of job folders."""

__all__ = ["JobFolderError"]


class JobFolderError(OSError):
    """A job folder is damaged, belongs to another configuration, or its disk is full."""
