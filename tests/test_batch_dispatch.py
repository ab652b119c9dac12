"""Who does which job next."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from musetalk_cli.config import DataFolder, JobConfig, RunConfig
from musetalk_cli.run.batch.dispatch import MAX_LOSSES, Dispatch, Retry
from musetalk_cli.run.batch.job import BatchJob

RUN = RunConfig(DataFolder(Path("m"), "flag"), DataFolder(Path("a"), "flag"), "demo")


def jobs_of(avatars):
    return [
        BatchJob(f"line {number}", name, Path(f"{number}.wav"), Path(f"{number}.mp4"), RUN, JobConfig())
        for number, name in enumerate(avatars)
    ]


def test_a_place_goes_on_with_the_avatar_it_has():
    dispatch = Dispatch(jobs_of("abababab"), 2)
    shown = ["", ""]
    for _ in range(4):
        for place in range(2):
            shown[place] += dispatch.begin(place, 0).job.avatar
            dispatch.end(place)
    assert shown == ["aaaa", "bbbb"]
    assert not dispatch.waiting


def test_a_place_without_work_of_its_own_helps_where_most_is_left():
    dispatch = Dispatch(jobs_of("abbbbb"), 2)
    assert dispatch.begin(0, 0).job.avatar == "b"
    assert dispatch.begin(1, 0).job.avatar == "b", "five for two places are more than one for none"
    dispatch.end(0)
    assert [dispatch.begin(0, 0).job.place for _ in "x"] == ["line 3"]


def test_a_lost_job_is_the_next_of_its_avatar_after_a_rest():
    dispatch = Dispatch(jobs_of("aa"), 2, Retry(tries=2, first_s=1.0))
    first = dispatch.begin(0, 0)
    assert dispatch.lose(0, 10) is None
    assert dispatch.begin(0, 10.9) is None, "the place rests"
    assert dispatch.begin(1, 10.9) is None, "the job rests too, and keeps its turn"
    again = dispatch.begin(1, 11)
    assert (again.job, again.number) == (first.job, 2)
    assert dispatch.lose(1, 20) is again, "it was begun twice"
    assert dispatch.begin(0, 20).job.place == "line 1"


def test_a_place_that_loses_every_worker_is_given_up():
    dispatch = Dispatch(jobs_of("a" * 9), 1, Retry(tries=9, first_s=0))
    for _ in range(MAX_LOSSES):
        assert dispatch.usable
        assert dispatch.begin(0, 0) is not None
        dispatch.lose(0, 0)
    assert dispatch.begin(0, 1e9) is None
    assert not dispatch.usable
    assert dispatch.waiting == 9


def test_the_rest_grows_and_a_job_that_ends_ends_the_losses():
    dispatch = Dispatch(jobs_of("a" * 9), 1, Retry(tries=9, first_s=1))
    dispatch.begin(0, 0)
    dispatch.lose(0, 0)
    dispatch.begin(0, 1)
    dispatch.lose(0, 1)
    assert dispatch.begin(0, 2.9) is None
    assert dispatch.begin(0, 3) is not None
    dispatch.end(0)
    assert dispatch.begin(0, 3) is not None


@given(
    st.text("abc", min_size=1, max_size=12),
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=200),
)
def test_every_job_ends_exactly_once_whatever_is_lost(avatars, places, happenings):
    jobs = jobs_of(avatars)
    dispatch = Dispatch(jobs, places, Retry(tries=2, first_s=0))
    ended = []
    for number, lost in [*happenings, *((n, False) for n in range(40 * places))]:
        place = number % places
        if dispatch.at(place) is None:
            dispatch.begin(place, 0)
        elif not lost:
            ended.append(dispatch.end(place).job)
        elif (given_up := dispatch.lose(place, 0)) is not None:
            ended.append(given_up.job)
    assert len(ended) == len({job.place for job in ended})
    if dispatch.usable:
        assert {job.place for job in ended} == {job.place for job in jobs}
    else:
        assert len(ended) + dispatch.waiting + dispatch.busy == len(jobs)
