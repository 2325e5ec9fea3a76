"""Read a workflow's source when it is decorated, and refuse what a replay cannot repeat.

The rule: names are resolved the way Python would (locals, enclosing functions, closure, globals, builtins,
imports and aliases inside the function), attribute chains only through modules and classes; nothing of the
author's runs. What cannot be resolved is trusted: a missed refusal shows at run time or when a replay is
compared, a wrong one stops a good program. So strings, annotations and the function's own decorators are not
looked at, nor are helpers, unless they are scanned themselves. Arguments of ``side_effect(...)`` are exempt,
and so is a nested function that is used for nothing else.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from types import FunctionType
from typing import Final

from continuum._core.guards.rules import ABSENT, INDEX, Rule, Value
from continuum.errors import NotDeterministic

__all__ = ["scan"]

_ORDER: Final = Rule(
    "iteration over a set", "its order differs between processes; use sorted(...) or dict.fromkeys(...)"
)
_KEEPS_ORDER: Final = (list, tuple, enumerate, iter)
_DROPS_ORDER: Final = (sorted, set, frozenset, sum, min, max, any, all, len)

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


def scan(function: object, where: str) -> None:
    """Refuse a function whose source names a clock, randomness, I/O, threads or the environment.

    ``where`` names the definition in the message (``"workflow order_flow"``). All findings stand in one
    message; the attributes are those of the first. Without source nothing is refused.

    Raises:
        NotDeterministic: with file and line, and what to use instead.
    """
    if type(function) is not FunctionType:
        return
    scan(function.__dict__.get("__wrapped__"), where)
    tree, first_line = _parse(function)
    if tree is None:
        return
    scanner = _Scanner(_Outside(function))
    scanner.visit_body(tree)
    findings = sorted(dict.fromkeys(scanner.findings), key=itemgetter(0))
    if findings:
        _refuse(findings, function.__code__.co_filename, first_line, where)


@dataclass(frozen=True, slots=True)
class _Import:
    """One name of an import statement inside the function. ``member`` is empty for ``import module``."""

    module: str
    member: str = ""


# None: a value that cannot be known. A global or nonlocal statement stands for itself.
_Binding = ast.expr | _Import | ast.Global | ast.Nonlocal | None


@dataclass(slots=True)
class _Scope:
    """The names that one function, class body or comprehension binds, with everything that binds each."""

    bindings: dict[str, list[_Binding]] = field(default_factory=dict[str, list[_Binding]])
    is_class: bool = False


def _refuse(findings: list[tuple[int, Rule]], file: str, first_line: int, where: str) -> None:
    """Raise one error for all findings."""
    prefix = f"{where}, " if where else ""
    errors = [
        NotDeterministic(rule.what, rule.instead, f"{prefix}{file}:{line + first_line - 1}")
        for line, rule in findings
    ]
    if len(errors) > 1:
        errors[0].args = ("\n".join(str(error) for error in errors),)
    raise errors[0]


def _parse(function: FunctionType) -> tuple[_Function | None, int]:
    """Find the function's definition in its source, and the file's line of the source's first line."""
    try:
        lines, first_line = inspect.getsourcelines(function.__code__)  # a function would be unwrapped
        indented = lines[0][:1].isspace()
        # Not textwrap.dedent: a string that spans lines may reach the margin.
        module = ast.parse(("if True:\n" if indented else "") + "".join(lines))
    except (OSError, TypeError, SyntaxError, IndexError):
        return None, 0
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            matches = node.name == function.__code__.co_name
            return (node if matches else None), first_line - (1 if indented else 0)
    return None, 0


class _Outside:
    """Resolves names that the function takes from around it, as they are at decoration."""

    def __init__(self, function: FunctionType) -> None:
        self._globals = function.__globals__
        self.package = str(function.__globals__.get("__package__") or "")
        self._closure: dict[str, object] = {}
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                self._closure[name] = cell.cell_contents
            except ValueError:  # assigned later
                self._closure[name] = ABSENT

    def resolve(self, name: str, *, only_globals: bool) -> Value | None:
        for namespace in (() if only_globals else (self._closure,)) + (self._globals, vars(builtins)):
            if name in namespace:
                value = namespace[name]
                return None if value is ABSENT else Value.named(value, name)
        return None

    def load(self, wanted: _Import) -> Value:
        """Resolve an import without importing."""
        module = sys.modules.get(wanted.module, ABSENT)
        if not wanted.member:
            return Value(module, wanted.module)
        return Value(module, wanted.module).member(wanted.member) or Value(ABSENT, wanted.member)


class _Scanner(ast.NodeVisitor):
    """Walks a definition with the scopes that are open at each point, innermost last."""

    def __init__(self, outside: _Outside) -> None:
        self.findings: list[tuple[int, Rule]] = []
        self._outside = outside
        self._scopes: list[_Scope] = []
        self._resolving: set[ast.AST] = set()
        self._unordered: set[ast.AST] = set()  # iterations whose order is dropped by the call around them
        self._exempt: set[ast.AST] = set()

    # What is refused

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._judge(node, self._resolve(node))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if not self._judge(node, self._resolve(node)):
            self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        if self._is_side_effect(node):
            return
        ordered = node not in self._unordered
        value = self._resolve(node.func)
        rule = INDEX.of_value(value) if value is not None else None
        if rule is None or rule.unless_arguments == 0:
            self.visit(node.func)
        elif _given(node) < rule.unless_arguments:
            self.findings.append((node.lineno, rule))
        if value is not None and ordered and _is_any(value.live, _KEEPS_ORDER):
            self._judge_order(node.args[:1])
        if value is not None and _is_any(value.live, _DROPS_ORDER):
            self._unordered.update(node.args[:1])
        self._visit_all((*node.args, *node.keywords))

    def visit_For(self, node: ast.For) -> None:
        self._judge_order([node.iter])
        self.generic_visit(node)

    def _judge(self, node: ast.expr, value: Value | None) -> bool:
        rule = INDEX.of_value(value) if value is not None else None
        if rule is None or rule.unless_arguments:  # such a class or function may be mentioned
            return False
        self.findings.append((node.lineno, rule))
        return True

    def _judge_order(self, iterables: Iterable[ast.expr]) -> None:
        for node in iterables:
            made = self._resolve(node.func) if isinstance(node, ast.Call) else None
            if isinstance(node, ast.Set | ast.SetComp) or (
                made is not None and _is_any(made.live, (set, frozenset))
            ):
                self.findings.append((node.lineno, _ORDER))

    def _is_side_effect(self, node: ast.Call) -> bool:
        value = self._resolve(node.func)
        if value is None:
            return isinstance(node.func, ast.Name) and node.func.id == "side_effect"
        if value.live is ABSENT:
            return value.name.startswith("continuum.") and value.name.endswith(".side_effect")
        if type(value.live) is not FunctionType or value.live.__name__ != "side_effect":
            return False
        return value.live.__module__.partition(".")[0] == "continuum"

    # How a name finds its value

    def _resolve(self, node: ast.expr) -> Value | None:
        if isinstance(node, ast.Name):
            return self._resolve_name(node.id)
        if isinstance(node, ast.Attribute):
            owner = self._resolve(node.value)
            return owner.member(node.attr) if owner is not None else None
        return None

    def _resolve_name(self, name: str) -> Value | None:
        innermost = len(self._scopes) - 1
        for depth, scope in reversed(list(enumerate(self._scopes))):
            bindings = scope.bindings.get(name, [])
            if any(isinstance(binding, ast.Global) for binding in bindings):
                return self._outside.resolve(name, only_globals=True)
            foreign = any(isinstance(binding, ast.Nonlocal) for binding in bindings)
            hidden = scope.is_class and depth != innermost
            if bindings and not foreign and not hidden:
                return self._agreed(bindings)
        return self._outside.resolve(name, only_globals=False)

    def _agreed(self, bindings: list[_Binding]) -> Value | None:
        """Give the one value that all bindings of a name have."""
        first, *others = [self._resolve_binding(binding) for binding in bindings]
        if first is None:
            return None
        same = all(other and other.live is first.live and other.name == first.name for other in others)
        return first if same else None

    def _resolve_binding(self, binding: _Binding) -> Value | None:
        if isinstance(binding, _Import):
            return self._outside.load(binding)
        if not isinstance(binding, ast.expr) or binding in self._resolving:  # `time = time`
            return None
        self._resolving.add(binding)
        try:
            return self._resolve(binding)
        finally:
            self._resolving.discard(binding)

    # Which scope is open

    def visit_body(self, node: _Function) -> None:
        """Look at a function's body with its parameters and local names in scope."""
        body = [node.body] if isinstance(node, ast.Lambda) else node.body
        if node in self._exempt:
            return
        self._open(body)
        args = node.args
        for arg in (*args.posonlyargs, *args.args, args.vararg, *args.kwonlyargs, args.kwarg):
            if arg is not None:
                self._scopes[-1].bindings.setdefault(arg.arg, []).append(None)
        if len(self._scopes) == 1:
            self._exempt = self._only_for_side_effects(node)
        self._visit_all(body)
        self._scopes.pop()

    def _open(self, body: Iterable[ast.AST], *, is_class: bool = False) -> None:
        scope = _Scope(is_class=is_class)
        for node in body:
            for name, binding in _bound(node, self._outside.package):
                scope.bindings.setdefault(name, []).append(binding)
        self._scopes.append(scope)

    def _only_for_side_effects(self, root: ast.AST) -> set[ast.AST]:
        """Find the nested functions whose every mention is in an argument of ``side_effect``."""
        calls = [node for node in ast.walk(root) if isinstance(node, ast.Call) and self._is_side_effect(node)]
        inside = {id(name) for call in calls for name in ast.walk(call)}
        names = [node for node in ast.walk(root) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
        only = {name.id for name in names if id(name) in inside}
        only -= {name.id for name in names if id(name) not in inside}
        return {function for name, function in _nested(root) if name in only}

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._visit_all((*node.decorator_list, *_defaults(node.args)))
        self.visit_body(node)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 (ast names it)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._visit_all(_defaults(node.args))
        self.visit_body(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._visit_all((*node.decorator_list, *node.bases, *node.keywords))
        self._open(node.body, is_class=True)
        self._visit_all(node.body)
        self._scopes.pop()

    def _visit_comprehension(self, node: _Comprehension) -> None:
        if (
            not isinstance(node, ast.SetComp) and node not in self._unordered
        ):  # a set made from a set has no order to lose
            self._judge_order(generator.iter for generator in node.generators)
        self.visit(node.generators[0].iter)
        self._open(generator.target for generator in node.generators)
        self._visit_all(generator.iter for generator in node.generators[1:])
        self._visit_all(condition for generator in node.generators for condition in generator.ifs)
        self._visit_all((node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,))
        self._scopes.pop()

    visit_ListComp = _visit_comprehension  # noqa: N815 (ast names it)
    visit_SetComp = _visit_comprehension  # noqa: N815 (ast names it)
    visit_DictComp = _visit_comprehension  # noqa: N815 (ast names it)
    visit_GeneratorExp = _visit_comprehension  # noqa: N815 (ast names it)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._visit_all([node.target] + ([node.value] if node.value else []))

    def visit_TypeAlias(self, node: ast.AST) -> None:  # a type statement is an annotation
        pass

    def _visit_all(self, nodes: Iterable[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)


def _bound(node: ast.AST, package: str) -> Iterator[tuple[str, _Binding]]:
    """Yield the names that a piece of a body binds in the body's own scope, with the values it shows."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name, None
            return
        case ast.Lambda():
            return
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            yield from ((inner.target.id, None) for inner in ast.walk(node) if isinstance(inner, ast.NamedExpr))
            return
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=value)
            | ast.AnnAssign(target=ast.Name(id=name), value=value)
            | ast.NamedExpr(target=ast.Name(id=name), value=value)
        ):
            yield name, value
            yield from _bound(value, package) if value is not None else ()
            return
        case ast.Global(names=names) | ast.Nonlocal(names=names):
            yield from ((name, node) for name in names)
        case ast.Import(names=aliases):
            for alias in aliases:
                root = alias.name.partition(".")[0]
                yield alias.asname or root, _Import(alias.name if alias.asname else root)
        case ast.ImportFrom(names=aliases, module=module, level=level):
            parents = package.split(".")
            path = [*parents[: len(parents) - level + 1 if level else 0], *([module] if module else [])]
            yield from ((alias.asname or alias.name, _Import(".".join(path), alias.name)) for alias in aliases)
        case (
            ast.Name(id=str(name), ctx=ast.Store() | ast.Del())
            | ast.ExceptHandler(name=str(name))
            | ast.MatchAs(name=str(name))
            | ast.MatchStar(name=str(name))
            | ast.MatchMapping(rest=str(name))
        ):
            yield name, None
        case _:
            pass
    for child in ast.iter_child_nodes(node):
        yield from _bound(child, package)


def _is_any(value: object, choices: tuple[object, ...]) -> bool:
    return any(value is choice for choice in choices)


def _given(call: ast.Call) -> float:
    """Count a call's arguments, without literal Nones; stars may stand for any number."""
    values = [*call.args, *(keyword.value for keyword in call.keywords)]
    if any(isinstance(arg, ast.Starred) for arg in call.args) or any(not word.arg for word in call.keywords):
        return float("inf")
    return sum(not (isinstance(value, ast.Constant) and value.value is None) for value in values)


def _defaults(args: ast.arguments) -> Iterator[ast.expr]:
    yield from args.defaults
    yield from (default for default in args.kw_defaults if default is not None)


def _nested(root: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield the functions defined inside, with the name each is given."""
    for node in ast.walk(root):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node is not root:
            yield node.name, node
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
            yield from ((target.id, node.value) for target in node.targets if isinstance(target, ast.Name))
