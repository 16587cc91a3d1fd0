"""The quickstart: make clips, train a two-sense model, score it, ask one question about a file.

    python examples/quickstart.py configs/embedded/quickstart.yaml

Everything is the library's own: real frozen encoders, a real frozen LLM, adapters and fusion
trained here. The trained model becomes the one that ``crema ask`` uses when none is named.
"""

import shutil
import sys
import time
from pathlib import Path

import make_clips
from rich.console import Console
from rich.table import Table

from open_crema import config, cost, experiment
from open_crema.evaluation import metrics
from open_crema.model.files import from_pretrained
from open_crema.predictor import Predictor
from open_crema.storage import replacing


def main() -> None:
    start = time.perf_counter()
    run = config.load(sys.argv[1], sys.argv[2:])
    folder = Path(run.data.train).parent
    make_clips.write_split(folder, "train", 160, run.seed)
    make_clips.write_split(folder, "test", 40, run.seed)
    model_folder = experiment.train(run, fresh=True)
    given = {
        "blind (question only)": [],
        "video + audio": ["video", "audio"],
    }
    found = {
        name: experiment.evaluate_split(
            run, model_folder, senses=senses, out=Path(run.out) / "results" / name.split(" (")[0]
        )
        for name, senses in given.items()
    }
    console = Console()
    console.print(table(found))
    counted = cost.count(run.model)
    console.print(
        f"trained: {counted.trainable:,} parameters of adapters and fusion "
        f"(+ {counted.qformer:,} of the Q-Former, in the alignment stage only); "
        f"frozen: {counted.frozen - counted.qformer:,}; seed {run.seed}, one run"
    )
    ask(model_folder, run, folder / "clips" / "test0000.mp4", console)
    with replacing(experiment.default_model()) as default:
        shutil.copytree(model_folder, default, dirs_exist_ok=True)
    console.print(f"[dim]model: {model_folder}, now also what `crema ask` uses by default")
    console.print(f"took {time.perf_counter() - start:.0f} s")


def table(found: dict) -> Table:
    """A row for each set of senses: accuracy on each type of question, with its interval."""
    first = next(iter(found.values()))
    shown = Table(title="accuracy in % (95 % interval), clips that training never saw")
    shown.add_column("the model is given")
    for name, row in first.types.items():
        shown.add_column(f"{name} questions\nN = {row.n}", justify="right")
    shown.add_row("chance", *(f"{100 * row.chance:.0f}" for row in first.types.values()))
    shown.add_row(
        "most frequent answer",
        *(f"{100 * row.majority:.0f}" for row in first.types.values()),
        end_section=True,
    )
    for name, result in found.items():
        cells = []
        for row in result.types.values():
            low, high = metrics.wilson(row.correct, row.n)
            cells.append(f"{100 * row.accuracy:.0f} ({100 * low:.0f} - {100 * high:.0f})")
        shown.add_row(name, *cells)
    scored = sum(len(result.predictions) for result in found.values())
    expected = sum(result.expected for result in found.values())
    shown.caption = f"expected {expected} answers, scored {scored}"
    return shown


def ask(model_folder: Path, run: config.Config, clip: Path, console: Console) -> None:
    """One question about one file, with and without its sound."""
    question = "What do you hear?"
    predictor = Predictor(from_pretrained(model_folder), data=run.data, eval=run.eval)
    predictor.set_media(clip)
    console.print(f"crema ask {clip} {question!r}")
    answer = predictor.ask(question)
    heard = answer.senses["audio"].gate
    console.print(
        f"  with sound:    {answer.answer}   (audio: {100 * heard:.0f} % of fused tokens)"
    )
    deaf = Predictor(from_pretrained(model_folder, senses=["video"]), data=run.data, eval=run.eval)
    deaf.set_media(clip)
    console.print(f"  without sound: {deaf.ask(question).answer}")


if __name__ == "__main__":
    main()
