"""One forward pass of published CREMA, one function a step, from a flat official state dict.

Names are the official ones: rgb, flow, depth, norm, audio, pc; `X-skip` means that modality X
bypasses its LoRA. Shapes: B batch, T frames, S audio segments, K encoder tokens, W encoder width,
Q queries, H Q-Former width, D LLM width, p prefix tokens, L text tokens. All fp32, no dropout.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from reference.beam import beam_search

Tensors = dict[str, Tensor]

VISUAL = ("rgb", "flow", "depth", "norm")
OPTION_IDS = (71, 272, 205, 309, 262)
QFORMER_EPS = 1e-12
ENCODER_NORM_EPS = 1e-5
POSITION_SCALE = 0.01
BEAMS, OPEN_TOKENS, LENGTH_PENALTY = 5, 10, -1.0
CHOICE_TOKENS = 30


def base_name(modality: str) -> str:
    """`rgb-skip` -> `rgb`: the name that parameters and inputs carry."""
    return modality.removesuffix("-skip")


def is_trainable(name: str) -> bool:
    """Whether the official model trains the parameter `name` (the rest is frozen)."""
    return (
        name.startswith(("query_tokens_", "t5_proj_", "ln_", "projection_audio.", "fusion."))
        or ".w_a_" in name
        or ".w_b_" in name
    )


def position_code(xyz: Tensor, width: int) -> Tensor:
    """[B, N, 3] integer coordinates -> [B, N, width]: three sinusoid tables side by side."""
    third = width // 3
    even = third + third % 2
    frequency = 10000.0 ** (-torch.arange(0, even, 2, dtype=torch.float32) / even)
    code = torch.zeros(*xyz.shape[:2], width)
    for axis in range(3):
        angle = xyz[..., axis].float()[..., None] * frequency
        table = torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)  # sin, cos, sin, ...
        code[..., axis * third : (axis + 1) * third] = table[..., :third]
    return code


def build_llm(t5: Mapping[str, Any], weights: Tensors) -> T5ForConditionalGeneration:
    """Frozen T5 with exact gelu and an untied head, holding `t5_model.*` of `weights`.

    Built without storage and then given its tensors: no weight can be tied or overwritten.
    """
    config = T5Config(**t5, decoder_start_token_id=0)
    config.dense_act_fn = "gelu"
    with torch.device("meta"):
        llm = T5ForConditionalGeneration(config)
    own = {
        name.removeprefix("t5_model."): value.detach().clone()
        for name, value in weights.items()
        if name.startswith("t5_model.")
    }
    llm.load_state_dict(own, strict=True, assign=True)
    return llm.requires_grad_(False).eval()


class PlainCrema:
    """The published model. Results are flat dicts with the key names of the golden files."""

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        modalities: Sequence[str],
        task: str,
        size: Mapping[str, Any],
    ) -> None:
        self.modalities = list(modalities)
        self.names = [base_name(m) for m in modalities]
        self.task = task
        self.size = size
        self.weights = {name: value.detach().clone() for name, value in weights.items()}
        for name, value in self.weights.items():
            value.requires_grad_(is_trainable(name))
        self.llm = build_llm(size["t5"], self.weights)

    @property
    def trainable(self) -> Tensors:
        """The trained parameters that this modality set owns, whatever their current flag."""
        return {name: value for name, value in self.weights.items() if is_trainable(name)}

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str, eps: float) -> Tensor:
        w = self.weights
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)

    def encode(self, modality: str, inputs: Tensors) -> Tensor:
        """What the Q-Former attends to: [rows, K, W], rows = B*T, B*S or B."""
        name = base_name(modality)
        if name == "pc":  # ln_pc exists and is never applied
            feature = inputs["pc_feat"]
            return feature + POSITION_SCALE * position_code(inputs["pc"], feature.shape[-1])
        x = inputs[name]
        if name == "audio":
            x = self._linear(x.flatten(0, 1), "projection_audio")
        return self._norm(x, f"ln_{name}", ENCODER_NORM_EPS)

    def qformer(self, modality: str, enc: Tensor) -> Tensor:
        """Learned queries [1, Q, H] read enc [rows, K, W] -> [rows, Q, H]."""
        name = base_name(modality)
        adapter = None if modality.endswith("-skip") else name
        x = self.weights[f"query_tokens_{name}"].expand(enc.shape[0], -1, -1)
        x = self._norm(x, "Qformer.bert.embeddings.LayerNorm", QFORMER_EPS)
        for i in range(self.size["qf"]["num_hidden_layers"]):
            layer = f"Qformer.bert.encoder.layer.{i}"
            x = self._attend(x, x, f"{layer}.attention", adapter, wrapped=True)
            if i % 2 == 0:
                x = self._attend(x, enc, f"{layer}.crossattention", None, wrapped=False)
            hidden = F.gelu(self._linear(x, f"{layer}.intermediate_query.dense"))
            hidden = self._linear(hidden, f"{layer}.output_query.dense")
            x = self._norm(x + hidden, f"{layer}.output_query.LayerNorm", QFORMER_EPS)
        return x

    def _attend(
        self, x: Tensor, source: Tensor, block: str, adapter: str | None, wrapped: bool
    ) -> Tensor:
        """Multi-head attention of x over source, its output layer, residual and LayerNorm."""
        heads = self.size["qf"]["num_attention_heads"]

        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (heads, -1)).transpose(1, 2)  # [rows, heads, n, H/heads]

        inner = ".w" if wrapped else ""
        query = self._linear(x, f"{block}.self.query{inner}")
        key = self._linear(source, f"{block}.self.key")
        value = self._linear(source, f"{block}.self.value{inner}")
        if adapter is not None:
            query = query + self._low_rank(x, f"{block}.self.query", adapter)
            value = value + self._low_rank(source, f"{block}.self.value", adapter)
        query, key, value = split(query), split(key), split(value)
        score = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        mixed = (score.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)
        out = self._linear(mixed, f"{block}.output.dense")
        return self._norm(x + out, f"{block}.output.LayerNorm", QFORMER_EPS)

    def _low_rank(self, x: Tensor, projection: str, name: str) -> Tensor:
        """B(A x), scale 1."""
        down = F.linear(x, self.weights[f"{projection}.w_a_{name}.weight"])
        return F.linear(down, self.weights[f"{projection}.w_b_{name}.weight"])

    def query(self, inputs: Tensors, batch: int) -> Tensors:
        """enc/, qf/, proj/ and their all-ones masks for every modality.

        proj is [B, T, Q, D] for visual, [B, S, Q, D] for audio, [B, Q, D] for pc.
        """
        out: Tensors = {}
        for modality in self.modalities:
            name = base_name(modality)
            enc = self.encode(modality, inputs)
            queries = self.qformer(modality, enc)
            proj = self._linear(queries, f"t5_proj_{name}")
            if name != "pc":
                proj = proj.unflatten(0, (batch, -1))
            out[f"enc/{name}"], out[f"qf/{name}"], out[f"proj/{name}"] = enc, queries, proj
            out[f"enc_atts/{name}"] = torch.ones(enc.shape[:-1], dtype=torch.long)
            out[f"proj_atts/{name}"] = torch.ones(proj.shape[:-1], dtype=torch.long)
        return out

    def fuse(self, proj: Tensors) -> Tensor:
        """Self-gated fusion of all assistants in listing order -> y [B, T, Q, D]."""
        frames = proj["rgb"].shape[1]
        parts = []
        for name in self.names:
            if name == "rgb":
                continue
            tokens = proj[name]
            if name == "audio":
                tokens = tokens.mean(dim=1)
            if name in ("audio", "pc"):
                tokens = tokens[:, None].expand(-1, frames, -1, -1)
            parts.append(tokens)
        x = self._linear(torch.cat(parts, dim=-1), "fusion.0")
        return x * x.sigmoid()

    def prompt(self, proj: Tensors, tokens: Tensors) -> tuple[Tensor, Tensor]:
        """Everything the LLM reads: embeddings [B, N, D] and mask [B, N]; text is always last."""
        embed = self.llm.shared
        text, text_mask = embed(tokens["text_ids"]), tokens["text_mask"]
        batch = text.shape[0]
        if "rgb" not in self.names:
            visual, mask = self._single_sense(proj, tokens)
        elif "espresso" in self.task:
            visual, mask = self._espresso(proj, tokens, batch)
        else:
            visual, mask = self._concat(proj, tokens, batch)
        return torch.cat((visual, text), dim=1), torch.cat((mask, text_mask), dim=1)

    def _repeat(self, ids: Tensor, batch: int) -> Tensor:
        """Embeddings of one prefix [1, p] for every sample: [B, p, D]."""
        return self.llm.shared(ids).expand(batch, -1, -1)

    def _single_sense(self, proj: Tensors, tokens: Tensors) -> tuple[Tensor, Tensor]:
        """audio-only and pc-only: both use the "Audio: " prefix (for pc that is a known fault)."""
        if self.names not in (["audio"], ["pc"]) or "espresso" in self.task:
            raise ValueError(f"{self.names} with {self.task!r} has no published layout")
        queries = proj[self.names[0]]
        batch = queries.shape[0]
        prefix = self._repeat(tokens["audio_prefix_ids"], batch)
        visual = torch.cat((prefix, queries.reshape(batch, -1, queries.shape[-1])), dim=1)
        return visual, torch.ones(visual.shape[:2], dtype=torch.long)

    def _concat(self, proj: Tensors, tokens: Tensors, batch: int) -> tuple[Tensor, Tensor]:
        """[prefix_t, rgb_t, visual assistants_t] for every t, then audio, or else pc."""
        parts, masks = [], []

        def add(part: Tensor, mask: Tensor | None = None) -> None:
            parts.append(part)
            masks.append(torch.ones(part.shape[:2], dtype=torch.long) if mask is None else mask)

        for t in range(proj["rgb"].shape[1]):
            add(
                self._repeat(tokens["prefix_ids"][t : t + 1], batch),
                tokens["prefix_mask"][t : t + 1].expand(batch, -1),
            )
            add(proj["rgb"][:, t])
            for name in self.names:
                if name in VISUAL and name != "rgb":
                    add(proj[name][:, t])
        if "audio" in self.names:  # and then pc is dropped, in silence
            add(proj["audio"].flatten(1, 2))
        elif "pc" in self.names:
            add(self._repeat(tokens["pc_prefix_ids"], batch))
            add(proj["pc"])
        return torch.cat(parts, dim=1), torch.cat(masks, dim=1)

    def _espresso(self, proj: Tensors, tokens: Tensors, batch: int) -> tuple[Tensor, Tensor]:
        gated, rgb = self.fuse(proj), proj["rgb"]
        frames, queries = rgb.shape[1:3]
        prefixes = [self._repeat(tokens["prefix_ids"][t : t + 1], batch) for t in range(frames)]
        if "concat" not in self.task:  # add: the mask shows the pads of the prefixes too
            visual = torch.cat(
                [torch.cat((prefixes[t], rgb[:, t] + gated[:, t]), dim=1) for t in range(frames)],
                dim=1,
            )
            return visual, torch.ones(visual.shape[:2], dtype=torch.long)
        first = torch.cat(
            [torch.cat((prefixes[t], rgb[:, t]), dim=1) for t in range(frames)], dim=1
        )
        second = torch.cat((*prefixes, gated.flatten(1, 2)), dim=1)
        ones = torch.ones(queries, dtype=torch.long)
        half = torch.cat([torch.cat((tokens["prefix_mask"][t], ones)) for t in range(frames)])
        # The second half is laid out differently and still gets a copy of the first half's mask.
        mask = torch.cat((half, half)).expand(batch, -1)
        return torch.cat((first, second), dim=1), mask

    def forward(self, inputs: Tensors, tokens: Tensors) -> Tensors:
        """All golden quantities but gradients and answers; `loss` is a scalar with a graph."""
        out = self.query(inputs, batch=tokens["text_ids"].shape[0])
        proj = {name: out[f"proj/{name}"] for name in self.names}
        embeds, mask = self.prompt(proj, tokens)
        labels = tokens["answer_ids"].masked_fill(tokens["answer_mask"] == 0, -100)
        llm = self.llm(
            inputs_embeds=embeds,
            attention_mask=mask,
            decoder_attention_mask=tokens["answer_mask"],
            labels=labels,
        )
        out["llm/inputs_embeds"], out["llm/attention_mask"] = embeds, mask
        out["llm/labels"], out["llm/decoder_attention_mask"] = labels, tokens["answer_mask"]
        out["llm/encoder_last"], out["llm/logits"] = llm.encoder_last_hidden_state, llm.logits
        out["loss"] = llm.loss
        return out

    def gradients(self, loss: Tensor) -> Tensors:
        """d loss / d parameter for every trainable that the loss depends on."""
        trained = self.trainable
        grads = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
        return {name: g for name, g in zip(trained, grads, strict=True) if g is not None}

    def answer_open(self, embeds: Tensor, mask: Tensor) -> Tensor:
        """Beam-search ids [B, <=1+10], start token first."""
        return beam_search(self.llm, embeds, mask, BEAMS, OPEN_TOKENS, LENGTH_PENALTY)

    @torch.no_grad()
    def answer_choice(self, embeds: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, list[int]]:
        """Greedy ids [B, <=1+30], the scores of each step [steps, B, V], the option of each row."""
        result = self.llm.generate(
            inputs_embeds=embeds,
            attention_mask=mask,
            num_beams=1,
            max_new_tokens=CHOICE_TOKENS,
            do_sample=False,
            output_scores=True,
            return_dict_in_generate=True,
        )
        scores = torch.stack(result.scores)
        deciding = scores[min(1, len(scores) - 1)]
        return result.sequences, scores, deciding[:, list(OPTION_IDS)].argmax(dim=-1).tolist()
