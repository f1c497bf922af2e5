"""A Django site that serves requests of several tenants, with the README's settings and middleware (module `tenants`).

Reads what it must see from its standard input and tells what came of it.
"""

from __future__ import annotations

import json
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from wsgiref.util import setup_testing_defaults

import django
import tenants  # type: ignore[import-not-found]
from django.conf import settings
from django.db import connection, models, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

asked = json.load(sys.stdin)
default = tenants.DATABASES["default"]
default["OPTIONS"] = asked["options"]
if "pool" in asked["options"]:
    default["CONN_MAX_AGE"] = 0  # Django wants it so
settings.configure(
    DATABASES=tenants.DATABASES,
    MIDDLEWARE=["tenants.TenantMiddleware"],
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    TIME_ZONE="Asia/Tokyo",
)
django.setup()
logging.disable(logging.CRITICAL)  # of the views that fail


class Order(models.Model):
    id = models.IntegerField(primary_key=True)
    tenant_id = models.TextField()
    item = models.TextField()

    class Meta:
        app_label = "site"
        db_table = "orders"
        managed = False


def look() -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(asked["look"])
        return list(cursor.fetchone())


def view(request: HttpRequest, number: int) -> HttpResponse:
    seen = look()
    owners = sorted(set(Order.objects.values_list("tenant_id", flat=True)))
    if number % 2:
        with transaction.atomic():
            Order.objects.select_for_update().filter(id=20_000 + number).first()
        Order.objects.create(id=20_000 + number, tenant_id=seen[0], item="lost")
        raise RuntimeError("it fails")
    count = sum(1 for _ in Order.objects.iterator(chunk_size=10))
    return JsonResponse({"seen": seen, "owners": owners, "count": count})


urlpatterns = [path("<int:number>", view)]


def ask(application: Any, tenant: str, number: int) -> tuple[int, bytes]:
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    host = asked["hosts"].get(tenant, tenant)
    environ |= {"HTTP_HOST": f"{host}.example.com", "PATH_INFO": f"/{number}"}
    status = []
    response = application(environ, lambda line, headers: status.append(line))
    body = b"".join(response)
    response.close()
    return int(status[0].split()[0]), body


def main() -> None:
    from django.core.wsgi import get_wsgi_application

    application = get_wsgi_application()
    names = list(asked["seen"])
    wrong: list[Any] = []
    together = Barrier(4)

    def serve(number: int) -> int:
        tenant = names[number % len(names)]
        status, body = ask(application, tenant, number)
        if number % 2:
            if status != 500:
                wrong.append((number, status))
        else:
            seen = asked["seen"][tenant]
            if status != 200 or json.loads(body) != {"seen": seen, "owners": [tenant], "count": seen[2]}:
                wrong.append((number, status, body.decode()))
        return status

    def left(_: int) -> str:
        together.wait(20)
        with connection.cursor() as cursor:
            cursor.execute("SHOW app.tenant_id")
            (value,) = cursor.fetchone()
        together.wait(20)
        connection.close()
        return str(value)

    with ThreadPoolExecutor(4) as threads:
        statuses = list(threads.map(serve, range(120)))
        remains = list(threads.map(left, range(4)))
    tasks = []
    for tenant in names * 2:
        with tenants.transaction_of(tenant) as cursor:
            cursor.execute(asked["look"])
            tasks.append(cursor.fetchone()[0])
    print(
        json.dumps(
            {
                "served": len(statuses),
                "failed": statuses.count(500),
                "wrong": wrong,
                "left": remains,
                "unknown": [ask(application, name, 0)[0] for name in ("nowhere", "free_1")],
                "tasks": tasks,
            }
        )
    )
    connection.close()
    if "pool" in asked["options"]:
        connection.close_pool()


main()
