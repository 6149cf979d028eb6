# SPDX-License-Identifier: Apache-2.0
"""SemanIR: image restoration with shared key semantics."""

from importlib.metadata import version

from semanir.config import SemanIRConfig
from semanir.model import SemanIR
from semanir.restorer import Restorer
from semanir.weights import shipped_models

__version__ = version("semanir")

__all__ = ["Restorer", "SemanIR", "SemanIRConfig", "__version__", "shipped_models"]
