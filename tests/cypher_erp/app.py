# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cypher ERP's B2B shop, as small as it can be and still be one: needs psycopg2 and nothing of this repository.

    GET  /                   page with the row counts
    GET  /health             200 when every table of this release is there and readable, 503 otherwise
    GET  /orders?customer=N  orders of a customer (customer number), newest first
    POST /orders             {"customer": 7, "items": [{"sku": "SKU-000001", "quantity": 2}]}

The release is APP_RELEASE, or the word in release.txt beside this file, read at start. The rest comes from DB_HOST,
DB_PORT, DB_NAME, DB_USER, the password's variable (PGPASSWORD, PGPASSFILE or DB_PASSWORD), APP_HOST, APP_PORT and
APP_POOL_SIZE.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import queue
import signal
import socketserver
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import psycopg2

if TYPE_CHECKING:
    from collections.abc import Iterator

# What each release added; a release needs the tables of those before it too.
TABLES_OF_RELEASE = {
    "0001": [],
    "0002": ["b2b.products", "b2b.customers"],
    "0003": ["b2b.carts", "b2b.orders"],
    "0004": ["b2b.credit_accounts", "b2b.credit_ledger"],
    "0005": ["shared.outbox_events"],
    "0006": [],
}

HEALTH_QUERY = """
SELECT name,
    CASE WHEN to_regclass(name) IS NULL THEN 'missing'
         WHEN NOT has_schema_privilege(split_part(name, '.', 1), 'USAGE') THEN 'not readable'
         WHEN NOT has_table_privilege(to_regclass(name), 'SELECT') THEN 'not readable'
         ELSE 'ok' END
FROM unnest(%s::text[]) AS name
"""

ORDERS_QUERY = """
SELECT o.order_number, o.status::text, o.payment_status::text, o.grand_total::text, o.currency, o.created_at::text
FROM b2b.orders AS o
JOIN b2b.customers AS c ON c.id = o.customer_id
WHERE c.customer_no = %s
ORDER BY o.created_at DESC
LIMIT %s
"""
ORDERS_COLUMNS = ("order_number", "status", "payment_status", "grand_total", "currency", "created_at")

MAX_BODY_BYTES = 1_000_000


class BadRequestError(Exception):
    """The request cannot be done as it is; the message says why."""


class Pool:
    """A few connections to the database, kept open between requests."""

    def __init__(self, size: int) -> None:
        """Open nothing yet: the application starts without a database too, and says so at /health."""
        self.slots: queue.Queue[Any] = queue.Queue()
        for _slot in range(size):
            self.slots.put(None)

    def open_all(self) -> None:
        """Open every connection; raises psycopg2.Error when the database does not answer."""
        for _slot in range(self.slots.qsize()):
            with self.connection():
                pass

    @contextmanager
    def connection(self) -> Iterator[Any]:
        """Lend a connection that works, in a transaction that commits at the end of the block."""
        held = self.slots.get(timeout=10)
        try:
            held = held if held is not None and is_alive(held) else connect()
            with held:
                yield held
        finally:
            self.slots.put(held if held is not None and not held.closed else None)

    def close(self) -> None:
        """Close the connections that are not in use."""
        while True:
            try:
                held = self.slots.get_nowait()
            except queue.Empty:
                return
            if held is not None:
                held.close()


def connect() -> Any:
    """Connect to the database of the environment."""
    return psycopg2.connect(
        host=os.environ.get("DB_HOST", "localhost"),
        port=os.environ.get("DB_PORT", "5432"),
        dbname=os.environ.get("DB_NAME", "cypher_erp"),
        user=os.environ.get("DB_USER", "postgres"),
        password=os.environ.get("DB_PASSWORD"),
        application_name="cypher-erp",
        connect_timeout=3,
    )


def is_alive(connection: Any) -> bool:
    """Tell whether a pooled connection still answers: the server may have restarted or ended it."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        connection.rollback()
    except psycopg2.Error:
        connection.close()
        return False
    return True


class Shop:
    """What the application does, without HTTP."""

    def __init__(self, release: str, pool: Pool) -> None:
        """Serve a release; raises ValueError for one that does not exist."""
        if release not in TABLES_OF_RELEASE:
            raise ValueError(f"unknown release {release!r}, known: {', '.join(TABLES_OF_RELEASE)}")
        self.release = release
        self.pool = pool
        self.tables = [table for known, tables in TABLES_OF_RELEASE.items() if known <= release for table in tables]

    def health(self) -> tuple[int, dict[str, Any]]:
        """Return the HTTP status and the state of each table."""
        with self.pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(HEALTH_QUERY, (self.tables,))
            tables = dict(cursor.fetchall())
        answer: dict[str, Any] = {"status": "ok", "release": self.release, "tables": tables}
        bad = [f"{name} is {state}" for name, state in tables.items() if state != "ok"]
        if bad:
            answer |= {"status": "error", "error": "table " + ", table ".join(bad)}
        return (503 if bad else 200), answer

    def counts(self) -> dict[str, int]:
        """Return the number of rows of each table of this release."""
        with self.pool.connection() as connection, connection.cursor() as cursor:
            result = {}
            for table in self.tables:
                cursor.execute(f"SELECT count(*) FROM {table}")
                result[table] = cursor.fetchone()[0]
        return result

    def orders(self, customer: int, limit: int) -> list[dict[str, Any]]:
        """Return the newest orders of a customer."""
        with self.pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(ORDERS_QUERY, (customer, limit))
            return [dict(zip(ORDERS_COLUMNS, row, strict=True)) for row in cursor.fetchall()]

    def place_order(self, customer: int, items: list[tuple[str, int]]) -> dict[str, Any]:
        """Store an order with its lines, their snapshots and, from release 0005 on, its event, in one transaction."""
        with self.pool.connection() as connection, connection.cursor() as cursor:
            order_id, order_number = insert_order(cursor, customer)
            for line_no, (sku, quantity) in enumerate(items, 1):
                insert_item(cursor, order_id, line_no, sku, quantity)
            cursor.execute(
                "UPDATE b2b.orders AS o SET subtotal = i.net, tax_total = i.tax, status = 'pending_approval' "
                "FROM (SELECT sum(line_total) AS net, sum(round(line_total * p.vat_rate / 100, 2)) AS tax "
                "FROM b2b.order_items JOIN b2b.products AS p ON p.id = product_id WHERE order_id = %s) AS i "
                "WHERE o.id = %s RETURNING o.grand_total::text, o.currency",
                (order_id, order_id),
            )
            total, currency = cursor.fetchone()
            if self.release >= "0005":
                cursor.execute(
                    "INSERT INTO shared.outbox_events "
                    "(domain, event_type, source_entity_type, source_entity_id, payload) "
                    "VALUES ('order', 'order.placed', 'order', %s, jsonb_build_object('total', %s))",
                    (order_id, total),
                )
        return {"order_number": order_number, "grand_total": total, "currency": currency}


def insert_order(cursor: Any, customer: int) -> tuple[str, str]:
    """Insert an empty order and return its id and number; raises BadRequestError for a customer who may not buy."""
    cursor.execute(
        "INSERT INTO b2b.orders (customer_id) SELECT id FROM b2b.customers "
        "WHERE customer_no = %s AND status = 'active' RETURNING id::text, order_number",
        (customer,),
    )
    row = cursor.fetchone()
    if row is None:
        raise BadRequestError(f"no active customer {customer}")
    return row[0], row[1]


def insert_item(cursor: Any, order_id: str, line_no: int, sku: str, quantity: int) -> None:
    """Insert a line of an order and its snapshot; raises BadRequestError for a product that is not sold."""
    cursor.execute(
        "WITH item AS (INSERT INTO b2b.order_items (order_id, line_no, product_id, quantity, unit_price) "
        "SELECT %s, %s, id, %s, list_price FROM b2b.products WHERE sku = %s AND status = 'active' "
        "RETURNING id, product_id) "
        "INSERT INTO b2b.order_items_snapshot (order_item_id, product) "
        "SELECT item.id, to_jsonb(p) FROM item JOIN b2b.products AS p ON p.id = item.product_id",
        (order_id, line_no, quantity, sku),
    )
    if cursor.rowcount != 1:
        raise BadRequestError(f"no product {sku} on sale")


class Server(ThreadingHTTPServer):
    """The HTTP server; its request threads do not keep the process when it stops."""

    def server_bind(self) -> None:
        """Bind without looking the own name up, which takes seconds where there is no name server."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


class Handler(BaseHTTPRequestHandler):
    """HTTP on top of the shop."""

    server_version = "cypher-erp"
    protocol_version = "HTTP/1.1"
    # An idle keep-alive connection ends by itself.
    timeout = 5
    shop: Shop

    def do_GET(self) -> None:
        """Answer a read."""
        routes = {"/": self.index, "/health": self.health}
        if self.shop.release >= "0003":
            routes["/orders"] = self.list_orders
        self.answer_with(routes)

    def do_POST(self) -> None:
        """Answer a write."""
        self.answer_with({"/orders": self.add_order} if self.shop.release >= "0003" else {})

    def answer_with(self, routes: dict[str, Any]) -> None:
        """Call the route of the path, and turn what goes wrong into an answer."""
        try:
            route = routes.get(urlsplit(self.path).path)
            if route is None:
                self.send_json(404, {"error": f"nothing at {self.path} in release {self.shop.release}"})
            else:
                route()
        except BadRequestError as error:
            self.send_json(400, {"error": str(error)})
        except (psycopg2.Error, queue.Empty) as error:
            message = str(error).strip().splitlines()[0] if str(error).strip() else "no database connection is free"
            self.send_json(503, {"status": "error", "error": message})

    def health(self) -> None:
        """GET /health."""
        self.send_json(*self.shop.health())

    def index(self) -> None:
        """GET /."""
        rows = "".join(f"<tr><td>{html.escape(t)}<td>{n:,}" for t, n in self.shop.counts().items())
        page = (
            "<!DOCTYPE html><html lang=en><meta charset=utf-8><title>Cypher ERP</title>"
            f"<h1>Cypher ERP</h1><p>Release {html.escape(self.shop.release)}<table><tr><th>Table<th>Rows{rows}</table>"
        )
        self.send(200, "text/html; charset=utf-8", page.encode())

    def list_orders(self) -> None:
        """GET /orders."""
        query = parse_qs(urlsplit(self.path).query)
        customer = whole_number(query.get("customer", [None])[0], "customer")
        limit = whole_number(query.get("limit", ["100"])[0], "limit")
        self.send_json(200, {"orders": self.shop.orders(customer, min(limit, 1000))})

    def add_order(self) -> None:
        """POST /orders."""
        length = whole_number(self.headers.get("Content-Length"), "Content-Length")
        if length > MAX_BODY_BYTES:
            self.close_connection = True
            raise BadRequestError(f"the body must not be longer than {MAX_BODY_BYTES} bytes")
        try:
            body = json.loads(self.rfile.read(length))
            items = [(str(item["sku"]), whole_number(item["quantity"], "quantity")) for item in body["items"]]
            customer = whole_number(body["customer"], "customer")
        except (ValueError, KeyError, TypeError) as error:
            raise BadRequestError(f"the body is not an order: {error!r}") from error
        if not items:
            raise BadRequestError("an order needs at least one item")
        self.send_json(201, self.shop.place_order(customer, items))

    def send_json(self, status: int, body: dict[str, Any]) -> None:
        """Send an object as JSON."""
        self.send(status, "application/json", json.dumps(body).encode() + b"\n")

    def send(self, status: int, content_type: str, body: bytes) -> None:
        """Send a whole answer."""
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *message: Any) -> None:
        """Log one line a request to standard error; the first argument is a format for the others."""
        text = message[0] % message[1:]
        sys.stderr.write(f"{self.log_date_time_string()} {self.address_string()} {text}\n")
        sys.stderr.flush()


def whole_number(value: Any, name: str) -> int:
    """Return a positive whole number that fits in bigint; raises BadRequestError for anything else."""
    try:
        number = int(value)
    except (TypeError, ValueError) as error:
        raise BadRequestError(f"{name} must be a whole number, not {value!r}") from error
    if not 0 < number < 2**31:
        raise BadRequestError(f"{name} must be between 1 and {2**31 - 1}, not {number}")
    return number


def current_release() -> str:
    """Return the release from APP_RELEASE, or from release.txt beside this file."""
    release = os.environ.get("APP_RELEASE", "").strip()
    return release or (Path(__file__).resolve().parent / "release.txt").read_text(encoding="utf-8").strip()


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="Cypher ERP, B2B shop")
    parser.add_argument("--pid-file", help="not used here: lets appctl recognise its own process")
    parser.parse_args()
    pool = Pool(int(os.environ.get("APP_POOL_SIZE", "3")))
    Handler.shop = Shop(current_release(), pool)
    address = (os.environ.get("APP_HOST", "127.0.0.1"), int(os.environ.get("APP_PORT", "8080")))
    server = Server(address, Handler)

    def stop(_number: int, _frame: Any) -> None:
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        pool.open_all()
    except psycopg2.Error as error:
        sys.stderr.write(f"no database yet: {error}")
    sys.stderr.write(f"release {Handler.shop.release} on http://{address[0]}:{address[1]}\n")
    sys.stderr.flush()
    server.serve_forever(poll_interval=0.1)
    server.server_close()
    pool.close()


if __name__ == "__main__":
    main()
