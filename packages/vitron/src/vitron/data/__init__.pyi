# SPDX-License-Identifier: Apache-2.0
from .converters import read_layout as read_layout
from .example import Example as Example
from .files import read_example as read_example
from .files import read_samples as read_samples
from .files import write_samples as write_samples
from .schema import Sample as Sample
