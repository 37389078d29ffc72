"""A page per feature view, from the definitions and contracts.

In: feature_repo/, contracts, kernels, policies. Out: Markdown by file name, for docs/views.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from fleet_assets.contracts.check import PROJECT
from fleet_assets.contracts.generate import grid
from fleet_assets.features.lane_policy import load_lane_policy
from fleet_assets.kernels.features.on_demand import ON_DEMAND
from fleet_assets.lake.tables import contract_of

FOLDER = PROJECT / "docs" / "views"
_APPROXIMATE = "lane_curvature"


def pages() -> dict[str, str]:
    """README.md, and a page per view."""
    from fleet_assets.features.registry import definitions

    repo = definitions()
    views = sorted(repo.feature_views, key=lambda view: view.name)
    on_demand = sorted(repo.on_demand_feature_views, key=lambda view: view.name)
    services: dict[str, list[str]] = {}
    for service in sorted(repo.feature_services, key=lambda service: service.name):
        for one in service.feature_view_projections:
            services.setdefault(one.name, []).append(service.name)
    keys = {entity.name: entity for entity in repo.entities}
    found = {f"{view.name}.md": _stored(view, keys, services.get(view.name, [])) for view in views}
    found |= {f"{view.name}.md": _on_demand(view, services.get(view.name, [])) for view in on_demand}
    return {"README.md": _index([*views, *on_demand], repo.feature_services), **found}


def _index(views: list[Any], services: list[Any]) -> str:
    lines = [
        "# Feature views",
        "",
        "Made from `feature_repo/` and the contracts by `fleet features docs`; change them, not these pages.",
        "",
        *grid(
            ("view", "features", "what"),
            [(f"[{view.name}]({view.name}.md)", str(len(view.features)), view.description) for view in views],
        ),
        "",
        "## Services",
        "",
        *grid(
            ("service", "views", "what"),
            [
                (
                    f"`{one.name}`",
                    ", ".join(f"[{view.name}]({view.name}.md)" for view in one.feature_view_projections),
                    one.description,
                )
                for one in sorted(services, key=lambda one: one.name)
            ],
        ),
    ]
    return "\n".join(lines) + "\n"


def _stored(view: Any, keys: Mapping[str, Any], services: list[str]) -> str:
    table = view.batch_source.table
    contract = contract_of(table)
    columns = {column.name: column for column in contract.columns}
    entities = [keys[name] for name in view.entities]
    facts = [
        ("owner", view.owner),
        ("key", "; ".join(f"`{entity.join_key}`: {entity.description}" for entity in entities)),
        ("time to live", _ttl(view.ttl)),
        ("table", f"[{table}](../reference/{table}.md), contract {contract.version}"),
        (
            "kernel",
            f"`{view.tags['kernel']}`, version {view.tags['kernel_version']}" if "kernel" in view.tags else "none",
        ),
        ("identity", f"`{view.tags['identity']}`" if "identity" in view.tags else "that of its contract"),
        ("validated by", view.tags["validated_by"]),
        ("retention class", view.tags["retention"]),
        ("in services", _services(services)),
    ]
    rows = [
        (f"`{field.name}`", str(field.dtype), columns[field.name].unit or "", columns[field.name].description)
        for field in view.features
    ]
    return _page(view, facts, ("feature", "type", "unit", "meaning"), rows, contract.limitations, _declared(view.name))


def _on_demand(view: Any, services: list[str]) -> str:
    names = [kernel.split("@")[0] for kernel in view.tags["kernels"].split()]
    made = {output: ON_DEMAND[name] for name in names for output in ON_DEMAND[name].outputs}
    sources = sorted(view.source_feature_view_projections)
    facts = [
        ("owner", view.owner),
        ("key", "that of its sources"),
        ("made from", ", ".join(f"[{name}]({name}.md)" for name in sources)),
        ("kernels", ", ".join(f"`{name}` version {ON_DEMAND[name].version}" for name in names)),
        ("in services", _services(services)),
    ]
    rows = [
        (
            f"`{field.name}`",
            str(field.dtype),
            f"`{made[field.name].name}`",
            ", ".join(f"`{i}`" for i in made[field.name].inputs),
        )
        for field in view.features
    ]
    return _page(view, facts, ("feature", "type", "kernel", "from"), rows, "", [])


def _page(
    view: Any,
    facts: list[tuple[str, str]],
    head: tuple[str, ...],
    rows: list[tuple[str, str, str, str]],
    limits: str,
    more: list[str],
) -> str:
    lines = [f"# {view.name}", "", view.description, *(["", f"Limits: {limits}"] if limits else []), ""]
    lines += [*grid(("", ""), facts), "", "## Features", "", *grid(head, rows), *more]
    return "\n".join(lines) + "\n"


def _declared(view: str) -> list[str]:
    """What an approximation promises; nothing for a view that is none."""
    if view != _APPROXIMATE:
        return []
    policy = load_lane_policy()
    text = (
        "The served form is looked up by cell; the full form searches the map. Bounds of the difference, version "
        f"{policy.version} of the policy: 95 % of the errors, and the least share of fixes that find a value."
    )
    rows = [
        (curve, fix, f"{bound.error_p95_per_m:g}", f"{bound.found_ppm / 1e4:g} %")
        for (curve, fix), bound in policy.bounds.items()
    ]
    return ["", "## Declared approximation", "", text, "", *grid(("lanes", "fixes", "error, 1/m", "found"), rows)]


def _ttl(ttl: timedelta | None) -> str:
    return f"{ttl / timedelta(days=1):g} days" if ttl else "no limit"


def _services(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"
