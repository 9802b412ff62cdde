"""`utseg_export_model`: trained models as one zip, to hand on."""

import argparse
import logging
from collections.abc import Sequence

from utseg.commands.cli import home_of, run, values_for
from utseg.commands.options import Parser

logger = logging.getLogger("utseg")
TERMS = {
    "licence": "under which terms others may use the models",
    "citation": "what to cite",
    "contact": "whom to ask",
    "description": "what else a reader of the model card should know",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    parser = Parser(
        "utseg_export_model",
        "Write trained models as one zip: weights as safetensors, plan, recipe, labels, a model card with validation scores, checksums. "
        "The same models give the same bytes. Names of cases are left out, since they can point at people. Without -m, -f and -pl: what "
        "best.json chose, with its postprocessing and test-time augmentation, which whoever gets the models then has too.",
        'utseg_export_model -d MnM -o model.zip --licence "CC BY 4.0" --citation "Doe et al. 2026"',
    )
    names = "keep the names of the training and validation cases in run.json; by default they are left out and counts are kept"
    parser.path("-o", "output", "the archive to write", "FILE.zip")
    parser.model_choice(", or where utseg_find_best_configuration chose")
    for name, what in TERMS.items():
        parser.value(f"--{name}", name, "TEXT", what, default="")
    parser.flag("--with-case-ids", names)
    return run(parser, _export, argv)


def _export(arguments: argparse.Namespace) -> None:
    from utseg.archive import Terms, export_model
    from utseg.archive.manifest import text_problem
    from utseg.errors import UsageError
    from utseg.steps.choice import ModelChoice, chosen_models

    given = {name: getattr(arguments, name).strip() for name in TERMS}
    for name, text in given.items():
        if problem := text_problem(text):
            raise UsageError(f"--{name}: {problem} is in it; leave it out")
    home = home_of(arguments)
    name, _ = home.trained_dataset(arguments.dataset)
    choice = {key: value for key, value in values_for(ModelChoice, arguments).items() if value is not None}
    with chosen_models(ModelChoice(**choice)) as chosen:
        manifest = export_model(
            chosen.runs,
            arguments.output,
            preprocessed=home.preprocessed / name,
            terms=Terms(**given),
            with_case_ids=arguments.with_case_ids,
            best=chosen.best,
        )
    if not manifest.terms.licence:
        no_licence = "no licence is stated, so nobody knows what they may do with it; say --licence"
        logger.warning("%s: %s", arguments.output, no_licence)
    logger.info("models: %s", ", ".join(f"{name}/{member.name}" for member in manifest.members))
    names = "with the names" if manifest.with_case_ids else "without the names"
    said = "%s: %.1f MB, %s of the cases; read MODEL_CARD.md in it before you hand it on"
    logger.info(said, arguments.output, arguments.output.stat().st_size / 1e6, names)
