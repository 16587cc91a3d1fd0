import sys
from functools import partial
from types import ModuleType

import pytest

from open_crema.config import EncodersConfig
from open_crema.encoders import registry
from open_crema.encoders.points import PointFeatures
from open_crema.encoders.scene import ScenePoints
from open_crema.errors import ConfigError
from open_crema.modality import BUILT_INS, Modality, get


def sense(encoder):
    return Modality("imu", "Motion Sensor", encoder, "module:reader")


def test_what_is_known_without_weights():
    sizes = {s.name: (s.kind, s.width, s.parameters) for s in registry.SPECS.values()}
    assert sizes["eva-vit-g"] == ("vision", 1408, 985_894_528)
    assert sizes["beats-iter3"] == ("audio", 768, 90_311_792)
    assert sizes["points-3dllm"] == ("point", 1408, 0)
    assert sizes["dinov2-small"][:2] == ("vision", 384)
    assert sizes["yamnet"][:2] == ("audio", 1024)
    assert 20e6 < sizes["dinov2-small"][2] < 23e6
    assert 3e6 < sizes["yamnet"][2] < 4e6


def test_the_defaults_are_loadable():
    for name in (EncodersConfig().vision, EncodersConfig().audio, EncodersConfig().point):
        assert registry.spec(name).factory is not None


def test_an_unknown_encoder_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'yamnet'"):
        registry.spec("yamnte")
    with pytest.raises(ConfigError, match=r"unknown encoder 'q': known: dinov2-small, "):
        registry.build("q", EncodersConfig())


def test_weights_that_this_version_cannot_load():
    with pytest.raises(ConfigError, match=r"beats-iter3.*come with `crema convert`.*or yamnet"):
        registry.build("beats-iter3", EncodersConfig())


def test_point_features_that_come_ready():
    encoder = registry.build("points-3dllm", EncodersConfig(max_points=7))
    assert isinstance(encoder, PointFeatures)
    assert (encoder.width, encoder.max_points, encoder.filled) == (1408, 7, 0)


def test_points_are_kept_for_what_is_drawn_of_them():
    of = partial(EncodersConfig, max_points=7, stored_points=50)
    drawn = registry.build("points-3dllm", of(point_choice="drawn"))
    assert (drawn.max_points, drawn.filled) == (50, 0)
    released = registry.build("points-3dllm", of(point_choice="reference"))
    assert (released.max_points, released.filled) == (50, 7)
    assert (
        len(
            {
                registry.build("points-3dllm", of()).fingerprint,
                drawn.fingerprint,
                released.fingerprint,
            }
        )
        == 3
    )
    with pytest.raises(ConfigError, match=r"stored_points 50 is less .*max_points 60"):
        EncodersConfig(point_choice="drawn", max_points=60, stored_points=50)


def test_points_are_made_by_the_vision_encoder():
    encoder = registry.build("points", EncodersConfig(resolution=56, voxel=0.2))
    assert isinstance(encoder, ScenePoints)
    assert (encoder.vision.grid, encoder.voxel) == ((4, 4), 0.2)
    assert encoder.vision.fingerprint in encoder.fingerprint
    paper = registry.build("points", EncodersConfig(vision="eva-vit-g", resolution=224))
    assert (paper.vision.grid, paper.width) == ((16, 16), 1408)


def test_built_encoders_are_as_wide_as_their_spec():
    for spec in registry.SPECS.values():
        if spec.kind == "point":
            assert registry.build(spec.name, EncodersConfig()).width == spec.width
    from open_crema.encoders.dinov2 import DinoV2
    from open_crema.encoders.yamnet import Yamnet

    for encoder in (DinoV2, Yamnet):
        assert registry.spec(encoder.name).width == encoder.width


def test_fingerprints_need_no_weights_and_know_the_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("CREMA_HOME", str(tmp_path / "home"))
    default = EncodersConfig()
    changes = {
        "dinov2-small": EncodersConfig(resolution=224),
        "yamnet": EncodersConfig(audio_window=4.0),
        "points": EncodersConfig(max_points=10),
    }
    for name, changed in changes.items():
        fingerprint = registry.build(name, default).fingerprint
        assert fingerprint == registry.build(name, default).fingerprint
        assert fingerprint != registry.build(name, changed).fingerprint
    assert (
        registry.build("yamnet", EncodersConfig(audio_max_windows=3)).fingerprint
        != registry.build("yamnet", default).fingerprint
    )
    points = registry.build("points", default).fingerprint
    for changed in (EncodersConfig(resolution=224), EncodersConfig(voxel=0.05)):
        assert registry.build("points", changed).fingerprint != points
    assert not (tmp_path / "home").exists()


def test_settings_that_do_not_fit_the_encoder():
    with pytest.raises(ConfigError, match=r"model\.encoders does not fit .*resolution 100"):
        registry.build("dinov2-small", EncodersConfig(resolution=100))


def test_widths_of_the_built_ins():
    widths = {m.name: registry.width_for(m, EncodersConfig()) for m in BUILT_INS}
    assert widths.pop("audio") == 1024
    assert set(widths.values()) == {384}
    paper = EncodersConfig(vision="eva-vit-g", audio="beats-iter3", point="points-3dllm")
    widths = {m.name: registry.width_for(m, paper) for m in BUILT_INS}
    assert widths.pop("audio") == 768
    assert set(widths.values()) == {1408}


def test_the_configuration_chooses_the_encoder():
    encoder = registry.encoder_for(get("point"), EncodersConfig(point="points-3dllm"))
    assert encoder.width == 1408


def test_an_encoder_of_another_kind():
    with pytest.raises(ConfigError, match=r"model\.encoders\.audio is 'points', .* kind 'point'"):
        registry.width_for(get("audio"), EncodersConfig(audio="points"))


class ImuEncoder:
    name, width, fingerprint = "imu", 6, "imu/1"


def test_a_third_partys_encoder():
    assert registry.width_for(sense(ImuEncoder), EncodersConfig()) == 6
    assert isinstance(registry.encoder_for(sense(ImuEncoder), EncodersConfig()), ImuEncoder)


def test_a_third_partys_encoder_by_reference(monkeypatch):
    module = ModuleType("sensors")
    module.ImuEncoder = ImuEncoder
    monkeypatch.setitem(sys.modules, "sensors", module)
    assert registry.width_for(sense("sensors:ImuEncoder"), EncodersConfig()) == 6
    built = registry.encoder_for(sense("sensors:ImuEncoder"), EncodersConfig())
    assert isinstance(built, ImuEncoder)


@pytest.mark.parametrize("width", [None, "6", 0, -1, property(lambda self: 6)])
def test_a_third_partys_encoder_must_say_its_width(width):
    encoder = type("Encoder", (), {} if width is None else {"width": width})
    with pytest.raises(ConfigError, match=r"sense 'imu': its encoder needs .* 'width'"):
        registry.width_for(sense(encoder), EncodersConfig())


def test_a_kind_that_is_none():
    with pytest.raises(ConfigError, match="'visoin' is neither one of the kinds vision, audio"):
        registry.encoder_for(sense("visoin"), EncodersConfig())


def test_what_an_encoder_is_called_without_its_weights():
    config = EncodersConfig()
    name, fingerprint = registry.identity(get("video"), config)
    assert (name, "112px" in fingerprint) == ("dinov2-small", True)
    paper = EncodersConfig(audio="beats-iter3")
    assert registry.identity(get("audio"), paper) == ("beats-iter3", None)

    class Own:
        name, width, fingerprint = "statistics", 3, "statistics-1"

        def __init__(self):
            raise RuntimeError("no sensor")

    assert registry.identity(sense(Own), config) == ("statistics", "statistics-1")
    Own.fingerprint = property(lambda self: "later")
    with pytest.raises(ConfigError, match=r"'imu': its encoder does not say .*no sensor"):
        registry.identity(sense(Own), config)
