"""A stand-in for lmms-eval's interface, as version 0.7.3 documents it and its evaluator uses it.

``modules()`` are what ``import lmms_eval...`` would find; ``evaluate`` runs the tasks of a folder
on a model of that interface, the way ``simple_evaluate`` does.
"""

from __future__ import annotations

import abc
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml


class Lmms(abc.ABC):
    """``lmms_eval.api.model.lmms``"""

    is_simple = True

    def __init__(self) -> None:
        self._rank, self._world_size, self.task_dict = 0, 1, {}

    @abc.abstractmethod
    def loglikelihood(self, requests): ...

    @abc.abstractmethod
    def generate_until(self, requests): ...

    @abc.abstractmethod
    def generate_until_multi_round(self, requests): ...

    @classmethod
    def create_from_arg_string(cls, arg_string, additional_config=None):
        pairs = [pair.split("=", 1) for pair in arg_string.split(",") if pair]
        more = {k: v for k, v in (additional_config or {}).items() if v is not None}
        return cls(**dict(pairs), **more)

    @property
    def rank(self):
        return self._rank


@dataclass
class Instance:
    """``lmms_eval.api.instance.Instance``"""

    request_type: str
    arguments: tuple
    idx: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def args(self):
        return self.arguments


@dataclass
class GenerationResult:
    text: Any
    token_counts: Any = None


def unwrap_generation_output(output):
    """As in 0.7.3: a pair of numbers, which is what a likelihood is, becomes a text."""
    if isinstance(output, GenerationResult):
        return output.text, output.token_counts
    if isinstance(output, str):
        return output, None
    return str(output), None


@dataclass(frozen=True)
class ModelManifest:
    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None
    aliases: tuple[str, ...] = ()


def modules() -> dict[str, ModuleType]:
    content = {
        "lmms_eval": {},
        "lmms_eval.api": {},
        "lmms_eval.api.model": {"lmms": Lmms},
        "lmms_eval.api.instance": {
            "Instance": Instance,
            "GenerationResult": GenerationResult,
            "unwrap_generation_output": unwrap_generation_output,
        },
        "lmms_eval.models": {},
        "lmms_eval.models.registry_v2": {"ModelManifest": ModelManifest},
    }
    made = {}
    for name, attributes in content.items():
        made[name] = ModuleType(name)
        vars(made[name]).update(attributes)
    return made


class Task:
    """Of a YAML file, for a model of that name."""

    def __init__(self, path: Path, model_name: str) -> None:
        config = load_yaml(path)
        self.name, self.output = config["task"], config["output_type"]
        self.config, self.split = config, config["test_split"]
        assert config["dataset_path"] == "json"
        lines = (path.parent / config["dataset_kwargs"]["data_files"]["test"]).read_text("utf-8")
        self.docs = [json.loads(line) for line in lines.splitlines()]
        kwargs = config["lmms_eval_specific_kwargs"]
        self.kwargs = kwargs.get(model_name, kwargs["default"])

    def doc_to_visual(self, doc):
        return self.config["doc_to_visual"](doc, self.kwargs)

    def instances(self, number: int) -> list[Instance]:
        doc = self.docs[number]
        text, where = self.config["doc_to_text"](doc, self.kwargs), (number, self.name, self.split)
        if self.output == "multiple_choice":
            said = [f" {choice}" for choice in self.config["doc_to_choice"](doc)]
            arguments = [(text, one, self.doc_to_visual, *where) for one in said]
            return [Instance("loglikelihood", own, i) for i, own in enumerate(arguments)]
        kwargs = dict(self.config["generation_kwargs"])
        return [Instance(self.output, (text, kwargs, self.doc_to_visual, *where))]


def evaluate(
    model: Lmms, folder: Path, model_name: str
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, list[Any]]]]:
    """task -> score -> its mean, and task -> id of a question -> what the model gave."""
    scores, given = {}, {}
    for path in sorted(folder.glob("*.yaml")):
        if "group" in load_yaml(path):
            continue
        task = Task(path, model_name)
        model.task_dict[task.name] = {task.split: task.docs}
        own = [task.instances(i) for i in range(len(task.docs))]
        flat = [instance for instances in own for instance in instances]
        found = iter(getattr(model, flat[0].request_type)(flat)) if flat else iter(())
        items: dict[str, list[Any]] = {}
        given[task.name] = {}
        for doc, instances in zip(task.docs, own, strict=True):
            results = [unwrap_generation_output(next(found))[0] for _ in instances]
            given[task.name][doc["id"]] = results
            for score, item in task.config["process_results"](doc, results).items():
                items.setdefault(score, []).append(item)
        means = {m["metric"]: m["aggregation"] for m in task.config["metric_list"]}
        assert set(items) == set(means), "a score that the YAML does not name is never shown"
        scores[task.name] = {score: means[score](items[score]) for score in items}
    return scores, given


def load_yaml(path: Path) -> dict[str, Any]:
    """With functions of Python files beside it."""

    class Loader(yaml.SafeLoader):
        pass

    def function(loader, node):
        module, name = loader.construct_scalar(node).split(".")
        spec = importlib.util.spec_from_file_location(module, path.parent / f"{module}.py")
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return getattr(loaded, name)

    Loader.add_constructor("!function", function)
    return yaml.load(path.read_text(encoding="utf-8"), Loader)
