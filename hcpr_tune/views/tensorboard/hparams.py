"""Data for TensorBoard's HParams tab: the searched dimensions with their domains, and each trial's values and end."""

from __future__ import annotations

from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

from hcpr_tune.common.settings import dotted_names, get_dotted, to_plain
from hcpr_tune.common.text import clean
from hcpr_tune.search.record.history import Trial
from hcpr_tune.search.spec.dimensions import Choice, Dimension, Params, field_of
from hcpr_tune.search.spec.study import StudySpec
from hcpr_tune.training.recipe import Recipe, field_of_coefficient

BEST_ROBUST, BEST_CLEAN, BEST_EPOCH = (
    "best/robust_accuracy_validation",
    "best/clean_accuracy_validation",
    "best/epoch",
)
METRICS = {
    BEST_ROBUST: "robust accuracy",
    BEST_CLEAN: "clean accuracy",
    BEST_EPOCH: "epoch of the best rung",
}
"""The curves whose latest values are shown next to a trial's parameters, and the titles of their columns."""
ENDS = {
    "completed": api_pb2.STATUS_SUCCESS,
    "stopped": api_pb2.STATUS_SUCCESS,
    "killed": api_pb2.STATUS_SUCCESS,
    "diverged": api_pb2.STATUS_FAILURE,
    "failed": api_pb2.STATUS_FAILURE,
}
"""The status shown for a trial's final state; a trial that was stopped early counts as a success."""


def columns(study: StudySpec, params: Params) -> Params:
    """A trial's value for every dimension: the study's recipe's value if the dimension's condition does not hold."""
    plain = to_plain(study.recipe)
    values = {name: get_dotted(plain, field_of(name)) for name in study.space}
    return {name: value for name, value in (values | params).items() if value is not None}


def experiment(study: StudySpec) -> list[Any]:
    """The table's columns."""
    base = columns(study, {})
    infos = [_column(name, dimension, base) for name, dimension in study.space.items()]
    metrics = [
        api_pb2.MetricInfo(
            name=api_pb2.MetricName(tag=tag), display_name=words, dataset_type=api_pb2.DATASET_VALIDATION
        )
        for tag, words in METRICS.items()
    ]
    described = api_pb2.Experiment(
        description=clean(study.settings.description), hparam_infos=infos, metric_infos=metrics
    )
    return _value(metadata.EXPERIMENT_TAG, HParamsPluginData(experiment=described))


def _column(name: str, dimension: Dimension, base: Params) -> Any:
    """A dimension's column.

    Its domain includes the recipe's value, which trials without the dimension show: TensorBoard hides values outside.
    """
    field = dotted_names(Recipe).get(field_of(name), (None, field_of_coefficient()))[1]
    doc: str = field.metadata["doc"]
    info = api_pb2.HParamInfo(name=name, display_name=name, description=f"{doc} Searched: {dimension}.", differs=True)
    values: Any = list(dict.fromkeys([*dimension.ends(), *([base[name]] if name in base else [])]))
    info.type = next((kind for like, kind in KINDS.items() if isinstance(values[0], like)), api_pb2.DATA_TYPE_FLOAT64)
    if isinstance(dimension, Choice):
        info.domain_discrete.extend(values)
    else:
        info.domain_interval.min_value, info.domain_interval.max_value = min(values), max(values)
    return info


KINDS = {bool: api_pb2.DATA_TYPE_BOOL, str: api_pb2.DATA_TYPE_STRING}
"""All other types are numbers."""


def session_start(study: StudySpec, trial: Trial) -> list[Any]:
    """A trial's row."""
    start = SessionStartInfo(group_name=f"trial_{trial.number:04d}", start_time_secs=trial.began)
    for name, value in columns(study, trial.params).items():
        if isinstance(value, bool):
            start.hparams[name].bool_value = value
        elif isinstance(value, str):
            start.hparams[name].string_value = clean(value)
        else:
            start.hparams[name].number_value = value
    return _value(metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start))


def session_end(trial: Trial) -> list[Any]:
    """How a trial ended, for now: a stopped one may be promoted. Empty for one that will continue."""
    if trial.state not in ENDS:
        return []
    end = SessionEndInfo(status=ENDS[trial.state], end_time_secs=trial.last_heartbeat)
    return _value(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end))


def _value(tag: str, data: Any) -> list[Any]:
    return [Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(data), tensor=metadata.NULL_TENSOR)]
