import altair as alt

from xlora_bench.results.page.charts import specifications

KINDS = {"difference", "rank", "curve", "factor", "diagram", "layers", "cost seconds", "cost memory"}


def test_each_chart_is_valid_vega_lite():
    costs = {"seconds": "training time", "memory": "peak memory"}
    charts = specifications([f"method {number}" for number in range(50)], reference="lora", costs=costs)
    assert set(charts) == KINDS
    for name, chart in charts.items():
        again = alt.Chart.from_dict(chart).to_dict()  # validates against the schema
        assert again["params"] == chart["params"], name
