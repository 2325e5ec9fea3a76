"""Bugs of the journal: who may write a run, who takes over from whom, and what a cascade reaches."""

from __future__ import annotations

from tests.mutants.mutant import Check, Mutant, Replacement

FLUSH = "_journal/sql/flush.sql"
TAKE_OVER = "_journal/sql/take_over.sql"
IN_MEMORY = "_journal/memory"

FENCING = (
    Mutant(
        "no-fence",
        "a flush does not look whose lease it is",
        "one writer",
        (
            Replacement(
                FLUSH,
                "where l.run_id = o.r and l.lease_owner = :worker and l.lease_token = o.tok)),",
                "where l.run_id = o.r)),",
            ),
        ),
        (
            Check("journal", "journal/test_commit.py::test_a_commit_under_an_old_token_changes_nothing"),
            Check("conformance", "conformance/test_leases.py::test_a_stale_commit_is_rejected_whole"),
        ),
        (
            Replacement(
                f"{IN_MEMORY}/writing.py",
                """    if run is None or run.owner is None or run.owner != worker or run.token != commit.token:
""",
                "    if run is None:\n",
            ),
        ),
    ),
    Mutant(
        "fence-without-lock",
        "a flush judges its runs by rows that it has not locked, as they were before it waited",
        "one writer",
        (Replacement(FLUSH, "order by depth, run_id for update),", "order by depth, run_id),"),),
        (
            Check(
                "races", "journal/races/test_takeover.py::test_a_flush_that_waits_for_a_takeover_is_fenced_by_it"
            ),
            Check("races", "journal/races/test_batches.py::test_a_group_that_waits_for_a_cascade_falls_whole"),
        ),
    ),
    Mutant(
        "token-not-raised-at-takeover",
        "a takeover frees the lease and leaves its token",
        "one writer",
        (
            Replacement(
                TAKE_OVER,
                "lease_owner = null, lease_token = r.lease_token + 1, suspected = true,",
                "lease_owner = null, suspected = true,",
            ),
        ),
        (Check("conformance", "conformance/test_leases.py::test_a_takeover_raises_the_token"),),
        (
            Replacement(
                f"{IN_MEMORY}/store.py",
                """        run.token += 1
        run.suspected = True
""",
                "        run.suspected = True\n",
            ),
        ),
        harmless_alone=True,
    ),
    Mutant(
        "sweep-right-after-reconnect",
        "a worker takes over from others that was not connected itself for a lease time",
        "one writer",
        (
            Replacement(
                "_journal/sql/declare_dead.sql",
                " and connected_at <= now() - lease_s * interval '1 second'",
                "",
            ),
        ),
        (
            Check("journal", "journal/test_workers.py::test_who_has_just_connected_takes_over_from_nobody"),
            Check("conformance", "conformance/test_crash.py::test_after_an_outage_nobody_takes_over_from_anybody"),
        ),
        (
            Replacement(
                f"{IN_MEMORY}/store.py",
                " and worker.connected_us <= now - worker.lease_us:",
                ":",
            ),
        ),
    ),
    Mutant(
        "suspects-all-charged",
        "a death is charged to every run of a worker that was trying one",
        "bad input never wedges the engine",
        (
            Replacement(
                TAKE_OVER,
                "where w.worker_id = q.lease_owner and w.suspect_run_id = q.run_id))",
                "where w.worker_id = q.lease_owner and w.suspect_run_id is not null))",
            ),
        ),
        (
            Check("journal", "journal/test_workers.py::test_only_the_named_run_is_charged"),
            Check(
                "conformance",
                "conformance/test_crash.py::test_a_run_that_kills_workers_is_parked_at_the_third_death",
            ),
        ),
        (
            Replacement(
                f"{IN_MEMORY}/store.py",
                "owner.suspect == run.run_id",
                "owner.suspect is not None",
            ),
        ),
    ),
)

CASCADES = (
    Mutant(
        "cascade-one-level-short",
        "a cascade leaves out the deepest level",
        "parent and child are one database",
        (
            Replacement(
                "_journal/sql/cancel_deeper.sql",
                "select min(depth) as depth from",
                "select nullif(min(depth), max(depth)) as depth from",
            ),
        ),
        (Check("conformance", "conformance/test_cancel.py::test_a_cascade_reaches_every_level"),),
        (
            Replacement(
                f"{IN_MEMORY}/cascade.py",
                "in tables.descendants(run_id):",
                "in list(tables.descendants(run_id))[:-1]:",
            ),
        ),
    ),
    Mutant(
        "cascade-in-one-statement",
        "all levels are cancelled by one statement, which sees no child that a run it waits for has started",
        "parent and child are one database",
        (
            Replacement("_journal/sql/cancel_level.sql", "and depth = :depth", "and depth >= :depth"),
            Replacement(
                "_journal/cascade.py",
                "        done.owners.update(owners or ())\n",
                "        done.owners.update(owners or ())\n        if not begun:\n            break\n",
            ),
        ),
        (
            Check(
                "races",
                "journal/races/test_cascade.py"
                "::test_a_grandchild_started_while_its_level_is_waited_for_does_not_escape",
            ),
        ),
    ),
)

CLOSES = "conformance/test_closes.py::test_a_close_ends_the_children_that_close_with_it_and_all_below_those"
ENDINGS = (
    Mutant(
        "close-takes-every-child",
        "a run that ends cancels its abandoned children, too",
        "parent and child are one database",
        (Replacement("_journal/sql/list_closing.sql", " and on_parent_close = 'cancel'", ""),),
        (Check("conformance", CLOSES),),
        (Replacement(f"{IN_MEMORY}/cascade.py", ' and tables.runs[kid].on_parent_close == "cancel"', ""),),
    ),
    Mutant(
        "close-forgets-a-deeper-level",
        "what lies below a child that closes with its parent goes on",
        "parent and child are one database",
        (
            Replacement(
                "_journal/cascade.py",
                "                trees[run_id] = begun[run_id].because\n",
                """                if b"parent_closed" not in begun[run_id].error:
                    trees[run_id] = begun[run_id].because
""",
            ),
        ),
        (
            Check("conformance", CLOSES),
            Check(
                "races",
                "journal/races/test_closes.py"
                "::test_a_child_started_while_a_cascade_of_many_waits_for_its_parent_does_not_escape",
            ),
        ),
        (
            Replacement(
                f"{IN_MEMORY}/cascade.py",
                "        trees[root.run_id] = root.because\n",
                """        if b"parent_closed" not in root.error:
            trees[root.run_id] = root.because
""",
            ),
        ),
    ),
    Mutant(
        "close-after-the-commit",
        "a parent's end is durable before its children are cancelled",
        "parent and child are one database",
        (
            Replacement(
                "_journal/large.py",
                """            if group.cascades:
                done.cascade = await inside.take(bringing_about(self._schema, commits))
            await self._hooks.reach("large.written")
        await self._hooks.reach("large.committed")
""",
                """            await self._hooks.reach("large.written")
        await self._hooks.reach("large.committed")
        if group.cascades:
            async with transaction(self._lane, connection, self._hooks, lock_timeout=LOCK_TIMEOUT) as inside:
                done.cascade = await inside.take(bringing_about(self._schema, commits))
""",
            ),
        ),
        (
            Check(
                "races",
                "journal/races/test_closes.py::test_a_commit_of_a_child_that_waits_for_the_cascade_is_fenced",
            ),
        ),
    ),
    Mutant(
        "late-cancel-of-an-ended-run",
        "a cascade cancels the run that it begins with, also if that has ended",
        "what has ended stays as it is",
        (
            Replacement(
                "_journal/sql/cancel_level.sql", "(select run_id from l where live)", "(select run_id from l)"
            ),
        ),
        (
            Check("conformance", "conformance/test_overdue.py::test_a_run_that_ends_in_time_is_left_as_it_is"),
            Check("conformance", "conformance/test_cancel.py::test_an_ended_run_stays_as_it_is"),
            Check(
                "races",
                "journal/races/test_closes.py::test_a_late_cancel_that_waits_for_a_completion_leaves_it",
            ),
        ),
        (
            Replacement(
                f"{IN_MEMORY}/cascade.py", "if run is None or not run.live or any(", "if run is None or any("
            ),
            Replacement(
                f"{IN_MEMORY}/store.py",
                "        for run_id in [run_id for _, run_id in due if run_id not in live]:\n"
                "            del self.cancellations[run_id]\n"
                "        for run_id in [run_id for _, run_id in due if run_id in live]",
                "        live.update(run_id for _, run_id in due)\n"
                "        for run_id in [run_id for _, run_id in due if run_id in live]",
            ),
        ),
    ),
    Mutant(
        "second-request-lengthens-the-deadline",
        "who asks a run again to stop gives it more time",
        "who asks is answered in time",
        (
            Replacement(
                "_journal/sql/request_cancel.sql",
                "least(c.due_at, excluded.due_at)",
                "greatest(c.due_at, excluded.due_at)",
            ),
        ),
        (Check("conformance", "conformance/test_overdue.py::test_asked_again_the_earlier_deadline_counts"),),
        (Replacement(f"{IN_MEMORY}/store.py", "min(before_us, due_us), said", "max(before_us, due_us), said"),),
        harmless_alone=True,
    ),
    Mutant(
        "mail-hurries-the-next-attempt",
        "a run that waits for its next attempt begins it as soon as it has mail",
        "durable timers",
        (
            Replacement(
                "_journal/sql/poke.sql",
                "and (q.state <> 'pending' or i.type = 'cancel_requested')",
                "and true",
            ),
            Replacement("_journal/sql/poke.sql", "or q.state = 'pending' and (", "or ("),
        ),
        (Check("conformance", "conformance/test_due_generations.py::test_mail_makes_it_begin_no_sooner"),),
        (Replacement(f"{IN_MEMORY}/tables.py", 'return run.state != "pending" or asked', "return True"),),
        harmless_alone=True,
    ),
)

IN_LEASES = (*FENCING, *CASCADES, *ENDINGS)
