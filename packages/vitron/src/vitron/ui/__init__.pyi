# SPDX-License-Identifier: Apache-2.0
from .page import build_page as build_page
from .page import launch as launch
