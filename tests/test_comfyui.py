# SPDX-License-Identifier: Apache-2.0
"""Every node pack of ComfyUI loads as ComfyUI loads it, and its nodes keep to the interface."""

import sys

import pytest
from common_kernels.runtime.comfyui_host import StandIn, check_node, load_pack


@pytest.fixture
def pack(package):
    folder = package.folder / "comfyui"
    if not folder.is_dir():
        pytest.skip("has no node pack")
    return folder


def test_nodes_keep_to_the_interface(package, pack, tmp_path):
    with StandIn(tmp_path).installed():
        nodes = load_pack(pack)
        assert nodes
        for name, node in nodes.items():
            check_node(node)
            assert name.lower().startswith(package.name), "names are shared with all other packs"
            assert node.CATEGORY.split("/")[0] == package.name
            inputs = node.INPUT_TYPES()
            entries = inputs["required"] | inputs.get("optional", {})
            silent = [
                key for key, entry in entries.items() if not (len(entry) > 1 and entry[1].get("tooltip"))
            ]
            assert silent == [], "an input without a tooltip"
            assert node.DESCRIPTION


def test_a_pack_says_what_it_needs(package, pack):
    needed = (pack / "requirements.txt").read_text("utf-8").split()
    assert [line for line in needed if line.startswith(package.name)], "ComfyUI installs what this file names"


def test_a_pack_loads_without_its_host(pack):
    assert "comfy" not in sys.modules
    assert load_pack(pack)
