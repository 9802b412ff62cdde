"""What is lost where the vendor (or centre, …) was not trained on, and whether models differ in it.

Loss is what is better on the seen side: Dice seen − unseen, distances unseen − seen; positive is worse on the unseen. It is paired over
subjects that some runs of a model saw the vendor of and others did not. Vendors that no run saw have no such pairs: there it is the
difference to the subjects of seen vendors, unpaired, and harder scans look like a loss.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from utseg.evaluate.metrics import METRIC
from utseg.evaluate.tables import Table, interval, number, p_text
from utseg.report.study.compare import (
    Difference,
    corrected,
    difference_text,
    mean_text,
    means_text,
    of_pair,
    paired,
    unpaired,
)
from utseg.study.findings.data import Side, StudyData, comparable
from utseg.study.record import MEAN_LABEL

LOSES, GAINS = "loses", "gains"
ON_UNSEEN, LOSS, ON_ALL = "unseen", "loss", "all"
MOST_COMPARED = 16
MOST_CLAUSES = 3
RANKED = " of ranks, in which a structure that is missed or extra is worse than any value"
HOLM_NOTE = "p < 0.05 after Holm's correction over all rows of the table is marked †; else it is a tie."


@dataclass(frozen=True)
class Gap:
    """The loss of a model. `never`: on groups that no run of it saw, unpaired; else paired. `seen`, `unseen`: what is compared."""

    model: str
    never: bool
    seen: Side
    unseen: Side
    loss: Difference


@dataclass(frozen=True)
class Pair:
    """Two models. `what`: their scores on unseen groups, the loss of both, or their scores on all cases. a − b; more is better for a."""

    a: str
    b: str
    what: str
    difference: Difference


def gaps(data: StudyData, metric: str = "dice", label: str = MEAN_LABEL) -> list[Gap]:
    """The losses of all models, p not corrected yet. None of models that saw all groups, or none."""
    found = []
    for model in data.models:
        runs = data.runs_of(model)
        seen, unseen = data.side(runs, saw=True), data.side(runs, saw=False)
        both = seen.any(axis=0) & unseen.any(axis=0)
        never = unseen.any(axis=0) & ~_groups_seen(data, model)
        sign = METRIC[metric].better
        if both.any():
            loss = paired(data, seen & both, unseen & both, metric, label, sign=sign)
            found.append(Gap(model, False, seen & both, unseen & both, loss))
        if seen.any() and (unseen & never).any():
            loss = unpaired(data, seen, unseen & never, metric, label, sign=sign)
            found.append(Gap(model, True, seen, unseen & never, loss))
    return found


def _groups_seen(data: StudyData, model: str) -> np.ndarray:
    """(C,): whether any run of the model saw the case's group, whether or not it was tested on this case."""
    saw = np.flatnonzero(data.side(data.runs_of(model), saw=True).any(axis=0))
    groups = {data.cases[place].tested_on for place in saw}
    return np.array([case.tested_on in groups for case in data.cases], dtype=bool)


def with_correction(found: Sequence[Gap]) -> list[Gap]:
    """p of all these losses after Holm."""
    losses = corrected([gap.loss for gap in found])
    return [replace(gap, loss=loss) for gap, loss in zip(found, losses, strict=True)]


def gap_table(data: StudyData, metric: str = "dice") -> tuple[Table | None, list[Gap]]:
    """The losses of all models by label, and those of the mean over labels with their p after Holm over the whole table."""
    labels = [MEAN_LABEL, *data.labels] if len(data.labels) > 1 else [MEAN_LABEL]
    found = with_correction([gap for label in labels for gap in gaps(data, metric, label)])
    if not found:
        return None, []
    order = {model: place for place, model in enumerate(data.models)}
    found.sort(key=lambda gap: (order[gap.model], gap.never, labels.index(gap.loss.label)))
    rows = [_gap_row(data, gap) for gap in found]
    by, head = data.record.by, METRIC[metric].title
    direction = "seen − unseen" if METRIC[metric].better > 0 else "unseen − seen"
    note = (
        f"{head}. Means over the subjects compared; loss: mean over subjects of {direction}; bootstrap 95 % intervals. Paired: of each "
        f"subject the mean over the runs that saw its {by} against the mean over those that did not; two-sided permutation test"
        f"{RANKED if METRIC[metric].ranked else ''}; a run on several {plural(by)} had more subjects, too. Unpaired: subjects of "
        f"{plural(by)} that no run saw against those of seen ones (subjects: of both sides); there other "
        f"scans are compared, not only other training. {HOLM_NOTE} Empties: missed/extra/neither, over all runs; a score that is "
        "undefined in one of the runs compared is in no mean."
    )
    columns = ["model", "of", "label", "subjects", "seen", "unseen", "loss", "p", "p (Holm)", "verdict"]
    title = f"Loss of {METRIC[metric].name} on unseen {plural(by)}"
    return Table(title, [*columns, "empties"], rows, note), found


def _gap_row(data: StudyData, gap: Gap) -> list[str]:
    metric, label, loss = gap.loss.metric, gap.loss.label, gap.loss
    by = plural(data.record.by)
    return [
        gap.model,
        f"{by} never seen (unpaired)" if gap.never else f"{by} seen and not (paired)",
        label,
        "/".join(map(str, loss.subjects)),
        mean_text(data, gap.seen, metric, label, beside=[gap.unseen] if loss.paired else ())[0],
        mean_text(data, gap.unseen, metric, label, beside=[gap.seen] if loss.paired else ())[0],
        difference_text(loss),
        p_text(loss.p),
        p_text(loss.p_holm),
        loss.verdict(LOSES, GAINS),
        "/".join(map(str, data.empties(gap.seen | gap.unseen, label))),
    ]


def by_value_table(data: StudyData, metric: str = "dice") -> Table | None:
    """The paired loss for each value of the column, a column a model. None with fewer than two values that are seen and unseen."""
    values: list[str] = []
    losses: list[Difference] = []
    for tested_on in data.tested_on:
        of_value = [_loss_on(data, model, tested_on, metric) for model in data.models]
        if any(one.difference is not None for one in of_value):
            values.append(tested_on)
            losses += of_value
    if len(values) < 2:
        return None
    found = iter(corrected(losses))
    rows = []
    for value in values:
        own = [next(found) for _ in data.models]
        subjects = dict.fromkeys(str(one.subjects[0]) for one in own)
        rows.append([plain(value), "/".join(subjects), *(difference_text(one) for one in own)])
    by = data.record.by
    note = (
        f"Paired over subjects, mean over labels: what is lost by runs that did not see the {by}. {HOLM_NOTE}"
    )
    head = METRIC[metric].name
    return Table(f"Loss of {head} by {data.record.by}", ["tested on", "subjects", *data.models], rows, note)


def _loss_on(data: StudyData, model: str, tested_on: str, metric: str) -> Difference:
    runs = data.runs_of(model)
    seen, unseen = (data.side(runs, saw=saw, tested_on=tested_on) for saw in (True, False))
    return paired(data, seen, unseen, metric, sign=METRIC[metric].better)


def compared(data: StudyData, metric: str = "dice") -> tuple[Table | None, list[Pair]]:
    """Each two models on unseen groups and in their loss; on all cases where there are no unseen ones.

    Of each pair only runs that both have with the same training set, seed and fold. None with one model, with very many, or where models
    are variants of a part, which are compared there.
    """
    in_parts = any(run.part for run in data.record.runs)
    if in_parts or not 2 <= len(data.models) <= MOST_COMPARED:
        return None, []
    what = [ON_UNSEEN, LOSS] if (data.saw == 0).any() else [ON_ALL]
    pairs = [
        Pair(a, b, one, _difference(data, a, b, one, metric))
        for one in what
        for a, b in combinations(data.models, 2)
    ]
    pairs = [pair for pair in pairs if pair.difference.difference is not None]
    if not pairs:
        return None, []
    pairs = [
        replace(pair, difference=difference)
        for pair, difference in zip(pairs, corrected([pair.difference for pair in pairs]), strict=True)
    ]
    by = data.record.by
    names = {
        ON_UNSEEN: f"score on unseen {plural(by)}",
        LOSS: "loss, seen to unseen",
        ON_ALL: "score on all test cases",
    }
    rows = [
        [
            names[pair.what],
            pair.a,
            pair.b,
            str(pair.difference.subjects[0]),
            *means_text(pair.difference),
            difference_text(pair.difference),
            p_text(pair.difference.p),
            p_text(pair.difference.p_holm),
            pair_verdict(pair),
        ]
        for pair in pairs
    ]
    head = METRIC[metric].title
    note = (
        f"{head}, mean over labels, paired over subjects; of each pair only runs with the same training set, seed and fold. "
        f"Means are of these subjects and runs. Two-sided permutation test{RANKED if METRIC[metric].ranked else ''}. {HOLM_NOTE}"
    )
    columns = ["what", "A", "B", "subjects", "mean A", "mean B", "A − B", "p", "p (Holm)", "verdict"]
    return Table(f"Models compared: {METRIC[metric].name}", columns, rows, note), pairs


def pair_verdict(pair: Pair) -> str:
    """Who is better, or loses less; a tie; or that nothing can be told."""
    word = "loses less" if pair.what == LOSS else "better"
    more, less = f"{pair.a} {word}", f"{pair.b} {word}"
    more_is_better = pair.what != LOSS and METRIC[pair.difference.metric].better > 0
    return pair.difference.verdict(*((more, less) if more_is_better else (less, more)))


def _difference(data: StudyData, a: str, b: str, what: str, metric: str) -> Difference:
    first, second = comparable(data, data.runs_of(a), data.runs_of(b))
    if what == ON_ALL:
        return paired(data, first, second, metric)
    unseen = [side & (data.saw == 0) for side in (first, second)]
    if what == ON_UNSEEN:
        return paired(data, unseen[0], unseen[1], metric)
    seen = [side & (data.saw == 1) for side in (first, second)]
    sides = [seen[0], unseen[0], seen[1], unseen[1]]
    both = [data.averaged(sides, metric, tested=counting) for counting in (False, True)]
    losses = [METRIC[metric].better * (found.values[[0, 2]] - found.values[[1, 3]]) for found in both]
    return of_pair(losses[0], losses[1], both[0].subjects, metric, MEAN_LABEL)


def plural(by: str) -> str:
    """More than one of a column's values, in words."""
    return f"{by[:-1]}ies" if by.endswith("y") else f"{by}s"


def plain(selection: str) -> str:
    """A selection in plain words: "vendor=A" → "vendor A", "vendor!=C" → "all but vendor C"."""
    column, equals, value = selection.partition("=")
    if column.endswith("!"):
        return f"all but {column[:-1]} {value}"
    return f"{column} {value}" if equals else selection


def loss_sentences(data: StudyData, found: Sequence[Gap]) -> list[str]:
    """What each model loses, from the losses of the mean over labels: least first; of many only the least and the most."""
    by = plural(data.record.by)
    starts = {
        False: f"On unseen {by}",
        True: f"On {by} that no run saw, whose scans may be harder in themselves",
    }
    lines = []
    for never, start in starts.items():
        own = [gap for gap in found if gap.never is never and gap.loss.label == MEAN_LABEL]
        own = [gap for gap in own if gap.loss.difference is not None]
        own.sort(key=lambda gap: gap.loss.difference or 0.0)
        clauses = [_loss_clause(gap) for gap in own]
        if len(clauses) > MOST_CLAUSES:
            apart = sum(gap.loss.significant for gap in own)
            ends = f"{clauses[0]}, the least of {len(own)} models, and {clauses[-1]}, the most"
            lines.append(f"{start}, {ends}; {apart} of them beyond chance.")
        elif clauses:
            lines.append(f"{start}, {'; '.join(clauses)}.")
    return lines


def _loss_clause(gap: Gap) -> str:
    loss = gap.loss
    assert loss.difference is not None
    size, evidence = f"{number(abs(loss.difference), 3)} Dice", _evidence(loss)
    verb = LOSES if loss.difference >= 0 else GAINS
    if loss.significant:
        return f"{gap.model} {verb} {size} ({evidence})"
    if not loss.could_be:
        return f"{gap.model} {verb} {size}, on too few subjects to tell ({evidence})"
    return f"{gap.model} {verb} nothing beyond chance: {size} ({evidence})"


def _evidence(one: Difference) -> str:
    """Interval, subjects, kind of test and p, for a parenthesis."""
    words = []
    if one.interval95:
        words.append(f"95 % {interval(one.interval95, 3)}".replace("-", "−"))
    sizes = " and ".join(map(str, one.subjects))
    words.append(f"{sizes} subjects, {'paired' if one.paired else 'unpaired'}")
    if one.p_holm is not None:
        p = p_text(one.p_holm)
        words.append(f"p {p.replace('<', '< ') if '<' in p else f'= {p}'}")
    return "; ".join(words)


def pair_sentences(data: StudyData, pairs: Sequence[Pair]) -> list[str]:
    """Which model is ahead where it was not trained on, and which loses least, beyond chance of whom; a tie is called a tie."""
    places = {
        ON_UNSEEN: f"On unseen {plural(data.record.by)}",
        LOSS: "From seen to unseen",
        ON_ALL: "On all test cases",
    }
    lines = []
    for what, where in places.items():
        own = [pair for pair in pairs if pair.what == what and pair.difference.difference is not None]
        if len(own) == 1:
            lines.append(_of_two(own[0], where))
        elif own:
            lines.append(_of_many(own, where))
    return lines


def _of_two(pair: Pair, where: str) -> str:
    one = pair.difference
    assert one.difference is not None
    size, evidence = f"{number(abs(one.difference), 3)} Dice", _evidence(one)
    if not one.significant:
        few = "" if one.could_be else ", with too few subjects to tell"
        what = "losses" if pair.what == LOSS else "scores"
        return f"{where}, the {what} of {pair.a} and {pair.b} differ by {size} ({evidence}): a tie{few}."
    ahead, behind = (pair.a, pair.b) if (one.difference > 0) is (pair.what != LOSS) else (pair.b, pair.a)
    what = f"loses {size} less than {behind}" if pair.what == LOSS else f"is {size} ahead of {behind}"
    return f"{where}, {ahead} {what} ({evidence})."


def _of_many(pairs: Sequence[Pair], where: str) -> str:
    """The model that is ahead of most by the sign of the difference, and whom beyond chance."""
    sign = -1 if pairs[0].what == LOSS else 1
    wins = Counter(pair.a if sign * (pair.difference.difference or 0.0) > 0 else pair.b for pair in pairs)
    best = wins.most_common(1)[0][0]
    own = [pair for pair in pairs if best in (pair.a, pair.b)]
    others = {pair.b if pair.a == best else pair.a: pair.difference for pair in own}
    apart = [
        f"{name} by {number(abs(one.difference or 0.0), 3)}"
        for name, one in others.items()
        if one.significant
    ]
    ties = [name for name, one in others.items() if not one.significant]
    what = "loses least" if pairs[0].what == LOSS else "has the highest Dice"
    text = f"{where}, {best} {what}"
    text += f", beyond chance {'less than' if sign < 0 else 'ahead of'} {', '.join(apart)}" if apart else ""
    text += f"; a tie with {', '.join(ties)}" if ties else ""
    few = "" if any(one.could_be for one in others.values()) else " (too few subjects to tell)"
    return f"{text}{few}."
