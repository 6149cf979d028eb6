# SPDX-License-Identifier: Apache-2.0
"""What surrounds a method: images, files, models, processes, batches and the command line.

The extra ``common-kernels[runtime]`` installs what it needs. Nothing here imports an operator, and no
operator imports this.
"""
