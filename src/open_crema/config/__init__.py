"""What a run is: the one schema (`schema`), and its YAML files and overrides (`files`)."""

from open_crema.config.files import from_dict, load, override, to_dict, to_yaml
from open_crema.config.schema import (
    AlignConfig,
    AlignmentStageConfig,
    Config,
    DataConfig,
    EncodersConfig,
    EvalConfig,
    ExitConfig,
    FusionConfig,
    LimitsConfig,
    LoraConfig,
    ModelConfig,
    PromptConfig,
    QFormerConfig,
    SenseDropoutConfig,
    TrainConfig,
)

__all__ = [
    "AlignConfig",
    "AlignmentStageConfig",
    "Config",
    "DataConfig",
    "EncodersConfig",
    "EvalConfig",
    "ExitConfig",
    "FusionConfig",
    "LimitsConfig",
    "LoraConfig",
    "ModelConfig",
    "PromptConfig",
    "QFormerConfig",
    "SenseDropoutConfig",
    "TrainConfig",
    "from_dict",
    "load",
    "override",
    "to_dict",
    "to_yaml",
]
