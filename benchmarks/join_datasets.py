"""One raw dataset in nnU-Net's layout out of several whose labels have the same names, such as the two folders that hold ACDC's patients.

    python benchmarks/join_datasets.py OUT FOLDER FOLDER…

Images are linked. Labels are written anew with the first dataset's values; the columns that cases are grouped by go to `cases.csv`, with
the dataset that a case came from. A subject that two datasets have is an error.
"""

import argparse
import csv
from pathlib import Path

from utseg.case import Case
from utseg.files import write_json
from utseg.label_map import Labels
from utseg.labels import Matching, match_labels
from utseg.rawdata import open_dataset
from utseg.rawdata.gate import read_label
from utseg.rawdata.write import write_mask

ENDING = ".nii.gz"


def add(case: Case, labels: Labels, matching: Matching, out: Path) -> None:
    """Links the images of a case, and writes its label with the values of the first dataset."""
    if (
        case.label is None
        or case.frame is not None
        or not all(path.name.endswith(ENDING) for path in case.files)
    ):
        raise SystemExit(f"{case.case_id}: only labelled 3-D files that end in {ENDING} are joined")
    for channel, image in enumerate(case.images):
        (out / "imagesTr" / f"{case.case_id}_{channel:04d}{ENDING}").symlink_to(image.resolve())
    label_ZYX, geometry = read_label(case.label, labels)
    write_mask(
        out / "labelsTr" / f"{case.case_id}{ENDING}", matching.translate(label_ZYX), geometry, case.label
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("folder", type=Path, nargs="+")
    arguments = parser.parse_args()
    datasets = [open_dataset(folder, folder.name) for folder in arguments.folder]
    labels, channel_names = dict(datasets[0].labels), datasets[0].channel_names
    for dataset in datasets:
        if dataset.channel_names != channel_names:
            raise SystemExit(f"{dataset.name}: its channels are {dataset.channel_names}, not {channel_names}")
    seen: set[str] = set()
    for dataset in datasets:
        subjects = {case.subject for case in dataset.training_cases()}
        if subjects & seen:
            raise SystemExit(f"{dataset.name}: another dataset has {', '.join(sorted(subjects & seen))} too")
        seen |= subjects
    columns = sorted({column for dataset in datasets for column in dataset.group_columns})
    for part in ("imagesTr", "labelsTr"):
        (arguments.out / part).mkdir(parents=True)
    rows = []
    for dataset in datasets:
        matching = match_labels(labels, dataset.labels, we=datasets[0].name, they=dataset.name)
        for case in dataset.training_cases():
            add(case, dataset.labels, matching, arguments.out)
            named = {
                "case": case.case_id,
                "subject": case.subject,
                "phase": case.phase,
                "source": dataset.name,
            }
            rows.append(named | {column: case.groups.get(column, "") for column in columns})
    with (arguments.out / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    channels = {str(number): name for number, name in enumerate(channel_names)}
    told = {"channel_names": channels, "labels": labels, "numTraining": len(rows), "file_ending": ENDING}
    write_json(arguments.out / "dataset.json", told)
    print(f"{len(seen)} subjects, {len(rows)} cases: {arguments.out}")


if __name__ == "__main__":
    main()
