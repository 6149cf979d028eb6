# SPDX-License-Identifier: Apache-2.0
"""Specialists that hand the work to other packages, each imported when its specialist is loaded.

Every adapter takes ``model``, a name or folder; without it, the environment variable ``VITRON_<NAME>_MODEL``
counts, as ``VITRON_DIFFUSERS_INPAINT_MODEL``; without that, what came along with its package. One that has
neither says so, see :attr:`vitron.specialists.SpecialistRegistry.absent`.
"""
