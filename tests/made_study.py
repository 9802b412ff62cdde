"""Study folders for tests of reports: scores with a known loss on unseen vendors and known differences, and a small one with images."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from made_scores import HOSTILE_SCRIPT, heart, pictured_cases, rename
from rawfiles import LABELS, make_nifti

from utseg.compute.pool import InlineExecutor
from utseg.evaluate import evaluate_cases
from utseg.evaluate.records import METRIC_KEYS, read_metrics, to_csv
from utseg.files import write_text
from utseg.study.record import (
    CASES_FILE,
    IMAGES_FILE,
    StudyDataset,
    StudyRecord,
    StudyRun,
    Subjects,
    cases_columns,
    write_study,
)

STRUCTURES = tuple(name for name, value in LABELS.items() if value)
PHASES = ("ED", "ES")


@dataclass
class MadeStudy:
    """A study to be made. `loss`: of Dice on unseen vendors, by network. `sets`: training sets by name, with the vendors in them."""

    networks: dict[str, float] = field(default_factory=lambda: {"UTNet": 0.05, "UNet": 0.05})
    ahead: dict[str, float] = field(default_factory=dict)
    sets: dict[str, str] = field(
        default_factory=lambda: {"vendor=A": "A", "vendor=B": "B", "vendor=A,B": "AB"}
    )
    vendors: str = "ABCD"
    per_vendor: int = 8
    noise: float = 0.01
    spread: float = 0.03
    seeds: tuple[int, ...] = (0,)
    seed_sd: float = 0.0
    dataset: str = "MnM"
    by: str = "vendor"
    harder: dict[str, float] = field(default_factory=dict)
    variants: tuple[dict, ...] = ({},)
    sizes: dict[str, int] = field(default_factory=dict)
    failed: tuple[str, ...] = ()
    settings: dict = field(default_factory=dict)
    neither: frozenset = frozenset()

    def subjects(self) -> dict[str, str]:
        """The test subjects with their vendors."""
        return {
            f"{vendor}{number:02d}": vendor for vendor in self.vendors for number in range(self.per_vendor)
        }


def write_study_folder(folder: Path, made: MadeStudy, *, images: bool = False) -> Path:
    """`study.json`, `cases.csv` and, on wish, `images.csv` of a study whose scores are drawn as described."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(5)
    subjects = made.subjects()
    ease = {subject: rng.normal(0, made.spread) for subject in subjects}
    runs, rows = [], []
    for seed in made.seeds:
        for trained_on, vendors in made.sets.items():
            for variant in made.variants:
                for network in [variant["network"]] if variant.get("network") else made.networks:
                    run = _run(folder, made, network, trained_on, vendors, variant, seed)
                    if run.id in {known.id for known in runs}:
                        runs.append(run)
                        continue
                    luck = rng.normal(0, made.seed_sd)
                    runs.append(run)
                    if run.state == "finished":
                        rows += _rows(made, run, subjects, ease, luck + variant.get("gain", 0.0), rng)
    datasets = {
        made.dataset: StudyDataset(
            cases=2 * len(subjects), subjects=len(subjects), role=("train", "test"), folder="/raw/MnM"
        )
    }
    definition = {
        "name": "vendors",
        "networks": list(made.networks),
        "settings": made.settings,
        "variants": [],
    }
    record = StudyRecord(
        name="vendors",
        question="What is lost on scanners of another vendor?",
        by=made.by,
        definition=definition,
        datasets=datasets,
        labels={name: LABELS[name] for name in STRUCTURES},
        runs=tuple(runs),
    )
    write_study(record, folder)
    write_text(folder / CASES_FILE, to_csv(rows, cases_columns(("phase", "vendor"))))
    if images:
        write_images_of(folder, made, subjects, rng)
    return folder


def _run(folder, made, network, trained_on, vendors, variant, seed) -> StudyRun:
    words = [network, *([f"{variant['part']}: {variant['name']}"] if variant.get("name") else []), trained_on]
    name = " · ".join([*words, f"seed {seed}"])
    settings = {**made.settings, **variant.get("settings", {})}
    identity = " ".join(map(str, (network, trained_on, sorted(settings.items()), seed)))
    count = made.sizes.get(trained_on, 10 * max(len(vendors), 1))
    training = tuple(f"{vendors or 'A'}{number:03d}t" for number in range(count))
    failed = name in made.failed
    size = 1 + list(made.networks).index(network) if network in made.networks else 1
    return StudyRun(
        run=name,
        id=f"{abs(hash(identity)):x}"[:12],
        folder=str(folder / "runs" / name.replace("/", "_")),
        network=network,
        plan="auto",
        seed=seed,
        fold=0,
        dataset=made.dataset,
        trained_on=trained_on,
        variant=variant.get("name", ""),
        part=variant.get("part", ""),
        settings=settings,
        seen=tuple(vendors),
        subjects=Subjects(
            training=training, validation=("v1", "v2"), testing={made.dataset: tuple(made.subjects())}
        ),
        state="failed" if failed else "finished",
        error="the loss is not finite" if failed else None,
        parameters=int(variant.get("parameters", 2_000_000 * size)),
        gmac=None if failed else 3.5 * size,
        iterations=None if failed else 2500,
        training_seconds=None if failed else 300.0 * size,
        testing_seconds=None if failed else 40.0,
        peak_memory_gb=1.5,
    )


def _rows(made, run, subjects, ease, offset, rng) -> list[dict]:
    rows = []
    for subject, vendor in subjects.items():
        seen = vendor in run.seen
        for phase in PHASES:
            for label, level in zip(STRUCTURES, (0.9, 0.8, 0.85), strict=True):
                value = (
                    level
                    + ease[subject]
                    + offset
                    + made.ahead.get(run.network, 0.0)
                    - made.harder.get(vendor, 0.0)
                )
                value += rng.normal(0, made.noise) - (0 if seen else made.networks.get(run.network, 0.0))
                neither = (subject, phase, label) in made.neither
                value = math.nan if neither else min(value, 1.0)
                own = {
                    "run": run.run,
                    "network": run.network,
                    "plan": run.plan,
                    "variant": run.variant,
                    "part": run.part,
                }
                own |= {
                    "seed": run.seed,
                    "fold": run.fold,
                    "trained_on": run.trained_on,
                    "dataset": made.dataset,
                }
                own |= {"tested_on": f"vendor={vendor}" if made.by else "all"}
                own |= {"seen": ("seen" if seen else "unseen") if made.by else ""}
                own |= {"case": f"{subject}_{phase}", "subject": subject, "phase": phase, "vendor": vendor}
                own |= {"label": LABELS[label], "label_name": label, **dict.fromkeys(METRIC_KEYS, value)}
                own |= {"hd95_mm": 40 * (1 - value), "assd_mm": 12 * (1 - value), "slices_both": 1}
                rows.append(
                    own | {"slices_missed": 0, "slices_extra": 0, "status": "both_empty" if neither else "ok"}
                )
    return rows


def write_images_of(folder: Path, made: MadeStudy, subjects: dict[str, str], rng) -> None:
    """An `images.csv` in which vendors differ in contrast most and not in noise; training subjects are there too."""
    shift = {vendor: number for number, vendor in enumerate(made.vendors)}
    known = [(subject, vendor, _case) for subject, vendor in subjects.items() for _case in PHASES]
    for vendors in dict.fromkeys(made.sets.values()):
        known += [
            (f"{vendors or 'A'}{number:03d}t", (vendors or "A")[number % max(len(vendors), 1)], "ED")
            for number in range(made.sizes.get(vendors, 10 * max(len(vendors), 1)))
        ]
    rows = []
    for subject, vendor, phase in known:
        row = {
            "dataset": made.dataset,
            "case": f"{subject}_{phase}",
            "subject": subject,
            "phase": phase,
            "vendor": vendor,
        }
        row |= {
            "checksum": "0",
            "spacing_z_mm": 8 + rng.normal(0, 0.5),
            "spacing_yx_mm": 1.2 + 0.1 * shift[vendor],
        }
        row |= {
            "intensity_p50": rng.normal(0, 0.3) + 0.2 * shift[vendor],
            "contrast_LV_MYO": 1 + shift[vendor] + rng.normal(0, 0.1),
        }
        rows.append(
            row
            | {
                "texture_noise": rng.normal(0.1, 0.02),
                "raw_p99": 100 * (1 + shift[vendor]) + rng.normal(0, 5),
            }
        )
    write_text(folder / IMAGES_FILE, to_csv(rows, list(rows[0])))


def make_pictured_study(folder: Path) -> Path:
    """One network trained on A and on B, tested on six cases of three vendors with images; names of cases and a vendor are hostile."""
    cases = pictured_cases(folder)
    runs, rows = [], []
    for vendor, shift in (("A", 0), ("B", 1)):
        run = _run(folder, MadeStudy(), "UTNet", f"vendor={vendor}", vendor, {}, 0)
        run = run.model_copy(
            update={
                "subjects": Subjects(
                    training=(f"{vendor}1",),
                    validation=(f"{vendor}2",),
                    testing={"MnM": ("subject 0", "subject 1", "subject 2")},
                ),
                "folder": str(folder / "runs" / vendor),
            }
        )
        scores = Path(run.folder) / "test" / "MnM"
        for seed, case in enumerate(cases):
            make_nifti(scores / f"{case.case_id}.nii.gz", heart(seed, (seed + shift) % 3))
        evaluate_cases(cases, scores, LABELS, scores, executor=InlineExecutor())
        rename(scores, "b_ES", HOSTILE_SCRIPT)
        runs.append(run)
        for row in read_metrics(scores / "metrics.csv"):
            own = {
                "run": run.run,
                "network": "UTNet",
                "plan": "auto",
                "variant": "",
                "part": "",
                "seed": 0,
                "fold": 0,
            }
            own |= {"trained_on": run.trained_on, "dataset": "MnM", "tested_on": f"vendor={row['vendor']}"}
            rows.append(own | {"seen": "seen" if row["vendor"] in run.seen else "unseen"} | row)
    record = StudyRecord(
        name="hostile",
        question=f"What does {HOSTILE_SCRIPT} do?",
        by="vendor",
        definition={"name": "hostile", "networks": ["UTNet"], "settings": {}},
        datasets={
            "MnM": StudyDataset(cases=6, subjects=3, role=("train", "test"), folder=str(folder / "raw"))
        },
        labels={name: LABELS[name] for name in STRUCTURES},
        runs=tuple(runs),
    )
    study = folder / "study"
    study.mkdir()
    write_study(record, study)
    write_text(study / CASES_FILE, to_csv(rows, cases_columns(("phase", "vendor"))))
    return study
