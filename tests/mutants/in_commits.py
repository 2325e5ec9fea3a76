"""Bugs of the journal: what a commit writes, what becomes of it in trouble, and what is said after it."""

from __future__ import annotations

from tests.mutants.mutant import Check, Mutant, Replacement

FLUSH = "_journal/sql/flush.sql"
FLUSHER = "_journal/flusher.py"
IN_MEMORY = "_journal/memory"

COMMITS = (
    Mutant(
        "message-deleted-before-it-is-recorded",
        "a commit that is void consumes its messages all the same",
        "no lost message",
        (
            Replacement(
                FLUSH,
                "    where (c0.r in (select r from ok)) is true)))",
                "    where true)))",
            ),
        ),
        (
            Check("journal", "journal/test_stale.py::test_a_stale_commit_writes_nothing_at_all"),
            Check(
                "conformance",
                "conformance/test_messages.py::test_what_consumes_mail_that_is_journaled_already_is_void",
            ),
        ),
        (
            Replacement(
                f"{IN_MEMORY}/writing.py",
                """            done.outcomes.append(found)
            continue
""",
                """            done.outcomes.append(found)
            for commit in group:
                for number in commit.consumed:
                    tables.inbox.get(commit.run_id, {}).pop(number, None)
            continue
""",
            ),
        ),
    ),
    Mutant(
        "message-recorded-twice",
        "a commit may consume a message that is in the journal already",
        "no lost message",
        (
            Replacement(
                FLUSH,
                "    and r not in (select r from fenced)),",
                "    and r not in (select r from fenced) and false),",
            ),
        ),
        (
            Check("journal", "journal/test_stale.py::test_a_stale_commit_writes_nothing_at_all"),
            Check(
                "conformance",
                "conformance/test_messages.py::test_what_consumes_mail_that_is_journaled_already_is_void",
            ),
        ),
        (
            Replacement(
                f"{IN_MEMORY}/writing.py",
                """    if any(number not in box for number in commit.consumed):
        return Stale()
""",
                "",
            ),
        ),
        harmless_alone=True,
    ),
    Mutant(
        "child-inserted-without-its-parents-entry",
        "a commit that is void starts its children all the same",
        "parent and child are one database",
        (
            Replacement(
                FLUSH,
                "from k0 k join ok on ok.r = k.r join l on l.run_id = k.r order by k.id",
                "from k0 k join l on l.run_id = k.r order by k.id",
            ),
        ),
        (
            Check(
                "races",
                "journal/races/test_batches.py::test_the_message_and_the_child_of_an_undone_commit_are_undone_too",
            ),
            Check("conformance", "conformance/test_leases.py::test_a_stale_commit_is_rejected_whole"),
        ),
        (
            Replacement(
                f"{IN_MEMORY}/writing.py",
                """            done.outcomes.append(found)
            continue
""",
                """            done.outcomes.append(found)
            for kid in _children([group]):
                if kid.run_id not in tables.runs:
                    _bear(tables, tables.runs[kid.run_id.rpartition("/")[0]], kid, None)
            continue
""",
            ),
        ),
    ),
    Mutant(
        "child-without-its-parents-attributes",
        "a child has only the attributes that it was started with",
        "children inherit labels",
        (
            Replacement(
                FLUSH,
                "case when k.attr is null then l.attributes else coalesce(l.attributes, '{}') || k.attr end",
                "k.attr",
            ),
        ),
        (Check("conformance", "conformance/test_context.py::test_labels_are_inherited_over_three_levels"),),
        (
            Replacement(
                f"{IN_MEMORY}/writing.py", "    attributes = parent.attributes\n", "    attributes = None\n"
            ),
        ),
        harmless_alone=True,
    ),
    Mutant(
        "both-sides-of-an-edge-not-falling-together",
        "of a group only the commit that is refused falls",
        "parent and child are one database",
        (Replacement(FLUSH, "on mate.grp = b.grp", "on mate.r = b.r"),),
        (
            Check("journal", "journal/test_commit.py::test_a_group_stands_or_falls_together"),
            Check("races", "journal/races/test_batches.py::test_a_childs_end_and_its_parents_entry_fall_together"),
            Check(
                "conformance",
                "conformance/test_messages.py::test_what_consumes_mail_that_is_journaled_already_is_void",
            ),
        ),
        (
            Replacement(
                f"{IN_MEMORY}/writer.py",
                "[group.commits for group in batch]",
                "[(commit,) for group in batch for commit in group.commits]",
            ),
            Replacement(
                f"{IN_MEMORY}/writer.py",
                "        for group, outcomes in zip(batch, done.outcomes, strict=True):\n",
                """        found = iter(done.outcomes)
        for group in batch:
            parts = [next(found) for _ in group.commits]
            outcomes = None if None in parts else tuple(part[0] for part in parts if part)
""",
            ),
        ),
    ),
    Mutant(
        "unknown-outcome-re-sent",
        "a flush whose answer is lost is sent again",
        "activities are recorded exactly once",
        (
            Replacement(
                FLUSHER,
                """got no answer: %s", len(groups), error)
                for group in groups:
                    group.settle(Unknown() for _ in group.members)
                doubt(self._hints, groups)
                return
""",
                """got no answer: %s", len(groups), error)
                await backoff.pause()
""",
            ),
        ),
        (
            Check(
                "races",
                "journal/races/test_lost_answers.py"
                "::test_a_commit_without_an_answer_is_unknown_and_is_not_sent_again",
            ),
            Check(
                "conformance",
                "conformance/test_leases.py::test_an_unknown_outcome_is_resolved_and_nothing_is_doubled",
            ),
        ),
        (
            Replacement(
                f"{IN_MEMORY}/writer.py",
                """            for group in batch:
                writer.doubt(group)
            return
""",
                """            self._waiting[:0] = batch
            return
""",
            ),
        ),
    ),
    Mutant(
        "batch-not-split-on-error",
        "whoever travels with a commit that Postgres refuses is rejected too",
        "bad input never wedges the engine",
        (
            Replacement(
                FLUSHER,
                """        elif is_of_values(error) and len(groups) == 1:
            await self._reject(groups[0], error)
            return True
""",
                """        elif is_of_values(error):
            for group in groups:
                await self._reject(group, error)
            return True
""",
            ),
        ),
        (
            Check("conformance", "conformance/test_leases.py::test_one_bad_commit_does_not_fail_its_neighbours"),
            Check(
                "races",
                "journal/races/test_batches.py::test_a_bad_value_in_a_batch_of_200_costs_its_neighbours_nothing",
            ),
        ),
    ),
)

WAKING = (
    Mutant(
        "poke-left-out-by-the-sender",
        "who sends a message does not arm its receiver",
        "no lost wake-up",
        (
            Replacement(
                "_journal/hints.py",
                "        self.arm(near)\n        self.arm(far)\n        self.say(",
                "        self.say(",
            ),
        ),
        (
            Check("conformance", "conformance/test_wakes.py::test_a_message_wakes_a_run_that_left_before"),
            Check(
                "races",
                "journal/races/test_mail.py::test_a_hint_is_not_heard_before_what_it_tells_is_durable",
            ),
        ),
        (
            Replacement(
                f"{IN_MEMORY}/hints.py",
                """        self.arm(near)
        self.arm(far)
""",
                "",
            ),
        ),
        harmless_alone=True,
    ),
    Mutant(
        "poke-left-out-by-the-passivator",
        "who gives up a lease does not look for mail that came meanwhile",
        "no lost wake-up",
        (Replacement("_journal/batch.py", "    if passivated:\n        hints.arm(passivated)\n", ""),),
        (
            Check(
                "conformance", "conformance/test_wakes.py::test_a_run_that_leaves_beside_its_mail_wakes_at_once"
            ),
            Check(
                "races",
                "journal/races/test_mail.py"
                "::test_whoever_commits_later_wakes_a_run_that_passivates_beside_a_message",
            ),
        ),
        (
            Replacement(
                f"{IN_MEMORY}/hints.py",
                """            case Passivate() | Continue(wakeup_us=int()):
                self.arm([commit.run_id])
""",
                """            case Passivate():
                pass
""",
            ),
        ),
        harmless_alone=True,
    ),
)

IN_COMMITS = (*COMMITS, *WAKING)
