# SPDX-License-Identifier: Apache-2.0
"""What the protocol, and the package as a whole, may load."""

import json
import subprocess
import sys
from pathlib import Path

import vitron.protocol


def loaded_by(*modules):
    code = f"import json, sys, {', '.join(modules)}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_the_protocol_imports_no_torch():
    folder = Path(vitron.protocol.__file__).parent
    files = [file.relative_to(folder.parent.parent).with_suffix("") for file in folder.rglob("*.py")]
    names = [".".join(file.parts).removesuffix(".__init__") for file in files]
    assert len(names) > 15
    assert not {"torch", "transformers", "scipy.ndimage"} & loaded_by(*names)


def test_conversations_specialists_and_options_import_no_torch():
    modules = (
        "vitron.session.conversation",
        "vitron.specialists.registry",
        "vitron.evaluation.options",
        "vitron.training.options",
    )
    assert "torch" not in loaded_by(*modules)
