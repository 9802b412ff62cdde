"""Which of a dataset's plans a command means."""

from pathlib import Path

from utseg.errors import InputError, UsageError
from utseg.home import check_name, plan_folder_name

DEFAULT_PLANNER = "auto"


def choose_plan_folder(preprocessed: Path, planner: str | None, configuration: str) -> Path:
    """The folder of the plan that was asked for; else of `auto`; else of the only one there."""
    from utseg.planning.plan import PLAN_FILE

    ending = plan_folder_name("", configuration)
    there = sorted(
        entry.name.removesuffix(ending)
        for entry in preprocessed.iterdir()
        if entry.name.endswith(ending) and (entry / PLAN_FILE).is_file()
    )
    if not there:
        raise InputError(f"{preprocessed}: no plan is there; run utseg_plan_and_preprocess first")
    if planner is None:
        if len(there) > 1 and DEFAULT_PLANNER not in there:
            raise UsageError(
                f"{preprocessed}: several plans are there: {', '.join(there)}; choose one with -pl"
            )
        planner = DEFAULT_PLANNER if DEFAULT_PLANNER in there else there[0]
    if check_name(planner, "plan") not in there:
        raise InputError(
            f"{preprocessed / plan_folder_name(planner, configuration)}: no plan is there (plans there: {', '.join(there)}); "
            f"run utseg_plan_and_preprocess -pl {planner}, or choose one of them with -pl"
        )
    return preprocessed / plan_folder_name(planner, configuration)
