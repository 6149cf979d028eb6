# SPDX-License-Identifier: Apache-2.0
from .app import create_app as create_app
from .limits import Limits as Limits
