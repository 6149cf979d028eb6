# SPDX-License-Identifier: Apache-2.0
"""The recorder: early exit, order, forward passes in pieces, and a model left as it was."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch
from diffeat import ActivationName, Storage, capture
from diffeat.hooks.geometry import Geometry
from diffeat.hooks.recorder import Recorder, Sink, StopForward
from diffeat.names.listing import taps_of
from diffeat.names.taps import Source, Tap
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import AttnProcessor, SlicedAttnProcessor

EARLY = ["down-level0-repeat0-vit-block0-self-map", "down-level1-repeat0-res-out"]


def call(pipeline: Any, batch: int = 2, height: int = 16, width: int = 16) -> dict[str, Any]:
    """Arguments of one call of a U-Net."""
    generator = torch.Generator().manual_seed(0)
    unet = pipeline.unet
    inputs: dict[str, Any] = {
        "sample": torch.randn(batch, 4, height, width, generator=generator),
        "timestep": torch.tensor(50),
        "encoder_hidden_states": torch.randn(batch, 16, unet.config.cross_attention_dim, generator=generator),
    }
    if unet.config.addition_embed_type:
        inputs["added_cond_kwargs"] = {
            "text_embeds": torch.randn(batch, 16, generator=generator),
            "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]]).repeat(batch, 1),
        }
    return inputs


def fingerprint(model: torch.nn.Module) -> tuple[Any, ...]:
    """Everything a recorder might leave behind: values, modes, hooks, attributes, processors."""
    values = hashlib.sha256()
    for name, value in model.state_dict().items():
        values.update(name.encode() + value.numpy().tobytes())
    modules = [
        (
            path,
            module.training,
            tuple(sorted(vars(module))),
            len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks),
            len(module._forward_hooks_with_kwargs) + len(module._forward_hooks_always_called),
            type(getattr(module, "processor", None)),
        )
        for path, module in model.named_modules()
    ]
    return values.hexdigest(), tuple(modules)


@torch.no_grad()
def test_early_exit_gives_the_same_and_leaves_no_trace(pipelines):
    pipeline = pipelines("SD1.5")
    unet, inputs = pipeline.unet, call(pipelines("SD1.5"))
    before, plain = fingerprint(unet), unet(**inputs).sample
    with capture(pipeline, EARLY) as whole:
        unet(**inputs)
    ran: list[str] = []
    late = unet.mid_block.register_forward_hook(lambda *_: ran.append("mid"))
    with capture(pipeline, EARLY, stop_after=0) as early:
        unet(**inputs)
        ran.append("after the call")
    late.remove()
    assert ran == []
    assert list(early) == list(whole) == EARLY
    assert all(torch.equal(early[name], whole[name]) for name in EARLY)
    assert fingerprint(unet) == before
    assert torch.equal(unet(**inputs).sample, plain)


@torch.no_grad()
@pytest.mark.parametrize("where", ["sink", "model", "attention"])
def test_no_trace_after_an_error(pipelines, where):
    unet, inputs = pipelines("SD1.5").unet, call(pipelines("SD1.5"))
    before, plain = fingerprint(unet), unet(**inputs).sample
    broken = {
        "model": unet.up_blocks[0],
        "attention": unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_v,
    }
    taps = [tap for tap in taps_of(unet) if tap.name.stage != "mid"]

    class Full(Sink):
        def take(self, tap: Tap, tensor: torch.Tensor, call: int) -> None:
            if where == "sink" and tap.name.kind == "self-map":
                raise OSError("no space left")

    def fail(*_: Any) -> None:
        raise OSError("no space left")

    handle = broken[where].register_forward_hook(fail) if where in broken else None
    with pytest.raises(OSError, match="no space left"), Recorder(unet, taps, Full()):
        unet(**inputs)
    if handle is not None:
        handle.remove()
    # a watch that stayed on would see this
    assert torch.overrides._len_torch_function_stack() == 0
    assert fingerprint(unet) == before
    assert torch.equal(unet(**inputs).sample, plain)


@torch.no_grad()
def test_training_mode_is_left_alone(fresh):
    unet, inputs = fresh("SD1.5").unet, call(fresh("SD1.5"))
    unet.train()
    unet.mid_block.eval()
    before = fingerprint(unet)
    with capture(unet, EARLY):
        unet(**inputs)
    assert fingerprint(unet) == before


@torch.no_grad()
def test_a_handler_of_the_model_does_not_swallow_the_exit(pipelines):
    unet, inputs = pipelines("SD1.5").unet, call(pipelines("SD1.5"))
    swallowed = []
    with capture(unet, EARLY, stop_after=0):
        try:
            unet(**inputs)
        except Exception as error:
            swallowed.append(error)
    assert swallowed == []
    assert not issubclass(StopForward, Exception)


@torch.no_grad()
def test_blocks_inside_blocks_keep_their_exits_apart(pipelines):
    unet, inputs = pipelines("SD1.5").unet, call(pipelines("SD1.5"))
    with capture(unet, "unet-after-conv-in", stop_after=0) as outer:
        with capture(unet, EARLY, stop_after=0) as inner:
            unet(**inputs)
        unet(**inputs)
    # the outer one wanted less and so left both
    assert list(outer) == ["unet-after-conv-in"]
    assert list(inner) == []


@torch.no_grad()
def test_activations_own_their_memory(pipelines):
    unet, inputs = pipelines("SD1.5").unet, call(pipelines("SD1.5"))
    with capture(unet, "*") as found:
        unet(**inputs)
    pointers = [tensor.untyped_storage().data_ptr() for tensor in found.values()]
    assert len(set(pointers)) == len(pointers) == 197
    assert all(t.untyped_storage().nbytes() == t.numel() * t.element_size() for t in found.values())
    assert not any(tensor.requires_grad for tensor in found.values())


class Overwrites(torch.nn.Module):
    """Writes into what its modules were given and into what they gave, behind torch's back too."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.fused = torch.nn.Linear(4, 4), torch.nn.Linear(4, 8)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        x = hidden_states + 1
        y = self.inner(x)
        x.mul_(3)
        y.data.add_(5)  # no version counter tells of this one
        z = self.fused(y)
        z.chunk(2, dim=-1)[1].numpy().fill(7)
        return z


@torch.no_grad()
@pytest.mark.parametrize("layout", ["tokens", "free"])
def test_what_the_model_overwrites_later_is_kept_as_it_was(layout):
    model = Overwrites()
    inputs = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    taps = [
        Tap(name=ActivationName.parse(f"vit-block0-{name}"), sources=(source,), port=port, layout=layout)
        for name, source, port in (
            ("self-q", Source(path="inner"), "input"),
            ("self-k", Source(path="inner"), "output"),
            ("self-v", Source(path="fused", part=(1, 2)), "output"),
        )
    ]
    found: dict[str, torch.Tensor] = {}

    class Found(Sink):
        def take(self, tap: Tap, tensor: torch.Tensor, call: int) -> None:
            found[tap.name.kind] = tensor

    with Recorder(model, taps, Found(), geometry=Geometry.of(2, 3)):
        model(inputs)
    inner = model.inner(inputs + 1)
    wanted = {"self-q": inputs + 1, "self-k": inner, "self-v": model.fused(inner + 5)[..., 4:]}
    assert list(found) == list(wanted)
    for kind, value in wanted.items():
        got = found[kind].flatten(2).transpose(1, 2) if layout == "tokens" else found[kind]
        assert torch.equal(got, value)
        assert got.is_contiguous()
        # a part of a fused projection does not keep the rest of it alive
        assert found[kind].untyped_storage().nbytes() == value.nbytes


@torch.no_grad()
def test_feed_forward_in_pieces_is_joined(fresh):
    pipeline = fresh("SD1.5")
    unet, inputs = pipeline.unet, call(pipeline)
    names = ["*-ffn-inner"]
    with capture(unet, names) as whole:
        unet(**inputs)
    blocks = [module for module in unet.modules() if isinstance(module, BasicTransformerBlock)]
    for dim in (0, 1):
        for block in blocks:
            block.set_chunk_feed_forward(1, dim)
        with capture(unet, names) as pieces:
            unet(**inputs)
        assert list(pieces) == list(whole)
        for name, value in whole.items():
            torch.testing.assert_close(pieces[name], value, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", ["SD1.5", "SDXL"])
def test_sides_that_are_not_square_or_not_even(pipelines, family):
    unet = pipelines(family).unet
    inputs = call(pipelines(family), height=12, width=20)
    with capture(unet, "*") as found:
        unet(**inputs)
    shapes = {name: tuple(tensor.shape[2:4]) for name, tensor in found.items()}
    sides = [(12, 20), (6, 10), (3, 5), (2, 3)]
    for name, shape in shapes.items():
        level = ActivationName.parse(name).level
        if name.startswith("down") and "sampler" not in name:
            assert shape == sides[level]
    assert shapes["up-level0-upsampler-out"] == (sides[2] if family == "SD1.5" else sides[1])
    assert shapes["unet-out"] == (12, 20)
    with capture(unet, "unet-out") as again:
        unet(**inputs)
    assert torch.equal(again["unet-out"], found["unet-out"])


@torch.no_grad()
def test_processors_without_a_fused_kernel_give_the_same_maps(fresh):
    pipeline = fresh("SD1.5")
    unet, inputs = pipeline.unet, call(pipeline)
    names = ["*-map"]
    with capture(unet, names) as fused:
        unet(**inputs)
    for processor in (AttnProcessor(), SlicedAttnProcessor(1)):
        unet.set_attn_processor(processor)
        with capture(unet, names) as plain:
            unet(**inputs)
        assert list(plain) == list(fused)
        for name, value in fused.items():
            torch.testing.assert_close(plain[name], value, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_an_attention_that_cannot_be_watched_says_so(fresh):
    pipeline = fresh("SD1.5")
    unet, inputs = pipeline.unet, call(pipeline)

    def opaque(attn: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return hidden_states

    unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.processor = opaque
    with (
        pytest.raises(RuntimeError, match=r"needs an attention that can be recorded.*set_attention_backend"),
        capture(unet, EARLY),
    ):
        unet(**inputs)


def test_gradients_on_request(pipelines):
    unet, inputs = pipelines("SD1.5").unet, call(pipelines("SD1.5"))
    inputs["sample"].requires_grad_()
    with capture(unet, EARLY, storage=Storage(with_grad=True), stop_after=0) as found:
        unet(**inputs)
    sum(tensor[..., 0].sum() for tensor in found.values()).backward()
    assert inputs["sample"].grad.abs().sum() > 0
