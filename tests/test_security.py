"""What SECURITY.md promises of the code: no call that can run what is in a file."""

import ast

import pytest
from source import calls, trees, value_of

MODULES = {
    "pickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "yaml",
    "imp",
    "code",
    "codeop",
    "runpy",
}
NEVER = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.execv", "os.spawnv"}
NEVER_OF_ANYTHING = {"read_pickle", "extractall", "extract", "unpack_archive"}
IMPORTS = {
    "utseg/__init__.py": "one name, written there",
    "utseg/commands/demo.py": "commands of ours, in a list there",
}


def wrong_call(file: str, name: str, call: ast.Call) -> bool:
    verb = name.rpartition(".")[2]
    if verb == "load" and name != ".load":
        owner = name.rpartition(".")[0]
        keyword = {"torch": ("weights_only", True), "np": ("allow_pickle", False)}.get(owner)
        return keyword is not None and value_of(call, keyword[0]) is not keyword[1]
    return (
        name in NEVER
        or ("." in name and verb in NEVER_OF_ANYTHING)
        or (verb == "read_array" and value_of(call, "allow_pickle") is not False)
        or value_of(call, "shell") is True
        or value_of(call, "allow_pickle") is True
        or (verb == "import_module" and file not in IMPORTS)
    )


def wrong(file: str, tree: ast.Module) -> list[str]:
    imported = [
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    ]
    found = [f"{file}: imports {name}" for name in imported if name.partition(".")[0] in MODULES]
    return found + [f"{file}:{c.lineno}: {name}" for name, c, _ in calls(tree) if wrong_call(file, name, c)]


def test_nothing_in_the_source_can_run_what_is_in_a_file():
    assert [line for file, tree in trees() for line in wrong(file, tree)] == []


@pytest.mark.parametrize(
    "line",
    [
        *(
            "import pickle",
            "from pickle import load",
            "eval(text)",
            "os.system(text)",
            "archive.extractall(folder)",
        ),
        *(
            "torch.load(path)",
            "torch.load(path, weights_only=False)",
            "np.load(path)",
            "subprocess.run(text, shell=True)",
        ),
        *("np.lib.format.read_array(file)", "importlib.import_module(name)"),
    ],
)
def test_a_call_that_can_is_found(line):
    assert wrong("utseg/x.py", ast.parse(line))
