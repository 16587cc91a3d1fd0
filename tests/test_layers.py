"""Who may import whom, read off the source: an import never points back."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import open_crema

ROOT = Path(open_crema.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

LAYERS = (
    {
        "errors",
        "config",
        "features",
        "modality",
        "weights",
        "processes",
        "progress",
        "repositories",
        "sense_costs",
        "storage",
        "termination",
    },
    {"media"},
    {"experts", "encoders", "backbones"},
    {"data", "tasks", "senseqa"},
    {"model"},
    {"training", "evaluation", "predictor", "cost", "convert", "doctor", "skeleton"},
    {"experiment"},
    {"experiment", "doctor"},
    {"quickstart", "reproduce", "harness"},
    {"cli", "__main__"},
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
OPENS_MEDIA = {"av", "PIL", "cv2", "imageio", "decord", "soundfile", "torchaudio", "torchvision"}
CV2_FILES = {"VideoCapture", "VideoWriter", "imread", "imreadmulti", "imdecode", "imwrite"}
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def room_of(path: Path) -> str:
    """The first folder or file under the package: ``media/video.py`` is in the room "media"."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(tree: ast.AST, path: Path) -> Iterator[str]:
    """Dotted names of all that a file imports, wherever the statement stands."""
    package = ("open_crema", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*above, *([node.module] if node.module else [])))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def rooms_used(tree: ast.AST, path: Path) -> set[str]:
    used = set()
    for name in imported(tree, path):
        parts = name.split(".")
        if parts[0] == "open_crema" and parts[1:] not in ([], ["__version__"]):
            used.add(parts[1])
    return used - {room_of(path)}


def faults(tree: ast.AST, path: Path) -> list[str]:
    """What a file does that no file, or only another room, may do."""
    room = room_of(path)
    found = []
    for used in rooms_used(tree, path):
        if used not in LEVEL:
            found.append(f"imports open_crema.{used}, which has no layer")
        elif LEVEL[used] > LEVEL[room]:
            found.append(f"imports {used}, which is downstream of {room}")
    for name in imported(tree, path):
        top = name.partition(".")[0]
        if top in PICKLES and (name, room) != ("pickle.UnpicklingError", "convert"):
            found.append(f"imports {name}")
        if top in OPENS_MEDIA and room != "media" and (top, room) != ("cv2", "experts"):
            found.append(f"imports {name}: only media opens media files")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner, attribute = node.value.id, node.attr
            if owner == "torch" and attribute in ("load", "save") and room != "convert":
                found.append(f"line {node.lineno}: torch.{attribute} pickles")
            if owner == "cv2" and attribute in CV2_FILES and room != "media":
                found.append(f"line {node.lineno}: cv2.{attribute}: only media opens media files")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("eval", "exec"):
                found.append(f"line {node.lineno}: {node.func.id}()")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "load" and room == "convert" and not _weights_only(node):
                found.append(f"line {node.lineno}: load() without weights_only=True")
            if node.func.attr == "cuda":
                found.append(f"line {node.lineno}: .cuda()")
            for keyword in node.keywords:
                allowed = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg == "allow_pickle" and not allowed:
                    found.append(f"line {node.lineno}: allow_pickle")
    return found


def _weights_only(call: ast.Call) -> bool:
    """Whether it is no torch.load, or reads tensors alone."""
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    if not isinstance(owner, ast.Name) or owner.id != "torch":
        return True
    given = {k.arg: k.value for k in call.keywords}.get("weights_only")
    return isinstance(given, ast.Constant) and given.value is True


def parse(path: Path) -> ast.AST:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@pytest.mark.parametrize("path", FILES, ids=[f.relative_to(ROOT).as_posix() for f in FILES])
def test_file_keeps_to_its_layer(path: Path) -> None:
    if path == ROOT / "__init__.py":
        return  # the public API names all of it
    assert room_of(path) in LEVEL, f"{room_of(path)}: say in LAYERS where this room belongs"
    assert not faults(parse(path), path)


def test_rooms_of_one_layer_do_not_import_each_other_in_a_circle() -> None:
    uses: dict[str, set[str]] = {}
    for path in FILES:
        if path != ROOT / "__init__.py":
            uses.setdefault(room_of(path), set()).update(rooms_used(parse(path), path))

    def reached(room: str) -> set[str]:
        seen: set[str] = set()
        ahead = list(uses.get(room, ()))
        while ahead:
            if (step := ahead.pop()) not in seen:
                seen.add(step)
                ahead += uses.get(step, ())
        return seen

    assert not [room for room in uses if room in reached(room)]


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("backbones/x.py", "from open_crema.model import crema"),
        ("backbones/x.py", "from open_crema import model"),
        ("backbones/x.py", "from ..model.crema import Crema"),
        ("backbones/x.py", "from .. import model"),
        ("config.py", "def f():\n    import open_crema.media.video"),
        ("data/x.py", "from open_crema.unheard_of import thing"),
        ("training/x.py", "from open_crema import experiment"),
        ("experiment.py", "from open_crema.cli import main"),
        ("model/x.py", "import av.video"),
        ("experts/x.py", "from PIL import Image"),
        ("encoders/x.py", "import cv2"),
        ("experts/x.py", "import cv2\ncv2.VideoCapture('a')"),
        ("model/x.py", "from pickle import loads"),
        ("model/x.py", "import torch\ntorch.load('a')"),
        ("model/x.py", "import torch\ntorch.load('a', weights_only=True)"),
        ("convert/x.py", "import torch\ntorch.load('a')"),
        ("convert/x.py", "import torch\ntorch.load('a', weights_only=False)"),
        ("convert/x.py", "from pickle import loads"),
        ("model/x.py", "numpy.load('a', allow_pickle=flag)"),
        ("model/x.py", "eval('1')"),
        ("model/x.py", "model.cuda()"),
    ],
)
def test_a_fault_is_found(place: str, source: str) -> None:
    assert faults(ast.parse(source), ROOT / place)


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("model/x.py", "from open_crema import __version__, backbones"),
        ("model/x.py", "from . import crema"),
        ("experts/x.py", "import cv2\ncv2.calcOpticalFlowFarneback"),
        ("media/x.py", "import av, PIL.Image, cv2\ncv2.VideoCapture('a')"),
        ("media/x.py", "numpy.load('a', allow_pickle=False)"),
        ("convert/x.py", "import torch\ntorch.load('a', weights_only=True)\ntorch.save(a, 'b')"),
        ("convert/x.py", "from pickle import UnpicklingError"),
    ],
)
def test_what_is_allowed_is_not_a_fault(place: str, source: str) -> None:
    assert not faults(ast.parse(source), ROOT / place)
