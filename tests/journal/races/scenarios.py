"""The races, as storms run them: several sides at once, on the runs of one round."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from continuum._core.effects import Cancellation
from continuum._journal.commit import (
    KEEP,
    Cancel,
    Committed,
    Complete,
    Lease,
    NewTask,
    Park,
    Passivate,
    Status,
)
from tests.journal.races.round import Round, next_attempt, next_generation
from tests.journal.races.sides import Worker, child, entry, message, session, turn

FAR_US = 4_000_000_000_000_000
STOPPED = Cancel(b'{"type":"cancelled","message":""}')
PARK = Park(b'{"type":"E","message":"m"}')


async def passivation(found: Round) -> None:
    """A message against passivation (4), and two signals of one sender (7)."""
    receiver = await found.put("X", "a")
    await asyncio.gather(
        _sends(found, "b", await found.put("s", "b"), receiver),
        _sends(found, "c", await found.put("t", "c"), receiver, 1),
        _serves(found, "a", receiver, Passivate(found.chance.choice([None, FAR_US]))),
        found.hold(receiver),
    )


async def claims(found: Round) -> None:
    """A claim against a message (9), several claimers (8), slow claims (17)."""
    receiver = await found.put("X", due=found.chance.random() < 0.6)
    pending = await found.put("Y", state="pending", due=True)
    await asyncio.gather(
        _sends(found, "b", await found.put("s", "b"), receiver),
        _sends(found, "c", await found.put("t", "c"), pending, 1),
        *(_claims(found, found.worker()) for _ in range(4)),
        found.hold(receiver),
    )


async def takeover(found: Round) -> None:
    """A stale writer against a takeover (1)."""
    dead = f"dead {found.prefix}"
    run = await found.put("X", dead)
    peer = await found.put("s", "b")

    async def stale() -> None:
        await found.jitter()
        statuses: list[Status] = [KEEP, KEEP, Passivate(), Complete(b"1")]
        status = found.chance.choice(statuses)
        started = child(f"{run}/c")
        started = type(started)(started.run_id, run, "c", 1, *found.flow, b"null", started.options)
        says = (found.says(run, peer), found.says(run, started.run_id))
        await found.serve(dead, run, 1, status, children=(started,), claimed=0, messages=says)
        await found.serve(dead, run, 1, messages=(found.says(run, peer),))

    async def taking(worker: Worker) -> None:
        await found.jitter(6)
        await worker.journal.take_over()
        await found.jitter(1)
        await found.claim(worker)

    await asyncio.gather(
        stale(),
        _sends(found, "b", peer, run),
        taking(found.worker("a")),
        taking(found.worker("c")),
        found.hold(run),
    )


async def cascade(found: Round) -> None:
    """A flush against a cascade (2), a child's end against its parent's cancel, close and next generation (5), a
    signal to a child started in the same commit (6)."""
    top = await found.put("P", "a")
    first, second = await found.put("P/c1", "b"), await found.put("P/c2", "c")
    deep = await found.put("P/c1/g", found.chance.choice("bc"))
    await found.put("P/c2/g", "b")
    sides: list[Awaitable[object]] = [
        _parent(found, top, (first, second)),
        _starts_and_ends(found, "b", first),
        _ends(found, "c", second),
        _serves(found, None, deep),
        _serves(found, "b", f"{second}/g"),
        _works(found),
        found.hold(found.chance.choice([top, first])),
    ]
    if found.chance.random() < 0.6:
        sides.append(found.cancel(found.chance.choice([top, top, first])))
    await asyncio.gather(*sides)


async def closes(found: Round) -> None:
    """An end that closes children or cancels all below, or a commit that cancels many, against flushes, ends and
    retries of those, children they start, a plain cancel and a late one."""
    top = await found.put("P", "a")
    kids = [await found.put(f"P/c{number}", "bc"[number % 2], closes=number < 3) for number in range(4)]
    deep = [await found.put(f"P/c{number}/g", "b", closes=True) for number in range(3)]
    sides: list[Awaitable[object]] = [
        _ends_with_those_below(found, top, kids, deep),
        _starts_and_ends(found, "b", kids[0]),
        _serves(found, "c", kids[1], next_attempt()),
        _ends(found, "b", kids[2]),
        _serves(found, "b", deep[0], found.chance.choice([Complete(b"1"), next_attempt(), KEEP])),
        _works(found),
        found.hold(found.chance.choice([top, *kids])),
    ]
    if found.chance.random() < 0.5:
        sides.append(found.cancel(found.chance.choice([top, kids[0], kids[1]])))
    if found.chance.random() < 0.5:
        sides.append(found.stop(found.chance.choice([top, kids[1], deep[1]])))
    await asyncio.gather(*sides)


async def crossing(found: Round) -> None:
    """Flushes that wake each other (3), over several depths and owners, with claims beside them."""
    names = ["x", "x/y", "x/y/z"]
    found.chance.shuffle(names)
    own = {await found.put(name, owner): owner for name, owner in zip(names, "abc", strict=True)}
    idle = [await found.put(f"u{number}") for number in range(3)]

    async def writes(run: str, owner: str) -> None:
        statuses: list[Status] = [KEEP, KEEP, Passivate(), Passivate(FAR_US), next_generation()]
        status: Status = KEEP
        for _ in range(2):
            if status is KEEP:
                await found.jitter()
                status = found.chance.choice(statuses)
                to = found.chance.sample([other for other in own if other != run] + idle, 4)
                says = tuple(found.says(run, other) for other in to)
                await found.serve(found.worker(owner), run, 1, status, messages=says)

    await asyncio.gather(
        *(writes(run, owner) for run, owner in own.items()), *(_claims(found, found.worker()) for _ in range(2))
    )


async def grouped(found: Round) -> None:
    """Edges of one worker that fall together (14): a child's end with its parent's entry, against what fences."""
    top = await found.put("P", "a")
    children = [await found.put(f"P/c{number}", "a") for number in range(3)]
    worker = found.worker("a")
    turns = asyncio.Lock()
    seq = 1

    async def edge(kid: str) -> None:
        nonlocal seq
        await found.jitter(5)
        async with turns:  # a run has one commit under way at most
            ending = turn(kid, status=Complete(b"1"), messages=(found.says(kid, children[0]),))
            pair = await found.commit(worker, ending, turn(top, 1, seq, keys=[f"{top}<{kid}"]))
        found.maybe.add((top, f"{top}<{kid}"))
        seq += 2 * isinstance(pair[1], Committed)
        if isinstance(pair[0], Committed) != isinstance(pair[1], Committed):
            found.problem(f"of {kid} and its parent one was written: {pair}")

    async def fences() -> None:
        await found.jitter(6)
        target = found.chance.choice([top, *children])
        match found.chance.randrange(4):
            case 0:
                await found.cancel(target)
            case 1:
                await worker.journal.release([Lease(target, 1)])
                await found.claim(found.worker(), serve=False)
            case 2:
                await worker.journal.reclaim([Lease(target, 1)])
            case _:
                await found.hold(target)

    await asyncio.gather(*(edge(kid) for kid in children), fences(), fences())


async def parking(found: Round) -> None:
    """Messages to a run that is parked and resumed."""
    held = found.chance.random() < 0.4
    receiver = await found.put("X", "a") if held else await found.put("X", state="parked")

    async def resumes() -> None:
        if held:
            await _serves(found, "a", receiver, PARK)
        await found.jitter()
        await found.worker().journal.resume(receiver)
        await found.jitter(1)
        await found.claim(found.worker())

    await asyncio.gather(
        _sends(found, "b", await found.put("s", "b"), receiver),
        _sends(found, "c", await found.put("t", "c"), receiver, 1),
        resumes(),
        found.hold(receiver),
    )


async def neighbours(found: Round) -> None:
    """A value that Postgres refuses (12) and a fenced run (13) among many, whose batches several lanes share."""
    runs = [await found.put(f"r{number:02}", "a") for number in range(24)]
    receiver = await found.put("X")
    found.bad.update(found.chance.sample(runs, found.chance.randrange(3)))
    stale = set(found.chance.sample(runs, 2)) - found.bad
    worker = found.worker("a")

    async def writes(run: str) -> None:
        await found.jitter()
        for seq in (1, 3):
            says = (found.says(run, receiver),)
            commit = turn(run, 0 if run in stale else 1, seq, messages=says)
            if run in found.bad:
                commit = commit._replace(entries=(entry("", b'{"x":"\\u0000"}'),))
            await found.commit(worker, commit)

    await asyncio.gather(*(writes(run) for run in runs), found.hold(found.chance.choice(runs)))


async def losing(found: Round) -> None:
    """Commits whose answers are lost (11), at every place where a connection can break."""
    proxy = found.storm.proxy
    assert proxy is not None
    receiver = await found.put("X", "c")

    async def writes(owner: str, run: str) -> None:
        for _ in range(4):
            await found.jitter()
            says = (found.says(run, receiver), found.says(run, receiver))
            await found.serve(found.worker(owner), run, await found.token(run), messages=says)

    async def breaks() -> None:
        await found.jitter(8)
        if not proxy.faults:
            strike = found.chance.choice([proxy.lose_answer, proxy.lose_statement, proxy.lose_client])
            strike("flush", after=found.chance.randrange(4))

    await asyncio.gather(
        writes("a", await found.put("s", "a")),
        writes("b", await found.put("t", "b")),
        writes("c", receiver),
        breaks(),
        found.hold(receiver),
    )


async def callers(found: Round) -> None:
    """Callers' open transactions that hold rows (10), longer than a flush is ready to wait."""
    runs = [await found.put(f"r{number}", "a") for number in range(5)]
    below = await found.put("r0/c", "b")

    async def holds() -> None:
        await found.jitter()
        run = found.chance.choice(runs)
        async with session(found.storm.url) as caller:
            await caller.begin()
            runs_cancelled = 0
            if found.chance.random() < 0.4:
                runs_cancelled = (await caller.cancel(run)).runs
            else:
                await caller.hold(run)
            await found.jitter(30)
            if found.chance.random() < 0.5:
                await caller.roll_back()
                return
            await caller.commit()
            if runs_cancelled:
                found.cancelled[run] = await found.entries_below(run)

    async def writes(owner: str, run: str) -> None:
        for _ in range(3):
            await found.jitter(10)
            says = (found.says(run, found.chance.choice(runs)),)
            await found.serve(found.worker(owner), run, 1, messages=says)

    async def closes() -> None:
        await found.jitter(10)
        cancels = (Cancellation(below, ""),)
        found.maybe.add((runs[0], "c"))
        await found.serve(found.worker("a"), runs[0], 1, cancels=cancels)

    await asyncio.gather(
        *(writes("a", run) for run in runs), writes("b", below), closes(), holds(), holds(), holds()
    )


ALL = (passivation, claims, takeover, cascade, closes, crossing, grouped, parking, neighbours)


# --- sides that several races have


async def _sends(found: Round, owner: str, sender: str, receiver: str, times: int = 2) -> None:
    for _ in range(times):
        await found.jitter()
        says = (found.says(sender, receiver), found.says(sender, receiver))
        await found.serve(found.worker(owner), sender, 1, messages=says)


async def _claims(found: Round, worker: Worker) -> None:
    for _ in range(2):
        await found.jitter()
        await found.claim(worker)


async def _serves(found: Round, owner: str | None, run: str, status: Status = KEEP) -> None:
    await found.jitter()
    name = owner or await found.db.one("select lease_owner from continuum.runs where run_id = $1", run)
    if name is not None:
        await found.serve(found.worker(name), run, 1, status)


async def _ends(found: Round, owner: str, run: str) -> None:
    await found.jitter()
    parent = run.rpartition("/")[0]
    await found.serve(found.worker(owner), run, 1, Complete(b"1"), messages=(found.says(run, parent),))


async def _starts_and_ends(found: Round, owner: str, run: str) -> None:
    """Start a child with a signal to it, and tasks, in one commit; then end."""
    await found.jitter()
    made = child(f"{run}/z")
    kid = type(made)(made.run_id, run, "z", made.depth, *found.flow, b"null", made.options)
    tasks = tuple(NewTask(f"k{9 - number}", found.prefix, "act", b"null") for number in range(3))
    found.maybe.update((run, task.key) for task in tasks)
    claimed = found.chance.randrange(2)
    says = (found.says(run, kid.run_id), found.says(run, kid.run_id))
    await found.serve(found.worker(owner), run, 1, children=(kid,), claimed=claimed, messages=says, tasks=tasks)
    await _ends(found, owner, run)


async def _parent(found: Round, run: str, children: tuple[str, str]) -> None:
    """Passivate, close with both children, go on as the next generation, park, or only read the mail."""
    worker = found.worker("a")
    await found.jitter()
    match found.chance.randrange(6):
        case 0 | 1:
            await found.serve(worker, run, 1, Passivate())
        case 2:
            cancels = tuple(Cancellation(kid, "") for kid in children)
            outcome = await found.serve(worker, run, 1, Complete(b"1"), cancels=cancels)
            for kid in children if isinstance(outcome, Committed) else ():
                if await _cancelled(found, kid):
                    found.cancelled[kid] = await found.entries_below(kid)
        case 3:
            await found.serve(worker, run, 1, next_generation())
            then: list[Status] = [KEEP, Passivate()]
            await found.serve(worker, run, 1, found.chance.choice(then))
        case 4:
            await found.serve(worker, run, 1, PARK)
        case _:
            await found.serve(worker, run, 1)


async def _ends_with_those_below(found: Round, top: str, kids: list[str], deep: list[str]) -> None:
    """End with all below, or with the first three children, or go on and cancel several at several depths."""
    await found.jitter(8)
    worker = found.worker("a")
    gone = kids[:3]
    match found.chance.randrange(3):
        case 0:
            outcome = await found.serve(worker, top, 1, STOPPED, descendants="cancel")
            gone = kids
        case 1:
            outcome = await found.serve(worker, top, 1, Complete(b"1"), descendants="close")
        case _:
            cancels = tuple(Cancellation(name, "") for name in (deep[0], *kids[:3][::-1], deep[2]))
            found.maybe.update((top, kid.rpartition("/")[2]) for kid in kids)
            found.maybe.update((name.rpartition("/")[0], "g") for name in deep)
            outcome = await found.serve(worker, top, 1, cancels=cancels)
    for kid in gone if isinstance(outcome, Committed) else ():
        if await _cancelled(found, kid):
            found.cancelled[kid] = await found.entries_below(kid)


async def _cancelled(found: Round, run: str) -> bool:
    ends = await found.worker().journal.ends([run])
    return run in ends and ends[run].state == "cancelled"


async def _works(found: Round) -> None:
    """A worker of the round's queue: it claims, renews and reports tasks while the run is cancelled, or is not."""
    worker = found.worker()
    for _ in range(2):
        await found.jitter(4)
        tasks = await worker.journal.claim_tasks(found.prefix, 10, 60)
        await worker.journal.renew_tasks([(task, None) for task in tasks], 60)
        await found.jitter(1)
        reports = [(task, message(task.run_id, task.key, kind="activity_completed")) for task in tasks]
        await worker.journal.report_tasks(reports[:2])
