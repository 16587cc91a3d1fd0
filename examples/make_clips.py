"""Make a small two-sense data set on the spot: short clips of a coloured shape, with a sound.

    python examples/make_clips.py FOLDER [--train 160] [--test 40] [--seed 0]

Each clip shows one shape in one colour crossing the picture, while one of four sounds is heard;
colour and sound are drawn independently, so neither tells anything of the other. Two questions a
clip: one that only the pictures answer, one that only the sound answers. Writes ``train.jsonl``,
``test.jsonl`` and ``clips/*.mp4``; everything depends on the seed alone.
"""

import argparse
import json
from pathlib import Path

import av
import numpy as np

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 230),
    "yellow": (240, 220, 40),
}
SOUNDS = ("bell", "drum", "siren", "wind")
SIZE, FPS, RATE, SECONDS = 112, 8, 16_000, 3


def picture(
    t: float,
    shape: str,
    colour: tuple[int, int, int],
    start: np.ndarray,
    speed: np.ndarray,
    ground: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """One frame ``[SIZE, SIZE, 3]`` uint8 at time t in seconds."""
    y, x = np.mgrid[:SIZE, :SIZE]
    cy, cx = (start + speed * t) % SIZE
    dy, dx = y - cy, x - cx
    radius = SIZE * 0.22
    if shape == "circle":
        inside = dy**2 + dx**2 < radius**2
    elif shape == "square":
        inside = np.maximum(abs(dy), abs(dx)) < radius * 0.9
    else:  # triangle
        inside = (dy < radius) & (2 * abs(dx) < dy + radius)
    image = np.full((SIZE, SIZE, 3), ground, dtype=float)
    image[inside] = colour
    return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


def sound(kind: str, rng: np.random.Generator) -> np.ndarray:
    """``[RATE * SECONDS]`` float32 in [-1, 1]."""
    t = np.arange(RATE * SECONDS) / RATE
    pitch = rng.uniform(0.85, 1.2)
    if kind == "bell":  # inharmonic partials, struck each second
        since = t % 1.0
        parts = [(1.0, 1.0), (2.76, 0.6), (5.4, 0.3)]
        wave = sum(a * np.sin(2 * np.pi * 700 * pitch * f * t) for f, a in parts) * np.exp(
            -3 * since
        )
    elif kind == "drum":  # low thumps, four a second
        since = t % 0.25
        wave = np.sin(2 * np.pi * 70 * pitch * since * (1 + np.exp(-30 * since))) * np.exp(
            -18 * since
        )
        wave = wave + 0.3 * rng.normal(size=t.size) * np.exp(-60 * since)
    elif kind == "siren":  # a tone that sweeps up and down
        wave = np.sin(2 * np.pi * 900 * pitch * t - 300 * np.cos(2 * np.pi * 0.7 * t))
    else:  # wind: slowly swelling low-passed noise
        noise = rng.normal(size=t.size)
        spectrum = np.fft.rfft(noise)
        spectrum /= 1 + (np.fft.rfftfreq(t.size, 1 / RATE) / (300 * pitch)) ** 2
        wave = np.fft.irfft(spectrum, t.size) * (0.6 + 0.4 * np.sin(2 * np.pi * 0.4 * t))
    return (0.5 * wave / np.abs(wave).max()).astype(np.float32)


def write_clip(path: Path, colour: str, kind: str, rng: np.random.Generator) -> None:
    shape = str(rng.choice(["circle", "square", "triangle"]))
    start, speed = rng.uniform(0.3, 0.7, 2) * SIZE, rng.uniform(-15, 15, 2)
    ground = int(rng.integers(60, 160))
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=FPS)
        video.width = video.height = SIZE
        video.pix_fmt, video.bit_rate = "yuv420p", 400_000
        audio = container.add_stream("aac", rate=RATE)
        audio.layout = "mono"
        for i in range(FPS * SECONDS):
            image = picture(i / FPS, shape, COLOURS[colour], start, speed, ground, rng)
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode())
        samples = av.AudioFrame.from_ndarray(sound(kind, rng)[None], format="fltp", layout="mono")
        samples.sample_rate = RATE
        container.mux(audio.encode(samples))
        container.mux(audio.encode())


def write_split(folder: Path, split: str, count: int, seed: int) -> None:
    rng = np.random.default_rng([seed, ("train", "test").index(split)])
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(count):
        colour, kind = str(rng.choice(list(COLOURS))), str(rng.choice(SOUNDS))
        clip = f"clips/{split}{i:04d}.mp4"
        write_clip(folder / clip, colour, kind, rng)
        asked = {
            "colour": ("What colour is the shape?", colour),
            "sound": ("What do you hear?", kind),
        }
        for name, (question, answer) in asked.items():
            lines.append(
                {
                    "id": f"{split}{i:04d}-{name}",
                    "video": clip,
                    "question": question,
                    "answer": answer,
                    "type": name,
                }
            )
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=160, help="clips for training")
    parser.add_argument("--test", type=int, default=40, help="clips for the test")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write_split(options.folder, "train", options.train, options.seed)
    write_split(options.folder, "test", options.test, options.seed)
    print(f"{options.train} + {options.test} clips, two questions each, in {options.folder}")


if __name__ == "__main__":
    main()
