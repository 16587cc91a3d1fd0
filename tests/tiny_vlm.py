"""Tiny random VLMs of three families with processors made on the spot: no hub, no torchvision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMProcessor,
)
from transformers.feature_extraction_utils import BatchFeature
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.smolvlm import processing_smolvlm
from transformers.video_utils import VideoMetadata

import tiny
from open_crema import attach
from open_crema.features import Features
from open_crema.model.attach import Attached

FAMILIES = ("qwen2.5-vl", "llava-onevision", "smolvlm", "idefics3")
WITH_VIDEO = FAMILIES[:3]
SENSES = ("audio", "thermal")
WIDTHS = {s: tiny.WIDTHS[s] for s in (*SENSES, "depth", "point")}
WIDTH = 32  # of every tiny VLM's embeddings
_TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.3,  # sharp enough that a wrong position or mask shows
}
_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}"
    "{% if c.type == 'image' %}IMAGE{% elif c.type == 'video' %}VIDEO{% else %}{{ c.text }}"
    "{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_LLAVA = (  # all pictures first, words on a line of their own
    "{% for m in messages %}<|im_start|>{{ m.role }} "
    "{% for c in m.content | selectattr('type', 'equalto', 'image') %}<image>{% endfor %}"
    "{% for c in m.content | selectattr('type', 'equalto', 'video') %}<video>{% endfor %}"
    "{% for c in m.content | selectattr('type', 'equalto', 'text') %}{{ '\n' + c.text }}"
    "{% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SMOLVLM = (
    "<|im_start|>{% for m in messages %}{{ m.role | capitalize }}"
    "{% if m.content[0].type == 'image' %}:{% else %}: {% endif %}{% for c in m.content %}"
    "{% if c.type == 'text' %}{{ c.text }}{% else %}<image>{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


def make(family: str, seed: int = 0) -> tuple[Any, Any]:
    """A VLM in evaluation mode and its processor."""
    made = {"qwen2.5-vl": _qwen, "llava-onevision": _llava, "smolvlm": _smolvlm}
    build = made.get(family, _idefics3)
    processor, architecture, config = build()
    torch.manual_seed(seed)
    vlm = architecture(config).eval()
    tokenizer = processor.tokenizer
    vlm.generation_config.pad_token_id = tokenizer.pad_token_id
    vlm.generation_config.eos_token_id = tokenizer.eos_token_id
    return vlm, processor


def image(seed: int = 0, size: tuple[int, int] = (40, 24)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise)


def video(seed: int = 0, frames: int = 4) -> np.ndarray:
    noise = np.random.default_rng(seed)
    return noise.integers(0, 256, (frames, 16, 24, 3), dtype=np.uint8)


def asks(question: str, *media: Any) -> list[dict[str, Any]]:
    """One user's turn: pictures (PIL) and videos (arrays), then the question."""
    parts = [
        {"type": "video", "video": m}
        if isinstance(m, np.ndarray)
        else {"type": "image", "image": m}
        for m in media
    ]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def plain(processor: Any, conversations: Sequence[Any]) -> Any:
    """What the VLM's own processor makes of conversations, as its documentation says."""
    return processor.apply_chat_template(
        list(conversations),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={"padding": True, "padding_side": "left"},
    )


def attached(
    family: str = "smolvlm", *senses: str, kind: str = "self-gated", **options: Any
) -> Attached:
    vlm, processor = make(family)
    torch.manual_seed(0)
    config = tiny.config(*(senses or SENSES), fusion={"kind": kind}, **options)
    model = attach(vlm, processor, config=config, encoder_widths=WIDTHS)
    return tiny.stir(model).eval()


def hears(seed: int = 0, **segments: int) -> Mapping[str, Features]:
    return {s: tiny.features(s, n, seed=seed) for s, n in segments.items()}


CONVERSATIONS = (
    asks("what is it", image(1)),
    asks("what do you hear, and what is it that you hear?", image(2, (24, 40)), image(3)),
    asks("is it hot"),
)
FEATURES = (hears(1, audio=2, thermal=4), hears(2, audio=3), hears(3, thermal=1))
ANSWERS = ("red", "the dog", "it is")


def _tokenizer(end: str, pad: str, *special: str) -> PreTrainedTokenizerFast:
    tokens = [pad, end, *special]
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=360, special_tokens=tokens, initial_alphabet=alphabet, show_progress=False
    )
    text = "user assistant User: Assistant: what is it what do you hear the red dog Other senses: "
    made.train_from_iterator([text] * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token=pad,
        eos_token=end,
        additional_special_tokens=list(special),
    )


class _TinyVideos:
    """Stands for transformers' video processors, which need torchvision: each picture on its own,
    laid out as the family's model wants it."""

    merge_size = temporal_patch_size = 2  # Qwen2.5-VL
    num_frames = fps = None  # SmolVLM: no sampling

    def __init__(self, images: Any) -> None:
        self.images = images

    def __call__(self, videos: Any, **kwargs: Any) -> BatchFeature:
        clips = [v for own in videos for v in (own if isinstance(own, list) else [own])]
        made = [self._lay_out([Image.fromarray(picture) for picture in clip]) for clip in clips]
        data = {name: torch.cat([one[name] for one in made]) for name in made[0]}
        told = [VideoMetadata(len(clip), fps=1, frames_indices=range(len(clip))) for clip in clips]
        return BatchFeature({**data, "video_metadata": told})

    def _lay_out(self, pictures: list[Image.Image]) -> dict[str, torch.Tensor]:
        raise NotImplementedError


class _QwenVideos(_TinyVideos):
    def _lay_out(self, pictures: list[Image.Image]) -> dict[str, torch.Tensor]:
        made = self.images(pictures, return_tensors="pt")
        _, high, wide = made["image_grid_thw"][0].tolist()
        # each patch holds its picture twice, [C, 2, P, P]; a video's holds two pictures
        patches = made["pixel_values"].view(len(pictures), high * wide, 3, 2, 4, 4)
        pairs = torch.stack([patches[0::2, :, :, 0], patches[1::2, :, :, 1]], dim=3)
        grid = torch.tensor([[len(pictures) // 2, high, wide]])
        return {"pixel_values_videos": pairs.reshape(-1, 96), "video_grid_thw": grid}


class _LlavaVideos(_TinyVideos):
    def _lay_out(self, pictures: list[Image.Image]) -> dict[str, torch.Tensor]:
        made = self.images([pictures], return_tensors="pt")["pixel_values"]
        return {"pixel_values_videos": made[:, 0][None]}


class _SmolVideos(_TinyVideos):
    def _lay_out(self, pictures: list[Image.Image]) -> dict[str, torch.Tensor]:
        made = self.images([pictures], do_image_splitting=False, return_tensors="pt")
        return {k: made[k] for k in ("pixel_values", "pixel_attention_mask")}


class _NoTorchvision:
    """transformers cannot even check a video processor's class where torchvision is missing."""

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> type:
        return type(argument)


class _TinyLlavaProcessor(_NoTorchvision, LlavaOnevisionProcessor):
    pass


class _TinyQwenProcessor(_NoTorchvision, Qwen2_5_VLProcessor):
    pass


class _TinySmolProcessor(_NoTorchvision, SmolVLMProcessor):
    pass


processing_smolvlm.num2words = str  # a package that is not here; it writes 4 as "four"


def _qwen() -> Any:
    tokenizer = _tokenizer(
        "<|im_end|>", "<|endoftext|>", "<|im_start|>", "<|vision_start|>", "<|vision_end|>",
        "<|image_pad|>", "<|video_pad|>",
    )  # fmt: skip
    template = _CHATML.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    template = template.replace("VIDEO", "<|vision_start|><|video_pad|><|vision_end|>")
    size = {"shortest_edge": 64, "longest_edge": 1024}
    images = Qwen2VLImageProcessorPil(patch_size=4, size=size)
    processor = _TinyQwenProcessor(images, tokenizer, _QwenVideos(images), chat_template=template)
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            **_TEXT,
            "vocab_size": len(tokenizer),
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]},
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_heads": 2,
            "patch_size": 4,
            "window_size": 16,
            "fullatt_block_indexes": [1],
            "out_hidden_size": WIDTH,
            "initializer_range": 0.3,
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )
    return processor, Qwen2_5_VLForConditionalGeneration, config


_SIGLIP = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}


def _llava() -> Any:
    tokenizer = _tokenizer("<|im_end|>", "<|endoftext|>", "<|im_start|>", "<image>", "<video>")
    grid = [[16, 16], [16, 32], [32, 16], [32, 32]]
    images = LlavaOnevisionImageProcessorPil(
        size={"height": 16, "width": 16}, image_grid_pinpoints=grid
    )
    processor = _TinyLlavaProcessor(
        images,
        tokenizer,
        _LlavaVideos(images),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=_LLAVA,
    )
    config = LlavaOnevisionConfig(
        text_config={**_TEXT, "model_type": "qwen2", "vocab_size": len(tokenizer)},
        vision_config={**_SIGLIP, "model_type": "siglip_vision_model", "vision_use_head": False},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grid,
    )
    return processor, LlavaOnevisionForConditionalGeneration, config


def _idefics3() -> Any:
    images, tokenizer = _idefics3_parts()
    processor = Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=_SMOLVLM)
    config = Idefics3Config(**_idefics3_config(tokenizer))
    return processor, Idefics3ForConditionalGeneration, config


def _smolvlm() -> Any:
    images, tokenizer = _idefics3_parts()
    videos = _SmolVideos(images)
    processor = _TinySmolProcessor(images, tokenizer, videos, 4, chat_template=_SMOLVLM)
    config = SmolVLMConfig(**_idefics3_config(tokenizer))
    return processor, SmolVLMForConditionalGeneration, config


def _idefics3_parts() -> tuple[Idefics3ImageProcessorPil, PreTrainedTokenizerFast]:
    rows = [f"<row_{i + 1}_col_{j + 1}>" for i in range(6) for j in range(6)]
    tokenizer = _tokenizer(
        "<end_of_utterance>", "<|im_end|>", "<|im_start|>", "<image>", "<video>",
        "<fake_token_around_image>", "<global-img>", *rows,
    )  # fmt: skip
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": 32}, max_image_size={"longest_edge": 16}
    )
    return images, tokenizer


def _idefics3_config(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "text_config": {
            **_TEXT,
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "pad_token_id": tokenizer.pad_token_id,
        },
        "vision_config": {**_SIGLIP, "initializer_range": 0.3},
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
        "pad_token_id": tokenizer.pad_token_id,
        "scale_factor": 2,
    }
