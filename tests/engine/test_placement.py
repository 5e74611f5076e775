"""Who runs whom: clients stay at home, and no host has much more to do than its share."""

from hypothesis import given
from hypothesis import strategies as st

from fedpact.engine.placement import Placement

SIZES = st.lists(st.integers(1, 5) | st.integers(1, 100), min_size=1, max_size=40).map(
    lambda sizes: {f"{place:02}": size for place, size in enumerate(sizes)}
)
HOSTS = st.sampled_from(["X", "XY", "YX", "WXYZ", "YZ"])


def loads(plan, sizes):
    return {host: sum(sizes[id] for id in ids) for host, ids in plan.groups.items()}


def lent(placement, plan):
    """Return the clients that are run away from home."""
    return {id for host, ids in plan.groups.items() for id in ids if placement.home(id) != host}


@given(st.lists(st.tuples(SIZES, HOSTS), min_size=1, max_size=4))
def test_every_client_is_run_once_in_every_round_by_a_host_that_is_there(rounds):
    placement = Placement()
    for sizes, hosts in rounds:
        plan = placement.plan(sizes, hosts)
        assert sorted(id for ids in plan.groups.values() for id in ids) == sorted(sizes)
        assert set(plan.groups) <= set(hosts)


@given(SIZES, HOSTS)
def test_the_same_clients_are_run_by_the_same_hosts_again(sizes, hosts):
    placement = Placement()
    first, second = placement.plan(sizes, hosts), placement.plan(sizes, hosts)
    assert first.groups == second.groups
    assert not lent(placement, second)
    assert not second.moved


@given(SIZES, HOSTS)
def test_new_clients_are_spread_within_grahams_bound(sizes, hosts):
    # Graham (1966): whoever ends last began when the others were busy, so m·end ≤ total + (m − 1)·largest.
    plan = Placement().plan(sizes, hosts)
    total, largest = sum(sizes.values()), max(sizes.values())
    assert len(hosts) * max(loads(plan, sizes).values()) <= total + (len(hosts) - 1) * largest


@given(SIZES, st.data())
def test_a_sampled_cohort_leaves_no_host_far_above_its_share(sizes, data):
    placement, hosts = Placement(), "WXYZ"
    placement.plan(sizes, hosts)
    ids = data.draw(st.lists(st.sampled_from(sorted(sizes)), min_size=1, unique=True))
    cohort = {id: sizes[id] for id in ids}
    plan = placement.plan(cohort, hosts)
    anew = max(loads(Placement().plan(cohort, hosts), cohort).values())
    # A client that is not at home is put with the host that has least to do, which is no more than the mean.
    bound = max(1.1 * anew, sum(cohort.values()) / 4 + max(cohort[id] for id in ids))
    assert max(loads(plan, cohort).values()) <= bound + 1e-9


def test_clients_of_a_host_that_is_gone_move_and_the_others_stay():
    placement = Placement()
    sizes = dict.fromkeys("abcdef", 1)
    before = placement.plan(sizes, "XYZ")
    after = placement.plan(sizes, "XY")
    assert {len(ids) for ids in after.groups.values()} == {3}
    assert after.moved == dict.fromkeys(before.groups["Z"], "Z")
    assert not lent(placement, after)
    for host in "XY":
        assert set(before.groups[host]) <= set(after.groups[host])


def test_a_host_that_comes_gets_its_share_for_good():
    placement = Placement()
    sizes = dict.fromkeys("abcdef", 1)
    placement.plan(sizes, "XY")
    grown = placement.plan(sizes, "XYZ")
    assert {host: len(ids) for host, ids in grown.groups.items()} == {"X": 2, "Y": 2, "Z": 2}
    assert len(grown.moved) == 2
    assert placement.plan(sizes, "XYZ").groups == grown.groups


def test_clients_that_a_cohort_has_too_many_of_at_one_host_are_lent_and_come_home():
    placement = Placement()
    sizes = dict.fromkeys("abcdef", 1)
    first = placement.plan(sizes, "XY")
    at_x = first.groups["X"]
    plan = placement.plan(dict.fromkeys([*at_x], 1) | {first.groups["Y"][0]: 1}, "XY")
    assert {host: len(ids) for host, ids in plan.groups.items()} == {"X": 2, "Y": 2}
    assert len(lent(placement, plan)) == 1
    assert lent(placement, plan) < set(at_x)
    assert placement.plan(sizes, "XY").groups == first.groups


def test_clients_of_one_host_keep_the_order_in_which_they_were_asked():
    plan = Placement().plan({"c": 1, "a": 5, "b": 3}, ["X"])
    assert plan.groups == {"X": ["c", "a", "b"]}
