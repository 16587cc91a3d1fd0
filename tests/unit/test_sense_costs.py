from open_crema.sense_costs import SenseCosts, cheapest_first

KEYS = {"video": "v", "audio": "a", "flow": "f"}


def test_unmeasured_senses_go_by_their_relative_cost(tmp_path):
    assert SenseCosts(tmp_path / "c.json").expected(KEYS) == {"video": 1, "audio": 0.5, "flow": 3}


def test_one_measurement_sets_the_unit_of_the_others(tmp_path):
    costs = SenseCosts(tmp_path / "c.json")
    costs.note("v", 4.0)
    assert costs.expected(KEYS) == {"video": 4, "audio": 2, "flow": 12}


def test_the_median_of_the_newest_measurements_counts(tmp_path):
    costs = SenseCosts(tmp_path / "c.json")
    for seconds in [100.0] * 9 + [1.0, 2.0, 3.0, 2.0, 2.0]:
        costs.note("v", seconds)
    assert costs.measured("v") == 3.0
    costs.note("v", 2.0)
    assert costs.measured("v") == 2.0


def test_measurements_survive_the_process(tmp_path):
    costs = SenseCosts(tmp_path / "folder" / "c.json")
    costs.note("v", 4.0)
    costs.save()
    assert SenseCosts(costs.path).measured("v") == 4.0
    assert not list(costs.path.parent.glob("*.part"))


def test_cheapest_first_and_ties_in_canonical_order():
    seconds = {"flow": 1.0, "audio": 1.0, "video": 2.0, "imu": 1.0}
    assert cheapest_first(seconds, seconds) == ["audio", "flow", "imu", "video"]
