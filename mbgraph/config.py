"""The configuration of a run: of defaults, a TOML file, flags or Python, checked, resolved and written down.

Every option is a field of a `Section`, and nowhere else: `FitConfig` has those of a run, a model's ``Options`` its own,
`TrainingOptions`, `EvaluationOptions` and each `Regularizer` theirs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from mbgraph.data.protocols import check_protocol
from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.machine import MOST_THREADS
from mbgraph.schema import InWords, Section, parse_assignments, read_toml

if TYPE_CHECKING:
    from mbgraph.evaluation.options import EvaluationOptions
    from mbgraph.models.base import Recommender
    from mbgraph.models.options import ModelOptions, TrainingOptions
    from mbgraph.regularizers.base import Regularizer

__all__ = ["SECTIONS", "FitConfig", "configured", "read_config"]

SECTIONS = ("options", "training", "evaluation")
"""Tables of a configuration that hold options by name."""

Validation = Literal["auto", "given", "holdout", "none", "merge"]
_WRITTEN = ("format", "mbgraph")  # stand in a run's config.toml and are checked by the run, not set by a user


def _table(name: str) -> Any:
    return InWords("a table of options", f"write it as [{name}], one option = value per line")


class FitConfig(Section):
    """Everything that decides a run's numbers, and where it runs.

    Holds what was given, and checks it when it is made: the options by those of the chosen model. `resolve` fills in
    everything else.

    Examples
    --------
    >>> config = FitConfig(model="lightgcn", training={"epochs": 5}, options={"num_layers": 2})
    >>> config.training_options.epochs, config.training_options.batch_size, config.model_options.num_layers
    (5, 2048, 2)
    """

    called = "the configuration"

    dataset: Annotated[str, Field(min_length=1), InWords("the name or path of a dataset")] = "demo"
    """Name in the catalog or path."""
    model: str = "rmbrec"
    """Model to train; see ``mbgraph models``."""
    variant: str | None = None
    """Preset of the model's options; its first by default."""
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 2026
    """Seed of initialisation and sampling."""
    protocol: str = "paper"
    """Split of the target pairs: ``paper`` (as published or imported), ``loo``, ``random``, ``ratio:TRAIN,VALID,TEST``
    or ``temporal:CUT``. Random orders have a seed of their own, 0, so that the seeds of a study share one split."""
    validation: Validation = "auto"
    """What selects the epoch. ``given``: the dataset's own pairs; ``holdout``: one random train target pair per user;
    ``auto``: given if there are any, else holdout; ``none``: nothing, exactly ``epochs`` epochs; ``merge``: the same
    after moving the dataset's validation pairs into train."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; ``auto`` takes CUDA where there is one."""
    threads: Annotated[int, Field(ge=0, le=MOST_THREADS)] = 0
    """CPU threads; 0 leaves torch's choice."""
    options: Annotated[Mapping[str, Any], _table("options")] = Field(default_factory=dict)
    """Options of the model."""
    training: Annotated[Mapping[str, Any], _table("training")] = Field(default_factory=dict)
    """Training options, see `TrainingOptions`."""
    evaluation: Annotated[Mapping[str, Any], _table("evaluation")] = Field(default_factory=dict)
    """Evaluation options, see `EvaluationOptions`."""
    regularizers: Annotated[
        tuple[Mapping[str, Any], ...],
        InWords("a list of tables", 'write [[regularizers]] with name = "rex" and its options below'),
    ] = ()
    """Changes to the model's regularizers: each entry has a ``name`` and options; ``weight = 0`` leaves one out."""

    @model_validator(mode="before")
    @classmethod
    def _of_sections(cls, values: Any) -> Any:
        """Take sections and regularizers as the values that were given to them."""
        if not isinstance(values, Mapping):
            return values
        made = dict(values)
        for name in SECTIONS:
            if isinstance(made.get(name), Section):
                made[name] = made[name].given()
        entries = made.get("regularizers")
        if isinstance(entries, list | tuple):
            made["regularizers"] = tuple(map(_entry, entries))
        return made

    @model_validator(mode="after")
    def _check(self) -> FitConfig:
        check_protocol(self.protocol)
        if self.variant is not None and not self.model_class.variants():
            raise UsageError(f"model {self.model!r} has no variants", "leave --variant out")
        if "variant" in self.options:
            raise UsageError("variant is no option of [options]", "write it above the sections, or as --variant")
        if not self.model_class.trainable:
            for given, what in ((self.training, "training options"), (self.regularizers, "regularizers")):
                if given:
                    raise UsageError(f"model {self.model!r} is not trained and reads no {what}", "leave them out")
        _ = self.model_options, self.training_options, self.evaluation_options, self.chosen_regularizers
        return self

    @property
    def model_class(self) -> type[Recommender]:
        """The class of the model."""
        from mbgraph.models import MODELS

        return MODELS.get(self.model)

    @property
    def model_options(self) -> ModelOptions:
        """All options of the model, the variant among them."""
        variant = {} if self.variant is None else {"variant": self.variant}
        return self.model_class.Options(**variant, **self.options)

    @property
    def training_options(self) -> TrainingOptions:
        """All training options: the model's, with those given."""
        return self.model_options.training().replace(**self.training)

    @property
    def evaluation_options(self) -> EvaluationOptions:
        """All evaluation options."""
        from mbgraph.evaluation.options import EvaluationOptions

        return EvaluationOptions(**self.evaluation)

    @property
    def chosen_regularizers(self) -> tuple[Regularizer, ...]:
        """The model's regularizers with the changes applied, those of weight 0 among them."""
        from mbgraph.regularizers.base import changed

        return changed(self.model_options.regularizers(), self.regularizers)

    def resolve(self, num_items: int | None = None) -> FitConfig:
        """Return a configuration with everything in it: it repeats the run even where defaults have changed since.

        Parameters
        ----------
        num_items : int, optional
            Size of the catalogue, to which cut-offs are cut.
        """
        from mbgraph.evaluation.metrics import usable_cutoffs

        options, evaluation = self.model_options, self.evaluation_options
        if num_items is not None:
            metric = evaluation.metric.partition("@")[0]
            evaluation = evaluation.replace(
                k=usable_cutoffs(evaluation.k, num_items),
                metric=f"{metric}@{min(evaluation.metric_cutoff, num_items)}",
            )
        changes: dict[str, Any] = {
            "variant": getattr(options, "variant", None),
            "options": {name: value for name, value in options.plain().items() if name != "variant"},
            "evaluation": evaluation.plain(),
        }
        if self.model_class.trainable:
            changes["training"] = self.training_options.plain()
            changes["regularizers"] = [{"name": each.name, **each.plain()} for each in self.chosen_regularizers]
        return self.replace(**changes)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FitConfig:
        """Make a configuration of plain values, such as those of a run's ``config.toml``."""
        return cls(**{str(key): value for key, value in values.items() if key not in _WRITTEN})


def read_config(path: str | os.PathLike[str]) -> FitConfig:
    """Read a TOML configuration, for example a run's ``config.toml``.

    Raises
    ------
    DataError
        If the file cannot be read or is no TOML.
    UsageError
        If it holds something wrong; the message names the file.
    """
    values = read_toml(path)
    try:
        return FitConfig.from_dict(values)
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", error.remedy) from error


def configured(
    config: FitConfig,
    flags: Mapping[str, Any] | None = None,
    settings: Iterable[str] = (),
    regularizers: Sequence[Mapping[str, Any]] = (),
) -> FitConfig:
    """Return a configuration with changes applied, which a command line has as text.

    Parameters
    ----------
    config : FitConfig
    flags : mapping of str to str, optional
        Fields of the configuration, of `TrainingOptions` or of `EvaluationOptions` by name; None stands for not given.
    settings : iterable of str
        ``key=value`` of any field, the model's options among them. Where two sections know a key, ``section.key``.
    regularizers : sequence of mapping
        Further entries, see `FitConfig`.

    Raises
    ------
    UnknownNameError, UsageError
        For a name that no section knows, one that is given twice, or a wrong value.
    """
    given = {(("", name) if name in _top() else _place(name, None)): text for name, text in (flags or {}).items()}
    given = {place: text for place, text in given.items() if text is not None}
    texts = parse_assignments(settings)
    model = str(texts.get("model", given.get(("", "model"), config.model)))
    for key, text in texts.items():
        place = _place(key, model)
        if place in given:
            flag = place[1].replace("_", "-")
            raise UsageError(f"{key!r} is given twice, as --{flag} and in --set", "leave one of them out")
        given[place] = text
    values: dict[str, Any] = {**config.given(), "model": model}
    for (section, name), text in given.items():
        value = _section(section, model).value_of(name, text)
        if section:
            values[section] = {**values.get(section, {}), name: value}
        else:
            values[name] = value
    values["regularizers"] = (*config.regularizers, *regularizers)
    return FitConfig(**values)


def _entry(entry: Any) -> Any:
    """Return a regularizer entry with the values that its texts mean."""
    from mbgraph.regularizers.base import REGULARIZERS, Regularizer

    if isinstance(entry, Regularizer):
        if entry.schedule is not None:
            raise UsageError(
                f"the schedule of regularizer {entry.name!r} is a function, which no configuration can hold",
                "use warmup, or give the regularizer to mbgraph.Trainer",
            )
        return {"name": entry.name, **entry.given()}
    if not isinstance(entry, Mapping):
        return entry
    if not isinstance(entry.get("name"), str) or not entry["name"]:
        raise UsageError("a regularizer entry has no name", 'write [[regularizers]] with name = "rex"')
    kind = REGULARIZERS.get(entry["name"])
    return {name: value if name == "name" else kind.value_of(name, value) for name, value in entry.items()}


def _top() -> tuple[str, ...]:
    return tuple(name for name in FitConfig.names() if name not in (*SECTIONS, "regularizers"))


def _section(name: str, model: str) -> type[Section]:
    from mbgraph.evaluation.options import EvaluationOptions
    from mbgraph.models import MODELS
    from mbgraph.models.options import TrainingOptions

    kinds: dict[str, type[Section]] = {"training": TrainingOptions, "evaluation": EvaluationOptions}
    if name == "options":
        return MODELS.get(model).Options
    return kinds.get(name, FitConfig)


def _place(key: str, model: str | None) -> tuple[str, str]:
    """Return the section and the name of a key; without a model its options are not looked at."""
    known: dict[str, tuple[str, ...]] = {"": _top()}
    for section in SECTIONS:
        if section != "options" or model is not None:
            known[section] = tuple(name for name in _section(section, model or "").names() if name != "variant")
    section, _, name = key.rpartition(".")
    places = [place for place, names in known.items() if name in names and section in ("", place)]
    if not places:
        choices = [name for names in known.values() for name in names]
        raise UnknownNameError(f"configuration key of model {model!r}", key, choices)
    if len(places) > 1:
        written = " or ".join(f"{place}.{name}" for place in places if place)
        raise UsageError(f"{key!r} is known to several sections", f"write {written}")
    return places[0], name
