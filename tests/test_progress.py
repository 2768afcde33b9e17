"""What is told of long work."""

import threading
import time

from factorvae.progress import Activity


def test_work_that_is_busy_in_one_call_is_told_of(capsys):
    """From another thread, with how far it says it has come."""
    told, before = "", threading.active_count()
    with Activity("metrics", seconds=0.01) as activity:
        activity.begin(2)
        with activity.at("mig"):
            pass
        with activity.at("dci"):
            activity.tell("dci", "stage 3 of 100")
            until = time.monotonic() + 10
            while "stage 3" not in told and time.monotonic() < until:
                time.sleep(0.01)
                told += capsys.readouterr().err
    assert "1 of 2 metrics done; at work: dci, stage 3 of 100\n" in told
    assert activity.done == 2 and threading.active_count() == before


def test_quick_work_is_not_told(capsys):
    with Activity("metrics") as activity:
        activity.begin(1)
        with activity.at("mig"):
            pass
    assert capsys.readouterr().err == ""
