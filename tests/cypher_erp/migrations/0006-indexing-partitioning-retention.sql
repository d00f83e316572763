-- Migration 0006: indexes, partition maintenance, retention
-- Cypher ERP, B2B module and shared
--
-- Needs 0005. The outbox is a partitioned table since 0005; this migration adds what maintains it. It creates no
-- partition itself: the job that calls shared.maintain_outbox_partitions() does.

-- UP

-- Catalogue
CREATE INDEX idx_products_name_fts ON b2b.products
    USING gin (to_tsvector('simple', name || ' ' || coalesce(description, '')));
CREATE INDEX idx_products_catalog_listing ON b2b.products (category, name) WHERE status = 'active';
CREATE INDEX idx_products_price_range ON b2b.products (list_price) WHERE status = 'active';
CREATE INDEX idx_products_category_brand ON b2b.products (category, brand);

-- Stock
CREATE INDEX idx_stock_low_stock ON b2b.stock_levels (warehouse_code, variant_id) WHERE status <> 'in_stock';
CREATE INDEX idx_stock_check ON b2b.stock_levels (variant_id) INCLUDE (warehouse_code, quantity_available);
CREATE INDEX idx_stock_warehouse_transfer ON b2b.stock_levels (warehouse_code, quantity_available DESC);

-- Prices
CREATE INDEX idx_price_current ON b2b.price_book_entries (variant_id, price_book_id) WHERE valid_to IS NULL;
CREATE INDEX idx_price_book_listing ON b2b.price_book_entries (price_book_id, price_type, min_quantity);

-- Orders
CREATE INDEX idx_orders_customer_history ON b2b.orders (customer_id, created_at DESC);
CREATE INDEX idx_orders_date_range ON b2b.orders USING brin (created_at);
CREATE INDEX idx_orders_external_lookup ON b2b.orders (external_ref) WHERE external_ref IS NOT NULL;
CREATE INDEX idx_orders_pending_approval ON b2b.orders (created_at) WHERE status = 'pending_approval';
CREATE INDEX idx_orders_payment_pending ON b2b.orders (customer_id, created_at)
    WHERE payment_status IN ('pending', 'partially_paid');
CREATE INDEX idx_order_items_product_sales ON b2b.order_items (product_id) INCLUDE (quantity, line_total);
CREATE INDEX idx_order_items_pending_ship ON b2b.order_items (order_id) WHERE quantity_shipped < quantity;

-- Credit
CREATE INDEX idx_credit_ledger_account_type ON b2b.credit_ledger (account_id, entry_type, created_at DESC);
CREATE INDEX idx_credit_ledger_active_reservations ON b2b.credit_ledger (reservation_id)
    WHERE entry_type = 'reservation';
CREATE INDEX idx_credit_ledger_balance ON b2b.credit_ledger (account_id) INCLUDE (amount);
CREATE INDEX idx_credit_reservations_expiring ON b2b.credit_reservations (expires_at) WHERE status = 'active';
CREATE INDEX idx_credit_reservations_lookup ON b2b.credit_reservations (account_id, order_id, status);

-- Outbox: on the partitioned table, so on every partition, those to come included
CREATE INDEX idx_outbox_pending_processing ON shared.outbox_events (priority DESC, created_at)
    WHERE status = 'pending';
CREATE INDEX idx_outbox_correlation_chain ON shared.outbox_events (correlation_id, created_at);
CREATE INDEX idx_outbox_source_entity ON shared.outbox_events (source_entity_type, source_entity_id);

-- Partitions
CREATE FUNCTION b2b.create_monthly_partition(parent_schema TEXT, parent_table TEXT, first_month DATE, months INTEGER)
RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    created integer := 0;
    lower_bound timestamptz;
    upper_bound timestamptz;
    partition_name text;
BEGIN
    FOR n IN 0 .. months - 1 LOOP
        lower_bound := (date_trunc('month', first_month::timestamp) + make_interval(months => n)) AT TIME ZONE 'UTC';
        upper_bound := (date_trunc('month', first_month::timestamp) + make_interval(months => n + 1))
            AT TIME ZONE 'UTC';
        partition_name := parent_table || to_char(lower_bound AT TIME ZONE 'UTC', '"_"YYYY"_"MM');
        CONTINUE WHEN to_regclass(format('%I.%I', parent_schema, partition_name)) IS NOT NULL;
        EXECUTE format(
            'CREATE TABLE %1$I.%2$I (LIKE %1$I.%3$I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
            parent_schema, partition_name, parent_table
        );
        -- A partition cannot be attached while the default one holds rows of its month.
        EXECUTE format(
            'WITH moved AS (DELETE FROM %1$I.%2$I WHERE created_at >= %4$L AND created_at < %5$L RETURNING *) '
            'INSERT INTO %1$I.%3$I SELECT * FROM moved',
            parent_schema, parent_table || '_default', partition_name, lower_bound, upper_bound
        );
        EXECUTE format(
            'ALTER TABLE %1$I.%2$I ATTACH PARTITION %1$I.%3$I FOR VALUES FROM (%4$L) TO (%5$L)',
            parent_schema, parent_table, partition_name, lower_bound, upper_bound
        );
        created := created + 1;
    END LOOP;
    RETURN created;
END
$$;
COMMENT ON FUNCTION b2b.create_monthly_partition(TEXT, TEXT, DATE, INTEGER)
    IS 'Adds the missing partitions of so many months, and moves their rows out of the default one';

CREATE FUNCTION shared.maintain_outbox_partitions(months_ahead INTEGER) RETURNS integer
LANGUAGE sql AS $$
    SELECT b2b.create_monthly_partition('shared', 'outbox_events', current_date, months_ahead + 1)
$$;

CREATE VIEW shared.partition_sizes AS
SELECT
    pn.nspname AS parent_schema,
    p.relname AS parent_table,
    c.relname AS partition_name,
    pg_catalog.pg_get_expr(c.relpartbound, c.oid) AS bounds,
    pg_catalog.pg_total_relation_size(c.oid) AS total_bytes
FROM pg_catalog.pg_inherits AS i
JOIN pg_catalog.pg_class AS p ON p.oid = i.inhparent AND p.relkind = 'p'
JOIN pg_catalog.pg_namespace AS pn ON pn.oid = p.relnamespace
JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid;

CREATE VIEW shared.partition_row_counts AS
SELECT pn.nspname AS parent_schema, p.relname AS parent_table, c.relname AS partition_name,
    greatest(c.reltuples, 0)::bigint AS estimated_rows
FROM pg_catalog.pg_inherits AS i
JOIN pg_catalog.pg_class AS p ON p.oid = i.inhparent AND p.relkind = 'p'
JOIN pg_catalog.pg_namespace AS pn ON pn.oid = p.relnamespace
JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid;

CREATE VIEW shared.index_usage_stats AS
SELECT schemaname, relname AS table_name, indexrelname AS index_name, idx_scan, idx_tup_read,
    pg_catalog.pg_relation_size(indexrelid) AS index_bytes
FROM pg_catalog.pg_stat_user_indexes
WHERE schemaname IN ('b2b', 'erp', 'shared');

CREATE VIEW shared.table_sizes AS
SELECT schemaname, relname AS table_name, n_live_tup AS estimated_rows,
    pg_catalog.pg_table_size(relid) AS table_bytes, pg_catalog.pg_indexes_size(relid) AS index_bytes
FROM pg_catalog.pg_stat_user_tables
WHERE schemaname IN ('b2b', 'erp', 'shared');

-- Retention
CREATE FUNCTION b2b.expire_old_reservations() RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    expired integer;
BEGIN
    UPDATE b2b.credit_reservations SET status = 'expired' WHERE status = 'active' AND expires_at <= now();
    GET DIAGNOSTICS expired = ROW_COUNT;
    RETURN expired;
END
$$;

CREATE FUNCTION b2b.manage_retention(in_schema TEXT, in_table TEXT, keep_days INTEGER, time_column TEXT)
RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    removed bigint;
BEGIN
    IF keep_days < 1 THEN
        RAISE EXCEPTION 'keep_days must be at least 1, not %', keep_days;
    END IF;
    EXECUTE format('DELETE FROM %I.%I WHERE %I < now() - make_interval(days => $1)', in_schema, in_table, time_column)
    USING keep_days;
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END
$$;

CREATE FUNCTION b2b.archive_old_credit_ledger(keep_days INTEGER) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    removed bigint;
BEGIN
    -- One adjustment an account stands for the rows that go, so that the sum of the ledger stays the balance.
    WITH gone AS (
        DELETE FROM b2b.credit_ledger AS l
        WHERE l.created_at < now() - make_interval(days => keep_days)
            AND l.entry_type IN ('debit', 'credit', 'adjustment')
            AND NOT EXISTS (SELECT FROM b2b.credit_transactions AS t WHERE t.ledger_id = l.id)
        RETURNING l.account_id, l.amount
    ), carried AS (
        INSERT INTO b2b.credit_ledger (account_id, entry_type, amount, description)
        SELECT account_id, 'adjustment', sum(amount), 'Carried forward'
        FROM gone
        GROUP BY account_id
        HAVING sum(amount) <> 0
        RETURNING account_id, amount
    ), restored AS (
        UPDATE b2b.credit_accounts AS a SET balance = a.balance - g.total
        FROM (SELECT account_id, sum(amount) AS total FROM gone GROUP BY account_id) AS g
        WHERE g.account_id = a.id
    )
    SELECT count(*) INTO removed FROM gone;
    RETURN removed;
END
$$;

CREATE FUNCTION shared.archive_old_outbox_events(keep_days INTEGER) RETURNS integer
LANGUAGE sql AS $$
    SELECT shared.archive_published_events(keep_days)
$$;

CREATE FUNCTION shared.cleanup_discarded_events(keep_days INTEGER) RETURNS integer
LANGUAGE sql AS $$
    SELECT shared.delete_discarded_events(keep_days)
$$;

CREATE FUNCTION shared.cleanup_resolved_dlq(keep_days INTEGER) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    removed integer;
BEGIN
    DELETE FROM shared.dead_letter_queue WHERE resolved_at < now() - make_interval(days => keep_days);
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END
$$;

-- Upkeep
CREATE FUNCTION b2b.analyze_all_tables() RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    item record;
    analyzed integer := 0;
BEGIN
    FOR item IN SELECT schemaname, tablename FROM pg_catalog.pg_tables WHERE schemaname IN ('b2b', 'erp', 'shared') LOOP
        EXECUTE format('ANALYZE %I.%I', item.schemaname, item.tablename);
        analyzed := analyzed + 1;
    END LOOP;
    RETURN analyzed;
END
$$;

-- VACUUM cannot run in a function: this one analyzes, and returns the commands for a job that can.
CREATE FUNCTION b2b.vacuum_analyze_all_tables() RETURNS SETOF text
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM b2b.analyze_all_tables();
    RETURN QUERY
    SELECT format('VACUUM (ANALYZE) %I.%I', s.schemaname, s.relname)
    FROM pg_catalog.pg_stat_user_tables AS s
    WHERE s.schemaname IN ('b2b', 'erp', 'shared') AND s.n_dead_tup > 0
    ORDER BY s.n_dead_tup DESC;
END
$$;

CREATE FUNCTION b2b.reindex_table(in_schema TEXT, in_table TEXT) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('REINDEX TABLE %I.%I', in_schema, in_table);
END
$$;

REVOKE ALL ON FUNCTION b2b.reindex_table(TEXT, TEXT), b2b.manage_retention(TEXT, TEXT, INTEGER, TEXT) FROM PUBLIC;
REVOKE ALL ON FUNCTION b2b.reindex_table(TEXT, TEXT), b2b.manage_retention(TEXT, TEXT, INTEGER, TEXT) FROM b2b_rw;

-- DOWN (Rollback)
DROP FUNCTION IF EXISTS b2b.reindex_table(TEXT, TEXT) CASCADE;
DROP FUNCTION IF EXISTS b2b.vacuum_analyze_all_tables() CASCADE;
DROP FUNCTION IF EXISTS b2b.analyze_all_tables() CASCADE;

DROP FUNCTION IF EXISTS shared.cleanup_resolved_dlq(INTEGER) CASCADE;
DROP FUNCTION IF EXISTS shared.cleanup_discarded_events(INTEGER) CASCADE;
DROP FUNCTION IF EXISTS shared.archive_old_outbox_events(INTEGER) CASCADE;
DROP FUNCTION IF EXISTS b2b.archive_old_credit_ledger(INTEGER) CASCADE;
DROP FUNCTION IF EXISTS b2b.manage_retention(TEXT, TEXT, INTEGER, TEXT) CASCADE;

DROP FUNCTION IF EXISTS b2b.expire_old_reservations() CASCADE;

DROP VIEW IF EXISTS shared.table_sizes;
DROP VIEW IF EXISTS shared.index_usage_stats;
DROP VIEW IF EXISTS shared.partition_row_counts;
DROP VIEW IF EXISTS shared.partition_sizes;

DROP FUNCTION IF EXISTS shared.maintain_outbox_partitions(INTEGER) CASCADE;
DROP FUNCTION IF EXISTS b2b.create_monthly_partition(TEXT, TEXT, DATE, INTEGER) CASCADE;

DROP INDEX IF EXISTS idx_outbox_source_entity;
DROP INDEX IF EXISTS idx_outbox_correlation_chain;
DROP INDEX IF EXISTS idx_outbox_pending_processing;

DROP INDEX IF EXISTS idx_credit_reservations_lookup;
DROP INDEX IF EXISTS idx_credit_reservations_expiring;

DROP INDEX IF EXISTS idx_credit_ledger_balance;
DROP INDEX IF EXISTS idx_credit_ledger_active_reservations;
DROP INDEX IF EXISTS idx_credit_ledger_account_type;

DROP INDEX IF EXISTS idx_order_items_pending_ship;
DROP INDEX IF EXISTS idx_order_items_product_sales;

DROP INDEX IF EXISTS idx_orders_payment_pending;
DROP INDEX IF EXISTS idx_orders_pending_approval;
DROP INDEX IF EXISTS idx_orders_external_lookup;
DROP INDEX IF EXISTS idx_orders_date_range;
DROP INDEX IF EXISTS idx_orders_customer_history;

DROP INDEX IF EXISTS idx_price_book_listing;
DROP INDEX IF EXISTS idx_price_current;

DROP INDEX IF EXISTS idx_stock_warehouse_transfer;
DROP INDEX IF EXISTS idx_stock_check;
DROP INDEX IF EXISTS idx_stock_low_stock;

DROP INDEX IF EXISTS idx_products_category_brand;
DROP INDEX IF EXISTS idx_products_price_range;
DROP INDEX IF EXISTS idx_products_catalog_listing;
DROP INDEX IF EXISTS idx_products_name_fts;
