# SPDX-License-Identifier: Apache-2.0
"""Jobs: a picture of any size, made in a folder, resumable after a kill at any moment."""

from pixelsmith.job.estimate import Estimate, StageEstimate, estimate
from pixelsmith.job.processes import assist
from pixelsmith.job.progress import JobInterrupted, JobProgress
from pixelsmith.job.run import Job, JobResult, remove_job
from pixelsmith.job.source import SourceError
from pixelsmith.job.spec import JobSpec

__all__ = [
    "Estimate",
    "Job",
    "JobInterrupted",
    "JobProgress",
    "JobResult",
    "JobSpec",
    "SourceError",
    "StageEstimate",
    "assist",
    "estimate",
    "remove_job",
]
