"""Claims about memory that processes share, and the queue that they take ranges from."""

import os
from multiprocessing import get_context

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fedpact.core.vector import Entry, Layout, Vector
from fedpact.engine.shared import Queue, SharedMemory

numbers = arrays(st.sampled_from([np.float32, np.int64, np.uint8]), array_shapes(max_side=40))


FORK = get_context("fork")


def forked(run, count=1):
    """Run `run(connection)` in forked processes, and return connections to them."""
    connections = []
    for _ in range(count):
        mine, theirs = FORK.Pipe()
        FORK.Process(target=run, args=(theirs,), daemon=True).start()
        connections.append(mine)
    return connections


@given(st.dictionaries(st.text(), numbers), st.booleans())
def test_what_is_packed_is_unpacked_the_same(value, own):
    memory = SharedMemory()
    found = memory.unpack(memory.pack(value), own)
    assert found.keys() == value.keys()
    for name, array in value.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


def test_a_vector_comes_out_with_its_views():
    memory, vector = SharedMemory(), Vector.zeros(Layout([Entry("w", (1000,)), Entry("n", (), "int64")]))
    vector["w"] = np.arange(1000)
    for own in (False, True):
        found = memory.unpack(memory.pack(vector), own)
        assert found == vector
        found["w"][3] = -1
        assert found.flats[0][3] == -1


def test_what_another_process_writes_is_seen_without_sending_it():
    memory = SharedMemory()
    parcel = memory.pack(np.zeros(10_000))

    def write(connection):
        memory.unpack(parcel)[:] = 7
        connection.send("done")

    assert forked(write)[0].recv() == "done"
    assert (memory.unpack(parcel) == 7).all()
    assert len(parcel.small) < 200


def test_what_is_owned_stays_when_the_memory_is_used_again():
    memory = SharedMemory()
    parcel = memory.pack(np.full(10_000, 1.0))
    view, own = memory.unpack(parcel), memory.unpack(parcel, own=True)
    memory.clear()
    memory.pack(np.full(10_000, 2.0))
    assert (view == 2).all()
    assert (own == 1).all()


def test_an_array_that_lives_in_the_memory_is_not_copied():
    memory = SharedMemory()
    array = memory.array(5, np.int64)
    array[:] = range(5)
    found = memory.unpack(memory.pack({"sum": array}), own=True)["sum"]
    array += 1
    assert found.tolist() == [1, 2, 3, 4, 5]


def test_arrays_stay_what_they_are_while_the_memory_grows():
    memory = SharedMemory()
    first = memory.array(1000, np.float64)
    first[:] = 3
    parcel = memory.pack(first)
    for _ in range(4):
        memory.pack(np.zeros(1 << 19))
    first[0] = 4
    assert memory.unpack(parcel)[:2].tolist() == [4, 3]


def test_a_process_sees_what_was_added_after_it_was_forked():
    memory = SharedMemory()
    memory.pack(np.zeros(1000))
    (connection,) = forked(lambda connection: connection.send(int(memory.unpack(connection.recv()).sum())))
    connection.send(memory.pack(np.arange(1 << 19)))
    assert connection.recv() == (1 << 18) * ((1 << 19) - 1)


def test_memory_has_no_name_and_ends_with_its_holder():
    before = set(os.listdir("/proc/self/fd")), set(os.listdir("/dev/shm"))
    memory = SharedMemory()
    memory.pack(np.zeros(1 << 20))
    assert set(os.listdir("/dev/shm")) == before[1]
    del memory
    assert set(os.listdir("/proc/self/fd")) == before[0]


def test_every_range_is_taken_once_whoever_takes_it():
    queue = Queue()
    queue.put([(i, i + 1) for i in range(Queue.MOST)])
    takers = forked(lambda connection: connection.send(list(iter(queue.take, None))), count=3)
    taken = [each for taker in takers for each in taker.recv()]
    assert sorted(taken) == [(i, i + 1) for i in range(Queue.MOST)]
    assert queue.take() is None


def test_what_has_no_room_in_a_queue_does_not_wait_for_it():
    queue = Queue()
    queue.put([(i, i + 1) for i in range(100_000)])
    taken = list(iter(queue.take, None))
    assert Queue.MOST <= len(taken) < 100_000
    assert taken == [(i, i + 1) for i in range(len(taken))]


def test_a_queue_that_is_cleared_is_empty():
    queue = Queue()
    queue.put([(0, 1), (1, 5)])
    assert queue.take() == (0, 1)
    queue.clear()
    assert queue.take() is None
    queue.put([(5, 7)])
    assert queue.take() == (5, 7)
