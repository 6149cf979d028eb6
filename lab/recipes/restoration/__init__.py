# SPDX-License-Identifier: Apache-2.0
"""How the small restoration models are made: dead leaves, degradations, a plain network, photographs."""
