# SPDX-License-Identifier: Apache-2.0

import pytest
from common_kernels.runtime.hub import WEIGHTS_FILE
from recipes.model_cards import PACKAGES, SHIPPED


@pytest.mark.parametrize("model", SHIPPED, ids=lambda model: model.name)
def test_the_card_beside_the_weights_is_that_of_the_figures(model, tmp_path):
    wanted = model.write(tmp_path).read_text("utf-8")
    for folder in model.folders:
        assert (folder / "README.md").read_text("utf-8") == wanted, "run python -m recipes cards"
    assert model.options.paper in wanted
    assert "license: apache-2.0" in wanted
    assert all(f"| {name} | {value} |" in wanted for name, value in model.metrics().items())


def test_every_shipped_model_has_a_card():
    weights = list(PACKAGES.glob("*/src/*/assets/*/**/*.safetensors"))
    folders = [folder for model in SHIPPED for folder in model.folders]
    assert WEIGHTS_FILE in {file.name for file in weights}
    assert [file for file in weights if not any(folder in file.parents for folder in folders)] == []
