"""Extraction of the same clips with one worker and with several.

    python benchmarks/extract.py [--clips 24] [--workers 1 2] [--senses video audio flow]

Prints JSON: seconds on the clock and of the processor, files a second, and whether every feature is
the same bit for bit. Clips: 4 s of 320 x 240 at 25 frames a second with sound, made on the spot;
encoders as configured by default (their weights are fetched once), loaded before the clock starts.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import av
import numpy as np

from open_crema.config import EncodersConfig
from open_crema.data.extract import Extractor
from open_crema.data.extraction import extract_all
from open_crema.data.sample import Sample
from open_crema.data.store import FeatureStore
from open_crema.media import Limits

FPS, SECONDS, WIDTH, HEIGHT, RATE = 25, 4, 320, 240, 48_000


def write_clip(path: Path, seed: int) -> None:
    """Noise that drifts to the right, and a tone."""
    random = np.random.default_rng(seed)
    picture = np.kron(random.integers(0, 255, (30, 40, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        track = container.add_stream("aac", rate=RATE, layout="mono")
        for number in range(FPS * SECONDS):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, 2 * number, axis=1), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        tone = np.sin(np.arange(RATE * SECONDS) * 2 * np.pi * (300 + 10 * seed) / RATE)
        for start in range(0, len(tone), 1024):
            part = tone[None, start : start + 1024].astype(np.float32) / 2
            sound = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            sound.rate, sound.pts = RATE, start
            container.mux(track.encode(sound))
        container.mux(track.encode(None))


def contents(store: FeatureStore) -> dict[str, bytes]:
    store.shards.refresh()
    return {place.key: place.read() for place in store.shards.entries()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--senses", nargs="+", default=["video", "audio", "flow"])
    options = parser.parse_args()
    results, made = {}, []
    with tempfile.TemporaryDirectory() as scratch:
        samples = []
        for i in range(options.clips + 1):
            path = Path(scratch, f"{i}.mp4")
            write_clip(path, i)
            samples.append(Sample(path.name, "", {"video": str(path)}))
        for workers in options.workers:
            extractor = Extractor(
                options.senses,
                EncodersConfig(),
                frames=8,
                limits=Limits(),
                store=FeatureStore(Path(scratch, f"store{workers}")),
            )
            extract_all(extractor, samples[:1], workers=1)
            clock, processor = time.perf_counter(), time.process_time()
            extract_all(extractor, samples[1:], workers=workers)
            seconds = time.perf_counter() - clock
            results[f"workers={workers}"] = {
                "seconds": round(seconds, 2),
                "cpu_seconds": round(time.process_time() - processor, 2),
                "clips_per_second": round(options.clips / seconds, 2),
            }
            made.append(contents(extractor.store))
    results["bit_identical"] = all(other == made[0] for other in made)
    results["results"] = len(made[0])
    results["load"] = round(os.getloadavg()[0], 1)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
