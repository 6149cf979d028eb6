# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with the files of a job."""

__all__ = ["JobFolderError"]


class JobFolderError(RuntimeError):
    """A job folder is damaged, belongs to another configuration, or has no room left."""
