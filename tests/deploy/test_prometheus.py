"""The alert rules: metrics that exist, the thresholds of each tier, and every alert a severity and a text."""

from __future__ import annotations

import re
from typing import Any

from tests.deploy.documents import DEPLOY, documents

(RULES,) = documents(DEPLOY / "prometheus" / "tiergate.rules.yaml")
ROWS: list[dict[str, Any]] = [rule for group in RULES["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in ROWS if "alert" in rule}
# The names that dashboards know: section 7 of the architecture.
METRICS = {
    "db_query_count", "db_query_duration_seconds_bucket", "db_query_errors", "tenant_storage_used_gb",
    "tenant_storage_max_gb", "tiergate_endpoints_ejected", "tiergate_registry_up", "tiergate_config_refused", "up",
}  # fmt: skip
FUNCTIONS = {
    "sum",
    "max",
    "min",
    "by",
    "instance",
    "store",
    "cluster",
    "rate",
    "histogram_quantile",
    "tenant_id",
    "tier",
    "le",
}


def names(expression: str) -> set[str]:
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\"[^\"]*\"", "", expression)
    return set(re.findall(r"[A-Za-z_:][A-Za-z0-9_:]*", bare))


def test_only_metrics_that_exist() -> None:
    recorded = {rule["record"] for rule in ROWS if "record" in rule}
    for rule in ROWS:
        assert names(rule["expr"]) - FUNCTIONS <= METRICS | recorded, rule


def test_the_proxy_exports_them() -> None:
    source = (DEPLOY.parent / "proxy" / "control" / "metrics.py").read_text()
    others = {"up", "tenant_storage_used_gb"}  # Prometheus's own; measured outside of the proxy
    assert [name for name in METRICS - others if f'"{name}"' not in source] == []


def test_names_are_unique_and_parentheses_balance() -> None:
    assert len(ALERTS) == len([rule for rule in ROWS if "alert" in rule])
    for rule in ROWS:
        for one, other in ("()", "{}", "[]"):
            assert rule["expr"].count(one) == rule["expr"].count(other)


def test_every_alert_says_how_urgent_and_what() -> None:
    for name, alert in ALERTS.items():
        assert alert["labels"]["severity"] in {"P0", "P1", "P2", "warning", "critical"}, name
        assert {"summary", "description"} <= alert["annotations"].keys(), name
        assert re.fullmatch(r"\d+[smh]", alert["for"]), name


def test_thresholds_by_tier() -> None:
    thresholds = {
        "EnterpriseLatency": ("enterprise", "5", "P1"),
        "VipLatency": ("vip", "10", "P1"),
        "StandardLatency": ("standard", "30", "P1"),
        "EnterpriseErrorRate": ("enterprise", "0.05", "P1"),
        "VipErrorRate": ("vip", "0.10", "P1"),
        "StandardErrorRate": ("standard", "0.20", "P1"),
    }
    for name, (tier, threshold, severity) in thresholds.items():
        alert = ALERTS[name]
        assert alert["expr"].endswith(f'{{tier="{tier}"}} > {threshold}')
        assert alert["labels"]["severity"] == severity
    waits = {"EnterpriseDatabaseUnavailable": "30s", "VipDatabaseUnavailable": "1m"}
    assert {name: ALERTS[name]["for"] for name in waits} == waits
    assert ALERTS["TenantStorageNearLimit"]["expr"].endswith("> 0.9")


def test_the_scrape_has_the_job_that_the_rules_ask_for() -> None:
    (scrape,) = documents(DEPLOY / "prometheus" / "prometheus.yaml")
    assert scrape["rule_files"] == ["tiergate.rules.yaml"]
    assert scrape["scrape_configs"][0]["job_name"] == "tiergate"
    assert 'up{job="tiergate"}' in ALERTS["TiergateDown"]["expr"]
