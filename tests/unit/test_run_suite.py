"""What the suite's runner makes of trial's words: a mistake here would hide all others."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.run_suite import trial_result

RULE = "-" * 79


class TrialResultTests(SynchronousTestCase):
    def check(self, line: str, status: int, passed: int, failed: int) -> str:
        result = trial_result(f"x ... [OK]\n{RULE}\nRan 12 tests in 1.234s\n\n{line}\n", status)
        self.assertEqual(result[:2], (passed, failed))
        return result[2]

    def test_all_passed(self) -> None:
        self.assertEqual(self.check("PASSED (successes=12)", 0, 12, 0), "")

    def test_some_failed(self) -> None:
        self.assertEqual(self.check("FAILED (failures=1, errors=2, successes=9)", 1, 9, 3), "1 failures, 2 errors")

    def test_skipped_tests_have_failed(self) -> None:
        self.check("PASSED (skips=2, successes=10)", 0, 10, 2)

    def test_so_have_expected_failures_and_unexpected_successes(self) -> None:
        self.check("PASSED (expectedFailures=1, unexpectedSuccesses=1, successes=10)", 0, 10, 2)

    def test_no_tests_are_a_failure(self) -> None:
        self.check("PASSED", 0, 0, 1)

    def test_the_exit_status_counts(self) -> None:
        self.check("PASSED (successes=12)", 3, 12, 1)

    def test_no_result_is_a_failure(self) -> None:
        self.assertEqual(trial_result("Traceback …\n", 1)[:2], (0, 1))
        self.assertEqual(trial_result("", 0)[:2], (0, 1))

    def test_the_last_result_counts(self) -> None:
        text = "PASSED (successes=99)\n" + f"{RULE}\nRan 1 tests in 0.1s\n\nFAILED (failures=1)\n"
        self.assertEqual(trial_result(text, 1)[:2], (0, 1))
