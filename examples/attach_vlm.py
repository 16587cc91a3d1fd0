"""Train other senses beside a VLM, and ask with and without them.

    python examples/attach_vlm.py VLM TRAIN TEST OUT RUN [KEY=VALUE ...]

VLM: the folder (or hub name) of an image-text-to-text model of transformers. TRAIN, TEST: data
files (docs/data.md). OUT: where the adapters go. RUN: a configuration, whose model.senses are
trained, model.qformer gives the Q-Former's shape and train.init the saved model whose Q-Former is
taken. The video goes to the VLM as pictures.
"""

import sys

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from open_crema import attach, config, save_pretrained, sequential, tasks
from open_crema.data.dataset import FeatureDataset
from open_crema.data.extract import Extractor
from open_crema.experts.senses import read_pictures
from open_crema.media import Clip


def conversation(sample, frames):
    pictures = read_pictures(sample.media["video"], Clip(frames)).images
    seen = [{"type": "image", "image": Image.fromarray(picture)} for picture in pictures]
    return [{"role": "user", "content": [*seen, {"type": "text", "text": sample.question}]}]


def batches(model, run, path, **order):
    """Batches of a data file's questions, each with its conversations and features."""
    data = FeatureDataset(
        tasks.load(run.data.task, path), Extractor.from_config(run), frames=run.data.frames
    )
    for batch in data.batches(run.train.batch_size, **order):
        turns = [conversation(sample, run.data.frames) for sample in batch.samples]
        yield model.join(batch, turns)


def main(vlm, train, test, out, run, *overrides):
    run = config.load(run, overrides)
    torch.manual_seed(run.seed)
    model = attach(
        AutoModelForImageTextToText.from_pretrained(vlm, dtype="auto"),
        AutoProcessor.from_pretrained(vlm),
        config=run.model,
        qformer=run.train.init,
    )
    trained = [p for p in model.parameters() if p.requires_grad]
    print(f"{sum(p.numel() for p in trained):,} trainable parameters: {', '.join(model.senses)}")
    optimizer = torch.optim.AdamW(trained, lr=run.train.lr)
    for epoch in range(run.train.epochs):
        for batch in batches(model, run, train, training=True, epoch=epoch, seed=run.seed):
            for sub in sequential(model, [batch], order=model.senses):
                sub.loss.backward()
                if sub.last:
                    optimizer.step()
                    optimizer.zero_grad()
            print(f"epoch {epoch}, {sub.sense}: loss {sub.loss.item():.3f}")
    save_pretrained(model.eval(), out, run=run)
    for batch in batches(model, run, test):
        answered = [
            model.generate(given, max_new_tokens=run.eval.max_new_tokens).texts
            for given in (batch, batch.only([]))
        ]
        for sample, heard, alone in zip(batch.samples, *answered, strict=True):
            print(f"{sample.question} {sample.answers}: {heard!r}, the VLM alone: {alone!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
