# SPDX-License-Identifier: Apache-2.0
"""One folder per operator: ``api`` validates and dispatches, the other files implement."""
