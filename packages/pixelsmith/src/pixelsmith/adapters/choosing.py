# SPDX-License-Identifier: Apache-2.0
"""Schedulers by name, and instead of those that have no closed form."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from pixelsmith.adapters.schedulers import SUPPORTED, closed_form
from pixelsmith.config import SCHEDULERS

Announce = Callable[[str], object]

_log = logging.getLogger(__name__)
_FLOW_FAMILIES = ("StableDiffusion3", "SD3", "Flux")
# the nearest solver with a closed form: of one order, without the noise that some add at every step. Those of
# distilled models (LCM, TCD) have none
_NEAREST = {
    "PNDMScheduler": "ddim",
    "DDPMScheduler": "ddim",
    "DDIMParallelScheduler": "ddim",
    "EulerAncestralDiscreteScheduler": "euler",
    "EDMEulerScheduler": "euler",
    "HeunDiscreteScheduler": "dpm++",
    "LMSDiscreteScheduler": "dpm++",
    "KDPM2DiscreteScheduler": "dpm++",
    "KDPM2AncestralDiscreteScheduler": "dpm++",
    "DPMSolverSDEScheduler": "dpm++",
    "DPMSolverSinglestepScheduler": "dpm++",
    "DEISMultistepScheduler": "dpm++",
    "UniPCMultistepScheduler": "dpm++",
    "FlowMatchHeunDiscreteScheduler": "flow-euler",
}


def set_scheduler(pipe: Any, name: str) -> None:
    """Replace the scheduler of a pipeline by one with a closed form and the same noise levels.

    Args:
        pipe: Pipeline of diffusers.
        name: Key or value of :data:`pixelsmith.config.SCHEDULERS`.

    Raises:
        ValueError: If the name is unknown, or the scheduler is for models of another kind.
    """
    import diffusers

    kind = SCHEDULERS.get(name, name)
    if kind not in SUPPORTED:
        raise ValueError(f"scheduler must be one of {', '.join(SCHEDULERS)}, got {name!r}")
    title = type(pipe).__name__.removeprefix("Pixelsmith")
    is_flow = title.startswith(_FLOW_FAMILIES)
    fitting = ("FlowMatchEulerDiscreteScheduler", "DPMSolverMultistepScheduler")
    if is_flow and kind not in fitting:
        raise ValueError(f"{title} predicts a flow; its scheduler must be flow-euler or dpm++, got {name}")
    if not is_flow and kind == fitting[0]:
        raise ValueError(f"{title} predicts no flow; its scheduler must be ddim, euler or dpm++, got {name}")
    config, more = pipe.scheduler.config, dict[str, Any]()
    if kind == fitting[1]:
        # other algorithms and orders have no closed form
        more = {"algorithm_type": "dpmsolver++", "solver_order": 2, "thresholding": False}
    if is_flow and kind == fitting[1]:
        more |= {
            "use_flow_sigmas": True, "prediction_type": "flow_prediction",
            "flow_shift": config.get("shift", 1.0),
        }  # fmt: skip
    pipe.scheduler = getattr(diffusers, kind).from_config(config, **more)


def ensure_closed_form(pipe: Any, announce: Announce = _log.warning) -> None:
    """Replace a scheduler that has no closed form by the nearest that has one, and say so.

    A scheduler without a near one stays, and is refused when the pipeline becomes the model of a job.

    Args:
        pipe: Pipeline of diffusers.
        announce: Called with one sentence.
    """
    scheduler = getattr(pipe, "scheduler", None)
    kind = type(scheduler).__name__
    if scheduler is None or kind in SUPPORTED:
        return
    name = _NEAREST.get(kind)
    if name is None:
        return
    set_scheduler(pipe, name)
    closed_form(pipe.scheduler, 2)
    announce(
        f"the scheduler {kind} of this model does not work patch by patch: {SCHEDULERS[name]} takes its "
        f"place ({name}); choose another one with scheduler"
    )
