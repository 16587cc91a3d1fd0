"""Tiny models and batches, made on the spot: what the tests of the core share.

Everything is a pure function of its arguments (seeds included), so that a sample is the same alone
and in any batch.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from open_crema.backbones.base import Backbone
from open_crema.backbones.decoder_only import DecoderOnly
from open_crema.backbones.encoder_decoder import EncoderDecoder
from open_crema.config import ModelConfig, from_dict
from open_crema.data import sampler
from open_crema.data.sample import Batch, Sample, collate
from open_crema.features import Features
from open_crema.model.crema import Crema

VOCABULARY = 200
CLIP_SECONDS = 8.0
WIDTHS = {  # of the frozen encoders; 12 is what the tiny Q-Former reads, others are projected
    "video": 12,
    "audio": 10,
    "flow": 12,
    "depth": 12,
    "normal": 12,
    "point": 8,
    "touch": 12,
    "thermal": 12,
}
Item = tuple[Sample, Mapping[str, Features]]


@pytest.fixture(scope="module", autouse=True)
def one_seeded_thread() -> Iterator[None]:
    """Tiny tensors are ten times slower on several threads of a busy machine than on one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


class TinyTokenizer:
    """Words to ids by a checksum. With ``chat``, it has a chat template of the ChatML kind."""

    pad_token_id = 0
    eos_token_id = 1
    _special: Mapping[str, int] = {"<|pad|>": 0, "<|im_end|>": 1, "<|im_start|>": 2, "\n": 3}
    _first_word = 8

    def __init__(self, *, chat: bool = True) -> None:
        self.chat_template = "chatml" if chat else None

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        words = re.findall(r"<\|\w+\|>|\w+|[^\w\s]|\n", text)
        return [self._special.get(word, self._hashed(word)) for word in words]

    def _hashed(self, word: str) -> int:
        return self._first_word + zlib.crc32(word.encode()) % (VOCABULARY - self._first_word)

    def decode(self, token_ids: Any, *, skip_special_tokens: bool) -> str:
        ids = [int(i) for i in token_ids]
        return " ".join(f"w{i}" for i in ids if i >= self._first_word or not skip_special_tokens)

    def apply_chat_template(
        self,
        turns: list[dict[str, str]],
        *,
        tokenize: bool,
        add_generation_prompt: bool,
        **_: Any,
    ) -> str:
        assert not tokenize
        said = "".join(f"<|im_start|>{t['role']}\n{t['content']}<|im_end|>\n" for t in turns)
        return said + ("<|im_start|>assistant\n" if add_generation_prompt else "")


def llama(seed: int = 0, *, attention: str = "sdpa", dropout: float = 0.0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,  # sharp enough that a wrong position or mask shows
        attention_dropout=dropout,
        attn_implementation=attention,
        bos_token_id=2,
        eos_token_id=1,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


def save_llm(llm: PreTrainedModel, folder: Path) -> Path:
    """As transformers would, with a tokenizer of a few words."""
    words = ("<pad>", "</s>", "<unk>", "red", "dog", "what", "is", "it")
    llm.save_pretrained(folder)
    inner = Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return folder


def t5(seed: int = 0, *, dropout: float = 0.0) -> T5ForConditionalGeneration:
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=dropout,
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )
    config.dense_act_fn = "gelu"
    llm = T5ForConditionalGeneration(config)
    # transformers ties the head all the same; Flan-T5's is its own
    llm.lm_head.weight = torch.nn.Parameter(0.3 * torch.randn_like(llm.lm_head.weight))
    return llm.eval()


def backbone(
    kind: str = "decoder-only", *, seed: int = 0, dropout: float = 0.0, chat: bool = True
) -> Backbone:
    """kind: "decoder-only" or "encoder-decoder"."""
    if kind == "decoder-only":
        tokenizer = TinyTokenizer(chat=chat)
        return DecoderOnly(llama(seed, dropout=dropout), tokenizer, f"tiny-llama-{seed}")
    return EncoderDecoder(t5(seed, dropout=dropout), TinyTokenizer(), f"tiny-t5-{seed}")


def config(*senses: str, dropout: float = 0.0, **sections: Any) -> ModelConfig:
    """dropout: of the Q-Former and LoRA. sections: more of ModelConfig's fields, as plain data."""
    shape = {"layers": 2, "width": 16, "heads": 2, "ffn": 32, "queries": 3, "encoder_width": 12}
    data = {
        "senses": list(senses or ("video", "audio")),
        "qformer": {**shape, "dropout": dropout, **sections.pop("qformer", {})},
        "lora": {"rank": 2, "dropout": dropout, **sections.pop("lora", {})},
        **sections,
    }
    made: ModelConfig = from_dict(data, schema=ModelConfig)
    return made


def crema(
    *senses: str,
    kind: str = "decoder-only",
    seed: int = 0,
    stirred: bool = True,
    llm: Backbone | None = None,
    **options: Any,
) -> Crema:
    """A tiny model in evaluation mode; options as of :func:`config`."""
    made = config(*senses, **options)
    llm = llm or backbone(kind, dropout=made.llm_dropout)
    torch.manual_seed(seed)
    model = Crema(made, llm, {s: WIDTHS[s] for s in made.senses})
    return (stir(model) if stirred else model).eval()


def stir(model: Crema, scale: float = 0.3) -> Crema:
    """Moves every weight outside the LLM, so that what starts at zero or one matters too. The noise
    of a parameter depends on its name alone."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("backbone."):
                noise = torch.randn(parameter.shape, generator=_generator(name))
                parameter += scale * noise
    return model


def features(
    sense: str, segments: int, *, seed: int = 0, keys: int = 4, ragged: bool = False
) -> Features:
    """ragged: each segment has its own number of real keys."""
    noise = _generator(f"{sense}/{segments}/{keys}/{seed}")
    tokens = torch.randn(segments, keys, WIDTHS[sense], generator=noise)
    mask = torch.ones(segments, keys, dtype=torch.bool)
    if ragged:
        mask = torch.arange(keys) <= torch.randint(keys, (segments, 1), generator=noise)
    edges = torch.linspace(0, CLIP_SECONDS, segments + 1, dtype=torch.float64)
    return Features(tokens, mask, torch.stack([edges[:-1], edges[1:]], dim=1))


def item(
    seed: int = 0,
    *,
    question: str = "what is it",
    answer: str = "red",
    options: tuple[str, ...] = (),
    keys: int = 4,
    ragged: bool = False,
    **segments: int,
) -> Item:
    """One sample and its features: ``item(3, video=4, audio=2)``."""
    sample = Sample(str(seed), question, {}, (answer,) if answer else (), options)
    return sample, {
        sense: features(sense, count, seed=seed, keys=keys, ragged=ragged)
        for sense, count in segments.items()
    }


def batch(*items: Item) -> Batch:
    return collate(items)


class CutError(Exception):
    """The run ends here, as if its machine had."""


class Questions:
    """Made-up samples; stops after ``cut`` batches."""

    skipped, masked = {}, {}

    def __init__(self, items: list[Item], *, cut: int | None = None) -> None:
        self.items = items
        self.samples = [sample for sample, _ in items]
        self.cut = cut
        self.given: list[tuple[int, Batch]] = []

    def __len__(self) -> int:
        return len(self.items)

    def rows(self, questions: int) -> list[list[int]]:
        assert questions == 1
        return [[i] for i in range(len(self))]

    def batches(
        self,
        batch_size: int,
        *,
        training: bool,
        epoch: int,
        seed: int,
        skip: int = 0,
        every: int = 1,
        questions: int = 1,
    ) -> Iterator[Batch]:
        assert training
        assert questions == 1
        places = sampler.order(seed, epoch, len(self))
        for start in range(skip * batch_size, len(places), every * batch_size):
            if self.cut is not None and len(self.given) == self.cut:
                raise CutError
            given = batch(*(self.items[i] for i in places[start : start + batch_size]))
            self.given.append((epoch, given))
            yield given


def sample_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """``[B]``: the sum of each row's cross-entropies, from logits ``[B, A, V]``."""
    rows = zip(logits, labels, strict=True)
    return torch.stack([torch.nn.functional.cross_entropy(x, y, reduction="sum") for x, y in rows])


def _generator(name: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))
