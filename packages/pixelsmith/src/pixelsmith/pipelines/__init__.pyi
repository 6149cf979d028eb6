# SPDX-License-Identifier: Apache-2.0
from .hosts import PixelsmithFluxPipeline as PixelsmithFluxPipeline
from .hosts import PixelsmithSD3Pipeline as PixelsmithSD3Pipeline
from .hosts import PixelsmithSDPipeline as PixelsmithSDPipeline
from .hosts import PixelsmithXLPipeline as PixelsmithXLPipeline
from .hosts import pipeline_for as pipeline_for
