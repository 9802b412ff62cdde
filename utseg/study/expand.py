"""From a study file and the datasets it names to its runs: training sets × folds × plans × networks × variants × seeds.

Everything that can be wrong before a pixel is read is found here. What a run costs, and whether it is known, is not asked.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from utseg.case import Case, Dataset
from utseg.errors import InputError, UsageError, listing
from utseg.extensions import names
from utseg.home import plan_folder_name, plan_name, split_plan_name
from utseg.label_map import structures
from utseg.labels import match_labels
from utseg.planning.plan import Plan
from utseg.settings import setting_keys, unknown_key
from utseg.study.definition import Definition, Variant
from utseg.study.record import Subjects
from utseg.study.subjects import (
    TrainingSet,
    check_disjoint,
    held_out_cases,
    labelled,
    training_sets,
)

SEPARATOR = " · "
NETWORK_PREFIX = "network."
AUGMENTATION_PREFIX = "augmentation."


@dataclass(frozen=True)
class PlannedRun:
    """One run, as the study wants it. `plan`: as auto or auto_2.5d. `settings` are the study's with the variant's on top.

    `testing`: labelled cases by dataset.
    """

    name: str
    network: str
    plan: str
    variant: str
    part: str
    seed: int
    settings: Mapping[str, Any]
    trained_on: TrainingSet
    testing: Mapping[str, tuple[Case, ...]]

    @property
    def planner(self) -> str:
        """The planner of its plan."""
        return split_plan_name(self.plan)[0]

    @property
    def subjects(self) -> Subjects:
        """Who trains, validates and is tested."""
        return Subjects(
            training=self.trained_on.training,
            validation=self.trained_on.validation,
            testing={
                name: tuple(sorted({case.subject for case in cases})) for name, cases in self.testing.items()
            },
        )


@dataclass(frozen=True)
class StudyPlan:
    """A study with its datasets opened: the first one trains. `remarks` are for the user to read."""

    definition: Definition
    datasets: Mapping[str, Dataset]
    trained: str
    by: str
    runs: tuple[PlannedRun, ...]
    remarks: tuple[str, ...] = field(default=())

    @property
    def dataset(self) -> Dataset:
        """What is trained on."""
        return self.datasets[self.trained]


def dataset_names(definition: Definition, default: str | None) -> tuple[str, ...]:
    """The datasets that a study names, what it trains on first. `default`: the command's -d."""
    trained = definition.train.dataset or default
    if trained is None:
        raise UsageError("no dataset is named: give -d NAME, or train.dataset in the study file")
    return tuple(dict.fromkeys((trained, *(definition.test.datasets or ()))))


def expand(
    definition: Definition,
    datasets: Mapping[str, Dataset],
    trained: str,
    where: str,
    same: Mapping[str, Mapping[str, str]] | None = None,
) -> StudyPlan:
    """All runs of a study. same: by dataset, the subjects who share a scan (`same_scans`); they are chosen and divided as one.

    Raises InputError, UsageError or SettingError in one line that names the key of the study that is wrong."""
    _check_names(definition, where)
    _check_compatible(datasets, trained, where)
    by = _by_column(definition, datasets, where)
    divided = {name: _as_one(each, (same or {}).get(name, {})) for name, each in datasets.items()}
    dataset = divided[trained]
    tested = definition.test.datasets or (trained,)
    if definition.train.leave_out and trained not in tested:
        raise InputError(
            f"{where}: test.datasets: {trained} has to be in it, for train.leave_out tests there"
        )
    held_out = held_out_cases(dataset, by, definition.test.share, where) if trained in tested else ()
    sets, remarks = training_sets(definition, dataset, {case.subject for case in held_out}, where)
    sides = []
    for each in sets:
        testing = {name: _tested_cases(each, held_out, divided[name], name == trained) for name in tested}
        if empty := next((name for name, cases in testing.items() if not cases), None):
            raise InputError(
                f"{where}: test.datasets: no case of {empty} has a label; there is nothing to test on"
            )
        sides.append(_with_own_names(each, testing, datasets, trained))
    variants = definition.variants or (Variant(),)
    runs = [
        PlannedRun(
            name=_run_name(definition, network, plan, variant, trained_on, seed),
            network=network,
            plan=plan,
            variant=variant.name,
            part=variant.part,
            seed=seed,
            settings={**definition.settings, **variant.settings},
            trained_on=trained_on,
            testing=testing,
        )
        for seed, (trained_on, testing), plan, variant in product(
            definition.seeds, sides, definition.plans, variants
        )
        for network in _networks(definition, variant)
    ]
    _check_run_names(runs, where)
    for run in runs:
        check_disjoint(run.subjects, trained, f"{where}: {run.name}")
    return StudyPlan(definition, datasets, trained, by, tuple(runs), tuple(remarks))


def _check_run_names(runs: Sequence[PlannedRun], where: str) -> None:
    """Raises InputError where two runs have one name: tables and reports would take the scores of one for both."""
    counts = Counter(run.name for run in runs)
    if name := next((run.name for run in runs if counts[run.name] > 1), None):
        raise InputError(
            f"{where}: {counts[name]} runs are called {name!r}, which could not be told apart: remove one of the training sets or variants "
            "that give the name"
        )


def _networks(definition: Definition, variant: Variant) -> tuple[str, ...]:
    return (variant.network,) if variant.network else definition.networks


def _as_one(dataset: Dataset, same: Mapping[str, str]) -> Dataset:
    cases = (replace(case, subject=same.get(case.subject, case.subject)) for case in dataset.cases)
    return replace(dataset, cases=tuple(cases))


def _with_own_names(
    each: TrainingSet, testing: Mapping[str, Sequence[Case]], datasets: Mapping[str, Dataset], trained: str
) -> tuple[TrainingSet, dict[str, tuple[Case, ...]]]:
    """What was divided by scans, with the names that the datasets give."""
    own = {name: {case.case_id: case for case in dataset.cases} for name, dataset in datasets.items()}

    def named(cases: Iterable[Case], name: str = trained) -> tuple[Case, ...]:
        return tuple(own[name][case.case_id] for case in cases)

    training, validation = (
        tuple(sorted({case.subject for case in named(each.of(side))})) for side in ("training", "validation")
    )
    return (
        replace(each, cases=named(each.cases), training=training, validation=validation),
        {name: named(cases, name) for name, cases in testing.items()},
    )


def _run_name(
    definition: Definition, network: str, plan: str, variant: Variant, each: TrainingSet, seed: int
) -> str:
    words = [network]
    words += [plan] if len(definition.plans) > 1 else []
    words += [f"{variant.part}: {variant.name}" if variant.part else variant.name] if variant.name else []
    words += [each.name]
    words += [f"fold {each.fold}"] if len(definition.train.folds) > 1 else []
    return SEPARATOR.join([*words, f"seed {seed}"])


def _tested_cases(
    each: TrainingSet, held_out: Sequence[Case], dataset: Dataset, is_trained: bool
) -> tuple[Case, ...]:
    if not is_trained:
        return labelled(dataset)
    left_out = [case for case in dataset.training_cases() if case.subject in each.left_out]
    return tuple({case.case_id: case for case in (*held_out, *left_out)}.values())


def _by_column(definition: Definition, datasets: Mapping[str, Dataset], where: str) -> str:
    """The column that tells seen from unseen; empty where the default is not there."""
    by = definition.test.by
    if any(case.groups.get(by) for dataset in datasets.values() for case in labelled(dataset)):
        return by
    if "by" in definition.test.model_fields_set and by != "vendor":
        columns = sorted({column for dataset in datasets.values() for column in dataset.group_columns})
        raise InputError(
            f"{where}: test.by: no labelled case has a {by!r}; columns there are: {', '.join(columns) or 'none'}"
        )
    return ""


def _check_compatible(datasets: Mapping[str, Dataset], trained: str, where: str) -> None:
    """Raises InputError where a test dataset has other label names, or another number of channels, than what is trained on."""
    first = datasets[trained]
    wanted = set(structures(first.labels))
    for name, dataset in datasets.items():
        found = set(structures(dataset.labels))
        if found != wanted:
            raise InputError(
                f"{where}: test.datasets: {name} has the labels {', '.join(sorted(found))}, {trained} has {', '.join(sorted(wanted))}; "
                "the names must be the same (values may differ)"
            )
        match_labels(first.labels, dataset.labels, we=trained, they=name)
        if len(dataset.channel_names) != len(first.channel_names):
            raise InputError(
                f"{where}: test.datasets: {name} has {len(dataset.channel_names)} channels, {trained} has {len(first.channel_names)}"
            )


def _check_names(definition: Definition, where: str) -> None:
    """Raises UsageError for networks and planners that do not exist, SettingError for keys that a network does not have."""
    from utseg.networks import network_settings

    for number, name in enumerate(definition.networks):
        _trained_network(name, f"{where}: networks.{number}")
    for number, name in enumerate(definition.plans):
        if (planner := split_plan_name(name)[0]) not in (known := names("planners")):
            raise UsageError(
                f"{where}: plans.{number}: no planner is called {planner!r}; there are: {listing(known, 20)} (each run is planned from its "
                "own subjects alone: no plan of --like)"
            )
        # Else two names of one plan would be trained, and compared, as two.
        if (one := plan_name(plan_folder_name(*split_plan_name(name)))) != name:
            raise UsageError(f"{where}: plans.{number}: {name!r} is called {one!r}")
    tried = [(f"{where}: settings", network, definition.settings) for network in definition.networks]
    for number, variant in enumerate(definition.variants, start=1):
        which = f"{where}: variants, number {number}"
        if variant.network:
            _trained_network(variant.network, f"{which}: network")
        settings = {**definition.settings, **variant.settings}
        tried += [(f"{which}: settings", network, settings) for network in _networks(definition, variant)]
    for which, network, settings in tried:
        known = [NETWORK_PREFIX + key for key in network_settings(_trained_network(network, which))]
        known += [key for key in setting_keys(Plan) if key.startswith(AUGMENTATION_PREFIX)]
        for key in settings:
            if key.startswith((NETWORK_PREFIX, AUGMENTATION_PREFIX)) and key not in known:
                group = key.partition(".")[0]
                alike = [name for name in known if name.startswith(f"{group}.")]
                raise unknown_key(key, alike, f"{which} for {network}")


def _trained_network(model: str, where: str) -> str:
    """The network of a model, which is called as that, or as a recipe that has one. Raises UsageError."""
    from utseg.training.recipe import find_recipe

    known = names("networks")
    recipes = {name: find_recipe(name).network_name for name in names("trainers")}
    recipes = {name: network for name, network in recipes.items() if network in known}
    if model in known:
        return model
    if model not in recipes:
        raise UsageError(
            f"{where}: no network is called {model!r}; there are: {listing([*known, *recipes], 20)}"
        )
    return recipes[model]
