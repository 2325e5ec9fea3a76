"""Bugs above the journal: of the machine, and of what brings runs forward."""

from __future__ import annotations

from tests.mutants.mutant import Check, Mutant, Replacement

TURNS = "_engine/turns.py"
TASKS = "_core/tasks.py"
MAPPING = "mapping.py"

IN_CORE = (
    Mutant(
        "set-order",
        "tasks and futures hash by address, so that sets of them iterate in another order each time",
        "deterministic replay",
        (
            Replacement(
                TASKS,
                "owing._deliver()\n\n    def __hash__(self) -> int:\n        return self.identity\n",
                "owing._deliver()\n\n    def __hash__(self) -> int:\n        return object.__hash__(self)\n",
            ),
            Replacement(
                TASKS,
                "    identity: int\n\n    def __hash__(self) -> int:\n        return self.identity\n",
                "    identity: int\n\n    def __hash__(self) -> int:\n        return object.__hash__(self)\n",
            ),
        ),
        (
            Check("core", "core/test_set_order.py::test_tasks_and_futures_hash_alike_in_every_replay"),
            Check(
                "programs",
                "programs/test_programs.py::test_programs_replay_in_another_process_and_hash_seed",
                {"CONTINUUM_PROGRAMS": "150"},
            ),
        ),
    ),
    Mutant(
        "host-clock-in-the-machine",
        "a turn's time is the host's, not the event's",
        "deterministic replay",
        (
            Replacement(
                "_core/machine.py",
                "import asyncio\nfrom collections",
                "import asyncio\nimport time\nfrom collections",
            ),
            Replacement(
                "_core/machine.py",
                "        if at_us > loop.now_us:\n            loop.now_us = at_us\n",
                "        loop.now_us = time.time_ns() // 1000\n",
            ),
        ),
        (
            Check("core", "core/test_time_and_chance.py::test_now_is_the_recorded_time_on_replay"),
            Check("core", "core/test_transcripts.py::test_a_run_reads_as_its_transcript"),
        ),
    ),
    Mutant(
        "early-signal-dropped-at-continue-as-new",
        "a new generation does not get the signals that nobody had read",
        "no lost message",
        (
            Replacement(
                "_core/closings.py",
                "c.ContinueRun(given, machine.signals.unread(), ",
                "c.ContinueRun(given, (), ",
            ),
        ),
        (
            Check("core", "core/test_continue_as_new.py::test_unread_signals_are_carried_over_in_order"),
            Check("conformance", "conformance/test_generations_run.py::test_unread_signals_are_copied_in_order"),
        ),
    ),
    Mutant(
        "retry-after-a-request-to-stop",
        "a run that was asked to stop and fails is tried again",
        "nobody escapes a cancellation",
        (
            Replacement(
                "_core/closings.py",
                "started is not None and machine.cancelled is None:",
                "started is not None:",
            ),
        ),
        (
            Check("core", "core/test_child_retry.py::test_what_was_asked_to_stop_is_not_tried_again"),
            Check("conformance", "conformance/test_grace.py::test_a_run_whose_clean_up_fails_has_failed"),
        ),
    ),
    Mutant(
        "close-forgotten-at-continue-as-new",
        "a later generation does not know that a child of an earlier one is to be closed",
        "parent and child are one",
        (
            Replacement(
                "_core/closings.py",
                "family.deadlines(), family.closes)",
                "family.deadlines())",
            ),
        ),
        (
            Check(
                "core",
                "core/test_parent_close.py::"
                "test_going_on_as_another_generation_is_no_close_and_the_last_one_closes",
            ),
            Check(
                "conformance",
                "conformance/test_parent_close.py::"
                "test_a_chain_closes_the_children_of_all_its_generations_at_its_end",
            ),
        ),
    ),
)

IN_FAMILIES = (
    Mutant(
        "map-with-one-child-too-many",
        "a map starts children until more than its window are in flight",
        "a limit on everything",
        (
            Replacement(
                MAPPING,
                "elif self._pulling is not None and len(self._open) < self._policy.concurrency:",
                "elif self._pulling is not None and len(self._open) <= self._policy.concurrency:",
            ),
            Replacement(
                MAPPING,
                "while len(self._open) >= self._policy.concurrency:",
                "while len(self._open) > self._policy.concurrency:",
            ),
        ),
        (
            Check(
                "core",
                "core/test_map_children.py"
                "::test_a_fresh_map_starts_as_many_as_it_may_and_the_next_in_the_turn_that_makes_room",
            ),
            Check(
                "core",
                "core/test_map_children.py::test_a_source_may_await_activities_and_is_asked_when_there_is_room",
            ),
            Check(
                "conformance",
                "conformance/test_mapping.py::test_never_more_children_than_asked_for_are_in_flight",
            ),
        ),
    ),
    Mutant(
        "map-decided-without-an-entry",
        "what a map came to is not recorded, and a replay may come to something else",
        "deterministic replay",
        (Replacement(MAPPING, "        self._loop.machine.decisions.decide(decision, self._scope.path)\n", ""),),
        (
            Check("core", "core/test_map_children.py::test_a_replay_under_another_policy_diverges"),
            Check("conformance", "conformance/test_mapping.py::test_those_that_decided_a_map_survive_a_replay"),
        ),
    ),
    Mutant(
        "rest-of-a-map-left-running",
        "a map that is decided early does not cancel the children in flight",
        "nobody escapes a cancellation",
        (Replacement(MAPPING, '        self._leave("the map that started it was decided")\n', ""),),
        (
            Check(
                "core", "core/test_map_children.py::test_the_first_that_complete_decide_and_the_rest_is_cancelled"
            ),
            Check("conformance", "conformance/test_mapping.py::test_those_that_decided_a_map_survive_a_replay"),
        ),
    ),
    Mutant(
        "early-signal-dropped-at-a-retry",
        "the next attempt does not get the signals that nobody had read",
        "no lost message",
        (
            Replacement(
                "_core/closings.py",
                "                machine.signals.unread(),\n                family.deadlines(),",
                "                (),\n                family.deadlines(),",
            ),
        ),
        (
            Check("core", "core/test_child_retry.py::test_what_was_not_read_and_who_lives_is_handed_on"),
            Check(
                "conformance",
                "conformance/test_child_retries.py::test_what_an_attempt_has_not_read_the_next_one_reads",
            ),
        ),
    ),
)

IN_ENGINE = (
    Mutant(
        "activity-started-before-its-cause-is-durable",
        "requests of a turn are acted on when it is taken, not when it is committed",
        "durable before visible",
        (
            Replacement(
                TURNS,
                "            run.committing = True\n            if taken.outcome",
                "            run.committing = True\n"
                "            for request in taken.requests:\n"
                "                self.ask(run, request)\n"
                "            taken.requests.clear()\n"
                "            if taken.outcome",
            ),
            Replacement(
                "_engine/engine.py",
                "        self.turns.aftermath = self.aftermath.after\n",
                "        self.turns.aftermath = self.aftermath.after\n"
                "        self.turns.ask = self.aftermath._ask  # type: ignore[attr-defined]\n",
            ),
        ),
        (
            Check(
                "conformance",
                "conformance/test_commits_of_a_run.py::test_no_activity_begins_before_what_caused_it_is_durable",
            ),
        ),
    ),
    Mutant(
        "second-commit-in-flight",
        "a run has its turn though a commit of it is under way",
        "one writer",
        (
            Replacement(
                TURNS,
                "if not (run.queued or run.committing or run.loading or run.gone):",
                "if not (run.queued or run.loading or run.gone):",
            ),
            Replacement(
                TURNS, "if not (run.gone or run.committing or run.loading):", "if not (run.gone or run.loading):"
            ),
        ),
        (Check("conformance", "conformance/test_commits_of_a_run.py::test_a_run_has_one_commit_under_way"),),
    ),
    Mutant(
        "message-handed-out-twice",
        "mail that is read again before it is consumed reaches its run again",
        "no lost message",
        (
            Replacement(
                "_engine/mailroom.py",
                "            if message.id in run.known_mail:\n                continue\n",
                "",
            ),
        ),
        (Check("conformance", "conformance/test_commits_of_a_run.py::test_a_run_has_one_commit_under_way"),),
    ),
    Mutant(
        "outcome-delivered-without-the-childs-end",
        "a parent hears of a child's end, and the commit that ends the child is left out",
        "parent and child are one database",
        (
            Replacement(
                TURNS,
                "parent.arrivals.append(Arrival(event, None, (taken,)))",
                "parent.arrivals.append(Arrival(event))",
            ),
        ),
        (Check("conformance", "conformance/test_children.py::test_a_childs_result_comes_back"),),
    ),
    Mutant(
        "wake-dropped-at-passivation",
        "a run that leaves memory does not say when its earliest timer is due",
        "no lost wake-up",
        (
            Replacement(
                "_engine/cache.py",
                "Passivate(wakeup_us, run.machine.waiting_for())",
                "Passivate(None, run.machine.waiting_for())",
            ),
        ),
        (Check("conformance", "conformance/test_serving.py::test_due_timers_fire_after_downtime"),),
    ),
    Mutant(
        "overdue-runs-never-looked-for",
        "no worker cancels a run whose grace is over",
        "nobody escapes a cancellation",
        (
            Replacement(
                "_engine/engine.py",
                '"cancelling what is overdue", partial(cancel_overdue, journal), overdue)',
                '"cancelling what is overdue", partial(asyncio.sleep, 0))',
            ),
        ),
        (
            Check(
                "conformance",
                "conformance/test_grace.py::test_a_run_that_does_not_stop_is_cancelled_when_the_grace_is_over",
            ),
            Check("conformance", "conformance/test_grace.py::test_the_grace_of_runs_that_nobody_has_passes_too"),
        ),
        harmless_alone=True,
    ),
    Mutant(
        "own-residents-inbox-not-polled",
        "a worker waits for hints of mail to the runs that it holds",
        "no lost wake-up",
        (
            Replacement(
                "_engine/engine.py",
                '        yield self._every(poll_s, "looking for mail", mail.once, self._look_at_mail)\n',
                "",
            ),
        ),
        (Check("conformance", "conformance/test_commits_of_a_run.py::test_mail_that_nobody_speaks_of_is_found"),),
        harmless_alone=True,
    ),
)

IN_CORE_AND_ENGINE = (*IN_CORE, *IN_FAMILIES, *IN_ENGINE)
