"""crema ask: a question about a video or other media."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from open_crema.cli.arguments import command
from open_crema.errors import ConfigError


def add(commands: Any) -> None:
    ask = command(commands, "ask", _ask, "Ask a question about a video (or other media).")
    ask.add_argument("video", help="video, folder of pictures, picture; '-' for none")
    ask.add_argument("question")
    ask.add_argument(
        "--model", help="model folder, or user/name on the hub; default: the base that ships"
    )
    ask.add_argument(
        "--sense", action="append", default=[], metavar="NAME=PATH", help="file of another sense"
    )
    ask.add_argument("--options", nargs="+", action="extend", help="choose among these answers")
    ask.add_argument(
        "--confidence",
        type=float,
        metavar="P",
        help="read senses one by one, cheapest first, until the answer's probability is above P",
    )
    ask.add_argument("--json", action="store_true")


def _ask(options: argparse.Namespace) -> None:
    import time

    from open_crema import experiment
    from open_crema.model import hub
    from open_crema.model.files import from_pretrained, run_of
    from open_crema.predictor import Predictor

    senses = _senses(options.sense)
    folder = hub.local(options.model or experiment.default_model())
    start = time.perf_counter()
    run = run_of(folder)
    predictor = Predictor(
        from_pretrained(folder, held=run.model),
        data=run.data,
        eval=run.eval,
        confidence=options.confidence,
    )
    loading = time.perf_counter() - start
    predictor.set_media(None if options.video == "-" else options.video, senses)
    answer = predictor.ask(options.question, options.options).to_dict()
    answer["seconds"] = {"load": loading, **answer["seconds"]}
    if options.json:
        print(json.dumps(answer, ensure_ascii=False))
        return
    print(answer["answer"])
    for choice in answer.get("options", []):
        print(f"  {100 * choice['probability']:5.1f} %  {choice['option']}")
    for name, used in answer["senses"].items():
        gate = "" if used["gate"] is None else f", {100 * used['gate']:.0f} % of the fused tokens"
        print(f"used {name}: {used['segments']} segments{gate}", file=sys.stderr)
    if "confidence" in answer:
        sure = answer["confidence"]
        print(f"probability {100 * sure['probability']:.1f} %", file=sys.stderr)
        for name, seconds in sure["spared"].items():
            print(f"did not need {name}: about {seconds:.2f} s saved", file=sys.stderr)
    for name, reason in answer["absent"].items():
        print(f"without {name}: {reason}", file=sys.stderr)


def _senses(texts: Sequence[str]) -> dict[str, str]:
    senses: dict[str, str] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise ConfigError(f"--sense {text!r}: write NAME=PATH, as in --sense depth=room.png")
        if name in senses:
            raise ConfigError(f"--sense {name} is given twice: {senses[name]} and {path}; drop one")
        senses[name] = path
    return senses
