# SPDX-License-Identifier: Apache-2.0
"""Names of activations: their grammar, and which of them a model has."""

from diffeat.names.grammar import ActivationName
from diffeat.names.listing import Activation, list_activations
from diffeat.names.matching import matching

__all__ = ["Activation", "ActivationName", "list_activations", "matching"]
