# SPDX-License-Identifier: Apache-2.0
from .protocol import Protocol as Protocol
from .published import Published as Published
from .published import published as published
from .run import Evaluation as Evaluation
from .run import evaluate as evaluate
