# SPDX-License-Identifier: Apache-2.0
"""How tiny-denoise is made: dead leaves, a SemanIR and a plain network beside it, judged on photographs."""
