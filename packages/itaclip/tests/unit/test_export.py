# SPDX-License-Identifier: Apache-2.0
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from itaclip import ITACLIP, ITACLIPConfig
from itaclip import export as export_module
from itaclip.export import ExportError, WindowScorer, export_onnx
from itaclip.features import text_scores

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
OPTIONS = ("--crop", 40, "--stride", 20, "--attention.mid-layers", 1, "--blur-kernel", 5)


def build(tiny_folder, **changes):
    config = ITACLIPConfig.preset("itaclip", **{"crop": 40, "stride": 20, "blur_kernel": 5, **changes})
    config = replace(config, attention=replace(config.attention, mid_layers=(1,)))
    return ITACLIP.from_pretrained(tiny_folder, preset=config, device="cpu")


@pytest.fixture(scope="module")
def exported(tiny_folder, tmp_path_factory):
    model = build(tiny_folder)
    path = tmp_path_factory.mktemp("onnx") / "new" / "tiny.onnx"
    return model, path, export_onnx(model, path)


def run(path, images, text):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images.numpy(), "text": text.numpy()})


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_onnx_computes_what_the_model_does(exported, batch):
    model, path, _ = exported
    images, text = torch.rand(batch, 3, 40, 40), torch.randn(batch + 1, 16)
    features, scores = run(path, images, text)
    with torch.inference_mode():
        normalised = (images - model.windows.normalizer.mean) / model.windows.normalizer.std
        plain = [model.windows.prepare(image) for image in images]
        expected = model.windows.encode(
            [type(p)(n, p.plan, p.size) for p, n in zip(_one_window(model, plain), normalised, strict=True)],
            text_scores(text),
        )
    assert features.shape == (batch, 16, 5, 5)
    for ours, theirs in zip(expected, scores, strict=True):
        np.testing.assert_allclose(theirs, ours.values.numpy(), atol=1e-4)


def _one_window(model, prepared):
    from itaclip.features import Prepared
    from itaclip.windows import plan_windows

    plan = plan_windows(40, 40, crop=40, stride=20)
    return [Prepared(p.image, plan, (40, 40)) for p in prepared]


def test_report_and_metadata(exported):
    model, path, report = exported
    assert (report.size, report.grid) == ((40, 40), (5, 5))
    assert 0 <= report.error <= 1e-4
    assert report.num_bytes == path.stat().st_size
    assert [file.name for file in path.parent.iterdir()] == ["tiny.onnx"]
    entries = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    stored = json.loads(entries["itaclip"])
    assert ITACLIPConfig.from_dict(stored["config"]) == model.config
    assert stored["grid"] == [5, 5]


def test_scorer_joins_branches_as_the_engine_does(tiny_folder):
    from itaclip.features import join_branches, make_branches

    for branches in (("identity",), ("vflip", "hflip"), ("hflip", "gray", "identity")):
        model = build(tiny_folder, branches=branches)
        images = torch.rand(2, 3, 40, 40)
        with torch.inference_mode():
            features, _ = WindowScorer(model)(images, torch.randn(2, 16))
            normalised = (images - model.windows.normalizer.mean) / model.windows.normalizer.std
            maps = model.encoder(make_branches(normalised, model.config), model.windows.attention)
        torch.testing.assert_close(features, join_branches(maps, model.config))


def test_a_file_that_disagrees_is_not_kept(tiny_folder, tmp_path, monkeypatch):
    def write(scorer, example, path, *, metadata):
        path.write_bytes(b"wrong")

    monkeypatch.setattr(export_module, "_write", write)
    for error in (0.5, float("inf"), float("nan")):
        monkeypatch.setattr(export_module, "_largest_error", lambda *args, e=error: ((5, 5), e))
        with pytest.raises(ExportError, match=r"would differ from the model by .*, more than 0\.0001"):
            export_onnx(build(tiny_folder), tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_wrong_input_is_named(tiny_folder, tmp_path):
    path = tmp_path / "a.onnx"
    with pytest.raises(ValueError, match="give the size of a window"):
        export_onnx(build(tiny_folder, crop=0), path)
    with pytest.raises(ValueError, match="at least one patch of 8 x 8 px"):
        export_onnx(build(tiny_folder), path, size=(4, 40))
    with pytest.raises(ValueError, match=r"must be an \.onnx"):
        export_onnx(build(tiny_folder), tmp_path / "a.pt")
    half = build(tiny_folder)
    half.model.half()
    with pytest.raises(ValueError, match="on the CPU in fp32, got cpu and"):
        export_onnx(half, path)
    assert list(tmp_path.iterdir()) == []


def test_towers_beyond_the_format_are_refused(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "_MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="an ONNX file ends at 2 GB"):
        export_onnx(build(tiny_folder), tmp_path / "a.onnx")


def test_missing_packages_name_the_extra(tiny_folder, tmp_path, monkeypatch):
    extra = "common_kernels.runtime.export.find_spec"
    monkeypatch.setattr(extra, lambda name: None if name == "onnxruntime" else name)
    with pytest.raises(ImportError, match=r"needs onnxruntime: pip install \"itaclip\[export\]\""):
        export_onnx(build(tiny_folder), tmp_path / "a.onnx")


def test_command(exported, tiny_folder, monkeypatch, invoke):
    _, made, report = exported

    def export(model, target, **kwargs):
        target.write_bytes(made.read_bytes())
        return report

    monkeypatch.setattr(export_module, "export_onnx", export)
    args = ["export", "-o", "a.onnx", "--model", tiny_folder, "--json", "-c", "cat|kitten, dog", *OPTIONS]
    entry = json.loads(invoke(*args).stdout)
    assert (entry["status"], entry["texts"], entry["grid"]) == ("done", "a-texts.npz", [5, 5])
    with np.load("a-texts.npz") as texts:
        assert texts["names"].tolist() == ["cat", "kitten", "dog"]
        assert texts["owner"].tolist() == [0, 0, 1]
        _features, scores = run(Path("a.onnx"), torch.rand(1, 3, 40, 40), torch.from_numpy(texts["text"]))
    assert scores.shape == (1, 3, 5, 5)
    assert "a.onnx exists: --overwrite replaces it" in invoke(*args, code=2).stderr
    assert json.loads(invoke(*args, "--overwrite").stdout)["status"] == "done"
    long = ["export", "-o", "b.onnx", "--model", tiny_folder, "-c", f"cat, {'word ' * 90}", *OPTIONS]
    assert "tokens and the model reads" in invoke(*long, code=2).stderr
    assert not Path("b.onnx").exists()

    def disagree(*args, **kwargs):
        raise ExportError("it differs")

    monkeypatch.setattr(export_module, "export_onnx", disagree)
    failed = invoke(*args, "--overwrite", code=1)
    assert "it differs" in failed.stderr
    assert json.loads(failed.stdout)["status"] == "failed"
    assert "--output must be an .onnx file" in invoke("export", "-o", "a.pt", code=2).stderr
