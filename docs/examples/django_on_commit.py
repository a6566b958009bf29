"""Django: tell the user once the transaction is committed, never before and not at all if it rolls back.
One file holds settings, model, view and URL; run it: IM_REDIS_URL=redis://localhost python django_on_commit.py"""

import os
import sys

import django
from django.conf import settings
from django.db import connection, models, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from imhelper import RedisUnavailableError
from imhelper.sync import ImHelper

if not settings.configured:
    settings.configure(
        DEBUG=False,
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    )
    django.setup()

# Made at import time, connects at first use: so it is right under gunicorn --preload too.
im = ImHelper(os.environ["IM_REDIS_URL"], timeout=2)


class Order(models.Model):
    user = models.CharField(max_length=128)
    item = models.CharField(max_length=200)

    class Meta:
        app_label = "shop"


def place_order(request: HttpRequest) -> HttpResponse:
    user, item = request.POST["user"], request.POST["item"]
    with transaction.atomic():
        order = Order.objects.create(user=user, item=item)
        transaction.on_commit(lambda: announce(user, {"order": order.pk, "item": item}))
        if item == "unobtainium":
            transaction.set_rollback(True)
            return JsonResponse({"error": "sold out"}, status=409)
    return JsonResponse({"order": order.pk})


def announce(user: str, order: dict[str, object]) -> None:
    try:
        im.send_message("shop", user, order, idempotency_key=f"order-{order['order']}")
    except RedisUnavailableError:
        # The order stands. Whether to repeat the message (with the same key), and how, is the application's choice:
        # the Celery example shows one.
        print("order not announced", file=sys.stderr)


urlpatterns = [path("orders", place_order)]


def create_tables() -> None:
    with connection.schema_editor() as editor:
        editor.create_model(Order)


if __name__ == "__main__":
    from wsgiref.simple_server import make_server

    from django.core.wsgi import get_wsgi_application

    create_tables()
    with make_server("127.0.0.1", 8000, get_wsgi_application()) as server:
        server.serve_forever()
