# SPDX-License-Identifier: Apache-2.0
"""A stage from the command line: from data on disk and pretrained parts to a model that loads."""

import pytest
import torch
from common_kernels.runtime.cli import run_app
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionModel,
    LlamaForCausalLM,
)
from vitron.cli import app
from vitron.data.files import write_samples
from vitron.data.schema import MaskTarget, Sample, SampleMedia, Targets
from vitron.model import CHAT_TEMPLATES
from vitron.model.assembly import assemble
from vitron.model.engine import Vitron
from vitron.protocol.messages import MediaPart, Message, TextPart, text_message
from vitron.protocol.regions import mask_to_region

from ..model.conftest import language_config, make_image, make_tokenizer, segment, square, tower_config  # noqa: TID252

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning"),
]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A language model with its tokenizer and a vision tower, in the formats of transformers."""
    folder = tmp_path_factory.mktemp("parts")
    tokenizer = make_tokenizer("chatml")
    config = language_config(len(tokenizer), 32, layers=1, heads=2, tied=False)
    vision = tower_config(16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder / "words")
        CLIPVisionModel(vision).save_pretrained(folder / "eyes")
        text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        whole = CLIPConfig(
            text_config=text | {"vocab_size": 50}, vision_config=vision.to_dict(), projection_dim=8
        )
        CLIPModel(whole).save_pretrained(folder / "clip")
    # what a foreign tokenizer has: no tags, no signals, no placeholders
    plain_tokenizer = make_tokenizer("chatml")
    plain_tokenizer.save_pretrained(folder / "words")
    return folder


@pytest.fixture
def data(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    samples = []
    for number in range(4):
        Image.fromarray(make_image(number).data).save(source / f"{number}.png")
        words = (MediaPart(media=0), TextPart(text=f"segment the red circle {number}"))
        target = MaskTarget(call=0, media=0, masks=(mask_to_region(square(4 * number)),))
        samples.append(
            Sample(
                id=str(number),
                task="segmentation",
                messages=(Message(role="user", content=words), text_message("assistant", "ok", segment())),
                media=(SampleMedia(type="image", path=f"{number}.png"),),
                targets=Targets(masks=(target,)),
            )
        )
    write_samples(samples, tmp_path / "data", source=source)
    return tmp_path / "data"


def command(*args):
    return run_app(app, ["fit", *map(str, args), "--accelerator", "cpu", "--devices", "1"])


def test_a_new_model_is_trained_and_a_finished_run_is_left(parts, data, tmp_path):
    out = tmp_path / "run"
    stage = tmp_path / "stage.yaml"
    stage.write_text(
        "name: t\ntrain: ['*lora_*', projector.*, mask_head.*, signal_norm.*]\n"
        "lora: {rank: 4, alpha: 8}\nlosses: {text: 1, mask: 1}\n"
        "optimisation: {lr: 0.001, steps: 4, batch_size: 4}\n"
    )
    chosen = ("--stage", stage, "--checkpoint-every", "2", "--validation", data)
    new = ("--language-model", parts / "words", "--vision-tower", parts / "eyes")
    assert command(data, "-o", out, *chosen, *new) == 0
    assert (out / "logs" / "version_0" / "metrics.csv").exists()
    model = Vitron.from_pretrained(out / "model", device="cpu")
    assert not any("lora" in name for name, _ in model.model.named_parameters())
    weights = sorted(path.name for path in (out / "model").iterdir())
    assert "model.safetensors" in weights
    assert not any(name.endswith((".bin", ".pt", ".ckpt")) for name in weights)
    before = (out / "model" / "model.safetensors").read_bytes()
    assert command(data, "-o", out, *chosen, *new) == 0  # there is nothing left to do
    assert torch.load(out / "last.ckpt", weights_only=False)["resumed_at"] == 4
    assert (out / "model" / "model.safetensors").read_bytes() == before


def test_usage_that_cannot_work_is_one_sentence(parts, data, tmp_path, capsys):
    out = tmp_path / "run"
    for args, message in (
        ((data, "-o", out, "--stage", "9"), "there is no stage 9"),
        ((data, "-o", out, "--language-model", parts / "words"), "needs both"),
        ((data, "-o", out, "--model", tmp_path / "none"), "none"),
        (
            (
                data,
                "-o",
                out,
                "--language-model",
                parts / "words",
                "--vision-tower",
                parts / "eyes",
                "--template",
                "x",
            ),
            "there is no template",
        ),
        (
            (tmp_path, "-o", out, "--language-model", parts / "words", "--vision-tower", parts / "eyes"),
            "does not exist",
        ),
    ):
        assert command(*args) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error


@pytest.mark.parametrize("eyes", ["eyes", "clip"])
def test_parts_keep_their_weights_and_new_tokens_start_at_the_mean(parts, eyes):
    model, processor = assemble(parts / "words", parts / eyes, vision_layer=-1)
    words = LlamaForCausalLM.from_pretrained(parts / "words")
    ids = torch.tensor([processor.tokenizer("segment the red circle", add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        known = words(ids).logits
        torch.testing.assert_close(model.eval()(ids).logits[..., : known.shape[-1]], known)
    assert processor.chat_template == CHAT_TEMPLATES["chatml"].source
