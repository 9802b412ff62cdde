"""Everything that is written goes through `utseg.files`: into a temporary file or folder of its, into memory, or by a named exception."""

import ast
import re
from collections.abc import Sequence

import pytest
from source import called, calls, trees

EXCEPTIONS = {
    "utseg/files.py": "is the way",
    "utseg/archive/export.py:_write_zip": "into the temporary file that its caller got of atomic_path",
    "utseg/archive/install.py:_move": "renames models that were written and verified in a staging folder, and takes that back",
    "utseg/archive/install.py:_put_back": "the same",
    "utseg/compute/children.py:_run_to_end": "the output of a child, a log that grows",
    "utseg/compute/cluster_checks.py:require_same_folders": "a token that is removed again",
    "utseg/preprocess/run.py:_remove_others": "renames what is removed",
    "utseg/training/events.py:__init__": "TensorBoard's events, a log that grows",
}
SAFE = {"atomic_path", "atomic_folder", "tempfile.TemporaryDirectory"}
MEMORY = {"io.BytesIO", "io.StringIO", "BytesIO", "StringIO"}
WRITERS = re.compile(
    "write_text|write_bytes|save|savez|savez_compressed|savefig|save_as|save_file|dump|dcmwrite|to_csv|to_filename|tofile|touch|"
    "symlink_to|hardlink_to|rename|WriteImage|SummaryWriter|NamedTemporaryFile|mkstemp|copy2|copyfile|copytree|copyfileobj"
)
WRITING_MODULES = {"os.replace", "shutil.move", "shutil.copy"}  # verbs that other things have too
OURS = {"write_text", "write_bytes", "to_csv", "save"}
"""As functions: of utseg.files, or what gives text and bytes."""


def is_write(name: str, call: ast.Call) -> bool:
    verb = name.rpartition(".")[2]
    if verb in ("open", "ZipFile"):
        given = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
        modes = [
            each.value for each in given if isinstance(each, ast.Constant) and isinstance(each.value, str)
        ]
        return any(mode[:1] in ("w", "a", "x") or "+" in mode for mode in modes)
    return name in WRITING_MODULES or (
        WRITERS.fullmatch(verb) is not None and ("." in name or verb not in OURS)
    )


def in_memory(call: ast.Call, within: Sequence[ast.AST]) -> bool:
    """Whether an argument is a buffer that the function made."""
    functions = [node for node in within if isinstance(node, ast.FunctionDef)]
    if not functions:
        return False
    made = {
        target.id
        for node in ast.walk(functions[-1])
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and called(node.value) in MEMORY
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return any(isinstance(argument, ast.Name) and argument.id in made for argument in call.args)


def in_a_safe_place(within: Sequence[ast.AST]) -> bool:
    items = [item.context_expr for node in within if isinstance(node, ast.With) for item in node.items]
    return any(isinstance(item, ast.Call) and called(item).removeprefix("files.") in SAFE for item in items)


def direct_writes(file: str, tree: ast.Module) -> list[str]:
    found = []
    for name, call, within in calls(tree):
        if is_write(name, call) and not in_memory(call, within) and not in_a_safe_place(within):
            functions = [node.name for node in within if isinstance(node, ast.FunctionDef)]
            places = {file, *(f"{file}:{function}" for function in functions)}
            if not places & EXCEPTIONS.keys():
                found.append(
                    f"{file}:{call.lineno}: {name} in {functions[-1] if functions else 'the module'}"
                )
    return found


def test_nothing_is_written_but_by_utseg_files():
    assert [line for file, tree in trees() for line in direct_writes(file, tree)] == []


@pytest.mark.parametrize(
    "line",
    [
        "path.write_text(text)",
        "path.open('w')",
        "open(path, mode='ab')",
        "np.savez(path, a=a)",
        "torch.save(state, path)",
        "zipfile.ZipFile(path, 'w')",
        "(folder / name).rename(path)",
        "os.replace(a, b)",
        "dataset.save_as(path)",
    ],
)
def test_a_direct_write_is_found(line):
    assert direct_writes("utseg/x.py", ast.parse(f"def f():\n    {line}\n"))
    assert not direct_writes(
        "utseg/x.py", ast.parse(f"def f():\n    with atomic_path(p) as path:\n        {line}\n")
    )
