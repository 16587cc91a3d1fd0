"""Model cards: the README.md that goes with a published model or adapter."""

from __future__ import annotations

from open_crema.model.facts import AdapterInfo
from open_crema.model.fit import Described

PLACE = "USER/NAME"


def of_model(said: Described, repository: str, parameters: dict[str, int], licence: str) -> str:
    """parameters: of each sense's adapter, its fusion block included."""
    rows = "\n".join(
        f"| {sense} | {parameters[sense]:,} | {_encoder(info)} | {_state(info)} | "
        f"`{info.fingerprint}` |"
        for sense, info in said.adapters.items()
    )
    fusion = said.config.fusion
    return f"""{_head(licence)}
# {repository}

Adapters that give a frozen LLM new senses, for [Open CREMA](https://arxiv.org/abs/2402.05889).
The LLM itself is not in here.

- LLM: `{said.config.llm}` (`{said.base.llm}`)
- Q-Former: `{said.base.qformer}`
- fusion: {fusion.kind}, {fusion.placement}

| sense | parameters | features of | state | fingerprint |
|---|---|---|---|---|
{rows}

```python
from open_crema import Predictor, from_pretrained

predictor = Predictor(from_pretrained("{repository}"))
predictor.set_media("clip.mp4")
print(predictor.ask("What is it?").answer)
```
"""


def of_adapter(
    info: AdapterInfo, llm: str, *, repository: str = PLACE, licence: str = "other"
) -> str:
    """llm: the name of the LLM in the configuration that it was trained with."""
    beside = ", ".join(f"{s} (`{p}`)" for s, p in info.trained_with.items())
    package = info.modality.package
    install = f"- its sense comes from `pip install {package}`\n" if package else ""
    return f"""{_head(licence)}
# {info.sense}: an adapter for Open CREMA

- sense: {info.sense} ("{info.modality.label}"), {_state(info)}, fingerprint `{info.fingerprint}`
- features of: {_encoder(info)}
{install}- LLM: `{llm}` (`{info.base.llm}`)
- Q-Former: `{info.base.qformer}`; fusion bias: `{info.base.fusion}`
- trained beside: {beside or "no other adapter"}

It fits models of that base, and is refused by others:

    crema adapter add MODEL {repository}

Adapters that were trained apart are not guaranteed to add up: measure the senses together.
"""


def _head(licence: str) -> str:
    return f"---\nlibrary_name: open-crema\nlicense: {licence}\ntags:\n- open-crema\n---\n"


def _encoder(info: AdapterInfo) -> str:
    if info.encoder.name is None:
        return f"the user's own encoder, width {info.encoder.width}"
    return f"{info.encoder.name} (`{info.encoder.fingerprint}`)"


def _state(info: AdapterInfo) -> str:
    return "untrained" if info.fresh else "trained"
