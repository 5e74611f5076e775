"""What is left of a round for several devices, some of which hand parts back."""

from concurrent.futures import ThreadPoolExecutor

from fedpact.engine.device_parts import Part, Parts


def test_parts_are_taken_in_their_order_until_there_are_none() -> None:
    parts = Parts([Part(("a",)), Part(("b", "c"))], devices=1)
    first, second = parts.take(0), parts.take(0)
    assert first is not None
    assert second is not None
    assert (first.ids, second.ids) == (("a",), ("b", "c"))
    parts.give_back(first, [], 0)
    parts.give_back(second, [], 0)
    assert parts.take(0) is None


def test_what_comes_back_goes_client_by_client_to_who_has_not_tried_it() -> None:
    parts = Parts([Part(("a", "b", "c"))], devices=2)
    part = parts.take(0)
    assert part is not None
    assert parts.give_back(part, ["a", "c"], 0) == ()
    assert parts.take(0) is None
    taken = [parts.take(1), parts.take(1)]
    assert [each and each.ids for each in taken] == [("a",), ("c",)]


def test_what_all_devices_have_tried_comes_back_to_the_last() -> None:
    parts = Parts([Part(("a",))], devices=2)
    for device, left in ((1, ()), (0, ["a"])):
        part = parts.take(device)
        assert part is not None
        assert list(parts.give_back(part, ["a"], device)) == list(left)
    assert parts.take(0) is parts.take(1) is None


def test_a_device_waits_for_what_may_still_come_back() -> None:
    parts = Parts([Part(("a",))], devices=2)
    part = parts.take(0)
    assert part is not None
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(parts.take, 1)
        parts.give_back(part, ["a"], 0)
        taken = waiting.result(timeout=30)
    assert taken is not None
    assert taken.ids == ("a",)


def test_after_a_stop_nothing_is_handed_out_or_waited_for() -> None:
    parts = Parts([Part(("a",)), Part(("b",))], devices=2)
    part = parts.take(0)
    assert part is not None
    parts.stop()
    assert parts.take(1) is None
    parts.give_back(part, ["a"], 0)
    assert parts.take(1) is None
