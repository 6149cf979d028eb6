# SPDX-License-Identifier: Apache-2.0
from .globs import matching as matching
from .grammar import ActivationName as ActivationName
from .listing import Activation as Activation
from .listing import list_activations as list_activations
