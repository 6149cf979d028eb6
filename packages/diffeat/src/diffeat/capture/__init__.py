# SPDX-License-Identifier: Apache-2.0
"""Reading activations off a running model."""
