from dietnerf_ns.semantic.schedule import SemanticSchedule


def due_steps(total=100, **settings):
    schedule = SemanticSchedule.of_run(**{"start": 0, "stop": 0.8} | settings, total_steps=total)
    return [step for step in range(total) if schedule.is_due(step)]


def test_start_and_stop_are_fractions_of_the_run_or_steps():
    assert due_steps(every=10) == [0, 10, 20, 30, 40, 50, 60, 70]
    assert due_steps(every=30, start=0.2, stop=1.0) == [20, 50, 80]
    assert due_steps(every=30, start=5, stop=70) == [5, 35, 65]
    assert due_steps(every=1, stop=0) == []


def test_the_first_semantic_step_from_a_step_on():
    schedule = SemanticSchedule(first_step=20, end_step=80, every=25)
    assert [schedule.next_step(step) for step in (0, 20, 21, 45, 70, 71)] == [20, 20, 45, 45, 70, None]


def test_the_active_part_of_a_run_ends_before_stop():
    schedule = SemanticSchedule(first_step=20, end_step=80, every=10)
    assert [schedule.is_active(step) for step in (19, 20, 79, 80)] == [False, True, True, False]
