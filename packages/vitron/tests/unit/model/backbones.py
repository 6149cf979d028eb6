# SPDX-License-Identifier: Apache-2.0
"""Vision language models of several families, small enough to run in a blink, with weights as they are drawn.

``save_backbone(family, folder)`` writes one in the public format of its family; ``FAMILIES`` names them.
"""

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForImageTextToText,
    CLIPImageProcessor,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ImageProcessor,
    Gemma3Processor,
    InternVLConfig,
    InternVLProcessor,
    InternVLVideoProcessor,
    LlavaConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    SmolVLMConfig,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)
from transformers.models.got_ocr2.image_processing_got_ocr2 import GotOcr2ImageProcessor

TEXTS = [
    "segment the red circle",
    "a blue star, a green ring",
    "Here it is.",
    "track the heart 0123456789 [, ]",
    "img_1: region_1: vid_1: mask_1 Frame1: ",
]
PARTS = """{%- macro render(content) -%}
{%- if content is string -%}{{ content }}{%- else -%}
{%- for part in content -%}
{%- if part.type == 'text' -%}{{ part.text }}
{%- elif part.type == 'image' -%}@image
{%- elif part.type == 'video' -%}@video
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
"""
CHATML = (
    PARTS
    + """{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\\n' }}{{ render(message.content) }}{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""
)
# as in the folders of LLaVA 1.5: images first, and no end of an assistant message
LLAVA = (
    "{% for message in messages %}"
    "{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\\n' }}{% endfor %}"
    "{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + ' '}}{% endfor %}{% else %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
# as in the folders of Gemma 3: the system text in the first user message, text stripped
GEMMA = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- set role = "model" if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {%- for item in message['content'] -%}
        {%- if item['type'] == 'image' -%}{{ '<start_of_image>' }}
        {%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}
    {%- endfor -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}
"""
# as in the folders of SmolVLM
SMOLVLM = """<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}
{%- if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}
{%- for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}
{%- elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>
{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"""


def make_tokenizer(*special, end="<|im_end|>", size=400, **named):
    """Return a byte-level BPE tokenizer with these special tokens; ``named`` are those with an attribute."""
    tokens = list(dict.fromkeys([end, *special, *named.values()]))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    bos = {"bos_token": named.pop("bos_token")} if "bos_token" in named else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=end, eos_token=end, extra_special_tokens=named, **bos
    )


def text_settings(tokenizer, **settings):
    chosen = {
        "vocab_size": len(tokenizer),
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 96,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
    }
    return chosen | settings


def square_tower(kind, **settings):
    chosen = {
        "model_type": kind,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    return chosen | settings


def llava():
    tokenizer = make_tokenizer("<image>", end="</s>", bos_token="<s>")
    config = LlavaConfig(
        text_config=text_settings(tokenizer, model_type="llama", tie_word_embeddings=False),
        vision_config=CLIPVisionConfig(**square_tower("clip_vision_model")),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
        tie_word_embeddings=False,
    )
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = LlavaProcessor(
        images,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA,
    )
    return config, processor


def llava_onevision():
    tokenizer = make_tokenizer("<|im_start|>", image_token="<image>", video_token="<video>")
    ids = tokenizer.convert_tokens_to_ids
    config = LlavaOnevisionConfig(
        text_config=text_settings(tokenizer, model_type="qwen2"),
        vision_config=square_tower("siglip_vision_model", vision_use_head=False),
        image_token_id=ids("<image>"),
        video_token_id=ids("<video>"),
        image_grid_pinpoints=[[32, 32], [32, 64], [64, 32]],
        tie_word_embeddings=True,
    )
    size = {"height": 32, "width": 32}
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=[[32, 32], [32, 64], [64, 32]]),
        tokenizer,
        LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=CHATML.replace("@image", "<image>").replace("@video", "<video>"),
    )
    return config, processor


def _qwen_tokenizer():
    return make_tokenizer(
        "<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
    )


QWEN = CHATML.replace("@image", "<|vision_start|><|image_pad|><|vision_end|>")
PIXELS = {"shortest_edge": 28 * 28, "longest_edge": 112 * 112}


def qwen2_5_vl():
    tokenizer = _qwen_tokenizer()
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config=text_settings(
            tokenizer,
            rope_parameters={"rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 10000.0},
        ),
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 48,
            "patch_size": 14,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(size=PIXELS),
        tokenizer,
        Qwen2VLVideoProcessor(size=PIXELS, cap_pixels_per_frame=True),
        chat_template=QWEN.replace("@video", "<|vision_start|><|video_pad|><|vision_end|>"),
    )
    return config, processor


def qwen3_vl():
    tokenizer = _qwen_tokenizer()
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config=text_settings(
            tokenizer,
            head_dim=12,
            rope_parameters={"rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 10000.0},
        ),
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 48,
            "patch_size": 16,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    size = {"shortest_edge": 32 * 32, "longest_edge": 128 * 128}
    processor = Qwen3VLProcessor(
        Qwen2VLImageProcessor(
            size=size, patch_size=16, image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5]
        ),
        tokenizer,
        Qwen3VLVideoProcessor(
            size={"shortest_edge": 32 * 32, "longest_edge": 128 * 128 * 8}, cap_pixels_per_frame=True
        ),
        chat_template=QWEN.replace("@video", "<|vision_start|><|video_pad|><|vision_end|>"),
    )
    return config, processor


def internvl():
    tokenizer = make_tokenizer(
        "<|im_start|>",
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    config = InternVLConfig(
        text_config=text_settings(tokenizer, model_type="qwen3", head_dim=12),
        vision_config=square_tower("internvl_vision"),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=True,
    )
    size = {"height": 32, "width": 32}
    processor = InternVLProcessor(
        GotOcr2ImageProcessor(size=size, crop_to_patches=True, min_patches=1, max_patches=4),
        tokenizer,
        InternVLVideoProcessor(size=size),
        image_seq_length=4,
        chat_template=CHATML.replace("@image", "<IMG_CONTEXT>").replace("@video", "<video>"),
    )
    return config, processor


def smolvlm():
    tokenizer = make_tokenizer(
        "<|im_start|>",
        "<row_1_col_1>",
        end="<end_of_utterance>",
        image_token="<image>",
        fake_image_token="<fake_token_around_image>",
        global_image_token="<global-img>",
    )
    config = SmolVLMConfig(
        text_config=text_settings(tokenizer, model_type="llama"),
        vision_config=square_tower("smolvlm_vision"),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        tie_word_embeddings=True,
    )
    side = {"longest_edge": 32}
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(size={"longest_edge": 64}, max_image_size=side),
        tokenizer,
        SmolVLMVideoProcessor(size=side, max_image_size=side),
        image_seq_len=4,
        chat_template=SMOLVLM,
    )
    return config, processor


def gemma3():
    tokenizer = make_tokenizer(
        "<start_of_turn>",
        "<end_of_turn>",
        end="<eos>",
        bos_token="<bos>",
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
        image_token="<image_soft_token>",
    )
    ids = tokenizer.convert_tokens_to_ids
    config = Gemma3Config(
        text_config=text_settings(tokenizer, head_dim=12, sliding_window=512),
        vision_config=square_tower("siglip_vision_model", vision_use_head=False),
        mm_tokens_per_image=4,
        boi_token_index=ids("<start_of_image>"),
        eoi_token_index=ids("<end_of_image>"),
        image_token_index=ids("<image_soft_token>"),
        tie_word_embeddings=True,
    )
    images = Gemma3ImageProcessor(size={"height": 32, "width": 32})
    return config, Gemma3Processor(images, tokenizer, image_seq_length=4, chat_template=GEMMA)


FAMILIES = {
    each.__name__: each for each in (llava, llava_onevision, qwen2_5_vl, qwen3_vl, internvl, smolvlm, gemma3)
}


def make_backbone(family, *, seed=0):
    """Return a model of a family, and its processor."""
    config, processor = FAMILIES[family]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config).eval()
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return model, processor


def save_backbone(family, folder, *, seed=0):
    """Write a model of a family in its public format, and return the folder."""
    model, processor = make_backbone(family, seed=seed)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def noise(height=40, width=56, *, frames=None, seed=0):
    """Return an image ``(H, W, 3)``, or a video of so many frames, of random pixels."""
    shape = (height, width, 3) if frames is None else (frames, height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
