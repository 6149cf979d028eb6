# SPDX-License-Identifier: Apache-2.0
"""Jobs: an image of any size, made in memory or in a folder; one in a folder can be killed at any time."""

from pixelsmith.job.estimates import Estimate, StageEstimate, estimate
from pixelsmith.job.inspect import JobState, StageState, inspect_job
from pixelsmith.job.plan import plan_job
from pixelsmith.job.processes import assist
from pixelsmith.job.progress import Hooks, JobInterrupted, JobProgress
from pixelsmith.job.run import Job, JobResult
from pixelsmith.job.spec import JobSpec
from pixelsmith.store.folder import FolderStore, remove_job
from pixelsmith.store.memory import MemoryStore

__all__ = [
    "Estimate",
    "FolderStore",
    "Hooks",
    "Job",
    "JobInterrupted",
    "JobProgress",
    "JobResult",
    "JobSpec",
    "JobState",
    "MemoryStore",
    "StageEstimate",
    "StageState",
    "assist",
    "estimate",
    "inspect_job",
    "plan_job",
    "remove_job",
]
