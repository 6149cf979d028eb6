# SPDX-License-Identifier: Apache-2.0
"""Weights of tiny pipelines in the layouts in which Stable Diffusion and FLUX were published, a file each."""

import re

import torch

RESNET = (
    ("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("norm2", "out_layers.0"), ("conv2", "out_layers.3"),
    ("time_emb_proj", "emb_layers.1"), ("conv_shortcut", "skip_connection"),
)  # fmt: skip
ENDS = (
    ("time_embedding.linear_1", "time_embed.0"), ("time_embedding.linear_2", "time_embed.2"),
    ("conv_in", "input_blocks.0.0"), ("conv_norm_out", "out.0"), ("conv_out", "out.2"),
    ("mid_block.resnets.0", "middle_block.0"), ("mid_block.attentions.0", "middle_block.1"),
    ("mid_block.resnets.1", "middle_block.2"), ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
)  # fmt: skip
VAE = (
    ("mid_block.resnets.0", "mid.block_1"), ("mid_block.resnets.1", "mid.block_2"),
    ("mid_block.attentions.0", "mid.attn_1"), ("conv_norm_out", "norm_out"),
    ("conv_shortcut", "nin_shortcut"), ("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"),
    ("to_out.0", "proj_out"), (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2"),
)  # fmt: skip


def unet_name(name):
    """Return the published name of a weight of the tiny U-Net: two levels, one layer each."""
    down = re.match(r"(down|up)_blocks\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.*)", name)
    if down:
        side, block, kind, layer, rest = down.groups()
        block, layer = int(block), int(layer)
        if side == "down":
            at = 1 + 2 * block + (1 if kind == "downsamplers" else layer)
            start = f"input_blocks.{at}.{1 if kind == 'attentions' else 0}"
            rest = rest.replace("conv.", "op.") if kind == "downsamplers" else rest
        else:
            at = 2 * block + (1 if kind == "upsamplers" else layer)
            place = {"resnets": 0, "attentions": 1}.get(kind, 2 if block == 0 else 1)
            start = f"output_blocks.{at}.{place}"
        name = f"{start}.{rest}"
    for ours, theirs in ENDS:
        if name.startswith(f"{ours}."):
            name = name.replace(ours, theirs, 1)
    if "attn" not in name and "transformer" not in name:
        for ours, theirs in RESNET:
            name = re.sub(rf"(put_blocks\.\d\.0|middle_block\.[02])\.{ours}\.", rf"\1.{theirs}.", name)
    return f"model.diffusion_model.{name}"


def vae_name(name):
    above = re.match(r"decoder\.up_blocks\.(\d)\.(resnets|upsamplers)\.(\d)\.(.*)", name)
    if above:
        level, kind, layer, rest = above.groups()
        place = "upsample" if kind == "upsamplers" else f"block.{layer}"
        name = f"decoder.up.{2 - int(level)}.{place}.{rest}"  # of three levels
    for ours, theirs in VAE:
        name = re.sub(rf"(?<![\w]){ours}(?=\.)", theirs, name)
    return f"first_stage_model.{name}"


OPEN_CLIP = (
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_model.embeddings.token_embedding.weight", "token_embedding.weight"),
    ("text_model.final_layer_norm", "ln_final"), ("text_model.encoder.layers", "transformer.resblocks"),
    ("self_attn.out_proj", "attn.out_proj"), ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"),
    ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"),
)  # fmt: skip
# both transformers: name here, name there
TIME = (("linear_1", "0"), ("linear_2", "2"))
SD3_ENDS = (
    *((f"time_text_embed.timestep_embedder.{ours}", f"t_embedder.mlp.{theirs}") for ours, theirs in TIME),
    *((f"time_text_embed.text_embedder.{ours}", f"y_embedder.mlp.{theirs}") for ours, theirs in TIME),
    ("pos_embed.proj", "x_embedder.proj"), ("pos_embed.pos_embed", "pos_embed"),
    ("norm_out.linear", "final_layer.adaLN_modulation.1"), ("proj_out", "final_layer.linear"),
)  # fmt: skip
SD3_BLOCK = (
    ("norm1.linear", "x_block.adaLN_modulation.1"),
    ("norm1_context.linear", "context_block.adaLN_modulation.1"),
    ("attn.to_out.0", "x_block.attn.proj"), ("attn.to_add_out", "context_block.attn.proj"),
    ("ff.net.0.proj", "x_block.mlp.fc1"), ("ff.net.2", "x_block.mlp.fc2"),
    ("ff_context.net.0.proj", "context_block.mlp.fc1"), ("ff_context.net.2", "context_block.mlp.fc2"),
)  # fmt: skip
FLUX_ENDS = (
    *(
        (f"time_text_embed.{ours}_embedder.linear_{n}", f"{theirs}_in.{side}_layer")
        for ours, theirs in (("timestep", "time"), ("text", "vector"), ("guidance", "guidance"))
        for n, side in ((1, "in"), (2, "out"))
    ),
    ("context_embedder", "txt_in"), ("x_embedder", "img_in"), ("proj_out", "final_layer.linear"),
    ("norm_out.linear", "final_layer.adaLN_modulation.1"),
)  # fmt: skip
FLUX_BLOCK = (
    ("norm1.linear", "img_mod.lin"), ("norm1_context.linear", "txt_mod.lin"),
    ("attn.norm_q.weight", "img_attn.norm.query_norm.scale"),
    ("attn.norm_k.weight", "img_attn.norm.key_norm.scale"),
    ("attn.norm_added_q.weight", "txt_attn.norm.query_norm.scale"),
    ("attn.norm_added_k.weight", "txt_attn.norm.key_norm.scale"),
    ("ff.net.0.proj", "img_mlp.0"), ("ff.net.2", "img_mlp.2"), ("ff_context.net.0.proj", "txt_mlp.0"),
    ("ff_context.net.2", "txt_mlp.2"), ("attn.to_out.0", "img_attn.proj"),
    ("attn.to_add_out", "txt_attn.proj"),
)  # fmt: skip
FLUX_SINGLE = (
    ("norm.linear", "modulation.lin"), ("attn.norm_q.weight", "norm.query_norm.scale"),
    ("attn.norm_k.weight", "norm.key_norm.scale"), ("proj_out", "linear2"),
)  # fmt: skip


def renamed(name, table):
    """Return a name with its start as in a table."""
    for ours, theirs in table:
        if name == ours or name.startswith(f"{ours}."):
            return theirs + name[len(ours) :]
    return name


def swapped(values):
    """Return shift and scale in the other order."""
    return torch.cat(values.chunk(2)[::-1])


def joined(weights, start, parts):
    """Remove weights and biases of several layers and return them as one layer."""
    return {
        kind: torch.cat([weights.pop(f"{start}.{part}.{kind}") for part in parts])
        for kind in ("weight", "bias")
    }


def clip(encoder, prefix):
    """Text encoders as they are; the newest transformers leave the first word of a name out."""
    own = {name.removeprefix("text_model."): values for name, values in encoder.state_dict().items()}
    return {
        f"{prefix}{'' if name.startswith('text_projection') else 'text_model.'}{name}": v
        for name, v in own.items()
    }


def open_clip(encoder, prefix):
    weights, made = encoder.state_dict(), {}
    for layer in range(encoder.config.num_hidden_layers):
        start = f"text_model.encoder.layers.{layer}.self_attn"
        for kind, values in joined(weights, start, ("q_proj", "k_proj", "v_proj")).items():
            made[f"{prefix}transformer.resblocks.{layer}.attn.in_proj_{kind}"] = values
    made[f"{prefix}text_projection"] = weights.pop("text_projection.weight").T
    for name, values in weights.items():
        for ours, theirs in OPEN_CLIP:
            name = name.replace(ours, theirs)
        made[prefix + name] = values
    return made


def sd3_transformer(network):
    weights, made = network.state_dict(), {}
    last = network.config.num_layers - 1
    for number in range(last + 1):
        start, to = f"transformer_blocks.{number}.attn", f"joint_blocks.{number}"
        for side, parts in (
            ("x", ("to_q", "to_k", "to_v")),
            ("context", ("add_q_proj", "add_k_proj", "add_v_proj")),
        ):
            for kind, values in joined(weights, start, parts).items():
                made[f"{to}.{side}_block.attn.qkv.{kind}"] = values
    for name, values in weights.items():
        block = re.match(r"transformer_blocks\.(\d+)\.(.*)", name)
        if block is None:
            made[renamed(name, SD3_ENDS)] = swapped(values) if name.startswith("norm_out") else values
            continue
        ends = int(block[1]) == last and block[2].startswith("norm1_context")
        made[f"joint_blocks.{block[1]}.{renamed(block[2], SD3_BLOCK)}"] = swapped(values) if ends else values
    return made


def flux_transformer(network):
    weights, made = network.state_dict(), {}
    for number in range(network.config.num_layers):
        start, to = f"transformer_blocks.{number}.attn", f"double_blocks.{number}"
        for side, parts in (
            ("img", ("to_q", "to_k", "to_v")),
            ("txt", ("add_q_proj", "add_k_proj", "add_v_proj")),
        ):
            for kind, values in joined(weights, start, parts).items():
                made[f"{to}.{side}_attn.qkv.{kind}"] = values
    for number in range(network.config.num_single_layers):
        start = f"single_transformer_blocks.{number}"
        for kind, values in joined(
            weights, start, ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
        ).items():
            made[f"single_blocks.{number}.linear1.{kind}"] = values
    for name, values in weights.items():
        block = re.match(r"(single_)?transformer_blocks\.(\d+)\.(.*)", name)
        if block is None:
            made[renamed(name, FLUX_ENDS)] = swapped(values) if name.startswith("norm_out") else values
        elif block[1]:
            made[f"single_blocks.{block[2]}.{renamed(block[3], FLUX_SINGLE)}"] = values
        else:
            made[f"double_blocks.{block[2]}.{renamed(block[3], FLUX_BLOCK)}"] = values
    return made


def publish(pipe, family):
    """Return the weights of a pipeline by the names in one published file."""
    weights = {vae_name(name): values for name, values in pipe.vae.state_dict().items()}
    if family in ("sd", "sdxl"):
        weights |= {unet_name(name): values for name, values in pipe.unet.state_dict().items()}
    else:
        layout = sd3_transformer if family == "sd3" else flux_transformer
        weights |= {f"model.diffusion_model.{name}": v for name, v in layout(pipe.transformer).items()}
    if family == "sd":
        weights |= clip(pipe.text_encoder, "cond_stage_model.transformer.")
    elif family == "sdxl":
        weights |= clip(pipe.text_encoder, "conditioner.embedders.0.transformer.")
        weights |= open_clip(pipe.text_encoder_2, "conditioner.embedders.1.model.")
    else:
        t5 = pipe.text_encoder_3 if family == "sd3" else pipe.text_encoder_2
        weights |= clip(pipe.text_encoder, "text_encoders.clip_l.transformer.")
        weights |= {f"text_encoders.t5xxl.transformer.{name}": v for name, v in t5.state_dict().items()}
    if family == "sd3":
        weights |= clip(pipe.text_encoder_2, "text_encoders.clip_g.transformer.")
    return {name: values.clone().contiguous() for name, values in weights.items()}
