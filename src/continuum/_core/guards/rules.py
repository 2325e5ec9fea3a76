"""What workflow code must not use, and what to use instead: data, and the search for a live object in it.

The rule: nothing named here is imported. Names are looked up in ``sys.modules`` when somebody asks, by
reading module and class dictionaries, so that no property, descriptor or lazy import ever runs. Exceptions,
constants and pure functions of a guarded module are not listed and stay allowed: there is no ``module.*``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Final

__all__ = ["ABSENT", "INDEX", "RULES", "UNSEEN", "Index", "Rule", "Value", "lookup"]


_Named = FunctionType | BuiltinFunctionType | MethodDescriptorType | ClassMethodDescriptorType
_KINDS = {MethodType, FunctionType, BuiltinFunctionType, MethodDescriptorType, ClassMethodDescriptorType}


class _Mark:
    """A value that no user object can be."""


ABSENT: Final = _Mark()  # the name does not exist; the call has no first argument
UNSEEN: Final = _Mark()  # there may be a first argument, this Python does not show it


@dataclass(frozen=True, slots=True)
class Rule:
    """One forbidden name and the way out.

    With ``unless_arguments=n`` a call with at least n arguments is harmless (``random.Random(seed)``), and so
    is a mere mention. With ``instances`` every method of an instance is forbidden too, wherever it was made.
    ``scan_only`` names are left alone at run time, where they would also meet a harmless ``__hash__``.
    """

    name: str
    instead: str
    unless_arguments: int = 0
    instances: bool = False
    scan_only: bool = False

    @property
    def what(self) -> str:
        """The name as an author writes it."""
        return self.name.removeprefix("builtins.")


_CLOCK = "use continuum.now(), the journal's time"
_SLEEP = "use `await asyncio.sleep(...)`, a durable timer"
_RANDOM = "use continuum.random(), the same on every replay"
_UUID = "use continuum.uuid4(), the same on every replay"
_SECRET = "make it in an activity, so that a replay sees the recorded value"
_ENVIRONMENT = "read it in an activity or in continuum.side_effect(fn), or pass it in the input"
_FILES = "read and write in an activity"
_NETWORK = "talk to the network in an activity"
_PROCESS = "start processes in an activity"
_THREAD = "use an activity (a sync one runs in a thread), or asyncio tasks"
_LOOP = "a workflow runs on its own loop: await the coroutine, or use asyncio.create_task or a TaskGroup"
_COMPLETED = "use continuum.as_completed(...); asyncio's iterates a set"
_WAIT = "use asyncio's Event, Condition or Queue, which do not block the worker"
_IDENTITY = "it differs between processes; use a key of the value itself, or hashlib"

_VERBS = "get post put patch delete head options request"

# (module or class, its members, what to use instead)
_TABLE: Final[tuple[tuple[str, str, str], ...]] = (
    ("time", "time time_ns monotonic monotonic_ns perf_counter perf_counter_ns process_time", _CLOCK),
    (
        "time",
        "process_time_ns thread_time thread_time_ns clock_gettime clock_gettime_ns localtime ctime",
        _CLOCK,
    ),
    ("time", "sleep", _SLEEP),
    ("datetime.date", "today", _CLOCK),
    ("datetime.datetime", "now utcnow today", _CLOCK),
    ("pandas.Timestamp", "now utcnow today", _CLOCK),
    ("pendulum", "now today tomorrow yesterday", _CLOCK),
    ("arrow", "now utcnow", _CLOCK),
    ("django.utils.timezone", "now localtime localdate", _CLOCK),
    ("random", "random uniform triangular randint choice randrange sample shuffle choices seed", _RANDOM),
    ("random", "normalvariate lognormvariate expovariate vonmisesvariate gammavariate gauss", _RANDOM),
    ("random", "betavariate paretovariate weibullvariate binomialvariate getstate setstate", _RANDOM),
    ("random", "getrandbits randbytes _inst", _RANDOM),
    ("numpy.random", "rand randn randint random random_sample choice shuffle permutation", _RANDOM),
    ("numpy.random", "uniform normal bytes seed", _RANDOM),
    ("uuid", "uuid1 uuid4 uuid6 uuid7", _UUID),
    ("uuid", "getnode", _ENVIRONMENT),
    ("secrets", "token_bytes token_hex token_urlsafe choice randbelow randbits", _SECRET),
    ("os", "urandom getrandom", _SECRET),
    ("ssl", "RAND_bytes", _SECRET),
    ("os", "environ environb getenv getenvb putenv unsetenv getcwd getcwdb getpid getppid", _ENVIRONMENT),
    ("os", "getlogin getuid geteuid getgid uname cpu_count process_cpu_count getloadavg times", _ENVIRONMENT),
    ("sys", "argv stdin", _ENVIRONMENT),
    ("platform", "node platform processor machine uname system release version", _ENVIRONMENT),
    ("getpass", "getuser getpass", _ENVIRONMENT),
    ("builtins", "input", _ENVIRONMENT),
    ("builtins", "open", _FILES),
    ("io", "open open_code FileIO", _FILES),
    ("codecs", "open", _FILES),
    ("os", "open fdopen read write close stat lstat fstat access listdir scandir walk mkdir", _FILES),
    ("os", "makedirs remove unlink rename renames replace rmdir removedirs link symlink", _FILES),
    ("os", "readlink truncate chmod chown chdir utime", _FILES),
    ("os.path", "exists lexists isfile isdir islink getsize getmtime getatime getctime realpath", _FILES),
    ("os.path", "abspath expanduser expandvars samefile", _FILES),
    ("pathlib.Path", "open read_text read_bytes write_text write_bytes exists is_file is_dir", _FILES),
    ("pathlib.Path", "iterdir glob rglob walk stat lstat mkdir rmdir unlink touch rename", _FILES),
    ("pathlib.Path", "replace chmod resolve absolute cwd home expanduser symlink_to hardlink_to", _FILES),
    ("shutil", "copy copy2 copyfile copytree copymode copystat move rmtree which disk_usage", _FILES),
    ("shutil", "make_archive unpack_archive", _FILES),
    ("tempfile", "TemporaryFile NamedTemporaryFile SpooledTemporaryFile TemporaryDirectory", _FILES),
    ("tempfile", "mkstemp mkdtemp mktemp gettempdir", _FILES),
    ("glob", "glob iglob", _FILES),
    ("socket", "create_connection create_server socketpair getaddrinfo gethostbyname", _NETWORK),
    ("socket", "gethostbyname_ex gethostname getfqdn getnameinfo fromfd", _NETWORK),
    ("select", "select poll epoll kqueue", _NETWORK),
    ("urllib.request", "urlopen urlretrieve", _NETWORK),
    ("requests", _VERBS, _NETWORK),
    ("httpx", _VERBS + " stream", _NETWORK),
    ("aiohttp", "request", _NETWORK),
    ("urllib3", "request", _NETWORK),
    ("boto3", "client resource", _NETWORK),
    ("sqlite3", "connect", _NETWORK),
    ("psycopg", "connect", _NETWORK),
    ("psycopg2", "connect", _NETWORK),
    ("asyncpg", "connect create_pool", _NETWORK),
    ("asyncio", "open_connection start_server open_unix_connection start_unix_server", _NETWORK),
    ("asyncio", "create_subprocess_exec create_subprocess_shell", _PROCESS),
    ("subprocess", "run call check_call check_output getoutput getstatusoutput", _PROCESS),
    ("os", "system popen fork forkpty kill killpg waitpid wait pipe spawnl spawnv posix_spawn", _PROCESS),
    ("os", "execl execle execlp execv execve execvp execvpe spawnve spawnvp abort _exit", _PROCESS),
    ("signal", "signal alarm pause raise_signal setitimer sigwait", _PROCESS),
    ("asyncio", "to_thread run_coroutine_threadsafe", _THREAD),
    ("_thread", "start_new_thread", _THREAD),
    ("threading.Event", "wait", _WAIT),
    ("threading.Condition", "wait wait_for", _WAIT),
    ("threading.Barrier", "wait", _WAIT),
    ("queue.Queue", "get put join", _WAIT),
    ("queue.SimpleQueue", "get", _WAIT),
    ("asyncio", "run new_event_loop set_event_loop Runner", _LOOP),
    ("asyncio", "as_completed", _COMPLETED),
    ("asyncio", "all_tasks", "keep the tasks you make in a list of your own"),
    ("concurrent.futures", "wait as_completed", _THREAD),
)

# Classes: neither made nor used inside a workflow, wherever the instance comes from.
_CLASSES: Final[tuple[tuple[str, str, str], ...]] = (
    ("random", "SystemRandom", _SECRET),
    ("socket", "socket", _NETWORK),
    ("threading", "Thread Timer", _THREAD),
    ("concurrent.futures", "Executor", _THREAD),
    ("concurrent.futures._base", "Executor", _THREAD),
    ("concurrent.futures", "ThreadPoolExecutor ProcessPoolExecutor InterpreterPoolExecutor", _THREAD),
    ("concurrent.futures.thread", "ThreadPoolExecutor", _THREAD),
    ("concurrent.futures.process", "ProcessPoolExecutor", _THREAD),
    ("multiprocessing", "Process Pool Queue Pipe Manager", _THREAD),
    ("multiprocessing.process", "BaseProcess", _THREAD),
    ("multiprocessing.pool", "Pool ThreadPool", _THREAD),
    ("subprocess", "Popen", _PROCESS),
    ("http.client", "HTTPConnection HTTPSConnection", _NETWORK),
    ("smtplib", "SMTP SMTP_SSL", _NETWORK),
    ("ftplib", "FTP FTP_TLS", _NETWORK),
    ("imaplib", "IMAP4 IMAP4_SSL", _NETWORK),
    ("poplib", "POP3 POP3_SSL", _NETWORK),
    ("requests", "Session", _NETWORK),
    ("requests.sessions", "Session", _NETWORK),
    ("httpx", "Client AsyncClient", _NETWORK),
    ("aiohttp", "ClientSession", _NETWORK),
    ("urllib3", "PoolManager", _NETWORK),
    ("redis", "Redis StrictRedis", _NETWORK),
    ("sqlite3", "Connection Cursor", _NETWORK),
    ("psycopg", "Connection AsyncConnection", _NETWORK),
)


def _all_rules() -> dict[str, Rule]:
    """Spell the tables out as one rule a name."""
    rules = [Rule(f"{owner}.{member}", hint) for owner, names, hint in _TABLE for member in names.split()]
    rules += [
        Rule(f"{owner}.{member}", hint, instances=True)
        for owner, names, hint in _CLASSES
        for member in names.split()
    ]
    rules += [
        Rule("random.Random", f"pass a seed, or {_RANDOM}", unless_arguments=1),
        Rule("numpy.random.default_rng", f"pass a seed, or {_RANDOM}", unless_arguments=1),
        Rule("numpy.random.RandomState", f"pass a seed, or {_RANDOM}", unless_arguments=1),
        Rule("time.gmtime", _CLOCK, unless_arguments=1),
        Rule("time.asctime", _CLOCK, unless_arguments=1),
        Rule("time.strftime", _CLOCK, unless_arguments=2),
        Rule("uuid.uuid8", _UUID, unless_arguments=3),
        Rule("builtins.id", _IDENTITY, scan_only=True),
        Rule("builtins.hash", _IDENTITY, scan_only=True),
    ]
    return {rule.name: rule for rule in rules}


RULES: Final = _all_rules()


def lookup(owner: object, name: str) -> object:
    """Read an attribute of a module or class from its dictionary, or give ``ABSENT``.

    A class gives the raw entry (a descriptor, not what it would return).
    """
    kind = type(owner)
    if issubclass(kind, ModuleType):
        namespace = object.__getattribute__(owner, "__dict__")
        if name in namespace:
            return namespace[name]
        return sys.modules.get(f"{namespace.get('__name__')}.{name}", ABSENT)
    if issubclass(kind, type):
        for cls in type.__dict__["__mro__"].__get__(owner):
            if name in cls.__dict__:
                return cls.__dict__[name]
    return ABSENT


@dataclass(frozen=True, slots=True)
class Value:
    """What an expression stands for: an object, or only a dotted name when its module is not loaded."""

    live: object
    name: str

    @classmethod
    def named(cls, value: object, written: str) -> Value:
        """Name a module or class in full, anything else as it was written."""
        kind = type(value)  # not isinstance(), which asks a proxy for its __class__
        if issubclass(kind, ModuleType):
            return cls(value, str(lookup(value, "__name__")))
        if issubclass(kind, type):
            return cls(value, f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', written)}")
        return cls(value, written)

    def member(self, name: str) -> Value | None:
        """Follow one dot, through modules, classes and names of modules that are not loaded."""
        dotted = f"{self.name}.{name}"
        if self.live is not ABSENT and not issubclass(type(self.live), ModuleType | type):
            return None
        value = lookup(self.live, name)
        return Value(ABSENT, dotted) if value is ABSENT else Value.named(value, dotted)


class Index:
    """The rules by live object. Names of modules not loaded yet are tried again when modules were added."""

    __slots__ = ("_by_code", "_by_id", "_modules", "_open")

    def __init__(self) -> None:
        self._by_id: dict[int, tuple[object, Rule]] = {}  # the object too: its id must not be given away
        self._by_code: dict[int, Rule] = {}
        self._open = list(RULES.values())
        self._modules = -1

    def of_value(self, value: Value) -> Rule | None:
        """Find the rule for a name, for this very object, or for its class when instances are forbidden."""
        self._refresh()
        if value.name in RULES:
            return RULES[value.name]
        entry = self._by_id.get(id(value.live))
        return entry[1] if entry is not None else self._of_instance(value.live)

    def of_code(self, code: object) -> Rule | None:
        """Find the rule for the Python function that has this code."""
        self._refresh()
        return self._by_code.get(id(code))

    def of_call(self, callee: object, first: object) -> Rule | None:
        """Find the rule that a call breaks. ``first`` is its first argument, ``ABSENT`` or ``UNSEEN``."""
        self._refresh()
        rule = self._of_callee(callee, first)
        if rule is None or rule.scan_only:
            return None
        if rule.unless_arguments == 0:
            return rule
        missing = first is ABSENT or first is None
        return rule if rule.unless_arguments == 1 and missing else None

    def _of_callee(self, callee: object, first: object) -> Rule | None:
        entry = self._by_id.get(id(callee))
        if entry is not None:
            return entry[1]
        if issubclass(type(callee), type):
            return self._of_class(callee)
        if type(callee) not in _KINDS:  # and isinstance() must not ask a proxy for its __class__
            return None
        if isinstance(callee, MethodType | BuiltinFunctionType):
            return self._of_method(callee.__self__, _name(callee))
        if isinstance(callee, FunctionType | MethodDescriptorType | ClassMethodDescriptorType):
            # A method call shows the plain function and the receiver as first argument.
            bound = first is not ABSENT and first is not UNSEEN and lookup(type(first), _name(callee)) is callee
            return self._of_method(first, _name(callee)) if bound else None
        return None

    def _of_method(self, receiver: object, name: str) -> Rule | None:
        if receiver is None or issubclass(type(receiver), ModuleType):
            return None
        is_class = issubclass(type(receiver), type)
        entry = self._by_id.get(id(lookup(receiver if is_class else type(receiver), name)))
        if entry is None and not is_class and id(receiver) in self._by_id:
            rule = self._by_id[id(receiver)][1]
            return RULES.get(f"{rule.name.rpartition('.')[0]}.{name}", rule)  # random._inst.choice
        if entry is not None:
            return entry[1]
        return None if is_class else self._of_instance(receiver)

    def _of_instance(self, value: object) -> Rule | None:
        rule = self._of_class(type(value))
        return rule if rule is not None and rule.instances else None

    def _of_class(self, cls: object) -> Rule | None:
        for parent in type.__dict__["__mro__"].__get__(cls):
            entry = self._by_id.get(id(parent))
            if entry is not None:
                return entry[1]
        return None

    def _refresh(self) -> None:
        if len(sys.modules) == self._modules:
            return
        self._modules = len(sys.modules)
        still_open: list[Rule] = []
        for rule in self._open:
            value = _resolve(rule.name)
            if value is ABSENT:
                still_open.append(rule)
            elif value is not None:  # sys.stdin is None in a windowed program
                self._by_id.setdefault(id(value), (value, rule))
                function = value.__func__ if type(value) is MethodType else value
                if type(function) is FunctionType and type(value) is FunctionType:
                    self._by_code.setdefault(id(function.__code__), rule)
        self._open = still_open


INDEX: Final = Index()


def _resolve(dotted: str) -> object:
    """Find what a dotted name stands for among the loaded modules; ``ABSENT`` if it is not there."""
    root, *path = dotted.split(".")
    value: object = sys.modules.get(root, ABSENT)
    for name in path:
        if value is ABSENT:
            break
        value = lookup(value, name)
    return value


def _name(callee: _Named | MethodType) -> str:
    if isinstance(callee, MethodType):
        function: object = callee.__func__  # any callable can be bound
        return function.__name__ if type(function) is FunctionType else ""
    return callee.__name__
