# SPDX-License-Identifier: Apache-2.0
"""Models of diffusers and transformers with small random weights, in the format of the real ones."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from vitron.protocol.media import Artefact

# pipelines of random weights lie with the tests of pixelsmith
TINY = Path(__file__).parents[4] / "pixelsmith" / "tests" / "tiny_models.py"
tiny_pipeline = runpy.run_path(str(TINY))["tiny_pipeline"]
# what the denoisers of both kinds of videos share
NET = {"layers_per_block": 1, "sample_size": 16, "out_channels": 4, "cross_attention_dim": 16}


def disc_clip():
    """A red disc that moves right, and a blue square, on white."""
    rows, columns = np.mgrid[:48, :64]
    frames = np.full((4, 48, 64, 3), 240, dtype=np.uint8)
    for index, frame in enumerate(frames):
        frame[(rows - 16) ** 2 + (columns - 14 - 3 * index) ** 2 <= 81] = (214, 40, 40)
        frame[28:42, 40:54] = (35, 87, 200)
    return frames


@pytest.fixture(scope="session")
def video():
    return Artefact("video", disc_clip())


@pytest.fixture(scope="session")
def image():
    return Artefact("image", disc_clip()[0])


@pytest.fixture(scope="session")
def disc(video):
    """Where the disc is, (T, H, W)."""
    return (video.data == (214, 40, 40)).all(axis=-1)


def saved(pipe, place):
    pipe.save_pretrained(place)
    return str(place)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Folders of the small models, built when they are first asked for."""
    return Models(tmp_path_factory.mktemp("models"))


SAM3_SIDE = 56
SAM3_SIZE = {"height": SAM3_SIDE, "width": SAM3_SIDE}
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
SAM3_TOKENS = ["<|startoftext|>", "<|endoftext|>", *_LETTERS, *(f"{letter}</w>" for letter in _LETTERS)]


def letters_tokenizer():
    from transformers import CLIPTokenizerFast

    return CLIPTokenizerFast(vocab={token: at for at, token in enumerate(SAM3_TOKENS)}, merges=[])


class Models:
    def __init__(self, root):
        self.root = root

    def __getitem__(self, name):
        place = self.root / name
        if not place.exists():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                saved_to = getattr(self, "_" + name.replace("-", "_"))(place)
            assert list(place.rglob("*.safetensors")), saved_to
        return str(place)

    def _stable_diffusion(self, place):

        return saved(tiny_pipeline("sd"), place)

    def _instruct(self, place):
        from diffusers import StableDiffusionInstructPix2PixPipeline, UNet2DConditionModel

        parts = tiny_pipeline("sd").components
        config = dict(parts["unet"].config) | {"in_channels": 8}
        parts["unet"] = UNet2DConditionModel.from_config(config)
        return saved(StableDiffusionInstructPix2PixPipeline(**parts), place)

    def _text_to_video(self, place):
        from diffusers import TextToVideoSDPipeline, UNet3DConditionModel

        parts = tiny_pipeline("sd").components
        net = UNet3DConditionModel(
            block_out_channels=(8, 8),
            in_channels=4,
            down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
            up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
            **NET,
            attention_head_dim=4,
            norm_num_groups=2,
        )
        kept = {name: parts[name] for name in ("vae", "text_encoder", "tokenizer", "scheduler")}
        return saved(TextToVideoSDPipeline(unet=net, **kept), place)

    def _image_to_video(self, place):
        from diffusers import (
            AutoencoderKLTemporalDecoder,
            EulerDiscreteScheduler,
            StableVideoDiffusionPipeline,
            UNetSpatioTemporalConditionModel,
        )
        from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

        net = UNetSpatioTemporalConditionModel(
            block_out_channels=(32, 64),
            in_channels=8,
            down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
            **NET,
            num_attention_heads=2,
            projection_class_embeddings_input_dim=24,
            addition_time_embed_dim=8,
            num_frames=2,
        )
        vae = AutoencoderKLTemporalDecoder(
            block_out_channels=(32, 32),
            down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
            latent_channels=4,
            layers_per_block=1,
            sample_size=32,
        )
        config = CLIPVisionConfig(
            hidden_size=16,
            projection_dim=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=224,  # the pipeline resizes to no other
            intermediate_size=32,
            patch_size=32,
        )
        scheduler = EulerDiscreteScheduler(
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            interpolation_type="linear",
            timestep_spacing="leading",
            timestep_type="continuous",
            sigma_min=0.002,
            sigma_max=700,
            use_karras_sigmas=True,
        )
        pipe = StableVideoDiffusionPipeline(
            vae=vae,
            image_encoder=CLIPVisionModelWithProjection(config),
            unet=net,
            scheduler=scheduler,
            feature_extractor=CLIPImageProcessor(crop_size=224, size=224),
        )
        return saved(pipe, place)

    def _sam(self, place):
        from transformers import SamConfig, SamImageProcessor, SamModel, SamProcessor

        config = SamConfig(
            vision_config={
                "hidden_size": 16,
                "output_channels": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 64,
                "patch_size": 8,
                "mlp_dim": 32,
                "window_size": 4,
                "global_attn_indexes": [1],
                "num_pos_feats": 8,
            },
            prompt_encoder_config={
                "hidden_size": 16,
                "image_size": 64,
                "patch_size": 8,
                "mask_input_channels": 4,
            },
            mask_decoder_config={
                "hidden_size": 16,
                "mlp_dim": 32,
                "num_attention_heads": 2,
                "iou_head_hidden_dim": 16,
            },
        )
        SamModel(config).save_pretrained(place)
        images = SamImageProcessor(
            size={"longest_edge": 64},
            pad_size={"height": 64, "width": 64},
            mask_size={"longest_edge": 16},
            mask_pad_size={"height": 16, "width": 16},
        )
        SamProcessor(images).save_pretrained(place)
        return place

    def _sam2_parts(self):
        side = 64
        backbone = {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": 8,
            "image_size": [side, side],
            "num_attention_heads": 1,
            "blocks_per_stage": [1, 1, 2, 1],
            "embed_dim_per_stage": [8, 16, 32, 64],
            "num_attention_heads_per_stage": [1, 1, 2, 2],
            "window_size_per_stage": [8, 4, 4, 2],
            "global_attention_blocks": [3],
        }
        return {
            "vision_config": {
                "model_type": "sam2_vision_model",
                "backbone_config": backbone,
                "backbone_channel_list": [64, 32, 16, 8],
                "backbone_feature_sizes": [[side // 4] * 2, [side // 8] * 2, [side // 16] * 2],
                "fpn_hidden_size": 128,
            },
            "prompt_encoder_config": {
                "hidden_size": 128,
                "image_size": side,
                "patch_size": 16,
                "mask_input_channels": 4,
            },
            "mask_decoder_config": {
                "hidden_size": 128,
                "mlp_dim": 32,
                "num_attention_heads": 2,
                "iou_head_hidden_dim": 16,
            },
        }

    def _sam2(self, place):
        from transformers import Sam2Config, Sam2ImageProcessor, Sam2Model, Sam2Processor

        Sam2Model(Sam2Config(**self._sam2_parts())).save_pretrained(place)
        images = Sam2ImageProcessor(size={"height": 64, "width": 64}, mask_size={"height": 16, "width": 16})
        Sam2Processor(images, target_size=64).save_pretrained(place)
        return place

    def _sam_video(self, place):
        from transformers import (
            Sam2ImageProcessor,
            Sam2VideoConfig,
            Sam2VideoModel,
            Sam2VideoProcessor,
            Sam2VideoVideoProcessor,
        )

        config = Sam2VideoConfig(
            **self._sam2_parts(),
            image_size=64,
            memory_attention_hidden_size=128,
            memory_attention_num_layers=1,
            memory_attention_feed_forward_hidden_size=32,
            memory_attention_rope_feat_sizes=[4, 4],
            memory_encoder_hidden_size=128,
            memory_encoder_output_channels=64,  # the attention over memories is built for it
            mask_downsampler_embed_dim=128,
            memory_fuser_embed_dim=128,
            memory_fuser_intermediate_dim=32,
            memory_fuser_num_layers=1,
        )
        Sam2VideoModel(config).save_pretrained(place)
        size = {"height": 64, "width": 64}
        Sam2VideoProcessor(
            Sam2ImageProcessor(size=size, mask_size={"height": 16, "width": 16}),
            Sam2VideoVideoProcessor(size=size),
            target_size=64,
        ).save_pretrained(place)
        return place

    def _sam3_parts(self, width=32):
        layer = {"hidden_size": width, "num_attention_heads": 2, "num_layers": 1, "intermediate_size": 32}
        backbone = {
            "model_type": "sam3_vit_model",
            "hidden_size": 32,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "image_size": SAM3_SIDE,
            "patch_size": 14,
            "window_size": 2,
            "global_attn_indexes": [1],
            "pretrain_image_size": 28,
        }
        return {
            "vision_config": {
                "model_type": "sam3_vision_model",
                "backbone_config": backbone,
                "fpn_hidden_size": width,
                "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
            },
            "text_config": {
                "model_type": "clip_text_model",
                "vocab_size": len(SAM3_TOKENS),
                "hidden_size": 16,
                "intermediate_size": 32,
                "projection_dim": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "max_position_embeddings": 32,
            },
            "geometry_encoder_config": layer,
            "detr_encoder_config": layer,
            "detr_decoder_config": layer | {"num_queries": 5},
            "mask_decoder_config": {"hidden_size": width, "num_attention_heads": 2},
        }

    def _sure_of_several(self, model, spread):
        """Make SAM 3 sure of several instances that differ."""
        with torch.no_grad():
            model.detr_decoder.presence_head.layer3.bias.fill_(6)
            model.detr_decoder.query_embed.weight.normal_(0, spread)
            for part in (model.dot_product_scoring.query_proj, model.dot_product_scoring.text_proj):
                part.bias.fill_(1)
            for part in model.mask_decoder.mask_embedder.layers:
                part.weight.normal_()
                part.bias.normal_()

    def _sam3(self, place):
        from transformers import Sam3Config, Sam3ImageProcessor, Sam3Model, Sam3Processor

        model = Sam3Model(Sam3Config(**self._sam3_parts()))
        self._sure_of_several(model, 3)
        model.save_pretrained(place)
        images = Sam3ImageProcessor(size=SAM3_SIZE, mask_size={"height": 16, "width": 16})
        Sam3Processor(images, letters_tokenizer(), target_size=SAM3_SIDE).save_pretrained(place)
        return place

    def _sam3_video(self, place):
        from transformers import (
            Sam2VideoVideoProcessor,
            Sam3ImageProcessor,
            Sam3VideoConfig,
            Sam3VideoModel,
            Sam3VideoProcessor,
        )

        width = 128
        parts = self._sam3_parts(width)
        tracker = {
            "model_type": "sam3_tracker_video",
            "vision_config": parts["vision_config"],
            "prompt_encoder_config": {
                "hidden_size": width,
                "image_size": SAM3_SIDE,
                "patch_size": 14,
                "mask_input_channels": 4,
            },
            "mask_decoder_config": {
                "hidden_size": width,
                "mlp_dim": 32,
                "num_attention_heads": 2,
                "iou_head_hidden_dim": 16,
            },
            "image_size": SAM3_SIDE,
            "memory_attention_hidden_size": width,
            "memory_attention_num_layers": 1,
            "memory_attention_feed_forward_hidden_size": 32,
            "memory_attention_rope_feat_sizes": [4, 4],
            "memory_encoder_hidden_size": width,
            "memory_encoder_output_channels": 64,  # the attention over memories is built for it
            "mask_downsampler_embed_dim": width,
            "memory_fuser_embed_dim": width,
            "memory_fuser_intermediate_dim": 32,
            "memory_fuser_num_layers": 1,
        }
        config = Sam3VideoConfig(
            detector_config={"model_type": "sam3", **parts},
            tracker_config=tracker,
            low_res_mask_size=16,
            score_threshold_detection=0.0,
            new_det_thresh=0.0,
        )
        model = Sam3VideoModel(config)
        torch.manual_seed(1)  # of some, all instances are one
        self._sure_of_several(model.detector_model, 10)
        model.save_pretrained(place)
        Sam3VideoProcessor(
            Sam3ImageProcessor(size=SAM3_SIZE, mask_size={"height": 16, "width": 16}),
            Sam2VideoVideoProcessor(size=SAM3_SIZE),
            letters_tokenizer(),
            target_size=SAM3_SIDE,
        ).save_pretrained(place)
        return place

    def _grounding_dino(self, place):
        from transformers import (
            BertTokenizerFast,
            GroundingDinoConfig,
            GroundingDinoForObjectDetection,
            GroundingDinoImageProcessor,
            GroundingDinoProcessor,
        )

        letters = "abcdefghijklmnopqrstuvwxyz"
        tokens = [
            "[PAD]",
            "[UNK]",
            "[CLS]",
            "[SEP]",
            "[MASK]",
            ".",
            *letters,
            *(f"##{each}" for each in letters),
        ]
        config = GroundingDinoConfig(
            backbone_config={
                "model_type": "swin",
                "embed_dim": 8,
                "depths": [1, 1, 1, 1],
                "num_heads": [1, 1, 2, 2],
                "window_size": 2,
                "image_size": 64,
                "out_features": ["stage2", "stage3", "stage4"],
            },
            text_config={
                "model_type": "bert",
                "vocab_size": len(tokens),
                "hidden_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 16,
                "max_position_embeddings": 64,
            },
            d_model=32,
            encoder_layers=1,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            num_queries=6,
            max_text_len=32,
            disable_custom_kernels=True,
        )
        GroundingDinoForObjectDetection(config).save_pretrained(place)
        images = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 80})
        tokenizer = BertTokenizerFast(vocab={token: at for at, token in enumerate(tokens)})
        GroundingDinoProcessor(images, tokenizer).save_pretrained(place)
        return place
