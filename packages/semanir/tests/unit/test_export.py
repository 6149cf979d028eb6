# SPDX-License-Identifier: Apache-2.0
"""Networks as files of other programs compute what they do here."""

import json

import pytest
import torch
from common_kernels.runtime.cli import run_app
from common_kernels.runtime.export import ExportError, open_onnx
from common_kernels.runtime.hub import ModelNotFoundError
from semanir import SemanIR, SemanIRConfig, export
from semanir.cli import app
from semanir.functional import pad_to_multiple

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch's exporters to each other
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def network(**changes):
    torch.manual_seed(0)
    defaults = {
        "embed_dims": (8,), "num_heads": (1,), "depths": (1, 1), "conv_blocks": (), "window_size": 4, "k": 6,
    }  # fmt: skip
    return SemanIR(SemanIRConfig.preset("tiny", **defaults | changes)).eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Trace once, write both formats; the second stage has rolled windows."""
    model, folder = network(), tmp_path_factory.mktemp("exported")
    traced = export._trace(export.DenseNetwork(model), model.config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_trace", lambda *_: traced)
        reports = [
            export.export(model, folder / "a.onnx"),
            export.export(model, folder / "a.pt2", format="torch"),
        ]
    return model, reports


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (37, 50)])
def test_onnx_computes_what_the_network_does_at_any_size(exported, size):
    model, (report, _) = exported
    image = torch.rand((1, 3, *size), generator=torch.Generator().manual_seed(1))
    [restored] = open_onnx(report.path)({"image": image.numpy()})
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(restored), model(image), rtol=0, atol=export.TOLERANCE)


@pytest.mark.parametrize("size", [(16, 24), (35, 50)])
def test_a_graph_of_torch_computes_what_the_network_does(exported, size):
    model, (_, report) = exported
    assert report.grid == 8
    image = torch.rand((1, 3, *size), generator=torch.Generator().manual_seed(1))
    padded = pad_to_multiple(image, report.grid)
    restored = torch.export.load(report.path).module()(padded)[..., : size[0], : size[1]]
    with torch.inference_mode():
        torch.testing.assert_close(restored, model(image), rtol=0, atol=export.TOLERANCE)


def test_reports_and_metadata(exported):
    import onnx

    model, reports = exported
    for report in reports:
        assert report.sizes == ((19, 23), (16, 32))
        assert report.error < 1e-5
        assert report.num_bytes == report.path.stat().st_size
    stored = onnx.load(reports[0].path)
    onnx.checker.check_model(stored, full_check=True)
    [values] = [json.loads(each.value) for each in stored.metadata_props if each.key == "semanir"]
    assert SemanIRConfig.from_dict(values["config"]) == model.config
    [sides] = [each.type.tensor_type.shape.dim for each in stored.graph.input]
    assert [sides[0].dim_value, sides[1].dim_value, sides[2].dim_param] == [1, 3, "height"]


@pytest.fixture
def quick(monkeypatch):
    """Return a function that makes exports cheap, and their files differ from the network by ``error``."""

    def differ(error):
        monkeypatch.setattr(export, "_trace", lambda *_: None)
        monkeypatch.setattr(torch.export, "save", lambda _, path: path.write_bytes(b"a graph"))
        monkeypatch.setattr(export, "_difference", lambda *_: error)

    return differ


@pytest.mark.parametrize("error", [0.01, float("nan")])
def test_a_file_that_computes_something_else_is_not_kept(quick, tmp_path, error):
    quick(error)
    with pytest.raises(ExportError, match="not written"):
        export.export(network(), tmp_path / "a.pt2", format="torch")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (None, {"format": "torch"}, r"must be a \.pt2 for torch"),
        (None, {"k": 0}, "k must be at least 1"),
        ("half", {}, "on the CPU in fp32"),
    ],
)
def test_wrong_options_are_refused(tmp_path, change, options, message):
    model = network()
    model = getattr(model, change)() if change else model
    with pytest.raises(ValueError, match=message):
        export.export(model, tmp_path / "a.onnx", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_compiled_network_is_the_network():
    model = network(logits="cosine", position_bias="mlp", norm="post")
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    x = torch.rand(2, 3, 13, 20, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=0, atol=1e-4)


class TestCommand:
    def test_writes_what_the_suffix_says(self, quick, tmp_path, capfd):
        quick(1e-6)
        network().save_pretrained(tmp_path / "model")
        words = ["export", str(tmp_path / "model"), "-o", str(tmp_path / "a.pt2")]
        assert run_app(app, [*words, "--json"]) == 0
        found = json.loads(capfd.readouterr().out)
        assert (found["status"], found["grid"], len(found["sizes"]), found["bytes"]) == ("done", 8, 2, 7)
        assert run_app(app, words) == 2
        assert "--overwrite" in capfd.readouterr().err
        quick(1.0)
        assert run_app(app, [*words, "--overwrite"]) == 1
        assert "would differ" in capfd.readouterr().err
        assert (tmp_path / "a.pt2").read_bytes() == b"a graph"

    def test_wrong_usage(self, tmp_path, capfd):
        assert run_app(app, ["export", "tiny-denoise", "-o", str(tmp_path / "a.bin")]) == 2
        assert "must be a .onnx" in capfd.readouterr().err
        assert run_app(app, ["export", "nothing", "-o", str(tmp_path / "a.onnx")]) == 2
        assert "tiny-denoise" in capfd.readouterr().err

    def test_only_networks_of_ours(self, tmp_path):
        with pytest.raises(ModelNotFoundError):
            SemanIR.from_pretrained(tmp_path / "none.safetensors")
