"""The examples in the docstrings of public modules run, unless they are marked ``+SKIP``."""

import doctest
import importlib
import pkgutil

import pytest

import continuum

PUBLIC = [
    f"continuum.{module.name}" for module in pkgutil.iter_modules(continuum.__path__) if module.name[0] != "_"
]


@pytest.mark.parametrize("name", PUBLIC)
def test_the_examples_of_a_module_run(name: str) -> None:
    module = importlib.import_module(name)
    names = {public: getattr(continuum, public) for public in continuum.__all__}
    found = doctest.DocTestFinder(exclude_empty=True).find(module, extraglobs=names)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for example in found:
        said: list[str] = []
        failed = runner.run(example, out=said.append)
        assert failed.failed == 0, "".join(said)


def test_public_modules_have_examples() -> None:
    examples = [
        example
        for name in PUBLIC
        for test in doctest.DocTestFinder().find(importlib.import_module(name))
        for example in test.examples
    ]
    assert len(examples) >= 5
