# SPDX-License-Identifier: Apache-2.0
"""What an import costs, each in a fresh interpreter."""

import json
import subprocess
import sys

import pytest

PROBE = """
import json, sys
{code}
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""
RUNTIME = {
    "PIL",
    "accelerate",
    "cyclopts",
    "huggingface_hub",
    "platformdirs",
    "rich",
    "safetensors",
    "tifffile",
}


def modules_after(code):
    command = [sys.executable, "-c", PROBE.format(code=code)]
    return set(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def test_the_package_alone_is_light():
    loaded = modules_after("import common_kernels; common_kernels.__version__, dir(common_kernels)")
    assert loaded & ({"torch", "numpy"} | RUNTIME) == set()


@pytest.mark.parametrize("name", ["knn_attention", "knn_dictionary", "fuse_phase", "chess_mask"])
def test_an_operator_needs_torch_alone(name):
    loaded = modules_after(f"import common_kernels; common_kernels.{name}")
    assert "torch" in loaded
    assert loaded & RUNTIME == set()


@pytest.mark.parametrize("module", ["images", "pictures", "files", "cli", "batch"])
def test_the_runtime_needs_no_torch(module):
    loaded = modules_after(f"from common_kernels.runtime import {module}")
    assert "common_kernels" in loaded
    assert "torch" not in loaded


def test_reading_an_image_needs_no_torch():
    code = "from common_kernels.runtime.images import encode_image, as_rgb; from PIL import Image; "
    loaded = modules_after(code + "as_rgb(encode_image(Image.new('RGB', (4, 4)), '.tif'))")
    assert "tifffile" in loaded
    assert "torch" not in loaded


def test_a_name_that_is_not_there():
    with pytest.raises(subprocess.CalledProcessError):
        modules_after("import common_kernels; common_kernels.no_such_name")
