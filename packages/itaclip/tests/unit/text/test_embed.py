# SPDX-License-Identifier: Apache-2.0
import logging

import pytest
import torch
from itaclip.text import ClassList, PromptTooLongError, TextEmbedder, text_features
from itaclip.text import embed as embed_module
from itaclip.text.store import weights_fingerprint
from safetensors.torch import load_file
from torch.nn import functional as F

THINGS = ClassList((("sky", "wall"), ("cat", "feline"), ("dog",)), background=True)
AUX = ["small pet with whiskers", "tame wolf on a lead"]
FEW = ["a photo of a {}.", "art of the {}", "{} in a dark room"]


@pytest.fixture
def features(clip, tokenizer):
    def call(classes=THINGS, aux=None, alpha=0.2, *, templates=FEW, **options):
        return text_features(clip, tokenizer, classes, aux, alpha, templates=templates, **options)

    return call


def by_hand(clip, tokenizer, text, templates=FEW):
    prompts = [template.format(text) for template in templates]
    encoded = clip.encode_text(tokenizer(prompts), normalize=True)
    return F.normalize(encoded.mean(0), dim=0)


def test_name_features_are_the_mean_of_unit_prompt_features(clip, tokenizer, features):
    want = torch.stack([by_hand(clip, tokenizer, name) for name in THINGS.names])
    torch.testing.assert_close(features(), want, atol=1e-6, rtol=0)


def test_the_80_templates_are_the_default(clip, tokenizer):
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

    got = text_features(clip, tokenizer, ClassList((("cat",),)))
    encoded = clip.encode_text(
        tokenizer([template("cat") for template in OPENAI_IMAGENET_TEMPLATES]), normalize=True
    )
    assert len(encoded) == 80
    torch.testing.assert_close(got[0], F.normalize(encoded.mean(0), dim=0), atol=1e-6, rtol=0)


def test_check_13_alpha_0_is_names_only(features):
    assert torch.equal(features(aux=AUX, alpha=0), features())


def test_check_13_alpha_1_is_aux_for_the_foreground(clip, tokenizer, features):
    aux = TextEmbedder(clip, tokenizer, templates=FEW).embed(AUX)
    assert torch.equal(features(aux=AUX, alpha=1)[2:], aux[[0, 0, 1]])


@pytest.mark.parametrize("alpha", [0.05, 0.5, 1.0])
def test_check_13_background_rows_never_change(features, alpha):
    plain, mixed = features(), features(aux=AUX, alpha=alpha)
    assert torch.equal(mixed[:2], plain[:2])
    assert not torch.equal(mixed[2:], plain[2:])


def test_check_13_sub_names_share_the_aux_part(features):
    plain, mixed = features(), features(aux=AUX, alpha=0.25)
    rest = mixed - 0.75 * plain
    torch.testing.assert_close(rest[2], rest[3], atol=1e-6, rtol=0)
    assert (rest[2] - rest[4]).abs().max() > 1e-2


def test_check_14_one_template_is_the_plain_feature(clip, tokenizer, features):
    want = clip.encode_text(tokenizer(["cat"]), normalize=True)
    torch.testing.assert_close(features(ClassList((("cat",),)), templates="plain"), want, atol=1e-6, rtol=0)


def test_check_14_template_order_is_irrelevant(features):
    torch.testing.assert_close(features(), features(templates=FEW[::-1]), atol=1e-6, rtol=0)


def test_mixed_features_are_shorter_unless_renormalised(features):
    norms = features(aux=AUX, alpha=0.5).norm(dim=1)
    assert (norms[2:] < 0.999).all()
    short, full = features(aux=AUX, alpha=0.5), features(aux=AUX, alpha=0.5, renormalise=True)
    torch.testing.assert_close(full, F.normalize(short, dim=1), atol=1e-6, rtol=0)


def test_several_texts_are_averaged_to_one_of_unit_norm(clip, tokenizer, features):
    both = TextEmbedder(clip, tokenizer, templates=FEW).embed(["whiskers", "purring pet"])
    got = features(aux=[("whiskers", "purring pet"), AUX[1]], alpha=1)
    torch.testing.assert_close(got[2], F.normalize(both.mean(0), dim=0), atol=1e-6, rtol=0)


def test_a_class_without_text_is_not_mixed(features):
    got = features(aux=[(), AUX[1]], alpha=0.5)
    assert torch.equal(got[:4], features()[:4])
    assert not torch.equal(got[4], features()[4])


def test_alpha_per_class(features):
    listed = features(aux=AUX, alpha=[0, 0.5])
    assert torch.equal(listed, features(aux=AUX, alpha={"dog": 0.5, "cat": 0}))
    assert torch.equal(listed[2:4], features()[2:4])
    assert torch.equal(listed[4], features(aux=AUX, alpha=0.5)[4])


@pytest.mark.parametrize(
    ("aux", "alpha", "message"),
    [
        (AUX[:1], 0.2, "one row for each of the 2 classes .the background has none., got 1"),
        ([*AUX, "sky"], 0.2, "got 3"),
        ("whiskers", 0.2, "got the string"),
        (["whiskers", " "], 0.2, "text of 'dog' is empty"),
        (AUX, 1.5, r"alpha must lie in \[0, 1\], got 1.5"),
        (AUX, float("nan"), "got nan"),
        (AUX, [0.1], "one for each of 2 classes, got 1"),
        (AUX, {"cat": 0.1}, "misses the class 'dog'"),
        (AUX, {"cat": 0.1, "dog": 0.1, "cow": 0.1}, "has no class 'cow'"),
    ],
)
def test_wrong_texts_and_shares_are_refused(features, aux, alpha, message):
    with pytest.raises(ValueError, match=message):
        features(aux=aux, alpha=alpha)


def test_a_text_must_be_a_string(features):
    with pytest.raises(TypeError, match="text of 'cat' must be a string, got 3"):
        features(aux=[[3], "x"])


def test_a_long_prompt_is_named(features):
    with pytest.raises(PromptTooLongError, match=r"'a photo of a very very .*needs 83 tokens.* reads 77"):
        features(aux=["very " * 75 + "long", "x"])


def test_trimming_changes_nothing(clip, tokenizer, monkeypatch):
    texts = ["cat", "a much longer text that stands in the same batch", "dog " * 60]
    short = TextEmbedder(clip, tokenizer, templates=FEW).embed(texts)
    monkeypatch.setattr(embed_module, "_trimmed_encoder", lambda model: None)
    torch.testing.assert_close(
        short, TextEmbedder(clip, tokenizer, templates=FEW).embed(texts), atol=1e-6, rtol=0
    )


def test_only_causal_towers_are_trimmed(make_clip):
    assert embed_module._trimmed_encoder(make_clip()) is not None
    assert embed_module._trimmed_encoder(make_clip(no_causal_mask=True)) is None
    assert embed_module._trimmed_encoder(make_clip(pool_type="last")) is None


@pytest.mark.parametrize("text", [{"pool_type": "last"}, {"no_causal_mask": True}, {"proj_bias": True}])
def test_other_towers_give_their_own_features(make_clip, tokenizer, text):
    model = make_clip(**text)
    got = TextEmbedder(model, tokenizer, templates=FEW).embed(["cat", "a large red dog"])
    want = torch.stack([by_hand(model, tokenizer, name) for name in ("cat", "a large red dog")])
    torch.testing.assert_close(got, want, atol=1e-6, rtol=0)


def test_batch_size_and_repeats_change_nothing(clip, tokenizer):
    texts = ["cat", "dog", "cat", *(f"thing {i}" for i in range(40))]
    one = TextEmbedder(clip, tokenizer, templates=FEW, batch_size=1).embed(texts)
    torch.testing.assert_close(
        one, TextEmbedder(clip, tokenizer, templates=FEW).embed(texts), atol=1e-6, rtol=0
    )
    assert torch.equal(one[0], one[2])
    with pytest.raises(ValueError, match="batch_size must be positive, got 0"):
        TextEmbedder(clip, tokenizer, batch_size=0)


def test_progress_counts_texts(clip, tokenizer):
    calls = []
    texts = [f"thing {i}" for i in range(40)]
    TextEmbedder(clip, tokenizer, templates=FEW).embed(texts, progress=lambda *call: calls.append(call))
    assert calls == [(done, 40) for done in (8, 16, 24, 32, 40)]


def count_passes(model, monkeypatch):
    passes = []
    real = embed_module._trimmed_encoder

    def counted(clip_model):
        encode = real(clip_model)
        return lambda tokens: passes.append(len(tokens)) or encode(tokens)

    monkeypatch.setattr(embed_module, "_trimmed_encoder", counted)
    return passes


def test_features_are_kept_on_disk(clip, features, tmp_path, monkeypatch):
    passes = count_passes(clip, monkeypatch)
    first = features(aux=AUX, cache=tmp_path)
    assert passes
    passes.clear()
    assert torch.equal(features(aux=AUX, cache=tmp_path), first)
    assert torch.equal(features(aux=AUX, alpha=0, cache=tmp_path), features(cache=tmp_path))
    assert passes == []
    files = sorted((tmp_path / "text").iterdir())
    assert [file.suffix for file in files] == [".safetensors"] * 2
    assert {len(load_file(file)["features"]) for file in files} == {5, 2}


def test_other_weights_prompts_or_tokens_are_embedded_anew(make_clip, tokenizer, tmp_path, monkeypatch):
    passes = count_passes(None, monkeypatch)

    def fresh(model, words=tokenizer, templates=FEW, texts=("cat",)):
        passes.clear()
        TextEmbedder(model, words, templates=templates, cache=tmp_path).embed(texts)
        return bool(passes)

    def shifted(prompts, context_length=77):
        tokens = tokenizer(prompts, context_length=context_length)
        return torch.where((tokens > 0) & (tokens < 49000), tokens + 1, tokens)

    model = make_clip()
    assert fresh(model)
    assert not fresh(make_clip())
    assert fresh(model, templates=FEW[:2])
    assert fresh(model, texts=("dog",))
    assert fresh(model, words=shifted)
    model.token_embedding.weight[777, 3] += 1e-3
    assert fresh(model)
    assert not fresh(make_clip())


def test_fingerprint_sees_every_weight_of_the_text_side_and_no_other(make_clip):
    base = weights_fingerprint(make_clip())
    model = make_clip()
    for parameter in model.visual.parameters():
        parameter.add_(1)
    assert weights_fingerprint(model) == base
    for name, parameter in model.named_parameters():
        if not name.startswith("visual."):
            last = parameter.view(-1)[-1:]
            kept = last.clone()
            last.add_(0.5)
            assert weights_fingerprint(model) != base, name
            last.copy_(kept)
    assert weights_fingerprint(make_clip().half()) != base


def test_a_broken_cache_file_is_replaced(clip, tokenizer, tmp_path, caplog):
    embedder = TextEmbedder(clip, tokenizer, templates=FEW, cache=tmp_path)
    want = embedder.embed(["cat"])
    (file,) = (tmp_path / "text").iterdir()
    file.write_bytes(b"half a fi")
    with caplog.at_level(logging.WARNING):
        assert torch.equal(embedder.embed(["cat"]), want)
    assert "computed again" in caplog.text
    assert torch.equal(load_file(file)["features"], want)


def test_a_cache_that_cannot_be_written_is_no_failure(clip, tokenizer, tmp_path, caplog):
    (tmp_path / "text").write_text("a file where the folder should be")
    got = TextEmbedder(clip, tokenizer, templates=FEW, cache=tmp_path).embed(["cat"])
    assert got.shape == (1, 16)
    assert "not cached" in caplog.text


def test_the_cache_folder_follows_the_environment(clip, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("ITACLIP_CACHE", str(tmp_path / "here"))
    TextEmbedder(clip, tokenizer, templates=FEW, cache="auto").embed(["cat"])
    assert len(list((tmp_path / "here" / "text").iterdir())) == 1
    monkeypatch.delenv("ITACLIP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr("sys.platform", "linux")
    assert TextEmbedder(clip, tokenizer, cache="auto").cache == tmp_path / "xdg" / "itaclip"


def test_features_carry_no_graph_and_leave_the_model_alone(make_clip, tokenizer):
    model = make_clip().requires_grad_(True)
    before = weights_fingerprint(model)
    got = text_features(model, tokenizer, THINGS, AUX, 0.2, templates=FEW)
    assert not got.requires_grad
    assert got.dtype == torch.float32
    (got.clone().requires_grad_(True) * got).sum().backward()
    assert weights_fingerprint(model) == before
