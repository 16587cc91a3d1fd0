import itertools
import sys
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_crema import modality
from open_crema.errors import ConfigError
from open_crema.modality import BUILT_INS, Modality

NAMES = ["video", "audio", "flow", "depth", "normal", "point", "touch", "thermal"]


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """Each test has its own registry, and no entry points unless it adds some."""
    monkeypatch.setattr(modality, "_registry", {m.name: m for m in BUILT_INS})
    monkeypatch.setattr(modality, "_entry_points_read", False)
    points: list[object] = []
    monkeypatch.setattr(modality, "entry_points", lambda group: points if group else [])
    return points


def entry_point(name, load):
    return SimpleNamespace(name=name, value=f"package:{name}", load=load)


def new(name, **fields):
    return Modality(name, name.title(), "vision", "module:reader", **fields)


def test_the_eight_built_ins():
    assert modality.names() == NAMES
    assert [modality.get(name).name for name in NAMES] == NAMES


def test_labels_in_the_prompt_are_distinct():
    assert len({m.label for m in BUILT_INS}) == 8


def test_only_a_static_thing_is_not_numbered():
    assert [m.name for m in BUILT_INS if not m.numbered()] == ["point"]


@pytest.mark.parametrize(
    ("wrong", "right"), [("vidoe", "video"), ("termal", "thermal"), ("norm", "normal")]
)
def test_an_unknown_sense_names_the_nearest(wrong, right):
    with pytest.raises(ConfigError, match=f"did you mean '{right}'"):
        modality.get(wrong)


def test_a_sense_unlike_any_lists_the_known():
    with pytest.raises(ConfigError, match=r"unknown sense 'xyzzy': known: video, audio"):
        modality.get("xyzzy")


@given(st.lists(st.sampled_from([*NAMES, "imu", "lidar", "ECG"])))
def test_canonical_order_is_the_same_for_every_listing(senses):
    ordered = modality.canonical(senses)
    assert ordered == modality.canonical(reversed(senses))
    assert set(ordered) == set(senses)
    assert len(ordered) == len(set(senses))
    assert modality.canonical(ordered) == ordered


def test_canonical_puts_built_ins_first_and_others_by_name():
    for senses in itertools.permutations(["lidar", "thermal", "ecg", "video", "point"]):
        assert modality.canonical(senses) == ["video", "point", "thermal", "ecg", "lidar"]


def test_registering_by_decorator():
    def read(path, clip): ...

    @modality.modality(name="imu", label="Motion Sensor", reader=read, alignment="overlap")
    class ImuEncoder: ...

    found = modality.get("imu")
    assert (found.encoder, found.reader, found.label) == (ImuEncoder, read, "Motion Sensor")
    assert ImuEncoder.__name__ == "ImuEncoder"  # the class is handed back as it was
    assert modality.names() == [*NAMES, "imu"]


def test_registering_twice_is_harmless_only_when_equal():
    modality.register(new("lidar"))
    modality.register(new("lidar"))
    with pytest.raises(ConfigError, match="'lidar' is already registered"):
        modality.register(new("lidar", cost=9.0))
    assert modality.get("lidar") == new("lidar")


def test_a_built_in_cannot_be_replaced():
    with pytest.raises(ConfigError, match="'video' is already registered"):
        modality.register(new("video"))


@pytest.mark.parametrize("name", ["", "_", "a b", "a/b", "../a", "a.b", "ünder", "a-b"])
def test_names_that_could_not_be_keys_or_folders(name):
    with pytest.raises(ConfigError, match="letters, digits"):
        modality.register(new(name))
    assert modality.names() == NAMES


def test_an_entry_point_that_names_a_modality(registry):
    registry.append(entry_point("radar", lambda: new("radar")))
    assert modality.get("radar") == new("radar")
    assert modality.names() == [*NAMES, "radar"]


def test_an_entry_point_whose_import_registers(registry):
    registry.append(entry_point("ecg", lambda: modality.register(new("ecg")) and ModuleType("m")))
    assert modality.get("ecg") == new("ecg")


def test_entry_points_are_read_once_and_only_when_needed(registry):
    loads = []
    registry.append(entry_point("radar", lambda: loads.append(1) or new("radar")))
    modality.get("video")
    assert loads == []
    modality.get("radar")
    modality.names()
    modality.get("radar")
    assert loads == [1]


def test_an_entry_point_that_is_something_else(registry):
    registry.append(entry_point("radar", lambda: 3))
    with pytest.raises(ConfigError, match=r"'radar' \(package:radar\).*gives a int"):
        modality.get("radar")


def test_an_entry_point_whose_name_is_taken(registry):
    registry.append(entry_point("video", lambda: new("video")))
    with pytest.raises(ConfigError, match="already registered"):
        modality.names()


def test_resolve(monkeypatch):
    module = ModuleType("sensors")
    module.read = len
    monkeypatch.setitem(sys.modules, "sensors", module)
    assert modality.resolve("sensors:read") is len
    assert modality.resolve(max) is max


@pytest.mark.parametrize(
    "target", ["no_such_module:read", "json:no_such_function", "json", ":read", "", "json:__name__"]
)
def test_a_reference_to_nothing(target):
    with pytest.raises(ConfigError, match=f"^{target!r} "):
        modality.resolve(target)


def test_an_entry_point_that_cannot_be_loaded_is_named_each_time(registry):
    registry.append(entry_point("ecg", lambda: new("ecg")))
    registry.append(entry_point("radar", lambda: 1 // 0))
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"'radar' \(package:radar\).*ZeroDivisionError"):
            modality.names()
    with pytest.raises(ConfigError, match="'radar'"):
        modality.get("lidar")
    assert modality.get("video").name == "video"


def test_an_entry_point_that_registers_and_then_fails_can_be_read_again(registry):
    whole = []

    def load():
        @modality.modality(name="imu", label="Motion", reader=lambda path: path)
        class Encoder: ...  # another class at each import

        if not whole:
            raise ImportError("no module named sensors")
        return ModuleType("m")

    registry.append(entry_point("imu", load))
    for _ in range(2):
        with pytest.raises(ConfigError, match="no module named sensors"):
            modality.names()
    whole.append(True)
    assert modality.get("imu").label == "Motion"
