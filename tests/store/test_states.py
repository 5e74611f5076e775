"""Claims about what clients keep between rounds, in memory and in a file."""

import tempfile
from abc import abstractmethod
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fedpact.core import Layout, Vector
from fedpact.core.errors import CheckpointError
from fedpact.store.states import ClientStates, StatesInMemory, states_for
from fedpact.store.states_on_disk import StatesOnDisk
from fedpact.store.tree import pack, unpack
from tests.store.client_states import CLIENTS, all_of, state


def through_a_checkpoint(contents: Any, like: Any) -> Any:
    return unpack(*pack(contents), like)


class LikeDicts(RuleBasedStateMachine):
    """Whatever is done to a store, it and each of its checkpoints hold what plain dicts do."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.states = self.new()
        self.kept: dict[str, int] = {}
        self.staged: dict[str, int | None] = {}
        self.round = 0
        self.checkpoints: dict[int, tuple[Any, dict[str, int]]] = {}

    @abstractmethod
    def new(self) -> ClientStates:
        """Return an empty store."""

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(id=st.sampled_from(CLIENTS), value=st.none() | st.integers(0, 99))
    def stage(self, id: str, value: int | None) -> None:
        self.states.stage(id, {} if value is None else state(value))
        self.staged[id] = value

    @rule()
    def commit(self) -> None:
        self.states.commit()
        kept = {**self.kept, **self.staged}
        self.kept, self.staged = {id: value for id, value in kept.items() if value is not None}, {}

    @rule()
    def discard(self) -> None:
        self.states.discard()
        self.staged = {}

    @rule(written=st.booleans())
    def checkpoint(self, written: bool) -> None:
        self.round += 1
        contents = pack(self.states.contents(self.round))
        if written:
            self.checkpoints[self.round] = contents, dict(self.kept)
            self.states.retain(self.checkpoints)

    @precondition(lambda self: len(self.checkpoints) > 1)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        del self.checkpoints[data.draw(st.sampled_from(sorted(self.checkpoints)[:-1]))]
        self.states.retain(self.checkpoints)

    @precondition(lambda self: self.checkpoints)
    @rule(data=st.data())
    def go_on_from(self, data: st.DataObject) -> None:
        self.round = data.draw(st.sampled_from(sorted(self.checkpoints)))
        self.checkpoints = {round: saved for round, saved in self.checkpoints.items() if round <= self.round}
        self.states = self.restored(self.round)
        self.states.retain(self.checkpoints)
        self.kept, self.staged = dict(self.checkpoints[self.round][1]), {}

    def restored(self, round: int) -> ClientStates:
        states = self.new()
        states.restore(unpack(*self.checkpoints[round][0], states.contents(0)))
        return states

    @invariant()
    def store_holds_what_the_dict_does(self) -> None:
        assert set(self.states.ids()) == self.kept.keys()
        assert len(self.states) == len(self.kept)
        for id in CLIENTS:
            assert self.states.get(id) == (state(self.kept[id]) if id in self.kept else {})

    @invariant()
    def each_checkpoint_holds_what_its_dict_does(self) -> None:
        for round, (_, kept) in self.checkpoints.items():
            assert all_of(self.restored(round)) == {id: state(value) for id, value in kept.items()}


class InMemory(LikeDicts):
    def new(self) -> ClientStates:
        return states_for(None)


class OnDisk(LikeDicts):
    def new(self) -> ClientStates:
        return states_for(Path(self.folder.name) / "states")


TestStatesInMemoryAreLikeDicts = InMemory.TestCase
TestStatesInMemoryAreLikeDicts.settings = settings(max_examples=25, stateful_step_count=25)
TestStatesOnDiskAreLikeDicts = OnDisk.TestCase
TestStatesOnDiskAreLikeDicts.settings = settings(max_examples=60, stateful_step_count=40)


@pytest.fixture(params=["memory", "disk"])
def states(request: pytest.FixtureRequest, tmp_path: Path) -> ClientStates:
    return states_for(None if request.param == "memory" else tmp_path / "states")


def test_what_is_staged_is_not_true_before_the_commit(states: ClientStates) -> None:
    states.stage("lyon", state(1))
    assert (states.get("lyon"), states.ids(), len(states)) == ({}, [], 0)
    states.commit()
    assert states.get("lyon") == state(1)


def test_of_what_was_staged_twice_the_last_becomes_true(states: ClientStates) -> None:
    for value in (1, 2):
        states.stage("lyon", state(value))
    states.commit()
    assert states.get("lyon") == state(2)


def test_round_that_failed_leaves_every_client_what_it_kept(states: ClientStates) -> None:
    states.stage("lyon", state(1))
    states.commit()
    states.stage("lyon", state(2))
    states.stage("nice", state(3))
    states.discard()
    states.commit()
    assert all_of(states) == {"lyon": state(1)}


def test_view_leaves_out_who_keeps_nothing_and_stays_as_it_was_while_the_next_round_is_staged(
    states: ClientStates,
) -> None:
    for id in ("lyon", "nice"):
        states.stage(id, state(1))
    states.commit()
    view = states.view(["lyon", "paris"])
    states.stage("lyon", state(2))
    assert dict(view) == {"lyon": state(1)}
    assert len(view) == 1
    assert view.get("paris", {}) == {}


def test_states_without_an_element_are_states(tmp_path: Path) -> None:
    empty = {"control": Vector.zeros(Layout([]))}
    states = StatesOnDisk(tmp_path / "states")
    states.stage("lyon", empty)
    states.commit()
    contents = states.contents(1)
    again = StatesOnDisk(tmp_path / "states")
    again.restore(contents)
    assert all_of(again) == {"lyon": empty}


def test_run_in_memory_goes_on_in_a_file(tmp_path: Path) -> None:
    before, after = StatesInMemory(), StatesOnDisk(tmp_path / "states")
    for value, id in enumerate(CLIENTS):
        before.stage(id, state(value))
    before.commit()
    after.restore(through_a_checkpoint(before.contents(3), after.contents(0)))
    assert all_of(after) == all_of(before)


def test_run_in_a_file_does_not_go_on_in_memory(tmp_path: Path) -> None:
    before = StatesOnDisk(tmp_path / "states")
    before.stage("lyon", state(1))
    before.commit()
    with pytest.raises(CheckpointError, match="keeps its clients' states in a file: resume it so"):
        StatesInMemory().restore(before.contents(1))
