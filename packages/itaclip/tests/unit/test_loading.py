# SPDX-License-Identifier: Apache-2.0
import json
import shlex

import huggingface_hub
import open_clip
import pytest
import torch
from common_kernels.runtime.hub import ModelNotFoundError
from huggingface_hub.errors import LocalEntryNotFoundError
from itaclip.cli.options import ModelOptions
from itaclip.config import ITACLIPConfig
from itaclip.loading import ActivationWarning, choose_quick_gelu, load_clip, load_tokenizer
from itaclip.model import ITACLIP
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VISION = {"image_size": 32, "patch_size": 8, "layers": 4, "width": 32, "head_width": 16}


@pytest.fixture
def folder(tmp_path, tools):
    model = tools.native()
    text = {**TEXT, "vocab_size": 100}
    config = {
        "model_cfg": {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": text},
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "pretrained", "chosen"),
    [
        ("ViT-B-16", "openai", True),
        ("ViT-L-14", "metaclip_fullcc", True),
        ("ViT-B-16", "laion2b_s34b_b88k", None),
        ("ViT-B-16-quickgelu", "openai", True),
        ("ViT-B-16-quickgelu", "/models/own.safetensors", None),
        ("ViT-B-16-SigLIP", "webli", None),
        ("ViT-B-16", None, None),
    ],
)
def test_quick_gelu_follows_the_weights(name, pretrained, chosen):
    assert choose_quick_gelu(name, pretrained) is chosen


@pytest.mark.parametrize("file", ["own.safetensors", "openai-vit-b-16.safetensors", "openai/vit.safetensors"])
def test_the_words_of_a_path_decide_nothing(file):
    for name in ("ViT-B-16", "ViT-L-14"):
        with pytest.warns(ActivationWarning, match=r"is not known: .* quick_gelu=True .*--quick-gelu"):
            assert choose_quick_gelu(name, f"/models/{file}") is None
        for flag in (True, False):
            assert choose_quick_gelu(name, f"/models/{file}", flag) is flag


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_the_configuration_beside_a_file_decides(tmp_path, quick_gelu):
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"quick_gelu": quick_gelu}}))
    assert choose_quick_gelu("ViT-B-16", str(tmp_path / "w.safetensors")) is (True if quick_gelu else None)


@pytest.mark.parametrize("flag", [None, True])
def test_a_doubt_is_one_line_in_the_shell(monkeypatch, capsys, tools, flag):
    monkeypatch.setattr(open_clip, "create_model", lambda *args, **kwargs: tools.native())
    options = ModelOptions(model="ViT-B-16", pretrained="/m/openai.safetensors", quick_gelu=flag, cache=False)
    options.load(ITACLIPConfig.preset("sclip"), device="cpu", dtype="float32")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (flag is None)
    assert all("is not known" in line and "--no-quick-gelu" in line for line in lines)


def test_a_flag_against_what_is_known_is_said():
    with pytest.warns(ActivationWarning, match="'openai' were trained with QuickGELU, but quick_gelu=False"):
        assert choose_quick_gelu("ViT-B-16", "openai", False) is False
    with pytest.warns(ActivationWarning, match="were trained with GELU, but quick_gelu=True"):
        assert choose_quick_gelu("ViT-B-16", "laion2b_s34b_b88k", True) is True


def test_gelu_weights_in_a_quick_gelu_tower_are_refused(monkeypatch):
    monkeypatch.setattr("itaclip.loading.get_pretrained_cfg", lambda name, tag: {"quick_gelu": False})
    with pytest.raises(ValueError, match="trained with GELU: take ViT-B-16"):
        choose_quick_gelu("ViT-B-16-quickgelu", "own")


@pytest.mark.parametrize(("flag", "stated"), [(None, True), (None, False), (True, False), (False, True)])
def test_the_flag_goes_before_the_configuration(folder, tools, flag, stated):
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["quick_gelu"] = stated
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    model, _ = load_clip(folder, quick_gelu=flag, device="cpu")
    kinds = {type(block.mlp.gelu).__name__ for block in model.visual.transformer.resblocks}
    assert kinds == {"QuickGELU" if (stated if flag is None else flag) else "GELU"}
    assert {type(block.mlp.gelu).__name__ for block in model.transformer.resblocks} == kinds


def test_openai_weights_get_quick_gelu(monkeypatch, tools):
    asked = {}

    def create(name, **options):
        asked.update(name=name, **options)
        return tools.native()

    monkeypatch.setattr(open_clip, "create_model", create)
    load_clip("ViT-B-16", pretrained="openai", device="cpu")
    assert asked["force_quick_gelu"] is asked["quick_gelu"] is True
    assert asked["require_pretrained"] is True


def test_a_folder_loads_with_its_own_mean(folder, tools):
    segmenter = ITACLIP.from_pretrained(folder, device="cpu")
    assert segmenter.config == ITACLIPConfig.preset("itaclip")
    assert segmenter.windows.normalizer.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    # not bitwise: torch takes another path where no weight asks for gradients
    image = tools.image(1, 3, 32, 32)
    torch.testing.assert_close(segmenter.model.encode_image(image), tools.native().encode_image(image))
    expected = tools.native().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in segmenter.model.state_dict().items())


def test_a_folder_of_something_else_is_refused(folder):
    (folder / "open_clip_model.safetensors").rename(folder / "open_clip_pytorch_model.bin")
    with pytest.raises(ModelNotFoundError, match="pickles"):
        load_clip(folder)
    (folder / "open_clip_config.json").write_text("{}")
    with pytest.raises(ModelNotFoundError, match="describes no CLIP model"):
        load_clip(folder)
    (folder / "open_clip_config.json").write_text("{")
    with pytest.raises(ModelNotFoundError, match="cannot be read"):
        load_clip(folder)
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"has no open_clip_config\.json"):
        load_clip(folder)


def test_weights_of_another_model_are_refused(folder):
    save_file({"conv1.weight": torch.zeros(3)}, folder / "open_clip_model.safetensors")
    with pytest.raises(ModelNotFoundError, match="those of another model: take weights of this"):
        load_clip(folder, device="cpu")


def test_weights_of_another_width_are_refused(folder, tools):
    state = tools.native().state_dict()
    state["positional_embedding"] = torch.zeros(16, 8)
    save_file(state, folder / "open_clip_model.safetensors")
    with pytest.raises(ModelNotFoundError, match="those of another model"):
        load_clip(folder, device="cpu")


def test_weights_that_are_cut_short_are_refused(folder):
    file = folder / "open_clip_model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ModelNotFoundError, match=r"damaged or cut short .*: fetch them again"):
        load_clip(folder, device="cpu")


def test_weights_that_cannot_be_fetched_are_one_sentence(monkeypatch):
    def create(*args, **kwargs):
        raise RuntimeError("Failed to download weights for tag 'openai': a. Last error: b. Please check c.")

    monkeypatch.setattr(open_clip, "create_model", create)
    with pytest.raises(ModelNotFoundError, match="cannot be fetched: check the connection") as caught:
        load_clip("ViT-B-16", pretrained="openai", device="cpu")
    assert "Last error" not in str(caught.value)


@pytest.mark.parametrize("cached", [True, False])
def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch, cached):
    calls = []

    def ask(url, *, token, timeout):
        calls.append((url, timeout))
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", ask)
    stored = "/somewhere/open_clip_config.json" if cached else None
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: stored)

    def fetch(*args, **kwargs):
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    rule = (
        r"the hub did not give it \(LocalEntryNotFoundError" if cached else "the hub does not answer: check"
    )
    with pytest.raises(ModelNotFoundError, match=rule):
        load_clip("hf-hub:owner/name", device="cpu")
    assert len(calls) == (not cached)
    assert all("owner/name" in url and timeout <= 5 for url, timeout in calls)


@pytest.mark.parametrize(
    ("backbone", "pretrained", "rule"),
    [
        ("no-such-model", None, "neither shipped"),
        ("./nowhere", None, "neither shipped"),
        ("ViT-B-16", None, "needs weights: name them by pretrained .on the command line --pretrained"),
        ("ViT-B-16", "no-such-tag", "safetensors file or one of"),
        ("ViT-B-16", "weights.pt", r"weights\.pt is a pickle"),
        (
            "ViT-B-16.pt",
            None,
            r"ViT-B-16\.pt is a pickle, which can run code when opened: take the same model",
        ),
        ("owner/weights.pt", None, r"owner/weights\.pt is a pickle"),
        ("ViT-B-16-quickgelu", "missing.safetensors", "cannot be loaded"),
    ],
)
def test_models_that_are_not_there(backbone, pretrained, rule):
    with pytest.raises(ModelNotFoundError, match=rule):
        load_clip(backbone, pretrained=pretrained, device="cpu")


class Bare(torch.nn.Module):
    """Holds weights alone."""


def openai_archive(model, file):
    """Write the weights of a model as OpenAI does: in half precision, as TorchScript, with three sizes."""
    root = Bare()
    for name, weight in model.state_dict().items():
        *path, last = name.split(".")
        place = root
        for part in path:
            if not hasattr(place, part):
                place.add_module(part, Bare())
            place = getattr(place, part)
        place.register_parameter(last, torch.nn.Parameter(weight.half(), requires_grad=False))
    for name in ("input_resolution", "context_length", "vocab_size"):
        root.register_buffer(name, torch.tensor(32))
    torch.jit.save(torch.jit.script(root), file)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_file_of_openai_loads_after_the_one_command_of_its_refusal(tmp_path, tools, monkeypatch):
    native, file = tools.native(), tmp_path / "ViT-B-16.pt"
    openai_archive(native, file)
    with pytest.raises(ModelNotFoundError, match="--quick-gelu") as refused:
        load_clip(file, device="cpu")
    (command,) = [line for line in str(refused.value).splitlines() if line.startswith("python -c")]
    monkeypatch.chdir(tmp_path)
    _, _, code, *arguments = shlex.split(command)
    monkeypatch.setattr("sys.argv", ["-c", *arguments])
    exec(code, {})
    config = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": {**TEXT, "vocab_size": 100}}
    (tmp_path / "ViT-own.json").write_text(json.dumps(config))
    monkeypatch.setattr("open_clip.factory._MODEL_CONFIGS", {})
    monkeypatch.setattr("open_clip.factory._MODEL_CONFIG_PATHS", [tmp_path / "ViT-own.json"])
    open_clip.add_model_config(tmp_path / "ViT-own.json")
    model, _ = load_clip("ViT-own", pretrained="ViT-B-16.safetensors", quick_gelu=True, device="cpu")
    for name, weight in native.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight.half().float()), name


@pytest.mark.parametrize("form", ["open_clip", "transformers"])
def test_models_of_the_hub_are_fetched_as_safetensors_with_what_was_given(
    folder, tmp_path, monkeypatch, form
):
    asked, wanted = [], {"revision": "v2", "token": "secret", "cache_dir": tmp_path / "cache"}
    wanted |= {"local_files_only": True, "force_download": True}
    if form == "transformers":
        folder = tmp_path / "transformers"
        tower = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        text = {**tower, "vocab_size": 49408, "max_position_embeddings": 16, "eos_token_id": 49407}
        vision = {**tower, "image_size": 32, "patch_size": 8}
        settings = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
        CLIPModel(settings).save_pretrained(folder)

    def fetch(repo_id, *, allow_patterns, **named):
        asked.append((repo_id, allow_patterns))
        assert named == wanted
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda name, **_: f"tokenizer of {name}")
    model, tokenizer = load_clip("hf-hub:owner/clip", device="cpu", **wanted)
    weights = "open_clip_model.safetensors" if form == "open_clip" else "model*.safetensors"
    assert asked == [("owner/clip", ["*.json", "*.txt", "*.model"]), ("owner/clip", [weights])]
    assert model.visual.conv1.weight.shape[-1] == 8
    if form == "open_clip":  # a folder without a tokenizer of its own
        assert tokenizer == "tokenizer of hf-hub:owner/clip"


def test_half_precision_is_the_default_on_cuda_only(folder, monkeypatch):
    model, _ = load_clip(folder, device="cpu")
    assert next(model.parameters()).dtype is torch.float32
    model, _ = load_clip(folder, device="cpu", dtype="bfloat16")
    assert next(model.parameters()).dtype is torch.bfloat16
    seen = []
    monkeypatch.setattr("itaclip.loading.resolve_device", lambda device: torch.device("cuda"))
    monkeypatch.setattr(
        torch.nn.Module, "to", lambda self, *_, **kw: seen.append((kw["device"].type, kw["dtype"])) or self
    )
    monkeypatch.setattr(open_clip, "create_model", lambda *args, **kwargs: torch.nn.Identity())
    load_clip(folder)
    assert seen == [("cuda", torch.float16)]
    with pytest.raises(ValueError, match="dtype must be"):
        load_clip(folder, dtype="int8")


def test_tokenizers_load_without_weights(folder):
    (folder / "open_clip_model.safetensors").unlink()
    expected = open_clip.get_tokenizer("ViT-B-16")(["a cat"], context_length=16)
    assert torch.equal(load_tokenizer(str(folder))(["a cat"], context_length=16), expected)
    assert torch.equal(load_tokenizer("ViT-B-16")(["a cat"], context_length=16), expected)
    assert load_tokenizer("tiny-shapes")(["red"]).shape[0] == 1
    with pytest.raises(ModelNotFoundError, match="no model 'ViT-Z'"):
        load_tokenizer("ViT-Z")
