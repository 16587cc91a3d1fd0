"""crema convert: checkpoints of the released code, BLIP-2 and BEATs in, ours out, and back."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from open_crema.cli.arguments import command

if TYPE_CHECKING:
    from open_crema.convert import Report
    from open_crema.convert.official import Layout


def add(commands: Any) -> None:
    text = "Convert checkpoints of the released code, of BLIP-2 and of BEATs, and back."
    own = commands.add_parser("convert", help=text, description=text).add_subparsers(
        dest="direction", required=True, metavar="WHAT"
    )
    official = command(own, "official", _official, "A checkpoint of the released code into ours.")
    official.add_argument("checkpoint", type=Path, help=".pth of the released code")
    official.add_argument("out", type=Path, help="model folder to write")
    official.add_argument(
        "--order",
        required=True,
        metavar="NAMES",
        help="its modalities, in its order, as in rgb,pc,depth,norm (rgb-skip: without LoRA)",
    )
    official.add_argument(
        "--base",
        type=Path,
        metavar="PATH",
        help="another checkpoint or a model folder, for what this one lacks",
    )
    official.add_argument(
        "--placement",
        choices=("append", "add"),
        default="append",
        help="of fused tokens: after the video's (espresso-concat), or added to them (espresso)",
    )
    _shared(official)

    blip2 = command(own, "blip2", _blip2, "BLIP-2, to train adapters on.")
    blip2.add_argument(
        "source", type=Path, help="folder in the transformers layout, or .pth with LAVIS's names"
    )
    blip2.add_argument("out", type=Path, help="model folder to write")
    blip2.add_argument("--senses", default="video", help="as in video,audio; default: video")
    blip2.add_argument("--rank", type=int, default=64, help="of LoRA; default: 64")
    _shared(blip2)

    beats = command(own, "beats", _beats, "A lone BEATs, as an encoder of sound.")
    beats.add_argument("checkpoint", type=Path, help=".pt as microsoft/unilm publishes it")
    beats.add_argument("out", type=Path, help="folder to write, for model.encoders.audio")
    _allow(beats, "unexpected")

    back = command(own, "to-official", _to_official, "A model of ours into the released layout.")
    back.add_argument("model", type=Path, help="model folder")
    back.add_argument("out", type=Path, help=".pth to write")


def _allow(added: argparse.ArgumentParser, what: str) -> None:
    added.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="KEY",
        help=f"a key (or pattern, as in 'ln_*') that may be {what}; may be repeated",
    )


def _shared(added: argparse.ArgumentParser) -> None:
    _allow(added, "missing, unexpected or of another shape")
    added.add_argument("--llm", help="folder of the frozen LLM, if the checkpoint holds none")
    added.add_argument("--tokenizer", type=Path, help="folder of the LLM's tokenizer")
    added.add_argument("--heads", type=int, help="of the Q-Former; default: 64 wide each")
    added.add_argument("--vision-heads", type=int, help="of the ViT; default: 88 wide each")


def _layout(options: argparse.Namespace) -> Layout:
    from open_crema.convert.official import Layout

    return Layout(
        heads=options.heads,
        vision_heads=options.vision_heads,
        placement=getattr(options, "placement", "append"),
        llm=options.llm,
        tokenizer=options.tokenizer,
        allow=tuple(options.allow),
    )


def _official(options: argparse.Namespace) -> None:
    from open_crema import convert

    order = options.order.split(",")
    _print(
        convert.from_official(
            options.checkpoint, options.out, order, base=options.base, layout=_layout(options)
        )
    )


def _blip2(options: argparse.Namespace) -> None:
    from open_crema import convert

    senses = options.senses.split(",")
    _print(
        convert.from_blip2(
            options.source, options.out, senses=senses, rank=options.rank, layout=_layout(options)
        )
    )


def _beats(options: argparse.Namespace) -> None:
    from open_crema import convert

    report = convert.from_beats(options.checkpoint, options.out, allow=options.allow)
    _print(report)
    print(f"use it as model.encoders.audio={report.folder}")


def _to_official(options: argparse.Namespace) -> None:
    from open_crema import convert

    _print(convert.to_official(options.model, options.out))


def _print(report: Report) -> None:
    print(f"{report.converted} tensors written to {report.folder}")
    for what, named in (
        ("dropped, not used by the method", report.dropped),
        ("missing, left as new", report.missing),
        ("unexpected, left out", report.unexpected),
    ):
        if named:
            print(f"{len(named)} {what}: {', '.join(named)}")
