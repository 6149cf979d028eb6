# SPDX-License-Identifier: Apache-2.0
"""Jobs: a picture of any size, made in a folder, resumable after a kill at any moment."""

from pixelsmith.job.estimates import Estimate, StageEstimate, estimate
from pixelsmith.job.inspect import JobState, StageState, inspect_job
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
    "JobState",
    "SourceError",
    "StageEstimate",
    "StageState",
    "assist",
    "estimate",
    "inspect_job",
    "remove_job",
]
