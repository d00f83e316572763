# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loads Cypher ERP with generated data: the same size, version and seed always give the same rows.

Every row is made on the server by INSERT ... SELECT from generate_series. An id is a UUID that holds the kind of the
row and its number, so a foreign key is computed and never looked up, and the primary keys grow in order.
"""

from __future__ import annotations

import argparse
from typing import Any

from tests.cypher_erp.migrate import connect_from_environment

# The place of a kind in this list is part of the ids: add at the end.
KINDS = (
    "product",
    "variant",
    "media",
    "price_book",
    "price_entry",
    "stock",
    "customer",
    "contact",
    "address",
    "cart",
    "cart_item",
    "quote",
    "quote_item",
    "order",
    "item",
    "shipment",
    "account",
    "reservation",
    "ledger",
    "transaction",
    "invoice",
    "invoice_item",
    "event",
    "dead_letter",
    "replay",
)

# Times lie before the day of the source document, so that no row depends on the clock.
NOW = "timestamptz '2026-02-13 12:00:00+00'"

VACUUM_FROM_ORDERS = 10_000


class Sizes:
    """How many rows of each kind go with a number of orders."""

    def __init__(self, orders: int, seed: int) -> None:
        """Derive the sizes from the number of orders; raises ValueError below one order."""
        if orders < 1:
            raise ValueError(f"orders must be at least 1, not {orders}")
        self.seed = seed
        self.orders = orders
        self.products = min(max(orders // 200, 40), 10_000)
        self.customers = min(max(orders // 50, 25), 20_000)
        self.carts = max(orders // 10, 5)
        self.quotes = max(orders // 20, 5)
        self.reservations = max(orders // 20, 5)
        self.invoices = max(orders // 5, 1)
        self.events = max(orders // 2, 20)

    def pick(self, number: str, count: int, salt: int) -> str:
        """Return SQL for a number from 1 to count that jumps about with `number`."""
        return f"(1 + ({number}::bigint * 7919 + {salt * 104_729 + self.seed * 15_485_863}) % 1000003 % {count})"


def uid(kind: str, number: str) -> str:
    """Return SQL for the id of row `number` (an SQL integer expression) of a kind."""
    return f"('{KINDS.index(kind) + 1:08x}-0000-4000-8000-' || lpad(to_hex(({number})::bigint), 12, '0'))::uuid"


def element(values: str, index: str) -> str:
    """Return SQL for one of the space-separated words, the first at index 0 (an SQL integer expression)."""
    words = values.split()
    return f"('{{{','.join(words)}}}'::text[])[1 + ({index}) % {len(words)}]"


def catalog(s: Sizes) -> list[str]:
    """Migration 0002: catalogue, prices, stock, customers."""
    product, variants = "(v + 1) / 2", s.products * 2
    return [
        f"""INSERT INTO b2b.products (id, sku, name, description, category, brand, status, list_price, weight_grams,
            created_at, updated_at)
        SELECT {uid("product", "n")}, 'SKU-' || lpad(n::text, 6, '0'),
            initcap({element("steel brass copper nylon oak", "n")}) || ' ' ||
            {element("bolt washer hinge bracket valve cable clamp", "n / 5")} || ' no. ' || n,
            'Made to EN ' || 10000 + n % 900 || ', packed for trade customers',
            {element("fasteners fittings electrical plumbing tools", "n / 7")},
            {element("Carpati Dunarea Bucegi Retezat", "n / 3")},
            (CASE WHEN n % 20 = 0 THEN 'discontinued' ELSE 'active' END)::b2b_product_status,
            {s.pick("n", 90_000, 1)} / 100.0, {s.pick("n", 5_000, 2)}, t, t
        FROM generate_series(1, {s.products}) AS n, (SELECT {NOW} - interval '800 days' AS t) AS c""",
        f"""INSERT INTO b2b.product_variants (id, product_id, variant_sku, title, pack_size, created_at, updated_at)
        SELECT {uid("variant", "v")}, {uid("product", product)},
            'SKU-' || lpad(({product})::text, 6, '0') || CASE v % 2 WHEN 1 THEN '-1' ELSE '-50' END,
            CASE v % 2 WHEN 1 THEN 'single' ELSE 'box of 50' END, CASE v % 2 WHEN 1 THEN 1 ELSE 50 END, {NOW}, {NOW}
        FROM generate_series(1, {variants}) AS v""",
        f"""INSERT INTO b2b.product_media (id, product_id, url, created_at, updated_at)
        SELECT {uid("media", "n")}, {uid("product", "n")}, 'https://media.example.com/p/' || n || '.jpg', {NOW}, {NOW}
        FROM generate_series(1, {s.products}) AS n""",
        f"""INSERT INTO b2b.product_attributes (product_id, name, value, created_at, updated_at)
        SELECT {uid("product", "n")}, a.name, to_jsonb(n % 100), {NOW}, {NOW}
        FROM generate_series(1, {s.products}) AS n, (VALUES ('length_mm'), ('grade')) AS a (name)""",
        f"""INSERT INTO b2b.price_books (id, code, name, is_default, created_at, updated_at)
        SELECT {uid("price_book", "n")}, 'PB-' || n, {element("List Contract Export", "n - 1")}, n = 1, {NOW}, {NOW}
        FROM generate_series(1, 3) AS n""",
        f"""INSERT INTO b2b.price_book_entries (id, price_book_id, variant_id, price_type, unit_price, valid_from,
            created_at, updated_at)
        SELECT {uid("price_entry", f"b * {variants} + v")}, {uid("price_book", "b")}, {uid("variant", "v")},
            (CASE b WHEN 1 THEN 'list' ELSE 'contract' END)::b2b_price_type,
            round({s.pick(product, 90_000, 1)} * CASE v % 2 WHEN 1 THEN 1 ELSE 45 END * (1.05 - b * 0.05) / 100, 2),
            date '2025-01-01', {NOW}, {NOW}
        FROM generate_series(1, 3) AS b, generate_series(1, {variants}) AS v""",
        f"""INSERT INTO b2b.stock_levels (id, variant_id, warehouse_code, quantity_on_hand, quantity_reserved, status,
            created_at, updated_at)
        SELECT {uid("stock", f"w * {variants} + v")}, {uid("variant", "v")}, {element("CLJ BUC TIM", "w")}, q, q / 10,
            (CASE WHEN q = 0 THEN 'out_of_stock' WHEN q < 10 THEN 'low_stock' ELSE 'in_stock' END)
                ::b2b_stock_level_status, {NOW}, {NOW}
        FROM generate_series(0, 2) AS w, generate_series(1, {variants}) AS v,
            LATERAL (SELECT ({s.pick(f"(w * {variants} + v)", 501, 3)} - 1)::integer AS q) AS x""",
        f"""INSERT INTO b2b.customers (id, customer_no, company_name, tax_id, email, tier, status, created_at, updated_at)
        SELECT {uid("customer", "n")}, n, {element("Alfa Beta Gama Delta Omega", "n")} || ' Comert ' || n || ' SRL',
            'RO' || 10000000 + n, 'office' || n || '@customer.example.com',
            {element("standard standard standard silver gold platinum", "n")}::b2b_customer_tier,
            (CASE WHEN n % 25 = 0 THEN 'suspended' ELSE 'active' END)::b2b_customer_status, t, t
        FROM generate_series(1, {s.customers}) AS n, (SELECT {NOW} - interval '760 days' AS t) AS c""",
        restart_identity("b2b.customers", "customer_no"),
        f"""INSERT INTO b2b.customer_contacts (id, customer_id, full_name, email, phone, is_primary, created_at,
            updated_at)
        SELECT {uid("contact", "n")}, {uid("customer", "n")}, {element("Ana Ion Maria Andrei Elena", "n")} || ' Popescu',
            'contact' || n || '@customer.example.com', '+4072' || 1000000 + n, true, {NOW}, {NOW}
        FROM generate_series(1, {s.customers}) AS n""",
        f"""INSERT INTO b2b.customer_shipping_addresses (id, customer_id, label, street, city, postal_code, created_at,
            updated_at)
        SELECT {uid("address", "n")}, {uid("customer", "n")}, 'depot', 'Strada Fabricii ' || n % 200 + 1,
            {element("Cluj-Napoca Bucuresti Timisoara Iasi Brasov", "n")}, lpad((400000 + n % 9999)::text, 6, '0'),
            {NOW}, {NOW}
        FROM generate_series(1, {s.customers}) AS n""",
    ]


def carts_and_quotes(s: Sizes) -> list[str]:
    """Migration 0003, first half: carts and quotes."""
    variants = s.products * 2
    return [
        f"""INSERT INTO b2b.carts (id, customer_id, status, created_at, updated_at)
        SELECT {uid("cart", "n")}, {uid("customer", s.pick("n", s.customers, 4))},
            {element("open converted converted abandoned", "n")}::b2b_cart_status, {NOW}, {NOW}
        FROM generate_series(1, {s.carts}) AS n""",
        f"""INSERT INTO b2b.cart_items (id, cart_id, variant_id, quantity, unit_price, created_at, updated_at)
        SELECT {uid("cart_item", "n * 4 + i")}, {uid("cart", "n")},
            {uid("variant", f"1 + (n * 31 + i) % {variants}")}, 1 + n % 9, 10 + n % 500, {NOW}, {NOW}
        FROM generate_series(1, {s.carts}) AS n, generate_series(1, 2) AS i""",
        f"""INSERT INTO b2b.quotes (id, customer_id, cart_id, status, valid_until, total, created_at, updated_at)
        SELECT {uid("quote", "n")}, {uid("customer", s.pick("n", s.customers, 4))}, {uid("cart", "n")},
            {element("draft sent accepted rejected expired", "n")}::b2b_quote_status, date '2026-03-01',
            (1 + n % 20) * (10 + n % 300), {NOW}, {NOW}
        FROM generate_series(1, {s.quotes}) AS n""",
        f"""INSERT INTO b2b.quote_items (id, quote_id, variant_id, quantity, unit_price, created_at, updated_at)
        SELECT {uid("quote_item", "n")}, {uid("quote", "n")}, {uid("variant", s.pick("n", variants, 5))},
            1 + n % 20, 10 + n % 300, {NOW}, {NOW}
        FROM generate_series(1, {s.quotes}) AS n""",
        f"""INSERT INTO b2b.quote_items_snapshot (quote_item_id, product, taken_at)
        SELECT {uid("quote_item", "n")}, jsonb_build_object('quantity', 1 + n % 20, 'unit_price', 10 + n % 300), {NOW}
        FROM generate_series(1, {s.quotes}) AS n""",
    ]


def order_amounts(s: Sizes) -> str:
    """Return SQL for the net sum of the three lines of order n, the same figures as in the items."""
    return " + ".join(f"{item_quantity(i)} * {item_price(s, i)}" for i in ("1", "2", "3"))


def item_quantity(line: str) -> str:
    """Return SQL for the quantity of a line of order n."""
    return f"(1 + (n + {line}) % 12)"


def item_product(s: Sizes, line: str) -> str:
    """Return SQL for the number of the product in a line of order n."""
    return s.pick(f"(n * 3 + {line})", s.products, 6)


def item_price(s: Sizes, line: str) -> str:
    """Return SQL for the price of a line of order n: the list price of its product."""
    return f"({s.pick(item_product(s, line), 90_000, 1)} / 100.0)"


def orders(s: Sizes) -> list[str]:
    """Migration 0003, second half: orders over two years, their lines, snapshots and shipments."""
    placed = f"{NOW} - ({s.orders} - n) * (interval '730 days' / {s.orders})"
    return [
        f"""INSERT INTO b2b.orders (id, order_no, customer_id, shipping_address_id, cart_id, status, payment_status,
            shipping_status, subtotal, discount_total, tax_total, shipping_total, external_ref, notes, approved_at,
            created_at, updated_at)
        SELECT {uid("order", "n")}, n, {uid("customer", "c")}, {uid("address", "c")},
            CASE WHEN n <= {s.carts} THEN {uid("cart", "n")} END,
            {element("completed completed completed in_fulfilment approved pending_approval cancelled", "n")}
                ::b2b_order_status,
            {element("paid paid paid partially_paid pending", "n / 7")}::b2b_payment_status,
            {element("delivered delivered delivered partially_shipped not_shipped", "n")}::b2b_shipping_status,
            net, round(net * (n % 4) / 100, 2), round(net * 0.19, 2), 25,
            CASE WHEN n % 3 > 0 THEN 'PO-' || 700000 + n END,
            CASE WHEN n % 4 = 0 THEN 'Deliver to gate ' || n % 9 + 1 || ', call before arrival; unload by forklift' END,
            placed + interval '2 hours', placed, placed + interval '1 day'
        FROM generate_series(1, {s.orders}) AS n,
            LATERAL (SELECT {s.pick("n", s.customers, 4)} AS c, {placed} AS placed, {order_amounts(s)} AS net) AS x""",
        restart_identity("b2b.orders", "order_no"),
        f"""INSERT INTO b2b.order_items (id, order_id, line_no, product_id, variant_id, quantity, quantity_shipped,
            unit_price, created_at, updated_at)
        SELECT {uid("item", "n * 4 + i")}, {uid("order", "n")}, i, {uid("product", "p")}, {uid("variant", "p * 2 - 1")},
            {item_quantity("i")}, CASE WHEN n % 5 < 3 THEN {item_quantity("i")} ELSE 0 END, {item_price(s, "i")},
            {placed}, {placed}
        FROM generate_series(1, {s.orders}) AS n, generate_series(1, 3) AS i,
            LATERAL (SELECT {item_product(s, "i")} AS p) AS x""",
        f"""INSERT INTO b2b.order_items_snapshot (order_item_id, product, taken_at)
        SELECT {uid("item", "n * 4 + i")}, jsonb_build_object(
            'sku', 'SKU-' || lpad(p::text, 6, '0') || '-1', 'unit_price', {item_price(s, "i")}, 'vat_rate', 19,
            'currency', 'RON', 'pack_size', 1), {placed}
        FROM generate_series(1, {s.orders}) AS n, generate_series(1, 3) AS i,
            LATERAL (SELECT {item_product(s, "i")} AS p) AS x""",
        f"""INSERT INTO b2b.order_shipments (id, order_id, carrier, tracking_number, status, shipped_at, delivered_at,
            created_at, updated_at)
        SELECT {uid("shipment", "n")}, {uid("order", "n")}, {element("FanCourier Cargus Sameday", "n")},
            'AWB' || 100000000 + n, 'delivered', {placed} + interval '1 day', {placed} + interval '3 days', {NOW}, {NOW}
        FROM generate_series(1, {s.orders}) AS n WHERE n % 5 < 3""",
    ]


def credit(s: Sizes) -> list[str]:
    """Migration 0004: an account a customer, invoices with their debit and, for most, the payment."""
    customer = s.pick("n", s.customers, 4)
    due = "(SELECT grand_total FROM b2b.orders AS o WHERE o.id = x.order_id)"
    return [
        f"""INSERT INTO b2b.credit_accounts (id, customer_id, status, credit_limit, created_at, updated_at)
        SELECT {uid("account", "n")}, {uid("customer", "n")},
            (CASE WHEN n % 25 = 0 THEN 'on_hold' ELSE 'active' END)::b2b_credit_status, 5000 * (1 + n % 20), {NOW}, {NOW}
        FROM generate_series(1, {s.customers}) AS n""",
        f"""INSERT INTO b2b.credit_reservations (id, account_id, order_id, amount, status, expires_at, created_at,
            updated_at)
        SELECT {uid("reservation", "n")}, {uid("account", customer)}, {uid("order", "n")}, 100 + n % 900,
            {element("active consumed consumed released expired", "n")}::b2b_reservation_status,
            {NOW} + interval '10 years', {NOW}, {NOW}
        FROM generate_series(1, least({s.reservations}, {s.orders})) AS n""",
        f"""INSERT INTO b2b.credit_invoices (id, invoice_no, account_id, order_id, total, issued_on, due_on, created_at,
            updated_at)
        SELECT {uid("invoice", "n")}, n, {uid("account", customer)}, x.order_id, {due}, date '2025-06-01' + n % 200,
            date '2025-07-01' + n % 200, {NOW}, {NOW}
        FROM generate_series(1, {s.invoices}) AS n, LATERAL (SELECT {uid("order", "n")} AS order_id) AS x""",
        restart_identity("b2b.credit_invoices", "invoice_no"),
        f"""INSERT INTO b2b.credit_invoice_items (id, invoice_id, order_item_id, quantity, unit_price, created_at,
            updated_at)
        SELECT {uid("invoice_item", "n * 4 + i")}, {uid("invoice", "n")}, {uid("item", "n * 4 + i")},
            {item_quantity("i")}, {item_price(s, "i")}, {NOW}, {NOW}
        FROM generate_series(1, {s.invoices}) AS n, generate_series(1, 3) AS i""",
        f"""INSERT INTO b2b.credit_ledger (id, account_id, order_id, entry_type, amount, description, created_at)
        SELECT {uid("ledger", "n")}, i.account_id, i.order_id, 'debit', i.total, 'Invoice ' || n, i.issued_on
        FROM generate_series(1, {s.invoices}) AS n JOIN b2b.credit_invoices AS i ON i.id = {uid("invoice", "n")}""",
        f"""INSERT INTO b2b.credit_ledger (id, account_id, order_id, entry_type, amount, description, created_at)
        SELECT {uid("ledger", f"{s.invoices} + n")}, i.account_id, i.order_id, 'credit', -i.total,
            'Payment of invoice ' || n, i.due_on
        FROM generate_series(1, {s.invoices}) AS n JOIN b2b.credit_invoices AS i ON i.id = {uid("invoice", "n")}
        WHERE n % 5 < 4""",
        f"""INSERT INTO b2b.credit_ledger (id, account_id, order_id, reservation_id, entry_type, amount, created_at)
        SELECT {uid("ledger", f"{s.invoices * 2} + n")}, r.account_id, r.order_id, r.id, 'reservation', r.amount, {NOW}
        FROM generate_series(1, {s.reservations}) AS n
        JOIN b2b.credit_reservations AS r ON r.id = {uid("reservation", "n")}""",
        f"""INSERT INTO b2b.credit_transactions (id, account_id, ledger_id, payment_reference, paid_at, created_at,
            updated_at)
        SELECT {uid("transaction", "n")}, l.account_id, l.id, 'OP ' || n, l.created_at, {NOW}, {NOW}
        FROM generate_series(1, {s.invoices}) AS n
        JOIN b2b.credit_ledger AS l ON l.id = {uid("ledger", f"{s.invoices} + n")}""",
        # The trigger keeps the balance when it is on; a bulk load has it off.
        """UPDATE b2b.credit_accounts AS a SET balance = l.total, updated_at = a.created_at
        FROM (SELECT account_id, sum(amount) AS total FROM b2b.credit_ledger
            WHERE entry_type IN ('debit', 'credit', 'adjustment') GROUP BY account_id) AS l
        WHERE l.account_id = a.id""",
    ]


def outbox(s: Sizes) -> list[str]:
    """Migration 0005: events of ninety days, so in three monthly partitions and the default one."""
    created = f"{NOW} - ({s.events} - n) * (interval '90 days' / {s.events})"
    return [
        f"""INSERT INTO shared.outbox_events (id, domain, event_type, source_entity_type, source_entity_id,
            correlation_id, priority, status, payload, attempts, last_error_code, last_error, published_at, created_at)
        SELECT {uid("event", "n")}, 'order', 'order.placed', 'order', {uid("order", f"1 + n % {s.orders}")},
            {uid("event", "n / 3 + 1")}, {element("low normal normal high critical", "n")}::shared_event_priority,
            status, jsonb_build_object('order_no', 1 + n % {s.orders}, 'total', n % 5000),
            CASE status WHEN 'failed' THEN 3 WHEN 'published' THEN 1 ELSE 0 END,
            CASE status WHEN 'failed' THEN 'E_TIMEOUT' END, CASE status WHEN 'failed' THEN 'no answer in 30 s' END,
            CASE status WHEN 'published' THEN {created} + interval '2 seconds' END, {created}
        FROM generate_series(1, {s.events}) AS n, LATERAL (SELECT (CASE
            WHEN n % 50 = 7 THEN 'failed' WHEN n % 97 = 5 THEN 'discarded' WHEN n > {s.events} * 0.99 THEN 'pending'
            ELSE 'published' END)::shared_outbox_status AS status) AS x""",
        f"""INSERT INTO shared.processed_events (event_id, consumer, event_type, status, worker, duration_ms,
            processed_at)
        SELECT {uid("event", "n")}, 'erp-sync', 'order.placed', 'succeeded', 'worker-' || n % 4, n % 300, {created}
        FROM generate_series(1, {s.events}) AS n WHERE n % 2 = 0""",
        f"""INSERT INTO shared.dead_letter_queue (id, event_id, consumer, reason, resolved_at, created_at)
        SELECT {uid("dead_letter", "n")}, {uid("event", "n")}, 'erp-sync', 'no answer in 30 s',
            CASE WHEN n % 100 = 7 THEN {NOW} END, {created}
        FROM generate_series(1, {s.events}) AS n WHERE n % 50 = 7""",
        f"""INSERT INTO shared.event_replay (id, dead_letter_id, requested_by, requested_at, replayed_at)
        SELECT {uid("replay", "n")}, {uid("dead_letter", "n")}, 'operator', {NOW}, {NOW}
        FROM generate_series(1, {s.events}) AS n WHERE n % 100 = 7""",
    ]


def restart_identity(table: str, column: str) -> str:
    """Return SQL that sets an identity column's sequence behind the numbers loaded."""
    return f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), max({column})) FROM {table}"


PARTS = (("0002", catalog), ("0003", carts_and_quotes), ("0003", orders), ("0004", credit), ("0005", outbox))


def load(connection: Any, orders: int = 1000, upto: str = "0003", seed: int = 1) -> None:
    """Fill the tables of the migrations up to `upto`, which must be empty, in one transaction.

    A superuser's load skips triggers and foreign key checks (the data are right by construction), which halves its
    time. Raises ValueError for fewer than one order, psycopg2.Error when a table is missing or holds rows already.
    """
    sizes = Sizes(orders, seed)
    with connection, connection.cursor() as cursor:
        # Dates become times in the session's zone.
        cursor.execute("SET LOCAL TimeZone = 'UTC'; SET LOCAL synchronous_commit = off")
        cursor.execute(
            "SELECT set_config('session_replication_role', 'replica', true) "
            "FROM pg_roles WHERE rolname = current_user AND rolsuper"
        )
        for version, part in PARTS:
            for statement in part(sizes) if version <= upto else ():
                cursor.execute(statement)
    refresh_statistics(connection, vacuum=orders >= VACUUM_FROM_ORDERS)


def refresh_statistics(connection: Any, vacuum: bool) -> None:
    """Analyze the database; with `vacuum`, also do the work that the first reader of new rows would do."""
    before = connection.autocommit
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute("VACUUM (ANALYZE)" if vacuum else "ANALYZE")
    finally:
        connection.autocommit = before


def main() -> None:
    """Command line: python -m tests.cypher_erp.data --orders 1000 --upto 0003."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=1000)
    parser.add_argument("--upto", default="0003", help="last applied migration")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    connection = connect_from_environment("cypher-erp data")
    try:
        load(connection, options.orders, options.upto, options.seed)
    finally:
        connection.close()


if __name__ == "__main__":
    main()
