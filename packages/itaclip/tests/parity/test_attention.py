# SPDX-License-Identifier: Apache-2.0
"""Attention from other towers and GEM against the formulas of their papers, in fp64."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from itaclip import ITACLIP, AttentionConfig, ITACLIPConfig
from itaclip.attention.calibrated import SelfCalibratedAttention, find_anomalies, mend
from itaclip.attention.correlation import CorrelationAttention, merge
from itaclip.attention.gem import GEMAttention
from itaclip.attention.proxy import ProxyAttention, proxy_map
from itaclip.attention.regions import RegionModel
from itaclip.attention.towers import PatchTower, SamAttention, SamTower
from itaclip.attention.trident import TridentAttention, correlation
from itaclip.encoder import build_encoder
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional as F
from transformers import (
    EomtConfig,
    EomtForUniversalSegmentation,
    EomtImageProcessor,
    SamVisionConfig,
    SamVisionModel,
)

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1).double()
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1).double()


def scattered(build, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build()
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape)
    return model.eval()


@pytest.fixture(scope="module")
def dino():
    size = {"img_size": 32, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
    return scattered(lambda: VisionTransformer(**size, num_classes=0, dynamic_img_size=True), 1)


@pytest.fixture(scope="module")
def sam():
    size = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "output_channels": 8}
    windows = {"image_size": 64, "patch_size": 8, "window_size": 3, "global_attn_indexes": [2]}
    return scattered(lambda: SamVisionModel(SamVisionConfig(**size, **windows, mlp_dim=32)), 2)


def last_block(visual, images):
    """Run an open_clip tower in fp64; return it, the input of its last block, and all inputs."""
    visual = copy.deepcopy(visual).double()
    inputs = [visual._embeds(images.double())]
    for block in visual.transformer.resblocks[:-1]:
        inputs.append(block(inputs[-1]))
    return visual, visual.transformer.resblocks[-1], inputs


def heads_of(block, x):
    attn = block.attn
    joint = F.linear(block.ln_1(x), attn.in_proj_weight, attn.in_proj_bias)
    return [part.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for part in joint.chunk(3, dim=-1)]


def proxy_branch(visual, dino, images, pixels, beta, gamma):
    """The formula of ProxyCLIP, one image, head and patch after the other: ``(B, N, C)`` and its grid."""
    visual, block, inputs = last_block(visual, images)
    values = heads_of(block, inputs[-1])[2][:, :, 1:]  # without the class token
    dino = copy.deepcopy(dino).double()
    tokens = dino.forward_features((pixels.double() - MEAN) / STD)[:, 1:]
    side = math.isqrt(tokens.shape[1])
    branches = []
    for image, own in zip(tokens, values, strict=True):
        unit = image / image.norm(dim=1, keepdim=True)
        similarity = unit @ unit.T
        shifted = gamma * (similarity - beta * similarity.mean())
        rows = []
        for row in shifted:
            kept = row >= 0
            weights = torch.zeros_like(row)
            weights[kept] = row[kept].exp() / row[kept].exp().sum()
            rows.append(weights)
        heads = []
        for value in own:  # (patches of CLIP, head_dim)
            clip_side = math.isqrt(len(value))
            plane = value.T.reshape(1, -1, clip_side, clip_side)
            moved = F.interpolate(plane, size=(side, side), mode="bilinear", align_corners=False)
            heads.append(torch.stack(rows) @ moved[0].flatten(1).T)
        branches.append(block.attn.out_proj(torch.cat(heads, dim=1)))
    return visual, torch.stack(branches), side


def test_proxyclip_is_the_formula(tools, dino):
    model, encoder = tools.native(), build_encoder(tools.native())
    images = 0.5 * tools.image(2, 3, 32, 32)
    strategy = ProxyAttention(beta=0.9, gamma=3.0, tower=dino)
    strategy.bind(encoder)
    found = encoder(images, strategy)
    visual, branch, side = proxy_branch(model.visual, dino, images, encoder.to_pixels(images), 0.9, 3.0)
    expected = (visual.ln_post(branch) @ visual.proj).mT.unflatten(2, (side, side))
    assert found.shape == (2, 24, 8, 8)  # the grid of the other tower
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-4)


def test_proxy_weights_add_up_and_an_even_image_keeps_its_patches():
    maps = torch.randn(2, 8, 3, 4, generator=torch.Generator().manual_seed(0))
    weights = proxy_map(maps, beta=1.2, gamma=3.0)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 12))
    even = proxy_map(torch.ones(1, 8, 3, 4), beta=1.2, gamma=3.0)
    assert torch.equal(even[0], torch.eye(12))


def test_windows_that_are_no_multiple_of_the_other_patch(tools, dino):
    encoder = build_encoder(tools.native())
    strategy = ProxyAttention(tower=dino)
    strategy.bind(encoder)
    assert encoder(tools.image(1, 3, 33, 46), strategy).shape == (1, 24, 9, 12)


def gem_formula(visual, images, blocks, iterations):
    visual, _, inputs = last_block(visual, images)
    stream = inputs[-blocks]
    for block, x in list(zip(visual.transformer.resblocks, inputs, strict=True))[-blocks:]:
        q, k, v = heads_of(block, x)
        temperature = block.ln_1(x).norm(dim=-1).mean(dim=1).view(-1, 1, 1, 1) * q.shape[-1] ** -0.5
        parts = []
        for each in (q, k, v):
            for _ in range(iterations):
                unit = each / each.norm(dim=-1, keepdim=True)
                each = (temperature * unit @ unit.mT).softmax(-1) @ unit
            unit = each / each.norm(dim=-1, keepdim=True)
            parts.append((temperature * unit @ unit.mT).softmax(-1) @ v)
        y = (sum(parts) / 3).transpose(1, 2).flatten(2)
        stream = stream + block.attn.out_proj(y)
    return (visual.ln_post(stream) @ visual.proj)[:, 1:]


@pytest.mark.parametrize(("blocks", "iterations"), [(3, 1), (1, 0), (4, 2)])
def test_gem_is_the_formula(tools, blocks, iterations):
    model, images = tools.native(), tools.image(2, 3, 32, 32)
    found = build_encoder(model)(images, GEMAttention(blocks=blocks, iterations=iterations))
    expected = gem_formula(model.visual, images, blocks, iterations).mT.unflatten(2, (4, 4))
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["siglip", "eva", "pe"])
def test_gem_and_proxyclip_run_on_towers_of_timm(tools, dino, kind):
    encoder, images = build_encoder(tools.timm(kind)), tools.image(1, 3, 32, 32)
    strategy = ProxyAttention(tower=dino)
    strategy.bind(encoder)
    assert encoder(images, strategy).isfinite().all()
    assert encoder(images, GEMAttention(blocks=2)).isfinite().all()


def apart(patches, neighbours, share):
    """Patches ``(N, C)`` above the quantile of the density ratio, one after the other."""
    distances = ((patches[:, None] - patches[None]) ** 2).sum(-1)
    nearest = [[j for j in row.argsort().tolist() if j != i][:neighbours] for i, row in enumerate(distances)]
    reach = [distances[i, others[-1]] for i, others in enumerate(nearest)]
    score = torch.stack(
        [torch.stack([reach[i] / reach[j] for j in others]).mean() for i, others in enumerate(nearest)]
    )
    return [i for i, each in enumerate(score) if each > score.quantile(1 - share)]


def mended(patches, wrong, side):
    """Each wrong patch of a square grid as the mean of its right neighbours, where there are some."""
    found = patches.clone()
    for i in wrong:
        around = [
            row * side + column
            for row in range(i // side - 1, i // side + 2)
            for column in range(i % side - 1, i % side + 2)
            if 0 <= row < side and 0 <= column < side and row * side + column not in wrong
        ]
        found[i] = patches[around].mean(0) if around else patches[i]
    return found


def scclip_formula(visual, image, middle, levels, neighbours, share):
    """SC-CLIP for one image: ``(N, D)``; blocks are numbered from 0 by their inputs."""
    visual, block, inputs = last_block(visual, image[None])
    inputs = [each[0] for each in inputs]
    side = math.isqrt(len(inputs[0]) - 1)
    wrong = apart(inputs[-1][1:], neighbours, share)

    def averaged(x, source):
        unit = source / source.norm(dim=1, keepdim=True)
        cosines = unit @ unit.T
        weights = cosines * (cosines >= 0.4)
        return weights / (weights.sum(1, keepdim=True) + 1e-6) @ x

    middle = mended(inputs[middle][1:], wrong, side)
    unit = middle / middle.norm(dim=1, keepdim=True)
    shifted = 3 * (unit @ unit.T - (unit @ unit.T).mean())
    proxy = shifted.masked_fill(shifted < 0, -torch.inf).softmax(-1)
    fused = sum(inputs[level] for level in levels)
    total = 0
    for x, own in ((averaged(mended(inputs[-1][1:], wrong, side), middle), inputs[-1]), (fused[1:], fused)):
        _, k, v = (each[0] for each in heads_of(block, x[None]))
        weights = ((k @ k.mT * k.shape[-1] ** -0.5).softmax(-1) + proxy) / 2
        branch = block.attn.out_proj((weights @ v).transpose(0, 1).flatten(1)) + 0.3 * own[:1]
        total = total + averaged(branch, inputs[levels[0]][1:])
    return visual.ln_post(total) @ visual.proj


def test_scclip_is_the_formula(tools):
    # 36 patches: 30 neighbours are not all of them; blocks 9 and 4 of 12 are 2 and 1 of 4, as outputs
    images, visual = tools.image(2, 3, 48, 48), tools.exact(image_size=48).visual
    found = build_encoder(tools.native(image_size=48))(images, SelfCalibratedAttention())
    encoder = build_encoder(tools.exact(image_size=48))
    exact = encoder(images.double(), SelfCalibratedAttention())
    for image, each, precise in zip(images, found, exact, strict=True):
        expected = scclip_formula(visual, image, 2, (1, 2), 30, 0.05).T.unflatten(1, (6, 6))
        torch.testing.assert_close(each.double(), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(precise, expected, atol=1e-5, rtol=1e-5)


def test_anomalies_are_those_of_the_formula_and_mended_by_their_neighbours():
    patches = torch.randn(2, 25, 6, generator=torch.Generator().manual_seed(1)).double()
    patches[0, [6, 7, 23]] += 5
    found = find_anomalies(patches, 8, 0.12)
    for image, wrong in zip(patches, found, strict=True):
        expected = apart(image, 8, 0.12)
        assert wrong.nonzero().flatten().tolist() == expected
        torch.testing.assert_close(mend(image[None], wrong[None], (5, 5))[0], mended(image, expected, 5))
    # nothing is apart where all patches are alike, and a patch without a sound neighbour stays
    assert not find_anomalies(torch.ones(1, 9, 4), 3, 0.2).any()
    everything = torch.ones(1, 9, dtype=torch.bool)
    assert torch.equal(mend(patches[:1, :9], everything, (3, 3)), patches[:1, :9])


@pytest.mark.parametrize("kind", ["siglip", "eva", "pe"])
def test_scclip_runs_on_towers_of_timm_and_even_images(tools, kind):
    encoder = build_encoder(tools.timm(kind))
    for image in (tools.image(1, 3, 40, 48), torch.zeros(1, 3, 32, 32)):
        assert encoder(image, SelfCalibratedAttention()).isfinite().all()


def one_number(regions, unit, distance):
    """Regions as alike as the most alike two but for a distance, and chains of them, get one number."""
    present = [each for each in regions.unique().tolist() if each > 0]
    means = [F.normalize(unit[regions == each].mean(0), dim=0) for each in present]
    cosines = torch.stack([torch.stack([a @ b for b in means]) for a in means])
    found, seen = regions.clone(), set()
    for start in range(len(present)):
        chain = [] if start in seen else [start]
        for i in chain:
            near = [j for j in range(len(present)) if cosines.max() - cosines[i, j] <= distance]
            chain += [j for j in near if j not in chain]
        seen |= set(chain)
        for i in chain:
            found[regions == present[i]] = start + 1
    return found


def corrclip_formula(visual, dino, image, pixels, regions, distance):
    """CorrCLIP for one window of 32 px: ``(N, D)`` on the grid of the other tower, 8 x 8."""
    visual, block, inputs = last_block(visual, image[None])
    dino = copy.deepcopy(dino).double()
    x = dino._pos_embed(dino.patch_embed((pixels.double() - MEAN)[None] / STD))
    x = dino.blocks[0](dino.norm_pre(x))
    query, key, _ = dino.blocks[1].attn.qkv(dino.blocks[1].norm1(x))[0, 1:].chunk(3, dim=-1)
    unit = F.normalize(query + key, dim=-1)
    area = one_number(regions[::4, ::4].flatten(), unit, distance)
    similarity = unit @ unit.T
    weights = torch.zeros_like(similarity)
    for i in range(64):
        open_to = [
            j
            for j in range(64)
            if (similarity[i, j] > similarity.mean() if 0 in (area[i], area[j]) else area[i] == area[j])
        ]
        weights[i, open_to] = (4 * similarity[i, open_to]).softmax(0)
    coarse = area.view(8, 8)[::2, ::2].flatten()
    present = area.unique()
    total = torch.zeros(64, visual.proj.shape[1], dtype=torch.float64)
    for source, weight in ((inputs[-1], 1.0), (inputs[-2], 1.0)):
        value = F.linear(block.ln_1(source), block.attn.in_proj_weight, block.attn.in_proj_bias)[0, 1:, 64:]
        moved = F.interpolate(value.T.reshape(1, -1, 4, 4), size=8, mode="bilinear", align_corners=False)
        branch = block.attn.out_proj(weights @ moved[0].flatten(1).T)
        total += weight * (visual.ln_post(branch) @ visual.proj)
    # tokens of the regions in front of all others, which do not see them
    count = len(present)
    sees = torch.zeros(count + 17, count + 17, dtype=torch.bool)
    sees[count:, count:] = sees[:count, count] = True
    sees[:count, count + 1 :] = coarse[None] == present[:, None]
    mask = torch.zeros(sees.shape, dtype=torch.float64).masked_fill(~sees, -torch.inf)
    x = torch.cat([inputs[0][:, :1].expand(1, count, -1), inputs[0]], dim=1)
    for each in visual.transformer.resblocks:
        x = each(x, attn_mask=mask)
    tokens = visual.ln_post(x[0, :count]) @ visual.proj
    return total + 0.5 * torch.stack([tokens[present.tolist().index(each)] for each in area.tolist()])


def drawn_regions(seed):
    """Five regions in cells of 4 px, some of none."""
    cells = torch.randint(0, 6, (4, 4), generator=torch.Generator().manual_seed(seed))
    return cells.repeat_interleave(8, 0).repeat_interleave(8, 1)


def test_corrclip_is_the_formula(tools, dino):
    model, encoder = tools.native(), build_encoder(tools.native())
    images = 0.5 * tools.image(2, 3, 32, 32)
    regions = torch.stack([drawn_regions(0), drawn_regions(1)])
    strategy = CorrelationAttention(tower=dino, regions=drawn_regions, merged=0.02)
    strategy.bind(encoder)
    found = encoder(images, strategy, regions=regions)
    assert found.shape == (2, 24, 8, 8)
    pixels = encoder.to_pixels(images)
    for each, image, shown, area in zip(found, images, pixels, regions, strict=True):
        expected = corrclip_formula(model.visual, dino, image, shown, area, 0.02).T.unflatten(1, (8, 8))
        torch.testing.assert_close(each.double(), expected, atol=1e-4, rtol=1e-4)


def test_regions_are_merged_along_chains():
    angles = torch.tensor([0.0, 0.0, 0.1, 0.2, 1.5, 1.6, 3.0])
    unit = torch.stack([angles.cos(), angles.sin()], dim=1)
    regions = torch.tensor([0, 1, 2, 3, 7, 9, 4])
    # 1 and 3 are joined by 2; the largest cosine is that of a region with itself
    found = merge(regions, unit, 1 - math.cos(0.11))
    assert torch.equal(found, one_number(regions, unit, 1 - math.cos(0.11)))
    assert found.unique(return_inverse=True)[1].tolist() == [0, 1, 1, 1, 3, 3, 2]


def test_windows_and_labels_follow_the_regions_of_the_image(tools, dino, classes):
    asked = []

    def regions(pixels):
        asked.append(tuple(pixels.shape))
        found = torch.zeros(pixels.shape[-2:], dtype=torch.int64)
        found[:, 20:50] = 1
        found[10:30, 50:] = 2
        return found

    config = ITACLIPConfig.preset("corrclip", resize_short=40, crop=32, stride=16, batch_size=3)
    strategy = CorrelationAttention(tower=dino, regions=regions)
    segmenter = ITACLIP(tools.native(), None, config, attention=strategy)
    segmenter.set_text_features(tools.text(len(classes.names)), classes)
    labels = segmenter.predict(tools.image(3, 50, 70)).labels
    assert asked == [(3, 50, 70)]
    assert len(labels[:, 20:50].unique()) == len(labels[10:30, 50:].unique()) == 1
    with pytest.raises(ValueError, match="no branches but identity"):
        ITACLIP(tools.native(), None, replace(config, branches=("identity", "hflip")), attention=strategy)
    with pytest.raises(ValueError, match="open_clip's own"):
        CorrelationAttention(tower=dino, regions=regions).bind(build_encoder(tools.timm("siglip")))


def test_a_folder_of_a_panoptic_model_finds_regions(tools, tmp_path):
    depth = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_blocks": 1}
    config = EomtConfig(**depth, image_size=64, num_queries=6, num_labels=2, num_upscale_blocks=1)
    model = scattered(lambda: EomtForUniversalSegmentation(config), 4)
    model.class_predictor.bias.data[0] += 9  # sure of every query
    model.save_pretrained(tmp_path)
    size = {"shortest_edge": 64, "longest_edge": 64}
    EomtImageProcessor(size=size, do_pad=True).save_pretrained(tmp_path)
    found = RegionModel(str(tmp_path))(tools.image(3, 40, 56))
    assert (found.shape, found.dtype) == ((40, 56), torch.int64)
    assert found.max() > 0
    with pytest.raises(FileNotFoundError, match=r"model of regions .* cannot be loaded"):
        RegionModel(str(tmp_path / ".."))


def sam_formula(sam, pixels):
    """Map and attended values of the last layer, over the part that the image covers."""
    encoder = copy.deepcopy(sam.vision_encoder).double()
    height, width = pixels.shape[-2:]
    size = [int(side * 64 / max(height, width) + 0.5) for side in (height, width)]
    image = F.interpolate(pixels[None].double(), size=size, mode="bilinear", antialias=True)
    image = F.pad((image.clamp(0, 1) - MEAN) / STD, (0, 64 - size[1], 0, 64 - size[0]))
    x = encoder.patch_embed(image) + encoder.pos_embed
    for layer in encoder.layers[:-1]:
        x = layer(x)
    last = encoder.layers[-1]
    x = last.layer_norm1(x)
    rows, columns = size[0] // 8, size[1] // 8
    inside = [row * 8 + column for row in range(rows) for column in range(columns)]
    qkv = last.attn.qkv(x).reshape(64, 3, 2, 8)
    places = [(index // 8, index % 8) for index in inside]
    weights, outputs = torch.zeros(len(inside), len(inside)).double(), []
    for head in range(2):
        query, key, value = (qkv[inside, part, head] for part in range(3))
        logits = query @ key.T * 8**-0.5
        for i, (top, left) in enumerate(places):
            for j, (other_top, other_left) in enumerate(places):
                logits[i, j] += query[i] @ last.attn.rel_pos_h[top - other_top + 7]
                logits[i, j] += query[i] @ last.attn.rel_pos_w[left - other_left + 7]
        weights += logits.softmax(-1) / 2
        outputs.append(logits.softmax(-1) @ value)
    return weights, torch.cat(outputs, dim=1), (rows, columns)


@pytest.mark.parametrize("shape", [(40, 64), (90, 50)], ids=str)
def test_attention_of_sam_is_the_formula(tools, sam, shape):
    pixels = tools.image(3, *shape)
    found = SamTower(sam)(pixels)
    weights, outputs, grid = sam_formula(sam, pixels)
    assert found.grid == grid
    torch.testing.assert_close(found.weights.double(), weights, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.outputs.double(), outputs, atol=1e-5, rtol=1e-4)


def test_a_patch_that_is_like_no_other_keeps_itself():
    # the cosines' mean is 1/3, no pair of different patches reaches it; the last has no weight on itself
    weights = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5], [0.6, 0.4, 0.0]])
    found = correlation(SamAttention(weights, torch.eye(3), (1, 3)), beta=1.0)
    assert torch.equal(found, torch.eye(3))
    everything = correlation(SamAttention(weights, torch.eye(3), (1, 3)), beta=0.0)
    torch.testing.assert_close(everything, weights)


def trident_formula(visual, dino, sam, pixels, text, size, crop, stride):
    """Splice the windows' branches in patches of 8 px, gather by SAM, match, enlarge in one step."""
    resized = F.interpolate(pixels[None], size=size, mode="bilinear", align_corners=False)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    total = torch.zeros(32, size[0] // 8, size[1] // 8).double()
    count = torch.zeros(size[0] // 8, size[1] // 8).double()
    for top in sorted({*range(0, size[0] - crop, stride), size[0] - crop}):
        for left in sorted({*range(0, size[1] - crop, stride), size[1] - crop}):
            window = resized[:, :, top : top + crop, left : left + crop]
            _, branch, side = proxy_branch(visual, dino, (window - mean) / std, window, 1.2, 3.0)
            plane = branch.mT.unflatten(2, (side, side))
            patches = crop // 8
            plane = F.interpolate(plane, size=(patches, patches), mode="bilinear", align_corners=False)[0]
            total[:, top // 8 : top // 8 + patches, left // 8 : left // 8 + patches] += plane
            count[top // 8 : top // 8 + patches, left // 8 : left // 8 + patches] += 1
    weights, outputs, grid = sam_formula(sam, pixels)
    cosines = F.cosine_similarity(outputs[:, None], outputs[None], dim=-1)
    weights = weights * (cosines >= cosines.mean())
    weights = weights / weights.sum(dim=1, keepdim=True)
    moved = F.interpolate((total / count)[None], size=grid, mode="bilinear", align_corners=False)
    visual = copy.deepcopy(visual).double()
    tokens = visual.ln_post(weights @ moved[0].flatten(1).T) @ visual.proj
    scores = text.double() @ F.normalize(tokens, dim=-1).T
    return F.interpolate(scores.unflatten(1, grid)[None], size=pixels.shape[-2:], mode="bilinear")[0]


def test_trident_splices_then_segments(tools, dino, sam, classes):
    model = tools.native()
    config = ITACLIPConfig(
        attention=AttentionConfig(strategy="trident"),
        resize_short=40,
        crop=32,
        stride=16,
        branches=("identity",),
        pamr_steps=0,
        closing=False,
        positions="size",
        batch_size=3,
    )
    strategy = TridentAttention(tower=dino, sam=sam)
    segmenter = ITACLIP(model, None, config, attention=strategy)
    text = tools.text(len(classes.names))
    segmenter.set_text_features(text, classes)
    pixels = tools.image(3, 50, 70)
    # 50 x 70 becomes 40 x 56, whole patches of 8 px
    expected = trident_formula(model.visual, dino, sam, pixels, text, (40, 56), 32, 16)
    torch.testing.assert_close(segmenter.scores(pixels).double(), expected, atol=1e-4, rtol=1e-3)
    both = segmenter.predict([pixels, pixels[:, :44]])
    assert [found.size for found in both] == [(50, 70), (44, 70)]
    assert segmenter.features(pixels).shape == (24, 5, 7)


def test_what_trident_cannot_splice_is_refused(tools, dino, sam):
    strategy = TridentAttention(tower=dino, sam=sam)
    config = ITACLIPConfig(branches=("identity",), crop=32, stride=16, pamr_steps=0)
    for changes, message in (
        ({"stride": 12}, "crop and stride must be multiples"),
        ({"branches": ("identity", "hflip")}, "no branches but identity"),
    ):
        with pytest.raises(ValueError, match=message):
            ITACLIP(tools.native(), None, replace(config, **changes), attention=strategy)


def test_towers_of_another_kind_are_refused(sam):
    with pytest.raises(ValueError, match="vision transformer of timm"):
        PatchTower(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="SamModel of transformers"):
        SamTower(torch.nn.Linear(2, 2))
    local = copy.deepcopy(sam)
    local.vision_encoder.layers[-1].window_size = 3
    with pytest.raises(ValueError, match="within windows"):
        SamTower(local)
