"""Which published figure a run's config is the setting of: one that differs in a single field has none.

CIFAR-10-LT by the supervised recipe of Yang & Xu, with and without rotation prediction before it. Their program keeps
the best epoch on test; a run's figure is that of its last one.

References:
  Yang & Xu, "Rethinking the Value of Labels for Improving Class-Imbalanced Learning" (2020), top-1 errors of ResNet-32.
"""

import functools
import json
from collections.abc import Mapping
from typing import Any

from lt_noisy.config import recipes
from lt_noisy.config.identity import identity_texts
from lt_noisy.config.resolve import resolve, section
from lt_noisy.finished.report.reported import Reported
from lt_noisy.finished.run import FinishedStage
from lt_noisy.stages import STAGES

RATIOS = (100, 50, 10)
_BALANCED = {"sampler": "effective_number(beta=0.9999)"}
# Row, fields of the classifier, whether rotation prediction is before it, errors in percent by ratio, and whether they
# were read in the authors' own text: those of the others in a secondary source.
ROWS: tuple[tuple[str, Mapping[str, str], bool, tuple[float, ...], bool], ...] = (
    ("CE", {}, False, (29.64, 25.19, 13.61), False),
    ("CE + SSP", {}, True, (26.50, 21.80, 12.28), True),
    ("CE (balanced)", _BALANCED, False, (27.63, 21.95, 13.23), False),
    ("CE (balanced) + SSP", _BALANCED, True, (23.47, 19.60, 11.57), True),
    ("LDAM-DRW", recipes.LDAM_DRW, False, (22.97, 19.06, 11.84), False),
    ("LDAM-DRW + SSP", recipes.LDAM_DRW, True, (22.17, 17.87, 11.47), False),
)
_RUN = ("dataset", "longtail", "noise", "manifest", "validation", "model", "precision", "batch_norm")


def published(run: Reported, stage: FinishedStage) -> str:
    """The published accuracy, in percent, of the setting that this stage is, and whose it is; else the empty string."""
    if not run.run.config["model"].startswith("resnet32("):
        return ""
    return _references().get(_setting(run.run.config, stage.name), "")


@functools.cache
def _references() -> dict[str, str]:
    found = {}
    for _, fields, pretrained, errors, own in ROWS:
        for ratio, error in zip(RATIOS, errors, strict=True):
            whose = "Yang & Xu 2020" + ("" if own else ", from a secondary source")
            found[_setting(reference(fields, pretrained, ratio), "finetune")] = f"{100 - error:.2f} ({whose})"
    return found


def reference(fields: Mapping[str, str], pretrained: bool, ratio: int) -> dict[str, Any]:
    """The config of a published row, as `run.json` has a config; its classifier is `finetune`."""
    config = recipes.cifar10_lt()
    config.longtail = f"exponential(ratio={ratio}, subset=conventional)"
    config.model, config.precision = "resnet32(width=16)", "float32"
    config.finetune = section("supervised", **{**recipes.yang_xu(), **fields})
    if pretrained:
        config.pretrain = section("self_supervised", objective="rotation(init=kaiming)", **recipes.yang_xu())
        config.finetune.init = "pretrain"
    config.stages = ("pretrain", "finetune") if pretrained else ("finetune",)
    resolved = resolve(config)
    return {**resolved.texts, **{stage.name: stage.texts for stage in resolved.stages}}


def _setting(config: Mapping[str, Any], name: str) -> str:
    """All that makes a stage what it is but its seed, with the stage that it starts from in the place of its name."""

    def own(name: str) -> dict[str, Any]:
        kind = STAGES[config[name]["kind"]]
        texts = identity_texts(config[name], kind.section)
        named = {field for field in kind.inputs if texts.get(field) in config["stages"]}
        return {field: own(text) if field in named else text for field, text in texts.items()}

    return json.dumps({**{field: config[field] for field in _RUN}, "stage": own(name)}, sort_keys=True)
