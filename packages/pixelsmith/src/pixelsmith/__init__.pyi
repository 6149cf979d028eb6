# SPDX-License-Identifier: Apache-2.0
from .adapters import from_pipeline as from_pipeline
from .adapters import load_model as load_model
from .config import DenoisingConfig as DenoisingConfig
from .config import JobConfig as JobConfig
from .config import LoadingConfig as LoadingConfig
from .config import SamplingConfig as SamplingConfig
from .config import SizeConfig as SizeConfig
from .pipelines import PixelsmithFluxPipeline as PixelsmithFluxPipeline
from .pipelines import PixelsmithSD3Pipeline as PixelsmithSD3Pipeline
from .pipelines import PixelsmithSDPipeline as PixelsmithSDPipeline
from .pipelines import PixelsmithXLPipeline as PixelsmithXLPipeline
from .store.canvas import Canvas as Canvas

__version__: str
