# SPDX-License-Identifier: Apache-2.0
"""Small tokenizers of every kind: bytes, SentencePiece as in Llama-2, WordPiece."""

from types import SimpleNamespace

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from vitron.protocol import MODULES
from vitron.protocol.contract import Signal

TAGS = [f"<{slash}{word}>" for word in ("module", "instruction", "region") for slash in ("", "/")]
SIGNALS = tuple(Signal(kind=kind, index=number) for kind in ("specific", "shared") for number in range(2))
NAMES = [f"<sig_{'s' if each.kind == 'shared' else 'p'}{each.index}>" for each in SIGNALS]
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]
TEXTS = [
    "Sure. <module>B</module> <instruction>segment: the red circle</instruction>",
    "<module>image_editing</module> <instruction>remove: 10:45</instruction>",
    "<region>[1, 20, 300, 999]</region> <region>points [5, 500] -[10, 20] @ 3 | 4, 17</region>",
    "<region>polygon [0, 0] [999, 0] [500, 9]</region>",
    "<region>scribble [1, 2] [9, 9]; [5, 5]</region> text_to_video restoration video_segmentation mask_1",
    "a < b > c <b>bold</b> 日本語 😀😃 äöü é \u00a0\u2003 : :: quick brown fox jumps over lazy dogs & vexed",
] * 2


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    # as Qwen and Llama-3 split: a bracket may join the word behind it
    split = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(split, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=520, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def sentence_piece():
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=260, show_progress=False))
    vocabulary = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    vocabulary += [each for each in trained.get_vocab() if each not in vocabulary]
    merges = [
        (left, right)
        for word in vocabulary
        for cut in range(1, len(word))
        if (left := word[:cut]) in vocabulary and (right := word[cut:]) in vocabulary
    ]
    tokenizer = Tokenizer(
        models.BPE(
            {word: number for number, word in enumerate(vocabulary)},
            merges,
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    return tokenizer


def word_piece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    trainer = trainers.WordPieceTrainer(
        vocab_size=400,
        special_tokens=["<unk>"],
        initial_alphabet=[*letters, *(f"##{each}" for each in letters), *"<>/[]|,;@-_"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXTS, " ".join(f"a{each}" for each in letters)], trainer)
    return tokenizer


KINDS = {"bytes": byte_level, "SentencePiece": sentence_piece, "WordPiece": word_piece}


def make_encoder(kind, *, special_tags=True, signals=SIGNALS):
    """What constrained decoding needs of an encoder, with a tokenizer of one kind."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=KINDS[kind](),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
    )
    names = NAMES[: len(signals)]
    tokenizer.add_special_tokens({"additional_special_tokens": [*names, *(TAGS if special_tags else [])]})
    return SimpleNamespace(
        tokenizer=tokenizer,
        modules=MODULES,
        signals=signals,
        end_id=tokenizer.eos_token_id,
        pad_id=tokenizer.pad_token_id,
        token_id=tokenizer.convert_tokens_to_ids,
        tokenize=lambda text: tokenizer(text, add_special_tokens=False)["input_ids"] if text else [],
        decode=lambda ids: tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        ),
    )
