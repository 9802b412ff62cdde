"""The text that goes with every cohort. Filled with `str.format`."""

README = """\
# A synthetic cohort, not patients

Everything in this folder was computed by `utseg_make_phantom`: the hearts are formulas, the four "vendors" are made-up settings of
contrast, resolution, brightness field and noise that only borrow the names under which the M&Ms challenge lists its scanners.

It is there to demonstrate the software and to test it, and for nothing else. A score on it says that the software runs and learns; it says
nothing about how well a network segments people, which vendor is hard, or which method is better. Do not train anything with it that is
meant for patients, do not mix it with patients' scans, do not publish figures from it as if they were measured.

## What is here
{subjects} subjects, {frames} frames each, seed {seed}, in the native M&Ms layout:

- `Training/Labeled`: vendors A and B. `Training/Unlabeled`: vendor C, label files empty.
- `Validation`, `Testing`: all four vendors; C and D are never labelled for training.
- `CODE/CODE_sa.nii.gz`: a short-axis cine, (x, y, z, t), int16. `CODE/CODE_sa_gt.nii.gz`: 1 LV, 2 MYO, 3 RV on the ED and ES frames, 0 on
  all others. The atria, papillary muscles (part of the cavity) and the wall of the right ventricle carry no label of their own.
- `dataset_information.csv`: vendor, centre, pathology, ED and ES frame (counted from 0; ES comes before ED in some) of each subject. Age,
  sex, height and weight are made up, too.
- `phantom.json`: the settings and a checksum of each file. The same settings give the same files.
"""
