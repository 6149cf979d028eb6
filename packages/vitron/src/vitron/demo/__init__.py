# SPDX-License-Identifier: Apache-2.0
"""The demo: its drawn images, its toy specialists, and the conversations about them."""
