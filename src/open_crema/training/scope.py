"""What a run may move: everything, or only the senses that are new to a trained model."""

from __future__ import annotations

from open_crema.errors import ConfigError
from open_crema.model.crema import Crema


def freeze_published(model: Crema) -> list[str]:
    """Scope "own": leaves trainable only the adapters and fusion blocks of the senses that no
    training has used yet, and returns these in the order of ``model.config.senses``.

    The Q-Former, the fusion's bias (zero, where the model had one sense only) and the other senses
    stay what they are bit for bit, so adapters that were added apart fit the same base.

    Raises ConfigError as :func:`new_senses`.
    """
    own = new_senses(model)
    model.requires_grad_(False)
    for sense in own:
        model.adapter(sense).requires_grad_(True)
        if sense in model.fusion.blocks:
            model.fusion.blocks[sense].requires_grad_(True)
    return own


def new_senses(model: Crema) -> list[str]:
    """The senses that no training has used yet, in the order of ``model.config.senses``.

    Raises ConfigError where there is none, or where one would lead a sense that has never been an
    assistant: that one's block is zero, and would have to be trained for it to be heard.
    """
    own = [s for s in model.config.senses if s in model.untrained]
    if not own:
        raise ConfigError(
            f"train.scope=own: all of {', '.join(model.senses)} have been trained, there is no new "
            "sense; name one in model.senses, or use train.scope=all"
        )
    for place, sense in enumerate(model.senses):
        leads = [s for s in model.senses[:place] if s in own]
        if sense not in own and leads and model.fusion.silent(sense):
            raise ConfigError(
                f"train.scope=own: {leads[0]} would lead where {sense} led until now, and {sense}, "
                "which has no trained fusion block, would no longer be heard beside it; use "
                "train.scope=all"
            )
    return own
