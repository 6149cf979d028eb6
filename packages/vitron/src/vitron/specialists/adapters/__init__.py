# SPDX-License-Identifier: Apache-2.0
"""Specialists that hand the work to other packages, each imported when its specialist is loaded.

Every adapter takes ``model``, a name or folder; the default is the environment variable
``VITRON_<NAME>_MODEL``, such as ``VITRON_DIFFUSERS_INPAINT_MODEL``, else the bundled model of the package. An
adapter without any is reported, see :attr:`vitron.specialists.SpecialistRegistry.absent`.
"""
